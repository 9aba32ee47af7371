//! One shard's end of a limit that all shards share: what waits for its turn, and the slots that it waits for.
//!
//! Pure. A shaper, as the field calls what delays instead of dropping. What has something to move asks for
//! [room](Shaper::room); if there is none, it [waits](Shaper::wait) in the order in which it came. For each that waits
//! the shard takes a slot of one quantum, but never more than [`SLOTS_MAX`] at once. So shards get parts of a limit in
//! proportion to what waits on them, up to that number, and what waits behind it can go, or find the limit changed,
//! without leaving a hole of its own. Whatever of a slot is not used goes to the next that waits, or
//! [back](Shaper::settle).
//!
//! Invariant: as long as something waits, there is a slot, or room for a frame.

use std::collections::VecDeque;

use crate::rates::Total;
use relay_protocol::{limits::FRAME_PAYLOAD_BYTES_MAX, rate::Rate, time::Time};

/// Slots that one shard holds at once. At 1 MB/s and with 16 shards they lie in the next two seconds.
const SLOTS_MAX: usize = 8;

/// With less than a frame nothing can be begun.
const ROOM_BYTES_MIN: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

/// A limit that is in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit<'a> {
    pub total: &'a Total,
    pub rate: Rate,
}

/// What waits of one shard in one direction.
#[derive(Debug)]
pub(crate) struct Shaper<T> {
    waiting: VecDeque<T>,
    /// When the slots begin, of a quantum each.
    slots: VecDeque<Time>,
    /// What is left of slots that have begun.
    spare_bytes: u64,
}

impl<T> Default for Shaper<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), slots: VecDeque::new(), spare_bytes: 0 }
    }
}

impl<T> Shaper<T> {
    /// Bytes that one that has not waited may move now: none if others wait, else none or at least a frame.
    pub(crate) fn room(&mut self, limit: Limit<'_>, now: Time) -> u64 {
        if !self.waiting.is_empty() {
            return 0;
        }
        if self.slots.is_empty() && self.spare_bytes < ROOM_BYTES_MIN {
            self.reserve(limit, now);
        }
        self.open(limit, now)
    }

    /// It waits behind those that do.
    pub(crate) fn wait(&mut self, limit: Limit<'_>, now: Time, what: T) {
        self.waiting.push_back(what);
        self.top_up(limit, now);
        self.invariants();
    }

    /// The next of those that wait, if its turn has come, and how much it may move.
    pub(crate) fn pop(&mut self, limit: Limit<'_>, now: Time) -> Option<(T, u64)> {
        if self.waiting.is_empty() || self.open(limit, now) < ROOM_BYTES_MIN {
            return None;
        }
        let what = self.waiting.pop_front()?;
        self.top_up(limit, now);
        Some((what, self.spare_bytes))
    }

    /// So many bytes are on their way; those beyond what there was room for.
    pub(crate) fn take(&mut self, bytes: u64) -> u64 {
        let beyond = bytes.saturating_sub(self.spare_bytes);
        self.spare_bytes = self.spare_bytes.saturating_sub(bytes);
        beyond
    }

