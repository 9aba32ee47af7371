//! What each input changes, before all is settled: one function for each thing that the shell may say.

use relay_protocol::{Order, time::Time};

use crate::{
    Swarm,
    api::{Action, FetchFailure, FetchId, Join, Limits, PeerSlot},
    book::intake::{Delivery, Stage},
    decide::{
        deliver::{cut_short, serve},
        pace,
    },
};

/// Peers that come and go.
impl Swarm {
    /// A peer joins; the slot names it from now on.
    ///
    /// # Panics
    /// If the claims range over another number of chunks than the file has.
    pub fn handle_join(&mut self, now: Time, join: Join) -> PeerSlot {
        assert_eq!(join.claims.len(), self.desk.book.chunks().count(), "claims of another file");
        self.begin(now);
        let slot = self.desk.book.join(now, join);
        self.manifest.holder_came();
        self.uplinks.joined(&mut self.desk.book, slot);
        self.seed.joined(&mut self.desk, slot);
        self.settle();
        slot
    }

    /// The peer has finished and would like to go.
    pub fn handle_leaving(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.desk.book.find(slot).is_some_and(|peer| peer.is_joined()) {
            self.desk.book.leave(now, slot);
            self.leave.asked(now, slot);
            self.seed.lost(&mut self.desk, slot);
        }
        self.settle();
    }

    /// The peer's file is no longer what it was: nothing more is asked of it.
    pub fn handle_gave_up(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.desk.book.find(slot).is_some() {
            self.missing.refused(&self.desk.book, slot);
            self.retire(slot);
        }
        self.settle();
    }

    /// The peer's connection has ended, for whatever reason.
    pub fn handle_gone(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.desk.book.find(slot).is_some() {
            self.retire(slot);
            while let Some(delivery) = self.desk.book.take_any_delivery(slot) {
                self.release(delivery, slot);
            }
            self.desk.book.remove(slot);
            self.manifest.gone(slot);
            self.leave.recheck();
        }
        self.settle();
    }

    /// The peer lied: it is cut off, no other is.
    fn ban(&mut self, slot: PeerSlot) {
        if self.desk.book.find(slot).is_some_and(|peer| peer.is_holder()) {
            self.desk.book.count_ban();
            self.desk.actions.push(Action::Ban { peer: slot });
            self.retire(slot);
        }
    }
}

