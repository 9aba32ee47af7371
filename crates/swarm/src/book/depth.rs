//! How many chunks a holder is asked for at once: as many as its path holds.
//!
//! The policy of the relay's windows (`server/window.rs`), for what is asked instead of what is sent, in
//! whole chunks: `path + queue`, and `2.89 × path` if that is more and the last round showed no queue.
//!
//! - A **round** lasts from the start of some fetches to their answer. What the holder supplied in it, over
//!   that time, is its rate; `path = rate × least time of any fetch`. As long as nothing queues, that is what
//!   was asked for, so it doubles each round: slow start. A round shows a queue if every fetch that was answered
//!   in it took longer than the least time by half of what the queue takes, or if it took twice the least time:
//!   then more was asked for at once than the path holds.
//! - `queue` is 50 ms of the rate, a busy relay's turn: at most 32 fetches, as many as lie close to
//!   a relay on its own machine. So a slow uplink has one fetch under way and one more to go on with.
//!
//! Now and then half of what the path holds is asked for during one round, as the least time may have been
//! another path's, or have a queue in it.
//!
//! A path that the manifest came by is known before the first chunk. Where no other peer holds anything, as much
//! is asked for at first as 1 Gbit/s would hold: slow start would take a transfer's first seven round trips.
//!
//! Bounds no memory: a fetch has its lease before it is chosen, and all of them take half of the cache at most.

use std::time::Duration;

use relay_protocol::{limits::FETCHES_PER_PEER_MAX, path, time::Time};

/// Seconds of a holder's own rate that may be outstanding beyond what its path holds.
const QUEUE_SECONDS: f64 = 0.05;

/// The same in fetches.
const QUEUE_FETCHES_MAX: f64 = 32.0;

/// Gain of slow start.
const GAIN: f64 = 2.0 / std::f64::consts::LN_2;

/// Fetches at a holder that is proven and whose rate is not yet known.
pub(crate) const DEPTH_UNKNOWN: u32 = 4;

/// Once a holder's rate is known: the next is there when it is through with one.
const DEPTH_MIN: u32 = 2;

/// The least time of a fetch is measured anew after so long.
const LEAST_AGE_MAX: Duration = Duration::from_secs(10);

/// Rounds without a queue after which a path is taken to carry more.
const QUEUED: u8 = 2;

/// Weight of a new rate that is lower than the estimate.
const RATE_DECAY: f64 = 0.5;

/// One holder's depth, and what it follows from.
#[derive(Debug)]
pub(crate) struct Depth {
    fetches: u32,
    rate: f64,
    /// The least time of a fetch, and when it was measured.
    least: Option<(Duration, Time)>,
    /// Rounds in a row that must show no queue before more is asked for as in slow start: none before the first
    /// queue was seen. One alone may be the first after a pause.
    queued: u8,
    round: Option<Round>,
    probe: Probe,
    answered_at: Option<Time>,
}

/// Since fetches that were not answered yet.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: Time,
    /// Those that started then and are not answered.
    first: u32,
    bytes: f64,
    least: Duration,
    /// The most fetches that were under way at once.
    fetches: u32,
}

/// Whether the least time is being measured anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    No,
    /// More is under way than would leave no queue.
    Draining,
    /// What is asked from then on finds none.
    Since(Time),
}

impl Default for Depth {
    fn default() -> Self {
        Self {
            fetches: DEPTH_UNKNOWN,
            rate: 0.0,
            least: None,
            queued: 0,
            round: None,
            probe: Probe::No,
            answered_at: None,
        }
    }
}

impl Depth {
    /// Fetches that the holder may have outstanding.
    pub(crate) fn fetches(&self, chunk_size_bytes: u32) -> u32 {
        match self.probe {
            Probe::No => self.fetches,
            _ => self.fetches.min(whole(self.path_bytes() / 2.0, chunk_size_bytes).max(1)),
        }
    }

    /// The manifest took so long, and no other peer holds anything; so many fetches may be at one holder.
    pub(super) fn handle_sole(&mut self, time: Duration, chunk_size_bytes: u32, fetches_max: u32) {
        if self.least.is_none() && time >= path::LONG {
            #[expect(clippy::cast_precision_loss, reason = "at most 64 MiB")]
            let expected = path::bytes_held(path::RATE_EXPECTED, time).min(path::BYTES_MAX) as f64;
            self.fetches = whole(expected, chunk_size_bytes).min(fetches_max).max(DEPTH_UNKNOWN);
        }
    }

