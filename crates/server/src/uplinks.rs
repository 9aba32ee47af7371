//! What a companion that runs the relay's uplinks is told, and tells: which swarms have peers here, and how its
//! uplinks do. Decides nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use relay_protocol::SwarmKey;

/// News under way to the companion, which takes all of them many times a second. What finds no room waits in its shard,
/// the latest of each swarm.
const NEWS_QUEUED_MAX: usize = 4096;

/// News of one swarm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwarmNews {
    /// Which.
    pub key: SwarmKey,
    /// What is new.
    pub presence: Presence,
}

/// Which peers a swarm has here, beside the end of this relay's own uplink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Some, and among them ends of uplinks that stand for these relays.
    Peers {
        /// Their numbers, ascending.
        below: Vec<u64>,
    },
    /// None any more.
    Nobody,
    /// None, and a peer that may only get has asked for it: it asks again within seconds.
    Asked,
}

/// How the uplinks do. Only the companion writes.
#[derive(Debug, Default)]
pub struct UplinkCells {
    swarms: AtomicU64,
    connected: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl UplinkCells {
    /// So many swarms have an uplink, and so many of these are connected at both ends.
    pub fn set(&self, swarms: usize, connected: usize) {
        self.swarms.store(swarms as u64, Ordering::Relaxed);
        self.connected.store(connected as u64, Ordering::Relaxed);
    }

    /// So many bytes of chunks have come from the upstream relay.
    pub fn add_in(&self, bytes: u64) {
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of chunks were given to the upstream relay.
    pub fn add_out(&self, bytes: u64) {
        self.out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Swarms, connected ones, bytes in and out.
    pub(crate) fn get(&self) -> [u64; 4] {
        [&self.swarms, &self.connected, &self.in_bytes, &self.out_bytes]
            .map(|cell| cell.load(Ordering::Relaxed))
    }
}

/// The shards' way to the companion. Clones are the same.
#[derive(Clone, Debug)]
pub struct UplinkPort {
    news: SyncSender<SwarmNews>,
    /// How the uplinks do.
    pub cells: Arc<UplinkCells>,
}

impl UplinkPort {
    /// And where its news arrive.
    #[must_use]
    pub fn new() -> (Self, Receiver<SwarmNews>) {
        let (news, arriving) = sync_channel(NEWS_QUEUED_MAX);
        (Self { news, cells: Arc::default() }, arriving)
    }
}

/// News of the swarms of one shard, on their way. Without a companion none are kept.
#[derive(Debug)]
pub(crate) struct Telling {
    port: Option<UplinkPort>,
    waiting: VecDeque<SwarmNews>,
}

impl Telling {
    pub(crate) fn new(port: Option<UplinkPort>) -> Self {
        Self { port, waiting: VecDeque::new() }
    }

    /// Whether anyone listens.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.port.is_some()
    }

    /// Tells the latest of a swarm.
    pub(crate) fn tell(&mut self, key: SwarmKey, presence: Presence) {
        if self.is_on() {
            self.waiting.retain(|news| news.key != key);
            self.waiting.push_back(SwarmNews { key, presence });
            self.flush();
        }
    }

    /// A peer asks for a swarm that is not here. Strangers may name any number of those: where others wait, it is not
    /// told, and asks again.
    pub(crate) fn tell_asked(&mut self, key: SwarmKey) {
        if self.waiting.is_empty() {
            self.tell(key, Presence::Asked);
            self.waiting.clear();
        }
    }

    /// Tells what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let (Some(port), Some(news)) = (&self.port, self.waiting.front()) {
            if port.news.try_send(news.clone()).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::digest_file;

    use super::*;

    fn key(size_bytes: u64) -> SwarmKey {
        SwarmKey { id: digest_file(&[]), size_bytes, chunk_size_log2: 10 }
    }

    #[test]
    fn the_latest_of_each_swarm_arrives_however_full_the_way_is() {
        let (port, arriving) = UplinkPort::new();
        let mut telling = Telling::new(Some(port));
        for size in 0..NEWS_QUEUED_MAX as u64 {
            telling.tell(key(size), Presence::Nobody);
        }
        for presence in [Presence::Peers { below: vec![1] }, Presence::Nobody] {
            telling.tell(key(0), presence);
        }
        telling.tell_asked(key(1));
        assert_eq!(telling.waiting.len(), 1);
        let first: Vec<_> = arriving.try_iter().collect();
        assert_eq!(first.len(), NEWS_QUEUED_MAX);
        telling.flush();
        let rest: Vec<_> = arriving.try_iter().collect();
        assert_eq!(rest, [SwarmNews { key: key(0), presence: Presence::Nobody }]);
        telling.tell_asked(key(2));
        assert_eq!(arriving.try_iter().count(), 1);
    }

    #[test]
    fn without_a_companion_nothing_is_kept() {
        let mut telling = Telling::new(None);
        telling.tell(key(1), Presence::Nobody);
        telling.tell_asked(key(2));
        assert!(telling.waiting.is_empty() && !telling.is_on());
    }
}
