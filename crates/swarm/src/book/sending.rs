//! What happens to chunks on their way to peers: they are wanted, sent, written, acknowledged, taken back.

use relay_protocol::{Order, time::Time};

use super::{
    Book,
    chunks::Place,
    intake::{Delivery, Stage},
};
use crate::api::PeerSlot;

impl Book {
    /// The peer may have been assigned so many bytes in total.
    #[inline]
    pub(crate) fn set_allowance(&mut self, slot: PeerSlot, allowance_bytes: u64) {
        self.peers[slot].intake.allowance_bytes = allowance_bytes;
    }

    /// The peer, in peer order, wants this chunk after those that it named before.
    pub(crate) fn want(&mut self, slot: PeerSlot, chunk: u32) {
        if chunk < self.chunks.count() && self.needs_if_named(slot, chunk) {
            self.set_settled(slot, chunk, false);
        }
        let peer = &mut self.peers[slot];
        let known = chunk < self.chunks.count() && peer.lacks(chunk);
        if known && peer.wants.add(chunk, self.chunks.count()) {
            peer.cursor = peer.cursor.min(self.chunks.sequence(chunk, &self.log));
            let is_keen = u32::from(peer.is_keen());
            self.chunks.change(chunk, |state| state.keen += is_keen);
        }
    }

    /// Whether the peer is an end of an uplink that could name one more chunk, and this one neither has it nor is
    /// being sent it.
    fn needs_if_named(&mut self, slot: PeerSlot, chunk: u32) -> bool {
        let peer = &mut self.peers[slot];
        peer.terms.is_uplink
            && peer.is_joined()
            && !peer.wants.is_full()
            && !peer.have.contains(chunk)
            && peer.intake.delivery(chunk).is_none()
    }

    /// An end of an uplink wants this chunk no longer, if it had named it.
    pub(crate) fn forget_want(&mut self, slot: PeerSlot, chunk: u32) {
        if self.peers[slot].wants.contains(chunk) {
            self.set_settled(slot, chunk, true);
            self.peers[slot].wants.remove(chunk);
        }
    }

    /// A want in peer order that was taken back comes first again.
    pub(crate) fn want_again(&mut self, slot: PeerSlot, chunk: u32) {
        let peer = &mut self.peers[slot];
        if peer.terms.order == Order::Peer && peer.is_joined() {
            let is_news = peer.wants.add_first(chunk, self.chunks.count());
            peer.cursor = peer.cursor.min(self.chunks.sequence(chunk, &self.log));
            let is_keen = u32::from(is_news && peer.is_keen());
            self.chunks.change(chunk, |state| state.keen += is_keen);
        }
    }

    /// The oldest cached chunk that the peer would be sent. Moves its cursor there: it walks over the log once.
    #[inline]
    pub(crate) fn walk_log(&mut self, slot: PeerSlot) -> Option<u32> {
        let peer = &mut self.peers[slot];
        let found = match peer.terms.order {
            Order::Relay => self.log.find(peer.cursor, |chunk| peer.lacks(chunk)),
            Order::Peer => self.log.find(peer.cursor, |chunk| peer.wants.contains(chunk)),
        };
        peer.cursor = found.map_or(self.log.end(), |(sequence, _)| sequence);
        found.map(|(_, chunk)| chunk)
    }

