//! What is given up for what: asking for room, eviction, recall, pressure from other swarms.
//!
//! A hedge never waits: it only tries whether there is room.
//!
//! Memory in chunks: `cached + fetching + draining + held`. A wish that is not answered at once
//! means that memory is short; then free chunks go first, and wanted ones by rent or buy.

use std::time::Duration;

use super::{
    Action, Eviction, Swarm,
    chunks::{FREE, LEFT, PINNED, Place},
    fetching::Need,
    log::precedence,
};
use relay_protocol::{Order, time::Time};

/// Memory that was given up for a wish may go to a swarm that waited longer. After so long without
/// an answer some more is given up.
const PROMISE_KEPT: Duration = Duration::from_millis(20);

/// How long nothing is fetched ahead after memory turned out to be short.
const AHEAD_AGAIN: Duration = Duration::from_millis(50);

/// One part in so many of the swarm's memory may hold what only slower peers are being sent: they share it, as the
/// others share the rest.
const PINNED_SHARE: u32 = 4;

/// Chunks among equals that an eviction compares for the one used longest ago.
const EVICTIONS_COMPARED: usize = 32;

/// Room for one chunk: wished for, or held.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Leases that are there and not used.
    pub(super) held: u32,
    pub(super) asked_at: Option<Time>,
    /// The shell has taken the wish and not answered it.
    pub(super) told: bool,
    /// Something else happened since the wish: memory is short.
    pub(super) unanswered: bool,
    need: Option<Need>,
    /// The shell is asked whether there is room for a hedge right now.
    pub(super) is_tried: bool,
    /// A chunk that nobody lacks was given up for that.
    pub(super) was_given_up: bool,
    /// Memory was given up for the wish at this time.
    promised_at: Option<Time>,
    ahead_again_at: Time,
    /// When the wish has to be looked after again though nothing happens.
    wake_at: Option<Time>,
}

impl Swarm {
    /// The room asked for is leased.
    pub fn handle_room(&mut self, now: Time) {
        self.begin(now);
        // A wish that was taken back gives its lease back by `ReleaseRoom`, which is on its way.
        if std::mem::take(&mut self.room.told) {
            self.room.asked_at = None;
            self.room.unanswered = false;
            self.room.promised_at = None;
            self.room.held += 1;
        }
        self.settle(now);
    }

    /// The answer to [`Action::TryRoom`]: one chunk's bytes are leased, or there is no room. In that case one
    /// chunk that nobody lacks may go for it.
    pub fn handle_room_tried(&mut self, now: Time, is_there: bool) {
        self.begin(now);
        if std::mem::take(&mut self.room.is_tried) {
            let was_given_up = std::mem::take(&mut self.room.was_given_up);
            if is_there {
                self.room.held += 1;
            } else if !was_given_up
                && !self.fetch_queue.hedges.is_empty()
                && !self.seeding.holds_back()
                && let Some(free) = self.free_chunk()
            {
                self.evict(now, free, true);
                self.room.was_given_up = true;
                self.try_room();
            } else {
                self.replace_late(now);
            }
        }
        self.settle(now);
    }

    /// Asks whether there is room right now.
    pub(super) fn try_room(&mut self) {
        self.room.is_tried = true;
        self.actions.push_back(Action::TryRoom);
    }

    /// Another swarm waits for room and this one is above its share: gives up so many chunks,
    /// patience or not.
    pub fn handle_pressure(&mut self, now: Time, chunks: u32) {
        self.begin(now);
        self.room.ahead_again_at = now + AHEAD_AGAIN;
        let returning = self.draining_count();
        for _ in returning..chunks {
            let Some(victim) = self.victim() else { break };
            self.evict(now, victim, true);
        }
        self.recall_draining();
        self.settle(now);
    }

    /// Chunks of memory that this swarm has.
    pub(super) fn usage(&self) -> u32 {
        let fetching = u32::try_from(self.fetches.len()).expect("bounded by fetches_max");
        self.chunks.cached.len() + fetching + self.draining_count() + self.room.held
    }

    fn draining_count(&self) -> u32 {
        u32::try_from(self.chunks.draining.len()).expect("at most the cache")
    }

    /// Whether memory lies idle that a chunk may be fetched into before anybody starves for it.
    pub(super) fn may_fetch_ahead(&self, now: Time) -> bool {
        let idle = self.usage() < self.config.cache_chunks_max;
        now >= self.room.ahead_again_at && (idle || !self.chunks.cached.bucket(FREE).is_empty())
    }

