//! What goes to whom: cached chunks to peers with credit, oldest first.
//!
//! A peer with credit gets what is cached and it lacks at once, so a peer with credit either
//! starves (it lacks everything cached), or lacks nothing.

use super::{
    Action, PeerSlot, Swarm,
    chunks::{PINNED, Place},
    peers::{Delivery, Peer, Stage},
};
use relay_protocol::{Order, time::Time};

/// Chunks that slower peers are being sent, of which one more is chosen: a bound on a decision's cost.
const PINNED_LOOKED_AT: usize = 32;

impl Swarm {
    /// The peer may have been assigned so many bytes in total since it joined: what it has
    /// received and its window. May also move down.
    pub fn handle_allowance(&mut self, now: Time, slot: PeerSlot, allowance_bytes: u64) {
        self.begin(now);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.allowance_bytes = allowance_bytes;
            if peer.has_credit() {
                self.note_progress(now, slot);
            }
            self.weigh(now, slot);
            self.seeding_ready(slot);
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// The peer, in peer order, wants these chunks after those it named before.
    pub fn handle_want(&mut self, now: Time, slot: PeerSlot, chunks: &[u32]) {
        self.begin(now);
        if let Some(peer) = self.peers.get_mut(slot) {
            // In relay order nothing is named, whatever the peer says.
            let named = if peer.order == Order::Peer { chunks } else { &[] };
            for &chunk in named {
                let known = chunk < self.chunks.count() && peer.lacks(chunk);
                if known && peer.wants.add(chunk, self.chunks.count()) {
                    peer.cursor = peer.cursor.min(self.chunks.sequence(chunk, &self.log));
                    let is_keen = u32::from(peer.is_keen());
                    self.chunks.change(chunk, |state| state.keen += is_keen);
                }
            }
            self.chunks.news = true;
            self.note_progress(now, slot);
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// The peer has verified the chunk: it acknowledges a delivery, or claims what it had.
    pub fn handle_have(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if chunk < self.chunks.count() && self.peers.get(slot).is_some() {
            self.note_progress(now, slot);
            let delivery = self.peers[slot].take_delivery(chunk);
            let delivered = delivery.is_some();
            if let Some(delivery) = delivery {
                self.take_back_decision(slot, delivery);
                // Who speaks of what the kernel still has to take is not fast by that.
                if delivery.stage == Stage::Written {
                    self.peers[slot].down.add(delivery.length_bytes);
                }
                self.unprotect(chunk);
                self.cut_off_unwritten(slot, delivery, true);
                self.release_unwritten(now, slot, delivery);
                self.refresh_starving(now, slot);
            }
            self.peers[slot].take_partial(chunk);
            self.set_settled(slot, chunk, true);
            self.peers[slot].wants.remove(chunk);
            let peer = &mut self.peers[slot];
            if peer.is_holder() && peer.have.insert(chunk) {
                self.chunks.change(chunk, |state| {
                    state.holders += 1;
                    state.holder_hint = slot.0;
                });
                self.refresh_idle(slot);
                self.manifest_holder_came();
                self.seeding_kept(now, slot, chunk, delivered);
                self.count_kept(slot, chunk, delivered);
                self.leaving_holder_came(chunk);
            }
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// The peer could not put a delivered chunk together: it lacks it again, from the start.
    pub fn handle_lacking(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if chunk < self.chunks.count() && self.peers.get(slot).is_some() {
            self.note_progress(now, slot);
            if let Some(delivery) = self.peers[slot].take_delivery(chunk) {
                self.take_back_decision(slot, delivery);
                self.cut_off_unwritten(slot, delivery, false);
                self.release_unwritten(now, slot, delivery);
                self.refresh_starving(now, slot);
            }
            self.peers[slot].take_partial(chunk);
            self.unclaim(slot, chunk);
            self.set_settled(slot, chunk, false);
            self.want_again(slot, chunk);
            self.seeding_returned(slot, chunk);
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// The shell looks at the decision to deliver.
    pub(super) fn decision_told(&mut self, slot: PeerSlot, chunk: u32) {
        if let Some(delivery) = self.peers.get_mut(slot).and_then(|peer| peer.delivery(chunk)) {
            delivery.stage = delivery.stage.max(Stage::Queued);
        }
    }

    /// The peer spoke of a chunk before the shell has looked at the decision to deliver it: the rest
    /// of a delivery that was taken back, though more of it had come than was known.
    fn take_back_decision(&mut self, slot: PeerSlot, delivery: Delivery) {
        if delivery.stage != Stage::Decided {
            return;
        }
        let Delivery { chunk, offset_bytes: offset, length_bytes, .. } = delivery;
        let void = Action::Deliver { chunk, peer: slot, offset };
        let before = self.actions.len();
        self.actions.retain(|action| *action != void);
        debug_assert_eq!(self.actions.len() + 1, before, "decided and not told");
        // It is never sent, so it uses up none of the peer's allowance.
        let peer = &mut self.peers[slot];
        peer.assigned_bytes = peer.assigned_bytes.saturating_sub(u64::from(length_bytes));
    }

    /// The peer spoke of a chunk of which the shell has still to send: what it holds for that would keep the
    /// chunk's memory for as long as the peer likes.
    fn cut_off_unwritten(&mut self, slot: PeerSlot, delivery: Delivery, has_it: bool) {
        if delivery.stage > Stage::Decided && delivery.stage < Stage::Written {
            let chunk = delivery.chunk;
            self.actions.push_back(Action::CutOff { chunk, peer: slot, has_it });
        }
    }

    /// The delivery that news of a send is about: not one that the shell does not know yet.
    fn told_delivery(&mut self, slot: PeerSlot, chunk: u32) -> Option<&mut Delivery> {
        let delivery = self.peers.get_mut(slot)?.delivery(chunk)?;
        (delivery.stage > Stage::Decided).then_some(delivery)
    }

    /// The kernel has taken the first frame of this delivery.
    pub fn handle_begun(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if let Some(delivery) = self.told_delivery(slot, chunk) {
            delivery.stage = delivery.stage.max(Stage::Begun);
            self.note_progress(now, slot);
            self.unprotect(chunk);
        }
        self.settle(now);
    }

    /// The kernel has taken all of this delivery: it holds the chunk no longer.
    pub fn handle_written(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if self.told_delivery(slot, chunk).is_some() {
            self.note_progress(now, slot);
            self.unprotect(chunk);
            let delivery = self.peers[slot].delivery(chunk).expect("just found");
            let before = *delivery;
            delivery.stage = Stage::Written;
            self.release_unwritten(now, slot, before);
        }
        self.settle(now);
    }

    /// Answer to [`Action::Recall`]: these deliveries were cut off, each at the offset named. Of several
    /// to one peer the newest comes first: it spoke of the chunk while an older one was on its way.
    pub fn handle_recalled(&mut self, now: Time, chunk: u32, rest: &[(PeerSlot, u32)]) {
        self.begin(now);
        for &(slot, offset_bytes) in rest {
            let kept = u64::from(self.chunk_bytes(chunk).saturating_sub(offset_bytes));
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            // Also of one that counts no longer: what will never come must not use up credit.
            peer.assigned_bytes = peer.assigned_bytes.saturating_sub(kept);
            let is_told = peer.delivery(chunk).is_some_and(|it| it.stage > Stage::Decided);
            let Some(delivery) = is_told.then(|| peer.take_delivery(chunk)).flatten() else {
                self.serve(now, slot);
                continue;
            };
            let peer = &mut self.peers[slot];
            // It has taken these, if not all.
            peer.down.add(offset_bytes.saturating_sub(delivery.offset_bytes));
            peer.remember_partial(chunk, offset_bytes);
            self.release_unwritten(now, slot, delivery);
            self.set_settled(slot, chunk, false);
            self.want_again(slot, chunk);
            self.seeding_returned(slot, chunk);
            self.refresh_starving(now, slot);
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// The rest of a delivery that the peer has spoken of, from this byte on, was still to be sent and will
    /// not be: it must not use up credit.
    pub fn handle_cut_off(&mut self, now: Time, slot: PeerSlot, chunk: u32, reached_bytes: u32) {
        self.begin(now);
        if chunk < self.chunks.count() && self.peers.get(slot).is_some() {
            let kept = u64::from(self.chunk_bytes(chunk).saturating_sub(reached_bytes));
            let peer = &mut self.peers[slot];
            peer.assigned_bytes = peer.assigned_bytes.saturating_sub(kept);
            self.serve(now, slot);
        }
        self.settle(now);
    }

    /// Gives the peer what is cached while it has credit; then it may starve.
    pub(super) fn serve(&mut self, now: Time, slot: PeerSlot) {
        if self.peers[slot].is_hungry() && !self.peers[slot].counted {
            self.set_counted(slot, true);
            self.watch_peer(now, slot);
        }
        if !self.seeding.holds_back() {
            while self.peers[slot].is_hungry()
                && let Some(chunk) = self.next_cached(slot)
            {
                self.deliver(now, slot, chunk);
            }
        }
        self.refresh_starving(now, slot);
    }

    /// The next cached chunk for the peer: one it has in part, else the oldest, or if it has fallen behind
    /// what suits those (`next_behind`). In peer order the one it wants next, else the oldest that it asked for: what
    /// is fetched for one serves all who named it, whatever else they wait for.
    fn next_cached(&mut self, slot: PeerSlot) -> Option<u32> {
        let (chunks, peer) = (&self.chunks, &mut self.peers[slot]);
        if peer.order == Order::Peer {
            let next = peer.wants.first().filter(|&chunk| chunks.is_cached(chunk));
            return next.or_else(|| {
                let found = self.log.find(peer.cursor, |chunk| peer.wants.contains(chunk));
                peer.cursor = found.map_or(self.log.end(), |(sequence, _)| sequence);
                found.map(|(_, chunk)| chunk)
            });
        }
        let mut partials = peer.partials.iter().map(|&(chunk, _)| chunk);
        if let Some(chunk) = partials.find(|&chunk| chunks.is_cached(chunk) && peer.lacks(chunk)) {
            return Some(chunk);
        }
        let found = self.log.find(peer.cursor, |chunk| peer.lacks(chunk));
        peer.cursor = found.map_or(self.log.end(), |(sequence, _)| sequence);
        let (_, oldest) = found?;
        let peer = &self.peers[slot];
        Some(if peer.keeps_pace { oldest } else { self.next_behind(peer).unwrap_or(oldest) })
    }

    /// The next chunk for a peer that can't keep up with the wave. What others like it are being sent stays
    /// anyway, so that they share it; else the one that all of them prefer (`pace`).
    fn next_behind(&self, peer: &Peer) -> Option<u32> {
        let pinned = self.chunks.cached.bucket(PINNED).iter().take(PINNED_LOOKED_AT);
        let shared = pinned.copied().find(|&chunk| peer.lacks(chunk));
        shared.or_else(|| self.log.find_preceding(|chunk| peer.lacks(chunk)))
    }

    /// Assigns a cached chunk to the peer.
    pub(super) fn deliver(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        debug_assert!(self.chunks.is_cached(chunk));
        let offset_bytes = self.peers[slot].take_partial(chunk);
        self.set_settled(slot, chunk, true);
        let length = self.chunk_bytes(chunk) - offset_bytes;
        let peer = &mut self.peers[slot];
        let stage = Stage::Decided;
        peer.deliveries.push_back(Delivery { chunk, offset_bytes, length_bytes: length, stage });
        peer.under_way_bytes += u64::from(length);
        peer.assigned_bytes += u64::from(length);
        peer.wants.remove(chunk);
        let (counted, keen) = (peer.counted, peer.is_keen());
        let fresh = self.chunks.change(chunk, |state| {
            state.unwritten += 1;
            state.needers += u32::from(counted);
            state.keen += u32::from(keen);
            state.keen_unwritten += u32::from(keen);
            state.used_at = now;
            std::mem::replace(&mut state.fresh, false)
        });
        self.counters.deliveries += 1;
        self.counters.hits += u64::from(!fresh);
        self.missing_ended(slot);
        self.refresh_starving(now, slot);
        self.actions.push_back(Action::Deliver { chunk, peer: slot, offset: offset_bytes });
    }

    /// A fetched chunk goes to everybody who starves for it, each once round.
    pub(super) fn serve_starving(&mut self, now: Time) {
        let mut round = self.starving.peers.clone();
        if !round.is_empty() {
            let turn = self.starving.turn % round.len();
            round.rotate_left(turn);
        }
        for slot in round {
            self.serve(now, slot);
        }
    }

    /// A want in peer order that was taken back comes first again.
    fn want_again(&mut self, slot: PeerSlot, chunk: u32) {
        let peer = &mut self.peers[slot];
        if peer.order == Order::Peer && peer.is_joined() {
            let is_news = peer.wants.add_first(chunk, self.chunks.count());
            peer.cursor = peer.cursor.min(self.chunks.sequence(chunk, &self.log));
            let is_keen = u32::from(is_news && peer.is_keen());
            self.chunks.change(chunk, |state| state.keen += is_keen);
        }
    }

    /// The peer has the chunk no longer.
    pub(super) fn unclaim(&mut self, slot: PeerSlot, chunk: u32) {
        if self.peers[slot].have.remove(chunk) {
            self.chunks.change(chunk, |state| state.holders -= 1);
            self.copy_lost(chunk);
            self.refresh_idle(slot);
        }
    }

    fn unprotect(&mut self, chunk: u32) {
        self.chunks.change(chunk, |state| state.protected = false);
    }

    /// The last delivery of an evicted chunk may have ended.
    pub(super) fn memory_returned(&mut self, now: Time, chunk: u32) {
        let state = self.chunks.get(chunk);
        if state.place == Place::Draining && state.unwritten == 0 {
            self.chunks.change(chunk, |state| {
                state.place = Place::Absent;
                state.recalled = false;
            });
            self.room_returned(now);
            self.seeding_absent(chunk);
        }
    }
}
