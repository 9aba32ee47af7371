//! What is given up for what: asking for room, eviction, recall, pressure from other swarms.
//!
//! A hedge never waits: it only tries whether there is room.
//!
//! Memory in chunks: `cached + fetching + draining + held`. A wish that is not answered at once
//! means that memory is short; then free chunks go first, and wanted ones by rent or buy.

use std::time::Duration;

use relay_protocol::{Order, time::Time};

use super::{
    deliver,
    pace::{PaceWatch, let_the_slow_lead},
    rent::Rent,
    seed::Seed,
};
use crate::{
    api::{Action, Eviction, SwarmConfig},
    book::{
        Book,
        chunks::{FREE, LEFT, PINNED},
        fetches::Need,
        log::precedence,
    },
    desk::Desk,
};

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

/// How far a wish has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// The shell has not looked at it yet.
    Decided,
    /// The shell has taken it: the answer may come next.
    Told,
    /// Something else happened since: memory is short.
    Unanswered,
}

/// Room for one chunk is wished for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    asked_at: Time,
    need: Need,
    progress: Progress,
    /// Memory was given up for it at this time.
    promised_at: Option<Time>,
}

/// Whether the shell is asked if there is room for a hedge right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Trial {
    #[default]
    None,
    /// It is.
    First,
    /// Once more, after a chunk that no peer lacks was given up for that.
    Second,
}

/// Room for chunks, and what it costs.
#[derive(Debug)]
pub(crate) struct Room {
    wish: Option<Wish>,
    trial: Trial,
    ahead_again_at: Time,
    /// When the wish has to be looked after again though nothing happens.
    wake_at: Option<Time>,
    rent: Rent,
    pace: PaceWatch,
}

/// What is asked of the shell.
impl Room {
    pub(crate) fn new(config: &SwarmConfig) -> Self {
        Self {
            wish: None,
            trial: Trial::None,
            ahead_again_at: Time::ZERO,
            wake_at: None,
            rent: Rent::new(config.lambda, config.cache_chunks_max),
            pace: PaceWatch::default(),
        }
    }

    /// Before every input: what was lost since the last one is counted, and a wish that was told is not
    /// answered, unless this input is the answer.
    #[inline]
    pub(crate) fn begin(&mut self, book: &Book, now: Time) {
        self.rent.advance(now, book.starving().loses());
        if let Some(Wish { progress: progress @ Progress::Told, .. }) = &mut self.wish {
            *progress = Progress::Unanswered;
        }
    }

    /// After every input.
    #[inline]
    pub(crate) fn end(&mut self, Desk { book, now, .. }: &Desk) {
        let is_blocked = self.wish.is_some() && !book.starving().is_empty();
        self.rent.set_blocked(*now, book.starving().loses(), is_blocked);
    }

    /// The shell takes the wish.
    pub(crate) fn told(&mut self) {
        if let Some(wish) = &mut self.wish {
            wish.progress = Progress::Told;
        }
    }

    /// The shell has leased the room that it was told of. A wish that was taken back gives its lease back by
    /// `ReleaseRoom`, which is on its way.
    pub(crate) fn came(&mut self, book: &mut Book) {
        if self.wish.take_if(|wish| wish.progress != Progress::Decided).is_some() {
            book.add_room();
        }
    }

    /// The shell answers whether there is room right now; whether it may be asked once more.
    pub(crate) fn take_trial(&mut self) -> Option<bool> {
        match std::mem::take(&mut self.trial) {
            Trial::None => None,
            trial => Some(trial == Trial::First),
        }
    }