    /// A fetch starts; `outstanding` with it.
    pub(super) fn handle_started(&mut self, now: Time, outstanding: u32) {
        if self.probe == Probe::Draining {
            self.probe = Probe::Since(now);
        }
        if outstanding == 1 {
            // Idle time doesn't count.
            self.round = None;
        }
        let round = self.round.get_or_insert(Round::new(now));
        round.first += u32::from(now == round.since);
        round.fetches = round.fetches.max(outstanding);
    }

    /// A fetch that was started then is answered with so many bytes.
    pub(super) fn handle_answered(
        &mut self,
        now: Time,
        started_at: Time,
        bytes: u32,
        chunk_size_bytes: u32,
    ) {
        self.answered_at = Some(now);
        let time = now.since(started_at).max(Duration::from_micros(1));
        self.measure(now, started_at, time);
        let Some(round) = &mut self.round else { return };
        round.bytes += f64::from(bytes);
        round.least = round.least.min(time);
        round.first -= u32::from(started_at == round.since).min(round.first);
        if started_at > round.since || started_at == round.since && round.first == 0 {
            let round = *round;
            self.round = Some(Round::new(now));
            self.end_round(now, round, chunk_size_bytes);
        }
    }

    /// The least time.
    fn measure(&mut self, now: Time, started_at: Time, time: Duration) {
        let is_clear = matches!(self.probe, Probe::Since(at) if started_at >= at);
        match self.least {
            Some((least, at)) if time > least && !is_clear => {
                if self.probe == Probe::No && now.since(at) >= LEAST_AGE_MAX {
                    self.probe = Probe::Draining;
                    // Asked again no sooner, whatever comes of it.
                    self.least = Some((least, now));
                }
            }
            _ => self.least = Some((time, now)),
        }
        if is_clear {
            self.probe = Probe::No;
            // A rate measured with half of the fetches is not the holder's.
            self.round = None;
        }
    }

    fn end_round(&mut self, now: Time, round: Round, chunk_size_bytes: u32) {
        let took = now.since(round.since).max(Duration::from_micros(1));
        let rate = round.bytes / took.as_secs_f64();
        if rate >= self.rate {
            self.rate = rate;
        } else if round.fetches >= self.fetches && self.probe == Probe::No {
            self.rate += RATE_DECAY * (rate - self.rate);
        }
        let queue = self.queue_bytes(chunk_size_bytes);
        let queue_seconds = queue / self.rate.max(1.0);
        let excess = round.least.saturating_sub(self.least_time()).as_secs_f64();
        let is_queued = excess > queue_seconds / 2.0 || took > 2 * self.least_time();
        self.queued = if is_queued { QUEUED } else { self.queued.saturating_sub(1) };
        let path = self.path_bytes();
        let depth = if self.queued > 0 {
            whole(path + queue, chunk_size_bytes)
        } else {
            let used = self.fetches.min(2 * round.fetches);
            whole((path + queue).max(GAIN * path), chunk_size_bytes).max(used)
        };
        self.fetches = depth.max(DEPTH_MIN);
    }

    /// Whether a fetch may well be waiting behind so many others, and all is as it should be: the holder has
    /// answered something of late, and it is not long overdue by the holder's own rate.
    pub(crate) fn is_in_turn(
        &self,
        now: Time,
        started_at: Time,
        queued_bytes: f64,
        silence_max: Duration,
    ) -> bool {
        let answers = self.answered_at.is_some_and(|at| now.since(at) < silence_max);
        let seconds = self.least_time().as_secs_f64() + queued_bytes / self.rate.max(1.0);
        answers && self.rate > 0.0 && now.since(started_at).as_secs_f64() < 2.0 * seconds
    }

    fn least_time(&self) -> Duration {
        self.least.map_or(Duration::ZERO, |(least, _)| least)
    }

    fn path_bytes(&self) -> f64 {
        self.rate * self.least_time().as_secs_f64()
    }

    fn queue_bytes(&self, chunk_size_bytes: u32) -> f64 {
        (self.rate * QUEUE_SECONDS).min(QUEUE_FETCHES_MAX * f64::from(chunk_size_bytes))
    }
}

impl Round {
    fn new(now: Time) -> Self {
        Self { since: now, first: 0, bytes: 0.0, least: Duration::MAX, fetches: 0 }
    }
}

/// So many bytes in whole chunks, rounded up: with less, a queue of a part of a chunk could not be seen.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(bytes: f64, chunk_size_bytes: u32) -> u32 {
    let chunks = (bytes / f64::from(chunk_size_bytes)).ceil();
    chunks.clamp(0.0, FETCHES_PER_PEER_MAX as f64) as u32
}

#[cfg(test)]
mod tests;
