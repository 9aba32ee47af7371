//! What was sent and not acknowledged: when it counts as lost, and how much may be under way.
//!
//! The window is that of RFC 6582, in packets (slow start, halved once per round trip in which
//! something was lost). It is for control messages, which are few: it keeps a long manifest from
//! flooding a narrow path. Does not know what packets carry.

use std::{collections::VecDeque, time::Duration};

use super::rtt::Rtt;
use relay_protocol::{Ack, datagram::ACK_BITS, time::Time};

/// A packet is lost when one so much later was acknowledged (RFC 9002, 6.1.1).
const REORDERING_PACKETS: u64 = 3;

/// Packets under way before anything is known of the path.
const WINDOW_INITIAL: usize = 16;

/// Never fewer: a lossy path must not end in waiting for one packet at a time.
const WINDOW_MIN: usize = 4;

/// Never more: what one acknowledgement tells of.
const WINDOW_MAX: usize = ACK_BITS as usize;

/// Packets that a timeout allows beyond the window.
const PROBES: usize = 2;

/// Timeouts in a row that mean more than the loss of a few packets.
const PERSISTENT_TIMEOUTS: u32 = 2;

/// A packet that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Time,
}

/// What is under way in one direction.
///
/// Invariant: `sent` is in the order of numbers; `WINDOW_MIN <= window <= WINDOW_MAX`.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) rtt: Rtt,
    sent: VecDeque<Sent>,
    largest_acked: Option<u64>,
    window: usize,
    threshold: usize,
    /// Packets acknowledged since the window last grew.
    credit: usize,
    /// Losses of packets up to this one are of one congestion.
    recovery_end: u64,
    timeouts: u32,
    probes: usize,
    /// When the timeout is counted from.
    waiting_since: Time,
}

/// What became of packets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) acked: Vec<u64>,
    pub(crate) lost: Vec<u64>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            rtt: Rtt::default(),
            sent: VecDeque::new(),
            largest_acked: None,
            window: WINDOW_INITIAL,
            threshold: WINDOW_MAX,
            credit: 0,
            recovery_end: 0,
            timeouts: 0,
            probes: 0,
            waiting_since: Time::ZERO,
        }
    }
}

impl Recovery {
    /// Whether one more packet may be sent that asks for an acknowledgement.
    pub(crate) fn has_room(&self) -> bool {
        self.sent.len() < self.window || self.probes > 0
    }

    /// Whether a timeout wants a packet sent, whatever there is to say.
    pub(crate) fn wants_probe(&self) -> bool {
        self.probes > 0
    }

    /// How often in a row nothing was answered in time.
    pub(crate) fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// A packet that asks for an acknowledgement went out.
    pub(crate) fn handle_sent(&mut self, now: Time, number: u64) {
        if self.sent.is_empty() {
            self.waiting_since = now;
        }
        self.probes = self.probes.saturating_sub(1);
        self.sent.push_back(Sent { number, at: now });
    }

    /// The other side tells what has come.
    pub(crate) fn handle_ack(&mut self, now: Time, ack: &Ack) -> Outcome {
        let mut outcome = Outcome::default();
        let mut newest = None;
        self.sent.retain(|packet| {
            let covered = ack.covers(packet.number);
            if covered {
                outcome.acked.push(packet.number);
                newest = Some(*packet);
            }
            !covered
        });
        let Some(newest) = newest else { return outcome };
        if newest.number == ack.largest {
            // Numbers are never used twice, so the sample is of this very sending.
            self.rtt.handle_sample(now.since(newest.at));
        }
        self.rtt.handle_answer();
        self.timeouts = 0;
        self.probes = 0;
        self.waiting_since = now;
        self.largest_acked = self.largest_acked.max(Some(newest.number));
        self.grow(outcome.acked.len());
        outcome.lost = self.take_lost(now);
        self.invariants();
        outcome
    }

    /// Time has passed; the packets that count as lost now.
    pub(crate) fn handle_timeout(&mut self, now: Time, may_back_off: bool) -> Vec<u64> {
        let mut lost = self.take_lost(now);
        if !self.sent.is_empty() && self.probes == 0 && now >= self.probe_time() {
            self.timeouts += 1;
            if may_back_off {
                self.rtt.handle_timeout();
            }
            if self.timeouts >= PERSISTENT_TIMEOUTS {
                (self.window, self.threshold) = (WINDOW_MIN, WINDOW_MIN);
            }
            // The oldest are said again: any answer tells what became of the others.
            let oldest = self.sent.len().min(PROBES);
            lost.extend(self.sent.drain(..oldest).map(|packet| packet.number));
            self.probes = PROBES;
            self.waiting_since = now;
        }
        self.invariants();
        lost
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        if self.sent.is_empty() || self.probes > 0 {
            return None;
        }
        let loss = self.reordered().map(|packet| packet.at + self.rtt.reordering());
        Some(loss.into_iter().chain([self.probe_time()]).min().unwrap_or(Time::ZERO))
    }

