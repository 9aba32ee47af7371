//! What is fetched next: the chunk that most peers want, of a holder that can be asked (`holders`).
//!
//! A fetch is worth its memory for peers that starve, or while memory lies idle. Every search is bounded.

use relay_protocol::{Order, time::Time};

use super::{
    holders::{self, Choice},
    leave::Leave,
    room::Room,
    seed::Seed,
};
use crate::{
    api::PeerSlot,
    book::{
        Book, STARVING_PER_SCAN,
        chunks::ones,
        fetches::{Need, Pick},
        peer::Peer,
    },
    desk::Desk,
};

/// Chunks that one decision looks at, most wanted first: a bound on its cost.
const CHUNKS_PER_SCAN: usize = 48;

/// Idle holders that one decision compares.
const HOLDERS_PER_SCAN: usize = 16;

/// Chunks for which one decision looks for a holder.
const CHOICES_PER_SCAN: usize = 8;

/// Chunks of one idle holder that a decision compares: all of a file of ordinary size.
const CHUNKS_PER_HOLDER: usize = 4096;

/// Starving peers among which the one is sought that has starved longest.
const STARVING_COMPARED: usize = 64;

/// Wants of one peer in peer order that are fetched ahead while memory lies idle, at least.
const WANTS_AHEAD_MIN: u32 = 4;

/// The same in bytes: with tiny chunks four of them would leave all peers waiting for round trips.
const WANTS_AHEAD_BYTES: u32 = 64 << 10;

/// Where the searches go on.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    /// Among the idle holders.
    turn: usize,
    /// Where a peer was found last that could be asked for something.
    askable_hint: u32,
    /// Nothing could be fetched when last tried, and nothing has changed since.
    found_nothing: bool,
}

impl Picker {
    /// Whether it is known that nothing can be fetched.
    #[inline]
    pub(crate) fn knows_of_nothing(&self, book: &Book) -> bool {
        self.found_nothing && !book.has_news()
    }

    /// Chooses the next fetch.
    pub(crate) fn pick(
        &mut self,
        desk: &mut Desk,
        seed: &mut Seed,
        leave: &mut Leave,
        room: &Room,
    ) -> Option<Pick> {
        desk.book.forget_news();
        desk.book.tidy_fetchable();
        let pick = if desk.book.holds_back() {
            seed.pick(desk)
        } else {
            leave.pick(&desk.book).or_else(|| self.pick_wanted(&mut desk.book, room, desk.now))
        };
        self.found_nothing = pick.is_none();
        pick
    }

    fn pick_wanted(&mut self, book: &mut Book, room: &Room, now: Time) -> Option<Pick> {
        // Mostly no holder can, and to find that out chunk by chunk would cost a look at all of them.
        if !self.can_ask_any(book) {
            return None;
        }
        if !book.starving().is_empty()
            && let Some(pick) = self.pick_starving(book)
        {
            return Some(pick);
        }
        if room.may_fetch_ahead(book, now) { self.pick_ahead(book) } else { None }
    }

    /// Whether a holder that can take one more fetch has anything that could be fetched.
    fn can_ask_any(&mut self, book: &Book) -> bool {
        let fetchable = book.chunks().fetchable_bits.words();
        let (slots, start) = (book.peers().slot_count(), self.askable_hint);
        let mut slots = (0..slots).map(|step| PeerSlot((start + step) % slots));
        let found = slots.find(|&slot| {
            book.find(slot).is_some_and(|peer| {
                let mut words = peer.have.words().iter().zip(fetchable);
                peer.is_holder()
                    && holders::may_ask(book, peer)
                    && words.any(|(have, some)| have & some != 0)
            })
        });
        self.askable_hint = found.map_or(0, |slot| slot.0);
        found.is_some()
    }

    /// For the peer that has starved longest what most others want too; for another if no holder can be
    /// asked for that.
    fn pick_starving(&mut self, book: &mut Book) -> Option<Pick> {
        let starving = book.starving();
        let entered = |slot: &PeerSlot| book.peer(*slot).starving.map(|starved| starved.entered);
        let longest = starving.next(STARVING_COMPARED).min_by_key(entered)?;
        let mut busy = None;
        for slot in std::iter::once(longest).chain(starving.next(STARVING_PER_SCAN)) {
            match pick_for(book, slot) {
                Some((pick, true)) => return Some(pick),
                Some((pick, false)) if busy.is_none() => busy = Some(pick),
                _ => {}
            }
        }
        book.turn_starving(STARVING_PER_SCAN);
        self.pick_of_idle(book, Need::Starving).or(busy)
    }

    /// What comes next for a peer in peer order; else the most wanted chunk, preferably of an idle
    /// holder.
    fn pick_ahead(&mut self, book: &Book) -> Option<Pick> {
        let ahead = (WANTS_AHEAD_BYTES / book.config().chunk_size_bytes).max(WANTS_AHEAD_MIN);
        for &slot in book.starving().peers().iter().take(STARVING_PER_SCAN) {
            let wants = fetchable_wants(book, book.peer(slot), ahead as usize);
            if let Some((pick, _)) = pick_among(book, wants, Need::Ahead) {
                return Some(pick);
            }
        }
        let chunks = book.chunks().fetchable.iter_down().map(|(chunk, _)| chunk);
        let (pick, idle) = pick_among(book, chunks, Need::Ahead).unzip();
        if idle == Some(true) { pick } else { self.pick_of_idle(book, Need::Ahead).or(pick) }
    }

