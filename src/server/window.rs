//! The window: how much unacknowledged data the relay dares to have out to one peer. Pure.
//!
//! `W = min(rate × min RTT + queue(rate), 4 MiB)` with the delivered rate, and before the first sample
//! `W = min(256 KiB, pool / peers)`. `queue(rate) = 32 KiB + 25 ms × rate`, and beyond 50 Mbit/s
//! `32 KiB + 25 ms × √(rate × 50 Mbit/s)`. That it grows less than the rate does is what makes peers
//! behind one bottleneck equal: each gets of the rate what it has of the queue, so with windows in
//! proportion to rates every division would be as stable as any other, and whoever is pushed back once
//! stays there. With the root, what was 9 : 1 is 3 : 1 after the next round trip.
//!
//! Rate and round trip are sampled as BBR does (Cardwell et al., "BBR: Congestion-Based Congestion
//! Control", ACM Queue 2016): marks are set at positions of the stream. When the peer reports to have
//! taken in the first frame of a write, the time gone by is a round trip; when it has taken in all of it,
//! what it took in meanwhile, over that time, is the delivery rate. A queue of our own making inflates
//! round trips, so now and then the window closes to its least for one of them (the probe of BBR).
//!
//! Invariant: `received + lost ≤ sent`, `allowance ≤ granted`, `allowance − received ≤ W`.

use std::time::Duration;

use crate::{protocol::limits::FRAME_PAYLOAD_BYTES_MAX, time::Time};

/// Least window: two frames, so that one may be in flight while the next is written.
pub(crate) const WINDOW_BYTES_MIN: u64 = 32 << 10;

/// Largest window: 1.6 GB/s to one peer on a path of 1 ms, 38 MB/s on one of 100 ms.
pub(crate) const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// Window before the first sample.
pub(crate) const WINDOW_BYTES_INITIAL: u64 = 256 << 10;

/// Queue that a window may build beyond the path's own round trip and its constant part, below
/// [`QUEUE_RATE`]. With twice as much, and no constant part, one of two equal streams behind a router got
/// up to five times as much as the other (`bench/links.py far`); the main job is no slower for it.
const QUEUE_TIME: Duration = Duration::from_millis(25);

/// Bytes per second (50 Mbit/s) from which on the queue grows with the rate's root. Without an end of the
/// proportion one of two transfers behind a router of 1 Gbit/s had a tenth of it for ten seconds; with one
/// at 100 Mbit/s those at 100 Mbit/s are less equal, with one at 25 the main job takes a tenth longer.
const QUEUE_RATE: f64 = 6_250_000.0;

/// The least round trip is measured anew after so long: paths change.
const MIN_RTT_AGE_MAX: Duration = Duration::from_secs(10);