    pub(super) fn ask_room(&mut self, now: Time, need: Need) {
        self.room.asked_at = Some(now);
        self.room.unanswered = false;
        self.room.need = Some(need);
        self.actions.push_back(Action::WantRoom);
    }

    /// Nothing is to be fetched now: no room is needed.
    pub(super) fn withdraw_room(&mut self) {
        let asked = self.room.asked_at.take().is_some();
        let told = std::mem::take(&mut self.room.told);
        if asked && !told {
            self.actions.retain(|action| *action != Action::WantRoom);
        }
        if told || self.room.held > 0 {
            self.actions.push_back(Action::ReleaseRoom);
        }
        self.room.held = 0;
        self.room.unanswered = false;
        self.room.promised_at = None;
    }

    /// When a wish has to be looked after though nothing happens.
    pub(super) fn room_timeout(&self) -> Option<Time> {
        let asked_at = self.room.asked_at?;
        if self.room.unanswered { self.room.wake_at } else { Some(asked_at) }
    }

    /// When starving peers may have lost the price of what they wait for; `None` while nothing is priced.
    #[must_use]
    pub fn price_due_at(&self) -> Option<Time> {
        let waits = self.room.asked_at.is_some() && self.room.unanswered;
        self.room.wake_at.filter(|_| waits && !self.starving.is_empty())
    }

    /// The wish for room is unanswered: gives something up for it, if it is worth it.
    pub(super) fn make_room(&mut self, now: Time) {
        if !self.room.unanswered {
            return;
        }
        let promise = self.room.promised_at.map(|at| at + PROMISE_KEPT);
        self.room.wake_at = promise.filter(|&at| now < at);
        if self.room.wake_at.is_some() {
            return;
        }
        if self.starving.is_empty() && self.room.need == Some(Need::Starving) {
            return self.withdraw_room();
        }
        let free =
            if self.seeding.holds_back() { self.seeding_victim() } else { self.free_chunk() };
        if let Some(free) = free {
            self.rent.reset();
            return self.give_up(now, free);
        }
        // What nobody starves for is not worth a chunk that somebody lacks.
        let is_starved_for = || self.next_starving().any(|peer| peer.order == Order::Peer);
        if self.room.need == Some(Need::Ahead) && !is_starved_for() {
            self.room.ahead_again_at = now + AHEAD_AGAIN;
            return self.withdraw_room();
        }
        match self.config.eviction {
            _ if self.seeding.holds_back() => {}
            Eviction::Lru if !self.chunks.draining.is_empty() => {}
            Eviction::Lru => {
                if let Some(victim) = self.least_recently_used() {
                    self.give_up(now, victim);
                }
            }
            Eviction::Demand => self.buy_room(now),
        }
    }

    /// Gives up what only slower peers need, or another chunk if its price has been lost. Those who are in
    /// the midst of that one may finish; only if its price has been lost once more are they cut off.
    fn buy_room(&mut self, now: Time) {
        self.let_the_slow_lead();
        if self.recall_left_behind(now) {
            return;
        }
        let mut left_behind = self.left_behind();
        if left_behind.is_none() && self.rent.take_look(now) {
            self.look_at_pace(now);
            self.let_the_slow_lead();
            left_behind = self.left_behind();
        }
        if let Some(victim) = left_behind {
            self.rent.reset();
            self.counters.purchases += 1;
            return self.give_up(now, victim);
        }
        if self.rent.is_due() {
            self.rent.reset();
            if self.chunks.draining.is_empty() {
                self.chunks.cached.tidy();
                if let Some(victim) = self.victim() {
                    self.counters.purchases += 1;
                    // Slower peers don't finish in that time: no second price is lost for them.
                    self.evict(now, victim, self.chunks.get(victim).keen_unwritten == 0);
                }
            } else {
                self.recall_draining();
            }
        }
        self.room.wake_at = self.rent.due_at();
        if self.room.promised_at.is_some_and(|at| now < at + PROMISE_KEPT) {
            self.room.wake_at = Some(now + PROMISE_KEPT);
        }
    }

