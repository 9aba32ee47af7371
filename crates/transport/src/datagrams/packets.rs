//! The packets of one connection: numbered and sealed on the way out, opened on the way in, and each
//! counted once.
//!
//! Which numbers have come is a bitmap behind the largest, so it is bounded. Knows nothing of what packets
//! hold.

use std::borrow::Cow;

use super::outcome::Received;
use relay_protocol::{Ack, DatagramHeader, DatagramKey, DatagramKeys, DatagramKind, Side};

/// Numbers, seals and opens packets.
#[derive(Debug)]
pub(super) struct Packets {
    shard: u8,
    connection: u64,
    seal: DatagramKey,
    open: DatagramKey,
    next_number: u64,
    replay: ReplayWindow,
}

impl Packets {
    /// Of this side; shard and connection as the offer named them.
    pub(super) fn new(side: Side, shard: u8, connection: u64, keys: DatagramKeys) -> Self {
        let (seal, open) = keys.of(side);
        Self { shard, connection, seal, open, next_number: 0, replay: ReplayWindow::default() }
    }

    /// Number of the packet that is begun, or is begun next.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Appends the header of the next packet; where the packet begins.
    pub(super) fn begin(&self, kind: DatagramKind, out: &mut Vec<u8>) -> usize {
        let (shard, connection, number) = (self.shard, self.connection, self.next_number);
        let start = out.len();
        out.extend_from_slice(&DatagramHeader { shard, kind, connection, number }.encode());
        start
    }

    /// Seals the packet that begins there; its number.
    pub(super) fn end(&mut self, start: usize, out: &mut Vec<u8>) -> u64 {
        self.seal.seal(out, start);
        self.next_number += 1;
        self.next_number - 1
    }

    /// Number and body of a packet that is new and was sealed by the other side. It is not booked yet.
    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Result<(u64, Cow<'a, [u8]>), Received> {
        let header = DatagramHeader::peek(datagram);
        let header = header.filter(|header| header.connection == self.connection);
        let number = header.ok_or(Received::Forged)?.number;
        if !self.replay.is_new(number) {
            return Err(Received::Replayed);
        }
        Ok((number, self.open.open(datagram).ok_or(Received::Forged)?))
    }

    /// Books a packet that has come.
    pub(super) fn insert(&mut self, number: u64) {
        self.replay.insert(number);
    }

    /// Whether this number is larger than all that came.
    pub(super) fn is_newest(&self, number: u64) -> bool {
        self.replay.is_newest(number)
    }

    /// Whether this number comes before or after its turn.
    pub(super) fn is_disorder(&self, number: u64) -> bool {
        !self.replay.is_newest(number) || self.replay.has_gap_before(number)
    }

    /// What to tell the other side of what has come; `None` before anything did.
    pub(super) fn ack(&self) -> Option<Ack> {
        self.replay.ack()
    }
}

/// Numbers behind the largest that are still told apart; older ones count as seen. Eight times
/// what a sender of control has under way, and enough for bulk data that was reordered.
const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The packet numbers of one direction.
///
/// Invariant: bit `n % WINDOW` tells of number `n` for `largest - WINDOW < n <= largest`.
#[derive(Debug, Default)]
struct ReplayWindow {
    /// The largest number that came, plus one; 0 if none did.
    end: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Whether the number has not come yet, for sure.
    fn is_new(&self, number: u64) -> bool {
        number >= self.end || self.end - number <= WINDOW && !self.bit(number)
    }

    /// Whether it is larger than all that came.
    fn is_newest(&self, number: u64) -> bool {
        number >= self.end
    }

    /// Books a number that has come.
    fn insert(&mut self, number: u64) {
        debug_assert!(self.is_new(number));
        if number >= self.end {
            let skipped = (number - self.end).min(WINDOW);
            (0..skipped).for_each(|back| self.clear(number - 1 - back));
            self.end = number.saturating_add(1);
        }
        self.seen[word(number)] |= 1 << (number % 64);
    }

    /// What to tell the sender; `None` before anything came.
    fn ack(&self) -> Option<Ack> {
        let largest = self.end.checked_sub(1)?;
        let before = (0..u64::from(u128::BITS).min(largest))
            .filter(|&back| self.bit(largest - 1 - back))
            .fold(0, |before, back| before | 1u128 << back);
        Some(Ack { largest, before })
    }

    /// Whether a number smaller than the largest is missing among those that an ack tells of.
    fn has_gap_before(&self, number: u64) -> bool {
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
