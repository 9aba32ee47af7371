//! How many bytes may go in a second, and when the next ones may: the generic cell rate algorithm.
//!
//! Pure. A [`Rate`] is bytes of file content a second. A [`Gcra`] is what one limit has to remember: a single time, the
//! theoretical arrival time of what comes next. It is the *virtual scheduling* form of the algorithm (ITU-T I.371,
//! annex A; ATM Forum, Traffic Management 4.1, 4.4.2), which decides as a token bucket does and needs no refilling.
//! One number can be shared by threads as an atomic.
//!
//! What is asked for in advance has its **slot**: it may begin when the slot does, and the next slot begins when this
//! one ends. So over any time `t` no more goes than `rate × (t + DEPTH) + quantum`:
//!
//! - [`DEPTH`] is how much of a pause may be made up for: a timer that fires late costs nothing.
//! - a [quantum](Rate::quantum_bytes) is what goes at once.
//!
//! ```
//! use std::time::Duration;
//!
//! use relay_protocol::{rate::{Gcra, Rate}, time::Time};
//!
//! let rate = Rate::new(1_000_000).unwrap();
//! let (mut limit, now) = (Gcra::default(), Time::from_start(Duration::from_secs(9)));
//! let first = limit.reserve(rate, now, 100_000);
//! let second = limit.reserve(rate, now, 100_000);
//! assert!(first <= now, "nothing went before");
//! assert_eq!(second.since(first), Duration::from_millis(100));
//! ```

use std::{num::NonZeroU64, time::Duration};

use crate::{limits::FRAME_PAYLOAD_BYTES_MAX, time::Time};

/// So much of a pause is made up for: event loops wake up a few milliseconds late when the machine has other work, and
/// what they missed must not be lost. An eighth of 200 ms.
pub const DEPTH: Duration = Duration::from_millis(25);

/// What goes at once takes so long at the rate: a fifth of [`DEPTH`], and few enough wake-ups at any rate.
const QUANTUM: Duration = Duration::from_millis(5);

/// What goes at once has at least a frame, the least that can be begun.
const QUANTUM_BYTES_MIN: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

/// And at most as much as one gathered write.
const QUANTUM_BYTES_MAX: u64 = 256 << 10;

/// Bytes a second, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// So many bytes a second; `None`, no limit, if that is 0.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bytes_per_second).map(Self)
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// Bytes that go in this time, rounded down.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0.get()) * time.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
    }

    /// The time that so many bytes take, rounded up to nanoseconds.
    #[must_use]
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.0.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4).min(u64::MAX / 4))
    }

    /// Bytes that go at once: at least a frame.
    #[must_use]
    pub fn quantum_bytes(self) -> u64 {
        self.bytes_in(QUANTUM).clamp(QUANTUM_BYTES_MIN, QUANTUM_BYTES_MAX)
    }
}

/// One limit: when what comes next may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gcra {
    /// The theoretical arrival time: all that went before is over then, at the rate.
    next: Time,
}

impl Gcra {
    /// One whose next slot begins then.
    #[must_use]
    pub fn at(next: Time) -> Self {
        Self { next }
    }

    /// When the next slot begins, as [`Self::at`] takes it: what waits may go from then on.
    #[must_use]
    pub fn next(self) -> Time {
        self.next
    }

    /// Takes a slot for so many bytes; when it begins. That may lie in the past, by [`DEPTH`] at most: then they may
    /// go at once.
    pub fn reserve(&mut self, rate: Rate, now: Time, bytes: u64) -> Time {
        let start = self.next.max(now - DEPTH);
        self.next = start + rate.time_for(bytes);
        start
    }

    /// So many bytes have come, of any sender; when they are over at the rate.
    pub fn charge(&mut self, rate: Rate, now: Time, bytes: u64) -> Time {
        self.reserve(rate, now, bytes);
        self.next
    }

    /// So many bytes of slots were not used.
    pub fn refund(&mut self, rate: Rate, bytes: u64) {
        self.next = self.next - rate.time_for(bytes);
    }

