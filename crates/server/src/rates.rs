//! The limits in force, and how far their totals are used up: shared by all threads of the process, without a lock.
//!
//! A total is one number, the time at which its next slot begins ([`relay_protocol::rate`]). A shard takes slots by
//! exchanging that number for a later one. Those that wait hold at most a few slots for each shard
//! ([`crate::shard::shaper`]), so all shards that have something to move take turns.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use crate::limits::Limits;
use relay_protocol::{
    rate::{Gcra, Rate},
    time::Time,
};

/// So long after something was held back the swarms take it that the relay holds back: longer than the pause between
/// two looks at the time.
const HELD_BACK_FOR: Duration = Duration::from_secs(1);

/// What was held back is noted so often: a store that all shards share.
const NOTED_EVERY: Duration = Duration::from_millis(100);

/// All limits of a process.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub egress: Total,
    pub ingress: Total,
    peer: AtomicU64,
    /// How often the limits were set.
    generation: AtomicU64,
    /// When something that goes out was held back last.
    held_back_at: AtomicU64,
}

/// What all connections of a process share of one direction.
#[derive(Debug, Default)]
pub(crate) struct Total {
    bytes_per_second: AtomicU64,
    next_slot_ns: AtomicU64,
}

impl Rates {
    /// From now on these hold. What waits by the old ones is to begin anew: each shard sees that the generation is
    /// another one.
    pub(crate) fn set(&self, limits: &Limits) {
        let bytes = |limit: Option<Rate>| limit.map_or(0, Rate::bytes_per_second);
        for (total, limit) in [(&self.egress, limits.egress), (&self.ingress, limits.ingress)] {
            total.bytes_per_second.store(bytes(limit), Relaxed);
            total.next_slot_ns.store(0, Relaxed);
        }
        self.peer.store(bytes(limits.peer), Relaxed);
        self.generation.fetch_add(1, Release);
    }

    /// Another number after the limits were set.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            egress: Rate::new(self.egress.bytes_per_second.load(Relaxed)),
            ingress: Rate::new(self.ingress.bytes_per_second.load(Relaxed)),
            peer: Rate::new(self.peer.load(Relaxed)),
        }
    }

    /// Something that would go out waits for a limit.
    pub(crate) fn note_held_back(&self, now: Time) {
        let noted = Time(self.held_back_at.load(Relaxed));
        if now.since(noted) >= NOTED_EVERY {
            self.held_back_at.store(now.0, Relaxed);
        }
    }

    /// Whether the relay holds back what it could send.
    pub(crate) fn holds_back(&self, now: Time) -> bool {
        let noted = self.held_back_at.load(Relaxed);
        noted > 0 && now.since(Time(noted)) < HELD_BACK_FOR
    }
}

impl Total {
    /// Takes a slot for so many bytes; when it begins.
    pub(crate) fn reserve(&self, rate: Rate, now: Time, bytes: u64) -> Time {
        self.change(|slots| slots.reserve(rate, now, bytes))
    }

    /// So many bytes have come; when they are over at the rate.
    pub(crate) fn charge(&self, rate: Rate, now: Time, bytes: u64) -> Time {
        self.change(|slots| slots.charge(rate, now, bytes))
    }

    /// So many bytes of slots were not used.
    pub(crate) fn refund(&self, rate: Rate, bytes: u64) {
        self.change(|slots| slots.refund(rate, bytes));
    }

    fn change<T: Copy + Default>(&self, change: impl Fn(&mut Gcra) -> T) -> T {
        let mut outcome = T::default();
        let changed = |next: u64| {
            let mut slots = Gcra::at(Time(next));
            outcome = change(&mut slots);
            Some(slots.next().0)
        };
        // It is always changed: there is always a next slot.
        self.next_slot_ns.fetch_update(Relaxed, Relaxed, changed).ok();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn threads_that_take_slots_at_once_get_different_ones() {
        let (total, rate) = (Total::default(), Rate::new(1 << 20).expect("more than nothing"));
        let now = Time::ZERO + 100 * SECOND;
        let take = || (0..1000).map(|_| total.reserve(rate, now, 1 << 10)).collect::<Vec<_>>();
        let mut starts: Vec<Time> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it takes slots")).collect()
        });
        starts.sort_unstable();
        let slot = rate.time_for(1 << 10);
        assert!(starts.windows(2).all(|pair| pair[1].since(pair[0]) == slot));
    }

    #[test]
    fn new_limits_begin_anew() {
        let rates = Rates::default();
        let limit = |bytes| Limits { egress: Rate::new(bytes), ..Limits::default() };
        rates.set(&limit(1));
        let (before, now) = (rates.generation(), Time::ZERO + 100 * SECOND);
        let slow = rates.limits().egress.expect("it is set");
        rates.egress.reserve(slow, now, 1 << 20);
        assert!(rates.egress.reserve(slow, now, 1) > now + 1_000_000 * SECOND);
        rates.set(&limit(1 << 30));
        assert!(rates.generation() != before && rates.limits() == limit(1 << 30));
        let fast = rates.limits().egress.expect("it is set");
        assert!(rates.egress.reserve(fast, now, 1) <= now);
    }

    #[test]
    fn that_the_relay_holds_back_is_known_for_a_while() {
        let (rates, now) = (Rates::default(), Time::ZERO + 100 * SECOND);
        assert!(!rates.holds_back(now));
        rates.note_held_back(now);
        assert!(rates.holds_back(now + SECOND / 2) && !rates.holds_back(now + 2 * SECOND));
    }
}
