//! Rent or buy: how long starving peers wait before a chunk that is still wanted is evicted.
//!
//! While room is wanted in vain, starving peers lose deliveries: time starving x own recent rate.
//! When together they have lost the price, one wanted chunk goes and the count starts again.

use std::time::Duration;

use crate::time::Time;

/// Lost deliveries, in chunks, that buy one eviction.
pub const LAMBDA_DEFAULT: f64 = 16.0;

/// What has been lost since the last purchase.
#[derive(Debug)]
pub(super) struct Rent {
    lambda: f64,
    lost_chunks: f64,
    /// Of all starving peers together, in millionths of a chunk a second.
    rate: u64,
    blocked: bool,
    counted_to: Time,
}

impl Rent {
    pub(super) fn new(lambda: f64) -> Self {
        Self { lambda, lost_chunks: 0.0, rate: 0, blocked: false, counted_to: Time::ZERO }
    }

    pub(super) fn lambda(&self) -> f64 {
        self.lambda
    }

    /// Counts what was lost up to now.
    pub(super) fn advance(&mut self, now: Time) {
        if self.blocked {
            self.lost_chunks += now.seconds_since(self.counted_to) * self.chunks_per_second();
        }
        self.counted_to = self.counted_to.max(now);
    }

    /// From now on memory is what starving peers wait for, or it is not.
    pub(super) fn set_blocked(&mut self, now: Time, blocked: bool) {
        self.advance(now);
        self.blocked = blocked;
    }

    /// One peer's part of the rate changes.
    pub(super) fn change_rate(&mut self, old: u64, new: u64) {
        self.rate = self.rate - old + new;
    }

    /// The summed rate, for checks.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn chunks_per_second(&self) -> f64 {
        self.rate as f64 / 1e6
    }

    pub(super) fn is_due(&self, price: f64) -> bool {
        self.lost_chunks >= price
    }

    /// When the price will have been lost.
    pub(super) fn due_at(&self, price: f64) -> Option<Time> {
        if self.is_due(price) {
            return Some(self.counted_to);
        }
        let seconds = (price - self.lost_chunks) / self.chunks_per_second();
        let wait = Duration::try_from_secs_f64(seconds).ok()?;
        (self.rate > 0).then(|| self.counted_to + wait + Duration::from_nanos(1000))
    }

    /// A purchase: the count starts again.
    pub(super) fn pay(&mut self) {
        self.lost_chunks = 0.0;
    }
}
