//! Late fetches: which other holder is asked, and how (`late` says when).
//!
//! A fetch that is late is hedged: another holder is asked as well if there is room for a second
//! chunk, and then the one that comes first wins and nothing is lost. A hedge never waits for room: if
//! there is none, the other one is asked instead, and what the first had sent is lost; so that takes
//! a reason (`Fetching::may_replace`).
//!
//! A holder that claims a chunk and does not answer costs one wait. Each fetch, hedged or not, comes due
//! again and again, and goes to another holder whenever there is a better one to ask. A holder that
//! answers and has nothing else to do takes over what is late at those that have proven nothing
//! (`Fetching::take_over`). A holder that was late before gets a turn as long as all its silence so far
//! before a fetch moves on to one that has proven nothing: turns grow, so an honest holder, however
//! slow, gets one that is long enough, however many others only pretend.

use std::time::Duration;

use relay_protocol::time::Time;

use super::{
    fetch::Fetching,
    holders::{Except, find_holder, is_surely_held, may_add_slow, may_ask},
    room::Room,
};
use crate::{
    api::{FetchId, PeerSlot},
    book::{
        depth::DEPTH_UNKNOWN,
        fetches::{Fetch, Pick},
    },
};

/// A holder that has let the relay wait for so long in all, without an answer, counts as one that holds
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

