//! Late fetches: when one counts as slow, who else is asked, and how.
//!
//! A fetch that is late is hedged: another holder is asked as well if there is room for a second
//! chunk, and then whoever comes first wins and nothing is lost. A hedge never waits for room: if
//! there is none, the other one is asked instead, and what the first had sent is lost; so that takes
//! a reason (`Swarm::may_replace`).
//!
//! Whoever claims a chunk and does not answer costs one wait. Each fetch, hedged or not, comes due
//! again and again, and goes to somebody else whenever there is a better one to ask; and whoever
//! answers and has nothing else to do takes over what is late at those who have proven nothing
//! (`Swarm::take_over`). A holder that was late before gets a turn as long as all its silence so far
//! before a fetch moves on to one that has proven nothing: turns grow, so an honest holder, however
//! slow, gets one that is long enough, however many others only pretend.

use std::time::Duration;

use super::{
    FetchId, PeerSlot, Swarm,
    depth::DEPTH_UNKNOWN,
    fetching::Fetch,
    holders::{Except, Pick},
};
use relay_protocol::time::Time;

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
    /// There is room for both.
    AsWell,
    /// In the place of the first.
    Instead,
}

impl Swarm {
    /// Age at which a fetch is hedged.
    pub(super) fn hedge_after(&self) -> Duration {
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
            let Some(fetch) = self.fetches.get(&fetch_id) else { continue };
            if self.is_in_turn(now, fetch) {
                self.fetch_queue.due.push_back((now + self.hedge_after(), fetch_id));
                continue;
            }
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
            self.mark_overdue(now, fetch_id);
            if fetch.rival.is_none() {
                self.fetch_queue.hedges.insert(fetch_id);
            } else {
                self.replace(now, fetch_id);
            }
        }
    }

    /// Whether the fetch waits behind others that its holder is trusted with, and answers.
    fn is_in_turn(&self, now: Time, fetch: &Fetch) -> bool {
        let queued_bytes = f64::from(fetch.queued) * f64::from(self.config.chunk_size_bytes);
        let (depth, silence_max) = (&self.peers[fetch.holder].depth, self.hedge_after());
        fetch.queued > DEPTH_UNKNOWN
            && depth.is_in_turn(now, fetch.started_at, queued_bytes, silence_max)
    }

    /// Asks others as well for what is late, as long as there is room; else others instead.
    pub(super) fn hedge_step(&mut self, now: Time) {
        while let Some(&fetch_id) = self.fetch_queue.hedges.first() {
            let is_asked = self.room.asked_at.is_some();
            if self.room.is_tried || is_asked && !self.room.unanswered {
                // The answer comes in this turn, or memory is short.
                return;
            }
            let may_add = self.may_fetch_more() && !is_asked;
            let prompt = |slot| !self.peers[slot].slow || self.may_add_slow();
            let other = self.find_other(&self.fetches[&fetch_id], prompt).filter(|_| may_add);
            match other {
                Some(_) if self.room.held == 0 => return self.try_room(),
                Some(other) => self.hedge(now, fetch_id, other, Hedge::AsWell),
                None => self.replace(now, fetch_id),
            }
            self.fetch_queue.hedges.remove(&fetch_id);
        }
    }

    /// There is no room for anybody else: asks others instead.
    pub(super) fn replace_late(&mut self, now: Time) {
        while let Some(fetch_id) = self.fetch_queue.hedges.pop_first() {
            self.replace(now, fetch_id);
        }
    }

    /// Asks somebody else instead, if that is better.
    fn replace(&mut self, now: Time, fetch_id: FetchId) {
        let fetch = &self.fetches[&fetch_id];
        if let Some(other) = self.find_other(fetch, |slot| self.may_replace(now, fetch, slot)) {
            self.hedge(now, fetch_id, other, Hedge::Instead);
        }
    }

    /// The best other holder of this chunk, if it suits, else the next one: one that has proven to supply
    /// and was late since may be no better, and the next one yet.
    fn find_other(&self, fetch: &Fetch, suits: impl Fn(PeerSlot) -> bool) -> Option<PeerSlot> {
        let mut except = self.asked_for(fetch);
        let best = self.find_holder(fetch.chunk, Some(except))?.slot;
        if suits(best) {
            return Some(best);
        }
        except.refused = Some(best);
        let next = self.find_holder(fetch.chunk, Some(except))?.slot;
        suits(next).then_some(next)
    }

    /// Who has been asked for this chunk.
    fn asked_for(&self, fetch: &Fetch) -> Except {
        let rival = fetch.rival.map(|rival| self.fetches[&rival].holder);
        Except { holder: fetch.holder, rival, refused: None }
    }

    /// Whether this other holder may be asked instead: it is surely better, or it is its turn.
    fn may_replace(&self, now: Time, fetch: &Fetch, other: PeerSlot) -> bool {
        let (this, that) = (&self.peers[fetch.holder], &self.peers[other]);
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
        is_sure || is_next
    }

    /// A holder has answered, and nothing new is to be fetched, or there is no memory for it: if it
    /// can take one more, it is asked for what those on trial let us wait for, the oldest first. Else
    /// that would wait until it comes due again, and the holder have nothing to do meanwhile. Whoever
    /// has proven to supply is left in peace: it may be slow, and nearly done.
    pub(super) fn take_over(&mut self, now: Time, holder: PeerSlot) {
        let Some(peer) = self.peers.get(holder) else { return };
        let is_room_coming = self.room.asked_at.is_some() && !self.room.unanswered;
        if peer.is_suspect || peer.may_go || is_room_coming {
            return;
        }
        while self.fetch_queue.overdue > 0 && self.may_ask(&self.peers[holder]) {
            let oldest = self.fetches.iter().take(FETCHES_PER_SCAN);
            let late = oldest.filter(|(_, fetch)| fetch.overdue && fetch.on_trial);
            let found = late.filter(|(_, fetch)| !self.asked_for(fetch).contains(holder)).find(
                |(_, fetch)| {
                    let has = self.peers[holder].have.contains(fetch.chunk);
                    has && self.may_replace(now, fetch, holder)
                },
            );
            let Some((&fetch_id, _)) = found else { return };
            self.hedge(now, fetch_id, holder, Hedge::Instead);
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
    fn hedge(&mut self, now: Time, fetch_id: FetchId, holder: PeerSlot, how: Hedge) {
        let fetch = self.fetches[&fetch_id];
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

#[cfg(test)]
mod tests;
