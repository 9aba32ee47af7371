//! The data channel's datagrams: sealed, numbered and addressed like those of control.
//!
//! What goes into them, and what is lost, is decided in [`crate::data`].

use super::packets::Packets;
use crate::{
    data::{CongestionControl, DataIn, DataOut},
    lane::Route,
};
use relay_protocol::{
    DataPieceHeader, DatagramKind, datagram::DATA_DATAGRAM_OVERHEAD_BYTES, frame_crc, time::Time,
};

/// Bytes that one transmission may hold: what the system takes of equal datagrams in one call.
const TRANSMIT_BYTES_MAX: usize = 65_000;

/// Both halves of a data channel.
#[derive(Debug)]
pub(super) struct DataChannel {
    pub(super) out: DataOut,
    pub(super) arrivals: DataIn,
}

/// Datagrams of equal length, the last one perhaps shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataTransmit {
    /// Where they go.
    pub route: Route,
    /// How long each is.
    pub segment_bytes: usize,
    /// File bytes in them.
    pub data_bytes: u64,
    /// The first one's number.
    pub first: u64,
}

impl DataChannel {
    /// Nothing is under way. `room_bytes` is what this side's socket can hold of data that was not read yet.
    pub(super) fn new(control: CongestionControl, room_bytes: u32) -> Self {
        Self { out: DataOut::new(control), arrivals: DataIn::new(room_bytes) }
    }

    /// Appends datagrams to `out`, which is empty: at most `segments_max` of one length, with at most
    /// `data_bytes_max` file bytes.
    pub(super) fn poll_transmit(
        &mut self,
        now: Time,
        route: Route,
        packets: &mut Packets,
        (data_bytes_max, segments_max): (u64, usize),
        out: &mut Vec<u8>,
    ) -> Option<DataTransmit> {
        debug_assert!(out.is_empty());
        if let Some(bytes) = self.out.poll_probe(now) {
            return Some(self.probe(now, route, packets, bytes, out));
        }
        let first = packets.next_number();
        let mut transmit = DataTransmit { route, segment_bytes: 0, data_bytes: 0, first };
        for _ in 0..segments_max {
            let left = data_bytes_max - transmit.data_bytes;
            let Some(piece) = self.out.peek_piece(now, left) else { break };
            let bytes = DATA_DATAGRAM_OVERHEAD_BYTES + piece.len_bytes() as usize;
            let is_first = transmit.segment_bytes == 0;
            if !is_first
                && (bytes > transmit.segment_bytes || out.len() + bytes > TRANSMIT_BYTES_MAX)
            {
                break;
            }
            let start = packets.begin(DatagramKind::Data, out);
            self.out.write_piece(&piece, out);
            let number = packets.end(start, out);
            self.out.handle_sent(now, number, bytes, &piece);
            transmit.data_bytes += u64::from(piece.len_bytes());
            transmit.segment_bytes = transmit.segment_bytes.max(bytes);
            if bytes < transmit.segment_bytes {
                break;
            }
        }
        (transmit.segment_bytes > 0).then_some(transmit)
    }

    /// A datagram that is only long.
    fn probe(
        &mut self,
        now: Time,
        route: Route,
        packets: &mut Packets,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> DataTransmit {
        let start = packets.begin(DatagramKind::Data, out);
        let zeros = vec![0; bytes - DATA_DATAGRAM_OVERHEAD_BYTES];
        out.extend_from_slice(&DataPieceHeader::of_probe().encode(frame_crc(&zeros)));
        out.extend_from_slice(&zeros);
        let number = packets.end(start, out);
        self.out.handle_probe_sent(now, number);
        DataTransmit { route, segment_bytes: bytes, data_bytes: 0, first: number }
    }

    /// Whether [`Self::poll_transmit`] would give something.
    pub(super) fn wants_transmit(&self, now: Time, data_bytes_max: u64) -> bool {
        self.out.wants_probe() || self.out.peek_piece(now, data_bytes_max).is_some()
    }
}