impl Fetching<'_> {
    /// Asks other holders for what is due, or goes on waiting, or gives the holder up.
    pub(crate) fn check_late(&mut self) {
        while let Some(fetch_id) = self.late.next_due(self.desk.now) {
            let Some(&fetch) = self.desk.book.fetches().get(fetch_id) else { continue };
            if self.is_in_turn(&fetch) || is_slowed_by_limits(self.desk.now, &fetch) {
                self.late.watch(self.desk.now, fetch_id);
                continue;
            }
            self.desk.book.note_silence(self.desk.now, fetch_id);
            let give_up = FETCH_GIVE_UP.max(2 * fetch.patience);
            if self.desk.book.peer(fetch.holder).supply.silence.unanswered >= give_up {
                self.disbelieve(fetch.holder);
                continue;
            }
            self.desk.book.mark_overdue(fetch_id);
            self.late.watch(self.desk.now, fetch_id);
            if fetch.rival.is_none() {
                self.late.wait(fetch_id);
            } else {
                self.replace(fetch_id);
            }
        }
    }

    /// Whether the fetch waits behind others that its holder is trusted with, and answers.
    fn is_in_turn(&self, fetch: &Fetch) -> bool {
        let chunk_size = f64::from(self.desk.book.config().chunk_size_bytes);
        let queued_bytes = f64::from(fetch.queued) * chunk_size;
        let depth = &self.desk.book.peer(fetch.holder).supply.depth;
        let silence_max = self.late.hedge_after();
        fetch.queued > DEPTH_UNKNOWN
            && depth.is_in_turn(self.desk.now, fetch.started_at, queued_bytes, silence_max)
    }

    /// Asks other holders as well for what is late, as long as there is room; else others instead.
    pub(crate) fn hedge_late(&mut self, room: &mut Room) {
        while let Some(fetch_id) = self.late.first_waiting() {
            if room.is_tried() || room.is_answer_coming() {
                // The answer comes in this turn, or memory is short.
                return;
            }
            let may_add = self.desk.book.may_fetch_more() && !room.is_asked();
            let other = self.find_other(self.fetch(fetch_id), |slot| self.is_prompt(slot));
            match other.filter(|_| may_add) {
                Some(_) if self.desk.book.held() == 0 => return room.try_now(self.desk),
                Some(other) => self.hedge(fetch_id, other, Hedge::AsWell),
                None => self.replace(fetch_id),
            }
            self.late.ended(fetch_id);
        }
    }

    fn is_prompt(&self, slot: PeerSlot) -> bool {
        !self.desk.book.peer(slot).supply.silence.is_slow || may_add_slow(&self.desk.book)
    }

    /// There is no room for any other: asks others instead.
    pub(crate) fn replace_late(&mut self) {
        while let Some(fetch_id) = self.late.first_waiting() {
            self.late.ended(fetch_id);
            self.replace(fetch_id);
        }
    }

    /// Asks another holder instead, if that is better.
    fn replace(&mut self, fetch_id: FetchId) {
        let fetch = self.fetch(fetch_id);
        if let Some(other) = self.find_other(fetch, |slot| self.may_replace(fetch, slot)) {
            self.hedge(fetch_id, other, Hedge::Instead);
        }
    }

    fn fetch(&self, fetch_id: FetchId) -> &Fetch {
        self.desk.book.fetches().get(fetch_id).expect("what waits is under way")
    }

    /// The best other holder of this chunk, if it suits, else the next one: one that has proven to supply
    /// and was late since may be no better, and the next one yet.
    fn find_other(&self, fetch: &Fetch, suits: impl Fn(PeerSlot) -> bool) -> Option<PeerSlot> {
        let mut except = self.asked_for(fetch);
        let best = find_holder(&self.desk.book, fetch.chunk, Some(except))?.slot;
        if suits(best) {
            return Some(best);
        }
        except.refused = Some(best);
        let next = find_holder(&self.desk.book, fetch.chunk, Some(except))?.slot;
        suits(next).then_some(next)
    }

    /// The holders that have been asked for this chunk.
    fn asked_for(&self, fetch: &Fetch) -> Except {
        let rival = fetch.rival.map(|rival| self.fetch(rival).holder);
        Except { holder: fetch.holder, rival, refused: None }
    }

    /// Whether this other holder may be asked instead: it is surely better, or it is its turn.
    fn may_replace(&self, fetch: &Fetch, other: PeerSlot) -> bool {
        let (this, that) = (self.desk.book.peer(fetch.holder), self.desk.book.peer(other));
        let is_sure = that.supply.is_proven
            && (!this.supply.is_proven || !that.supply.silence.is_slow)
            && (!that.terms.is_suspect || this.terms.is_suspect);
        // A holder that answers others will take it over, unless there is too much to do.
        let turn = match is_surely_held(&self.desk.book, fetch.chunk) {
            true => fetch.turn.max(TAKEN_OVER_WITHIN),
            false => fetch.turn,
        };
        let turn_is_over = self.desk.now.since(fetch.started_at) >= turn;
        let is_next =
            turn_is_over && that.supply.silence.unanswered < this.supply.silence.unanswered;
        is_sure || is_next
    }

    /// A holder has answered, and nothing new is to be fetched, or there is no memory for it: if it
    /// can take one more, it is asked for what those on trial let the relay wait for, the oldest first. Else
    /// that would wait until it comes due again, and the holder have nothing to do meanwhile. A holder that
    /// has proven to supply is left in peace: it may be slow, and nearly done.
    pub(crate) fn take_over(&mut self, holder: PeerSlot, room: &Room) {
        let Some(peer) = self.desk.book.find(holder) else { return };
        if peer.terms.is_suspect || peer.supply.may_go || room.is_answer_coming() {
            return;
        }
        while self.desk.book.fetches().overdue() > 0
            && may_ask(&self.desk.book, self.desk.book.peer(holder))
        {
            let mut oldest = self.desk.book.fetches().iter().take(FETCHES_PER_SCAN);
            let found = oldest.find(|(_, fetch)| {
                fetch.overdue
                    && fetch.on_trial
                    && !self.asked_for(fetch).contains(holder)
                    && self.desk.book.peer(holder).have.contains(fetch.chunk)
                    && self.may_replace(fetch, holder)
            });
            let Some(fetch_id) = found.map(|(fetch_id, _)| fetch_id) else { return };
            drop(oldest);
            self.hedge(fetch_id, holder, Hedge::Instead);
        }
    }

    /// The holder answers nothing: what it claims to hold counts as missing.
    fn disbelieve(&mut self, slot: PeerSlot) {
        self.drop_all_of(slot);
        for chunk in self.desk.book.peer(slot).have.iter().collect::<Vec<_>>() {
            if self.desk.book.unclaim(slot, chunk) {
                self.seed.copy_lost(&self.desk.book, chunk);
            }
        }
    }

    /// Asks another holder.
    fn hedge(&mut self, fetch_id: FetchId, holder: PeerSlot, how: Hedge) {
        let fetch = *self.fetch(fetch_id);
        self.desk.book.count_hedge();
        let pick = Pick { chunk: fetch.chunk, holder, need: fetch.need };
        match how {
            Hedge::AsWell => self.start(pick, Some(fetch_id)),
            Hedge::Instead => {
                self.cancel(fetch_id, true);
                if fetch.rival.is_none() {
                    self.release_chunk(&fetch);
                }
                self.start(pick, fetch.rival);
            }
        }
    }
}

/// Whether it may be the shell's own limits that the fetch waits for.
fn is_slowed_by_limits(now: Time, fetch: &Fetch) -> bool {
    now.since(fetch.started_at) < fetch.patience
}

#[cfg(test)]
mod tests;