    /// A cached chunk is assigned to the peer; from which byte on.
    pub(crate) fn send(&mut self, now: Time, slot: PeerSlot, chunk: u32) -> u32 {
        debug_assert!(self.chunks.is_cached(chunk));
        let offset_bytes = self.peers[slot].intake.take_partial(chunk);
        self.set_settled(slot, chunk, true);
        let length_bytes = self.chunk_bytes(chunk) - offset_bytes;
        let peer = &mut self.peers[slot];
        peer.intake.assign(chunk, offset_bytes, length_bytes);
        peer.wants.remove(chunk);
        peer.missing = None;
        let (counted, keen) = (peer.is_counted(), peer.is_keen());
        let is_fresh = self.chunks.change(chunk, |state| {
            state.unwritten += 1;
            state.needers += u32::from(counted);
            state.keen += u32::from(keen);
            state.keen_unwritten += u32::from(keen);
            state.cached_mut().is_some_and(|cached| {
                cached.used_at = now;
                std::mem::replace(&mut cached.is_fresh, false)
            })
        });
        self.tally.counters.deliveries += 1;
        self.tally.counters.hits += u64::from(!is_fresh);
        self.refresh_starving(now, slot);
        offset_bytes
    }

    /// The shell looks at the decision to deliver.
    #[inline]
    pub(crate) fn note_told(&mut self, slot: PeerSlot, chunk: u32) {
        let peer = self.peers.get_mut(slot);
        if let Some(delivery) = peer.and_then(|peer| peer.intake.delivery(chunk)) {
            delivery.stage = delivery.stage.max(Stage::Queued);
        }
    }

    /// The delivery that news of a send is about: not one that the shell does not know yet.
    fn told_delivery(&mut self, slot: PeerSlot, chunk: u32) -> Option<&mut Delivery> {
        let delivery = self.peers.get_mut(slot)?.intake.delivery(chunk)?;
        (delivery.stage > Stage::Decided).then_some(delivery)
    }

    /// The kernel has taken the first frame of this delivery.
    pub(crate) fn begun(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        if let Some(delivery) = self.told_delivery(slot, chunk) {
            delivery.stage = delivery.stage.max(Stage::Begun);
            self.note_progress(now, slot);
            self.unprotect(chunk);
        }
    }

    /// The kernel has taken all of this delivery; how it stood before, if the shell knows of it.
    pub(crate) fn written(&mut self, now: Time, slot: PeerSlot, chunk: u32) -> Option<Delivery> {
        self.told_delivery(slot, chunk)?;
        self.note_progress(now, slot);
        self.unprotect(chunk);
        let delivery = self.peers[slot].intake.delivery(chunk).expect("just found");
        let before = *delivery;
        delivery.stage = Stage::Written;
        Some(before)
    }

    /// The peer has spoken of the chunk: the delivery under way counts no longer.
    #[inline]
    pub(crate) fn take_delivery(&mut self, slot: PeerSlot, chunk: u32) -> Option<Delivery> {
        self.peers[slot].intake.take_delivery(chunk)
    }

    /// The shell has taken it back, if it knew of it.
    pub(crate) fn take_told_delivery(&mut self, slot: PeerSlot, chunk: u32) -> Option<Delivery> {
        self.told_delivery(slot, chunk)?;
        self.take_delivery(slot, chunk)
    }

    /// Any of its deliveries, if there is one: the peer has gone.
    pub(crate) fn take_any_delivery(&mut self, slot: PeerSlot) -> Option<Delivery> {
        self.peers[slot].intake.deliveries.pop_front()
    }

    /// All of this delivery has come.
    #[inline]
    pub(crate) fn received(&mut self, slot: PeerSlot, delivery: Delivery) {
        self.peers[slot].intake.down.add(delivery.length_bytes);
    }

    /// What came since the last time counts from now on; whether there was something.
    #[inline]
    pub(crate) fn fold_received(&mut self, now: Time, slot: PeerSlot, piece_bytes: f64) -> bool {
        self.peers[slot].intake.down.fold(now, piece_bytes)
    }

    /// The delivery was cut off at this byte.
    pub(crate) fn cut_off_at(&mut self, slot: PeerSlot, delivery: Delivery, offset_bytes: u32) {
        let intake = &mut self.peers[slot].intake;
        // It has taken these, if not all.
        intake.down.add(offset_bytes.saturating_sub(delivery.offset_bytes));
        intake.remember_partial(delivery.chunk, offset_bytes);
    }

