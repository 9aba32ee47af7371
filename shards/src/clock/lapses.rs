//! Finds out for how long the process did not run: no thread looked at the clock, though event loops do
//! every half a second. Reads no clock itself.
//!
//! Invariant: what [`Lapses::running`] returns never goes back, on whatever thread. The time of the last
//! look and the sum of lapses change together, in one word; and of a lapse [`KEPT`] still counts at the
//! least, which is more than [`MARK_EVERY`], so that no caller was told of a later time before it.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// No thread has looked for so long: the process did not run. Several times what an idle loop takes.
pub(super) const LAPSE_MIN: Duration = Duration::from_millis(1500);

/// How often a look is marked, at most: all threads read that word, so it is seldom written.
const MARK_EVERY: Duration = Duration::from_millis(50);

/// Of a lapse so much counts as time.
const KEPT: Duration = Duration::from_millis(100);

/// Bits of the word that hold the sum of lapses, in tenths of a second: ten months. The others hold the
/// last look in hundredths of a second: twenty years.
const LAPSED_BITS: u32 = 28;

const _: () = {
    assert!(MARK_EVERY.as_millis() + 10 < KEPT.as_millis());
    assert!(KEPT.as_millis() < LAPSE_MIN.as_millis());
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    looked_at: Duration,
    lapsed: Duration,
}

impl Mark {
    fn unpack(word: u64) -> Self {
        let tenths = word & ((1 << LAPSED_BITS) - 1);
        Self {
            looked_at: Duration::from_millis((word >> LAPSED_BITS) * 10),
            lapsed: Duration::from_millis(tenths * 100),
        }
    }

    fn pack(self) -> u64 {
        let whole = |time: Duration, millis: u128, bits: u32| {
            let most = (1 << bits) - 1;
            u64::try_from(time.as_millis() / millis).unwrap_or(most).min(most)
        };
        whole(self.looked_at, 10, u64::BITS - LAPSED_BITS) << LAPSED_BITS
            | whole(self.lapsed, 100, LAPSED_BITS)
    }

    /// No thread has looked since then.
    fn unseen(self, uptime: Duration) -> Duration {
        uptime.saturating_sub(self.looked_at)
    }
}

/// What all threads share, on a cache line of its own: it is read at every look.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Lapses {
    word: AtomicU64,
    /// Event loops that run. Where there is none, no thread has promised to look.
    looking: AtomicU32,
}

impl Lapses {
    pub(super) const fn new() -> Self {
        Self { word: AtomicU64::new(0), looking: AtomicU32::new(0) }
    }

    /// `uptime` without lapses, among them one that just ended.
    pub(super) fn running(&self, uptime: &impl Fn() -> Duration) -> Duration {
        loop {
            let word = self.word.load(Ordering::Acquire);
            let (mark, now) = (Mark::unpack(word), uptime());
            let unseen = mark.unseen(now);
            if unseen >= MARK_EVERY {
                let is_lapse = unseen >= LAPSE_MIN && self.looking.load(Ordering::Acquire) > 0;
                let lapse = if is_lapse { unseen - KEPT } else { Duration::ZERO };
                let next = Mark { looked_at: now, lapsed: mark.lapsed + lapse }.pack();
                let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
                if self.word.compare_exchange(word, next, done, failed).is_ok() {
                    return now.saturating_sub(Mark::unpack(next).lapsed);
                }
                // Another thread has looked, and what we saw may be from before a lapse.
                continue;
            }
            // The thread may have stood still between the two looks: then both are void.
            if Mark::unpack(self.word.load(Ordering::Acquire)).lapsed == mark.lapsed {
                return now.saturating_sub(mark.lapsed);
            }
        }
    }

    /// What [`Self::running`] leaves out.
    pub(super) fn lapsed(&self, uptime: &impl Fn() -> Duration) -> Duration {
        self.running(uptime);
        Mark::unpack(self.word.load(Ordering::Acquire)).lapsed
    }

    /// One more event loop; what was before it is no lapse.
    pub(super) fn begin_looking(&self, uptime: &impl Fn() -> Duration) {
        self.running(uptime);
        self.looking.fetch_add(1, Ordering::AcqRel);
    }

    /// One less.
    pub(super) fn end_looking(&self) {
        self.looking.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lapses: &Lapses, millis: u64) -> Duration {
        lapses.running(&|| Duration::from_millis(millis))
    }

    #[test]
    fn time_in_which_nobody_looked_is_left_out() {
        let lapses = Lapses::new();
        lapses.begin_looking(&|| Duration::from_millis(100));
        let before = at(&lapses, 600);
        assert_eq!(before, Duration::from_millis(600));
        let late = at(&lapses, 2_000);
        assert_eq!(late, Duration::from_millis(2_000), "a busy machine's loop is late");
        let after = at(&lapses, 70_850);
        assert!(after > late && after < late + 3 * KEPT, "{after:?}");
        let lapsed = lapses.lapsed(&|| Duration::from_millis(70_860));
        assert_eq!(after + lapsed, Duration::from_millis(70_850));
        assert_eq!(at(&lapses, 71_850), after + Duration::from_secs(1), "it goes on as ever");
    }

    #[test]
    fn where_no_loop_has_promised_to_look_there_is_no_lapse() {
        let lapses = Lapses::new();
        assert_eq!(at(&lapses, 60_000), Duration::from_secs(60));
        lapses.begin_looking(&|| Duration::from_secs(120));
        lapses.end_looking();
        assert_eq!(at(&lapses, 180_000), Duration::from_secs(180));
    }

    #[test]
    fn whoever_stood_still_in_the_middle_of_a_look_looks_again() {
        let lapses = Lapses::new();
        lapses.begin_looking(&|| Duration::from_millis(10));
        assert_eq!(at(&lapses, 1_000), Duration::from_secs(1));
        let looks = std::cell::Cell::new(0);
        let told = lapses.running(&|| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                // It has read the time and stands still; another thread is the first to go on.
                at(&lapses, 30_000);
                return Duration::from_millis(1_010);
            }
            Duration::from_millis(30_010)
        });
        assert_eq!(looks.get(), 2);
        assert!(told > Duration::from_secs(1) && told < Duration::from_millis(1_500), "{told:?}");
    }
}
