//! Control and data over one TCP connection: reading. Writing is [`super::SendQueue`].
//!
//! Does not interpret anything: whole control messages and pieces of data frames go to the
//! caller's handler, straight from the receive buffer.

use std::io;

use shards::net::Socket;

use crate::protocol::{DecodeError, Decoder, Event};

/// Decodes what one connection receives.
#[derive(Debug)]
pub struct Reader {
    decoder: Decoder,
}

/// What one turn of reading brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// So many bytes, all handled.
    Read(usize),
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
        Self { decoder: Decoder::new() }
    }

    /// One non-blocking read into `scratch` (shared by all connections of a shard), and every
    /// event in it to `handler`.
    ///
    /// # Errors
    /// The system's, the decoder's, or the handler's; the connection is of no further use.
    pub fn read<E>(
        &mut self,
        socket: &Socket,
        scratch: &mut [u8],
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<ReadOutcome, ReadError<E>> {
        let count = match socket.try_read(scratch) {
            Ok(0) => return Ok(ReadOutcome::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(ReadOutcome::Blocked);
            }
            Err(error) => return Err(ReadError::Io(error)),
        };
        let mut input = &scratch[..count];
        while let Some(event) = self.decoder.decode(&mut input).map_err(ReadError::Decode)? {
            handler(event).map_err(ReadError::Handler)?;
        }
        Ok(ReadOutcome::Read(count))
    }
}
