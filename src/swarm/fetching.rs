//! What is asked of whom: single-flight fetches, how many at once, and hedges for slow ones.
//!
//! At most one fetch per chunk, two while hedged. A fetch uses up one chunk's room; when it ends
//! without bytes the shell gives the lease back.
//!
//! Whoever claims a chunk and does not answer costs one wait. Each fetch, hedged or not, comes due
//! again and again, and goes to somebody else whenever there is a better one to ask
//! (`Swarm::find_better`); and whoever answers and has nothing else to do takes over what is late at
//! those who have proven nothing (`Swarm::take_over`). A holder that was late before gets a turn as
//! long as all its silence so far before a fetch moves on to one that has proven nothing: turns
//! grow, so an honest holder, however slow, gets one that is long enough, however many others only
//! pretend.

use std::{collections::VecDeque, time::Duration};

use super::{
    Action, FetchFailure, FetchId, PeerSlot, Swarm,
    chunks::Place,
    holders::{Except, Pick},
    meter::Latencies,
};
use crate::time::Time;

/// Age at which a fetch is hedged before enough fetches were measured.
const HEDGE_AFTER_UNMEASURED: Duration = Duration::from_secs(1);

/// No fetch is hedged before this age: a wake-up and a round trip on a busy machine.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(50);

/// A holder that has let us wait for so long in all, without an answer, counts as one that holds
/// nothing, until it says otherwise. Long enough for 256 KiB at 8 KiB/s with a second chunk queued before it.
const FETCH_GIVE_UP: Duration = Duration::from_secs(60);

/// Fetches, oldest first, among which late ones are sought for a holder that can take one more.
const FETCHES_PER_SCAN: usize = 256;

/// So long a fetch waits for a holder that answers others, before it moves on to one that has proven
/// nothing.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);

