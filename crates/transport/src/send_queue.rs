//! What one connection has still to write, for transports that write to a byte stream.
//!
//! Invariant: at most one frame is half-written, and it is either the head of `sends` (its bytes
//! still shared) or in `tail` (its bytes copied, because they were withdrawn meanwhile).
//! Control bytes go ahead of every frame that was not begun.

mod lent;
mod pinned;

use std::{collections::VecDeque, io, io::IoSlice, ops::Range, rc::Rc};

use shards::net::Socket;

use self::pinned::Pinned;
use super::payload::Payload;
use relay_protocol::{
    DATA_HEADER_BYTES, DataHeader, encode_preamble,
    limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
};

/// Bytes of one gathered write, at most. Larger ones gain nothing (see BENCHMARKS.md), and one
/// connection would hold up its shard's others for longer.
pub const WRITE_BYTES_MAX: usize = 256 << 10;

/// Frames of one gathered write, at most: 64 frames of 4 KiB fill it, and the header table
/// stays on the stack.
const FRAMES_PER_WRITE_MAX: usize = 64;

/// Written control bytes that may lie about before the rest is moved to the front.
const CONTROL_COMPACT_BYTES: usize = 16 << 10;

const _: () = assert!(FRAMES_PER_WRITE_MAX * FRAME_PAYLOAD_BYTES_MAX >= WRITE_BYTES_MAX);

/// Pending frames of one connection.
#[derive(Debug, Default)]
pub struct SendQueue {
    control: Vec<u8>,
    control_sent: usize,
    tail: Vec<u8>,
    tail_sent: usize,
    sends: VecDeque<Send>,
    events: VecDeque<SendEvent>,
    pinned: Pinned,
    /// The rest of a half-written frame can't be read any more: all writes from then on fail.
    broken: Option<io::Error>,
}

/// One chunk (or the rest of it) on its way.
#[derive(Debug)]
struct Send {
    payload: Rc<Payload>,
    tag: u32,
    /// Where the frame that goes next begins.
    offset: u32,
    /// Bytes of that frame, header included, that the kernel has taken.
    frame_sent: usize,
    begun: bool,
}

/// Progress of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendEvent {
    /// The kernel took the first frame.
    Begun {
        /// Of this chunk.
        chunk: u32,
        /// As pushed.
        tag: u32,
    },
    /// The kernel took the last frame.
    Finished {
        /// Of this chunk.
        chunk: u32,
        /// As pushed.
        tag: u32,
    },
}

/// A send that was cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutOff {
    /// Of this chunk.
    pub chunk: u32,
    /// As pushed.
    pub tag: u32,
    /// Bytes of the chunk that went out or will (a half-written frame is finished), from its
    /// start; a whole number of frames, or the chunk's length.
    pub reached_bytes: u32,
}

/// What one write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// File bytes that the kernel took, those of a frame not yet complete included.
    pub data_bytes: u64,
    /// All bytes that the kernel took.
    pub total_bytes: usize,
    /// Of these, what the kernel refers to instead of having copied it.
    pub lent_bytes: u64,
    /// The kernel took less than it was offered: wait until the socket is writable.
    pub blocked: bool,
}

impl Send {
    fn frame_len(&self) -> u32 {
        (self.payload.len_bytes() - self.offset).min(FRAME_PAYLOAD_LEN_MAX)
    }

    fn header(&self, offset: u32, payload_len: u32) -> DataHeader {
        DataHeader {
            chunk: self.payload.chunk(),
            offset,
            payload_len,
            tag: self.tag,
            checksum: self.payload.checksum(offset),
        }
    }
}

impl SendQueue {
    /// Nothing to write.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The very first thing on a connection.
    pub fn push_preamble(&mut self) {
        self.control.extend_from_slice(&encode_preamble());
    }

    /// Where control frames are appended; they go ahead of data not begun.
    pub fn control_mut(&mut self) -> &mut Vec<u8> {
        if self.control_sent > CONTROL_COMPACT_BYTES {
            self.control.drain(..self.control_sent);
            self.control_sent = 0;
        }
        &mut self.control
    }

