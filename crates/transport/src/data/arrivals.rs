//! Which data datagrams have come and were not acknowledged yet. Keeps no bytes of them.

use std::collections::VecDeque;

use relay_protocol::{Message, PacketRange, limits::DATA_ACK_RANGES_MAX, time::Time};

/// Ranges that wait for the control channel, at most; older ones are forgotten, and what they told
/// of is sent once more.
const RANGES_MAX: usize = 1024;

/// The receiving half.
#[derive(Debug, Default)]
pub struct DataIn {
    fresh: VecDeque<PacketRange>,
    room_bytes: u32,
    /// While this side limits its rate, the other is told of so much room at most.
    room_bytes_max: Option<u32>,
    /// Nothing is acknowledged before this.
    held_until: Option<Time>,
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
        self.fresh.is_empty() || self.held_until.is_some()
    }

    /// Acknowledges nothing before `until`, and lets the other side have no more under way than `room_bytes`: it
    /// goes on as fast as this side acknowledges. Until when that was so before.
    pub fn hold(&mut self, until: Time, room_bytes: u32) -> Option<Time> {
        self.room_bytes_max = Some(room_bytes);
        self.held_until.replace(until)
    }

    /// This side's rate is limited no longer.
    pub fn unhold(&mut self) {
        (self.room_bytes_max, self.held_until) = (None, None);
    }

    /// Until when nothing is acknowledged.
    #[must_use]
    pub fn held_until(&self) -> Option<Time> {
        self.held_until
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.held_until = self.held_until.filter(|&until| until > now);
    }

    /// The next acknowledgement; each packet is told of once, since the control channel loses
    /// nothing.
    pub fn poll_ack(&mut self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        let count = self.fresh.len().min(DATA_ACK_RANGES_MAX);
        let ranges = self.fresh.drain(..count).collect();
        let room_bytes =
            self.room_bytes_max.map_or(self.room_bytes, |most| most.min(self.room_bytes));
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

    #[test]
    fn what_is_held_is_acknowledged_later_and_with_less_room() {
        let mut incoming = DataIn::new(900);
        incoming.handle_packet(4);
        assert_eq!(incoming.hold(Time(50), 100), None);
        incoming.handle_packet(5);
        assert_eq!(incoming.hold(Time(70), 100), Some(Time(50)));
        incoming.handle_timeout(Time(69));
        assert!(incoming.is_empty() && incoming.poll_ack().is_none());
        incoming.handle_timeout(Time(70));
        let ranges = vec![PacketRange { first: 4, count: 2 }];
        assert_eq!(incoming.poll_ack(), Some(Message::DataAck { room_bytes: 100, ranges }));
        incoming.handle_packet(6);
        incoming.hold(Time(90), 100);
        incoming.unhold();
        let ranges = vec![PacketRange { first: 6, count: 1 }];
        assert_eq!(incoming.poll_ack(), Some(Message::DataAck { room_bytes: 900, ranges }));
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
