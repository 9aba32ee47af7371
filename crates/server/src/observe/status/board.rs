//! What is known of all swarms: the latest snapshot of every shard, and which peers have just gone.
//!
//! A home that sees a peer go forgets it at once. Its shard remembers it for a while
//! ([`crate::home::departures`]), and the board gives it its place, so that a watcher, or one
//! that comes within a minute, sees that it went, how, and with how much of the file.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    home::departures::{DEPARTURE_KEPT, Departure, Ending, Endings},
    message::{ConnectionRef, SwarmRef},
    observe::snapshot::{ConnectionSnapshot, PeerSnapshot, ShardSnapshot, SwarmSnapshot},
};
use relay_protocol::time::Time;
use relay_swarm::Wait;

/// Gone peers of a swarm that are named, at most: the last ones. All are counted.
const GONE_MAX: usize = 256;

/// How long a swarm that has ended is shown: what it came to.
const ENDED_SHOWN: Duration = Duration::from_secs(300);

/// Swarms that have ended and are shown, at most: the last ones.
const ENDED_MAX: usize = 8;

/// A peer that takes nothing for so long while data waits is called stalled; it is disconnected
/// after 10 s, unless what waits is more than it has said that it would take.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// The latest of everything.
#[derive(Debug)]
pub(crate) struct Board {
    shards: Vec<Option<Arc<ShardSnapshot>>>,
    swarms: BTreeMap<SwarmRef, Life>,
    /// By shard: the number of the last departure that was looked at.
    departed: Vec<u64>,
    next_row: u64,
}

/// One swarm over time.
#[derive(Debug)]
pub(crate) struct Life {
    /// As last seen; of a swarm that has ended, its last state.
    pub swarm: Arc<SwarmSnapshot>,
    /// Those connected.
    pub peers: BTreeMap<ConnectionRef, Seen>,
    /// Those that went of late, oldest first.
    pub gone: VecDeque<Gone>,
    /// How many went since it began, and how.
    pub endings: Endings,
    /// Chunks that its peers have got since it was first looked at: grows only.
    pub chunks_gained: u64,
    /// When no peer was left.
    pub ended_at: Option<Time>,
}

/// A connected peer as last seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Its number on the page: never used again.
    pub row: u64,
    pub remote: Option<SocketAddr>,
    pub state: PeerState,
    pub chunks_held: u32,
    pub is_origin: bool,
    is_here: bool,
}

/// A peer that has gone.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub seen: Seen,
    /// Its row of the map, if it had a part of the file.
    pub bits: Option<Arc<[u8]>>,
    pub at: Time,
}

/// How a peer does, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeerState {
    /// It has the whole file.
    Whole,
    /// It has the whole file and would like to go.
    Leaving,
    /// Chunks are on their way to it.
    Getting,
    /// It waits for something; see what for.
    Waiting,
    /// It takes no data.
    Stalled,
    /// It is being disconnected.
    Closing,
    /// It went with the whole file, or took its leave.
    Left,
    /// Its connection ended before it had the file.
    Dead,
    /// It was cut off: it supplied wrong bytes.
    Banned,
}