    /// Control bytes not yet written. The caller bounds them: it stops reading from a side that does not
    /// take its answers.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        self.control.len() - self.control_sent
    }

    /// A chunk from `offset` (a whole number of frames) on.
    ///
    /// # Panics
    /// If `offset` is not the start of a frame of this chunk.
    pub fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        assert!(offset < payload.len_bytes(), "nothing of the chunk is left to send");
        assert_eq!(offset as usize % FRAME_PAYLOAD_BYTES_MAX, 0, "sends begin with a frame");
        self.sends.push_back(Send { payload, tag, offset, frame_sent: 0, begun: false });
    }

    /// Nothing is left to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control_bytes() == 0 && self.tail.is_empty() && self.sends.is_empty()
    }

    /// Something other than data of a new frame is left: it may be written whatever the window.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        self.control_bytes() > 0
            || !self.tail.is_empty()
            || self.sends.front().is_some_and(|send| send.frame_sent > 0)
    }

    /// File bytes of the frame that comes next: [`Self::write`] begins it only if it fits into
    /// what the caller allows.
    #[must_use]
    pub fn next_frame_len(&self) -> Option<u32> {
        self.sends.front().map(Send::frame_len)
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        self.events.pop_front()
    }

    /// Cuts off the sends with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        let at = self.sends.iter().position(|send| send.tag == tag)?;
        self.cut_off(at)
    }

    /// Cuts off the send of this chunk, if there is one. Call it before the bytes are withdrawn:
    /// a half-written frame is copied.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        let at = self.sends.iter().position(|send| send.payload.chunk() == chunk)?;
        self.cut_off(at)
    }

    /// Drops all data but the rest of a half-written frame: the connection is about to end.
    pub fn drop_data(&mut self) {
        while !self.sends.is_empty() {
            self.cut_off(0);
        }
    }

    fn cut_off(&mut self, at: usize) -> Option<CutOff> {
        let send = self.sends.remove(at)?;
        let mut reached_bytes = send.offset;
        if send.frame_sent > 0 {
            debug_assert!(self.tail.is_empty(), "one frame is half-written at most");
            let len = send.frame_len();
            match send.payload.part(&(send.offset..send.offset + len)) {
                Ok(bytes) => {
                    self.tail = [&send.header(send.offset, len).encode()[..], &bytes].concat();
                    self.tail_sent = send.frame_sent;
                }
                Err(error) => self.broken = Some(error),
            }
            reached_bytes += len;
        }
        Some(CutOff { chunk: send.payload.chunk(), tag: send.tag, reached_bytes })
    }

    /// One non-blocking gathered write of at most [`WRITE_BYTES_MAX`], with new data frames only
    /// while their payload fits into `data_bytes_max`. What is lent goes in longer runs.
    ///
    /// # Errors
    /// The system's; "would block" is not one.
    pub fn write(&mut self, socket: &Socket, data_bytes_max: u64) -> io::Result<Written> {
        // Sends are cut off before their bytes are withdrawn; what is left has none to send.
        debug_assert!(self.sends.iter().all(|send| !send.payload.is_withdrawn()));
        if let Some(error) = &self.broken {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        let is_lent = self.sends.front().is_some_and(|send| send.payload.is_lent());
        let written = if is_lent {
            self.write_lent(socket, data_bytes_max)
        } else {
            self.write_copied(socket, data_bytes_max)
        }?;
        self.pinned.add(written.total_bytes as u64, written.data_bytes);
        Ok(written)
    }

    fn write_copied(&mut self, socket: &Socket, data_bytes_max: u64) -> io::Result<Written> {
        let mut headers = [[0; DATA_HEADER_BYTES]; FRAMES_PER_WRITE_MAX];
        let frames = self.plan_frames(&mut headers, data_bytes_max);
        let (offered, taken) = self.gather(socket, &headers, &frames)?;
        let mut written =
            Written { total_bytes: taken, blocked: taken < offered, ..Written::default() };
        self.advance(taken, &frames, &mut written);
        Ok(written)
    }

    /// Chooses the frames of one write: (index of the send, payload range) each.
    fn plan_frames(
        &self,
        headers: &mut [[u8; DATA_HEADER_BYTES]; FRAMES_PER_WRITE_MAX],
        mut data_bytes_max: u64,
    ) -> Frames {
        let mut frames = Frames::default();
        let mut room = WRITE_BYTES_MAX.saturating_sub(self.control_bytes() + self.tail.len());
        let in_memory = self.sends.iter().take_while(|send| !send.payload.is_lent());
        'sends: for (index, send) in in_memory.enumerate() {
            let (mut offset, len_bytes) = (send.offset, send.payload.len_bytes());
            while offset < len_bytes {
                let len = (len_bytes - offset).min(FRAME_PAYLOAD_LEN_MAX);
                let begun = index == 0 && offset == send.offset && send.frame_sent > 0;
                let full = frames.count == FRAMES_PER_WRITE_MAX || room < len as usize;
                if !begun && (full || data_bytes_max < u64::from(len)) {
                    break 'sends;
                }
                headers[frames.count] = send.header(offset, len).encode();
                frames.push(index, offset..offset + len);
                room = room.saturating_sub(len as usize);
                data_bytes_max = data_bytes_max.saturating_sub(u64::from(len));
                offset += len;
            }
        }
        frames
    }

    fn gather(
        &self,
        socket: &Socket,
        headers: &[[u8; DATA_HEADER_BYTES]; FRAMES_PER_WRITE_MAX],
        frames: &Frames,
    ) -> io::Result<(usize, usize)> {
        // The bytes stay borrowed, hence pinned, until the call returns and no longer.
        let mut pinned = Vec::with_capacity(4);
        for (send, _) in frames.runs() {
            pinned.push(self.sends[send].payload.memory().expect("withdrawn sends were cut off"));
        }
        let mut slices = Slices::new();
        slices.push(&self.tail[self.tail_sent.min(self.tail.len())..]);
        let half_written = self.sends.front().map_or(0, |send| send.frame_sent);
        if half_written == 0 {
            slices.push(&self.control[self.control_sent..]);
        }
        let mut frame = 0;
        for ((_, run), bytes) in frames.runs().zip(&pinned) {
            for (header, range) in headers[run.clone()].iter().zip(&frames.ranges[run]) {
                let payload = &bytes[range.start as usize..range.end as usize];
                let skip = if frame == 0 { half_written } else { 0 };
                slices.push(&header[skip.min(DATA_HEADER_BYTES)..]);
                slices.push(&payload[skip.saturating_sub(DATA_HEADER_BYTES)..]);
                if frame == 0 && half_written > 0 {
                    slices.push(&self.control[self.control_sent..]);
                }
                frame += 1;
            }
        }
        let offered = slices.total_bytes;
        if offered == 0 {
            return Ok((0, 0));
        }
        match socket.try_write_vectored(slices.as_slice()) {
            Ok(taken) => Ok((offered, taken)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((offered, 0)),
            Err(error) => Err(error),
        }
    }

    /// Books `taken` bytes, in the order in which [`Self::gather`] offered them.
    fn advance(&mut self, mut taken: usize, frames: &Frames, written: &mut Written) {
        let mut take = |left: usize| {
            let part = left.min(taken);
            taken -= part;
            part
        };
        let tail_before = self.tail_sent;
        self.tail_sent += take(self.tail.len() - self.tail_sent);
        written.data_bytes += payload_between(tail_before, self.tail_sent);
        if self.tail_sent == self.tail.len() {
            self.tail = Vec::new();
            self.tail_sent = 0;
        }
        let half_written = self.sends.front().is_some_and(|send| send.frame_sent > 0);
        let mut control_taken = 0;
        if !half_written {
            control_taken = take(self.control.len() - self.control_sent);
        }
        let mut done = 0;
        for (frame, range) in frames.ranges[..frames.count].iter().enumerate() {
            let send = &mut self.sends[frames.sends[frame] - done];
            let len = range.end - range.start;
            let whole = DATA_HEADER_BYTES + len as usize;
            let before = send.frame_sent;
            send.frame_sent += take(whole - before);
            written.data_bytes += payload_between(before, send.frame_sent);
            if frame == 0 && half_written && send.frame_sent == whole {
                control_taken = take(self.control.len() - self.control_sent);
            }
            if send.frame_sent < whole {
                break;
            }
            send.offset += len;
            send.frame_sent = 0;
            let (chunk, tag) = (send.payload.chunk(), send.tag);
            if !std::mem::replace(&mut send.begun, true) {
                self.events.push_back(SendEvent::Begun { chunk, tag });
            }
            if send.offset == send.payload.len_bytes() {
                self.events.push_back(SendEvent::Finished { chunk, tag });
                self.sends.pop_front();
                done += 1;
            }
        }
        self.control_sent += control_taken;
        if self.control_sent == self.control.len() {
            self.control.clear();
            self.control_sent = 0;
        }
    }
}

