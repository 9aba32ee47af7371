//! Which packet numbers have come, so that none counts twice. Bounded: a bitmap behind the largest.

use relay_protocol::Ack;

/// Numbers behind the largest that are still told apart; older ones count as seen. Eight times
/// what a sender of control has under way, and enough for bulk data that was reordered.
const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The packet numbers of one direction.
///
/// Invariant: bit `n % WINDOW` tells of number `n` for `largest - WINDOW < n <= largest`.
#[derive(Debug, Default)]
pub(crate) struct ReplayWindow {
    /// The largest number that came, plus one; 0 if none did.
    end: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Whether the number has not come yet, for sure.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        number >= self.end || self.end - number <= WINDOW && !self.bit(number)
    }

    /// Whether it is larger than all that came.
    pub(crate) fn is_newest(&self, number: u64) -> bool {
        number >= self.end
    }

    /// Books a number that has come.
    pub(crate) fn insert(&mut self, number: u64) {
        debug_assert!(self.is_new(number));
        if number >= self.end {
            let skipped = (number - self.end).min(WINDOW);
            (0..skipped).for_each(|back| self.clear(number - 1 - back));
            self.end = number.saturating_add(1);
        }
        self.seen[word(number)] |= 1 << (number % 64);
    }

    /// What to tell the sender; `None` before anything came.
    pub(crate) fn ack(&self) -> Option<Ack> {
        let largest = self.end.checked_sub(1)?;
        let before = (0..u64::from(u128::BITS).min(largest))
            .filter(|&back| self.bit(largest - 1 - back))
            .fold(0, |before, back| before | 1u128 << back);
        Some(Ack { largest, before })
    }

    /// Whether a number smaller than the largest is missing among those that an ack tells of.
    pub(crate) fn has_gap_before(&self, number: u64) -> bool {
        number > 0 && number - 1 < self.end && self.is_new(number - 1)
    }

    fn bit(&self, number: u64) -> bool {
        self.seen[word(number)] >> (number % 64) & 1 == 1
    }

    fn clear(&mut self, number: u64) {
        self.seen[word(number)] &= !(1 << (number % 64));
    }
}

fn word(number: u64) -> usize {
    usize::try_from(number % WINDOW / 64).expect("fewer than WORDS")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_knows_what_a_set_would_know_within_its_window(
            steps in prop::collection::vec((any::<bool>(), 0_u64..1500), 1..600),
        ) {
            let (mut window, mut set) = (ReplayWindow::default(), BTreeSet::new());
            let mut largest = 0;
            for (ahead, by) in steps {
                let number = if ahead { largest + by % 40 } else { largest.saturating_sub(by) };
                let is_old = largest >= number + WINDOW && !set.is_empty();
                prop_assert_eq!(window.is_new(number), !is_old && !set.contains(&number));
                if window.is_new(number) {
                    window.insert(number);
                    set.insert(number);
                    largest = largest.max(number);
                }
                let ack = window.ack().expect("something came");
                for number in largest.saturating_sub(140)..largest + 3 {
                    let known = set.contains(&number) && largest - number.min(largest) <= 128;
                    prop_assert_eq!(ack.covers(number), known);
                }
            }
        }
    }

    #[test]
    fn a_jump_forgets_what_lies_behind_and_nothing_comes_back() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.ack(), None);
        (0..100).for_each(|number| window.insert(number));
        window.insert(1_000_000);
        assert!(!window.is_new(50) && !window.is_new(1_000_000));
        assert!(window.is_new(999_999));
        assert!(!window.is_new(1_000_000 - WINDOW));
        assert_eq!(window.ack(), Some(Ack { largest: 1_000_000, before: 0 }));
        window.insert(u64::MAX - 1);
        assert!(window.is_newest(u64::MAX));
    }
}
