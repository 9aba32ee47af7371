//! The window: how much unacknowledged data the relay dares to have out to one peer. Pure.
//!
//! `W = clamp(delivered rate × (min RTT + 50 ms), 32 KiB, 4 MiB)`, and before the first sample
//! `W = min(256 KiB, pool / peers)`. Rate and round trip are sampled as BBR does (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016, section "Characterizing the
//! bottleneck"): a mark is set at a position of the stream, and when the peer reports to have
//! taken in that position, the time gone by is a round trip, and what it took in meanwhile,
//! over that time, is the delivery rate.
//!
//! Invariant: `received ≤ sent`, `allowance ≤ granted`, `allowance − received ≤ W`.

use std::time::Duration;

use crate::time::Time;

/// Least window: two frames, so that one may be in flight while the next is written.
pub(crate) const WINDOW_BYTES_MIN: u64 = 32 << 10;

/// Largest window: with 50 ms of queue, 80 MB/s to one peer on a path without delay.
pub(crate) const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// Window before the first sample.
pub(crate) const WINDOW_BYTES_INITIAL: u64 = 256 << 10;

/// Queue that a window may build beyond the path's own round trip.
const QUEUE_TIME: Duration = Duration::from_millis(50);

/// The least round trip is forgotten after so long: paths change.
const MIN_RTT_AGE_MAX: Duration = Duration::from_secs(10);

/// Weight of a new rate sample that is lower than the estimate.
const RATE_DECAY: f64 = 0.25;

/// One peer's window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    granted_bytes: u64,
    received_bytes: u64,
    sent_bytes: u64,
    size_bytes: u64,
    ceiling_bytes: u64,
    rate_bytes_per_second: f64,
    min_rtt: Option<(Duration, Time)>,
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    position_bytes: u64,
    received_bytes: u64,
    at: Time,
    window_limited: bool,
}

/// A peer claims to have taken in, or grants less than, what can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProgressError {
    #[error("acknowledges {received} bytes but only {sent} were sent")]
    NeverSent { received: u64, sent: u64 },
}

impl Window {
    /// Before anything was sent; `initial_bytes` as the pool allows.
    pub(crate) fn new(initial_bytes: u64) -> Self {
        Self {
            granted_bytes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            size_bytes: initial_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_INITIAL),
            ceiling_bytes: WINDOW_BYTES_MAX,
            rate_bytes_per_second: 0.0,
            min_rtt: None,
            mark: None,
        }
    }

    /// `bytes` of payload went to the kernel.
    pub(crate) fn handle_sent(&mut self, now: Time, bytes: u64) {
        self.sent_bytes += bytes;
        if self.mark.is_none() && bytes > 0 {
            self.mark = Some(Mark {
                position_bytes: self.sent_bytes,
                received_bytes: self.received_bytes,
                at: now,
                window_limited: self.room_bytes() < WINDOW_BYTES_MIN,
            });
        }
    }

    /// The peer reports; both figures are cumulative, older reports are ignored.
    pub(crate) fn handle_progress(
        &mut self,
        now: Time,
        received: u64,
        granted: u64,
    ) -> Result<(), ProgressError> {
        if received > self.sent_bytes {
            return Err(ProgressError::NeverSent { received, sent: self.sent_bytes });
        }
        self.received_bytes = self.received_bytes.max(received);
        self.granted_bytes = self.granted_bytes.max(granted);
        if let Some(mark) = self.mark
            && self.received_bytes >= mark.position_bytes
        {
            self.mark = None;
            self.sample(now, mark);
        }
        Ok(())
    }

    fn sample(&mut self, now: Time, mark: Mark) {
        let rtt = now.since(mark.at).max(Duration::from_micros(1));
        match self.min_rtt {
            Some((least, since)) if least <= rtt && now.since(since) < MIN_RTT_AGE_MAX => {}
            _ => self.min_rtt = Some((rtt, now)),
        }
        let taken = self.received_bytes - mark.received_bytes;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = taken as f64 / rtt.as_secs_f64();
        if rate >= self.rate_bytes_per_second {
            self.rate_bytes_per_second = rate;
        } else if mark.window_limited {
            self.rate_bytes_per_second += RATE_DECAY * (rate - self.rate_bytes_per_second);
        }
        let least = self.min_rtt.map_or(Duration::ZERO, |(least, _)| least);
        let wished = self.rate_bytes_per_second * (least + QUEUE_TIME).as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 4 MiB, never negative"
        )]
        let wished = wished.clamp(WINDOW_BYTES_MIN as f64, WINDOW_BYTES_MAX as f64) as u64;
        self.size_bytes = wished;
    }

    /// The sum of all windows has a bound: this one may be at most so large for now.
    pub(crate) fn set_ceiling(&mut self, bytes: u64) {
        self.ceiling_bytes = bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    }

    /// W.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.min(self.ceiling_bytes)
    }

    /// What W would be without the bound on the sum.
    pub(crate) fn wished_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Payload bytes that the peer may have been sent in total.
    pub(crate) fn allowance_bytes(&self) -> u64 {
        self.granted_bytes.min(self.received_bytes + self.size_bytes())
    }

    /// Payload bytes that may be written now.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.allowance_bytes().saturating_sub(self.sent_bytes)
    }

    /// Payload bytes out and not reported.
    pub(crate) fn unacknowledged_bytes(&self) -> u64 {
        self.sent_bytes - self.received_bytes
    }

    /// Payload bytes that the peer took in.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_fast_peer_gets_a_larger_window_and_a_slow_one_the_least() {
        for (rate, expected) in [(100_000_000, WINDOW_BYTES_MAX), (100_000, WINDOW_BYTES_MIN)] {
            let mut window = Window::new(WINDOW_BYTES_INITIAL);
            window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
            let (mut now, mut sent) = (0, 0);
            for _ in 0..60 {
                let room = window.room_bytes();
                window.handle_sent(Time(now), room);
                sent += room;
                now += MS + room * 1_000_000_000 / rate;
                window.handle_progress(Time(now), sent, u64::MAX).expect("was sent");
            }
            assert_eq!(window.size_bytes(), expected, "at {rate} bytes a second");
        }
    }

    #[test]
    fn a_grant_bounds_what_is_sent_whatever_the_window() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, 1000).expect("nothing claimed");
        assert_eq!(window.room_bytes(), 1000);
        window.handle_sent(Time(1), 1000);
        assert_eq!(window.room_bytes(), 0);
    }

    #[test]
    fn acknowledging_what_was_never_sent_is_an_error() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        assert!(window.handle_progress(Time(0), 1, u64::MAX).is_err());
    }

    #[test]
    fn an_older_report_changes_nothing() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, 5000).expect("nothing claimed");
        window.handle_sent(Time(1), 4000);
        window.handle_progress(Time(2), 3000, 9000).expect("was sent");
        window.handle_progress(Time(3), 1000, 5000).expect("was sent");
        assert_eq!(window.unacknowledged_bytes(), 1000);
        assert_eq!(window.room_bytes(), 5000);
    }
}