    /// Takes back what was given up and is being sent to peers only that have fallen behind since; whether
    /// there was something.
    fn recall_left_behind(&mut self, now: Time) -> bool {
        let is_left = |&chunk: &u32| {
            let state = self.chunks.get(chunk);
            state.keen_unwritten == 0 && !state.recalled
        };
        let left: Vec<u32> = self.chunks.draining.iter().copied().filter(is_left).collect();
        left.iter().for_each(|&chunk| self.recall(chunk));
        if !left.is_empty() {
            self.room.promised_at = Some(now);
            self.room.wake_at = Some(now + PROMISE_KEPT);
        }
        !left.is_empty()
    }

    /// A chunk that only peers need which have fallen behind: none of them is being sent it, or such chunks
    /// fill more than their share of the cache.
    fn left_behind(&self) -> Option<u32> {
        let share = (self.usage() / PINNED_SHARE).max(1) as usize;
        let pinned = self.chunks.cached.bucket(PINNED);
        let left = self.least_preferred(self.chunks.cached.bucket(LEFT));
        left.or_else(|| (pinned.len() > share).then(|| self.least_preferred(pinned)).flatten())
    }

    /// What those who fell behind prefer least, the oldest of that.
    fn least_preferred(&self, chunks: &[u32]) -> Option<u32> {
        let evictable = chunks.iter().map(|&chunk| self.chunks.get(chunk));
        let evictable = evictable.filter(|state| !state.protected).take(EVICTIONS_COMPARED);
        let sequences = evictable.map(|state| state.sequence);
        let least = sequences.min_by_key(|&sequence| (precedence(sequence), sequence))?;
        self.log.get(least)
    }

    fn give_up(&mut self, now: Time, chunk: u32) {
        self.room.promised_at = Some(now);
        self.room.wake_at = Some(now + PROMISE_KEPT);
        self.evict(now, chunk, true);
    }

    /// A cached chunk that nobody needs.
    fn free_chunk(&self) -> Option<u32> {
        self.chunks.cached.bucket(FREE).first().copied()
    }

    /// The least needed chunk that may go; ties: the one used longest ago.
    fn victim(&self) -> Option<u32> {
        let evictable =
            |&(chunk, rank): &(u32, u32)| !self.chunks.get(chunk).protected || rank == FREE;
        let mut candidates = self.chunks.cached.iter_up().filter(evictable);
        let (mut best, least) = candidates.next()?;
        for (chunk, rank) in candidates.take(EVICTIONS_COMPARED) {
            if rank > least {
                break;
            }
            if self.chunks.get(chunk).used_at < self.chunks.get(best).used_at {
                best = chunk;
            }
        }
        Some(best)
    }

    /// The ancestors' policy, for comparison; looks at the whole cache.
    fn least_recently_used(&self) -> Option<u32> {
        let cached = self.chunks.cached.iter_up().map(|(chunk, _)| chunk);
        cached
            .filter(|&chunk| !self.chunks.get(chunk).protected)
            .min_by_key(|&chunk| (self.chunks.get(chunk).used_at, self.chunks.get(chunk).sequence))
    }

    /// Drops a chunk from the cache. Its memory comes back when the last delivery is written; with
    /// `recall` those under way are cut off.
    pub(super) fn evict(&mut self, now: Time, chunk: u32, recall: bool) {
        debug_assert!(self.chunks.is_cached(chunk));
        self.log.remove(self.chunks.get(chunk).sequence);
        self.counters.evictions += 1;
        self.actions.push_back(Action::Evict { chunk });
        let drained = self.chunks.change(chunk, |state| {
            let drained = state.unwritten == 0;
            state.place = if drained { Place::Absent } else { Place::Draining };
            state.protected = false;
            state.flight = None;
            drained
        });
        if drained {
            self.room_returned(now);
            self.seeding_absent(chunk);
        } else if recall {
            self.recall(chunk);
        }
    }

    fn recall(&mut self, chunk: u32) {
        if !self.chunks.change(chunk, |state| std::mem::replace(&mut state.recalled, true)) {
            self.actions.push_back(Action::Recall { chunk });
        }
    }

    fn recall_draining(&mut self) {
        for chunk in self.chunks.draining.clone() {
            self.recall(chunk);
        }
    }

    /// An evicted chunk's memory is free.
    pub(super) fn room_returned(&mut self, now: Time) {
        if self.room.asked_at.is_some() {
            self.room.promised_at = Some(now);
        }
    }
}
