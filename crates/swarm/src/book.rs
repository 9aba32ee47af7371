//! What is known: the facts of one swarm. Decides nothing.
//!
//! The deciders read it freely: whatever it hands out is shared. They change it by its methods only, which
//! keep what `invariants.rs` checks: the counts at each chunk, the orders of chunks, the lists of idle holders
//! and of starving peers. A method says what has happened, not which fields to set.
//!
//! `peer`, `intake`, `wants`, `meter`, `depth` are one peer's facts, `chunks`, `ranks` and `log` the chunks',
//! `starving` and `fetches` those of both. What happens to them is in `members` (they join, starve, go),
//! `sending` (what is on its way to peers) and `supplying` (what comes from holders).

pub(crate) mod chunks;
pub(crate) mod depth;
pub(crate) mod fetches;
pub(crate) mod intake;
pub(crate) mod log;
mod members;
mod meter;
pub(crate) mod peer;
mod peers;
mod ranks;
mod sending;
mod starving;
mod supplying;
mod wants;

use std::collections::VecDeque;

use relay_protocol::{SwarmStatus, time::Time};

use crate::api::{Counters, Limits, PeerSlot, SwarmConfig};
use chunks::{Chunk, Chunks};
use fetches::Fetches;
use log::Log;
use peer::Peer;
use peers::Peers;
use starving::Starving;

/// Starving peers that one decision looks at closely.
pub(crate) const STARVING_PER_SCAN: usize = 16;

/// Holders in the orders in which they are sought.
#[derive(Debug, Default)]
struct Holders {
    /// Those that nothing is being fetched from.
    idle: Vec<PeerSlot>,
    /// Some of those that supplied something, the latest to do so for the first time last.
    suppliers: VecDeque<PeerSlot>,
}

/// Memory beside what is cached, being fetched, and being sent.
#[derive(Debug, Default)]
struct Memory {
    /// Leases that are there and not used.
    held: u32,
    /// An evicted chunk's memory has come back since this was last asked.
    has_returned: bool,
}

/// What was counted since the swarm began.
#[derive(Debug, Default)]
struct Tally {
    counters: Counters,
    /// What publishers ask about, as far as it is not found by looking at the peers.
    published: SwarmStatus,
}

/// The peers of one file, its chunks, and what moves between them.
#[derive(Debug)]
pub(crate) struct Book {
    config: SwarmConfig,
    limits: Limits,
    peers: Peers,
    holders: Holders,
    /// When to look again whether a peer has fallen silent.
    watch: VecDeque<(Time, PeerSlot)>,
    starving: Starving,
    chunks: Chunks,
    log: Log,
    fetches: Fetches,
    memory: Memory,
    /// A spread is under way: nothing but its parts is delivered.
    holds_back: bool,
    tally: Tally,
}

impl Book {
    /// A swarm without peers.
    pub(crate) fn new(config: SwarmConfig, chunk_count: u32) -> Self {
        Self {
            config,
            limits: Limits::default(),
            peers: Peers::default(),
            holders: Holders::default(),
            watch: VecDeque::new(),
            starving: Starving::default(),
            chunks: Chunks::new(chunk_count),
            log: Log::default(),
            fetches: Fetches::default(),
            memory: Memory::default(),
            holds_back: false,
            tally: Tally::default(),
        }
    }

    #[inline]
    pub(crate) fn config(&self) -> &SwarmConfig {
        &self.config
    }

