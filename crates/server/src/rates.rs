//! The limits in force, and how far their totals are used up: shared by all threads of the process, without a lock.
//!
//! A total is one number, the time at which its next slot begins ([`relay_protocol::rate`]). A shard takes slots by
//! exchanging that number for a later one. Those that wait hold at most a few slots for each shard
//! ([`crate::shard::shaper`]), so all shards that have something to move take turns.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

use crate::limits::Limits;
use relay_protocol::{
    rate::{Gcra, Rate},
    time::Time,
};

/// So long after the last of it was held back the swarms take it that the relay holds back: longer than the pause between
/// two looks at the time.
const HELD_BACK_FOR: Duration = Duration::from_secs(1);

/// What has come may put what comes next off by so long, or by one quantum where that takes longer: a debt must not
/// outlive those that made it. What honest holders have under way at once is less.
const DEBT_MAX: Duration = Duration::from_secs(1);

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
    /// Until when something that goes out is held back.
    held_back_until: AtomicU64,
}

/// What all connections of a process share of one direction.
///
/// A shard may still reckon with the rate before when others are set. What it changes then is void: [`Self::begin`]
/// names the new rate before it begins anew, and a change by another rate begins anew, too.
#[derive(Debug, Default)]
pub(crate) struct Total {
    bytes_per_second: AtomicU64,
    next_slot_ns: AtomicU64,
}

impl Rates {
    /// From now on these hold. What waits by the old ones is to begin anew: each shard sees that the generation is
    /// another one.
    pub(crate) fn set(&self, limits: &Limits) {
        for (total, limit) in [(&self.egress, limits.egress), (&self.ingress, limits.ingress)] {
            total.begin(limit);
        }
        self.peer.store(limits.peer.map_or(0, Rate::bytes_per_second), Relaxed);
        self.held_back_until.store(0, Relaxed);
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

    /// Something that would go out waits for a limit until then.
    pub(crate) fn note_held_back(&self, until: Time) {
        let noted = Time(self.held_back_until.load(Relaxed));
        if until.since(noted) >= NOTED_EVERY {
            self.held_back_until.fetch_max(until.0, Relaxed);
        }
    }

    /// Whether the relay holds back what it could send.
    pub(crate) fn holds_back(&self, now: Time) -> bool {
        let until = self.held_back_until.load(Relaxed);
        until > 0 && now < Time(until) + HELD_BACK_FOR
    }
}

impl Total {
    /// From now on this rate holds, or none.
    pub(crate) fn begin(&self, limit: Option<Rate>) {
        self.bytes_per_second.store(limit.map_or(0, Rate::bytes_per_second), Relaxed);
        self.next_slot_ns.store(0, Release);
    }

    /// Takes a slot for so many bytes; when it begins.
    pub(crate) fn reserve(&self, rate: Rate, now: Time, bytes: u64) -> Time {
        self.change(rate, |slots| slots.reserve(rate, now, bytes))
    }

    /// So many bytes have come that were asked for; when they are over at the rate. What comes next is put off by
    /// [`DEBT_MAX`] at most.
    pub(crate) fn charge(&self, rate: Rate, now: Time, bytes: u64) -> Time {
        let latest = now + DEBT_MAX.max(rate.time_for(rate.quantum_bytes()));
        self.charge_until(rate, now, bytes, latest)
    }

    /// So many bytes have come unasked: they count, but put off nothing that was asked for.
    pub(crate) fn charge_unasked(&self, rate: Rate, now: Time, bytes: u64) {
        self.charge_until(rate, now, bytes, now);
    }

    fn charge_until(&self, rate: Rate, now: Time, bytes: u64, latest: Time) -> Time {
        self.change(rate, |slots| {
            let before = slots.next();
            let end = slots.charge(rate, now, bytes);
            *slots = Gcra::at(end.min(latest.max(before)));
            end
        })
    }

    /// So many bytes of slots were not used.
    pub(crate) fn refund(&self, rate: Rate, bytes: u64) {
        self.change(rate, |slots| slots.refund(rate, bytes));
    }

    fn change<T: Copy + Default>(&self, rate: Rate, change: impl Fn(&mut Gcra) -> T) -> T {
        let mut outcome = T::default();
        let changed = |next: u64| {
            let mut slots = Gcra::at(Time(next));
            outcome = change(&mut slots);
            Some(slots.next().0)
        };
        // It is always changed: there is always a next slot.
        self.next_slot_ns.fetch_update(AcqRel, Acquire, changed).ok();
        if self.bytes_per_second.load(Relaxed) != rate.bytes_per_second() {
            // The change came after another rate was set, and was reckoned with the old one.
            self.next_slot_ns.store(0, Release);
        }
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
        total.begin(Some(rate));
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
    fn what_comes_puts_off_what_is_next_by_a_second_and_what_comes_unasked_by_nothing() {
        let (total, rate) = (Total::default(), Rate::new(1 << 20).expect("more than nothing"));
        total.begin(Some(rate));
        let now = Time::ZERO + 100 * SECOND;
        (0..1000).for_each(|_| total.charge_unasked(rate, now, 1 << 20));
        assert_eq!(total.reserve(rate, now, 0), now, "it uses up what others left");
        assert!(total.charge(rate, now, 1 << 30) > now + 1000 * SECOND, "its holder waits for it");
        let next = total.reserve(rate, now, 1 << 20);
        assert_eq!(next, now + DEBT_MAX);
        total.charge_unasked(rate, now, 1 << 20);
        total.charge(rate, now, 1);
        assert_eq!(total.reserve(rate, now, 0), next + SECOND, "no slot is taken back");
    }

    #[test]
    fn a_shard_that_reckons_with_the_old_rate_does_not_put_off_the_new_one() {
        let (slow, fast) = (Rate::new(1).expect("some"), Rate::new(1 << 30).expect("some"));
        let (total, now) = (Total::default(), Time::ZERO + 100 * SECOND);
        total.begin(Some(slow));
        total.begin(Some(fast));
        total.reserve(slow, now, 1 << 20);
        assert!(total.reserve(fast, now, 1) <= now);
    }

    #[test]
    fn that_the_relay_holds_back_is_known_for_a_while() {
        let (rates, now) = (Rates::default(), Time::ZERO + 100 * SECOND);
        assert!(!rates.holds_back(now));
        rates.note_held_back(now);
        assert!(rates.holds_back(now + SECOND / 2) && !rates.holds_back(now + 2 * SECOND));
        rates.note_held_back(now + 16 * SECOND);
        rates.note_held_back(now + SECOND);
        assert!(rates.holds_back(now + 16 * SECOND), "slow limits hold back for long");
        assert!(!rates.holds_back(now + 17 * SECOND));
        rates.note_held_back(now + 100 * SECOND);
        rates.set(&Limits::default());
        assert!(!rates.holds_back(now), "nothing waits for the old limits");
    }
}