/// The first time sooner: whoever comes while others fill the path's queue has never seen it empty,
/// believes the path to be that long, and would take most of the queue for so long.
const MIN_RTT_AGE_FIRST: Duration = Duration::from_secs(2);

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
    was_probed: bool,
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
    /// Nothing else was under way: it measures one write, not what the path carries.
    is_alone: bool,
    /// As much was sent as the window or the path allowed: a lower rate than before is the path's.
    is_limited: bool,
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
            was_probed: false,
            rtt_mark: None,
            rate_mark: None,
        }
    }

    /// `bytes` of payload went to the kernel. `is_held`: there is more, and the path (or the room that the
    /// peer's socket has) takes no more now.
    pub(crate) fn handle_sent(&mut self, now: Time, bytes: u64, is_held: bool) {
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
        let (is_window_limited, is_probe) =
            (self.room_bytes() < WINDOW_BYTES_MIN, self.probe.is_some());
        let mark = self.rate_mark.get_or_insert(RateMark {
            position_bytes: self.sent_bytes - self.lost_bytes,
            received_bytes: self.received_bytes,
            at: now,
            is_alone: self.sent_bytes - self.lost_bytes - self.received_bytes == bytes,
            is_limited: is_window_limited && !is_probe,
        });
        mark.is_limited |= is_held && !mark.is_alone && !is_probe;
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
            self.end_probe();
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
            self.end_probe();
        }
        let age_max = if self.was_probed { MIN_RTT_AGE_MAX } else { MIN_RTT_AGE_FIRST };
        let is_old = |&(_, at): &(Duration, Time)| now.since(at) >= age_max;
        if self.probe.is_none() && self.min_rtt.as_ref().is_some_and(is_old) {
            self.probe = Some(now);
            self.was_probed = true;
            // A rate measured with a closed window is not the path's.
            self.rate_mark = None;
            // Asked again no sooner, whatever comes of it.
            self.min_rtt = self.min_rtt.map(|(least, _)| (least, now));
        }
    }

    fn end_probe(&mut self) {
        // A rate measured with a closed window is not the path's.
        (self.probe, self.rate_mark) = (None, None);
    }

    fn sample_rate(&mut self, now: Time, mark: RateMark) {
        let taken = self.received_bytes - mark.received_bytes;
        let elapsed = now.since(mark.at).max(Duration::from_micros(1));
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = taken as f64 / elapsed.as_secs_f64();
        if rate >= self.rate_bytes_per_second {
            self.rate_bytes_per_second = rate;
        } else if mark.is_limited {
            self.rate_bytes_per_second += RATE_DECAY * (rate - self.rate_bytes_per_second);
        }
        let least = self.min_rtt.map_or(Duration::ZERO, |(least, _)| least);
        let rate = self.rate_bytes_per_second;
        let queue = rate.min((rate * QUEUE_RATE).sqrt()) * QUEUE_TIME.as_secs_f64();
        let wished = WINDOW_BYTES_MIN as f64 + rate * least.as_secs_f64() + queue;
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
            window.handle_sent(Time(now), window.room_bytes(), false);
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
        let sizes = windows_of(10_000_000_000, 4);
        let least = sizes.iter().filter(|&&size| size == WINDOW_BYTES_MIN).count();
        assert_eq!(sizes.last(), Some(&WINDOW_BYTES_MAX));
        assert!((2..sizes.len() / 50).contains(&least), "{least} of {} were probes", sizes.len());
    }

    #[test]
    fn a_slow_peer_ends_with_a_small_window_and_keeps_it() {
        let sizes = windows_of(100_000, 60);
        let tail = &sizes[sizes.len() / 2..];
        // One round trip is two frames' time here, and that is two frames' worth of rate.
        assert!(tail.iter().all(|&size| size <= 5 * WINDOW_BYTES_MIN / 2), "{tail:?}");
    }

    /// What two peers get of one link of so many MB/s and 5 ms whose queue is as long as it takes, from the
    /// fifth second to the tenth; the second comes when the first has had it for a second.
    fn shares_of_two(rate: u64) -> [u64; 2] {
        let frame = 16 << 10;
        // A kilobyte's time.
        let ticks_per_second = rate * 1000;
        let mut windows = [(); 2].map(|()| Window::new(WINDOW_BYTES_INITIAL));
        let (mut received, mut at_five) = ([0; 2], [0; 2]);
        windows[0].handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
        let mut queue = std::collections::VecDeque::new();
        let mut under_way = std::collections::VecDeque::<(Time, usize)>::new();
        for tick in 0..10 * ticks_per_second {
            let now = Time(tick * 1000 * MS / ticks_per_second);
            if tick == ticks_per_second {
                windows[1].handle_progress(now, 0, u64::MAX).expect("nothing claimed");
            } else if tick == 5 * ticks_per_second {
                at_five = received;
            }
            while under_way.front().is_some_and(|&(due, _)| due <= now) {
                let Some((_, who)) = under_way.pop_front() else { break };
                received[who] += frame;
                windows[who].handle_progress(now, received[who], u64::MAX).expect("was sent");
            }
            for (who, window) in windows.iter_mut().enumerate() {
                while window.room_bytes() >= frame {
                    window.handle_sent(now, frame, false);
                    queue.push_back(who);
                }
            }
            if tick % (frame / 1000) == 0
                && let Some(who) = queue.pop_front()
            {
                under_way.push_back((now + Duration::from_millis(5), who));
            }
        }
        [0, 1].map(|who| received[who] - at_five[who])
    }

    #[test]
    fn two_peers_behind_one_bottleneck_get_about_the_same() {
        // In proportion to the rate they would end at 1.46 : 1 on the fast one.
        for (rate, most) in [(10, 1.5), (100, 1.1)] {
            let [first, second] = shares_of_two(rate);
            let all = first + second;
            assert!(all > 4_500_000 * rate, "{first} and {second} bytes: the link is used");
            let (more, less) = (first.max(second), first.min(second));
            assert!((more as f64) < most * less as f64, "{rate} MB/s: {first} and {second} bytes");
        }
    }

    #[test]
    fn a_grant_bounds_what_is_sent_whatever_the_window() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, 1000).expect("nothing claimed");
        assert_eq!(window.room_bytes(), 1000);
        window.handle_sent(Time(1), 1000, false);
        assert_eq!(window.room_bytes(), 0);
    }

    #[test]
    fn a_rate_that_only_seemed_high_is_forgotten_though_the_window_never_limits() {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
        window.handle_sent(Time(0), 20_000, true);
        let mut now = 0;
        for step in 1..100 {
            window.handle_sent(Time(now), 20_000, true);
            // The first acknowledgement comes much too soon; then 1 MB/s.
            now += if step == 1 { MS / 1000 } else { 20 * MS };
            window.handle_progress(Time(now), step * 20_000, u64::MAX).expect("was sent");
            assert!(step > 1 || window.size_bytes() == WINDOW_BYTES_MAX);
        }
        assert!(window.size_bytes() < 3 * WINDOW_BYTES_MIN, "{}", window.size_bytes());
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
        window.handle_sent(Time(1), 5000, false);
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
        window.handle_sent(Time(1), 4000, false);
        window.handle_progress(Time(2), 3000, 9000).expect("was sent");
        window.handle_progress(Time(3), 1000, 5000).expect("was sent");
        assert_eq!(window.unacknowledged_bytes(), 1000);
        assert_eq!(window.room_bytes(), 5000);
    }
}
