//! In peer order: which chunks are wanted next, and since when.
//!
//! Pure. Knows nothing of deliveries; the session tells it what was verified or lost.

use std::collections::{HashMap, VecDeque};

use relay_protocol::{
    Bitfield,
    limits::{WANT_CHUNKS_MAX, WANTS_PER_PEER_MAX},
    rng::Rng,
    time::Time,
};

/// Chunks that a peer wants at once even if they are large: enough to keep two on their way.
const WANTS_MIN: usize = 4;

/// Which side chooses the order of a peer's chunks, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChunkOrder {
    /// The relay chooses: peers advance as one wave.
    #[default]
    Relay,
    /// From the first to the last.
    Sequential,
    /// Shuffled by this seed.
    Random {
        /// Same seed, same order.
        seed: u64,
    },
    /// Nothing but what its owner names, as it does: see [`super::bridge`].
    Named,
}

/// The chunks that a peer names to the relay, in its own order.
///
/// Invariant: `wanted.len() <= wants_max <= WANTS_PER_PEER_MAX`.
#[derive(Debug)]
pub struct Wants {
    ahead: VecDeque<u32>,
    wanted: HashMap<u32, Time>,
    wants_max: usize,
    /// What was lost is named again at once: others may be of no use without it.
    is_urgent: bool,
}

impl Wants {
    /// Everything that is `lacking`, in `order`; with [`ChunkOrder::Relay`] nothing.
    ///
    /// Wants reach `ahead_bytes` ahead: the relay always knows what comes next, and a request's
    /// latency isn't mostly a queue of the peer's own making.
    #[must_use]
    pub fn new(
        order: ChunkOrder,
        lacking: impl Iterator<Item = u32>,
        chunk_size_bytes: u32,
        ahead_bytes: u64,
    ) -> Self {
        let ahead = match order {
            ChunkOrder::Relay | ChunkOrder::Named => Vec::new(),
            ChunkOrder::Sequential => lacking.collect(),
            ChunkOrder::Random { seed } => {
                let mut chunks: Vec<u32> = lacking.collect();
                Rng::new(seed, 0).shuffle(&mut chunks);
                chunks
            }
        };
        // An owner that names chunks bounds them itself.
        let ahead_bytes = if order == ChunkOrder::Named { u64::MAX } else { ahead_bytes };
        let wants_max = ahead_bytes.div_ceil(u64::from(chunk_size_bytes));
        let wants_max = usize::try_from(wants_max).unwrap_or(usize::MAX);
        Self {
            ahead: ahead.into(),
            wanted: HashMap::new(),
            wants_max: wants_max.clamp(WANTS_MIN, WANTS_PER_PEER_MAX),
            is_urgent: false,
        }
    }

    /// Chunks to name now: as many as fit one message, none while few would be new. What came unasked
    /// meanwhile, as a part of a file that is spread, is in `have`: it would be named in vain, and
    /// wait for ever for what no relay sends.
    pub fn poll(&mut self, now: Time, have: &Bitfield) -> Option<Vec<u32>> {
        let room = self.wants_max - self.wanted.len();
        let batch = room.min(WANT_CHUNKS_MAX).min(self.ahead.len());
        let worth_it = batch == self.ahead.len() || batch >= self.wants_max.div_ceil(4);
        if batch == 0 || !worth_it && !self.is_urgent && batch < WANT_CHUNKS_MAX {
            return None;
        }
        self.is_urgent = false;
        let mut chunks = Vec::with_capacity(batch);
        while chunks.len() < batch
            && let Some(chunk) = self.ahead.pop_front()
        {
            if !have.contains(chunk) {
                chunks.push(chunk);
            }
        }
        self.wanted.extend(chunks.iter().map(|&chunk| (chunk, now)));
        debug_assert!(self.wanted.len() <= self.wants_max);
        (!chunks.is_empty()).then_some(chunks)
    }

    /// Names a chunk after all others, unless it is named.
    pub fn name(&mut self, chunk: u32) {
        if !self.contains(chunk) {
            self.ahead.push_back(chunk);
            self.is_urgent = true;
        }
    }

    /// The chunk is wanted no longer.
    pub fn forget(&mut self, chunk: u32) {
        self.wanted.remove(&chunk);
        self.ahead.retain(|&other| other != chunk);
    }

    /// Whether the chunk is wanted, or will be.
    #[must_use]
    pub fn contains(&self, chunk: u32) -> bool {
        self.wanted.contains_key(&chunk) || self.ahead.contains(&chunk)
    }

    /// Since when the chunk is wanted.
    #[must_use]
    pub fn since(&self, chunk: u32) -> Option<Time> {
        self.wanted.get(&chunk).copied()
    }

