//! Control and data over one TCP connection: reading. Writing is [`super::SendQueue`].
//!
//! Does not interpret anything: whole control messages and file bytes go to the caller's handler,
//! straight from the receive buffer.

use std::io;

use shards::net::Socket;

use super::ReceiveBuffer;
use crate::protocol::{DecodeError, Decoder, Event};

/// Decodes what one connection receives.
#[derive(Debug)]
pub struct Reader {
    decoder: Decoder,
    /// The last read brought file bytes.
    expects_frames: bool,
}

/// What one turn of reading brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// Something, all of it handled.
    Read {
        /// How much.
        bytes: usize,
        /// The buffer was full: most likely there is more.
        is_full: bool,
    },
    /// Nothing to read now: wait until the socket is readable.
    Blocked,
    /// The other side has closed.
    Closed,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The system said so.
    #[error("{0}")]
    Io(io::Error),
    /// The other side sent what is not of the protocol.
    #[error("{0}")]
    Decode(DecodeError),
    /// The handler refused an event.
    #[error("{0}")]
    Handler(E),
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
        Self { decoder: Decoder::new(), expects_frames: false }
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
        let layout = buffer.layout(self.decoder.payload_left(), self.expects_frames);
        let bytes = match buffer.fill(socket, layout) {
            Ok(0) => return Ok(ReadOutcome::Closed),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(ReadOutcome::Blocked);
            }
            Err(error) => return Err(ReadError::Io(error)),
        };
        self.expects_frames = buffer.decode(layout, bytes, &mut self.decoder, handler)?;
        Ok(ReadOutcome::Read { bytes, is_full: bytes == layout.len_bytes() })
    }

    /// As [`Self::read`] would, of bytes that are here already, in as many reads as it takes.
    ///
    /// # Errors
    /// The decoder's, or the handler's; the reader is of no further use.
    #[cfg(any(test, fuzzing))]
    pub fn take<E>(
        &mut self,
        mut bytes: &[u8],
        buffer: &mut ReceiveBuffer,
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        while !bytes.is_empty() {
            let layout = buffer.layout(self.decoder.payload_left(), self.expects_frames);
            let (now, later) = bytes.split_at(bytes.len().min(layout.len_bytes()));
            buffer.scatter(layout, now);
            self.expects_frames = buffer.decode(layout, now.len(), &mut self.decoder, handler)?;
            bytes = later;
        }
        Ok(())
    }
}
