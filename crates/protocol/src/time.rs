//! A point in time, handed into the pure cores by the owner of a clock.
//!
//! This module reads no clock itself: simulations make up their own time.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds since an arbitrary start that stays the same for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// The point `since_start` after the start; saturates after 584 years.
    #[must_use]
    pub fn from_start(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Seconds after `earlier`, for rates; zero if it is not after it.
    #[must_use]
    #[inline]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.since(earlier).as_secs_f64()
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    #[inline]
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    #[inline]
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}
