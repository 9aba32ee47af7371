//! The data channel's datagrams: sealed, numbered and addressed like those of control.
//!
//! What goes into them, and what is lost, is decided in [`super::super::data`].

use std::time::Duration;

use super::{DatagramError, Datagrams, Received, Route};
use crate::data::{CongestionControl, DataIn, DataOut};
use relay_protocol::{
    DataPieceHeader, DatagramHeader, DatagramKind, Message, Side,
    datagram::DATA_DATAGRAM_OVERHEAD_BYTES, frame_crc, time::Time,
};

/// Bytes that one transmission may hold: what the system takes of equal datagrams in one call.
const TRANSMIT_BYTES_MAX: usize = 65_000;

/// Time-outs in a row after which a peer may have another address: losses alone seldom come so far.
const POKE_TIMEOUTS: u32 = 2;

/// A peer is asked no more often than this.
const POKE_INTERVAL: Duration = Duration::from_secs(1);

/// Both halves of a data channel.
#[derive(Debug)]
pub(super) struct Data {
    out: DataOut,
    incoming: DataIn,
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

impl Datagrams {
    /// The data channel runs in these datagrams, too. `room_bytes` is what this side's socket can
    /// hold of data that was not read yet.
    pub fn open_data(&mut self, control: CongestionControl, room_bytes: u32) {
        let (out, incoming) = (DataOut::new(control), DataIn::new(room_bytes));
        self.data = Some(Box::new(Data { out, incoming }));
    }

    /// What is sent of chunks, if that runs in datagrams.
    #[must_use]
    pub fn data(&self) -> Option<&DataOut> {
        self.data.as_ref().map(|data| &data.out)
    }

    /// The same, to feed and to ask.
    #[must_use]
    pub fn data_mut(&mut self) -> Option<&mut DataOut> {
        self.data.as_mut().map(|data| &mut data.out)
    }

    /// What is to be said of data that has come; on the stream.
    pub fn poll_data_ack(&mut self) -> Option<Message> {
        self.data.as_mut()?.incoming.poll_ack()
    }

    /// Something is to be said of data that has come.
    #[must_use]
    pub fn owes_data_ack(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.incoming.is_empty())
    }

    /// A datagram of data came from there. Its piece goes to `handler`.
    ///
    /// # Errors
    /// A sealed datagram that breaks the protocol, or the handler's; the connection is of no
    /// further use.
    pub fn handle_data<E>(
        &mut self,
        now: Time,
        route: Route,
        datagram: &[u8],
        handler: &mut impl FnMut(DataPieceHeader, &[u8]) -> Result<(), E>,
    ) -> Result<Received, DatagramError<E>> {
        let header = DatagramHeader::peek(datagram);
        let is_ours = |header: &DatagramHeader| {
            header.kind == DatagramKind::Data && header.connection == self.connection
        };
        let Some(header) = header.filter(is_ours) else { return Ok(Received::Forged) };
        let Some(data) = &mut self.data else { return Ok(Received::Forged) };
        if !self.replay.is_new(header.number) {
            return Ok(Received::Replayed);
        }
        let Some(body) = self.open.open(datagram) else { return Ok(Received::Forged) };
        self.heard_at = Some(now);
        let piece = DataPieceHeader::decode(body)?;
        self.replay.insert(header.number);
        data.incoming.handle_packet(header.number);
        self.handle_source(now, route, header.number);
        if let Some((piece, bytes)) = piece {
            handler(piece, bytes).map_err(DatagramError::Handler)?;
        }
        Ok(Received::Taken)
    }

