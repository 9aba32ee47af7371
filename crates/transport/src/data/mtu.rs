//! How long datagrams may be: begins with what every path carries, probes upwards step by step,
//! and falls back when long ones stop coming through. Does not send anything.

use std::time::Duration;

use relay_protocol::{
    datagram::DATA_DATAGRAM_OVERHEAD_BYTES,
    limits::{DATAGRAM_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX},
    time::Time,
};

/// Lengths of datagrams to try, in order: any path; Ethernet with room for a tunnel's header; jumbo
/// frames; a frame, and three of them, on loopback.
const STEPS: [usize; 5] = [
    DATAGRAM_BYTES_MAX,
    1_452,
    8_928,
    FRAME_PAYLOAD_BYTES_MAX + DATA_DATAGRAM_OVERHEAD_BYTES,
    3 * FRAME_PAYLOAD_BYTES_MAX + DATA_DATAGRAM_OVERHEAD_BYTES,
];

/// A probe that does not come through may have been lost for another reason.
const TRIES_MAX: u32 = 3;

/// A probe that was not acknowledged for so long is lost: acknowledgements travel on a stream.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// The longest datagram.
pub(super) const LONGEST_BYTES: usize = STEPS[STEPS.len() - 1];

/// What is known of the path.
#[derive(Debug)]
pub(super) struct Mtu {
    step: usize,
    /// Steps from here on don't work.
    end: usize,
    probe: Option<(u64, Time)>,
    tries: u32,
}

impl Default for Mtu {
    fn default() -> Self {
        Self { step: 0, end: STEPS.len(), probe: None, tries: 0 }
    }
}

impl Mtu {
    /// The longest datagram that surely comes through.
    pub(super) fn datagram_bytes(&self) -> usize {
        STEPS[self.step]
    }

    /// The length of the probe that is to be sent now.
    pub(super) fn poll_probe(&mut self, now: Time) -> Option<usize> {
        self.handle_timeout(now);
        self.wants_probe().then(|| STEPS[self.step + 1])
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.probe.is_some_and(|(_, at)| now.since(at) >= PROBE_PATIENCE) {
            self.handle_lost_probe();
        }
    }

    /// When [`Self::handle_timeout`] is due though nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.probe.map(|(_, at)| at + PROBE_PATIENCE)
    }

    /// Whether a probe is to be sent, as far as it does not depend on the time.
    pub(super) fn wants_probe(&self) -> bool {
        self.probe.is_none() && self.step + 1 < self.end
    }

    pub(super) fn handle_probe_sent(&mut self, now: Time, number: u64) {
        self.probe = Some((number, now));
    }

    /// It did not go out: it is made anew.
    pub(super) fn handle_probe_unsent(&mut self) {
        self.probe = None;
    }

    /// A packet came through; whether that made datagrams longer.
    pub(super) fn handle_acked(&mut self, number: u64) -> bool {
        let is_probe = self.probe.is_some_and(|(probe, _)| probe == number);
        if is_probe {
            self.probe = None;
            self.tries = 0;
            self.step += 1;
        }
        is_probe
    }

    fn handle_lost_probe(&mut self) {
        self.probe = None;
        self.tries += 1;
        if self.tries == TRIES_MAX {
            self.end = self.step + 1;
        }
    }

    /// The system refuses the length: it is the path's first link that does not carry it. Whether
    /// datagrams became shorter.
    pub(super) fn handle_refused(&mut self) -> bool {
        if self.probe.take().is_some() {
            self.end = self.step + 1;
            return false;
        }
        self.fall_back()
    }

    /// Nothing comes through any more: perhaps because it is too long. Whether datagrams became
    /// shorter.
    pub(super) fn fall_back(&mut self) -> bool {
        if self.step == 0 {
            return false;
        }
        self.end = self.step;
        (self.step, self.probe, self.tries) = (0, None, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn it_climbs_while_probes_come_through_and_stays_where_they_do_not() {
        let mut mtu = Mtu::default();
        for number in 0..2 {
            assert!(mtu.poll_probe(at(0)).expect("there is more") > mtu.datagram_bytes());
            mtu.handle_probe_sent(at(0), number);
            assert_eq!(mtu.poll_probe(at(1)), None, "one at a time");
            assert!(mtu.handle_acked(number));
        }
        assert_eq!(mtu.datagram_bytes(), STEPS[2]);
        let mut probes = 0;
        for millis in 0..100_000 {
            if mtu.poll_probe(at(millis)).is_some() {
                mtu.handle_probe_sent(at(millis), 100 + millis);
                probes += 1;
            }
        }
        assert_eq!((probes, mtu.datagram_bytes()), (TRIES_MAX, STEPS[2]));
    }

    #[test]
    fn it_falls_back_to_what_every_path_carries_and_does_not_go_so_far_again() {
        let mut mtu = Mtu::default();
        for number in 0..3 {
            mtu.poll_probe(at(0)).expect("there is more");
            mtu.handle_probe_sent(at(0), number);
            mtu.handle_acked(number);
        }
        assert!(mtu.fall_back());
        assert_eq!(mtu.datagram_bytes(), DATAGRAM_BYTES_MAX);
        assert!(!mtu.fall_back());
        for number in 10..20 {
            if mtu.poll_probe(at(0)).is_some() {
                mtu.handle_probe_sent(at(0), number);
                mtu.handle_acked(number);
            }
        }
        assert_eq!(mtu.datagram_bytes(), STEPS[2]);
    }

    #[test]
    fn a_length_that_the_system_refuses_is_not_tried_again() {
        let mut mtu = Mtu::default();
        mtu.poll_probe(at(0)).expect("there is more");
        mtu.handle_probe_sent(at(0), 0);
        assert!(!mtu.handle_refused());
        assert_eq!(mtu.poll_probe(at(0)), None);
        assert_eq!(mtu.poll_timeout(), None);
    }
}
