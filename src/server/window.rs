//! The window: how much unacknowledged data the relay dares to have out to one peer. Pure.
//!
//! `W = clamp(delivered rate × (min RTT + 50 ms), 32 KiB, 4 MiB)`, and before the first sample
//! `W = min(256 KiB, pool / peers)`. Rate and round trip are sampled as BBR does (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016): marks are set at positions
//! of the stream. When the peer reports to have taken in the first frame of a write, the time gone
//! by is a round trip; when it has taken in all of it, what it took in meanwhile, over that time,
//! is the delivery rate. A queue of our own making inflates round trips, so now and then the window
//! closes to its least for one of them (the probe of BBR).
//!
//! Invariant: `received + lost ≤ sent`, `allowance ≤ granted`, `allowance − received ≤ W`.

use std::time::Duration;

use crate::{protocol::limits::FRAME_PAYLOAD_BYTES_MAX, time::Time};

/// Least window: two frames, so that one may be in flight while the next is written.
pub(crate) const WINDOW_BYTES_MIN: u64 = 32 << 10;

/// Largest window: with 50 ms of queue, 80 MB/s to one peer on a path without delay.
pub(crate) const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// Window before the first sample.
pub(crate) const WINDOW_BYTES_INITIAL: u64 = 256 << 10;

/// Queue that a window may build beyond the path's own round trip.
const QUEUE_TIME: Duration = Duration::from_millis(50);

/// The least round trip is measured anew after so long: paths change.
const MIN_RTT_AGE_MAX: Duration = Duration::from_secs(10);

/// A probe that nothing is sent for ends by itself: the path is idle, and the next write is as good.
const PROBE_TIME_MAX: Duration = Duration::from_millis(500);

/// Weight of a new rate sample that is lower than the estimate.
const RATE_DECAY: f64 = 0.25;

/// One peer's window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    granted_bytes: u64,
    received_bytes: u64,
    sent_bytes: u64,
    /// Of these, what was lost on its way, as far as is known.
    lost_bytes: u64,
    size_bytes: u64,
    ceiling_bytes: u64,
    rate_bytes_per_second: f64,
    /// The least round trip, and when it was measured.
    min_rtt: Option<(Duration, Time)>,
    /// The window is closed to its least since then, to measure the round trip without a queue.
    probe: Option<Time>,
    rtt_mark: Option<RttMark>,
    rate_mark: Option<RateMark>,
}

#[derive(Clone, Copy, Debug)]
struct RttMark {
    position_bytes: u64,
    at: Time,
    /// Little else was under way: the round trip is the path's own.
    is_clear: bool,
}

