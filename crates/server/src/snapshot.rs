//! What a shard publishes of itself while somebody watches: immutable, and nobody's afterwards.
//!
//! The control thread says until when it wants snapshots ([`Watch::want`]). A shard looks at that
//! ten times a second; while it holds, the shard copies what an onlooker may see into a
//! [`ShardSnapshot`] and tries to put it into a bounded channel. It never waits for the reader, and
//! spends at most a hundredth of its time on this. While nobody watches it is one atomic load.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shards::{ShardId, clock};
use tokio::sync::mpsc;

use super::{
    departures::{Departure, Endings},
    home::Home,
    message::{ConnectionRef, SwarmRef},
    shard::ShardState,
};
use relay_protocol::{Bitfield, SwarmKey, time::Time};
use relay_swarm::{ChunkPlace, Counters, PeerSlot, Wait};

/// How often a shard publishes at most: smooth enough to the eye.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// After a snapshot that took so long, the next comes at least so many times later: a shard with
/// 10,000 peers publishes less often, not at more cost.
const COST_FACTOR: u32 = 100;

/// However dear, a snapshot comes so often: watchers wait for it.
const PUBLISH_EVERY_MAX: Duration = Duration::from_secs(1);

/// Chunks of a map, at most: of larger files every 2nd, 4th, ... chunk is shown. About as many as
/// a screen has columns.
pub(crate) const MAP_COLUMNS_MAX: u32 = 4096;

/// Peers of a map, at most: a screen has no more rows. The others are counted and listed.
pub(crate) const MAP_ROWS_MAX: usize = 1024;

/// Swarms of a shard that come with a map, at most: those with the most peers. Together with the
/// two above it bounds a snapshot's maps to 4 MiB.
const MAPS_PER_SHARD_MAX: usize = 8;

/// Cached chunks that are listed with who still needs them.
const CACHED_LISTED_MAX: usize = 256;

/// Snapshots under way to the control thread, of each shard.
const SNAPSHOTS_QUEUED_PER_SHARD: usize = 2;

/// Tells shards whether somebody watches, and takes what they publish.
pub(crate) struct Watch {
    wanted_until_ns: AtomicU64,
    /// How often it was said that somebody watches: a shard that sleeps is woken to see it.
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

    /// Somebody watches until then. Idle shards sleep: whoever calls rings their doorbells next.
    pub(crate) fn want(&self, until: Time) {
        self.wanted_until_ns.fetch_max(until.0, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Release);
    }

    /// Tells apart the calls that a shard has seen from those that it has not.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    fn is_wanted(&self, now: Time) -> bool {
        now.0 < self.wanted_until_ns.load(Ordering::Relaxed)
    }
}

/// When a shard publishes next.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    next_at: Time,
}

