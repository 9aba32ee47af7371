//! Chunks on their way out: each over streams of its own, so that none waits for another's lost datagram.
//!
//! What QUIC has taken of a chunk it keeps until it has arrived, by reference: the chunk's memory stays leased. The caller
//! bounds that by the other side's window. A send that is cut off resets its streams, which lets go of all of it at
//! once, whatever the other side does; the reset's code says how many file bytes the stream had been given, so both
//! sides' counts of what passed still agree.
//!
//! Invariant: sends are in the order in which they were pushed; those before `next` were given to QUIC whole.

use std::{collections::VecDeque, ops::Range, rc::Rc};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamId, VarInt, WriteError};

use crate::{
    payload::Payload,
    send_queue::{CutOff, SendEvent},
};
use relay_protocol::{
    DataStreamHeader,
    limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
};

/// File bytes on one stream, at most: of a longer chunk that is recalled so much is sent again that had come. A
/// whole number of frames.
const STREAM_FILE_BYTES_MAX: u32 = 256 << 10;

const _: () = assert!(STREAM_FILE_BYTES_MAX.is_multiple_of(FRAME_PAYLOAD_LEN_MAX));

/// A stream that was given all of its part.
#[derive(Debug)]
struct Part {
    stream: StreamId,
    range: Range<u32>,
    has_arrived: bool,
}

/// A stream that is given its part.
#[derive(Debug)]
struct Open {
    stream: StreamId,
    range: Range<u32>,
    /// What QUIC has not taken of its header.
    header: Bytes,
}

#[derive(Debug)]
struct Send {
    payload: Rc<Payload>,
    tag: u32,
    /// Where it begins.
    start: u32,
    /// All before was given to QUIC.
    given: u32,
    parts: Vec<Part>,
    open: Option<Open>,
}

/// All sends of one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Sends {
    all: VecDeque<Send>,
    events: VecDeque<SendEvent>,
    /// The first send that QUIC was not given whole.
    next: usize,
}

/// Which send is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The one that was pushed with this tag.
    Tag(u32),
    /// One of this chunk.
    Chunk(u32),
}

/// What came of giving file bytes to QUIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    /// So many were taken.
    pub bytes: u64,
    /// QUIC takes no more for now.
    pub is_full: bool,
}

impl Send {
    fn has_arrived(&self) -> bool {
        self.given == self.payload.len_bytes() && self.parts.iter().all(|part| part.has_arrived)
    }

    /// Resets what has not arrived; how far it came for sure, in whole frames.
    fn cut_off(&self, connection: Option<&mut Connection>) -> u32 {
        // Before the other side has come, nothing was given to it.
        let Some(connection) = connection else { return self.start };
        let mut reset = |stream, range: Range<u32>| {
            // It may have arrived, or been stopped: then there is nothing to let go of.
            connection.send_stream(stream).reset(VarInt::from_u32(range.end - range.start)).ok();
        };
        let mut reached = self.start;
        for part in &self.parts {
            if part.has_arrived {
                if reached == part.range.start {
                    reached = part.range.end;
                }
            } else {
                reset(part.stream, part.range.clone());
            }
        }
        if let Some(open) = &self.open {
            reset(open.stream, open.range.start..self.given);
        }
        reached
    }
}

impl Sends {
    /// A chunk from `offset` (a whole number of frames) on.
    pub(super) fn push(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        assert!(offset < payload.len_bytes(), "nothing of the chunk is left to send");
        assert_eq!(offset as usize % FRAME_PAYLOAD_BYTES_MAX, 0, "sends begin with a frame");
        let (start, given, parts, open) = (offset, offset, Vec::new(), None);
        self.all.push_back(Send { payload, tag, start, given, parts, open });
    }

