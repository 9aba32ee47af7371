//! What others may see of a swarm: counters and progress. Changes nothing.

use super::{FetchId, PeerSlot, Swarm, peers::Standing};
use relay_protocol::SwarmStatus;

/// Counted since the swarm began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Deliveries decided.
    pub deliveries: u64,
    /// Deliveries whose chunk was cached already when it was wanted.
    pub hits: u64,
    /// Chunks that had to be fetched (hedges not counted).
    pub misses: u64,
    /// Fetches asked for, hedges too.
    pub fetches: u64,
    /// Fetches that were asked of a second holder.
    pub hedges: u64,
    /// Chunks dropped from the cache.
    pub evictions: u64,
    /// Evictions of chunks that somebody still wanted.
    pub purchases: u64,
    /// Peers that were cut off for a lie.
    pub bans: u64,
}

/// One peer's progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// Which.
    pub slot: PeerSlot,
    /// Chunks that it has.
    pub chunks_held: u32,
    /// Chunks on their way to it.
    pub deliveries: u32,
    /// Fetches outstanding at it.
    pub fetches: u32,
    /// It has credit and lacks everything that is cached.
    pub is_starving: bool,
    /// It said LEAVING.
    pub is_leaving: bool,
}

impl Swarm {
    /// A peer has one chunk more, for the first time: counts what a publisher asks about.
    pub(super) fn count_kept(&mut self, slot: PeerSlot, chunk: u32, delivered: bool) {
        if delivered && !self.chunks.get(chunk).handed_out {
            self.chunks.change(chunk, |state| state.handed_out = true);
            self.published.chunks_handed_out += 1;
        }
        self.published.copies += u32::from(self.peers[slot].have.is_full());
    }

    /// How far the swarm is, for those who ask.
    #[must_use]
    pub fn status(&self) -> SwarmStatus {
        let whole = self.peers.iter().filter(|(_, peer)| peer.have.is_full());
        SwarmStatus {
            peers: u32::try_from(self.peers.len()).expect("fewer than connections"),
            whole_peers: u32::try_from(whole.count()).expect("fewer than connections"),
            ..self.published
        }
    }

    /// Counters since the swarm began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Chunks of the file.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.chunks.count()
    }

    /// Connected peers.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is connected: the shell forgets such a swarm.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.len() == 0
    }

    /// Chunks in the cache.
    #[must_use]
    pub fn cached_count(&self) -> u32 {
        self.chunks.cached.len()
    }

    /// Whether the chunk is in the cache.
    #[must_use]
    pub fn is_cached(&self, chunk: u32) -> bool {
        chunk < self.chunks.count() && self.chunks.is_cached(chunk)
    }

    /// Fetches under way.
    #[must_use]
    pub fn fetch_count(&self) -> usize {
        self.fetches.len()
    }

    /// Whether this fetch is under way and was not cancelled, told to the shell or not yet.
    #[must_use]
    pub fn is_fetching(&self, fetch_id: FetchId) -> bool {
        self.fetches.contains_key(&fetch_id)
    }

    /// Peers that have credit and lack everything that is cached.
    #[must_use]
    pub fn starving_count(&self) -> usize {
        self.starving.peers.len()
    }

    /// Whether parts are being handed out, or peers are waited for before that.
    #[must_use]
    pub fn is_seeding(&self) -> bool {
        self.seeding.holds_back()
    }

    /// Whether the relay has the manifest.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        self.manifest.is_known()
    }

    /// Whether this swarm counts when the budget is shared: somebody takes chunks and lacks some.
    #[must_use]
    pub fn wants_work(&self) -> bool {
        self.chunks.needers_total > 0 || !self.fetches.is_empty()
    }

    /// Everybody's progress.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.peers.iter().map(|(slot, peer)| PeerView {
            slot,
            chunks_held: peer.have.count(),
            deliveries: u32::try_from(peer.deliveries.len()).expect("fewer than chunks"),
            fetches: peer.fetches,
            is_starving: peer.starving.is_some(),
            is_leaving: matches!(peer.standing, Standing::Leaving { .. }),
        })
    }
}
