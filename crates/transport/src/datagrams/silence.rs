//! When the two sides last heard each other: signs of life, and how long silence may last.
//!
//! A peer gives one now and then; a relay that is not answered asks for one. Pure. Does not know what was
//! said.

use std::time::Duration;

use relay_protocol::{
    Side,
    limits::{DATAGRAM_ANSWER_TIMEOUT, DATAGRAM_KEEPALIVE_INTERVAL, DATAGRAM_SILENCE_TIMEOUT},
    time::Time,
};

/// How often a peer has asked in vain, at least, when it gives up: a quarter of what it asks within
/// [`DATAGRAM_ANSWER_TIMEOUT`]. A peer that stood still itself for so long, as a machine may, would
/// otherwise take that for the relay's silence.
const ANSWER_ATTEMPTS_MIN: u32 = 3;

/// Time-outs in a row after which a peer may have another address: losses alone seldom come so far.
const POKE_TIMEOUTS: u32 = 2;

/// A peer is asked no more often than this.
const POKE_INTERVAL: Duration = Duration::from_secs(1);

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

/// When the sides heard each other, as one of them knows it.
#[derive(Debug)]
pub(super) struct SignsOfLife {
    side: Side,
    opened_at: Time,
    /// When something sealed came last.
    heard_at: Option<Time>,
    /// When something went out last that asks for an acknowledgement.
    said_at: Time,
    /// A ping is to be sent.
    is_ping_due: bool,
    /// When the peer was asked last, over the stream, for a sign of where it is.
    poked_at: Option<Time>,
}

impl SignsOfLife {
    /// A peer begins with a ping, by which the relay learns where it is.
    pub(super) fn new(side: Side, now: Time) -> Self {
        Self {
            side,
            opened_at: now,
            heard_at: None,
            said_at: now,
            is_ping_due: side == Side::Peer,
            poked_at: None,
        }
    }

    /// Something sealed came.
    pub(super) fn handle_heard(&mut self, now: Time) {
        self.heard_at = Some(now);
    }

    /// Something went out that asks for an acknowledgement.
    pub(super) fn handle_said(&mut self, now: Time) {
        self.said_at = now;
    }

    /// When something sealed came last.
    pub(super) fn heard_at(&self) -> Option<Time> {
        self.heard_at
    }

    /// A ping is to be sent.
    pub(super) fn is_ping_due(&self) -> bool {
        self.is_ping_due
    }

    /// The next packet is to hold a ping.
    pub(super) fn want_ping(&mut self) {
        self.is_ping_due = true;
    }

    /// The packet that goes now holds a ping.
    pub(super) fn handle_ping_sent(&mut self) {
        self.is_ping_due = false;
    }

    /// When a peer that has nothing to say pings, so that its path stays open.
    pub(super) fn keepalive_at(&self) -> Option<Time> {
        (self.side == Side::Peer).then(|| self.said_at + DATAGRAM_KEEPALIVE_INTERVAL)
    }

    /// When the other side counts as silent, if nothing is heard until then, and how. `timeouts`: how
    /// often in a row it did not answer in time.
    pub(super) fn silence(&self, timeouts: u32) -> (Time, Silence) {
        match self.heard_at {
            // The relay learns from its peer's silence that the stream ends, or that it is done for.
            None if self.side == Side::Peer && timeouts >= ANSWER_ATTEMPTS_MIN => {
                let after = DATAGRAM_ANSWER_TIMEOUT;
                (self.opened_at + after, Silence::Unanswered(after))
            }
            heard_at => {
                let after = DATAGRAM_SILENCE_TIMEOUT;
                (heard_at.unwrap_or(self.opened_at) + after, Silence::Ceased(after))
            }
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The other side can't be heard.
    pub(super) fn handle_timeout(&mut self, now: Time, timeouts: u32) -> Result<(), Silence> {
        let (given_up_at, silence) = self.silence(timeouts);
        if given_up_at <= now {
            return Err(silence);
        }
        self.is_ping_due |= self.keepalive_at().is_some_and(|at| at <= now);
        Ok(())
    }

    /// Whether the relay is to ask its peer, over the stream, for a ping.
    pub(super) fn poll_poke(&mut self, now: Time, timeouts: u32) -> bool {
        let is_due = self.side == Side::Relay
            && timeouts >= POKE_TIMEOUTS
            && self.poked_at.is_none_or(|at| now.since(at) >= POKE_INTERVAL);
        if is_due {
            self.poked_at = Some(now);
        }
        is_due
    }
}
