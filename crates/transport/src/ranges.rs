//! Sets of byte positions of one chunk, as ranges. Does not know what they stand for.

use std::ops::Range;

/// A set of positions.
///
/// Invariant: the ranges are not empty, in order, and don't touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet {
    ranges: Vec<Range<u32>>,
}

impl RangeSet {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges it takes to tell.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// The range with the least positions.
    #[must_use]
    pub fn first(&self) -> Option<Range<u32>> {
        self.ranges.first().cloned()
    }

    /// All ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.ranges.iter().cloned()
    }

    /// How many positions are in it.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.end - range.start)).sum()
    }

    /// Whether all of `range` is in it.
    #[must_use]
    pub fn covers(&self, range: &Range<u32>) -> bool {
        range.is_empty()
            || self.ranges.iter().any(|own| own.start <= range.start && range.end <= own.end)
    }

    /// Puts a range in.
    pub fn insert(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        // All that touch it become one with it.
        let from = self.ranges.partition_point(|own| own.end < range.start);
        let to = self.ranges.partition_point(|own| own.start <= range.end);
        let mut whole = range;
        if from < to {
            whole.start = whole.start.min(self.ranges[from].start);
            whole.end = whole.end.max(self.ranges[to - 1].end);
        }
        self.ranges.splice(from..to, [whole]);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: &Range<u32>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|own| own.end <= range.start);
        let to = self.ranges.partition_point(|own| own.start < range.end);
        if from >= to {
            return;
        }
        let before = self.ranges[from].start..range.start;
        let after = range.end..self.ranges[to - 1].end;
        let left = [before, after].into_iter().filter(|rest| !rest.is_empty());
        self.ranges.splice(from..to, left);
    }

    /// What is in both, in order.
    #[must_use]
    pub fn intersection(&self, range: &Range<u32>) -> Vec<Range<u32>> {
        let cut = |own: &Range<u32>| own.start.max(range.start)..own.end.min(range.end);
        self.ranges.iter().map(cut).filter(|cut| !cut.is_empty()).collect()
    }
}

impl From<Range<u32>> for RangeSet {
    fn from(range: Range<u32>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_knows_what_a_set_of_positions_would_know(
            steps in prop::collection::vec((any::<bool>(), 0_u32..60, 0_u32..20), 1..80),
        ) {
            let (mut ranges, mut set) = (RangeSet::new(), BTreeSet::new());
            for (puts_in, start, len) in steps {
                let range = start..start + len;
                if puts_in {
                    ranges.insert(range.clone());
                    set.extend(range.clone());
                } else {
                    ranges.remove(&range);
                    set.retain(|position| !range.contains(position));
                }
                let told: Vec<u32> = ranges.iter().flatten().collect();
                prop_assert_eq!(&told, &set.iter().copied().collect::<Vec<_>>());
                prop_assert!(ranges.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert_eq!(ranges.covers(&range), range.clone().all(|at| set.contains(&at)));
                let common: Vec<u32> = ranges.intersection(&(10..40)).into_iter().flatten().collect();
                prop_assert_eq!(common, set.range(10..40).copied().collect::<Vec<_>>());
            }
        }
    }
}
