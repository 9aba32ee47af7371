//! A network that misbehaves on demand, in user space: peers connect to the proxy, the proxy to the
//! relay, and what goes through is lost, delayed, doubled, reordered, damaged, or held back.
//!
//! One port for streams and datagrams, as a relay has it. All decisions come from a seed; when they
//! fall is up to the system. One thread of its own; all queues are bounded. Of what it carries it
//! knows only where file bytes are.

mod datagrams;
mod line;
mod stream;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

use super::in_background;

/// So many parts are the whole, in shares of what goes wrong.
pub(crate) const MILLION: u64 = 1_000_000;

/// What goes wrong. Nothing by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Everything comes later by this.
    pub(crate) delay: Duration,
    /// And by up to so much more, each piece for itself. Streams stay in order.
    pub(crate) jitter: Duration,
    /// Datagrams of a million that are lost. A piece of a stream can't be: it comes as late as a
    /// retransmission would, and holds up what follows.
    pub(crate) lost: u64,
    /// Datagrams of a million that come twice.
    pub(crate) doubled: u64,
    /// Datagrams of a million that later ones overtake.
    pub(crate) overtaken: u64,
    /// Pieces of a million in which one bit is turned. Of streams only in file bytes.
    pub(crate) damaged: u64,
    /// Bytes a second for each flow and direction. Datagrams that would wait for long are lost.
    pub(crate) rate: Option<u64>,
    /// Longer datagrams are lost.
    pub(crate) datagram_bytes_max: Option<usize>,
    /// Nothing goes through: streams stand still, datagrams are lost.
    pub(crate) black_hole: bool,
}

/// How often each thing happened.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    pub(crate) streams: AtomicU64,
    pub(crate) stream_bytes: AtomicU64,
    pub(crate) datagrams: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) doubled: AtomicU64,
    pub(crate) overtaken: AtomicU64,
    pub(crate) damaged: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Happened {
    /// All that went wrong.
    pub(crate) fn faults(&self) -> u64 {
        [&self.lost, &self.doubled, &self.overtaken, &self.damaged]
            .map(|counter| counter.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

/// What the tasks of a proxy know of its owner's wishes.
#[derive(Clone)]
struct Wishes {
    relay: SocketAddr,
    seed: u64,
    faults: watch::Receiver<Faults>,
    resets: watch::Receiver<u64>,
    rebinds: watch::Receiver<u64>,
    moves: watch::Receiver<u64>,
    happened: Arc<Happened>,
}

impl Wishes {
    fn now(&self) -> Faults {
        *self.faults.borrow()
    }

    /// Waits out a black hole.
    async fn passable(&mut self) {
        // The owner ends the proxy before it goes: then nothing waits here.
        self.faults.wait_for(|faults| !faults.black_hole).await.ok();
    }
}

/// A proxy; ends when dropped.
pub(crate) struct Proxy {
    /// Where peers connect to.
    pub(crate) addr: SocketAddr,
    /// What has gone wrong so far.
    pub(crate) happened: Arc<Happened>,
    faults: watch::Sender<Faults>,
    resets: watch::Sender<u64>,
    rebinds: watch::Sender<u64>,
    moves: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Carries everything to `relay`, with these faults from the start.
    ///
    /// # Panics
    /// The system gives no port.
    pub(crate) fn start(relay: SocketAddr, seed: u64, faults: Faults) -> Self {
        println!("faults from seed {seed}: {faults:?}");
        let (listener, datagrams) = bind();
        let addr = listener.local_addr().expect("bound");
        let (faults, faults_seen) = watch::channel(faults);
        let (resets, resets_seen) = watch::channel(0);
        let (rebinds, rebinds_seen) = watch::channel(0);
        let (moves, moves_seen) = watch::channel(0);
        let (stop, mut stopped) = watch::channel(false);
        let happened = Arc::new(Happened::default());
        let wishes = Wishes {
            relay,
            seed,
            faults: faults_seen,
            resets: resets_seen,
            rebinds: rebinds_seen,
            moves: moves_seen,
            happened: Arc::clone(&happened),
        };
        let running = in_background(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket can be watched");
                let datagrams = UdpSocket::from_std(datagrams).expect("a socket can be watched");
                tokio::select! {
                    () = stream::accept(listener, wishes.clone()) => {}
                    () = datagrams::carry(datagrams, wishes) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        Self { addr, happened, faults, resets, rebinds, moves, stop, running: Some(running) }
    }

    /// From now on this goes wrong.
    pub(crate) fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Cuts every stream, as a middlebox that forgot them would.
    pub(crate) fn reset_streams(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// All are at another address from now on: datagrams come from there, and streams that are there
    /// carry nothing any more, and neither end is told.
    pub(crate) fn move_everybody(&self) {
        self.moves.send_modify(|count| *count += 1);
        self.change_addresses();
    }

    /// From now on the relay sees each flow of datagrams come from another address.
    pub(crate) fn change_addresses(&self) {
        self.rebinds.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(running) = self.running.take() {
            // It panicked: the test sees that by what does not get through.
            running.join().ok();
        }
    }
}

/// A port that is free for both.
fn bind() -> (std::net::TcpListener, std::net::UdpSocket) {
    for _ in 0..100 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let addr = listener.local_addr().expect("bound");
        if let Ok(datagrams) = std::net::UdpSocket::bind(addr) {
            listener.set_nonblocking(true).expect("a socket");
            datagrams.set_nonblocking(true).expect("a socket");
            return (listener, datagrams);
        }
    }
    panic!("no port is free for streams and datagrams");
}
