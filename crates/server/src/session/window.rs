//! The window: how much unacknowledged data the relay dares to have out to one peer. Pure.
//!
//! The kernel (in datagrams, QUIC) keeps the network from being flooded. The window keeps
//! memory bounded and queues short, and must never be what a path waits for. One formula:
//!
//! `W = 32 KiB + path + queue`, and `W = 32 KiB + 2.89 × path` if that is more and the last round trip showed
//! no queue.
//!
//! - `path = rate × least round trip`: what the path holds by itself, as BBR measures it (Cardwell et al.,
//!   "BBR: Congestion-Based Congestion Control", ACM Queue 2016). Marks are set at positions of the stream.
//!   When the peer reports to have taken in the first frame of a write, the time gone by is a round trip; when
//!   it has taken in all of it, what it took in meanwhile, over that time, is the rate.
//! - `2.89 × path` is slow start, with BBR's gain (2 ÷ ln 2): at least twice as much each round trip, until the
//!   path is full. A round trip shows a queue if it took longer than the least one by half of what our own
//!   queue takes: the exit by delay of `HyStart` (RFC 9406). A path that carries more later is found out the same way.
//! - `queue = 25 ms × rate`, and beyond 50 Mbit/s `25 ms × √(rate × 50 Mbit/s)`: that it grows less than
//!   the rate does is what makes peers behind one bottleneck equal. Each gets of the rate what it has of the
//!   queue, so with windows in proportion to rates every division would be as stable as any other, and
//!   a peer that is pushed back once stays there. With the root, what was 9 : 1 is 3 : 1 after the next round trip.
//!
//! Near by, `queue` is more than `path`, and slow start has nothing to add. On a long path the first window is
//! what 1 Gbit/s would hold, and stays, as far as it is used, until a queue is seen: slow start from a small
//! one would take eight round trips. The largest is what `path::bytes_max` says, and sweep.rs keeps the sum
//! of all windows bounded: a peer that acknowledges late has a long path, and gets no more of the sum than others.
//!
//! A queue of our own making inflates round trips, so now and then the window closes to its least for one of
//! them, as BBR's probe does: after a hundred round trips at the soonest, so that it costs a part in fifty.
//!
//! Invariant: `received ≤ sent`, `allowance ≤ granted`, `allowance − received ≤ W`.

use std::time::Duration;

use relay_protocol::{limits::FRAME_PAYLOAD_BYTES_MAX, path, time::Time};

/// Least window: two frames, so that one may be in flight while the next is written.
pub(crate) const WINDOW_BYTES_MIN: u64 = 32 << 10;

/// Window before the first sample.
pub(crate) const WINDOW_BYTES_INITIAL: u64 = 256 << 10;

/// Gain of slow start.
const GAIN: f64 = 2.0 / std::f64::consts::LN_2;

/// Round trips without a queue after which a path is taken to carry more.
const QUEUED: u8 = 2;

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

/// The first time sooner: a peer that comes while others fill the path's queue has never seen it empty,
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
    size_bytes: u64,
    ceiling_bytes: u64,
    rate_bytes_per_second: f64,
    /// The least round trip, and when it was measured.
    min_rtt: Option<(Duration, Time)>,
    /// Round trips in a row that must show no queue before the window grows as in slow start: none before the
    /// first queue was seen. One alone may be the first after a pause.
    queued: u8,
    probe: Probe,
    rtt_mark: Option<RttMark>,
    rate_mark: Option<RateMark>,
}

/// Whether the window is closed to its least, to measure the round trip without a queue.
#[derive(Clone, Copy, Debug)]
enum Probe {
    Never,
    Since(Time),
    /// It is open again.
    Over,
}

