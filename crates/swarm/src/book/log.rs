//! The cached chunks in the order in which they came, so that a peer walks over each once.
//!
//! Invariant: `entries[c.sequence - base] = c` for every cached chunk `c`, all else is `GONE`;
//! the first entry is not `GONE`; `live` entries are not.

use std::collections::VecDeque;

/// An entry whose chunk was evicted.
const GONE: u32 = u32::MAX;

/// Evicted entries that may lie among live ones before the log is written anew: twice the live
/// ones, and at least so many that a small cache doesn't rewrite all the time.
const SLACK_MIN: usize = 256;

/// Entries, newest first, among which a search looks for precedence: a bound on its cost.
const NEWEST_LOOKED_AT: usize = 64;

/// Which of two cached chunks all peers prefer that can't take every one: half of the chunks have 0, a fourth
/// has 1, an eighth 2, and so on, evenly spread (the ruler sequence).
pub(crate) fn precedence(sequence: u64) -> u32 {
    sequence.trailing_zeros()
}

/// Cached chunks by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<u32>,
    base: u64,
    live: usize,
}

impl Log {
    /// The sequence number that the next chunk gets.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The oldest sequence number in use, or the end.
    pub(super) fn start(&self) -> u64 {
        self.base
    }

    /// How many chunks are in it.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The chunk with this sequence number.
    pub(crate) fn get(&self, sequence: u64) -> Option<u32> {
        let entry = self.entries.get(index(sequence.checked_sub(self.base)?)).copied();
        entry.filter(|&chunk| chunk != GONE)
    }

    /// Appends a chunk; returns its sequence number.
    pub(super) fn push(&mut self, chunk: u32) -> u64 {
        self.entries.push_back(chunk);
        self.live += 1;
        self.end() - 1
    }

    /// Takes a chunk out.
    pub(super) fn remove(&mut self, sequence: u64) {
        let entry = &mut self.entries[index(sequence - self.base)];
        debug_assert_ne!(*entry, GONE);
        *entry = GONE;
        self.live -= 1;
        while self.entries.front() == Some(&GONE) {
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// The first chunk at or after `cursor` that `wanted` accepts, with its sequence number.
    pub(crate) fn find(&self, cursor: u64, wanted: impl Fn(u32) -> bool) -> Option<(u64, u32)> {
        let from = cursor.max(self.base);
        let skip = index(from - self.base).min(self.entries.len());
        let (mut sequence, mut rest) = (from, self.entries.range(skip..));
        rest.find_map(|&chunk| {
            sequence += 1;
            (chunk != GONE && wanted(chunk)).then_some((sequence - 1, chunk))
        })
    }

    /// The chunk with the highest [`precedence`] that `wanted` accepts, the newest of these, among the last
    /// [`NEWEST_LOOKED_AT`] entries.
    pub(crate) fn find_preceding(&self, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let numbered = self.entries.iter().rev().zip(1..);
        let newest =
            numbered.map(|(chunk, back)| (self.end() - back, chunk)).take(NEWEST_LOOKED_AT);
        let wanted = newest.filter(|&(_, &chunk)| chunk != GONE && wanted(chunk));
        let best = wanted.max_by_key(|&(sequence, _)| (precedence(sequence), sequence));
        best.map(|(_, &chunk)| chunk)
    }

    /// Whether so much was evicted that the log should be written anew.
    pub(super) fn is_sparse(&self) -> bool {
        self.entries.len() > 3 * self.live + SLACK_MIN
    }

    /// Writes the log anew without gaps. `moved(chunk, sequence)` is told of every chunk; the
    /// result maps old cursors to new ones.
    pub(super) fn rewrite(
        &mut self,
        moved: &mut dyn FnMut(u32, u64),
    ) -> impl Fn(u64) -> u64 + use<> {
        let (old_base, new_base) = (self.base, self.end());
        let mut kept = VecDeque::with_capacity(self.live);
        let mut before = Vec::with_capacity(self.entries.len() + 1);
        for &chunk in &self.entries {
            before.push(new_base + kept.len() as u64);
            if chunk != GONE {
                moved(chunk, new_base + kept.len() as u64);
                kept.push_back(chunk);
            }
        }
        before.push(new_base + kept.len() as u64);
        self.entries = kept;
        self.base = new_base;
        move |cursor| before[index(cursor.max(old_base) - old_base).min(before.len() - 1)]
    }

    /// Checks the module's invariant against the chunks' own record.
    pub(crate) fn invariants(&self, sequence_of: impl Fn(u32) -> Option<u64>) {
        let mut live = 0;
        for (&chunk, sequence) in self.entries.iter().zip(self.base..) {
            if chunk != GONE {
                assert_eq!(sequence_of(chunk), Some(sequence), "chunk {chunk}");
                live += 1;
            }
        }
        assert_eq!(live, self.live);
        assert_ne!(self.entries.front(), Some(&GONE));
    }
}

fn index(difference: u64) -> usize {
    usize::try_from(difference).expect("the log fits memory")
}

#[cfg(test)]
mod tests {
    use super::Log;

    #[test]
    fn rewriting_keeps_order_and_cursors() {
        let mut log = Log::default();
        for chunk in 0..2000 {
            assert_eq!(log.push(chunk), u64::from(chunk));
        }
        for sequence in (0..2000).filter(|sequence| sequence % 500 != 7) {
            log.remove(sequence);
        }
        assert!(log.is_sparse());
        let mut moved = Vec::new();
        let cursor = log.rewrite(&mut |chunk, sequence| moved.push((chunk, sequence)));
        assert_eq!(moved, [(7, 2000), (507, 2001), (1007, 2002), (1507, 2003)]);
        assert_eq!(log.find(cursor(508), |_| true), Some((2002, 1007)));
        assert_eq!(log.find(cursor(0), |chunk| chunk > 7), Some((2001, 507)));
        assert_eq!(log.find(cursor(2000), |_| true), None);
        assert_eq!(cursor(2000), log.end());
    }
}
