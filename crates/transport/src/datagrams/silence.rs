//! When the two sides last heard each other, and how long silence may last.
//!
//! QUIC keeps a path alive and gives up one that is dead. What it can't know is here: that a peer should be asked,
//! over the stream beside, where it is, and that datagrams never came through at all. Pure.

use std::time::Duration;

use relay_protocol::{
    limits::{DATAGRAM_ANSWER_TIMEOUT, DATAGRAM_SILENCE_TIMEOUT},
    time::Time,
};

/// A peer that owes an answer for so long may have another address: losses alone seldom take longer.
const POKE_AFTER: Duration = Duration::from_millis(500);

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

/// When one side heard the other.
#[derive(Debug)]
pub(super) struct SignsOfLife {
    opened_at: Time,
    /// When something came last that the other side had sealed.
    heard_at: Option<Time>,
    /// When the other side wanted a proof last of where this one is.
    challenged_at: Option<Time>,
    /// When it was asked last, over the stream, for a sign of where it is.
    poked_at: Option<Time>,
    /// Since when it owes an answer.
    owes_since: Option<Time>,
}

impl SignsOfLife {
    pub(super) fn new(now: Time) -> Self {
        Self {
            opened_at: now,
            heard_at: None,
            challenged_at: None,
            poked_at: None,
            owes_since: None,
        }
    }

    pub(super) fn handle_heard(&mut self, now: Time) {
        (self.heard_at, self.owes_since) = (Some(now), None);
    }

    pub(super) fn handle_challenged(&mut self, now: Time) {
        self.challenged_at = Some(now);
    }

    pub(super) fn heard_at(&self) -> Option<Time> {
        self.heard_at
    }

    pub(super) fn challenged_at(&self) -> Option<Time> {
        self.challenged_at
    }

    /// When this side gives up, if it has not heard the other until then; only before it ever has.
    pub(super) fn answer_due(&self) -> Option<Time> {
        let due = self.opened_at + DATAGRAM_ANSWER_TIMEOUT;
        self.heard_at.is_none().then_some(due)
    }

    /// How the other side is silent, where QUIC has given it up.
    pub(super) fn ceased() -> Silence {
        Silence::Ceased(DATAGRAM_SILENCE_TIMEOUT)
    }

    /// Something went out that asks for an answer.
    pub(super) fn handle_asked(&mut self, now: Time) {
        self.owes_since.get_or_insert(now);
    }

    /// Whether to ask the other side over the stream.
    pub(super) fn poll_poke(&mut self, now: Time) -> bool {
        let Some(since) = self.owes_since.filter(|_| self.heard_at.is_some()) else { return false };
        let was_asked = self.poked_at.is_some_and(|at| now < at + POKE_INTERVAL);
        if now < since + POKE_AFTER || was_asked {
            return false;
        }
        self.poked_at = Some(now);
        true
    }

    /// When [`Self::poll_poke`] is to be asked again.
    pub(super) fn poke_due(&self) -> Option<Time> {
        self.heard_at?;
        let due = self.owes_since? + POKE_AFTER;
        Some(self.poked_at.map_or(due, |at| due.max(at + POKE_INTERVAL)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peer_that_owes_an_answer_is_asked_now_and_then_until_it_is_heard() {
        let start = Time::ZERO + 1000 * MS;
        let mut signs = SignsOfLife::new(start);
        signs.handle_asked(start);
        assert!(!signs.poll_poke(start + 9000 * MS), "it was never there");
        signs.handle_heard(start);
        assert!(!signs.poll_poke(start + 9000 * MS), "it owes nothing");
        signs.handle_asked(start);
        assert_eq!(signs.poke_due(), Some(start + POKE_AFTER));
        assert!(!signs.poll_poke(start));
        assert!(signs.poll_poke(start + POKE_AFTER));
        assert!(!signs.poll_poke(start + POKE_AFTER + 999 * MS), "just asked");
        assert_eq!(signs.poke_due(), Some(start + POKE_AFTER + POKE_INTERVAL));
        assert!(signs.poll_poke(start + POKE_AFTER + 1000 * MS));
        signs.handle_heard(start + 3000 * MS);
        signs.handle_asked(start + 3000 * MS);
        assert!(!signs.poll_poke(start + 3000 * MS), "a new wait begins");
    }

    #[test]
    fn only_what_was_never_heard_is_given_up_here() {
        let mut signs = SignsOfLife::new(Time::ZERO);
        assert_eq!(signs.answer_due(), Some(Time::ZERO + DATAGRAM_ANSWER_TIMEOUT));
        signs.handle_heard(Time::ZERO);
        assert_eq!(signs.answer_due(), None);
    }
}