impl Board {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self {
            shards: vec![None; shard_count],
            swarms: BTreeMap::new(),
            departed: vec![0; shard_count],
            next_row: 0,
        }
    }

    /// Forgets all, after a while without a watcher. Which peers went of late the shards tell anew.
    pub(crate) fn clear(&mut self) {
        self.shards.fill(None);
        self.swarms.clear();
        self.departed.fill(0);
    }

    /// Takes a shard's latest snapshot.
    pub(crate) fn absorb(&mut self, snapshot: &Arc<ShardSnapshot>) {
        let (shard, at) = (snapshot.shard, snapshot.at);
        let Some(place) = self.shards.get_mut(shard.index()) else { return };
        *place = Some(Arc::clone(snapshot));
        let mut living: Vec<SwarmRef> = Vec::with_capacity(snapshot.swarms.len());
        let mut new_keys = Vec::new();
        for swarm in &snapshot.swarms {
            living.push(swarm.reference);
            if !self.swarms.contains_key(&swarm.reference) {
                new_keys.push(swarm.key);
            }
            self.absorb_swarm(swarm);
        }
        living.sort_unstable();
        let seen = self.departed[shard.index()];
        for departure in &snapshot.departures {
            let is_news = departure.number > seen;
            if is_news {
                self.absorb_departure(departure.swarm, departure);
            }
            // A peer that left a file without other peers is told with those that leave it now, too, whether or
            // not that swarm was watched while it lived.
            if (is_news || new_keys.contains(&departure.key))
                && let Some(heir) = heir_of(departure, &snapshot.swarms)
            {
                self.absorb_departure(heir, departure);
            }
        }
        let last = snapshot.departures.last().map_or(seen, |departure| departure.number);
        self.departed[shard.index()] = seen.max(last);
        for (reference, life) in &mut self.swarms {
            if reference.home != shard || life.ended_at.is_some() {
                continue;
            }
            if living.binary_search(reference).is_err() {
                life.ended_at = Some(at);
                life.peers.clear();
            }
            // Of more that went than a shard remembers, the first are counted and not named.
            life.peers.retain(|_, seen| seen.is_here);
        }
        self.expire(at);
    }

    fn absorb_swarm(&mut self, swarm: &Arc<SwarmSnapshot>) {
        let chunk_count = swarm.key.chunk_count();
        let mut life = self.swarms.remove(&swarm.reference).unwrap_or_else(|| Life::new(swarm));
        life.swarm = Arc::clone(swarm);
        life.endings = swarm.endings;
        life.peers.values_mut().for_each(|seen| seen.is_here = false);
        for peer in &swarm.peers {
            let connection = connection(&self.shards, peer.connection);
            let next_row = &mut self.next_row;
            let seen = life
                .peers
                .entry(peer.connection)
                .or_insert_with(|| Seen::new(next_row, peer.chunks_claimed));
            // A snapshot of the connection's shard may come later than that of the home.
            seen.remote = seen.remote.or(connection.map(|connection| connection.remote));
            seen.state = state_of(peer, connection, chunk_count);
            life.chunks_gained += u64::from(peer.chunks_held.saturating_sub(seen.chunks_held));
            seen.chunks_held = peer.chunks_held;
            seen.is_origin = peer.is_origin;
            seen.is_here = true;
        }
        self.swarms.insert(swarm.reference, life);
    }

    /// A peer has gone; it is told with this swarm, if that is known.
    fn absorb_departure(&mut self, swarm: SwarmRef, departure: &Departure) {
        let Some(life) = self.swarms.get_mut(&swarm) else { return };
        let mut seen = life
            .peers
            .remove(&departure.connection)
            .unwrap_or_else(|| Seen::new(&mut self.next_row, departure.chunks_claimed));
        if swarm == departure.swarm {
            life.endings = departure.so_far;
            let gained = departure.chunks_held.saturating_sub(seen.chunks_held);
            life.chunks_gained += u64::from(gained);
        }
        seen.remote = Some(departure.remote);
        seen.chunks_held = departure.chunks_held;
        seen.is_origin = departure.is_origin;
        seen.is_here = false;
        seen.state = match departure.ending {
            Ending::Left => PeerState::Left,
            Ending::Dead => PeerState::Dead,
            Ending::Banned => PeerState::Banned,
        };
        if life.gone.len() == GONE_MAX {
            life.gone.pop_front();
        }
        life.gone.push_back(Gone { seen, bits: departure.bits.clone(), at: departure.at });
    }

    /// Drops what was shown for long enough.
    fn expire(&mut self, now: Time) {
        for life in self.swarms.values_mut() {
            while life.gone.front().is_some_and(|gone| now.since(gone.at) > DEPARTURE_KEPT)
                && life.ended_at.is_none()
            {
                life.gone.pop_front();
            }
        }
        self.swarms.retain(|_, life| life.ended_at.is_none_or(|at| now.since(at) <= ENDED_SHOWN));
        let mut ended: Vec<(Time, SwarmRef)> = self
            .swarms
            .iter()
            .filter_map(|(&reference, life)| Some((life.ended_at?, reference)))
            .collect();
        ended.sort_unstable();
        for (_, reference) in ended.iter().rev().skip(ENDED_MAX) {
            self.swarms.remove(reference);
        }
    }

    /// Shards whose latest snapshot is older than that, or that have sent none.
    pub(crate) fn silent_since(&self, since: Time) -> impl Iterator<Item = usize> {
        let is_silent = move |shard: &Option<Arc<ShardSnapshot>>| {
            shard.as_ref().is_none_or(|shard| shard.at < since)
        };
        self.shards.iter().enumerate().filter(move |(_, shard)| is_silent(shard)).map(|(at, _)| at)
    }

    /// All swarms: those alive with the most peers first, then those that ended last.
    pub(crate) fn swarms(&self) -> Vec<(SwarmRef, &Life)> {
        let mut all: Vec<_> = self.swarms.iter().map(|(&at, life)| (at, life)).collect();
        all.sort_by_key(|(at, life)| {
            let ended = life.ended_at.map(std::cmp::Reverse);
            (ended.is_some(), ended, std::cmp::Reverse(life.peers.len()), *at)
        });
        all
    }

    /// What is known of the peer's connection.
    pub(crate) fn connection_of(&self, peer: &PeerSnapshot) -> Option<&ConnectionSnapshot> {
        connection(&self.shards, peer.connection)
    }
}