    #[inline]
    pub(crate) fn is_tried(&self) -> bool {
        self.trial != Trial::None
    }

    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.wish.is_some()
    }

    /// Since when room is wished for, if it is.
    #[inline]
    pub(crate) fn asked_at(&self) -> Option<Time> {
        self.wish.map(|wish| wish.asked_at)
    }

    /// Whether a wish may be answered at once.
    #[inline]
    pub(crate) fn is_answer_coming(&self) -> bool {
        self.wish.is_some_and(|wish| wish.progress != Progress::Unanswered)
    }

    fn is_unanswered(&self) -> bool {
        self.wish.is_some_and(|wish| wish.progress == Progress::Unanswered)
    }

    /// Asks whether there is room right now.
    pub(crate) fn try_now(&mut self, desk: &mut Desk) {
        self.trial = Trial::First;
        desk.actions.push(Action::TryRoom);
    }

    /// The same once more, after a chunk that no peer lacks was given up for that. Whether there is such a chunk.
    pub(crate) fn try_again(&mut self, desk: &mut Desk, seed: &mut Seed) -> bool {
        let free = free_chunk(&desk.book).filter(|_| !desk.book.holds_back());
        if let Some(free) = free {
            self.evict(desk, seed, free, true);
            self.trial = Trial::Second;
            desk.actions.push(Action::TryRoom);
        }
        free.is_some()
    }

    /// Wishes for room.
    pub(crate) fn ask(&mut self, desk: &mut Desk, need: Need) {
        let progress = Progress::Decided;
        self.wish = Some(Wish { asked_at: desk.now, need, progress, promised_at: None });
        desk.actions.push(Action::WantRoom);
    }

    /// Nothing is to be fetched now: no room is needed.
    pub(crate) fn withdraw(&mut self, desk: &mut Desk) {
        let wish = self.wish.take();
        let is_told = wish.is_some_and(|wish| wish.progress != Progress::Decided);
        if wish.is_some() && !is_told {
            desk.actions.take_back(&Action::WantRoom);
        }
        if is_told || desk.book.held() > 0 {
            desk.actions.push(Action::ReleaseRoom);
        }
        desk.book.drop_room();
    }

    /// When a wish has to be looked after though nothing happens.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let wish = self.wish?;
        if self.is_unanswered() { self.wake_at } else { Some(wish.asked_at) }
    }

    /// When starving peers may have lost the price of what they wait for; `None` while nothing is priced.
    pub(crate) fn price_due_at(&self, book: &Book) -> Option<Time> {
        self.wake_at.filter(|_| self.is_unanswered() && !book.starving().is_empty())
    }

    /// Whether memory lies idle that a chunk may be fetched into before any peer starves for it.
    pub(crate) fn may_fetch_ahead(&self, book: &Book, now: Time) -> bool {
        let idle = book.usage() < book.config().cache_chunks_max;
        now >= self.ahead_again_at && (idle || !book.chunks().cached.bucket(FREE).is_empty())
    }

    /// An evicted chunk's memory may have come back: it is promised to the wish.
    #[inline]
    pub(crate) fn note_returned(&mut self, desk: &mut Desk) {
        if desk.book.take_returned()
            && let Some(wish) = &mut self.wish
        {
            wish.promised_at = Some(desk.now);
        }
    }
}

/// What is given up.
impl Room {
    /// Another swarm waits for room and this one is above its share: gives up so many chunks,
    /// patience or not.
    pub(crate) fn press(&mut self, desk: &mut Desk, seed: &mut Seed, chunks: u32) {
        self.ahead_again_at = desk.now + AHEAD_AGAIN;
        for _ in desk.book.draining_count()..chunks {
            let Some(victim) = victim(&desk.book) else { break };
            self.evict(desk, seed, victim, true);
        }
        deliver::recall_draining(desk);
    }

    /// A wish for room that is unanswered: gives something up for it, if it is worth it.
    pub(crate) fn make(&mut self, desk: &mut Desk, seed: &mut Seed) {
        let Some(Wish { need, progress: Progress::Unanswered, promised_at, .. }) = self.wish else {
            return;
        };
        let promise = promised_at.map(|at| at + PROMISE_KEPT);
        self.wake_at = promise.filter(|&at| desk.now < at);
        if self.wake_at.is_some() {
            return;
        }
        if desk.book.starving().is_empty() && need == Need::Starving {
            return self.withdraw(desk);
        }
        let holds_back = desk.book.holds_back();
        let free = if holds_back { seed.victim(&desk.book) } else { free_chunk(&desk.book) };
        if let Some(free) = free {
            self.rent.reset();
            return self.give_up(desk, seed, free);
        }
        // What no peer starves for is not worth a chunk that a peer lacks.
        let is_starved_for =
            || desk.book.next_starving().any(|peer| peer.terms.order == Order::Peer);
        if need == Need::Ahead && !is_starved_for() {
            self.ahead_again_at = desk.now + AHEAD_AGAIN;
            return self.withdraw(desk);
        }
        match desk.book.config().eviction {
            _ if holds_back => {}
            Eviction::Lru if desk.book.draining_count() > 0 => {}
            Eviction::Lru => {
                if let Some(victim) = least_recently_used(&desk.book) {
                    self.give_up(desk, seed, victim);
                }
            }
            Eviction::Demand => self.buy(desk, seed),
        }
    }