    /// The shell's own limits.
    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let is_limited = limits.patience > std::time::Duration::ZERO;
        self.fetches.set_patience(is_limited.then_some(limits.patience));
    }

    /// Fetches that may be under way at once.
    #[inline]
    pub(crate) fn fetches_max(&self) -> u32 {
        self.config.fetches_max.min(self.limits.fetches_max).max(1)
    }

    /// The peer, if it is connected.
    #[inline]
    pub(crate) fn find(&self, slot: PeerSlot) -> Option<&Peer> {
        self.peers.get(slot)
    }

    /// A peer that is connected.
    #[inline]
    pub(crate) fn peer(&self, slot: PeerSlot) -> &Peer {
        &self.peers[slot]
    }

    #[inline]
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The connected peers' slots.
    pub(crate) fn slots(&self) -> Vec<PeerSlot> {
        self.peers.iter().map(|(slot, _)| slot).collect()
    }

    /// Holders that nothing is being fetched from.
    #[inline]
    pub(crate) fn idle_holders(&self) -> &[PeerSlot] {
        &self.holders.idle
    }

    /// Holders that are remembered because they supplied something.
    #[inline]
    pub(crate) fn suppliers(&self) -> &VecDeque<PeerSlot> {
        &self.holders.suppliers
    }

    #[inline]
    pub(crate) fn starving(&self) -> &Starving {
        &self.starving
    }

    /// The next few starving peers.
    pub(crate) fn next_starving(&self) -> impl Iterator<Item = &Peer> {
        self.starving.next(STARVING_PER_SCAN).map(|slot| self.peer(slot))
    }

    #[inline]
    pub(crate) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    #[inline]
    pub(crate) fn chunk(&self, chunk: u32) -> &Chunk {
        self.chunks.get(chunk)
    }

    #[inline]
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    #[inline]
    pub(crate) fn fetches(&self) -> &Fetches {
        &self.fetches
    }

    /// Whether nothing but the parts of a spread is delivered.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        self.holds_back
    }

    #[inline]
    pub(crate) fn counters(&self) -> Counters {
        self.tally.counters
    }

    #[inline]
    pub(crate) fn published(&self) -> SwarmStatus {
        self.tally.published
    }

    /// Bytes of a chunk: the last one may be smaller.
    #[inline]
    pub(crate) fn chunk_bytes(&self, chunk: u32) -> u32 {
        let start = u64::from(chunk) * u64::from(self.config.chunk_size_bytes);
        let rest = self.config.size_bytes - start;
        u32::try_from(rest)
            .map_or(self.config.chunk_size_bytes, |rest| rest.min(self.config.chunk_size_bytes))
    }

    /// Leases that are there and not used.
    #[inline]
    pub(crate) fn held(&self) -> u32 {
        self.memory.held
    }

    /// Chunks of memory that this swarm has.
    pub(crate) fn usage(&self) -> u32 {
        let fetching = u32::try_from(self.fetches.len()).expect("bounded by fetches_max");
        self.chunks.cached.len() + fetching + self.draining_count() + self.memory.held
    }

    /// Evicted chunks that are still in memory.
    pub(crate) fn draining_count(&self) -> u32 {
        u32::try_from(self.chunks.draining.len()).expect("at most the cache")
    }

    /// Whether one more fetch may be under way.
    #[inline]
    pub(crate) fn may_fetch_more(&self) -> bool {
        self.fetches.len() < self.fetches_max() as usize
    }

    /// Something may have become fetchable.
    #[inline]
    pub(crate) fn note_news(&mut self) {
        self.chunks.news = true;
    }

    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.chunks.news
    }

    /// From now on it is noted which chunks get other holders; all of them count as such at first.
    pub(crate) fn note_all_held(&mut self) {
        self.chunks.note_all_held();
    }

    /// The chunks that have other holders than when this was last taken, ascending.
    pub(crate) fn take_news_of_holders(&mut self) -> Vec<u32> {
        self.chunks.take_news_of_holders()
    }

    /// The news is being looked at.
    #[inline]
    pub(crate) fn forget_news(&mut self) {
        self.chunks.news = false;
    }

    /// A lease came.
    pub(crate) fn add_room(&mut self) {
        self.memory.held += 1;
    }

    /// All leases that are not used are given back.
    #[inline]
    pub(crate) fn drop_room(&mut self) {
        self.memory.held = 0;
    }

    /// Whether an evicted chunk's memory has come back since this was last asked.
    #[inline]
    pub(crate) fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.memory.has_returned)
    }

    /// A spread begins, or it is over. Which peers starve is found out as they are looked at.
    pub(crate) fn hold_back(&mut self, holds_back: bool) {
        self.holds_back = holds_back;
    }

    /// Chunks in the order of how many want them are about to be looked at.
    #[inline]
    pub(crate) fn tidy_fetchable(&mut self) {
        self.chunks.fetchable.tidy();
    }

    /// The same of cached chunks, in the order of what they cost.
    pub(crate) fn tidy_cached(&mut self) {
        self.chunks.cached.tidy();
    }

    /// Another holder is asked for what is late.
    pub(crate) fn count_hedge(&mut self) {
        self.tally.counters.hedges += 1;
    }

    /// A chunk is given up that peers still want.
    pub(crate) fn count_purchase(&mut self) {
        self.tally.counters.purchases += 1;
    }

    /// No action names a peer that has gone any more.
    #[inline]
    pub(crate) fn recycle_slots(&mut self) {
        self.peers.recycle();
    }
}