/// Chunks on their way to peers.
impl Swarm {
    /// The peer may have been assigned so many bytes in total since it joined: what it has
    /// received and its window. May also move down.
    pub fn handle_allowance(&mut self, now: Time, slot: PeerSlot, allowance_bytes: u64) {
        self.begin(now);
        if self.desk.book.find(slot).is_some() {
            self.desk.book.set_allowance(slot, allowance_bytes);
            if self.desk.book.peer(slot).intake.has_credit() {
                self.desk.book.note_progress(now, slot);
            }
            pace::weigh(&mut self.desk.book, now, slot);
            self.seed.ready(&mut self.desk.book, slot);
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// The peer, in peer order, wants these chunks after those it named before.
    pub fn handle_want(&mut self, now: Time, slot: PeerSlot, chunks: &[u32]) {
        self.begin(now);
        if let Some(peer) = self.desk.book.find(slot) {
            // In relay order nothing is named, whatever the peer says.
            let named = if peer.terms.order == Order::Peer { chunks } else { &[] };
            for &chunk in named {
                self.desk.book.want(slot, chunk);
            }
            self.desk.book.note_news();
            self.desk.book.note_progress(now, slot);
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// The peer has verified the chunk: it acknowledges a delivery, or claims what it had.
    pub fn handle_have(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if chunk < self.desk.book.chunks().count() && self.desk.book.find(slot).is_some() {
            self.desk.book.note_progress(now, slot);
            let delivery = self.desk.book.take_delivery(slot, chunk);
            if let Some(delivery) = delivery {
                // A peer that speaks of what the kernel still has to take is not fast by that.
                if delivery.stage == Stage::Written {
                    self.desk.book.received(slot, delivery);
                }
                self.desk.book.unprotect(chunk);
                cut_short(&mut self.desk, slot, delivery, true);
                self.release(delivery, slot);
                self.desk.book.refresh_starving(now, slot);
            }
            let delivered = delivery.is_some();
            if self.desk.book.has(slot, chunk, delivered) {
                self.manifest.holder_came();
                self.seed.kept(&mut self.desk, (slot, chunk), delivered);
                self.leave.holder_came(chunk);
            }
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// The peer could not put a delivered chunk together: it lacks it again, from the start.
    pub fn handle_lacking(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if chunk < self.desk.book.chunks().count() && self.desk.book.find(slot).is_some() {
            self.desk.book.note_progress(now, slot);
            if let Some(delivery) = self.desk.book.take_delivery(slot, chunk) {
                cut_short(&mut self.desk, slot, delivery, false);
                self.release(delivery, slot);
                self.desk.book.refresh_starving(now, slot);
            }
            self.desk.book.forget_partial(slot, chunk);
            self.unclaim(slot, chunk);
            self.desk.book.lacks_again(slot, chunk);
            self.seed.returned(&mut self.desk.book, slot, chunk);
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// An end of an uplink can no longer supply the chunk, and does not want it.
    pub fn handle_lost(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        let is_uplink = self.desk.book.find(slot).is_some_and(|peer| peer.terms.is_uplink);
        if chunk < self.desk.book.chunks().count() && is_uplink {
            self.desk.book.forget_want(slot, chunk);
            self.unclaim(slot, chunk);
            self.desk.book.refresh_starving(now, slot);
            self.leave.recheck();
        }
        self.settle();
    }

    /// The kernel has taken the first frame of this delivery.
    pub fn handle_begun(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        self.desk.book.begun(now, slot, chunk);
        self.settle();
    }

    /// The kernel has taken all of this delivery: it holds the chunk no longer.
    pub fn handle_written(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.begin(now);
        if let Some(before) = self.desk.book.written(now, slot, chunk) {
            self.release(before, slot);
        }
        self.settle();
    }

    /// Answer to [`Action::Recall`]: these deliveries were cut off, each at the offset named. Of several
    /// to one peer the newest comes first: it spoke of the chunk while an older one was on its way.
    pub fn handle_recalled(&mut self, now: Time, chunk: u32, rest: &[(PeerSlot, u32)]) {
        self.begin(now);
        for &(slot, offset_bytes) in rest {
            if self.desk.book.find(slot).is_none() {
                continue;
            }
            let kept = self.desk.book.chunk_bytes(chunk).saturating_sub(offset_bytes);
            // Also of one that counts no longer: what will never come must not use up credit.
            self.desk.book.unassign(slot, u64::from(kept));
            if let Some(delivery) = self.desk.book.take_told_delivery(slot, chunk) {
                self.desk.book.cut_off_at(slot, delivery, offset_bytes);
                self.release(delivery, slot);
                self.desk.book.lacks_again(slot, chunk);
                self.seed.returned(&mut self.desk.book, slot, chunk);
                self.desk.book.refresh_starving(now, slot);
            }
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// The rest of a delivery that the peer has spoken of, from this byte on, was still to be sent and will
    /// not be: it must not use up credit.
    pub fn handle_cut_off(&mut self, now: Time, slot: PeerSlot, chunk: u32, reached_bytes: u32) {
        self.begin(now);
        if chunk < self.desk.book.chunks().count() && self.desk.book.find(slot).is_some() {
            let kept = self.desk.book.chunk_bytes(chunk).saturating_sub(reached_bytes);
            self.desk.book.unassign(slot, u64::from(kept));
            serve(&mut self.desk, slot);
        }
        self.settle();
    }

    /// A delivery pins its chunk no longer.
    fn release(&mut self, delivery: Delivery, slot: PeerSlot) {
        if delivery.stage < Stage::Written {
            let is_drained = self.desk.book.release_unwritten(slot, delivery);
            self.seed.released(&mut self.desk, delivery, is_drained);
        }
    }

    /// The peer has the chunk no longer.
    fn unclaim(&mut self, slot: PeerSlot, chunk: u32) {
        if self.desk.book.unclaim(slot, chunk) {
            self.seed.copy_lost(&self.desk.book, chunk);
        }
    }
}

/// What holders supply, and room for it.
impl Swarm {
    /// What became of the manifest that this peer was asked for; unasked good news is welcome.
    pub fn handle_manifest(&mut self, now: Time, slot: PeerSlot, result: Result<(), FetchFailure>) {
        self.begin(now);
        match result {
            Ok(()) => {
                self.manifest.came(&mut self.desk.book, now, slot);
                if self.desk.book.find(slot).is_some_and(|peer| peer.is_holder()) {
                    self.prove(slot);
                }
            }
            Err(failure) => {
                self.manifest.refused(&self.desk.book, slot);
                if failure == FetchFailure::Lied {
                    self.ban(slot);
                }
            }
        }
        self.settle();
    }

    /// The fetch's bytes are verified and cached. Its rival, if any, is cancelled.
    pub fn handle_fetched(&mut self, now: Time, fetch_id: FetchId) {
        self.begin(now);
        let (mut fetching, _) = self.fetching();
        let Some(fetch) = fetching.end(fetch_id) else { return self.settle() };
        fetching.answered(&fetch);
        self.prove(fetch.holder);
        self.fetching().0.cache(&fetch);
        self.settle();
        if self.desk.book.fetches().overdue() > 0 {
            let (mut fetching, room) = self.fetching();
            fetching.take_over(fetch.holder, room);
            self.settle();
        }
    }

    /// The fetch brought nothing; the shell has given its lease back.
    pub fn handle_fetch_failed(&mut self, now: Time, fetch_id: FetchId, failure: FetchFailure) {
        self.begin(now);
        let (mut fetching, _) = self.fetching();
        if let Some(fetch) = fetching.end(fetch_id) {
            fetching.release_chunk(&fetch);
            match failure {
                FetchFailure::Refused => {
                    self.unclaim(fetch.holder, fetch.chunk);
                    self.missing.refused(&self.desk.book, fetch.holder);
                }
                FetchFailure::Lied => self.ban(fetch.holder),
                FetchFailure::Damaged => self.desk.book.note_damage(fetch.holder),
            }
            self.leave.recheck();
        }
        self.settle();
    }

    /// The room asked for is leased.
    pub fn handle_room(&mut self, now: Time) {
        self.begin(now);
        self.room.came(&mut self.desk.book);
        self.settle();
    }

    /// The answer to [`Action::TryRoom`]: one chunk's bytes are leased, or there is no room. In that case one
    /// chunk that no peer lacks may go for it.
    pub fn handle_room_tried(&mut self, now: Time, is_there: bool) {
        self.begin(now);
        if let Some(is_first) = self.room.take_trial() {
            if is_there {
                self.desk.book.add_room();
            } else {
                let Self { desk, seed, late, room, .. } = self;
                let may_retry = is_first && late.has_waiting();
                if !may_retry || !room.try_again(desk, seed) {
                    self.fetching().0.replace_late();
                }
            }
        }
        self.settle();
    }

    /// Another swarm waits for room and this one is above its share: gives up so many chunks,
    /// patience or not.
    pub fn handle_pressure(&mut self, now: Time, chunks: u32) {
        self.begin(now);
        self.room.press(&mut self.desk, &mut self.seed, chunks);
        self.settle();
    }

    /// The shell's own limits of rates are these from now on; whether they are others than before.
    pub fn handle_limits(&mut self, now: Time, limits: Limits) -> bool {
        let are_others = *self.desk.book.limits() != limits;
        if are_others {
            self.begin(now);
            self.desk.book.set_limits(limits);
            self.settle();
        }
        are_others
    }

    /// Whether something is on its way to a peer, or waits to be.
    #[must_use]
    pub fn is_delivering(&self) -> bool {
        self.desk.book.peers().iter().any(|(_, peer)| !peer.intake.deliveries.is_empty())
    }

    /// Time has passed: does whatever is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        self.desk.book.watch_peers(now);
        self.fetching().0.check_late();
        self.settle();
    }

    /// The peer has supplied something that is right.
    fn prove(&mut self, slot: PeerSlot) {
        if self.desk.book.prove(slot) {
            self.seed.count_copies(&mut self.desk, slot);
        }
    }
}