    /// Gives up what only slower peers need, or another chunk if its price has been lost. Those that are in
    /// the midst of that one may finish; only if its price has been lost once more are they cut off.
    fn buy(&mut self, desk: &mut Desk, seed: &mut Seed) {
        let_the_slow_lead(&mut desk.book);
        if recall_left_behind(desk) {
            return self.promise(desk.now);
        }
        let mut left = left_behind(&desk.book);
        if left.is_none() && self.rent.take_look(desk.now) {
            self.pace.look(&mut desk.book, desk.now);
            let_the_slow_lead(&mut desk.book);
            left = left_behind(&desk.book);
        }
        if let Some(victim) = left {
            self.rent.reset();
            desk.book.count_purchase();
            return self.give_up(desk, seed, victim);
        }
        if self.rent.is_due() {
            self.rent.reset();
            if desk.book.draining_count() == 0 {
                desk.book.tidy_cached();
                if let Some(victim) = victim(&desk.book) {
                    desk.book.count_purchase();
                    // Slower peers don't finish in that time: no second price is lost for them.
                    let is_recalled = desk.book.chunk(victim).keen_unwritten == 0;
                    self.evict(desk, seed, victim, is_recalled);
                }
            } else {
                deliver::recall_draining(desk);
            }
        }
        self.wake_at = self.rent.due_at(desk.book.starving().loses());
        let promised_at = self.wish.and_then(|wish| wish.promised_at);
        if promised_at.is_some_and(|at| desk.now < at + PROMISE_KEPT) {
            self.wake_at = Some(desk.now + PROMISE_KEPT);
        }
    }

    fn give_up(&mut self, desk: &mut Desk, seed: &mut Seed, chunk: u32) {
        self.promise(desk.now);
        self.evict(desk, seed, chunk, true);
    }

    /// Memory was given up for the wish, and comes back soon.
    fn promise(&mut self, now: Time) {
        if let Some(wish) = &mut self.wish {
            wish.promised_at = Some(now);
        }
        self.wake_at = Some(now + PROMISE_KEPT);
    }

    fn evict(&mut self, desk: &mut Desk, seed: &mut Seed, chunk: u32, is_recalled: bool) {
        if deliver::evict(desk, chunk, is_recalled) {
            self.note_returned(desk);
            seed.absent(&mut desk.book, chunk);
        }
    }
}

/// Takes back what was given up and is being sent to peers only that have fallen behind since; whether
/// there was something.
fn recall_left_behind(desk: &mut Desk) -> bool {
    let is_left = |&chunk: &u32| {
        let state = desk.book.chunk(chunk);
        state.keen_unwritten == 0 && !state.is_recalled()
    };
    let left: Vec<u32> = desk.book.chunks().draining.iter().copied().filter(is_left).collect();
    left.iter().for_each(|&chunk| deliver::recall(desk, chunk));
    !left.is_empty()
}

/// A chunk that only peers need which have fallen behind: none of them is being sent it, or such chunks
/// fill more than their share of the cache.
fn left_behind(book: &Book) -> Option<u32> {
    let share = (book.usage() / PINNED_SHARE).max(1) as usize;
    let cached = &book.chunks().cached;
    let pinned = cached.bucket(PINNED);
    let left = least_preferred(book, cached.bucket(LEFT));
    left.or_else(|| (pinned.len() > share).then(|| least_preferred(book, pinned)).flatten())
}

/// What those that fell behind prefer least, the oldest of that.
fn least_preferred(book: &Book, chunks: &[u32]) -> Option<u32> {
    let cached = chunks.iter().filter_map(|&chunk| book.chunk(chunk).cached());
    let evictable = cached.filter(|cached| !cached.is_protected).take(EVICTIONS_COMPARED);
    let sequences = evictable.map(|cached| cached.sequence);
    let least = sequences.min_by_key(|&sequence| (precedence(sequence), sequence))?;
    book.log().get(least)
}

/// A cached chunk that no peer needs.
fn free_chunk(book: &Book) -> Option<u32> {
    book.chunks().cached.bucket(FREE).first().copied()
}

/// The least needed chunk that may go; ties: the one used longest ago.
fn victim(book: &Book) -> Option<u32> {
    let evictable = |&(chunk, rank): &(u32, u32)| rank == FREE || !book.chunk(chunk).is_protected();
    let used_at = |chunk| book.chunk(chunk).cached().map(|cached| cached.used_at);
    let mut candidates = book.chunks().cached.iter_up().filter(evictable);
    let (mut best, least) = candidates.next()?;
    for (chunk, rank) in candidates.take(EVICTIONS_COMPARED) {
        if rank > least {
            break;
        }
        if used_at(chunk) < used_at(best) {
            best = chunk;
        }
    }
    Some(best)
}

/// The ancestors' policy, for comparison; looks at the whole cache.
fn least_recently_used(book: &Book) -> Option<u32> {
    let cached = book.chunks().cached.iter_up().map(|(chunk, _)| chunk);
    cached
        .filter_map(|chunk| Some((chunk, book.chunk(chunk).cached()?)))
        .filter(|(_, cached)| !cached.is_protected)
        .min_by_key(|(_, cached)| (cached.used_at, cached.sequence))
        .map(|(chunk, _)| chunk)
}