    /// Appends datagrams of data to `out`, which is empty: at most `segments_max` of one length,
    /// with at most `data_bytes_max` file bytes. Ask until there are none.
    pub fn poll_data(
        &mut self,
        now: Time,
        data_bytes_max: u64,
        segments_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<DataTransmit> {
        debug_assert!(out.is_empty());
        let route = self.path.proven()?;
        if let Some(bytes) = self.data.as_mut()?.out.poll_probe(now) {
            return Some(self.probe(now, route, bytes, out));
        }
        let mut transmit =
            DataTransmit { route, segment_bytes: 0, data_bytes: 0, first: self.next_number };
        for _ in 0..segments_max {
            let left = data_bytes_max - transmit.data_bytes;
            let Some(piece) = self.data()?.peek_piece(now, left) else { break };
            let bytes = DATA_DATAGRAM_OVERHEAD_BYTES + piece.len_bytes() as usize;
            let is_first = transmit.segment_bytes == 0;
            if !is_first
                && (bytes > transmit.segment_bytes || out.len() + bytes > TRANSMIT_BYTES_MAX)
            {
                break;
            }
            let start = self.begin_packet(DatagramKind::Data, out);
            self.data()?.write_piece(&piece, out);
            let number = self.next_number;
            self.end_packet(start, out);
            self.data_mut()?.handle_sent(now, number, bytes, &piece);
            transmit.data_bytes += u64::from(piece.len_bytes());
            transmit.segment_bytes = transmit.segment_bytes.max(bytes);
            if bytes < transmit.segment_bytes {
                break;
            }
        }
        (transmit.segment_bytes > 0).then_some(transmit)
    }

    /// A datagram that is only long.
    fn probe(&mut self, now: Time, route: Route, bytes: usize, out: &mut Vec<u8>) -> DataTransmit {
        let start = self.begin_packet(DatagramKind::Data, out);
        let zeros = vec![0; bytes - DATA_DATAGRAM_OVERHEAD_BYTES];
        out.extend_from_slice(&DataPieceHeader::of_probe().encode(frame_crc(&zeros)));
        out.extend_from_slice(&zeros);
        let number = self.next_number;
        self.end_packet(start, out);
        if let Some(data) = self.data_mut() {
            data.handle_probe_sent(now, number);
        }
        DataTransmit { route, segment_bytes: bytes, data_bytes: 0, first: number }
    }

    /// Whether [`Self::poll_data`] would give something. If it will by time alone,
    /// [`Self::poll_timeout`] says when.
    #[must_use]
    pub fn wants_data(&self, now: Time, data_bytes_max: u64) -> bool {
        self.path.proven().is_some()
            && self.data().is_some_and(|out| {
                out.wants_probe() || out.peek_piece(now, data_bytes_max).is_some()
            })
    }

    pub(super) fn handle_data_timeout(&mut self, now: Time) {
        if let Some(data) = &mut self.data {
            data.out.handle_timeout(now);
        }
    }

    /// When the data channel has something to do though nothing happens.
    pub(super) fn poll_data_timeout(&self) -> Option<Time> {
        self.path.proven()?;
        self.data()?.poll_timeout()
    }

    /// Datagrams are not answered: the peer may be elsewhere without knowing, and has nothing to say
    /// by which the relay would learn where. Whether to ask it, over the stream, for a ping.
    pub fn poll_poke(&mut self, now: Time) -> bool {
        let of_data = self.data().map_or(0, DataOut::timeouts);
        let is_unanswered = self.recovery.timeouts().max(of_data) >= POKE_TIMEOUTS;
        let is_due = self.side == Side::Relay
            && is_unanswered
            && self.poked_at.is_none_or(|at| now.since(at) >= POKE_INTERVAL);
        if is_due {
            self.poked_at = Some(now);
        }
        is_due
    }

    /// Says something, so that the other side learns where this one is.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// The other side has proved that it is there.
    pub(super) fn handle_response(&mut self, route: Route, token: u64) {
        let was_elsewhere = self.path.proven().is_some();
        if self.path.handle_response(route, token)
            && was_elsewhere
            && let Some(data) = &mut self.data
        {
            data.out.handle_path_changed();
        }
    }

    /// Something sealed came from there.
    fn handle_source(&mut self, now: Time, route: Route, number: u64) {
        let is_newest = self.replay.is_newest(number.saturating_add(1));
        let (seed, count) = (self.challenge_seed, self.challenges);
        self.path.handle_source(now, route, is_newest, || super::token(seed, count));
        self.challenges += 1;
    }
}
