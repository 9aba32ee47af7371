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

use relay_protocol::{limits::FRAME_PAYLOAD_BYTES_MAX, path, time::Time};

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
/// burst.
const LIMITED_WINDOW: Duration = Duration::from_millis(250);

/// Bytes that even the slowest peer is ready for: a few frames, or the relay could not send.
const LIMITED_WINDOW_BYTES_MIN: u64 = 64 << 10;

/// A limited peer grants in steps of this time, so that it doesn't send a message per byte.
pub const LIMITED_STEP: Duration = Duration::from_millis(50);

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
    rate: Option<NonZeroU64>,
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
        if next > (self.received + self.window).saturating_sub(self.held) {
            return None; // Something must arrive first.
        }
        let wait = time_for(rate, next.saturating_sub(self.allowed));
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
        let ceiling = (self.received + self.window).saturating_sub(self.held);
        let since = self.refilled_at;
        let (allowed, since) = match self.rate {
            None => (ceiling, now),
            Some(rate) => {
                let first =
                    if self.allowed == 0 { LIMITED_WINDOW_BYTES_MIN.min(self.window) } else { 0 };
                let earned = bytes_in(rate, now.since(since)) + first;
                if earned == 0 {
                    return; // Less than a byte: wait, so that nothing is lost by rounding.
                }
                (ceiling.min(self.allowed + earned), since)
            }
        };
        self.refilled_at = now;
        if allowed > self.allowed {
            self.book(Credit { from: self.allowed, to: allowed, since, until: now });
            self.allowed = allowed;
        }
        self.invariants();
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

fn window_bytes(rate: Option<NonZeroU64>, round_trip: Duration) -> u64 {
    let most = path::bytes_max(round_trip);
    rate.map_or(most, |rate| {
        bytes_in(rate, LIMITED_WINDOW + round_trip).clamp(LIMITED_WINDOW_BYTES_MIN, most)
    })
}

fn bytes_in(rate: NonZeroU64, time: Duration) -> u64 {
    let bytes = u128::from(rate.get()) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

fn time_for(rate: NonZeroU64, bytes: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4)) + Duration::from_nanos(1)
}

