//! How long a spread waits for owners that are slower than the first.
//!
//! The first owners are done with their parts after some time. One of the same pace may have a part that is one
//! chunk larger; to wait for that one costs no peer anything that could be saved. To wait for a slower one costs the
//! first a twentieth of what they will need for all of the file: in a large fleet many times what a
//! part takes, among few peers less than a part.

use std::time::Duration;

use relay_protocol::time::Time;

/// The first quarter of the owners sets the pace.
const FIRST_OWNERS: usize = 4;

/// The first wait for others no longer than such a part of what the whole file takes them.
const WAIT_PART: u32 = 20;

/// And no shorter than so long: on a busy machine an owner may have had no turn.
const WAIT_LEAST: Duration = Duration::from_millis(75);

/// Whether slow owners are still waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// The first are not done themselves.
    Whole,
    Until(Time),
    Over,
}

impl Patience {
    /// `done` of `owners` have their parts of a file of so many chunks. Returns whether the wait for the rest is over.
    pub(super) fn look(
        &mut self,
        now: Time,
        began_at: Time,
        done: usize,
        owners: usize,
        chunks: u32,
    ) -> bool {
        if matches!(self, Self::Whole) && done * FIRST_OWNERS >= owners {
            let until = began_at + wait(now.since(began_at), owners, chunks);
            *self = Self::Until(until.max(now + WAIT_LEAST));
        }
        if matches!(self, Self::Until(at) if *at <= now) {
            *self = Self::Over;
        }
        matches!(self, Self::Over)
    }

    /// When to look though nothing happens.
    pub(super) fn look_at(self) -> Option<Time> {
        match self {
            Self::Until(at) => Some(at),
            Self::Whole | Self::Over => None,
        }
    }
}

/// How long a spread may take, if that is how long the first owners' parts took.
fn wait(first_took: Duration, owners: usize, chunks: u32) -> Duration {
    let owners = u32::try_from(owners).unwrap_or(u32::MAX).clamp(1, chunks.max(1));
    let (least, most) = (chunks / owners, chunks.div_ceil(owners));
    let of_one_chunk = first_took / least.max(1);
    of_one_chunk
        .saturating_mul(most)
        .saturating_add(of_one_chunk.saturating_mul(chunks) / WAIT_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_large_fleet_waits_for_many_parts_and_a_small_one_for_less_than_one() {
        assert_eq!(wait(SECOND, 100, 400), 6 * SECOND);
        assert_eq!(wait(SECOND, 10, 100), 3 * SECOND / 2);
        assert_eq!(wait(SECOND, 1, 400), SECOND + SECOND / 20);
        // Parts of one chunk and of two.
        assert_eq!(wait(SECOND, 15, 20), 3 * SECOND);
        assert_eq!(wait(Duration::ZERO, 15, 20), Duration::ZERO);
        assert_eq!(wait(SECOND, 0, 0), Duration::ZERO);
    }

    #[test]
    fn patience_ends_some_time_after_the_first_quarter_is_done() {
        let (mut patience, began_at) = (Patience::Whole, Time::ZERO + SECOND);
        let at = |seconds| began_at + Duration::from_secs(seconds);
        assert!(!patience.look(at(100), began_at, 24, 100, 400));
        assert_eq!(patience.look_at(), None);
        assert!(!patience.look(at(100), began_at, 25, 100, 400));
        assert_eq!(patience.look_at(), Some(at(600)));
        assert!(!patience.look(at(599), began_at, 99, 100, 400));
        assert!(patience.look(at(600), began_at, 99, 100, 400));
        assert_eq!(patience.look_at(), None, "it is looked at whenever something happens");
        assert!(patience.look(at(700), began_at, 20, 100, 400), "for good");
    }
}