    /// So many bytes that were assigned never come: they use up none of the peer's allowance.
    pub(crate) fn unassign(&mut self, slot: PeerSlot, bytes: u64) {
        self.peers[slot].intake.unassign(bytes);
    }

    /// A delivery's memory is no longer needed: written, given up or gone. Whether its chunk, which was evicted
    /// before, is out of memory now.
    pub(crate) fn release_unwritten(&mut self, slot: PeerSlot, delivery: Delivery) -> bool {
        debug_assert!(delivery.stage < Stage::Written);
        let (counted, keen) = (self.peers[slot].is_counted(), self.peers[slot].is_keen());
        self.chunks.change(delivery.chunk, |state| {
            state.unwritten -= 1;
            state.needers -= u32::from(counted);
            state.keen -= u32::from(keen);
            state.keen_unwritten -= u32::from(keen);
            state.unprotect_unless_unwritten();
        });
        let state = self.chunks.get(delivery.chunk);
        let is_drained = state.is_draining() && state.unwritten == 0;
        if is_drained {
            self.chunks.change(delivery.chunk, |state| state.place = Place::Absent);
            self.memory.has_returned = true;
        }
        is_drained
    }

    /// Sets or clears that the peer needs no delivery of the chunk.
    fn set_settled(&mut self, slot: PeerSlot, chunk: u32, settled: bool) {
        let peer = &mut self.peers[slot];
        let changed = if settled { peer.settled.insert(chunk) } else { peer.settled.remove(chunk) };
        if changed && peer.is_counted() {
            let step = |count: &mut u32| *count = if settled { *count - 1 } else { *count + 1 };
            let is_keen = peer.keeps_pace() && peer.asks_for(chunk);
            self.chunks.change(chunk, |state| {
                step(&mut state.wanted);
                step(&mut state.needers);
                if is_keen {
                    step(&mut state.keen);
                }
            });
        }
        if changed
            && !settled
            && let Some(cached) = self.chunks.get(chunk).cached()
        {
            peer.cursor = peer.cursor.min(cached.sequence);
        }
    }

    /// The peer lacks the chunk again: it did not come, or the peer has lost it.
    pub(crate) fn lacks_again(&mut self, slot: PeerSlot, chunk: u32) {
        self.set_settled(slot, chunk, false);
        self.want_again(slot, chunk);
    }

    /// What the peer has of a chunk in part means nothing any more.
    pub(crate) fn forget_partial(&mut self, slot: PeerSlot, chunk: u32) {
        self.peers[slot].intake.take_partial(chunk);
    }

    /// The peer has verified the chunk, which was delivered to it or not; whether it holds one more by that.
    pub(crate) fn has(&mut self, slot: PeerSlot, chunk: u32, delivered: bool) -> bool {
        self.forget_partial(slot, chunk);
        self.set_settled(slot, chunk, true);
        let peer = &mut self.peers[slot];
        peer.wants.remove(chunk);
        let is_news = peer.is_holder() && peer.have.insert(chunk);
        if is_news {
            self.add_holder(slot, chunk);
            self.refresh_idle(slot);
            self.count_kept(slot, chunk, delivered);
        }
        is_news
    }

    /// A peer has one chunk more, for the first time: counts what a publisher asks about.
    fn count_kept(&mut self, slot: PeerSlot, chunk: u32, delivered: bool) {
        let published = &mut self.tally.published;
        if delivered && !self.chunks.get(chunk).is_handed_out {
            self.chunks.change(chunk, |state| state.is_handed_out = true);
            published.chunks_handed_out += 1;
        }
        let peer = &self.peers[slot];
        published.copies += u32::from(!peer.terms.is_uplink && peer.have.is_full());
    }

    /// A delivery of the chunk has begun.
    #[inline]
    pub(crate) fn unprotect(&mut self, chunk: u32) {
        self.chunks.unprotect(chunk);
    }
}
