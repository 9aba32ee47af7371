//! Peers that wait for chunks which nobody connected holds: they are told, and not for ever.
//!
//! A publisher may have given the file up, as it is no longer what it was. Then another holder may still be
//! about to come back, but there is not much hope.

use std::time::Duration;

use super::{Action, PeerSlot, Swarm, holders::ones};
use relay_protocol::{Order, time::Time};

/// How soon starving peers are looked at when chunks are missing: a holder may just be joining.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// How often one peer is told, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long peers wait, at most, for what their origin has given up: a holder that lost its connection is
/// back within a second.
const GIVEN_UP_DEADLINE: Duration = Duration::from_secs(3);

/// When to look next, and what is known of the origin.
#[derive(Debug, Default)]
pub(super) struct MissingState {
    check_at: Option<Time>,
    /// A publisher has said that it can't supply the file any more; holds while something is missing.
    is_given_up: bool,
}

impl Swarm {
    /// Something came for the peer: it no longer waits in vain.
    pub(super) fn missing_ended(&mut self, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        (peer.missing_since, peer.missing_told) = (None, None);
    }

    /// The peer's file is no longer what it was: nothing more is asked of it.
    pub fn handle_gave_up(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.peers.get(slot).is_some() {
            self.publisher_refused(slot);
            self.retire(now, slot);
        }
        self.settle(now);
    }

    /// The peer can't supply a chunk that it had. Only one that published, and has supplied something
    /// right, is believed that nobody else will.
    pub(super) fn publisher_refused(&mut self, slot: PeerSlot) {
        let peer = &self.peers[slot];
        self.missing.is_given_up |= peer.seeding.is_some() && peer.is_proven;
    }

    pub(super) fn missing_timeout(&self) -> Option<Time> {
        self.missing.check_at
    }

    pub(super) fn missing_step(&mut self, now: Time) {
        let missing = self.chunks.orphan_count > 0 || self.manifest.is_missing();
        self.missing.is_given_up &= missing;
        if self.starving.is_empty() || !missing {
            self.missing.check_at = None;
            return;
        }
        let check_at = *self.missing.check_at.get_or_insert(now + CHECK_EVERY);
        if now < check_at {
            return;
        }
        self.missing.check_at = Some(now + CHECK_EVERY);
        for slot in self.starving.peers.clone() {
            self.check_missing(now, slot);
        }
    }

    fn check_missing(&mut self, now: Time, slot: PeerSlot) {
        let Some((missing_count, first_missing)) = self.missing_for(slot) else {
            self.missing_ended(slot);
            return self.refresh_starving(now, slot);
        };
        let peer = &mut self.peers[slot];
        let waited = now.since(*peer.missing_since.get_or_insert(now));
        self.refresh_starving(now, slot);
        let peer = &mut self.peers[slot];
        let is_given_up = self.missing.is_given_up;
        let longest = self.config.missing_deadline;
        let longest = if is_given_up { longest.min(GIVEN_UP_DEADLINE) } else { longest };
        let deadline = longest.saturating_sub(waited);
        if deadline.is_zero() {
            self.actions.push_back(Action::GiveUp { peer: slot, missing_count, is_given_up });
            self.retire(now, slot);
        } else if peer.missing_told.is_none_or(|told| now.since(told) >= TELL_EVERY) {
            peer.missing_told = Some(now);
            let told = Action::Waiting { peer: slot, missing_count, first_missing, deadline };
            self.actions.push_back(told);
        }
    }

    /// How many chunks the peer lacks that nobody holds, and the first; `None` if there is
    /// anything else that it can get.
    pub(super) fn missing_for(&self, slot: PeerSlot) -> Option<(u32, u32)> {
        let peer = &self.peers[slot];
        if !peer.deliveries.is_empty() {
            return None;
        }
        if self.manifest.is_missing() {
            let missing_count = self.chunks.count() - peer.settled.count();
            return peer.settled.iter_missing().next().map(|first| (missing_count, first));
        }
        let words = || peer.settled.words().iter().zip(self.chunks.orphan_bits.words());
        let missing = || ones(words().map(|(settled, orphan)| !settled & orphan));
        let missing_count = u32::try_from(missing().count()).expect("fewer than chunks");
        let first = missing().next()?;
        let stuck = match peer.order {
            Order::Relay => peer.settled.count() + missing_count == self.chunks.count(),
            Order::Peer => {
                let next = peer.wants.first();
                next.is_some_and(|chunk| self.chunks.orphan_bits.contains(chunk))
            }
        };
        stuck.then_some((missing_count, first))
    }
}
