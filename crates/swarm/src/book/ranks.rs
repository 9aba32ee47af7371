//! Chunks ordered by a small count (of peers), with O(1) changes: which is most wanted, which least.
//!
//! Knows nothing of what the counts mean.
//!
//! Invariant: `places[c] = (key, position)` if and only if `buckets[key][position] = c`.

/// Not in any bucket.
const ABSENT: u32 = u32::MAX;

/// A set of chunks, each with a key that is a count.
#[derive(Debug, Default)]
pub(crate) struct Ranks {
    buckets: Vec<Vec<u32>>,
    places: Vec<(u32, u32)>,
    len: u32,
    /// No bucket above it holds anything.
    top: u32,
    /// No bucket below it holds anything.
    low: u32,
}

impl Ranks {
    /// The empty set over `chunk_count` chunks.
    pub(super) fn new(chunk_count: u32) -> Self {
        Self { places: vec![(ABSENT, 0); chunk_count as usize], ..Self::default() }
    }

    /// How many chunks are in the set.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The chunk's key, if it is in the set.
    pub(crate) fn key(&self, chunk: u32) -> Option<u32> {
        let (key, _) = self.places[chunk as usize];
        (key != ABSENT).then_some(key)
    }

    /// Puts the chunk in with this key, moves it there, or takes it out.
    pub(super) fn set(&mut self, chunk: u32, key: Option<u32>) {
        let (old, position) = self.places[chunk as usize];
        if old == key.unwrap_or(ABSENT) {
            return;
        }
        if old != ABSENT {
            let bucket = &mut self.buckets[old as usize];
            bucket.swap_remove(position as usize);
            if let Some(&moved) = bucket.get(position as usize) {
                self.places[moved as usize].1 = position;
            }
            self.places[chunk as usize].0 = ABSENT;
            self.len -= 1;
        }
        if let Some(key) = key {
            self.insert(chunk, key);
        }
    }

    fn insert(&mut self, chunk: u32, key: u32) {
        if self.buckets.len() <= key as usize {
            self.buckets.resize_with(key as usize + 1, Vec::new);
        }
        let bucket = &mut self.buckets[key as usize];
        let position = u32::try_from(bucket.len()).expect("at most CHUNK_COUNT_MAX chunks");
        bucket.push(chunk);
        self.places[chunk as usize] = (key, position);
        (self.low, self.top) = match self.len {
            0 => (key, key),
            _ => (self.low.min(key), self.top.max(key)),
        };
        self.len += 1;
    }

    /// The chunks with this key.
    pub(crate) fn bucket(&self, key: u32) -> &[u32] {
        self.buckets.get(key as usize).map_or(&[], Vec::as_slice)
    }

    /// Moves the bounds of the search to keys in use: amortised O(1), O(keys) after a visit to a
    /// small key. Without it `iter_down` and `iter_up` pass empty buckets first.
    pub(super) fn tidy(&mut self) {
        if self.len == 0 {
            return;
        }
        while self.buckets[self.top as usize].is_empty() {
            self.top -= 1;
        }
        while self.buckets[self.low as usize].is_empty() {
            self.low += 1;
        }
    }

    /// Chunks with their keys, the largest key first.
    pub(crate) fn iter_down(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let top = if self.len == 0 { 0 } else { self.top as usize + 1 };
        let keys = 0..u32::try_from(top).expect("keys are counts of peers");
        self.buckets[..top]
            .iter()
            .zip(keys)
            .rev()
            .flat_map(|(bucket, key)| bucket.iter().map(move |&chunk| (chunk, key)))
    }

    /// Chunks with their keys, the smallest key first.
    pub(crate) fn iter_up(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let low = if self.len == 0 { self.buckets.len() } else { self.low as usize };
        self.buckets[low..]
            .iter()
            .zip(self.low..)
            .flat_map(|(bucket, key)| bucket.iter().map(move |&chunk| (chunk, key)))
    }

    /// Checks the module's invariant.
    pub(crate) fn invariants(&self) {
        let mut seen = 0;
        for (bucket, key) in self.buckets.iter().zip(0u32..) {
            for (&chunk, position) in bucket.iter().zip(0u32..) {
                assert_eq!(self.places[chunk as usize], (key, position), "chunk {chunk}");
                assert!((self.low..=self.top).contains(&key));
                seen += 1;
            }
        }
        assert_eq!(seen, self.len);
        assert_eq!(self.places.iter().filter(|(key, _)| *key != ABSENT).count(), seen as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::Ranks;

    #[test]
    fn finds_the_extremes_after_any_moves() {
        let mut ranks = Ranks::new(50);
        let mut model = std::collections::BTreeMap::new();
        let mut state = 7u32;
        for _ in 0..5000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (chunk, key) = ((state >> 8) % 50, (state >> 20) % 9);
            let key = (key < 8).then_some(key);
            ranks.set(chunk, key);
            match key {
                Some(key) => drop(model.insert(chunk, key)),
                None => drop(model.remove(&chunk)),
            }
            ranks.invariants();
            ranks.tidy();
            let keys = |found: Option<(u32, u32)>| found.map(|(_, key)| key);
            assert_eq!(keys(ranks.iter_down().next()), model.values().max().copied());
            assert_eq!(keys(ranks.iter_up().next()), model.values().min().copied());
            assert_eq!(ranks.len() as usize, model.len());
            assert!(ranks.iter_down().map(|(_, key)| key).is_sorted_by(|a, b| a >= b));
            assert!(ranks.iter_up().map(|(_, key)| key).is_sorted());
            assert_eq!(ranks.iter_up().count(), model.len());
        }
    }
}