impl Publisher {
    /// Publishes what there is to see, if somebody watches and it is time.
    pub(crate) fn run(&mut self, state: &Rc<ShardState>, now: Time) {
        let watch = &state.shared.watch;
        if now < self.next_at || !watch.is_wanted(now) {
            return;
        }
        // Without a place in the channel there is no need to look.
        let Ok(place) = watch.snapshots.try_reserve() else { return };
        let began = clock::now();
        place.send(Arc::new(ShardSnapshot::of(state, now)));
        let cost = clock::now().saturating_sub(began);
        self.next_at = now + (cost * COST_FACTOR).clamp(PUBLISH_EVERY, PUBLISH_EVERY_MAX);
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
    /// Who has gone from those and from swarms that ended, of late, oldest first.
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
    /// Every so many chunks one is shown; a power of two.
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

impl ShardSnapshot {
    fn of(state: &ShardState, now: Time) -> Self {
        let connections = state.connections.borrow();
        let connections = connections.iter().filter_map(|connection| {
            let link = connection.link();
            let window = link.session.window();
            link.membership.member().map(|_| ConnectionSnapshot {
                reference: connection.reference,
                remote: connection.remote,
                stalled: link.stalled_for(now).unwrap_or_default(),
                quiet: link.quiet_for(now),
                window_bytes: window.size_bytes(),
                unacknowledged_bytes: window.unacknowledged_bytes(),
            })
        });
        let homes = state.homes.borrow();
        Self {
            shard: state.shard.id,
            at: now,
            connections: connections.collect(),
            swarms: homes_by_size(homes.iter(), now),
            departures: homes.departures.recent(now).copied().collect(),
        }
    }
}

/// All homes, those with the most peers first and with a map.
fn homes_by_size<'a>(homes: impl Iterator<Item = &'a Home>, now: Time) -> Vec<Arc<SwarmSnapshot>> {
    let mut homes: Vec<&Home> = homes.collect();
    homes.sort_by_key(|home| (std::cmp::Reverse(home.swarm().peer_count()), home.reference()));
    let with_map = |(place, home)| Arc::new(swarm(home, now, place < MAPS_PER_SHARD_MAX));
    homes.into_iter().enumerate().map(with_map).collect()
}

fn swarm(home: &Home, now: Time, with_map: bool) -> SwarmSnapshot {
    let swarm = home.swarm();
    let stride = swarm.chunk_count().div_ceil(MAP_COLUMNS_MAX).next_power_of_two().max(1);
    let columns = swarm.chunk_count().div_ceil(stride);
    let row_bytes = columns.div_ceil(8) as usize;
    let mut bits = Vec::new();
    let mut peers = Vec::with_capacity(swarm.peer_count());
    for peer in swarm.watch(now) {
        let Some(member) = home.watch_member(peer.slot) else { continue };
        if with_map && peers.len() < MAP_ROWS_MAX {
            push_row(&mut bits, peer.have, stride, row_bytes);
        }
        peers.push(PeerSnapshot {
            connection: member.connection,
            slot: peer.slot,
            chunks_held: member.chunks_held,
            chunks_claimed: member.chunks_claimed,
            wait: peer.wait,
            idle: peer.idle,
            deliveries: peer.deliveries,
            fetches: peer.fetches,
            is_origin: peer.is_origin,
            is_leaving: member.has_said_farewell,
        });
    }
    let map = with_map.then(|| {
        let shown = (0..swarm.chunk_count()).step_by(stride as usize);
        MapSnapshot {
            stride,
            places: shown.map(|chunk| swarm.place(chunk)).collect(),
            bits,
            row_bytes,
        }
    });
    SwarmSnapshot {
        key: *home.key(),
        label: home.label().cloned(),
        reference: home.reference(),
        counters: swarm.counters(),
        is_seeding: swarm.is_seeding(),
        has_manifest: swarm.has_manifest(),
        cached_count: swarm.cached_count(),
        fetch_count: swarm.fetch_count(),
        starving_count: swarm.starving_count(),
        missing_count: swarm.missing_count(),
        endings: home.endings(),
        cached: swarm.cached().take(CACHED_LISTED_MAX).collect(),
        peers,
        map,
    }
}

/// Appends one peer's row: whole words where every chunk is shown, else bit by bit.
fn push_row(bits: &mut Vec<u8>, have: &Bitfield, stride: u32, row_bytes: usize) {
    let end = bits.len() + row_bytes;
    if stride == 1 {
        bits.extend(have.words().iter().flat_map(|word| word.to_le_bytes()));
        bits.resize(end, 0);
        return;
    }
    bits.resize(end, 0);
    let row = &mut bits[end - row_bytes..];
    for (column, chunk) in (0..have.len()).step_by(stride as usize).enumerate() {
        row[column / 8] |= u8::from(have.contains(chunk)) << (column % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_every_strideth_chunk() {
        for (chunk_count, stride) in [(1, 1), (63, 1), (64, 1), (100, 1), (100, 4), (1000, 2)] {
            let mut have = Bitfield::empty(chunk_count);
            for chunk in (0..chunk_count).filter(|chunk| chunk % 3 == 0) {
                have.insert(chunk);
            }
            let columns = chunk_count.div_ceil(stride);
            let row_bytes = columns.div_ceil(8) as usize;
            // There may be rows before it.
            let mut bits = vec![0xaa; 7];
            push_row(&mut bits, &have, stride, row_bytes);
            assert_eq!(bits.len(), 7 + row_bytes);
            let row = &bits[7..];
            for column in 0..columns {
                let shown = row[column as usize / 8] >> (column % 8) & 1 == 1;
                assert_eq!(shown, have.contains(column * stride), "{chunk_count} by {stride}");
            }
        }
    }
}
