//! What somebody who watches a swarm sees of it: where each chunk is, and who waits for what.
//! Changes nothing, and costs nothing while nobody asks.

use std::time::Duration;

use super::{
    FetchId, PeerSlot, Swarm,
    chunks::Place,
    fetching::Fetch,
    peers::{Peer, Standing},
};
use relay_protocol::{Bitfield, Order, time::Time};

/// Fetches that are looked at to say which one a peer waits for: the oldest, which are the ones
/// to blame.
const FETCHES_LOOKED_AT_MAX: usize = 32;

/// Where a chunk is, as seen from the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkPlace {
    /// Not with the relay, and nobody connected holds it.
    Missing,
    /// Not with the relay.
    Absent,
    /// Under way from a holder.
    Fetching,
    /// In the cache.
    Cached,
    /// Evicted; deliveries under way still hold its memory.
    Draining,
}

/// What a peer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nothing: it has the whole file.
    Nothing,
    /// For this chunk and others, which are on their way to it.
    Delivery {
        /// The oldest of them.
        chunk: u32,
    },
    /// For the list of the file's digests, which no peer has supplied yet.
    Manifest,
    /// For its part of a file that is being spread.
    Spread,
    /// The relay waits for it: it has not said that it would take more.
    Credit,
    /// For chunks that nobody connected holds.
    Missing {
        /// The first of them.
        chunk: u32,
        /// How many.
        count: u32,
    },
    /// For a chunk that the relay has asked a holder for.
    Holder {
        /// Which chunk.
        chunk: u32,
        /// Who was asked.
        holder: PeerSlot,
        /// How long ago.
        asked: Duration,
    },
    /// For memory: the cache is full of what others still need.
    Room,
    /// For its turn, which comes next.
    Turn,
    /// For the end of its connection: banned, given up on, or granted to leave.
    End,
}

/// One peer as somebody sees it who watches.
#[derive(Clone, Copy, Debug)]
pub struct PeerWatch<'a> {
    /// Which.
    pub slot: PeerSlot,
    /// Chunks that it has, verified.
    pub have: &'a Bitfield,
    /// What it waits for.
    pub wait: Wait,
    /// How long ago it last made progress, or supplied something.
    pub idle: Duration,
    /// Chunks on their way to it.
    pub deliveries: usize,
    /// Chunks that it was asked for and has not supplied yet.
    pub fetches: u32,
    /// It was the one who stated how the file is to be spread.
    pub is_origin: bool,
    /// It said LEAVING.
    pub is_leaving: bool,
}

impl Swarm {
    /// Where the chunk is.
    ///
    /// # Panics
    /// The file has no such chunk.
    #[must_use]
    pub fn place(&self, chunk: u32) -> ChunkPlace {
        let state = self.chunks.get(chunk);
        match state.place {
            Place::Absent if state.holders == 0 => ChunkPlace::Missing,
            Place::Absent => ChunkPlace::Absent,
            Place::Fetching => ChunkPlace::Fetching,
            Place::Cached => ChunkPlace::Cached,
            Place::Draining => ChunkPlace::Draining,
        }
    }

    /// Cached chunks, each with the number of peers that still need it; what would be given up first comes last.
    pub fn cached(&self) -> impl Iterator<Item = (u32, u32)> {
        self.chunks.cached.iter_down().map(|(chunk, _)| (chunk, self.chunks.get(chunk).needers))
    }

    /// Chunks that nobody connected holds, and that are not with the relay.
    #[must_use]
    pub fn missing_count(&self) -> u32 {
        self.chunks.orphan_count
    }

    /// Chunks that the peer has; unknown once it was let go, banned or given up on.
    #[must_use]
    pub fn chunks_held(&self, slot: PeerSlot) -> Option<u32> {
        let peer = self.peers.get(slot).filter(|peer| peer.standing != Standing::Retired)?;
        Some(peer.have.count())
    }

    /// Everybody, with what they wait for.
    pub fn watch(&self, now: Time) -> impl Iterator<Item = PeerWatch<'_>> {
        let oldest: Vec<(&FetchId, &Fetch)> =
            self.fetches.iter().take(FETCHES_LOOKED_AT_MAX).collect();
        self.peers.iter().map(move |(slot, peer)| PeerWatch {
            slot,
            have: &peer.have,
            wait: self.wait_of(now, slot, peer, &oldest),
            idle: now.since(peer.progress_at),
            deliveries: peer.deliveries.len(),
            fetches: peer.fetches,
            is_origin: peer.seeding.is_some(),
            is_leaving: matches!(peer.standing, Standing::Leaving { .. }),
        })
    }

    fn wait_of(
        &self,
        now: Time,
        slot: PeerSlot,
        peer: &Peer,
        oldest: &[(&FetchId, &Fetch)],
    ) -> Wait {
        if peer.standing == Standing::Retired {
            return Wait::End;
        }
        if peer.have.is_full() {
            return Wait::Nothing;
        }
        if let Some(delivery) = peer.deliveries.front() {
            return Wait::Delivery { chunk: delivery.chunk };
        }
        if !self.manifest.is_known() {
            return Wait::Manifest;
        }
        if self.seeding.holds_back() {
            return Wait::Spread;
        }
        if !peer.has_credit() || peer.order == Order::Peer && peer.wants.is_empty() {
            return Wait::Credit;
        }
        if let Some((count, chunk)) = self.missing_for(slot) {
            return Wait::Missing { chunk, count };
        }
        if let Some((_, fetch)) = oldest.iter().find(|(_, fetch)| peer.lacks(fetch.chunk)) {
            let Fetch { chunk, holder, started_at, .. } = **fetch;
            return Wait::Holder { chunk, holder, asked: now.since(started_at) };
        }
        if self.room.asked_at.is_some() { Wait::Room } else { Wait::Turn }
    }
}
