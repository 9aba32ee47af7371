//! The file bytes of one end: what is sent, what comes, and what may come.

use std::rc::Rc;

use quinn_proto::VarInt;

use super::{
    Datagrams,
    arrivals::ArrivalError,
    outcome::DatagramError,
    sends::{Given, Wanted},
    settings::{MESSAGES_BYTES, ROOM_BYTES_MIN},
};
use crate::{
    payload::Payload,
    send_queue::{CutOff, SendEvent},
};
use relay_protocol::{DataPieceHeader, time::Time};

/// What QUIC may keep of chunks beyond what its congestion window lets through: so it never waits for more.
const GIVEN_AHEAD_BYTES: u64 = 128 << 10;

impl Datagrams {
    /// A chunk from `offset` (a whole number of frames) on.
    ///
    /// # Panics
    /// If `offset` is not the start of a frame of this chunk.
    pub fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.sends.push(payload, tag, offset);
    }

    /// All data that was pushed has arrived, or was cut off.
    #[must_use]
    pub fn is_data_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        self.sends.poll_event()
    }

    /// Cuts off the send with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.recall(self.link.connection(), Wanted::Tag(tag))
    }

    /// Cuts off the send of this chunk, if there is one.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.recall(self.link.connection(), Wanted::Chunk(chunk))
    }

    /// Sends no more of this chunk, if there is a send of it: its receiver has spoken of it.
    pub fn drop_rest(&mut self, chunk: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.drop_rest(self.link.connection(), chunk)
    }

    /// Drops all sends: the connection is about to end.
    pub fn drop_data(&mut self) {
        self.sends.clear(self.link.connection());
    }

    /// File bytes of the smallest piece that could go next: the window must have room for them.
    #[must_use]
    pub fn next_piece_len(&self) -> Option<u32> {
        self.sends.next_piece_len()
    }

    /// Whether [`Self::give_data`] would give something.
    #[must_use]
    pub fn takes_data(&self, bytes_max: u64) -> bool {
        self.proof.is_done
            && !self.is_full
            && self.next_piece_len().is_some_and(|len| u64::from(len) <= bytes_max)
    }

    /// Gives QUIC file bytes to send, at most so many (the other side's window, which is the caller's business), as
    /// many as it may soon send.
    pub fn give_data(&mut self, bytes_max: u64) -> Given {
        if !self.takes_data(bytes_max) {
            return Given::default();
        }
        let Some((_, connection)) = &mut self.link.connection else { return Given::default() };
        let window = connection.congestion_state().window() + GIVEN_AHEAD_BYTES;
        connection.set_send_window(window);
        let given = self.sends.give(connection, bytes_max);
        // Never less than before: what QUIC still has of chunks must leave room for messages.
        self.window_bytes = self.window_bytes.max(window);
        connection.set_send_window(self.window_bytes + MESSAGES_BYTES);
        self.is_full = given.is_full;
        self.outgoing.is_due |= given.bytes > 0;
        given
    }

    /// Hands on pieces of chunks that came, with at most about so many file bytes; how many there were.
    ///
    /// # Errors
    /// The other side broke the protocol, or the handler's; the connection is of no further use.
    pub fn read_data<E>(
        &mut self,
        now: Time,
        bytes_max: u64,
        handler: &mut impl FnMut(DataPieceHeader, &[u8]) -> Result<(), E>,
    ) -> Result<u64, DatagramError<E>> {
        if !self.has_unread_data(now) {
            return Ok(0);
        }
        let Some(connection) = self.link.connection() else { return Ok(0) };
        let read = self.arrivals.read(connection, bytes_max, handler);
        self.outgoing.is_due = true;
        read.map_err(|error| match error {
            ArrivalError::Frame(error) => DatagramError::Frame(error),
            ArrivalError::Handler(error) => DatagramError::Handler(error),
        })
    }

    /// File bytes may have come that can be read now.
    #[must_use]
    pub fn has_unread_data(&self, now: Time) -> bool {
        self.proof.is_done && self.held_until <= now && self.arrivals.has_unread()
    }

    /// File bytes that the other side sent and took back, since this was last asked: they won't come.
    pub fn take_discarded(&mut self) -> u64 {
        self.arrivals.take_discarded()
    }

    /// This side has asked for so many file bytes, and has memory for them: beside messages the other side may
    /// have that much under way.
    pub fn expect_data(&mut self, bytes: u64) {
        let bytes = bytes.min(u64::from(u32::MAX - ROOM_BYTES_MIN));
        // It only grows: credit that was given can't be taken back, and what was asked for at once is bounded.
        if bytes <= self.expected_bytes {
            return;
        }
        let Some(connection) = self.link.connection() else { return };
        let window = u64::from(ROOM_BYTES_MIN) + bytes;
        connection.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        (self.expected_bytes, self.outgoing.is_due) = (bytes, true);
    }

    /// This side limits its rate: it reads no file bytes before `until`, which holds the other side back.
    pub fn hold_data(&mut self, until: Time) {
        self.held_until = until;
    }
}
