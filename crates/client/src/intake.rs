//! How much a peer takes in: grants, their pace, and when each byte's credit became available.
//!
//! Pure. Knows bytes and times only, no chunks and no sockets.
//!
//! What was received but is not kept yet takes up the window, too: a disk that is slower than the
//! network is waited for by the relay, not by memory.
//!
//! Invariants: `reported <= received`, `told <= allowed`, `allowed <= received + window`, and
//! `held <= received`.

use std::{collections::VecDeque, num::NonZeroU64, time::Duration};

use relay_protocol::{limits::FRAME_PAYLOAD_BYTES_MAX, path, rate::Rate, time::Time};

/// Bytes that a peer is ready for beyond what it has taken in, on a path near by. The relay dares no more
/// at once on any path (`server::window`), so a larger wish would have no effect.
pub const WINDOW_BYTES: u64 = path::BYTES_NEAR;

/// After so many bytes progress is reported even though more keeps coming: a quarter of the
/// window, so the relay never runs dry, and one small packet for four reads.
pub const REPORT_BYTES: u64 = 1 << 20;

/// Once nothing more is under way, progress is reported from so many bytes on: the relay's
/// window is never below two frames, so less than one unreported can't hold it up.
pub const REPORT_IDLE_BYTES: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

/// A limited peer is ready for what it takes in this time, so that a pause doesn't end in a
/// burst: half of the 200 ms within which users see one.
const LIMITED_WINDOW: Duration = Duration::from_millis(100);

/// Bytes that even the slowest peer is ready for: one frame comes while the next is granted.
const LIMITED_WINDOW_BYTES_MIN: u64 = 32 << 10;

/// A limited peer grants in steps of this time, so that it doesn't send a message per byte.
pub const LIMITED_STEP: Duration = Duration::from_millis(20);

/// Credit of less than this part of the window is booked together: it bounds [`Intake::credits`], however
/// long the path is.
const CREDIT_STEPS: u64 = CREDITS_MAX as u64 - 2;

/// Entries of [`Intake::credits`]: what is outstanding, in steps, and the first and last one.
const CREDITS_MAX: usize = 66;

const _: () = {
    assert!(REPORT_BYTES * 4 <= WINDOW_BYTES);
    assert!(LIMITED_WINDOW_BYTES_MIN >= 2 * REPORT_IDLE_BYTES);
    assert!(LIMITED_WINDOW.as_millis() >= 4 * LIMITED_STEP.as_millis());
};

/// The figures of a [`relay_protocol::Message::Progress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Payload bytes taken in, since the connection began.
    pub received_bytes: u64,
    /// Payload bytes that the peer is ready to have taken in.
    pub granted_bytes: u64,
}

/// What one connection has taken in and is ready for.
#[derive(Debug)]
pub struct Intake {
    open: bool,
    rate: Option<Rate>,
    window: u64,
    received: u64,
    /// Of it, what waits to be kept.
    held: u64,
    /// `received`, as last told to the relay.
    reported: u64,
    /// What may be granted by now.
    allowed: u64,
    /// `allowed`, as last told to the relay.
    told: u64,
    refilled_at: Time,
    /// Set at the end of a read turn; cleared by a report.
    flush: Flush,
    credits: VecDeque<Credit>,
}

/// How urgent a report is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Flush {
    /// More is coming.
    Later,
    /// Nothing more is under way.
    Idle,
    /// Something else is sent anyway.
    Now,
}

/// The bytes `from..to` became allowed evenly between two times.
#[derive(Clone, Copy, Debug)]
struct Credit {
    from: u64,
    to: u64,
    since: Time,
    until: Time,
}

impl Intake {
    /// Takes at most `rate` bytes a second in, if given.
    #[must_use]
    pub fn new(rate: Option<NonZeroU64>, now: Time) -> Self {
        let rate = rate.and_then(|rate| Rate::new(rate.get()));
        Self {
            open: false,
            rate,
            window: window_bytes(rate, Duration::ZERO),
            received: 0,
            held: 0,
            reported: 0,
            allowed: 0,
            told: 0,
            refilled_at: now,
            flush: Flush::Later,
            credits: VecDeque::new(),
        }
    }

    /// The path's round trip: on a long one more is under way, and granting it costs nothing. What comes is
    /// taken in as fast as on a short one.
    pub fn handle_round_trip(&mut self, round_trip: Duration) {
        if !self.open {
            self.window = window_bytes(self.rate, round_trip);
        }
    }

