//! Messages on their way out, by lane, until they are acknowledged.
//!
//! Invariants: at most [`DATAGRAM_LANE_MAX`] messages of a lane are numbered ahead of the oldest
//! that is not acknowledged; what the caller pushes beyond waits in the same queue, and the caller
//! bounds it by [`LaneOut::waiting_bytes`].

use std::collections::VecDeque;

use relay_protocol::limits::DATAGRAM_LANE_MAX;

/// One lane in which every message counts.
#[derive(Debug, Default)]
pub(crate) struct LaneOut {
    /// The number of the first in the queue.
    base: u32,
    queue: VecDeque<Entry>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    body: Box<[u8]>,
    state: State,
}

/// Where a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// To be sent, for the first time or again.
    Waiting,
    /// Last sent in this packet.
    Sent(u64),
    Acked,
}

impl LaneOut {
    pub(crate) fn push(&mut self, body: &[u8]) {
        self.waiting_bytes += body.len();
        self.queue.push_back(Entry { body: body.into(), state: State::Waiting });
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Every message was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next message that may be sent: its number and body.
    pub(crate) fn peek(&self) -> Option<(u32, &[u8])> {
        let sendable = self.queue.iter().take(DATAGRAM_LANE_MAX as usize);
        let (index, entry) =
            sendable.enumerate().find(|(_, entry)| entry.state == State::Waiting)?;
        let index = u32::try_from(index).expect("below DATAGRAM_LANE_MAX");
        Some((self.base.wrapping_add(index), &entry.body))
    }

    /// The message that [`Self::peek`] gave went out in this packet.
    pub(crate) fn handle_sent(&mut self, number: u32, packet: u64) {
        let entry = &mut self.queue[number.wrapping_sub(self.base) as usize];
        self.waiting_bytes -= entry.body.len();
        entry.state = State::Sent(packet);
    }

    /// These packets have come.
    pub(crate) fn handle_acked(&mut self, packets: &[u64]) {
        for entry in self.queue.iter_mut().take(DATAGRAM_LANE_MAX as usize) {
            if matches!(entry.state, State::Sent(packet) if packets.contains(&packet)) {
                entry.state = State::Acked;
                entry.body = Box::default();
            }
        }
        while self.queue.front().is_some_and(|entry| entry.state == State::Acked) {
            self.queue.pop_front();
            self.base = self.base.wrapping_add(1);
        }
    }

    /// These packets are lost: their messages are to be sent again; how many.
    pub(crate) fn handle_lost(&mut self, packets: &[u64]) -> u64 {
        let mut again = 0;
        for entry in self.queue.iter_mut().take(DATAGRAM_LANE_MAX as usize) {
            if matches!(entry.state, State::Sent(packet) if packets.contains(&packet)) {
                entry.state = State::Waiting;
                self.waiting_bytes += entry.body.len();
                again += 1;
            }
        }
        again
    }

    /// Asserts what always holds.
    pub(crate) fn invariants(&self) {
        let waiting = self.queue.iter().filter(|entry| entry.state == State::Waiting);
        debug_assert_eq!(waiting.map(|entry| entry.body.len()).sum::<usize>(), self.waiting_bytes);
        let beyond = self.queue.iter().skip(DATAGRAM_LANE_MAX as usize);
        debug_assert!(beyond.clone().all(|entry| entry.state == State::Waiting));
    }
}

/// The lane of which only the newest message counts.
#[derive(Debug, Default)]
pub(crate) struct LatestOut {
    number: u32,
    newest: Option<Entry>,
}

impl LatestOut {
    pub(crate) fn push(&mut self, body: &[u8]) {
        self.number = self.number.wrapping_add(1);
        self.newest = Some(Entry { body: body.into(), state: State::Waiting });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// The newest message, if it is to be sent.
    pub(crate) fn peek(&self) -> Option<(u32, &[u8])> {
        let entry = self.newest.as_ref().filter(|entry| entry.state == State::Waiting)?;
        Some((self.number, &entry.body))
    }

    pub(crate) fn handle_sent(&mut self, packet: u64) {
        if let Some(entry) = &mut self.newest {
            entry.state = State::Sent(packet);
        }
    }

    pub(crate) fn handle_acked(&mut self, packets: &[u64]) {
        self.newest.take_if(
            |entry| matches!(entry.state, State::Sent(packet) if packets.contains(&packet)),
        );
    }

    /// Whether the newest was in one of them.
    pub(crate) fn handle_lost(&mut self, packets: &[u64]) -> bool {
        let Some(entry) = &mut self.newest else { return false };
        let is_lost = matches!(entry.state, State::Sent(packet) if packets.contains(&packet));
        if is_lost {
            entry.state = State::Waiting;
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_goes_out_again_before_what_follows() {
        let mut lane = LaneOut::default();
        (0..4_u8).for_each(|byte| lane.push(&[byte; 10]));
        for packet in 0..3 {
            let (number, _) = lane.peek().expect("waits");
            lane.handle_sent(number, packet);
        }
        lane.handle_acked(&[0, 2]);
        assert_eq!(lane.handle_lost(&[1]), 1);
        let (number, body) = lane.peek().expect("lost");
        assert_eq!((number, body), (1, &[1; 10][..]));
        lane.handle_sent(1, 3);
        assert_eq!(lane.peek().expect("the next").0, 3);
        lane.handle_acked(&[1]);
        assert!(!lane.is_empty(), "an old packet's acknowledgement comes too late to count");
        lane.handle_acked(&[3]);
        lane.handle_sent(3, 4);
        lane.handle_acked(&[4]);
        assert!(lane.is_empty());
        lane.invariants();
    }

    #[test]
    fn no_more_than_the_receiver_holds_back_are_under_way() {
        let mut lane = LaneOut::default();
        (0..200).for_each(|_| lane.push(&[1]));
        let mut packet = 0;
        while let Some((number, _)) = lane.peek() {
            lane.handle_sent(number, packet);
            packet += 1;
        }
        assert_eq!(packet, u64::from(DATAGRAM_LANE_MAX));
        lane.handle_acked(&[5]);
        assert_eq!(lane.peek(), None, "the first has not come");
        lane.handle_acked(&[0]);
        assert!(lane.peek().is_some());
        lane.invariants();
    }

    #[test]
    fn only_the_newest_of_the_latest_is_sent_again() {
        let mut lane = LatestOut::default();
        lane.push(&[1]);
        lane.handle_sent(0);
        lane.push(&[2]);
        assert!(!lane.handle_lost(&[0]), "it was replaced");
        assert_eq!(lane.peek(), Some((2, &[2][..])));
        lane.handle_sent(1);
        assert_eq!(lane.peek(), None);
        assert!(lane.handle_lost(&[1]));
        lane.handle_sent(2);
        lane.handle_acked(&[2]);
        assert!(lane.is_empty());
    }
}
