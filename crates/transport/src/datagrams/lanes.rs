//! Control messages over streams of QUIC, one for each lane and direction: messages in, bytes out, and back.
//!
//! A lost datagram holds up its own lane only. Of [`Lane::Latest`] just the newest message waits. What QUIC has not
//! taken waits here, and is the caller's to bound; what it has taken is bounded by its windows.

use bytes::{Buf as _, Bytes};
use quinn_proto::{Connection, Dir, StreamId, WriteError};

use super::reading::{Next, next};
use crate::lane::Lane;
use relay_protocol::{DecodeError, Message, MessageDecoder, encode_message};

/// How a stream of the first lane begins, and so on: kinds of streams.
const KINDS: [u8; 3] = [1, 2, 3];

/// Bytes taken from the library at a time.
const READ_BYTES_MAX: u64 = 16 << 10;

/// Messages go before file bytes.
const PRIORITY: i32 = 1;

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Prompt => 0,
        Lane::Latest => 1,
        Lane::InOrder => 2,
    }
}

/// The kind of the stream on which a peer proves that it is the one of the stream beside it.
pub(super) const KIND_OF_PROOF: u8 = KINDS[2];

#[derive(Debug, Default)]
struct LaneOut {
    stream: Option<StreamId>,
    /// Encoded, and not taken by QUIC.
    waiting: Vec<u8>,
    /// Of these so many were taken.
    taken: usize,
    /// Not encoded: a newer one takes its place.
    newest: Option<Message>,
}

impl LaneOut {
    /// Gives QUIC what it takes.
    fn flush(&mut self, connection: &mut Connection, kind: u8) {
        if let Some(newest) = self.newest.take_if(|_| self.waiting.is_empty()) {
            encode_message(&newest, &mut self.waiting);
        }
        if self.waiting.is_empty() {
            return;
        }
        let id = match self.stream {
            Some(id) => id,
            None => {
                let Some(id) = connection.streams().open(Dir::Uni) else { return };
                self.stream = Some(id);
                self.waiting.insert(0, kind);
                connection.send_stream(id).set_priority(PRIORITY).ok();
                id
            }
        };
        while self.taken < self.waiting.len() {
            match connection.send_stream(id).write(&self.waiting[self.taken..]) {
                Ok(bytes) => self.taken += bytes,
                // No other side stops a lane, but one that ends the connection.
                Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return;
                }
            }
        }
        self.waiting.clear();
        self.taken = 0;
    }
}

#[derive(Debug, Default)]
struct LaneIn {
    stream: Option<StreamId>,
    decoder: MessageDecoder,
    /// Came, and not decoded yet.
    rest: Bytes,
    is_readable: bool,
    has_ended: bool,
}

impl LaneIn {
    fn poll(&mut self, connection: &mut Connection) -> Result<Option<Message>, DecodeError> {
        loop {
            while !self.rest.is_empty() {
                let mut input = &*self.rest;
                let message = self.decoder.decode(&mut input)?;
                let left = input.len();
                self.rest.advance(self.rest.len() - left);
                if message.is_some() {
                    return Ok(message);
                }
            }
            let Some(id) = self.stream.filter(|_| self.is_readable) else { return Ok(None) };
            match next(connection, id, READ_BYTES_MAX) {
                Next::Bytes(bytes) => self.rest = bytes,
                Next::Blocked => self.is_readable = false,
                Next::Ended | Next::Reset(_) => {
                    (self.is_readable, self.has_ended) = (false, true);
                }
            }
        }
    }
}

/// Messages on their way in both directions.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    out: [LaneOut; 3],
    heard: [LaneIn; 3],
}

impl Lanes {
    /// A message to send.
    pub(super) fn push(&mut self, message: &Message) {
        let lane = Lane::of(message);
        let out = &mut self.out[index(lane)];
        match lane {
            Lane::Latest => out.newest = Some(message.clone()),
            Lane::Prompt | Lane::InOrder => encode_message(message, &mut out.waiting),
        }
    }

    /// Bytes by which a peer begins its lane of messages in order: before all of them, on its first stream.
    pub(super) fn push_proof(&mut self, connection: &mut Connection, proof: &[u8]) {
        let lane = &mut self.out[index(Lane::InOrder)];
        lane.waiting.splice(0..0, proof.iter().copied());
        lane.flush(connection, KIND_OF_PROOF);
    }

    /// Bytes of messages that QUIC has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.out.iter().map(|lane| lane.waiting.len() - lane.taken).sum()
    }

    /// Gives QUIC what it takes, what must not wait first.
    pub(super) fn flush(&mut self, connection: &mut Connection) {
        for (lane, kind) in self.out.iter_mut().zip(KINDS) {
            lane.flush(connection, kind);
        }
    }

    /// A stream that begins like this is a lane's; false if it is none, or a lane that has one already.
    pub(super) fn take_stream(&mut self, kind: u8, id: StreamId) -> bool {
        let at = KINDS.iter().position(|&other| other == kind);
        let Some(lane) = at.map(|at| &mut self.heard[at]).filter(|lane| lane.stream.is_none())
        else {
            return false;
        };
        (lane.stream, lane.is_readable) = (Some(id), true);
        true
    }

    /// A stream has something to read, perhaps a lane's.
    pub(super) fn handle_readable(&mut self, id: StreamId) {
        if let Some(lane) = self.heard.iter_mut().find(|lane| lane.stream == Some(id)) {
            lane.is_readable = true;
        }
    }

    /// A lane has ended, as none does that the other side may still speak on.
    pub(super) fn has_ended(&self) -> bool {
        self.heard.iter().any(|lane| lane.has_ended)
    }

    /// Something may have come that was not asked for.
    pub(super) fn has_unread(&self) -> bool {
        self.heard.iter().any(|lane| lane.is_readable || !lane.rest.is_empty())
    }

    /// The next message that came, of what must not wait first.
    pub(super) fn poll(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<Message>, DecodeError> {
        for lane in &mut self.heard {
            if let Some(message) = lane.poll(connection)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}
