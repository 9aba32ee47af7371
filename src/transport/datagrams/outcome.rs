//! What becomes of a datagram, and how datagrams end a connection.

use std::time::Duration;

use super::RunsAhead;
use crate::protocol::{DecodeError, FrameError};

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
    /// The other side sent what is not of the protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The same, in a message.
    #[error("{0}")]
    Decode(DecodeError),
    /// It did not keep to what a receiver holds back.
    #[error("{0}")]
    RunsAhead(#[from] RunsAhead),
    /// The handler refused a message.
    #[error("{0}")]
    Handler(E),
}

/// The other side can't be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Silence {
    /// Nothing ever came.
    #[error("datagrams were not answered for {} s", .0.as_secs())]
    Unanswered(Duration),
    /// Nothing comes any more.
    #[error("no datagram came for {} s", .0.as_secs())]
    Ceased(Duration),
}
