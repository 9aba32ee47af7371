//! Rent or buy: how long starving peers wait before a chunk goes that peers of their pace still need.
//!
//! While room is wanted in vain, starving peers lose deliveries: time starving × own rate. When together
//! they have lost the price of a fetch, a chunk is given up, and the count starts again. It also starts
//! again when a chunk comes free by itself, as then the wait was worth it. That is ski rental: it costs at most
//! twice what it would cost to know in advance whether to wait (Karlin, Manasse, Rudolph, Sleator,
//! "Competitive snoopy caching", 1988).
//!
//! `price = lambda / sqrt(chunks in a full cache)`: in a deep cache jitter averages out, and less patience
//! is needed. Chunks that only slower peers need cost nothing (`pace`).

use std::time::Duration;

use relay_protocol::time::Time;

/// Lost deliveries, in chunks, that buy one eviction: see `price` above. Chosen by the trade-off in
/// docs/tradeoff.
pub const LAMBDA_DEFAULT: f64 = 160.0;

/// Looks at which peers keep pace while a price is being lost.
const LOOKS_PER_PRICE: f64 = 16.0;

/// Between two looks, however fast it is lost: a look takes in hundreds of peers.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What has been lost since the last purchase.
#[derive(Debug)]
pub(crate) struct Rent {
    price: f64,
    lost_chunks: f64,
    blocked: bool,
    counted_to: Time,
    /// When so much was lost, it is time for a look.
    look_at: f64,
    /// And not before.
    look_after: Time,
}

impl Rent {
    pub(crate) fn new(lambda: f64, cache_chunks: u32) -> Self {
        Self {
            price: lambda / f64::from(cache_chunks.max(1)).sqrt(),
            lost_chunks: 0.0,
            blocked: false,
            counted_to: Time::ZERO,
            look_at: 0.0,
            look_after: Time::ZERO,
        }
    }

    /// Counts what was lost up to now. All starving peers together lose `loses`, in millionths of a chunk a
    /// second; nothing has changed that since it was last counted.
    #[inline]
    pub(crate) fn advance(&mut self, now: Time, loses: u64) {
        if self.blocked {
            self.lost_chunks += now.seconds_since(self.counted_to) * chunks_per_second(loses);
        }
        self.counted_to = self.counted_to.max(now);
    }

    /// From now on memory is what starving peers wait for, or it is not.
    #[inline]
    pub(crate) fn set_blocked(&mut self, now: Time, loses: u64, blocked: bool) {
        self.advance(now, loses);
        self.blocked = blocked;
    }

    /// Whether enough was lost to buy a chunk.
    pub(crate) fn is_due(&self) -> bool {
        self.lost_chunks >= self.price
    }

    /// Whether it is time to look at which peers keep pace; then not again before some more was lost.
    pub(crate) fn take_look(&mut self, now: Time) -> bool {
        let is_due = self.lost_chunks >= self.look_at && now >= self.look_after;
        if is_due {
            self.look_after = now + LOOK_INTERVAL;
            self.look_at = self.lost_chunks + self.price / LOOKS_PER_PRICE;
        }
        is_due
    }

    /// When the next look or purchase is due; `None` while nothing is lost.
    pub(crate) fn due_at(&self, loses: u64) -> Option<Time> {
        let lost_at = |chunks: f64| {
            let seconds = (chunks - self.lost_chunks).max(0.0) / chunks_per_second(loses);
            let wait = Duration::try_from_secs_f64(seconds).ok()?;
            Some(self.counted_to + wait + Duration::from_micros(1))
        };
        let look = lost_at(self.look_at).map(|at| at.max(self.look_after));
        let due = [look, lost_at(self.price)].into_iter().flatten().min();
        due.filter(|_| loses > 0)
    }

    /// A purchase, or a chunk that came free by itself: the count starts again.
    pub(crate) fn reset(&mut self) {
        self.lost_chunks = 0.0;
        self.look_at = self.price / LOOKS_PER_PRICE;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn chunks_per_second(loses: u64) -> f64 {
    loses as f64 / 1e6
}