impl Life {
    fn new(swarm: &Arc<SwarmSnapshot>) -> Self {
        Self {
            swarm: Arc::clone(swarm),
            peers: BTreeMap::new(),
            gone: VecDeque::new(),
            endings: Endings::default(),
            chunks_gained: 0,
            ended_at: None,
        }
    }

    /// The peer in that slot, if it is connected.
    pub(crate) fn peer_in(&self, slot: relay_swarm::PeerSlot) -> Option<&Seen> {
        let peer = self.swarm.peers.iter().find(|peer| peer.slot == slot)?;
        self.peers.get(&peer.connection)
    }
}

impl Seen {
    fn new(next_row: &mut u64, chunks_claimed: u32) -> Self {
        *next_row += 1;
        Self {
            row: *next_row,
            remote: None,
            state: PeerState::Waiting,
            chunks_held: chunks_claimed,
            is_origin: false,
            is_here: true,
        }
    }

    /// What it is called: where its connection comes from.
    pub(crate) fn name(&self) -> String {
        self.remote.map_or_else(|| format!("peer {}", self.row), |remote| remote.to_string())
    }
}

/// The swarm of the same file among those that live, if the departure was from one that has ended.
fn heir_of(departure: &Departure, living: &[Arc<SwarmSnapshot>]) -> Option<SwarmRef> {
    let heir = living.iter().find(|swarm| swarm.key == departure.key)?;
    (heir.reference != departure.swarm).then_some(heir.reference)
}

fn connection(
    shards: &[Option<Arc<ShardSnapshot>>],
    of: ConnectionRef,
) -> Option<&ConnectionSnapshot> {
    let shard = shards.get(of.shard.index())?.as_ref()?;
    let at = shard.connections.binary_search_by_key(&of.index, |c| c.reference.index).ok()?;
    Some(&shard.connections[at]).filter(|connection| connection.reference == of)
}

