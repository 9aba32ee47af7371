//! Which data datagrams have come and were not acknowledged yet. Keeps no bytes of them.

use std::collections::VecDeque;

use relay_protocol::{Message, PacketRange, limits::DATA_ACK_RANGES_MAX};

/// Ranges that wait for the control channel, at most; older ones are forgotten, and what they told
/// of is sent once more.
const RANGES_MAX: usize = 1024;

/// The receiving half.
#[derive(Debug, Default)]
pub struct DataIn {
    fresh: VecDeque<PacketRange>,
    room_bytes: u32,
}

impl DataIn {
    /// `room_bytes` is what this side's socket can hold of data that was not read yet.
    #[must_use]
    pub fn new(room_bytes: u32) -> Self {
        Self { fresh: VecDeque::new(), room_bytes }
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

    /// Nothing is to be acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty()
    }

    /// The next acknowledgement; each packet is told of once, since the control channel loses
    /// nothing.
    pub fn poll_ack(&mut self) -> Option<Message> {
        if self.fresh.is_empty() {
            return None;
        }
        let count = self.fresh.len().min(DATA_ACK_RANGES_MAX);
        let ranges = self.fresh.drain(..count).collect();
        Some(Message::DataAck { room_bytes: self.room_bytes, ranges })
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
