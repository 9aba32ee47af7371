//! What becomes of datagrams and of the data in them, and why they end a connection.

use super::silence::Silence;
use relay_protocol::{DecodeError, FrameError};

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It counts.
    Taken,
    /// It was not sealed by the other side, has come before, or says nothing.
    Ignored,
}

/// Figures since they were last asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataCounts {
    /// Bytes of datagrams that were lost, or thought to be.
    pub lost_bytes: u64,
    /// How many they were.
    pub lost_datagrams: u64,
}

/// Why datagrams end the connection.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError<E> {
    /// The other side opened a stream that is not of the protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The other side sent a message that is not of the protocol.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The other side of the datagrams is not the one of the stream.
    #[error("the datagrams do not come from the other side of the stream")]
    Unproven,
    /// The other side can't be heard.
    #[error("{0}")]
    Silence(Silence),
    /// The other side ended them, or broke QUIC.
    #[error("the datagrams' connection ended: {0}")]
    Lost(String),
    /// The handler refused a message, or a piece.
    #[error("{0}")]
    Handler(E),
}