    /// So many of the bytes that were taken did not go.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.spare_bytes += bytes;
    }

    /// When [`Self::pop`] has something; `None` if nothing waits.
    pub(crate) fn due(&self) -> Option<Time> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.spare_bytes >= ROOM_BYTES_MIN {
            Some(Time::ZERO)
        } else {
            self.slots.front().copied()
        }
    }

    /// The last time that is known at which something still waits: one behind it waits longer.
    pub(crate) fn waits_until(&self) -> Option<Time> {
        if self.waiting.is_empty() { None } else { self.slots.back().copied() }
    }

    /// What is like this waits no longer; its slots are for others.
    pub(crate) fn forget(&mut self, is_it: impl Fn(&T) -> bool) {
        self.waiting.retain(|other| !is_it(other));
    }

    /// If nothing waits, others get what is left.
    pub(crate) fn settle(&mut self, limit: Limit<'_>) {
        if !self.waiting.is_empty() || self.slots.is_empty() && self.spare_bytes == 0 {
            return;
        }
        let slots = self.slots.drain(..).len() as u64;
        let unused = slots * limit.rate.quantum_bytes() + std::mem::take(&mut self.spare_bytes);
        limit.total.refund(limit.rate, unused);
    }

    /// Another limit holds, or none: nothing waits any more.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> {
        self.slots.clear();
        self.spare_bytes = 0;
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// Slots that have begun are room.
    fn open(&mut self, limit: Limit<'_>, now: Time) -> u64 {
        while self.spare_bytes < ROOM_BYTES_MIN && self.slots.front().is_some_and(|&at| at <= now) {
            self.slots.pop_front();
            self.spare_bytes += limit.rate.quantum_bytes();
        }
        if self.spare_bytes < ROOM_BYTES_MIN { 0 } else { self.spare_bytes }
    }

    /// A slot for each that waits, within the bound.
    fn top_up(&mut self, limit: Limit<'_>, now: Time) {
        while self.slots.len() < self.waiting.len().min(SLOTS_MAX) {
            self.reserve(limit, now);
        }
    }

    fn reserve(&mut self, limit: Limit<'_>, now: Time) {
        let quantum = limit.rate.quantum_bytes();
        self.slots.push_back(limit.total.reserve(limit.rate, now, quantum));
    }

    /// Asserts what always holds.
    fn invariants(&self) {
        debug_assert!(self.waiting.is_empty() || self.due().is_some());
        debug_assert!(self.slots.len() <= SLOTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What each of some connections on some shards moved within a second, all of which have always more.
    fn shares(rate: u64, shards: &[usize]) -> Vec<Vec<u64>> {
        let (total, rate) = (Total::default(), Rate::new(rate).expect("more than nothing"));
        total.begin(Some(rate));
        let limit = Limit { total: &total, rate };
        let begin = Time::ZERO + Duration::from_secs(100);
        let mut moved: Vec<Vec<u64>> = shards.iter().map(|&count| vec![0; count]).collect();
        let mut shapers: Vec<Shaper<usize>> = shards.iter().map(|_| Shaper::default()).collect();
        for (shaper, &count) in shapers.iter_mut().zip(shards) {
            (0..count).for_each(|who| shaper.wait(limit, begin, who));
        }
        for millis in 0..10_000 {
            let now = begin + Duration::from_millis(millis);
            for (shaper, moved) in shapers.iter_mut().zip(&mut moved) {
                while let Some((who, room)) = shaper.pop(limit, now) {
                    moved[who] += room;
                    shaper.take(room);
                    shaper.wait(limit, now, who);
                }
            }
        }
        moved
    }

    #[test]
    fn all_that_wait_get_the_same_on_whichever_shard() {
        for rate in [1 << 20, 20 << 20, 200 << 20] {
            let moved = shares(rate, &[1, 3, 6]);
            let all: Vec<u64> = moved.into_iter().flatten().collect();
            let sum: u64 = all.iter().sum();
            assert!(sum.abs_diff(10 * rate) < rate / 3, "{sum} at {rate}");
            for part in &all {
                assert!(
                    part.abs_diff(sum / 10) < sum / 100 + (64 << 10),
                    "{part} of {sum} at {rate}"
                );
            }
        }
    }

    #[test]
    fn a_crowd_on_one_shard_starves_neither_itself_nor_others() {
        let moved = shares(20 << 20, &[1, 500]);
        let sum: u64 = moved.iter().flatten().sum();
        assert!(sum.abs_diff(200 << 20) < 10 << 20, "{sum}");
        assert!(moved[0][0] < sum / 4, "{} of {sum}: one of nine slots", moved[0][0]);
        let (least, most) = (moved[1].iter().min(), moved[1].iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 256 << 10));
    }

    #[test]
    fn what_one_does_not_use_goes_to_the_next_or_back() {
        let (total, rate) = (Total::default(), Rate::new(1 << 20).expect("more than nothing"));
        total.begin(Some(rate));
        let limit = Limit { total: &total, rate };
        let now = Time::ZERO + Duration::from_secs(100);
        let mut shaper = Shaper::default();
        assert!(shaper.room(limit, now) >= ROOM_BYTES_MIN);
        shaper.settle(limit);
        assert_eq!(
            total.reserve(rate, now, 0),
            now - relay_protocol::rate::DEPTH,
            "all of it is back"
        );
        shaper.wait(limit, now, 'a');
        shaper.wait(limit, now, 'b');
        assert_eq!(shaper.pop(limit, now).map(|(what, _)| what), Some('a'));
        // It moved nothing.
        assert_eq!(shaper.pop(limit, now).map(|(what, _)| what), Some('b'));
        assert_eq!((shaper.due(), shaper.pop(limit, now)), (None, None));
        shaper.settle(limit);
        assert_eq!(total.reserve(rate, now, 0), now - relay_protocol::rate::DEPTH);
    }

    #[test]
    fn what_is_gone_waits_no_longer_and_its_slot_is_for_the_next() {
        let (total, rate) = (Total::default(), Rate::new(1 << 20).expect("more than nothing"));
        total.begin(Some(rate));
        let limit = Limit { total: &total, rate };
        let now = Time::ZERO + Duration::from_secs(100);
        let mut shaper = Shaper::default();
        shaper.wait(limit, now, 'a');
        shaper.wait(limit, now, 'b');
        assert!(shaper.waits_until() > shaper.due());
        shaper.forget(|&what| what == 'a');
        let (what, room) = shaper.pop(limit, now).expect("the first slot has begun");
        assert_eq!((what, shaper.waits_until()), ('b', None));
        assert_eq!(shaper.take(room + 5), 5, "more went than there was room for");
    }

    #[test]
    fn with_other_limits_nothing_waits_any_more() {
        let (total, rate) = (Total::default(), Rate::new(1).expect("more than nothing"));
        total.begin(Some(rate));
        let limit = Limit { total: &total, rate };
        let now = Time::ZERO + Duration::from_secs(100);
        let mut shaper = Shaper::default();
        (0..20).for_each(|who| shaper.wait(limit, now, who));
        assert!(shaper.due().is_some());
        assert_eq!(shaper.clear().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert_eq!(shaper.due(), None);
    }
}
