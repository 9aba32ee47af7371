//! Peers that would like to go: what only they hold is fetched first.
//!
//! A leaving peer holds and wants no more. It is granted to leave when no chunk is held by it
//! alone while some other peer stays that lacks it, or when its deadline has passed.

use super::{
    Action, PeerSlot, Swarm,
    chunks::Place,
    fetching::Need,
    holders::{Pick, ones},
    peers::Standing,
};
use relay_protocol::time::Time;

/// Leaving peers that one choice of a fetch looks at.
const LEAVING_PER_SCAN: usize = 4;

/// Who would like to go.
#[derive(Debug, Default)]
pub(super) struct LeavingState {
    /// In the order in which they asked: the first goes first.
    peers: Vec<PeerSlot>,
    /// Somebody's grant may have become possible.
    recheck: bool,
    turn: usize,
}

impl Swarm {
    /// The peer has finished and would like to go.
    pub fn handle_leaving(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.peers.get(slot).is_some_and(super::peers::Peer::is_joined) {
            self.set_counted(slot, false);
            self.peers[slot].standing = Standing::Leaving { since: now, witness: None };
            self.refresh_starving(now, slot);
            self.leaving.peers.push(slot);
            self.leaving.recheck = true;
            self.seeding_lost(now, slot);
        }
        self.settle(now);
    }

    /// The peer leaves the list: it has gone or is granted to.
    pub(super) fn leaving_ended(&mut self, slot: PeerSlot) {
        if matches!(self.peers[slot].standing, Standing::Leaving { .. }) {
            self.leaving.peers.retain(|&other| other != slot);
        }
    }

    pub(super) fn leaving_recheck(&mut self) {
        self.leaving.recheck = true;
    }

    /// A chunk has one more holder: whoever was kept for it may go.
    pub(super) fn leaving_holder_came(&mut self, chunk: u32) {
        let kept = |slot: &PeerSlot| {
            let standing = self.peers[*slot].standing;
            matches!(standing, Standing::Leaving { witness, .. } if witness == Some(chunk))
        };
        self.leaving.recheck |= self.leaving.peers.iter().any(kept);
    }

    pub(super) fn leaving_timeout(&self) -> Option<Time> {
        let deadline = |slot: &PeerSlot| match self.peers[*slot].standing {
            Standing::Leaving { since, .. } => Some(since + self.config.leaving_deadline),
            _ => None,
        };
        self.leaving.peers.first().and_then(deadline)
    }

    pub(super) fn leaving_step(&mut self, now: Time) {
        let due = self.leaving_timeout().is_some_and(|at| at <= now);
        if self.leaving.peers.is_empty() || !(due || self.leaving.recheck) {
            return;
        }
        self.leaving.recheck = false;
        let dependants =
            self.peers.iter().any(|(_, peer)| peer.is_joined() && !peer.settled.is_full());
        for slot in self.leaving.peers.clone() {
            let Standing::Leaving { since, .. } = self.peers[slot].standing else { continue };
            let patient = now.since(since) < self.config.leaving_deadline;
            let witness = self.only_held_by(slot).next().filter(|_| dependants && patient);
            if witness.is_some() {
                self.peers[slot].standing = Standing::Leaving { since, witness };
            } else {
                self.actions.push_back(Action::LeaveGranted { peer: slot });
                self.retire(now, slot);
            }
        }
    }

    /// A chunk that only a leaving peer holds.
    pub(super) fn pick_leaving(&mut self) -> Option<Pick> {
        let count = self.leaving.peers.len();
        for _ in 0..count.min(LEAVING_PER_SCAN) {
            self.leaving.turn = (self.leaving.turn + 1) % count;
            let holder = self.leaving.peers[self.leaving.turn];
            if !self.may_ask(&self.peers[holder]) {
                continue;
            }
            let absent = |chunk: &u32| self.chunks.get(*chunk).place == Place::Absent;
            if let Some(chunk) = self.only_held_by(holder).find(absent) {
                return Some(Pick { chunk, holder, need: Need::Leaving });
            }
        }
        None
    }

    fn only_held_by(&self, slot: PeerSlot) -> impl Iterator<Item = u32> {
        let words = self.peers[slot].have.words().iter().zip(self.chunks.sole_bits.words());
        ones(words.map(|(have, sole)| have & sole))
    }
}
