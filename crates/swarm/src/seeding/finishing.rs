//! The end of a spread: peers exchange what they have, and the origin waits until they hold all of the file.
//!
//! Until then it is asked for nothing that others hold, too. A chunk has a copy if a peer acknowledged a delivery of it, or
//! if a peer holds it that has supplied something right: a bare claim may be a lie. When its last holder but the
//! origin goes, or turns out not to have it, it has none.

use relay_protocol::time::Time;

use super::Phase;
use crate::{Action, PeerSlot, Swarm, peers::Peer};

impl Swarm {
    /// The exchange begins.
    pub(super) fn open(&mut self, now: Time) {
        let (origin, was_spread) = match self.seeding.phase {
            Phase::Waiting { origin, .. } => (Some(origin), false),
            Phase::Spreading { origin, .. } => (Some(origin), true),
            Phase::Open | Phase::Finishing { .. } => (None, false),
        };
        let origin = origin.filter(|&origin| self.peers.get(origin).is_some_and(Peer::is_holder));
        self.seeding.phase = origin.map_or(Phase::Open, |origin| Phase::Finishing { origin });
        self.seeding.parts.clear();
        self.seeding.ready.clear();
        self.seeding.owners = Vec::new();
        self.chunks.news = true;
        let slots: Vec<PeerSlot> = self.peers.iter().map(|(slot, _)| slot).collect();
        if let Some(origin) = origin {
            self.peers[origin].may_go |= was_spread;
            for chunk in 0..self.chunks.count() {
                self.forget_lost_copy(origin, chunk);
            }
            slots.iter().for_each(|&slot| self.count_copies(slot));
            self.let_origin_go();
        }
        for slot in slots {
            self.serve(now, slot);
        }
    }

    /// A peer has a chunk now, by a delivery or by its own word.
    pub(super) fn count_copy(&mut self, slot: PeerSlot, chunk: u32, delivered: bool) {
        if let Phase::Finishing { origin } = self.seeding.phase
            && origin != slot
            && (delivered || self.peers[slot].is_proven)
        {
            self.seeding.acknowledged.insert(chunk);
            self.let_origin_go();
        }
    }

    /// The peer has supplied something right: what it holds are copies.
    pub(crate) fn count_copies(&mut self, slot: PeerSlot) {
        let peer = &self.peers[slot];
        if let Phase::Finishing { origin } = self.seeding.phase
            && origin != slot
            && peer.is_proven
            && peer.is_holder()
        {
            for chunk in peer.have.iter() {
                self.seeding.acknowledged.insert(chunk);
            }
            self.let_origin_go();
        }
    }

    /// A holder of this chunk is one no more.
    pub(crate) fn copy_lost(&mut self, chunk: u32) {
        if let Phase::Finishing { origin } = self.seeding.phase {
            self.forget_lost_copy(origin, chunk);
        }
    }

    /// The chunk has no copy if no holder is left but the origin.
    fn forget_lost_copy(&mut self, origin: PeerSlot, chunk: u32) {
        let is_at_origin = self.peers.get(origin).is_some_and(|origin| origin.have.contains(chunk));
        if self.chunks.get(chunk).holders <= u32::from(is_at_origin) {
            self.seeding.acknowledged.remove(chunk);
        }
    }

    /// Tells the origin that it may go, once there is a copy of each chunk.
    fn let_origin_go(&mut self) {
        if let Phase::Finishing { origin } = self.seeding.phase
            && self.seeding.acknowledged.is_full()
        {
            self.seeding.phase = Phase::Open;
            self.peers[origin].may_go = true;
            self.actions.push_back(Action::SeedingDone { origin });
        }
    }
}