    fn probe_time(&self) -> Time {
        self.waiting_since + self.rtt.rto()
    }

    /// The oldest packet, if a later one was acknowledged.
    fn reordered(&self) -> Option<&Sent> {
        let oldest = self.sent.front()?;
        (Some(oldest.number) < self.largest_acked).then_some(oldest)
    }

    fn take_lost(&mut self, now: Time) -> Vec<u64> {
        let mut lost = Vec::new();
        let patience: Duration = self.rtt.reordering();
        while let Some(&Sent { number, at }) = self.reordered() {
            let is_overtaken = self.largest_acked >= Some(number + REORDERING_PACKETS);
            if !is_overtaken && now.since(at) < patience {
                break;
            }
            self.sent.pop_front();
            lost.push(number);
        }
        if let Some(&last) = lost.last()
            && last >= self.recovery_end
        {
            self.recovery_end = self.sent.back().map_or(last, |packet| packet.number) + 1;
            self.window = (self.window / 2).max(WINDOW_MIN);
            self.threshold = self.window;
        }
        lost
    }

    fn grow(&mut self, acked: usize) {
        if self.window < self.threshold {
            self.window += acked;
        } else {
            self.credit += acked;
            while self.credit >= self.window {
                self.credit -= self.window;
                self.window += 1;
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    /// Asserts what always holds.
    pub(crate) fn invariants(&self) {
        debug_assert!((WINDOW_MIN..=WINDOW_MAX).contains(&self.window));
        debug_assert!(
            self.sent.iter().zip(self.sent.iter().skip(1)).all(|(a, b)| a.number < b.number)
        );
        debug_assert!(self.sent.len() <= WINDOW_MAX + PROBES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn ack_of(numbers: &[u64]) -> Ack {
        let largest = *numbers.iter().max().expect("some");
        let before = numbers
            .iter()
            .filter(|&&number| number < largest)
            .fold(0, |before, number| before | 1u128 << (largest - 1 - number));
        Ack { largest, before }
    }

    #[test]
    fn what_later_packets_overtook_is_lost_and_a_mere_swap_is_not() {
        let mut recovery = Recovery::default();
        (0..6).for_each(|number| recovery.handle_sent(at(0), number));
        let outcome = recovery.handle_ack(at(10), &ack_of(&[1]));
        assert_eq!(outcome, Outcome { acked: vec![1], lost: vec![] });
        let outcome = recovery.handle_ack(at(11), &ack_of(&[1, 3, 4]));
        assert_eq!(outcome, Outcome { acked: vec![3, 4], lost: vec![0] });
        // Number 2 was overtaken by two only, but too long ago.
        let due = recovery.poll_timeout().expect("it waits for 2 and 5");
        assert_eq!(recovery.handle_timeout(due, true), [2]);
        assert_eq!(recovery.sent.len(), 1);
    }

    #[test]
    fn without_an_answer_the_oldest_is_sent_again_ever_more_seldom() {
        let mut recovery = Recovery::default();
        recovery.handle_sent(at(0), 0);
        let (mut now, mut waits) = (at(0), Vec::new());
        for number in 1..8 {
            let due = recovery.poll_timeout().expect("waits");
            waits.push(due.since(now));
            now = due;
            assert_eq!(recovery.handle_timeout(now, true), [number - 1]);
            assert!(recovery.wants_probe());
            assert_eq!(recovery.poll_timeout(), None, "the probe goes first");
            recovery.handle_sent(now, number);
            recovery.probes = 0;
        }
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!(waits[3] > 4 * waits[0], "{waits:?}");
    }

    #[test]
    fn loss_halves_the_window_once_per_round_trip() {
        let mut recovery = Recovery::default();
        (0..16).for_each(|number| recovery.handle_sent(at(0), number));
        assert!(!recovery.has_room());
        recovery.handle_ack(at(10), &ack_of(&[3, 4, 5]));
        let window = recovery.window;
        assert!(window < WINDOW_INITIAL);
        recovery.handle_ack(at(11), &ack_of(&[9, 10]));
        assert!(recovery.window >= window, "the same congestion");
    }
}
