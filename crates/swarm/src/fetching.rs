//! What is asked of whom: single-flight fetches, and how many at once.
//!
//! At most one fetch per chunk, two while hedged (`hedging` says when). A fetch uses up one chunk's
//! room; when it ends without bytes the shell gives the lease back.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    Action, FetchFailure, FetchId, PeerSlot, Swarm, chunks::Place, holders::Pick, meter::Latencies,
};
use relay_protocol::time::Time;

/// Why a chunk is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Some peer with credit lacks everything that is cached.
    Starving,
    /// Memory lies idle, and some peer will want it.
    Ahead,
    /// It is part of what this peer gets while the file is spread.
    Seeding(PeerSlot),
    /// Its only holder would like to go.
    Leaving,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) chunk: u32,
    pub(super) holder: PeerSlot,
    pub(super) started_at: Time,
    /// What its age has added to its holder's silence.
    pub(super) charged: Duration,
    /// It does not move to somebody unproven before this age.
    pub(super) turn: Duration,
    /// Its holder had supplied nothing yet.
    pub(super) on_trial: bool,
    pub(super) need: Need,
    /// Fetches at its holder when it was asked for, with it.
    pub(super) queued: u32,
    /// The other fetch of the same chunk, while hedged.
    pub(super) rival: Option<FetchId>,
    /// It ran into its time-out and goes on.
    pub(super) overdue: bool,
}

/// Fetches in the order in which they may be hedged.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    next_id: u32,
    pub(super) due: VecDeque<(Time, FetchId)>,
    /// Those of them that are late and wait for a word whether there is room to ask somebody else.
    pub(super) hedges: BTreeSet<FetchId>,
    pub(super) latencies: Latencies,
    /// Fetches that are overdue.
    pub(super) overdue: u32,
    /// Fetches of holders that had supplied nothing yet.
    pub(super) on_trial: u32,
    /// Nothing could be fetched when last tried, and nothing has changed since.
    pub(super) nothing: bool,
}

impl Swarm {
    /// The fetch's bytes are verified and cached. Its rival, if any, is cancelled.
    pub fn handle_fetched(&mut self, now: Time, fetch_id: FetchId) {
        self.begin(now);
        let fetch = self.end_fetch(now, fetch_id);
        if let Some(fetch) = fetch {
            if let Some(rival) = fetch.rival
                && let Some(rival) = self.cancel_fetch(now, rival, false)
            {
                // It came from elsewhere: nobody waited for this one in vain.
                let holder = &mut self.peers[rival.holder];
                holder.unanswered = holder.unanswered.saturating_sub(rival.charged);
            }
            let bytes = self.chunk_bytes(fetch.chunk);
            self.fetch_queue.latencies.sample(now.since(fetch.started_at));
            let holder = &mut self.peers[fetch.holder];
            holder.up.add(bytes);
            holder.up.fold(now, f64::from(self.config.chunk_size_bytes));
            let chunk_size_bytes = self.config.chunk_size_bytes;
            holder.depth.handle_answered(now, fetch.started_at, bytes, chunk_size_bytes);
            holder.slow = false;
            holder.unanswered = Duration::ZERO;
            holder.counted_until = now;
            holder.progress_at = now;
            self.prove(fetch.holder);
            self.cache(now, fetch);
        }
        self.settle(now);
        if let Some(Fetch { holder, .. }) = fetch
            && self.fetch_queue.overdue > 0
        {
            self.take_over(now, holder);
            self.settle(now);
        }
    }

    /// The fetch brought nothing; the shell has given its lease back.
    pub fn handle_fetch_failed(&mut self, now: Time, fetch_id: FetchId, failure: FetchFailure) {
        self.begin(now);
        if let Some(fetch) = self.end_fetch(now, fetch_id) {
            self.release_chunk(&fetch);
            match failure {
                FetchFailure::Refused => {
                    self.unclaim(fetch.holder, fetch.chunk);
                    self.publisher_refused(fetch.holder);
                }
                FetchFailure::Lied => self.ban(now, fetch.holder),
                FetchFailure::Damaged => self.peers[fetch.holder].slow = true,
            }
            self.leaving_recheck();
        }
        self.settle(now);
    }

    /// Puts fetched bytes into the cache and serves who waits for them.
    fn cache(&mut self, now: Time, fetch: Fetch) {
        let sequence = self.log.push(fetch.chunk);
        self.chunks.change(fetch.chunk, |state| {
            state.place = Place::Cached;
            state.sequence = sequence;
            state.used_at = now;
            state.fresh = true;
            state.protected = fetch.need == Need::Starving;
        });
        if let Need::Seeding(slot) = fetch.need {
            self.seeding_fetched(now, slot, fetch.chunk);
        }
        self.serve_starving(now);
        self.chunks.change(fetch.chunk, |state| state.protected &= state.unwritten > 0);
        if self.log.is_sparse() {
            self.rewrite_log();
        }
    }

    fn rewrite_log(&mut self) {
        let chunks = &mut self.chunks;
        let map = self.log.rewrite(&mut |chunk, sequence| {
            chunks.change(chunk, |state| state.sequence = sequence);
        });
        for (_, peer) in self.peers.iter_mut() {
            peer.cursor = map(peer.cursor);
        }
    }