fn state_of(
    peer: &PeerSnapshot,
    connection: Option<&ConnectionSnapshot>,
    chunk_count: u32,
) -> PeerState {
    // A peer that has given no leave for more keeps a delivery waiting, too.
    let waits = |connection: &ConnectionSnapshot| match peer.wait {
        Wait::Delivery { .. } => connection.quiet,
        _ => connection.stalled,
    };
    let stalled = connection.is_some_and(|connection| waits(connection) >= STALLED_AFTER);
    match peer.wait {
        // A peer that was granted to leave is as good as gone, and nothing has happened to it.
        _ if peer.is_leaving => PeerState::Leaving,
        Wait::End => PeerState::Closing,
        _ if peer.chunks_held == chunk_count => PeerState::Whole,
        _ if stalled => PeerState::Stalled,
        Wait::Delivery { .. } => PeerState::Getting,
        _ => PeerState::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use shards::ShardId;

    use super::*;
    use relay_protocol::{Digest, SwarmKey};
    use relay_swarm::Counters;

    const KEY: SwarmKey =
        SwarmKey { id: Digest([7; 32]), size_bytes: 1 << 20, chunk_size_log2: 18 };

    fn swarm_ref(index: u32) -> SwarmRef {
        SwarmRef { home: ShardId(0), index, generation: 0 }
    }

    /// The file, shared for the `index`-th time; no peer is connected to it.
    fn swarm(index: u32, key: SwarmKey) -> Arc<SwarmSnapshot> {
        Arc::new(SwarmSnapshot {
            key,
            label: None,
            reference: swarm_ref(index),
            counters: Counters::default(),
            is_seeding: false,
            has_manifest: true,
            cached_count: 0,
            fetch_count: 0,
            starving_count: 0,
            missing_count: 0,
            endings: Endings::default(),
            cached: Vec::new(),
            peers: Vec::new(),
            map: None,
        })
    }

    fn departure(number: u64, from: u32) -> Departure {
        Departure {
            number,
            swarm: swarm_ref(from),
            key: KEY,
            connection: ConnectionRef { shard: ShardId(0), index: 0, generation: 0 },
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            ending: Ending::Left,
            is_origin: false,
            chunks_claimed: 0,
            chunks_held: 4,
            bits: None,
            at: Time(0),
            so_far: Endings { left: 1, ..Endings::default() },
        }
    }

    fn snapshot(swarms: &[Arc<SwarmSnapshot>], departures: &[Departure]) -> Arc<ShardSnapshot> {
        Arc::new(ShardSnapshot {
            shard: ShardId(0),
            at: Time(1),
            connections: Vec::new(),
            swarms: swarms.to_vec(),
            departures: departures.to_vec(),
        })
    }

    fn gone(board: &Board, index: u32) -> usize {
        board.swarms.get(&swarm_ref(index)).map_or(0, |life| life.gone.len())
    }

    #[test]
    fn who_left_a_file_is_told_with_its_next_swarm_however_the_snapshots_fell() {
        let (first, second) = (swarm(1, KEY), swarm(2, KEY));
        let left = [departure(1, 1)];
        let none: &[Departure] = &[];
        let no_swarm: &[Arc<SwarmSnapshot>] = &[];
        // Whether the first swarm was seen while it lived, and whether its end was, before the second one.
        let histories: [&[Arc<ShardSnapshot>]; 5] = [
            &[snapshot(&[Arc::clone(&second)], &left)],
            &[snapshot(&[Arc::clone(&first)], none), snapshot(&[Arc::clone(&second)], &left)],
            &[snapshot(no_swarm, &left), snapshot(&[Arc::clone(&second)], &left)],
            &[
                snapshot(&[Arc::clone(&first)], none),
                snapshot(no_swarm, &left),
                snapshot(&[Arc::clone(&second)], &left),
            ],
            &[
                snapshot(&[Arc::clone(&first)], &left),
                snapshot(&[Arc::clone(&second)], &left),
                snapshot(&[Arc::clone(&second)], &left),
            ],
        ];
        for (at, history) in histories.iter().enumerate() {
            let mut board = Board::new(1);
            for snapshot in *history {
                board.absorb(snapshot);
            }
            assert_eq!(gone(&board, 2), 1, "history {at}");
            let life = &board.swarms[&swarm_ref(2)];
            assert_eq!(life.endings, Endings::default(), "only its own are counted: history {at}");
        }
    }

    #[test]
    fn who_left_another_file_is_not_told() {
        let other = SwarmKey { id: Digest([8; 32]), ..KEY };
        let mut board = Board::new(1);
        board.absorb(&snapshot(&[swarm(2, other)], &[departure(1, 1)]));
        assert_eq!(gone(&board, 2), 0);
    }
}