/// A step never exceeds a quarter of the smallest window, nor falls below a frame.
fn step_bytes(rate: NonZeroU64) -> u64 {
    bytes_in(rate, LIMITED_STEP).clamp(REPORT_IDLE_BYTES, REPORT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_granted_before_it_opens_and_a_window_right_after() {
        let mut intake = Intake::new(None, at(0));
        intake.handle_turn_end(at(1), true, true);
        assert_eq!(intake.poll_report(at(1)), None);
        intake.open(at(2));
        let report = intake.poll_report(at(2)).unwrap();
        assert_eq!(report, Report { received_bytes: 0, granted_bytes: WINDOW_BYTES });
        assert_eq!(intake.poll_report(at(2)), None);
    }

    #[test]
    fn frames_in_a_flow_are_not_reported_one_by_one_but_an_idle_turn_is() {
        let mut intake = Intake::new(None, at(0));
        intake.open(at(0));
        intake.poll_report(at(0)).unwrap();
        intake.handle_received(100 << 10);
        intake.handle_turn_end(at(1), false, false);
        assert_eq!(intake.poll_report(at(1)), None);
        intake.handle_turn_end(at(1), true, false);
        let report = intake.poll_report(at(1)).unwrap();
        assert_eq!(report.received_bytes, 100 << 10);
        assert_eq!(report.granted_bytes, (100 << 10) + WINDOW_BYTES);
        intake.handle_received(REPORT_BYTES);
        intake.handle_turn_end(at(2), false, false);
        assert!(intake.poll_report(at(2)).is_some());
    }

    #[test]
    fn less_than_a_frame_waits_unless_something_else_is_sent() {
        let mut intake = Intake::new(None, at(0));
        intake.open(at(0));
        intake.poll_report(at(0)).unwrap();
        intake.handle_received(1);
        intake.handle_turn_end(at(1), true, false);
        assert_eq!(intake.poll_report(at(1)), None);
        intake.handle_turn_end(at(1), true, true);
        assert_eq!(intake.poll_report(at(1)).unwrap().received_bytes, 1);
    }

    #[test]
    fn a_limited_peer_grants_its_rate_whatever_the_sender_does() {
        let rate = NonZeroU64::new(1 << 20).unwrap();
        let mut intake = Intake::new(Some(rate), at(0));
        intake.open(at(0));
        let (mut granted, mut received) = (0, 0);
        for millis in 0..10_000 {
            intake.handle_turn_end(at(millis), true, false);
            if let Some(report) = intake.poll_report(at(millis)) {
                assert!(report.granted_bytes >= granted, "grants only grow");
                granted = report.granted_bytes;
            }
            intake.handle_received(granted - received);
            received = granted;
        }
        let ideal = 10 * rate.get();
        assert!(granted <= ideal + WINDOW_BYTES / 4, "{granted} of {ideal}");
        assert!(granted >= ideal * 9 / 10, "{granted} of {ideal}");
    }

    #[test]
    fn a_pause_of_the_sender_does_not_end_in_a_burst() {
        let rate = NonZeroU64::new(1 << 20).unwrap();
        let mut intake = Intake::new(Some(rate), at(0));
        intake.open(at(0));
        intake.poll_report(at(0));
        intake.handle_turn_end(at(60_000), true, false);
        let report = intake.poll_report(at(60_000)).unwrap();
        assert!(report.granted_bytes <= rate.get() / 4);
        assert_eq!(intake.poll_timeout(), None, "the window is full: data must come first");
    }

    #[test]
    fn timeouts_lead_to_grants_at_any_rate() {
        for rate in [1, 100, 10_000, 1 << 20, 1 << 30, u64::MAX] {
            let mut intake = Intake::new(NonZeroU64::new(rate), at(0));
            intake.open(at(0));
            let first = intake.poll_report(at(0)).unwrap().granted_bytes;
            intake.handle_received(first);
            intake.handle_turn_end(at(0), true, true);
            intake.poll_report(at(0));
            let due = intake.poll_timeout().unwrap();
            let report = intake.poll_report(due).expect("the grant that the timeout announced");
            assert!(report.granted_bytes > first, "rate {rate}");
        }
    }

    #[test]
    fn credit_dates_from_the_grant_and_is_spread_over_a_limited_one() {
        let mut intake = Intake::new(None, at(5));
        intake.open(at(5));
        assert_eq!(intake.credit_time(1000), Some(at(5)));
        intake.handle_received(1 << 20);
        intake.handle_turn_end(at(9), true, false);
        assert_eq!(intake.credit_time(WINDOW_BYTES), Some(at(5)));
        assert_eq!(intake.credit_time(WINDOW_BYTES + 1), Some(at(9)));

        let mut slow = Intake::new(NonZeroU64::new(1_000_000), at(0));
        slow.open(at(0));
        slow.handle_received(50_000);
        slow.handle_turn_end(at(100), true, false);
        let half = slow.credit_time(LIMITED_WINDOW_BYTES_MIN + 50_000).unwrap();
        assert_eq!(half.since(at(0)).as_millis(), 50);
    }

    #[test]
    fn what_is_not_kept_yet_is_not_granted_again_until_it_is() {
        let mut intake = Intake::new(None, at(0));
        intake.open(at(0));
        intake.poll_report(at(0)).unwrap();
        // A disk that takes nothing: everything granted arrives, and is held.
        for _ in 0..4 {
            intake.handle_received(WINDOW_BYTES / 4);
            intake.hold(1 << 20);
            intake.handle_turn_end(at(1), true, true);
            let report = intake.poll_report(at(1)).unwrap();
            assert_eq!(report.granted_bytes, WINDOW_BYTES, "no more than at first");
        }
        intake.handle_turn_end(at(2), true, true);
        assert_eq!(intake.poll_report(at(2)), None);
        // Nothing more arrives: that it was kept must be enough to be told.
        intake.release(1 << 20);
        intake.handle_turn_end(at(3), true, true);
        let report = intake.poll_report(at(3)).unwrap();
        assert_eq!(report.granted_bytes, WINDOW_BYTES + (1 << 20));
        assert_eq!(intake.poll_report(at(3)), None);
    }

    #[test]
    fn a_long_path_is_granted_what_it_may_hold_and_a_short_one_as_ever() {
        let granted = |rate, round_trip| {
            let mut intake = Intake::new(rate, at(0));
            intake.handle_round_trip(Duration::from_millis(round_trip));
            intake.open(at(0));
            for turn in 1..10_000 {
                intake.handle_received(200 << 10);
                intake.handle_turn_end(at(turn), true, false);
                intake.poll_report(at(turn));
            }
            intake.invariants();
            intake.window_bytes()
        };
        assert_eq!(granted(None, 1), WINDOW_BYTES);
        assert_eq!(granted(None, 300), path::BYTES_MAX);
        let limited = granted(NonZeroU64::new(1_000_000), 300);
        assert!(limited >= 300_000, "a limited one's rate is not bound by the path: {limited}");
    }

    #[test]
    fn credits_stay_bounded() {
        let mut intake = Intake::new(None, at(0));
        intake.open(at(0));
        for turn in 0..100_000 {
            intake.handle_received(700);
            intake.handle_turn_end(at(turn), true, false);
            intake.poll_report(at(turn));
            intake.invariants();
        }
    }
}
