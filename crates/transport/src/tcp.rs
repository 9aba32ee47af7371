//! Control and data over one TCP connection: reading. Writing is [`super::SendQueue`].
//!
//! Does not interpret anything: whole control messages and file bytes go to the caller's handler,
//! straight from the receive buffer.

use std::io;

use shards::net::Socket;

use super::{
    receive_buffer::{FRAMES_PER_READ_MAX, ReadError, ReceiveBuffer},
    send_queue::WRITE_BYTES_MAX,
};
use relay_protocol::{Decoder, Event, limits::FRAME_PAYLOAD_BYTES_MAX};

/// Frames that a read has room for after one that brought file bytes and left nothing: those of one
/// write of the other side, and half as many. A list of four times as many parts costs the kernel and us
/// more than a second read would. Measured on 2 cores with the main job, 9 rounds in alternation, wall and both
/// programs' CPU seconds: spread 3.02 and 5.90 with 64, 2.87 and 5.61 with 24; origin 2.90 and 5.67, 2.78 and 5.50.
const FRAMES_USUAL: usize = 24;

const _: () = assert!(FRAMES_USUAL * FRAME_PAYLOAD_BYTES_MAX > WRITE_BYTES_MAX);

/// Decodes what one connection receives.
#[derive(Debug)]
pub struct Reader {
    decoder: Decoder,
    /// Whole frames that the next read asks for, as far as the buffer has room for them; 0 if the last
    /// one brought no file bytes.
    frames: usize,
}

/// What one turn of reading brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// Something, all of it handled.
    Read {
        /// Bytes that came.
        bytes: usize,
        /// All the room that it was given: most likely there is more.
        is_full: bool,
    },
    /// Nothing to read now: wait until the socket is readable.
    Blocked,
    /// The other side has closed.
    Closed,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Expects the preamble first.
    #[must_use]
    pub fn new() -> Self {
        Self { decoder: Decoder::new(), frames: 0 }
    }

    /// One non-blocking read into `buffer`, which all connections of a shard share, and every event
    /// in it to `handler`.
    ///
    /// # Errors
    /// The system's, the decoder's, or the handler's; the connection is of no further use.
    pub fn read<E>(
        &mut self,
        socket: &Socket,
        buffer: &mut ReceiveBuffer,
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<ReadOutcome, ReadError<E>> {
        self.read_at_most(socket, buffer, usize::MAX, handler)
    }

    /// As [`Self::read`], of no more than so many bytes, headers aside; at least a frame's. `is_full` says that they
    /// came.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_at_most<E>(
        &mut self,
        socket: &Socket,
        buffer: &mut ReceiveBuffer,
        bytes_max: usize,
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<ReadOutcome, ReadError<E>> {
        let layout = buffer.layout(self.decoder.payload_left(), self.frames).at_most(bytes_max);
        let bytes = match buffer.fill(socket, layout) {
            Ok(0) => return Ok(ReadOutcome::Closed),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(ReadOutcome::Blocked);
            }
            Err(error) => return Err(ReadError::Io(error)),
        };
        let is_full = bytes == layout.len_bytes();
        let has_data = buffer.decode(layout, bytes, &mut self.decoder, handler)?;
        self.expect(has_data, is_full);
        Ok(ReadOutcome::Read { bytes, is_full })
    }

    /// Decides how much the next read asks for: as much as usual, or, where that was not enough, twice as
    /// much as before.
    fn expect(&mut self, has_data: bool, is_full: bool) {
        self.frames = match (has_data, is_full) {
            (false, _) => 0,
            (true, false) => FRAMES_USUAL,
            (true, true) => (2 * self.frames).clamp(FRAMES_USUAL, FRAMES_PER_READ_MAX),
        };
    }

    /// As [`Self::read`] would, of bytes that are here already, in as many reads as it takes.
    ///
    /// # Errors
    /// The decoder's, or the handler's; the reader is of no further use.
    #[cfg(any(test, feature = "exercise"))]
    pub fn take<E>(
        &mut self,
        mut bytes: &[u8],
        buffer: &mut ReceiveBuffer,
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        while !bytes.is_empty() {
            let layout = buffer.layout(self.decoder.payload_left(), self.frames);
            let (now, later) = bytes.split_at(bytes.len().min(layout.len_bytes()));
            buffer.scatter(layout, now);
            let is_full = now.len() == layout.len_bytes();
            let has_data = buffer.decode(layout, now.len(), &mut self.decoder, handler)?;
            self.expect(has_data, is_full);
            bytes = later;
        }
        Ok(())
    }
}
