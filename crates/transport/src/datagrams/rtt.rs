//! The round trip, estimated as RFC 6298 says, and how long to wait for an acknowledgement.
//!
//! Differs from the RFC in two constants: the first wait is shorter than a second, since a stream
//! to the same host was just connected; and the least is what an acknowledgement may be held back.

use std::time::Duration;

use relay_protocol::limits::DATAGRAM_ACK_DELAY_MAX;

/// Before the first sample.
const RTO_INITIAL: Duration = Duration::from_millis(250);

/// Never less beyond the round trip: timers and event loops are late by this much.
const GRANULARITY: Duration = Duration::from_millis(10);

/// Backing off ends here, so that a path that comes back is found within it.
const RTO_MAX: Duration = Duration::from_secs(2);

/// Doublings that are counted.
const BACKOFF_MAX: u32 = 8;

/// The path's round trip.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    latest: Duration,
    backoff: u32,
}

impl Rtt {
    /// A packet that was sent once was acknowledged after `sample`.
    pub(crate) fn handle_sample(&mut self, sample: Duration) {
        self.latest = sample;
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                let difference = smoothed.abs_diff(sample);
                self.variation = self.variation * 3 / 4 + difference / 4;
                self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
            }
        }
    }

    /// Something was acknowledged: the path works.
    pub(crate) fn handle_answer(&mut self) {
        self.backoff = 0;
    }

    /// Nothing was acknowledged in time.
    pub(crate) fn handle_timeout(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// How long to wait for an acknowledgement before sending again.
    pub(crate) fn rto(&self) -> Duration {
        let once = self.smoothed.map_or(RTO_INITIAL, |smoothed| {
            smoothed + DATAGRAM_ACK_DELAY_MAX + (4 * self.variation).max(GRANULARITY)
        });
        once.saturating_mul(1 << self.backoff).min(RTO_MAX)
    }

    /// A packet that was sent before one that was acknowledged is lost after this: a reordered one
    /// would have come.
    pub(crate) fn reordering(&self) -> Duration {
        let smoothed = self.smoothed.unwrap_or(RTO_INITIAL);
        (smoothed.max(self.latest) * 9 / 8).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_follows_the_path_and_doubles_while_nothing_answers() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), RTO_INITIAL);
        (0..50).for_each(|_| rtt.handle_sample(100 * MS));
        let least = 100 * MS + DATAGRAM_ACK_DELAY_MAX;
        assert!(rtt.rto() >= least && rtt.rto() <= least + 15 * MS, "{:?}", rtt.rto());
        let before = rtt.rto();
        rtt.handle_timeout();
        assert_eq!(rtt.rto(), 2 * before);
        (0..20).for_each(|_| rtt.handle_timeout());
        assert_eq!(rtt.rto(), RTO_MAX);
        rtt.handle_answer();
        assert_eq!(rtt.rto(), before);
    }

    #[test]
    fn a_path_whose_round_trips_vary_is_waited_for_longer() {
        let (mut steady, mut jittery) = (Rtt::default(), Rtt::default());
        for turn in 0..100 {
            steady.handle_sample(50 * MS);
            jittery.handle_sample(if turn % 2 == 0 { 10 * MS } else { 90 * MS });
        }
        assert!(jittery.rto() > 90 * MS + DATAGRAM_ACK_DELAY_MAX, "{:?}", jittery.rto());
        assert!(steady.rto() < 70 * MS + DATAGRAM_ACK_DELAY_MAX, "{:?}", steady.rto());
    }
}
