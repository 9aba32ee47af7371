//! Per chunk: where it is and how many peers hold, want or are being sent it.
//!
//! For every chunk, over peers that are not retired (H) and those whose wants count (W):
//! `holders = |{p in H: p has it}|`, `wanted = |{p in W: p needs a delivery of it}|`,
//! `needers = wanted + |{p in W: a delivery to p is not written}|`, `keen` as `decide/pace.rs` has it,
//! `unwritten = |{p: a delivery to p is not written}|`.

use relay_protocol::time::Time;

use super::{log::Log, ranks::Ranks};

/// Where a chunk's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Not with the relay.
    Absent,
    /// Under way from a holder.
    Fetching,
    /// In the cache.
    Cached(Cached),
    /// Evicted, and deliveries still hold its memory.
    Draining {
        /// The shell was told to take it back.
        is_recalled: bool,
    },
}

/// A chunk in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cached {
    /// Its place in the log of cached chunks.
    pub(crate) sequence: u64,
    pub(crate) used_at: Time,
    /// Fetched for a peer that starves, and no delivery has begun: not to be evicted.
    pub(crate) is_protected: bool,
    /// Nothing was delivered since it was fetched.
    pub(super) is_fresh: bool,
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) place: Place,
    pub(crate) holders: u32,
    pub(crate) wanted: u32,
    pub(crate) needers: u32,
    /// Of the needers, those that keep pace and take it as soon as they can.
    pub(crate) keen: u32,
    /// Of these, those that are being sent it.
    pub(crate) keen_unwritten: u32,
    pub(crate) unwritten: u32,
    /// A peer that had it when last heard.
    pub(crate) holder_hint: u32,
    /// A peer got it from the relay and verified it.
    pub(super) is_handed_out: bool,
}

/// Cached and no peer needs it.
pub(crate) const FREE: u32 = 0;

/// Cached, only peers that have fallen behind need it, and none is being sent it.
pub(crate) const LEFT: u32 = 1;

/// The same, and some are being sent it.
pub(crate) const PINNED: u32 = 2;