#[derive(Clone, Copy, Debug)]
struct RateMark {
    position_bytes: u64,
    received_bytes: u64,
    at: Time,
    is_window_limited: bool,
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
            lost_bytes: 0,
            size_bytes: initial_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_INITIAL),
            ceiling_bytes: WINDOW_BYTES_MAX,
            rate_bytes_per_second: 0.0,
            min_rtt: None,
            probe: None,
            rtt_mark: None,
            rate_mark: None,
        }
    }

    /// `bytes` of payload went to the kernel.
    pub(crate) fn handle_sent(&mut self, now: Time, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let frame = bytes.min(FRAME_PAYLOAD_BYTES_MAX as u64);
        if self.rtt_mark.is_none() {
            self.rtt_mark = Some(RttMark {
                position_bytes: self.arriving_bytes() + frame,
                at: now,
                is_clear: self.unacknowledged_bytes() <= WINDOW_BYTES_MIN,
            });
        }
        self.sent_bytes += bytes;
        if self.rate_mark.is_none() {
            self.rate_mark = Some(RateMark {
                position_bytes: self.arriving_bytes(),
                received_bytes: self.received_bytes,
                at: now,
                is_window_limited: self.probe.is_none() && self.room_bytes() < WINDOW_BYTES_MIN,
            });
        }
    }

    /// `bytes` of payload that were sent are lost: they are under way no longer. What was only
    /// thought to be lost, and is reported after all, was not.
    pub(crate) fn handle_lost(&mut self, bytes: u64) {
        self.lost_bytes = (self.lost_bytes + bytes).min(self.sent_bytes - self.received_bytes);
    }

    /// Payload bytes that have arrived or are under way.
    fn arriving_bytes(&self) -> u64 {
        self.sent_bytes - self.lost_bytes
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
        self.lost_bytes = self.lost_bytes.min(self.sent_bytes - self.received_bytes);
        self.granted_bytes = self.granted_bytes.max(granted);
        if let Some(mark) = self.rtt_mark
            && self.received_bytes >= mark.position_bytes
        {
            self.rtt_mark = None;
            self.sample_rtt(now, mark);
        }
        if let Some(mark) = self.rate_mark
            && self.received_bytes >= mark.position_bytes
        {
            self.rate_mark = None;
            self.sample_rate(now, mark);
        }
        let least = self.min_rtt.map_or(Duration::ZERO, |(least, _)| least);
        let patience = PROBE_TIME_MAX.max(2 * least + QUEUE_TIME);
        if self.probe.is_some_and(|since| now.since(since) >= patience) {
            self.probe = None;
        }
        Ok(())
    }

    fn sample_rtt(&mut self, now: Time, mark: RttMark) {
        let rtt = now.since(mark.at).max(Duration::from_micros(1));
        let is_probe = self.probe.is_some_and(|since| mark.at >= since);
        match self.min_rtt {
            Some((least, _)) if rtt > least && !(is_probe && mark.is_clear) => {}
            _ => self.min_rtt = Some((rtt, now)),
        }
        if is_probe && mark.is_clear {
            self.probe = None;
        }
        let is_old = |&(_, at): &(Duration, Time)| now.since(at) >= MIN_RTT_AGE_MAX;
        if self.probe.is_none() && self.min_rtt.as_ref().is_some_and(is_old) {
            self.probe = Some(now);
            // A rate measured with a closed window is not the path's.
            self.rate_mark = None;
            // Asked again no sooner, whatever comes of it.
            self.min_rtt = self.min_rtt.map(|(least, _)| (least, now));
        }
    }

    fn sample_rate(&mut self, now: Time, mark: RateMark) {
        let taken = self.received_bytes - mark.received_bytes;
        let elapsed = now.since(mark.at).max(Duration::from_micros(1));
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = taken as f64 / elapsed.as_secs_f64();
        if rate >= self.rate_bytes_per_second {
            self.rate_bytes_per_second = rate;
        } else if mark.is_window_limited {
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
        if self.probe.is_some() {
            return WINDOW_BYTES_MIN;
        }
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
        self.allowance_bytes().saturating_sub(self.arriving_bytes())
    }

    /// Payload bytes out and not reported.
    pub(crate) fn unacknowledged_bytes(&self) -> u64 {
        self.arriving_bytes() - self.received_bytes
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

    /// A peer that takes `rate` bytes a second in over a path of 1 ms, in steps of a frame, with
    /// everything in between in a queue; the windows that it got, one per frame.
    fn windows_of(rate: u64, seconds: u64) -> Vec<u64> {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
        let (frame, mut now, mut received, mut sizes) = (16 << 10, 0, 0, Vec::new());
        while now < seconds * 1000 * MS {
            window.handle_sent(Time(now), window.room_bytes());
            let under_way = window.unacknowledged_bytes().min(frame);
            // What is alone on the path takes its round trip, what queues only its own time.
            let alone = window.unacknowledged_bytes() <= frame;
            now += if alone { MS } else { 0 } + under_way * 1000 * MS / rate;
            received += under_way;
            window.handle_progress(Time(now), received, u64::MAX).expect("was sent");
            sizes.push(window.size_bytes());
        }
        sizes
    }

    #[test]
    fn a_fast_peer_gets_the_largest_window_but_for_probes() {
        let sizes = windows_of(100_000_000, 25);
        let least = sizes.iter().filter(|&&size| size == WINDOW_BYTES_MIN).count();
        assert_eq!(sizes.last(), Some(&WINDOW_BYTES_MAX));
        assert!((2..sizes.len() / 50).contains(&least), "{least} of {} were probes", sizes.len());
    }

    #[test]
    fn a_slow_peer_ends_with_the_least_window_and_keeps_it() {
        let sizes = windows_of(100_000, 60);
        let tail = &sizes[sizes.len() / 2..];
        assert!(tail.iter().all(|&size| size <= 2 * WINDOW_BYTES_MIN), "{tail:?}");
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
    fn what_was_lost_is_under_way_no_longer_unless_it_comes_after_all() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, 5000).expect("nothing claimed");
        window.handle_sent(Time(1), 5000);
        window.handle_lost(2000);
        assert_eq!((window.unacknowledged_bytes(), window.room_bytes()), (3000, 2000));
        window.handle_progress(Time(2), 4000, 5000).expect("was sent");
        assert_eq!((window.unacknowledged_bytes(), window.room_bytes()), (0, 1000));
        window.handle_lost(9000);
        assert_eq!(window.unacknowledged_bytes(), 0);
        assert!(window.handle_progress(Time(3), 5001, 5000).is_err(), "never sent");
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
