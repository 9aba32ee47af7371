//! How a swarm is looked at. Changes nothing, and costs nothing while no onlooker asks.

use relay_protocol::{Bitfield, Order, SwarmStatus, time::Time};

use crate::{
    Swarm,
    api::{Counters, FetchId, PeerSlot},
    book::{
        chunks::Place,
        fetches::Fetch,
        peer::{Peer, Standing},
    },
    decide::missing::missing_for,
    view::{ChunkPlace, PeerView, PeerWatch, Wait},
};

/// Fetches that are looked at to say which one a peer waits for: the oldest, which are the ones
/// to blame.
const FETCHES_LOOKED_AT_MAX: usize = 32;

/// Counts.
impl Swarm {
    /// How far the swarm is, for peers that ask.
    #[must_use]
    pub fn status(&self) -> SwarmStatus {
        let peers = || self.desk.book.peers().iter().filter(|(_, peer)| !peer.terms.is_uplink);
        let whole = peers().filter(|(_, peer)| peer.have.is_full());
        SwarmStatus {
            peers: u32::try_from(peers().count()).expect("fewer than connections"),
            whole_peers: u32::try_from(whole.count()).expect("fewer than connections"),
            ..self.desk.book.published()
        }
    }

    /// Counters since the swarm began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.desk.book.counters()
    }

    /// Chunks of the file.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.desk.book.chunks().count()
    }

    /// Connected peers.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.desk.book.peers().len()
    }

    /// Whether no peer is connected: the shell forgets such a swarm.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.desk.book.peers().len() == 0
    }

    /// Chunks in the cache.
    #[must_use]
    pub fn cached_count(&self) -> u32 {
        self.desk.book.chunks().cached.len()
    }

    /// Whether the chunk is in the cache.
    #[must_use]
    pub fn is_cached(&self, chunk: u32) -> bool {
        chunk < self.desk.book.chunks().count() && self.desk.book.chunks().is_cached(chunk)
    }

    /// Fetches under way.
    #[must_use]
    pub fn fetch_count(&self) -> usize {
        self.desk.book.fetches().len()
    }

    /// Whether this fetch is under way and was not cancelled, told to the shell or not yet.
    #[must_use]
    pub fn is_fetching(&self, fetch_id: FetchId) -> bool {
        self.desk.book.fetches().get(fetch_id).is_some()
    }

    /// Peers that have credit and lack everything that is cached.
    #[must_use]
    pub fn starving_count(&self) -> usize {
        self.desk.book.starving().peers().len()
    }

    /// Whether parts are being handed out, or peers are waited for before that.
    #[must_use]
    pub fn is_seeding(&self) -> bool {
        self.desk.book.holds_back()
    }

    /// Whether the relay has the manifest.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        self.manifest.is_known()
    }

    /// Whether this swarm counts when the budget is shared: a peer takes chunks and lacks some.
    #[must_use]
    pub fn wants_work(&self) -> bool {
        self.desk.book.chunks().needers_total > 0 || self.desk.book.fetches().len() > 0
    }

    /// Chunks that no connected peer holds, and that are not with the relay.
    #[must_use]
    pub fn missing_count(&self) -> u32 {
        self.desk.book.chunks().orphan_count
    }

    /// How many chunks the peer has; unknown once it was let go, banned or given up on.
    #[must_use]
    pub fn chunks_held(&self, slot: PeerSlot) -> Option<u32> {
        self.have(slot).map(Bitfield::count)
    }

    /// Which chunks the peer has, as long as that is known.
    #[must_use]
    pub fn have(&self, slot: PeerSlot) -> Option<&Bitfield> {
        let peer = self.desk.book.find(slot).filter(|peer| peer.is_holder())?;
        Some(&peer.have)
    }
}

/// Chunks and peers, one by one.
impl Swarm {
    /// Where the chunk is.
    ///
    /// # Panics
    /// The file has no such chunk.
    #[must_use]
    pub fn place(&self, chunk: u32) -> ChunkPlace {
        let state = self.desk.book.chunk(chunk);
        match state.place {
            Place::Absent if state.holders == 0 => ChunkPlace::Missing,
            Place::Absent => ChunkPlace::Absent,
            Place::Fetching => ChunkPlace::Fetching,
            Place::Cached(_) => ChunkPlace::Cached,
            Place::Draining { .. } => ChunkPlace::Draining,
        }
    }

    /// Peers that need a delivery of this chunk, or whose delivery is not written.
    ///
    /// # Panics
    /// The file has no such chunk.
    #[must_use]
    pub fn takers(&self, chunk: u32) -> u32 {
        self.desk.book.chunk(chunk).needers
    }

    /// Cached chunks, each with the number of peers that still need it; what would be given up first comes last.
    pub fn cached(&self) -> impl Iterator<Item = (u32, u32)> {
        let cached = self.desk.book.chunks().cached.iter_down();
        cached.map(|(chunk, _)| (chunk, self.desk.book.chunk(chunk).needers))
    }

    /// All peers' progress.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.desk.book.peers().iter().map(|(slot, peer)| PeerView {
            slot,
            chunks_held: peer.have.count(),
            deliveries: u32::try_from(peer.intake.deliveries.len()).expect("fewer than chunks"),
            fetches: peer.supply.fetches,
            is_starving: peer.starving.is_some(),
            is_leaving: peer.standing == Standing::Leaving,
        })
    }

    /// All peers, with what they wait for.
    pub fn watch(&self, now: Time) -> impl Iterator<Item = PeerWatch<'_>> {
        let oldest: Vec<&Fetch> = self
            .desk
            .book
            .fetches()
            .iter()
            .map(|(_, fetch)| fetch)
            .take(FETCHES_LOOKED_AT_MAX)
            .collect();
        self.desk.book.peers().iter().map(move |(slot, peer)| PeerWatch {
            slot,
            have: &peer.have,
            wait: self.wait_of(now, slot, peer, &oldest),
            idle: now.since(peer.seen.progress_at),
            deliveries: peer.intake.deliveries.len(),
            fetches: peer.supply.fetches,
            is_origin: peer.terms.seeding.is_some(),
            is_leaving: peer.standing == Standing::Leaving,
        })
    }

    fn wait_of(&self, now: Time, slot: PeerSlot, peer: &Peer, oldest: &[&Fetch]) -> Wait {
        if !peer.is_holder() {
            return Wait::End;
        }
        if peer.have.is_full() {
            return Wait::Nothing;
        }
        if let Some(delivery) = peer.intake.deliveries.front() {
            return Wait::Delivery { chunk: delivery.chunk };
        }
        if !self.manifest.is_known() {
            return Wait::Manifest;
        }
        if self.desk.book.holds_back() {
            return Wait::Spread;
        }
        if !peer.intake.has_credit() || peer.terms.order == Order::Peer && peer.wants.is_empty() {
            return Wait::Credit;
        }
        if let Some((count, chunk)) = missing_for(&self.desk.book, slot, self.manifest.is_missing())
        {
            return Wait::Missing { chunk, count };
        }
        if let Some(fetch) = oldest.iter().find(|fetch| peer.lacks(fetch.chunk)) {
            let Fetch { chunk, holder, started_at, .. } = **fetch;
            return Wait::Holder { chunk, holder, asked: now.since(started_at) };
        }
        if self.room.is_asked() { Wait::Room } else { Wait::Turn }
    }
}
