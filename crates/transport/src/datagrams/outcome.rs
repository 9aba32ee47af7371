//! What becomes of a datagram that came.

use super::lanes_in::RunsAhead;
use relay_protocol::{DecodeError, FrameError};

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It counts.
    Taken,
    /// It was not sealed with the connection's key.
    Forged,
    /// It has come before, or is too old to tell.
    Replayed,
    /// Its messages can't be taken now: it will be sent again.
    Refused,
}

/// Why datagrams end the connection.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError<E> {
    /// The other side sent a frame that is not of the protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The other side sent a message that is not of the protocol.
    #[error("{0}")]
    Decode(DecodeError),
    /// It did not keep to what a receiver holds back.
    #[error("{0}")]
    RunsAhead(#[from] RunsAhead),
    /// The handler refused a message.
    #[error("{0}")]
    Handler(E),
}