    /// Starts what is worth fetching while there is room, and asks for room while there is none.
    pub(super) fn fetch_step(&mut self, now: Time) {
        loop {
            if !self.may_fetch_more() || !self.manifest.is_known() {
                return self.withdraw_room();
            }
            if self.room.held == 0 && self.room.asked_at.is_some() {
                return self.make_room(now);
            }
            // One question at a time: this one is answered at once.
            if self.room.is_tried {
                return;
            }
            if self.fetch_queue.nothing && !self.chunks.news && self.room.held == 0 {
                return;
            }
            self.chunks.news = false;
            let pick = self.pick(now);
            self.fetch_queue.nothing = pick.is_none();
            match pick {
                // A spread that has just ended leaves other things to fetch.
                None if self.chunks.news => {}
                None => return self.withdraw_room(),
                Some(pick) if self.room.held == 0 => return self.ask_room(now, pick.need),
                Some(pick) => self.start_fetch(now, pick, None),
            }
        }
    }

    /// Whether one more fetch may be under way.
    pub(super) fn may_fetch_more(&self) -> bool {
        self.fetches.len() < self.config.fetches_max.max(1) as usize
    }

    pub(super) fn start_fetch(&mut self, now: Time, pick: Pick, rival: Option<FetchId>) {
        self.room.held -= 1;
        let fetch_id = FetchId(self.fetch_queue.next_id);
        self.fetch_queue.next_id += 1;
        let Pick { chunk, holder, need } = pick;
        let on_trial = !self.peers[holder].is_proven;
        let turn = self.peers[holder].unanswered;
        let queued = self.peers[holder].fetches + 1;
        let fetch = Fetch {
            chunk,
            holder,
            started_at: now,
            charged: Duration::ZERO,
            turn,
            on_trial,
            need,
            queued,
            rival,
            overdue: false,
        };
        self.fetches.insert(fetch_id, fetch);
        self.fetch_queue.on_trial += u32::from(on_trial);
        self.chunks.change(chunk, |state| {
            state.place = Place::Fetching;
            state.flight = Some(fetch_id);
        });
        if let Need::Seeding(owner) = need
            && rival.is_none()
        {
            self.seeding_fetching(owner, chunk);
        }
        let peer = &mut self.peers[holder];
        peer.fetches = queued;
        peer.up.set_busy(now, true);
        peer.depth.handle_started(now, queued);
        self.refresh_idle(holder);
        if let Some(rival) = rival {
            self.fetches.get_mut(&rival).expect("the rival is under way").rival = Some(fetch_id);
        } else {
            self.counters.misses += 1;
        }
        self.fetch_queue.due.push_back((now + self.hedge_after(), fetch_id));
        self.counters.fetches += 1;
        self.actions.push_back(Action::Fetch { fetch_id, chunk, holder });
    }

    /// Forgets a fetch; its chunk stays as it is.
    fn end_fetch(&mut self, now: Time, fetch_id: FetchId) -> Option<Fetch> {
        let fetch = self.fetches.remove(&fetch_id)?;
        if let Some(rival) = fetch.rival.and_then(|rival| self.fetches.get_mut(&rival)) {
            rival.rival = None;
        }
        self.fetch_queue.hedges.remove(&fetch_id);
        self.fetch_queue.overdue -= u32::from(fetch.overdue);
        self.fetch_queue.on_trial -= u32::from(fetch.on_trial);
        self.chunks.news = true;
        if let Some(holder) = self.peers.get_mut(fetch.holder) {
            holder.fetches -= 1;
            let busy = holder.fetches > 0;
            holder.up.set_busy(now, busy);
            self.refresh_idle(fetch.holder);
        }
        Some(fetch)
    }

    /// After a fetch that brought nothing: its chunk is absent again unless the rival goes on.
    pub(super) fn release_chunk(&mut self, fetch: &Fetch) {
        self.chunks.change(fetch.chunk, |state| {
            state.flight = fetch.rival;
            if fetch.rival.is_none() {
                state.place = Place::Absent;
            }
        });
        self.seeding_fetch_lost(fetch);
    }

    pub(super) fn cancel_fetch(
        &mut self,
        now: Time,
        fetch_id: FetchId,
        keep_room: bool,
    ) -> Option<Fetch> {
        let fetch = self.end_fetch(now, fetch_id)?;
        self.room.held += u32::from(keep_room);
        let holder = fetch.holder;
        self.actions.push_back(Action::CancelFetch { fetch_id, holder, keep_room });
        Some(fetch)
    }

    /// The peer is gone or banned: its fetches bring nothing any more.
    pub(super) fn drop_fetches_of(&mut self, now: Time, slot: PeerSlot) {
        if self.peers[slot].fetches == 0 {
            return;
        }
        let ids = self.fetches.iter().filter(|(_, fetch)| fetch.holder == slot);
        for id in ids.map(|(&id, _)| id).collect::<Vec<_>>() {
            if let Some(fetch) = self.cancel_fetch(now, id, false) {
                self.release_chunk(&fetch);
            }
        }
    }
}
