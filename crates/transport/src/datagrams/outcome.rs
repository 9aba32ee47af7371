//! What becomes of a datagram, and how datagrams end a connection.

use std::time::Duration;

use super::{Datagrams, RunsAhead};
use relay_protocol::{
    DecodeError, FrameError, Side,
    limits::{DATAGRAM_ANSWER_TIMEOUT, DATAGRAM_SILENCE_TIMEOUT},
    time::Time,
};

/// How often a peer has asked in vain, at least, when it gives up: a quarter of what it asks within
/// [`DATAGRAM_ANSWER_TIMEOUT`]. Else whoever stood still himself for so long, as a machine may, would
/// take that for the other's silence.
const ANSWER_ATTEMPTS_MIN: u32 = 3;

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

impl Datagrams {
    /// When something sealed came last.
    #[must_use]
    pub fn heard_at(&self) -> Option<Time> {
        self.heard_at
    }

    /// When the other side last wanted a proof of where this one is.
    #[must_use]
    pub fn challenged_at(&self) -> Option<Time> {
        self.challenged_at
    }

    /// When the other side counts as silent, if nothing is heard until then, and how.
    pub(super) fn silence(&self) -> (Time, Silence) {
        let has_asked = self.recovery.timeouts() >= ANSWER_ATTEMPTS_MIN;
        match self.heard_at {
            // The relay learns from its peer's silence that the stream ends, or that it is done for.
            None if self.side == Side::Peer && has_asked => {
                let after = DATAGRAM_ANSWER_TIMEOUT;
                (self.opened_at + after, Silence::Unanswered(after))
            }
            heard_at => {
                let after = DATAGRAM_SILENCE_TIMEOUT;
                (heard_at.unwrap_or(self.opened_at) + after, Silence::Ceased(after))
            }
        }
    }
}
