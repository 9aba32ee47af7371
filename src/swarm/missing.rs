//! Peers that wait for chunks which nobody connected holds: they are told, and not for ever.

use std::time::Duration;

use super::{Action, PeerSlot, Swarm, holders::ones};
use crate::{protocol::Order, time::Time};

/// How soon starving peers are looked at when chunks are missing: a holder may just be joining.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// How often one peer is told, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When to look next.
#[derive(Debug, Default)]
pub(super) struct MissingState {
    check_at: Option<Time>,
}

impl Swarm {
    /// Something came for the peer: it no longer waits in vain.
    pub(super) fn missing_ended(&mut self, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        (peer.missing_since, peer.missing_told) = (None, None);
    }

    pub(super) fn missing_timeout(&self) -> Option<Time> {
        self.missing.check_at
    }

    pub(super) fn missing_step(&mut self, now: Time) {
        let missing = self.chunks.orphan_count > 0 || self.manifest.is_missing();
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
            return self.missing_ended(slot);
        };
        let peer = &mut self.peers[slot];
        let waited = now.since(*peer.missing_since.get_or_insert(now));
        let deadline = self.config.missing_deadline.saturating_sub(waited);
        if deadline.is_zero() {
            self.actions.push_back(Action::GiveUp { peer: slot, missing_count });
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