    /// The most wanted chunk of the next few idle holders.
    fn pick_of_idle(&mut self, book: &Book, need: Need) -> Option<Pick> {
        // In peer order a starving peer takes what it wants next and nothing else.
        let is_taken = |peer: &Peer| peer.terms.order == Order::Relay;
        if need == Need::Starving && !book.next_starving().any(is_taken) {
            return None;
        }
        let worth = worth_fetching(book, need);
        let idle = book.idle_holders();
        let mut best: Option<(u32, Pick)> = None;
        for _ in 0..idle.len().min(HOLDERS_PER_SCAN) {
            self.turn = (self.turn + 1) % idle.len();
            let holder = idle[self.turn];
            let peer = book.peer(holder);
            let is_last_choice = peer.supply.silence.is_slow
                || peer.supply.may_go
                || peer.terms.is_suspect
                || peer.terms.is_uplink;
            if is_last_choice || !holders::may_ask(book, peer) {
                continue;
            }
            let words = peer.have.words().iter().zip(&worth);
            let chunks = ones(words.map(|(have, worth)| have & worth));
            for chunk in chunks.take(CHUNKS_PER_HOLDER) {
                let wanted = book.chunk(chunk).wanted;
                if best.is_none_or(|(most, _)| wanted > most) {
                    best = Some((wanted, Pick { chunk, holder, need }));
                }
            }
        }
        best.map(|(_, pick)| pick)
    }
}

/// A chunk that this peer lacks and a holder can be asked for.
fn any_askable_for(book: &Book, peer: &Peer) -> Option<u32> {
    book.peers().iter().find_map(|(_, holder)| {
        if !holder.is_holder() || !holders::may_ask(book, holder) {
            return None;
        }
        let lacked = peer.settled.words().iter().zip(book.chunks().fetchable_bits.words());
        let words = lacked.zip(holder.have.words());
        let mut askable = ones(words.map(|((settled, some), have)| !settled & some & have));
        askable.find(|&chunk| !holder.supply.may_go || book.chunk(chunk).holders == 1)
    })
}

/// The first of these chunks that an idle holder has, or one that can take one more fetch; and
/// whether it is idle.
fn pick_among(book: &Book, chunks: impl Iterator<Item = u32>, need: Need) -> Option<(Pick, bool)> {
    let mut busy = None;
    for chunk in chunks.take(CHOICES_PER_SCAN) {
        match holders::find_holder(book, chunk, None) {
            Some(Choice { slot, idle: true }) => {
                return Some((Pick { chunk, holder: slot, need }, true));
            }
            Some(Choice { slot, .. }) if busy.is_none() => {
                busy = Some((Pick { chunk, holder: slot, need }, false));
            }
            _ => {}
        }
    }
    busy
}

/// The first few chunks that a peer in peer order wants, as far as they can be fetched.
fn fetchable_wants(book: &Book, peer: &Peer, count: usize) -> impl Iterator<Item = u32> {
    let wants = peer.wants.iter().take(count);
    wants.filter(|&chunk| book.chunks().fetchable_bits.contains(chunk))
}

/// Something that this starving peer lacks; in peer order only what it wants next: more would
/// push out of a small cache what the next one needs.
fn pick_for(book: &Book, slot: PeerSlot) -> Option<(Pick, bool)> {
    let (chunks, peer, need) = (book.chunks(), book.peer(slot), Need::Starving);
    if peer.terms.order == Order::Peer {
        return pick_among(book, fetchable_wants(book, peer, 1), need);
    }
    let top = chunks.fetchable.iter_down().map(|(chunk, _)| chunk).take(CHUNKS_PER_SCAN);
    let top = top.filter(|&chunk| peer.lacks(chunk));
    pick_among(book, top, need).or_else(|| {
        let words = peer.settled.words().iter().zip(chunks.fetchable_bits.words());
        let all = ones(words.map(|(settled, fetchable)| !settled & fetchable));
        let mut some: Vec<u32> = all.take(CHUNKS_PER_SCAN).collect();
        some.sort_by_key(|&chunk| std::cmp::Reverse(chunks.get(chunk).wanted));
        pick_among(book, some.into_iter(), need).or_else(|| {
            let chunk = any_askable_for(book, peer)?;
            let holder = holders::find_holder(book, chunk, None)?.slot;
            Some((Pick { chunk, holder, need }, false))
        })
    })
}

/// What can be fetched, as bits; for starving peers only what one of the next few would take.
fn worth_fetching(book: &Book, need: Need) -> Vec<u64> {
    let fetchable = book.chunks().fetchable_bits.words();
    if need != Need::Starving {
        return fetchable.to_vec();
    }
    let mut lacked = vec![0; fetchable.len()];
    for peer in book.next_starving().filter(|peer| peer.terms.order == Order::Relay) {
        for (lacked, settled) in lacked.iter_mut().zip(peer.settled.words()) {
            *lacked |= !settled;
        }
    }
    lacked.iter().zip(fetchable).map(|(lacked, fetchable)| lacked & fetchable).collect()
}
