//! Per chunk: where it is and how many peers hold, want or are being sent it.
//!
//! For every chunk, over peers that are not retired (H) and those whose wants count (W):
//! `holders = |{p in H: p has it}|`, `wanted = |{p in W: p needs a delivery of it}|`,
//! `needers = wanted + |{p in W: a delivery to p is not written}|`, `keen` as `pace` has it,
//! `unwritten = |{p: a delivery to p is not written}|`.

use super::{FetchId, log::Log, ranks::Ranks};
use relay_protocol::time::Time;

/// Where a chunk's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Not with the relay.
    Absent,
    /// Under way from a holder.
    Fetching,
    /// In the cache.
    Cached,
    /// Evicted, and deliveries still hold its memory.
    Draining,
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) place: Place,
    pub(super) holders: u32,
    pub(super) wanted: u32,
    pub(super) needers: u32,
    /// Of the needers, those who keep pace and take it as soon as they can.
    pub(super) keen: u32,
    /// Of these, those who are being sent it.
    pub(super) keen_unwritten: u32,
    pub(super) unwritten: u32,
    /// Its place in the log of cached chunks.
    pub(super) sequence: u64,
    pub(super) used_at: Time,
    /// Fetched for somebody and no delivery has begun: not to be evicted.
    pub(super) protected: bool,
    /// Nothing was delivered since it was fetched.
    pub(super) fresh: bool,
    /// The shell was told to take it back.
    pub(super) recalled: bool,
    /// The latest fetch of it, while one is under way.
    pub(super) flight: Option<FetchId>,
    /// A peer that had it when last heard.
    pub(super) holder_hint: u32,
    /// Somebody got it from the relay and verified it.
    pub(super) handed_out: bool,
}

/// Cached and nobody needs it.
pub(super) const FREE: u32 = 0;

/// Cached, only peers that have fallen behind need it, and none is being sent it.
pub(super) const LEFT: u32 = 1;

/// The same, and some are being sent it.
pub(super) const PINNED: u32 = 2;

impl Chunk {
    /// What it would cost to give it up, if it is cached: the least first.
    pub(super) fn rank(&self) -> u32 {
        match (self.keen, self.needers, self.unwritten) {
            (0, 0, _) => FREE,
            (0, _, 0) => LEFT,
            (0, ..) => PINNED,
            (keen, ..) => PINNED + keen,
        }
    }
}

/// A dense set of chunks for whole-word scans.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    fn new(chunk_count: u32) -> Self {
        Self(vec![0; chunk_count.div_ceil(64) as usize])
    }

    fn set(&mut self, chunk: u32, value: bool) {
        let word = &mut self.0[(chunk / 64) as usize];
        *word = *word & !(1 << (chunk % 64)) | u64::from(value) << (chunk % 64);
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(super) fn contains(&self, chunk: u32) -> bool {
        self.0[(chunk / 64) as usize] >> (chunk % 64) & 1 == 1
    }
}

/// All chunks, with the orders that decisions need.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    /// Absent, held by somebody and wanted: by `wanted`.
    pub(super) fetchable: Ranks,
    /// Cached: by [`Chunk::rank`].
    pub(super) cached: Ranks,
    /// The same as `fetchable`, as bits.
    pub(super) fetchable_bits: Bits,
    /// Held by exactly one peer.
    pub(super) sole_bits: Bits,
    /// Held by nobody and not with the relay.
    pub(super) orphan_bits: Bits,
    pub(super) orphan_count: u32,
    /// Evicted, and still in memory.
    pub(super) draining: Vec<u32>,
    /// Sum of `needers`.
    pub(super) needers_total: u64,
    /// The same of those who keep pace: none of them needs anything if this is zero.
    pub(super) keen_total: u64,
    /// Something became fetchable, or got a holder, since this was last cleared.
    pub(super) news: bool,
}

impl Chunks {
    pub(super) fn new(chunk_count: u32) -> Self {
        let chunk = Chunk {
            place: Place::Absent,
            holders: 0,
            wanted: 0,
            needers: 0,
            keen: 0,
            keen_unwritten: 0,
            unwritten: 0,
            sequence: 0,
            used_at: Time::ZERO,
            protected: false,
            fresh: false,
            recalled: false,
            flight: None,
            holder_hint: 0,
            handed_out: false,
        };
        let mut all = Self {
            chunks: vec![chunk; chunk_count as usize],
            fetchable: Ranks::new(chunk_count),
            cached: Ranks::new(chunk_count),
            fetchable_bits: Bits::new(chunk_count),
            sole_bits: Bits::new(chunk_count),
            orphan_bits: Bits::new(chunk_count),
            orphan_count: chunk_count,
            draining: Vec::new(),
            needers_total: 0,
            keen_total: 0,
            news: false,
        };
        for chunk in 0..chunk_count {
            all.orphan_bits.set(chunk, true);
        }
        all
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).expect("at most CHUNK_COUNT_MAX chunks")
    }

    pub(super) fn get(&self, chunk: u32) -> &Chunk {
        &self.chunks[chunk as usize]
    }

    pub(super) fn is_cached(&self, chunk: u32) -> bool {
        self.chunks[chunk as usize].place == Place::Cached
    }

    /// Its place in the log of cached chunks, or the log's end.
    pub(super) fn sequence(&self, chunk: u32, log: &Log) -> u64 {
        if self.is_cached(chunk) { self.get(chunk).sequence } else { log.end() }
    }

    /// Changes a chunk and puts it where it then belongs in every order.
    #[inline]
    pub(super) fn change<T>(&mut self, chunk: u32, change: impl FnOnce(&mut Chunk) -> T) -> T {
        let state = &mut self.chunks[chunk as usize];
        let (was_draining, holders) = (state.place == Place::Draining, state.holders);
        self.needers_total -= u64::from(state.needers);
        self.keen_total -= u64::from(state.keen);
        let result = change(state);
        self.needers_total += u64::from(state.needers);
        self.keen_total += u64::from(state.keen);
        let now_draining = state.place == Place::Draining;
        if now_draining && !was_draining {
            self.draining.push(chunk);
        } else if was_draining && !now_draining {
            self.draining.retain(|&other| other != chunk);
        }
        let fetchable = state.place == Place::Absent && state.holders > 0 && state.wanted > 0;
        self.news |= fetchable && (state.holders > holders || !self.fetchable_bits.contains(chunk));
        self.fetchable.set(chunk, fetchable.then_some(state.wanted));
        self.cached.set(chunk, (state.place == Place::Cached).then(|| state.rank()));
        self.fetchable_bits.set(chunk, fetchable);
        self.sole_bits.set(chunk, state.holders == 1);
        let orphan = state.holders == 0 && state.place == Place::Absent;
        self.orphan_count += u32::from(orphan);
        self.orphan_count -= u32::from(self.orphan_bits.contains(chunk));
        self.orphan_bits.set(chunk, orphan);
        result
    }
}