    /// Bytes that may go now, without a slot: a quantum and what was missed before, or none. What went is to be
    /// [charged](Self::charge).
    #[must_use]
    pub fn room_bytes(self, rate: Rate, now: Time) -> u64 {
        if self.next > now {
            return 0;
        }
        rate.quantum_bytes() + rate.bytes_in(now.since(self.next.max(now - DEPTH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(micros: u64) -> Time {
        Time::from_start(Duration::from_secs(100) + Duration::from_micros(micros))
    }

    /// Takes all that it may whenever it wakes up, which is late by what `lateness` says; bytes with their times.
    fn run(rate: Rate, time: Duration, lateness: impl Fn(u64) -> u64) -> Vec<(Time, u64)> {
        let (mut limit, mut now, mut gone) = (Gcra::default(), at(0), Vec::new());
        while now < at(0) + time {
            let bytes = limit.room_bytes(rate, now);
            if bytes > 0 {
                limit.charge(rate, now, bytes);
                gone.push((now, bytes));
            }
            let late = Duration::from_micros(lateness(gone.len() as u64));
            now = limit.next().max(now) + late;
        }
        gone
    }

    #[test]
    fn the_rate_is_kept_however_late_the_timers_are() {
        for bytes in [20_000, 1 << 20, 20 << 20, 200 << 20, 10 << 30] {
            let rate = Rate::new(bytes).unwrap();
            for late in [0, 1000, 7000, 19_000] {
                let gone = run(rate, 10 * SECOND, |turn| turn * 7919 % (late + 1));
                let sum: u64 = gone.iter().map(|&(_, bytes)| bytes).sum();
                let most = rate.bytes_in(10 * SECOND + DEPTH) + rate.quantum_bytes();
                assert!(sum <= most + rate.bytes_in(DEPTH), "{sum} of {most} at {bytes}");
                assert!(
                    sum as f64 > 0.99 * (10 * bytes) as f64,
                    "{sum} at {bytes}, {late} us late"
                );
            }
        }
    }

    #[test]
    fn no_window_of_any_length_holds_more_than_the_rate_the_depth_and_a_quantum() {
        let rate = Rate::new(5 << 20).unwrap();
        // Pauses of up to a second.
        let gone =
            run(
                rate,
                30 * SECOND,
                |turn| if turn % 50 == 0 { turn * 7919 % 1_000_000 } else { 900 },
            );
        for (first, &(since, _)) in gone.iter().enumerate() {
            let mut sum = 0;
            for &(until, bytes) in &gone[first..] {
                sum += bytes;
                let most = rate.bytes_in(until.since(since) + DEPTH) + rate.quantum_bytes();
                assert!(sum <= most + 2, "{sum} of {most} in {:?}", until.since(since));
            }
        }
    }

    #[test]
    fn slots_follow_each_other_and_a_pause_is_not_saved_up() {
        let rate = Rate::new(1_000_000).unwrap();
        let mut limit = Gcra::default();
        let starts: Vec<_> = (0..5).map(|_| limit.reserve(rate, at(0), 10_000)).collect();
        assert!(starts.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_millis(10)));
        let late = at(60_000_000);
        assert_eq!(limit.reserve(rate, late, 10_000), late - DEPTH);
    }

    #[test]
    fn what_was_not_used_is_there_for_others() {
        let rate = Rate::new(1_000_000).unwrap();
        let (mut one, mut other) = (Gcra::at(at(0)), Gcra::at(at(0)));
        one.reserve(rate, at(0), 50_000);
        one.refund(rate, 20_000);
        other.reserve(rate, at(0), 30_000);
        assert_eq!(one, other);
    }

    #[test]
    fn any_rate_and_any_number_of_bytes_can_be_reckoned_with() {
        for bytes in [1, 7, 1 << 40, u64::MAX] {
            let rate = Rate::new(bytes).unwrap();
            let mut limit = Gcra::default();
            for asked in [0, 1, 1 << 14, u64::MAX] {
                assert!(limit.reserve(rate, at(0), asked) <= limit.next());
                assert!(limit.charge(rate, at(1), 1) >= at(0) - DEPTH);
            }
            assert!(rate.quantum_bytes() >= QUANTUM_BYTES_MIN);
        }
        assert_eq!(Rate::new(0), None);
    }
}