impl Probe {
    fn since(self) -> Option<Time> {
        match self {
            Self::Since(since) => Some(since),
            Self::Never | Self::Over => None,
        }
    }
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
    /// The most that was under way meanwhile.
    under_way_bytes: u64,
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
            ceiling_bytes: path::BYTES_MAX,
            rate_bytes_per_second: 0.0,
            min_rtt: None,
            queued: 0,
            probe: Probe::Never,
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
                position_bytes: self.sent_bytes + frame,
                at: now,
                is_clear: self.unacknowledged_bytes() <= WINDOW_BYTES_MIN,
            });
        }
        self.sent_bytes += bytes;
        let (is_window_limited, is_probe) =
            (self.room_bytes() < WINDOW_BYTES_MIN, self.probe.since().is_some());
        let mark = self.rate_mark.get_or_insert(RateMark {
            position_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            at: now,
            is_alone: self.sent_bytes - self.received_bytes == bytes,
            is_limited: is_window_limited && !is_probe,
            under_way_bytes: 0,
        });
        mark.is_limited |= is_held && !mark.is_alone && !is_probe;
        let under_way = self.sent_bytes - self.received_bytes;
        mark.under_way_bytes = mark.under_way_bytes.max(under_way);
    }

    /// For so long until now the peer was not read from. An acknowledgement that came meanwhile tells nothing of the
    /// round trip, and nothing of the rate where most of the time since its mark was such a wait.
    pub(crate) fn handle_unheard(&mut self, now: Time, held: Duration) {
        self.rtt_mark = None;
        self.rate_mark = self.rate_mark.filter(|mark| now.since(mark.at) > 2 * held);
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
        if let Some(mark) = self.rtt_mark
            && self.received_bytes >= mark.position_bytes
        {
            self.rtt_mark = None;
            self.sample_rtt(now, mark);
        }
        if let Some(mark) = self.rate_mark {
            // More was sent at once than a long path holds: what has come tells its rate, the rest is a queue.
            let least = self.least_rtt();
            let is_overdue = least >= path::LONG && now.since(mark.at) > 2 * least;
            if is_overdue {
                self.queued = QUEUED;
            }
            if is_overdue || self.received_bytes >= mark.position_bytes {
                self.rate_mark = None;
                self.sample_rate(now, mark);
            }
        }
        let patience = PROBE_TIME_MAX.max(2 * self.least_rtt() + QUEUE_TIME);
        if self.probe.since().is_some_and(|since| now.since(since) >= patience) {
            self.end_probe();
        }
        Ok(())
    }

    fn sample_rtt(&mut self, now: Time, mark: RttMark) {
        let rtt = now.since(mark.at).max(Duration::from_micros(1));
        let is_probe = self.probe.since().is_some_and(|since| mark.at >= since);
        match self.min_rtt {
            Some((least, _)) if rtt > least && !(is_probe && mark.is_clear) => {}
            _ => self.min_rtt = Some((rtt, now)),
        }
        if is_probe && mark.is_clear {
            self.end_probe();
        } else {
            // With no rate known yet any queue counts.
            let queue_time = self.queue_bytes() / self.rate_bytes_per_second.max(1.0);
            let excess = rtt.saturating_sub(self.least_rtt());
            let is_queued = excess.as_secs_f64() > queue_time / 2.0;
            self.queued = if is_queued { QUEUED } else { self.queued.saturating_sub(1) };
        }
        let (age_max, round_trips) = match self.probe {
            Probe::Never => (MIN_RTT_AGE_FIRST, 20),
            Probe::Since(_) | Probe::Over => (MIN_RTT_AGE_MAX, 100),
        };
        // A long path's probes are rarer: each costs a round trip or two. One that only seems long is found out.
        let age_max = age_max.max((round_trips * self.least_rtt()).min(3 * age_max));
        let is_old = |&(_, at): &(Duration, Time)| now.since(at) >= age_max;
        if self.probe.since().is_none() && self.min_rtt.as_ref().is_some_and(is_old) {
            self.probe = Probe::Since(now);
            // A rate measured with a closed window is not the path's.
            self.rate_mark = None;
            // Asked again no sooner, whatever comes of it.
            self.min_rtt = self.min_rtt.map(|(least, _)| (least, now));
        }
    }

    fn end_probe(&mut self) {
        // A rate measured with a closed window is not the path's.
        (self.probe, self.rate_mark) = (Probe::Over, None);
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
        self.resize(mark.under_way_bytes);
    }

    /// The formula, after a round trip in which so much was under way.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to 64 MiB, never negative"
    )]
    fn resize(&mut self, under_way_bytes: u64) {
        let (path, queue) = (self.path_bytes(), self.queue_bytes());
        let growth = if self.queued > 0 { 0.0 } else { GAIN * path };
        let mut wished = WINDOW_BYTES_MIN as f64 + growth.max(path + queue);
        if self.least_rtt() >= path::LONG && self.queued == 0 {
            // What is of use stays: the first rates are those of single writes.
            wished = wished.max(self.size_bytes.min(2 * under_way_bytes) as f64);
        }
        let most = path::bytes_max(self.least_rtt());
        self.size_bytes = (wished as u64).clamp(WINDOW_BYTES_MIN, most);
    }

    /// What the path holds.
    fn path_bytes(&self) -> f64 {
        self.rate_bytes_per_second * self.least_rtt().as_secs_f64()
    }

    /// What it may hold beyond that.
    fn queue_bytes(&self) -> f64 {
        let rate = self.rate_bytes_per_second;
        rate.min((rate * QUEUE_RATE).sqrt()) * QUEUE_TIME.as_secs_f64()
    }

    fn least_rtt(&self) -> Duration {
        self.min_rtt.map_or(Duration::ZERO, |(least, _)| least)
    }

    /// The peer answered something after this time, before any data was sent: what that says of the path.
    pub(crate) fn handle_round_trip(&mut self, round_trip: Duration) {
        if round_trip >= path::LONG && self.sent_bytes == 0 {
            let expected = path::bytes_held(path::RATE_EXPECTED, round_trip);
            self.size_bytes = expected.min(path::bytes_max(round_trip));
        }
    }

    /// The sum of all windows has a bound: this one may be at most so large for now.
    pub(crate) fn set_ceiling(&mut self, bytes: u64) {
        self.ceiling_bytes = bytes.clamp(WINDOW_BYTES_MIN, path::BYTES_MAX);
    }

    /// W.
    pub(crate) fn size_bytes(&self) -> u64 {
        if self.probe.since().is_some() {
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
mod tests;
