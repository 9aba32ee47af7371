//! Which data datagrams have come and were not acknowledged yet. Keeps no bytes of them.

use std::{collections::VecDeque, time::Duration};

use relay_protocol::{Message, PacketRange, limits::DATA_ACK_RANGES_MAX, time::Time};

/// Ranges that wait for the control channel, at most; older ones are forgotten, and what they told
/// of is sent once more.
const RANGES_MAX: usize = 1024;

/// So long acknowledgements may be held back: less than a sender waits for them beyond a round trip.
const ACK_HOLD_MAX: Duration = Duration::from_millis(50);

/// The receiving half.
#[derive(Debug, Default)]
pub struct DataIn {
    fresh: VecDeque<PacketRange>,
    room_bytes: u32,
    limit: Limit,
    /// What was told of last, to tell of more room where nothing else has come.
    last: Option<PacketRange>,
}

/// What this side's own limit of its rate does to the other.
#[derive(Debug, Default)]
struct Limit {
    /// It is told of so much room at most.
    room_bytes_max: Option<u32>,
    /// Until then more must not come.
    until: Option<Time>,
    /// It was told of no room: so it waits, and need not be kept waiting for acknowledgements.
    is_closed: bool,
    /// It is to be told of room again.
    opens: bool,
}

impl DataIn {
    /// `room_bytes` is what this side's socket can hold of data that was not read yet.
    #[must_use]
    pub fn new(room_bytes: u32) -> Self {
        Self { room_bytes, ..Self::default() }
    }

    /// This packet has come, for the first time.
    pub fn handle_packet(&mut self, number: u64) {
        match self.fresh.back_mut() {
            Some(last) if last.first + u64::from(last.count) == number => last.count += 1,
            _ => {
                if self.fresh.len() == RANGES_MAX {
                    self.fresh.pop_front();
                }
                self.fresh.push_back(PacketRange { first: number, count: 1 });
            }
        }
    }

    /// Nothing is to be acknowledged now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_held = self.limit.until.is_some() && !self.limit.is_closed;
        is_held || self.fresh.is_empty() && !self.limit.opens
    }

    /// The other side is to send no more before `until`, and to have no more under way than `room_bytes` then: it goes
    /// on as fast as this side acknowledges. If that takes longer than it waits for an acknowledgement, it gets that
    /// now, and is told of no room. Until when it was to wait before.
    pub fn hold(&mut self, now: Time, until: Time, room_bytes: u32) -> Option<Time> {
        let limit = &mut self.limit;
        // No room would mean something else.
        limit.room_bytes_max = Some(room_bytes.max(1));
        limit.is_closed |= until > now + ACK_HOLD_MAX;
        limit.opens &= !limit.is_closed;
        limit.until.replace(until)
    }

    /// This side's rate is limited no longer.
    pub fn unhold(&mut self) {
        let opens = self.limit.opens || self.limit.is_closed;
        self.limit = Limit { opens, ..Limit::default() };
    }

    /// Until when the other side waits.
    #[must_use]
    pub fn held_until(&self) -> Option<Time> {
        self.limit.until
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        let limit = &mut self.limit;
        limit.until = limit.until.filter(|&until| until > now);
        if limit.until.is_none() {
            limit.opens |= std::mem::take(&mut limit.is_closed);
        }
    }

    /// The next acknowledgement; each packet is told of once, since the control channel loses
    /// nothing, but for the last one where there is room again.
    pub fn poll_ack(&mut self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        self.limit.opens = false;
        let count = self.fresh.len().min(DATA_ACK_RANGES_MAX);
        let mut ranges: Vec<_> = self.fresh.drain(..count).collect();
        if ranges.is_empty() {
            ranges.extend(self.last);
        }
        self.last = Some(*ranges.last()?);
        let most = self.limit.room_bytes_max.unwrap_or(u32::MAX);
        let room_bytes = if self.limit.is_closed { 0 } else { self.room_bytes.min(most) };
        Some(Message::DataAck { room_bytes, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_is_acknowledged_once_and_neighbours_together() {
        let mut incoming = DataIn::new(9);
        for number in [4, 5, 6, 9, 7, 8] {
            incoming.handle_packet(number);
        }
        let range = |first, count| PacketRange { first, count };
        let ranges = vec![range(4, 3), range(9, 1), range(7, 2)];
        assert_eq!(incoming.poll_ack(), Some(Message::DataAck { room_bytes: 9, ranges }));
        assert_eq!(incoming.poll_ack(), None);
    }

    fn ack(room_bytes: u32, first: u64, count: u32) -> Option<Message> {
        Some(Message::DataAck { room_bytes, ranges: vec![PacketRange { first, count }] })
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn what_is_held_for_a_moment_is_acknowledged_later_and_with_less_room() {
        let mut incoming = DataIn::new(900);
        incoming.handle_packet(4);
        assert_eq!(incoming.hold(at(1), at(30), 100), None);
        incoming.handle_packet(5);
        assert_eq!(incoming.hold(at(2), at(40), 100), Some(at(30)));
        incoming.handle_timeout(at(39));
        assert!(incoming.is_empty() && incoming.poll_ack().is_none());
        incoming.handle_timeout(at(40));
        assert_eq!(incoming.poll_ack(), ack(100, 4, 2));
        incoming.handle_packet(6);
        incoming.hold(at(41), at(60), 100);
        incoming.unhold();
        assert_eq!((incoming.poll_ack(), incoming.poll_ack()), (ack(900, 6, 1), None));
    }

    #[test]
    fn a_long_wait_is_acknowledged_at_once_without_room_and_told_when_there_is_some() {
        let mut incoming = DataIn::new(900);
        incoming.handle_packet(4);
        incoming.hold(at(1), at(5000), 100);
        assert_eq!((incoming.poll_ack(), incoming.poll_ack()), (ack(0, 4, 1), None));
        // It was under way.
        incoming.handle_packet(5);
        incoming.hold(at(2), at(9000), 100);
        assert_eq!(incoming.poll_ack(), ack(0, 5, 1));
        incoming.handle_timeout(at(8999));
        assert_eq!((incoming.poll_ack(), incoming.held_until()), (None, Some(at(9000))));
        incoming.handle_timeout(at(9000));
        assert_eq!((incoming.poll_ack(), incoming.poll_ack()), (ack(100, 5, 1), None));
        incoming.handle_packet(6);
        incoming.hold(at(9001), at(20_000), 0);
        assert_eq!(incoming.poll_ack(), ack(0, 6, 1));
        incoming.unhold();
        assert_eq!((incoming.poll_ack(), incoming.poll_ack()), (ack(900, 6, 1), None));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut incoming = DataIn::new(9);
        (0..100_000).for_each(|number| incoming.handle_packet(2 * number));
        let mut told = 0;
        while let Some(Message::DataAck { ranges, .. }) = incoming.poll_ack() {
            assert!(ranges.len() <= DATA_ACK_RANGES_MAX);
            told += ranges.len();
        }
        assert_eq!(told, RANGES_MAX);
    }
}