/// How another holder is asked for a chunk that does not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hedge {
    /// Nobody was yet, and there is room.
    AsWell,
    /// In the place of the first: the other is surely better, or it is its turn.
    Instead,
}

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
    charged: Duration,
    /// It does not move to somebody unproven before this age.
    turn: Duration,
    /// Its holder had supplied nothing yet.
    pub(super) on_trial: bool,
    pub(super) need: Need,
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
            holder.up.sample(now, bytes);
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
                FetchFailure::Refused => self.unclaim(fetch.holder, fetch.chunk),
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
            let full = self.fetches.len() >= self.config.fetches_max.max(1) as usize;
            if full || !self.manifest.is_known() {
                return self.withdraw_room();
            }
            if self.room.held == 0 && self.room.asked_at.is_some() {
                return self.make_room(now);
            }
            if self.fetch_queue.nothing && !self.chunks.news && self.room.held == 0 {
                return;
            }
            self.chunks.news = false;
            let pick = self.pick(now);
            self.fetch_queue.nothing = pick.is_none();
            match pick {
                None => return self.withdraw_room(),
                Some(pick) if self.room.held == 0 => return self.ask_room(now, pick.need),
                Some(pick) => self.start_fetch(now, pick, None),
            }
        }
    }

    fn start_fetch(&mut self, now: Time, pick: Pick, rival: Option<FetchId>) {
        self.room.held -= 1;
        let fetch_id = FetchId(self.fetch_queue.next_id);
        self.fetch_queue.next_id += 1;
        let Pick { chunk, holder, need } = pick;
        let on_trial = !self.peers[holder].is_proven;
        let turn = self.peers[holder].unanswered;
        let (charged, overdue) = (Duration::ZERO, false);
        let fetch =
            Fetch { chunk, holder, started_at: now, charged, turn, on_trial, need, rival, overdue };
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
        peer.fetches += 1;
        peer.up.set_busy(now, true);
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
    fn release_chunk(&mut self, fetch: &Fetch) {
        self.chunks.change(fetch.chunk, |state| {
            state.flight = fetch.rival;
            if fetch.rival.is_none() {
                state.place = Place::Absent;
            }
        });
        self.seeding_fetch_lost(fetch);
    }

    fn cancel_fetch(&mut self, now: Time, fetch_id: FetchId, keep_room: bool) -> Option<Fetch> {
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

    /// Age at which a fetch is hedged.
    fn hedge_after(&self) -> Duration {
        let measured = self.fetch_queue.latencies.p95();
        measured.map_or(HEDGE_AFTER_UNMEASURED, |p95| (2 * p95).max(HEDGE_AFTER_MIN))
    }

    pub(super) fn fetch_timeout(&self) -> Option<Time> {
        self.fetch_queue.due.front().map(|&(at, _)| at)
    }

    /// Asks somebody else for what is due, or goes on waiting, or gives the holder up.
    pub(super) fn check_fetches(&mut self, now: Time) {
        while let Some(&(at, fetch_id)) = self.fetch_queue.due.front()
            && at <= now
        {
            self.fetch_queue.due.pop_front();
            let Some(fetch) = self.fetches.get_mut(&fetch_id) else { continue };
            let holder = &mut self.peers[fetch.holder];
            let silence = now.since(holder.counted_until.max(fetch.started_at));
            holder.slow = true;
            holder.unanswered += silence;
            holder.counted_until = now;
            fetch.charged += silence;
            let fetch = *fetch;
            if self.peers[fetch.holder].unanswered >= FETCH_GIVE_UP {
                self.disbelieve(now, fetch.holder);
                continue;
            }
            let better = self.find_better(now, &fetch);
            if !matches!(better, Some((_, Hedge::Instead))) {
                self.mark_overdue(now, fetch_id);
            }
            if let Some((other, how)) = better {
                self.hedge(now, fetch_id, fetch, other, how);
            }
        }
    }

    /// Whom to ask, and how.
    fn find_better(&self, now: Time, fetch: &Fetch) -> Option<(PeerSlot, Hedge)> {
        let mut except = self.asked_for(fetch);
        let best = self.find_holder(fetch.chunk, Some(except))?.slot;
        if let Some(how) = self.is_better(now, fetch, best) {
            return Some((best, how));
        }
        // One that has proven to supply and was late since may be no better, and the next one yet.
        except.refused = Some(best);
        let next = self.find_holder(fetch.chunk, Some(except))?.slot;
        Some((next, self.is_better(now, fetch, next)?))
    }

    /// Who has been asked for this chunk.
    fn asked_for(&self, fetch: &Fetch) -> Except {
        let rival = fetch.rival.map(|rival| self.fetches[&rival].holder);
        Except { holder: fetch.holder, rival, refused: None }
    }

    /// How this other holder should be asked, if at all.
    fn is_better(&self, now: Time, fetch: &Fetch, other: PeerSlot) -> Option<Hedge> {
        let (this, that) = (&self.peers[fetch.holder], &self.peers[other]);
        let has_place = fetch.rival.is_none() && self.room.held > 0;
        if has_place && (!that.slow || self.may_add_slow()) {
            return Some(Hedge::AsWell);
        }
        let is_sure = that.is_proven
            && (!this.is_proven || !that.slow)
            && (!that.is_suspect || this.is_suspect);
        // Whoever answers others will take it over, unless there is too much to do.
        let turn = match self.is_surely_held(fetch.chunk) {
            true => fetch.turn.max(TAKEN_OVER_WITHIN),
            false => fetch.turn,
        };
        let turn_is_over = now.since(fetch.started_at) >= turn;
        let is_next = turn_is_over && that.unanswered < this.unanswered;
        (is_sure || is_next).then_some(Hedge::Instead)
    }

    /// A holder has answered, and nothing new is to be fetched, or there is no memory for it: if it
    /// can take one more, it is asked for what those on trial let us wait for, the oldest first. Else
    /// that would wait until it comes due again, and the holder have nothing to do meanwhile. Whoever
    /// has proven to supply is left in peace: it may be slow, and nearly done.
    fn take_over(&mut self, now: Time, holder: PeerSlot) {
        let Some(peer) = self.peers.get(holder) else { return };
        let is_room_coming = self.room.asked_at.is_some() && !self.room.unanswered;
        if peer.is_suspect || peer.may_go || is_room_coming {
            return;
        }
        while self.fetch_queue.overdue > 0 && self.may_ask(&self.peers[holder]) {
            let oldest = self.fetches.iter().take(FETCHES_PER_SCAN);
            let late = oldest.filter(|(_, fetch)| fetch.overdue && fetch.on_trial);
            let found = late.filter(|(_, fetch)| !self.asked_for(fetch).contains(holder)).find_map(
                |(&id, fetch)| {
                    let has = self.peers[holder].have.contains(fetch.chunk);
                    let how = has.then(|| self.is_better(now, fetch, holder)).flatten();
                    how.map(|how| (id, *fetch, how))
                },
            );
            let Some((fetch_id, fetch, how)) = found else { return };
            self.hedge(now, fetch_id, fetch, holder, how);
        }
    }

    /// The holder answers nothing: what it claims to hold counts as missing.
    fn disbelieve(&mut self, now: Time, slot: PeerSlot) {
        self.drop_fetches_of(now, slot);
        for chunk in self.peers[slot].have.iter().collect::<Vec<_>>() {
            self.unclaim(slot, chunk);
        }
    }

    /// Asks another holder.
    fn hedge(&mut self, now: Time, fetch_id: FetchId, fetch: Fetch, holder: PeerSlot, how: Hedge) {
        self.counters.hedges += 1;
        let pick = Pick { chunk: fetch.chunk, holder, need: fetch.need };
        match how {
            Hedge::AsWell => self.start_fetch(now, pick, Some(fetch_id)),
            Hedge::Instead => {
                self.cancel_fetch(now, fetch_id, true);
                if fetch.rival.is_none() {
                    self.release_chunk(&fetch);
                }
                self.start_fetch(now, pick, fetch.rival);
            }
        }
    }

    fn mark_overdue(&mut self, now: Time, fetch_id: FetchId) {
        let fetch = self.fetches.get_mut(&fetch_id).expect("it was just looked up");
        if !std::mem::replace(&mut fetch.overdue, true) {
            self.fetch_queue.overdue += 1;
        }
        // The queue stays in order of time: every entry is due `hedge_after` from its making, and
        // where that shrinks an entry is merely looked at a little late.
        self.fetch_queue.due.push_back((now + self.hedge_after(), fetch_id));
    }
}
