//! The uplinks: with `--upstream` the relay joins, at another relay, the swarms that have peers here.
//!
//! One thread with an event loop of its own has all of them. The relay tells it which swarms have peers; each of those
//! gets a [`Bridge`] of two ordinary peers, one at either relay. No shard waits for any of it, and while the other relay
//! is away, peers here go on with what they have together.

mod standing;
mod supervisor;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use shards::Driver;

use self::supervisor::{Supervisor, UPLINKS_MAX, Way, Ways};
use super::own::reachable;
use crate::{
    client::{Remote, Shelf},
    config::Upstream,
    protocol::{Pin, Token},
    server::{
        Companion, Config,
        uplinks::{SwarmNews, UplinkPort},
    },
    transport::Trust,
};

/// The uplinks' thread, before it runs.
pub(super) struct Uplinks {
    upstream: Upstream,
    own: (Pin, Option<Token>),
    shelf_bytes: u64,
    relay_id: u64,
    driver: Driver,
    port: UplinkPort,
    news: Option<mpsc::Receiver<SwarmNews>>,
    running: Option<(Arc<AtomicBool>, thread::JoinHandle<()>)>,
}

impl Uplinks {
    /// To that relay, from the one with this pin, where this token is known.
    pub(super) fn prepare(
        upstream: Upstream,
        config: &Config,
        own: (Pin, Option<Token>),
        driver: Driver,
    ) -> Self {
        let (port, news) = UplinkPort::new();
        let (shelf_bytes, relay_id) = (config.shelf_bytes, config.relay_id);
        let (news, running) = (Some(news), None);
        Self { upstream, own, shelf_bytes, relay_id, driver, port, news, running }
    }
}

impl Companion for Uplinks {
    fn connections(&self) -> usize {
        UPLINKS_MAX
    }

    fn uplinks(&self) -> Option<UplinkPort> {
        Some(self.port.clone())
    }

    fn start(&mut self, listening: &[SocketAddr]) -> anyhow::Result<Vec<String>> {
        let (Some(&first), Some(news)) = (listening.first(), self.news.take()) else {
            return Ok(Vec::new());
        };
        tracing::info!(
            "files that this relay's peers want or have are also got and given at {}",
            self.upstream.relay
        );
        let stopping = Arc::new(AtomicBool::new(false));
        let (pin, token) = self.own.clone();
        let up = Way {
            remote: Remote::Named(self.upstream.relay.addr.clone()),
            trust: self.upstream.belief.trust().clone(),
            token: self.upstream.token.clone(),
        };
        let down = Way { remote: reachable(first).into(), trust: Trust::pinned(pin), token };
        let (upstream, relay_id, shelf) =
            (self.upstream.clone(), self.relay_id, Shelf::new(self.shelf_bytes));
        let (cells, stops, driver) =
            (Arc::clone(&self.port.cells), Arc::clone(&stopping), self.driver);
        let run = move || {
            let supervisor = Supervisor::new(Ways { up, down }, shelf, relay_id, upstream, cells);
            if let Err(error) = shards::block_on(driver, supervisor.run(news, stops)) {
                tracing::error!("the uplinks' event loop can't start: {error}");
            }
        };
        let thread = thread::Builder::new().name("relay-uplinks".into()).spawn(run);
        let thread = thread.map_err(|error| crate::server::no_thread("relay-uplinks", &error))?;
        self.running = Some((stopping, thread));
        Ok(Vec::new())
    }

    fn stop(&mut self) {
        if let Some((stopping, thread)) = self.running.take() {
            stopping.store(true, Ordering::Relaxed);
            if thread.join().is_err() {
                tracing::error!("the uplinks panicked");
            }
        }
    }
}