impl Chunk {
    #[inline]
    pub(crate) fn is_cached(&self) -> bool {
        matches!(self.place, Place::Cached(_))
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.place, Place::Draining { .. })
    }

    /// What is known of it while it is in the cache.
    #[inline]
    pub(crate) fn cached(&self) -> Option<&Cached> {
        match &self.place {
            Place::Cached(cached) => Some(cached),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn cached_mut(&mut self) -> Option<&mut Cached> {
        match &mut self.place {
            Place::Cached(cached) => Some(cached),
            _ => None,
        }
    }

    /// Whether it may not be evicted.
    #[inline]
    pub(crate) fn is_protected(&self) -> bool {
        self.cached().is_some_and(|cached| cached.is_protected)
    }

    /// Whether the shell was told to take it back.
    pub(crate) fn is_recalled(&self) -> bool {
        matches!(self.place, Place::Draining { is_recalled: true })
    }

    /// No delivery of it is under way: nothing protects it any more.
    #[inline]
    pub(super) fn unprotect_unless_unwritten(&mut self) {
        let is_unwritten = self.unwritten > 0;
        if let Some(cached) = self.cached_mut() {
            cached.is_protected &= is_unwritten;
        }
    }

    /// What it would cost to give it up, if it is cached: the least first.
    pub(crate) fn rank(&self) -> u32 {
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
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    fn new(chunk_count: u32) -> Self {
        Self(vec![0; chunk_count.div_ceil(64) as usize])
    }

    fn set(&mut self, chunk: u32, value: bool) {
        let word = &mut self.0[(chunk / 64) as usize];
        *word = *word & !(1 << (chunk % 64)) | u64::from(value) << (chunk % 64);
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn contains(&self, chunk: u32) -> bool {
        self.0[(chunk / 64) as usize] >> (chunk % 64) & 1 == 1
    }
}

/// All chunks, with the orders that decisions need.
#[derive(Debug)]
pub(crate) struct Chunks {
    chunks: Vec<Chunk>,
    /// Absent, held by a peer and wanted: by `wanted`.
    pub(crate) fetchable: Ranks,
    /// Cached: by [`Chunk::rank`].
    pub(crate) cached: Ranks,
    /// The same as `fetchable`, as bits.
    pub(crate) fetchable_bits: Bits,
    /// Held by exactly one peer.
    pub(crate) sole_bits: Bits,
    /// Held by no peer and not with the relay.
    pub(crate) orphan_bits: Bits,
    pub(crate) orphan_count: u32,
    /// Evicted, and still in memory.
    pub(crate) draining: Vec<u32>,
    /// Sum of `needers`.
    pub(crate) needers_total: u64,
    /// The same of those that keep pace: none of them needs anything if this is zero.
    pub(crate) keen_total: u64,
    /// Something became fetchable, or got a holder, since this was last cleared.
    pub(super) news: bool,
    pub(super) holders_news: HoldersNews,
}

/// Chunks whose number of holders has changed since this was last taken, while an onlooker asks.
#[derive(Debug, Default)]
pub(super) struct HoldersNews {
    /// None before the first onlooker.
    changed: Option<Bits>,
    is_some: bool,
}

impl HoldersNews {
    #[inline]
    fn note(&mut self, chunk: u32) {
        if let Some(changed) = &mut self.changed {
            changed.set(chunk, true);
            self.is_some = true;
        }
    }
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
            holder_hint: 0,
            is_handed_out: false,
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
            holders_news: HoldersNews::default(),
        };
        for chunk in 0..chunk_count {
            all.orphan_bits.set(chunk, true);
        }
        all
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).expect("at most CHUNK_COUNT_MAX chunks")
    }

    #[inline]
    pub(crate) fn get(&self, chunk: u32) -> &Chunk {
        &self.chunks[chunk as usize]
    }

    pub(crate) fn is_cached(&self, chunk: u32) -> bool {
        self.chunks[chunk as usize].is_cached()
    }

    /// Its place in the log of cached chunks, or the log's end.
    pub(crate) fn sequence(&self, chunk: u32, log: &Log) -> u64 {
        self.get(chunk).cached().map_or(log.end(), |cached| cached.sequence)
    }

    /// Whether some chunk has other holders than when this was last taken.
    #[inline]
    pub(crate) fn has_news_of_holders(&self) -> bool {
        self.holders_news.is_some
    }

    /// From now on it is noted which chunks get other holders; all of them count as such at first.
    pub(super) fn note_all_held(&mut self) {
        let mut all = Bits::new(self.count());
        (0..self.count()).for_each(|chunk| all.set(chunk, true));
        self.holders_news = HoldersNews { changed: Some(all), is_some: true };
    }

    /// The chunks that have other holders than when this was last taken, ascending.
    pub(super) fn take_news_of_holders(&mut self) -> Vec<u32> {
        let empty = Bits::new(self.count());
        self.holders_news.is_some = false;
        let changed = self.holders_news.changed.replace(empty).unwrap_or_default();
        ones(changed.0.into_iter()).collect()
    }

    /// It may be evicted; that changes none of the orders.
    #[inline]
    pub(super) fn unprotect(&mut self, chunk: u32) {
        if let Some(cached) = self.chunks[chunk as usize].cached_mut() {
            cached.is_protected = false;
        }
    }

    /// Changes a chunk and puts it where it then belongs in every order.
    #[inline]
    pub(super) fn change<T>(&mut self, chunk: u32, change: impl FnOnce(&mut Chunk) -> T) -> T {
        let state = &mut self.chunks[chunk as usize];
        let (was_draining, holders) = (state.is_draining(), state.holders);
        self.needers_total -= u64::from(state.needers);
        self.keen_total -= u64::from(state.keen);
        let result = change(state);
        self.needers_total += u64::from(state.needers);
        self.keen_total += u64::from(state.keen);
        let now_draining = state.is_draining();
        if now_draining && !was_draining {
            self.draining.push(chunk);
        } else if was_draining && !now_draining {
            self.draining.retain(|&other| other != chunk);
        }
        let fetchable = state.place == Place::Absent && state.holders > 0 && state.wanted > 0;
        if state.holders != holders {
            self.holders_news.note(chunk);
        }
        self.news |= fetchable && (state.holders > holders || !self.fetchable_bits.contains(chunk));
        self.fetchable.set(chunk, fetchable.then_some(state.wanted));
        self.cached.set(chunk, state.is_cached().then(|| state.rank()));
        self.fetchable_bits.set(chunk, fetchable);
        self.sole_bits.set(chunk, state.holders == 1);
        let orphan = state.holders == 0 && state.place == Place::Absent;
        self.orphan_count += u32::from(orphan);
        self.orphan_count -= u32::from(self.orphan_bits.contains(chunk));
        self.orphan_bits.set(chunk, orphan);
        result
    }
}

/// The set bits of a sequence of words, ascending: for scans over chunks, a word at a time.
pub(crate) fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.zip(0u32..).flat_map(|(mut word, index)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(index * 64 + bit)
        })
    })
}