    /// The chunk is here, and kept: another may be wanted in its place. Where it can't be kept
    /// before others are, as in a stream, it goes on counting: that bounds what waits.
    pub fn handle_kept(&mut self, chunk: u32) -> Option<Time> {
        self.wanted.remove(&chunk)
    }

    /// A delivery of the chunk was lost: it is named again, first of all.
    pub fn handle_lost(&mut self, chunk: u32) {
        if self.wanted.remove(&chunk).is_some() {
            self.ahead.push_front(chunk);
            self.is_urgent = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As near by.
    const AHEAD: u64 = 8 << 20;

    fn nothing() -> Bitfield {
        Bitfield::empty(5000)
    }

    fn drain(wants: &mut Wants) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(chunks) = wants.poll(Time::ZERO, &nothing()) {
            assert!(chunks.len() <= WANT_CHUNKS_MAX);
            for &chunk in &chunks {
                wants.handle_kept(chunk).expect("wanted just now");
            }
            all.extend(chunks);
        }
        all
    }

    #[test]
    fn relay_order_names_nothing() {
        let mut wants = Wants::new(ChunkOrder::Relay, 0..100, 1 << 18, AHEAD);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), None);
    }

    #[test]
    fn every_missing_chunk_is_named_once_in_order() {
        let mut have = Bitfield::empty(3000);
        have.insert(7);
        let missing: Vec<u32> = have.iter_missing().collect();
        let mut sequential =
            Wants::new(ChunkOrder::Sequential, have.iter_missing(), 1 << 10, AHEAD);
        assert_eq!(drain(&mut sequential), missing);
        let mut random =
            Wants::new(ChunkOrder::Random { seed: 5 }, have.iter_missing(), 1 << 10, AHEAD);
        let mut chunks = drain(&mut random);
        assert_ne!(chunks, missing);
        chunks.sort_unstable();
        assert_eq!(chunks, missing);
    }

    #[test]
    fn at_most_the_limit_is_outstanding() {
        for log2 in [10, 18, 24] {
            let mut wants = Wants::new(ChunkOrder::Sequential, 0..5000, 1 << log2, AHEAD);
            let mut outstanding = 0;
            while let Some(chunks) = wants.poll(Time::ZERO, &nothing()) {
                outstanding += chunks.len();
            }
            assert!((WANTS_MIN..=WANTS_PER_PEER_MAX).contains(&outstanding), "{outstanding}");
        }
    }

    #[test]
    fn a_lost_chunk_is_named_again_though_all_others_are_outstanding() {
        let mut wants = Wants::new(ChunkOrder::Sequential, 0..5000, 1 << 18, AHEAD);
        while wants.poll(Time::ZERO, &nothing()).is_some() {}
        wants.handle_lost(3);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), Some(vec![3]));
        assert_eq!(wants.poll(Time::ZERO, &nothing()), None);
    }

    #[test]
    fn what_an_owner_names_is_wanted_once_and_until_it_forgets_it() {
        let mut wants = Wants::new(ChunkOrder::Named, 0..100, 1 << 24, AHEAD);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), None);
        for chunk in [7, 3, 7, 9] {
            wants.name(chunk);
        }
        wants.forget(9);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), Some(vec![7, 3]));
        wants.name(3);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), None);
        wants.forget(3);
        wants.name(3);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), Some(vec![3]));
    }

    #[test]
    fn a_lost_chunk_is_named_again() {
        let mut wants = Wants::new(ChunkOrder::Sequential, 0..2, 1 << 18, AHEAD);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), Some(vec![0, 1]));
        wants.handle_lost(0);
        assert_eq!(wants.poll(Time::ZERO, &nothing()), Some(vec![0]));
        assert!(wants.handle_kept(0).is_some());
        assert!(wants.handle_kept(0).is_none());
    }

    #[test]
    fn what_came_unasked_is_not_named_and_takes_nobodys_place() {
        let mut wants = Wants::new(ChunkOrder::Sequential, 0..5000, 1 << 18, AHEAD);
        // Every second chunk comes by itself, many more than may be wanted at once.
        let mut have = Bitfield::empty(5000);
        for chunk in (0..5000).step_by(2) {
            assert!(have.insert(chunk));
        }
        let mut named = Vec::new();
        while let Some(chunks) = wants.poll(Time::ZERO, &have) {
            for &chunk in &chunks {
                wants.handle_kept(chunk).expect("wanted just now");
            }
            named.extend(chunks);
        }
        assert_eq!(named, (0..5000).skip(1).step_by(2).collect::<Vec<_>>());
    }
}
