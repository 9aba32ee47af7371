//! What a shard publishes of itself while it is watched: immutable, and no shard's afterwards.
//!
//! The control thread says until when it wants snapshots ([`Watch::want`]). A shard looks at that
//! ten times a second; while it holds, the shard copies what an onlooker may see into a
//! [`ShardSnapshot`] and tries to put it into a bounded channel. It never waits for the reader, and
//! spends at most a hundredth of its time on this. Without a watcher it is one atomic load.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shards::ShardId;
use tokio::sync::mpsc;

use crate::{
    home::departures::{Departure, Endings},
    message::{ConnectionRef, SwarmRef},
};
use relay_protocol::{SwarmKey, time::Time};
use relay_swarm::{ChunkPlace, Counters, PeerSlot, Wait};

/// Peers of a map, at most: a screen has no more rows. The others are counted and listed.
pub(crate) const MAP_ROWS_MAX: usize = 1024;

/// Snapshots under way to the control thread, of each shard.
const SNAPSHOTS_QUEUED_PER_SHARD: usize = 2;

/// Tells shards whether they are watched, and takes what they publish.
pub(crate) struct Watch {
    wanted_until_ns: AtomicU64,
    /// How often it was said that shards are watched: one that sleeps is woken to see it.
    calls: AtomicU64,
    snapshots: mpsc::Sender<Arc<ShardSnapshot>>,
}

impl Watch {
    /// For so many shards, and where their snapshots arrive.
    pub(crate) fn new(shard_count: usize) -> (Self, mpsc::Receiver<Arc<ShardSnapshot>>) {
        let capacity = shard_count.max(1) * SNAPSHOTS_QUEUED_PER_SHARD;
        let (snapshots, arriving) = mpsc::channel(capacity);
        let watch =
            Self { wanted_until_ns: AtomicU64::new(0), calls: AtomicU64::new(0), snapshots };
        (watch, arriving)
    }

    /// Shards are watched until then. Idle ones sleep: the caller rings their doorbells next.
    pub(crate) fn want(&self, until: Time) {
        self.wanted_until_ns.fetch_max(until.0, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Release);
    }

    /// Tells apart the calls that a shard has seen from those that it has not.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    /// A place for a shard's snapshot, if any is wanted and there is room on the way.
    pub(crate) fn place(&self, now: Time) -> Option<mpsc::Permit<'_, Arc<ShardSnapshot>>> {
        let is_wanted = now.0 < self.wanted_until_ns.load(Ordering::Relaxed);
        is_wanted.then(|| self.snapshots.try_reserve().ok()).flatten()
    }
}

/// One shard, at one time.
#[derive(Debug)]
pub(crate) struct ShardSnapshot {
    pub shard: ShardId,
    pub at: Time,
    /// Those that belong to a swarm, wherever its home is; in the order of their index.
    pub connections: Vec<ConnectionSnapshot>,
    /// Those that have their home here.
    pub swarms: Vec<Arc<SwarmSnapshot>>,
    /// The peers that have gone from those and from swarms that ended, of late, oldest first.
    pub departures: Vec<Departure>,
}

/// One connection, as its shard knows it.
#[derive(Debug)]
pub(crate) struct ConnectionSnapshot {
    pub reference: ConnectionRef,
    pub remote: SocketAddr,
    /// How long data has been waiting for it to take a byte.
    pub stalled: Duration,
    /// How long ago it last took a byte.
    pub quiet: Duration,
    /// What the relay dares to have under way to it.
    pub window_bytes: u64,
    /// What is under way to it.
    pub unacknowledged_bytes: u64,
}

/// One swarm, as its home knows it.
#[derive(Debug)]
pub(crate) struct SwarmSnapshot {
    pub key: SwarmKey,
    /// What an origin would have the file called.
    pub label: Option<Arc<str>>,
    pub reference: SwarmRef,
    pub counters: Counters,
    pub is_seeding: bool,
    pub has_manifest: bool,
    pub cached_count: u32,
    pub fetch_count: usize,
    pub starving_count: usize,
    pub missing_count: u32,
    /// How many have gone from it, and how.
    pub endings: Endings,
    /// The cached chunks that would be given up last, each with how many still need it.
    pub cached: Vec<(u32, u32)>,
    pub peers: Vec<PeerSnapshot>,
    pub map: Option<MapSnapshot>,
}

/// One peer, as its home knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSnapshot {
    pub connection: ConnectionRef,
    pub slot: PeerSlot,
    pub chunks_held: u32,
    /// Those that it had when it came.
    pub chunks_claimed: u32,
    pub wait: Wait,
    pub idle: Duration,
    pub deliveries: usize,
    pub fetches: u32,
    pub is_origin: bool,
    /// It has said that it would like to go.
    pub is_leaving: bool,
}

/// Peers by chunks.
#[derive(Debug)]
pub(crate) struct MapSnapshot {
    /// Every so many chunks one is shown: see [`super::map_row`].
    pub stride: u32,
    /// Where each shown chunk is.
    pub places: Vec<ChunkPlace>,
    /// One row for each of the first peers: bit `i % 8` of byte `i / 8` is set if the peer has
    /// the `i`-th shown chunk.
    pub bits: Vec<u8>,
    /// Bytes of a row.
    pub row_bytes: usize,
}

impl MapSnapshot {
    /// The rows, in the order of the peers.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.bits.chunks_exact(self.row_bytes.max(1))
    }
}