    /// Bytes that are granted at once.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.window
    }

    /// Begins to grant. Before, nothing is.
    pub fn open(&mut self, now: Time) {
        if !self.open {
            self.open = true;
            self.refilled_at = now;
            self.flush = Flush::Now;
            self.refill(now);
        }
    }

    /// Payload bytes taken in so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Books payload that arrived.
    pub fn handle_received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Received bytes are on their way to where they are kept.
    pub fn hold(&mut self, bytes: u32) {
        self.held += u64::from(bytes);
    }

    /// Bytes on their way are kept.
    pub fn release(&mut self, bytes: u32) {
        self.held -= u64::from(bytes);
    }

    /// The end of a read turn. `idle`: nothing more was there to read. `sends_anyway`: another
    /// message goes out now, so a report with it is nearly free.
    pub fn handle_turn_end(&mut self, now: Time, idle: bool, sends_anyway: bool) {
        self.refill(now);
        let flush = match (sends_anyway, idle) {
            (true, _) => Flush::Now,
            (false, true) => Flush::Idle,
            (false, false) => Flush::Later,
        };
        self.flush = self.flush.max(flush);
    }

    /// Whether acknowledgements may wait for company: more is coming, and little is unreported.
    #[must_use]
    pub fn may_hold_back(&self) -> bool {
        self.flush == Flush::Later && self.received - self.reported < REPORT_BYTES
    }

    /// What to tell the relay now, if anything.
    pub fn poll_report(&mut self, now: Time) -> Option<Report> {
        if !self.open {
            return None;
        }
        self.refill(now);
        let unreported = self.received - self.reported;
        let untold = self.allowed.saturating_sub(self.told);
        // Without a limit they are equal, but for what has been kept since it was reported.
        let news = if self.rate.is_none() { unreported.max(untold) } else { unreported };
        let due = match self.flush {
            Flush::Now => news > 0 || self.told == 0,
            Flush::Idle => news >= REPORT_IDLE_BYTES,
            Flush::Later => news >= REPORT_BYTES,
        };
        let grant_due = self.rate.is_some_and(|rate| untold >= step_bytes(rate));
        if !due && !grant_due {
            return None;
        }
        self.flush = Flush::Later;
        self.reported = self.received;
        self.told = self.told.max(self.allowed);
        Some(Report { received_bytes: self.received, granted_bytes: self.told })
    }

    /// When the next step of a limited peer's grant falls due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let rate = self.rate.filter(|_| self.open)?;
        let next = self.told + step_bytes(rate);
        if next > self.ceiling() {
            return None; // Something must arrive first.
        }
        let wait = rate.time_for(next.saturating_sub(self.allowed));
        Some(self.refilled_at + wait)
    }

    /// When the credit for the payload byte before `end` (counted since the connection began)
    /// became available. Ends may only grow from call to call.
    pub fn credit_time(&mut self, end: u64) -> Option<Time> {
        while self.credits.len() > 1 && self.credits.front()?.to < end {
            self.credits.pop_front();
        }
        let credit = self.credits.front()?;
        let part = end.clamp(credit.from, credit.to) - credit.from;
        let whole = (credit.to - credit.from).max(1);
        let length = credit.until.since(credit.since);
        Some(credit.since + length.mul_f64(part as f64 / whole as f64))
    }

    fn refill(&mut self, now: Time) {
        if !self.open {
            return;
        }
        let ceiling = self.ceiling();
        let since = self.refilled_at;
        let mut until = now;
        let (allowed, since) = match self.rate {
            None => (ceiling, now),
            Some(rate) => {
                let first =
                    if self.allowed == 0 { LIMITED_WINDOW_BYTES_MIN.min(self.window) } else { 0 };
                let earned = rate.bytes_in(now.since(since));
                if earned + first == 0 {
                    return; // Less than a byte: wait, so that nothing is lost by rounding.
                }
                if self.allowed + earned + first <= ceiling {
                    // Nor of what is more than a byte.
                    until = now.min(since + rate.time_for(earned));
                }
                (ceiling.min(self.allowed + earned + first), since)
            }
        };
        self.refilled_at = until;
        if allowed > self.allowed {
            self.book(Credit { from: self.allowed, to: allowed, since, until: now });
            self.allowed = allowed;
        }
        self.invariants();
    }

    /// What may be granted at most. What is not kept yet takes up a window that is large enough for it: a limited peer
    /// must not lose of its rate what a chunk's way to the disk takes.
    fn ceiling(&self) -> u64 {
        let in_memory = self.window.max(WINDOW_BYTES);
        (self.received + self.window).min((self.received + in_memory).saturating_sub(self.held))
    }

    /// Small steps are booked with the one before, as if they had been available as early:
    /// latency may come out longer by that, never shorter.
    fn book(&mut self, credit: Credit) {
        match self.credits.back_mut() {
            Some(last) if last.to - last.from < self.window / CREDIT_STEPS => last.to = credit.to,
            _ => self.credits.push_back(credit),
        }
        if self.credits.len() > CREDITS_MAX {
            self.credits.pop_front();
        }
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        debug_assert!(self.reported <= self.received);
        debug_assert!(self.told <= self.allowed);
        debug_assert!(self.held <= self.received);
        debug_assert!(self.allowed <= self.received + self.window);
        debug_assert!(self.credits.len() <= CREDITS_MAX);
    }
}

fn window_bytes(rate: Option<Rate>, round_trip: Duration) -> u64 {
    let most = path::bytes_max(round_trip);
    rate.map_or(most, |rate| {
        rate.bytes_in(LIMITED_WINDOW + round_trip).clamp(LIMITED_WINDOW_BYTES_MIN, most)
    })
}

/// A step never exceeds a quarter of the smallest window, nor falls below a frame.
fn step_bytes(rate: Rate) -> u64 {
    rate.bytes_in(LIMITED_STEP).clamp(REPORT_IDLE_BYTES, REPORT_BYTES)
}

#[cfg(test)]
mod tests;