/// File bytes among bytes `from..to` of a data frame.
fn payload_between(from: usize, to: usize) -> u64 {
    (to.saturating_sub(DATA_HEADER_BYTES) - from.saturating_sub(DATA_HEADER_BYTES)) as u64
}

/// The frames of one write.
struct Frames {
    count: usize,
    sends: [usize; FRAMES_PER_WRITE_MAX],
    ranges: [Range<u32>; FRAMES_PER_WRITE_MAX],
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            count: 0,
            sends: [0; FRAMES_PER_WRITE_MAX],
            ranges: [const { 0..0 }; FRAMES_PER_WRITE_MAX],
        }
    }
}

impl Frames {
    fn push(&mut self, send: usize, range: Range<u32>) {
        self.sends[self.count] = send;
        self.ranges[self.count] = range;
        self.count += 1;
    }

    /// (send, indices of its frames) for each send that has any.
    fn runs(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let send = *self.sends[..self.count].get(from)?;
            let len = self.sends[from..self.count].iter().take_while(|&&s| s == send).count();
            let run = from..from + len;
            from += len;
            Some((send, run))
        })
    }
}

/// I/O vectors of one write, without allocation.
struct Slices<'a> {
    slices: [IoSlice<'a>; 2 * FRAMES_PER_WRITE_MAX + 2],
    count: usize,
    total_bytes: usize,
}

impl<'a> Slices<'a> {
    fn new() -> Self {
        Self { slices: std::array::from_fn(|_| IoSlice::new(&[])), count: 0, total_bytes: 0 }
    }

    fn push(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.slices[self.count] = IoSlice::new(bytes);
            self.count += 1;
            self.total_bytes += bytes.len();
        }
    }

    fn as_slice(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
    }
}

#[cfg(test)]
mod tests;