    /// Everything that was pushed has arrived, or was cut off.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<SendEvent> {
        self.events.pop_front()
    }

    /// Cuts off the first send that is wanted. What is not known to have arrived counts as not sent.
    pub(super) fn recall(
        &mut self,
        connection: Option<&mut Connection>,
        is_wanted: Wanted,
    ) -> Option<CutOff> {
        self.cut_off(connection, is_wanted).map(|(cut_off, _)| cut_off)
    }

    /// Sends no more of a chunk, as its receiver spoke of it. Unlike one that is recalled it is not to
    /// be sent again: what is under way counts as sent.
    pub(super) fn drop_rest(
        &mut self,
        connection: Option<&mut Connection>,
        chunk: u32,
    ) -> Option<CutOff> {
        let (cut_off, given) = self.cut_off(connection, Wanted::Chunk(chunk))?;
        Some(CutOff { reached_bytes: given, ..cut_off })
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self, mut connection: Option<&mut Connection>) {
        for send in self.all.drain(..) {
            send.cut_off(connection.as_deref_mut());
        }
        self.next = 0;
    }

    /// How far the first send that is wanted came for sure, and how far it was given to QUIC.
    fn cut_off(
        &mut self,
        connection: Option<&mut Connection>,
        is_wanted: Wanted,
    ) -> Option<(CutOff, u32)> {
        let at = self.all.iter().position(|send| match is_wanted {
            Wanted::Tag(tag) => send.tag == tag,
            Wanted::Chunk(chunk) => send.payload.chunk() == chunk,
        })?;
        let send = self.all.remove(at)?;
        if at < self.next {
            self.next -= 1;
        }
        let reached_bytes = send.cut_off(connection);
        self.finish_first();
        Some((CutOff { chunk: send.payload.chunk(), tag: send.tag, reached_bytes }, send.given))
    }

    /// File bytes of the smallest piece that could be given next.
    pub(super) fn next_piece_len(&self) -> Option<u32> {
        let send = self.all.get(self.next)?;
        let of_frame = FRAME_PAYLOAD_LEN_MAX - send.given % FRAME_PAYLOAD_LEN_MAX;
        Some((send.payload.len_bytes() - send.given).min(of_frame))
    }

    /// Gives QUIC file bytes, at most so many.
    ///
    /// # Panics
    /// If the bytes of a chunk were withdrawn without being cut off.
    pub(super) fn give(&mut self, connection: &mut Connection, bytes_max: u64) -> Given {
        let mut given = Given::default();
        while let Some(least) = self.next_piece_len()
            && u64::from(least) <= bytes_max - given.bytes
        {
            let send = &mut self.all[self.next];
            let was_begun = send.given > send.start;
            let Some(bytes) = give_some(send, connection, bytes_max - given.bytes) else {
                given.is_full = true;
                break;
            };
            given.bytes += u64::from(bytes);
            let (chunk, tag) = (send.payload.chunk(), send.tag);
            if !was_begun && bytes > 0 {
                self.events.push_back(SendEvent::Begun { chunk, tag });
            }
            if send.given == send.payload.len_bytes() {
                self.next += 1;
            }
        }
        given
    }

    /// All of a stream has arrived.
    pub(super) fn handle_arrived(&mut self, stream: StreamId) {
        let parts = self.all.iter_mut().flat_map(|send| &mut send.parts);
        for part in parts.filter(|part| part.stream == stream) {
            part.has_arrived = true;
        }
        self.finish_first();
    }

    /// Sends finish in the order in which they were pushed: what waits for one learns no later than
    /// when those before are through, or gone.
    fn finish_first(&mut self) {
        while let Some(send) = self.all.pop_front_if(|send| send.has_arrived()) {
            self.next -= 1;
            let (chunk, tag) = (send.payload.chunk(), send.tag);
            self.events.push_back(SendEvent::Finished { chunk, tag });
        }
    }

    /// How far the first send was given to QUIC.
    #[cfg(test)]
    pub(super) fn given_of_first(&self) -> u32 {
        self.all[0].given
    }

    /// Asserts what always holds.
    pub(super) fn invariants(&self) {
        let is_whole = |send: &Send| send.given == send.payload.len_bytes();
        debug_assert!(self.all.iter().take(self.next).all(is_whole));
        debug_assert!(!self.all.iter().skip(self.next).any(is_whole));
    }
}

/// Gives QUIC some of a send, at most so many bytes and not beyond a stream; `None` if it takes nothing.
fn give_some(send: &mut Send, connection: &mut Connection, bytes_max: u64) -> Option<u32> {
    if send.open.is_none() {
        let stream = connection.streams().open(Dir::Uni)?;
        let end = send.payload.len_bytes().min(send.given + STREAM_FILE_BYTES_MAX);
        let header =
            DataStreamHeader { chunk: send.payload.chunk(), offset: send.given, tag: send.tag };
        let header = Bytes::copy_from_slice(&header.encode());
        send.open = Some(Open { stream, range: send.given..end, header });
    }
    let open = send.open.as_mut().expect("just opened");
    let most = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    let end = match send.given.saturating_add(most) {
        end if end >= open.range.end => open.range.end,
        // No frame is begun that could not go whole.
        end => end - end % FRAME_PAYLOAD_LEN_MAX,
    };
    if end <= send.given {
        return None;
    }
    // Of a chunk in a file it is a copy, and the system may have no memory for it now: then nothing goes.
    let bytes = send.payload.part(&(send.given..end)).ok()?;
    let mut chunks = [open.header.clone(), bytes];
    let written = match connection.send_stream(open.stream).write_chunks(&mut chunks) {
        Ok(written) => written.bytes,
        Err(WriteError::Blocked) => return None,
        // Its receiver wants no more, which ends the connection.
        Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return None,
    };
    let of_header = written.min(open.header.len());
    open.header = open.header.slice(of_header..);
    let bytes = u32::try_from(written - of_header).expect("part of a chunk");
    send.given += bytes;
    if send.given == open.range.end {
        let Open { stream, range, .. } = send.open.take().expect("just looked at");
        // It fails only where the receiver wants no more.
        connection.send_stream(stream).finish().ok();
        send.parts.push(Part { stream, range, has_arrived: false });
    }
    Some(bytes)
}
