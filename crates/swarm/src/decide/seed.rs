//! How a swarm begins: plain fan-out, or a spread of disjoint parts over the first peers.
//!
//! While a file is spread, every chunk is fetched from the origin once, delivered to the one peer
//! whose part it is, and forgotten when that delivery is written. When every chunk was
//! acknowledged by a peer that is still there, the exchange begins with an empty cache.
//!
//! The first owners wait for slower ones for a while ([`super::patience`]). Then, as soon as the origin has no more
//! to do than to wait for those, the exchange begins without the rest of their parts; `finish` says when the
//! origin may go.
//!
//! Invariant: the book holds back while the origin waits or spreads.

mod finish;
mod parts;

use std::{collections::BTreeSet, time::Duration};

use relay_protocol::{Bitfield, Seeding, time::Time};

use self::parts::Parts;
use super::{
    deliver::{self, evict},
    holders::may_ask,
    patience::Patience,
};
use crate::{
    api::PeerSlot,
    book::{
        Book,
        fetches::{Fetch, Need, Pick},
        intake::Delivery,
        peer::Peer,
    },
    desk::Desk,
};

/// How often parts are checked for owners that have stopped.
const STALL_CHECK_EVERY: Duration = Duration::from_secs(1);

/// For so long a chunk of a spread waits for memory before slow owners are to blame, whose chunks fill it.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
enum Phase {
    /// All peers exchange what they have.
    #[default]
    Open,
    /// The origin waits for so many peers; when it has waited long enough, it takes those that are there.
    Waiting { origin: PeerSlot, peers: u32, start_by: Time, is_over: bool },
    /// Parts are handed out.
    Spreading { origin: PeerSlot, check_at: Time, began_at: Time, patience: Patience },
    /// All peers exchange what they have, and the origin waits until they hold all of the file.
    Finishing { origin: PeerSlot },
}

/// What has been handed out to whom.
#[derive(Debug, Default)]
pub(crate) struct Seed {
    phase: Phase,
    /// A policy was stated or something was delivered: no policy is accepted any more.
    decided: bool,
    /// Peers that joined with nothing and still take part.
    empty: BTreeSet<PeerSlot>,
    parts: Parts,
}

/// When a spread begins and ends.
impl Seed {
    fn spreading_origin(&self) -> Option<PeerSlot> {
        match self.phase {
            Phase::Spreading { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// Hands a part to the others; with `all`, what its owner acknowledged too.
    fn hand_on(&mut self, book: &mut Book, now: Time, slot: PeerSlot, all: bool) {
        let Some(lost) = self.parts.take(slot, all) else { return };
        if !self.parts.is_empty() {
            return self.parts.hand_on(book, &lost);
        }
        let Some(origin) = self.spreading_origin() else { return };
        self.parts.acknowledged = Bitfield::empty(book.chunks().count());
        self.phase = Phase::Waiting { origin, peers: 1, start_by: now, is_over: false };
    }

    /// Deals the chunks out.
    fn start_spreading(&mut self, desk: &mut Desk, origin: PeerSlot) {
        let count = desk.book.chunks().count();
        let owners: Vec<PeerSlot> = self.empty.iter().copied().take(count as usize).collect();
        if owners.is_empty() {
            return;
        }
        // What an earlier spread left would be in the way: no owner takes it from the cache.
        let cached: Vec<u32> =
            desk.book.chunks().cached.iter_up().map(|(chunk, _)| chunk).collect();
        for chunk in cached {
            self.forget(desk, chunk, true);
        }
        let check_at = desk.now + STALL_CHECK_EVERY;
        let patience = Patience::Whole;
        self.phase = Phase::Spreading { origin, check_at, began_at: desk.now, patience };
        self.parts.deal(&mut desk.book, &owners);
    }

    /// The parts add up, and the book knows whether there is a spread.
    pub(crate) fn invariants(&self, book: &Book) {
        self.parts.invariants(self.spreading_origin().is_some());
        let holds_back = matches!(self.phase, Phase::Waiting { .. } | Phase::Spreading { .. });
        assert_eq!(book.holds_back(), holds_back);
        assert!(self.empty.iter().all(|&slot| book.peer(slot).is_joined()));
    }
}

/// What happens to peers.
impl Seed {
    /// A peer has joined. The first that has all of the file may state how it is to be spread.
    pub(crate) fn joined(&mut self, desk: &mut Desk, slot: PeerSlot) {
        let count = desk.book.chunks().count();
        let peer = desk.book.peer(slot);
        if peer.have.count() == 0 && !peer.terms.is_uplink {
            self.empty.insert(slot);
        }
        let stated = peer.terms.seeding.filter(|_| peer.have.is_full());
        self.count_copies(desk, slot);
        let Some(seeding) = stated else { return };
        if self.decided || desk.book.counters().deliveries > 0 || count == 0 {
            return;
        }
        self.decided = true;
        if let Seeding::Spread { peers } = seeding {
            let start_by = desk.now + desk.book.config().spread_wait;
            self.phase = Phase::Waiting { origin: slot, peers, start_by, is_over: false };
            self.parts.acknowledged = Bitfield::empty(count);
            desk.book.hold_back(true);
            for slot in desk.book.slots() {
                desk.book.refresh_starving(desk.now, slot);
            }
        }
    }

    /// The peer is gone, banned or leaving: others get its part, and what it had taken too, as
    /// only the origin has that now.
    pub(crate) fn lost(&mut self, desk: &mut Desk, slot: PeerSlot) {
        self.empty.remove(&slot);
        match self.phase {
            Phase::Finishing { origin } if origin == slot => self.phase = Phase::Open,
            Phase::Waiting { origin, .. } | Phase::Spreading { origin, .. }
                if origin == slot && !desk.book.peer(slot).is_holder() =>
            {
                self.open(desk);
            }
            Phase::Spreading { .. } => self.hand_on(&mut desk.book, desk.now, slot, true),
            _ => {}
        }
    }

    /// When something is due though nothing happens.
    pub(crate) fn timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { start_by, is_over, .. } => (!is_over).then_some(start_by),
            Phase::Spreading { check_at, patience, .. } => {
                Some(patience.look_at().map_or(check_at, |at| at.min(check_at)))
            }
            Phase::Open | Phase::Finishing { .. } => None,
        }
    }

    /// While the book holds back: begins to spread, ends it, or looks for owners that have stopped. Room has been
    /// wished for since `room_asked_at`, if it is.
    pub(crate) fn step(
        &mut self,
        desk: &mut Desk,
        has_manifest: bool,
        room_asked_at: Option<Time>,
    ) {
        match self.phase {
            Phase::Waiting { origin, peers, start_by, ref mut is_over } => {
                *is_over = desk.now >= start_by;
                let is_over = *is_over;
                let present = u32::try_from(self.empty.len()).expect("fewer than connections");
                let enough = present >= peers || present > 0 && is_over;
                if enough && has_manifest {
                    self.start_spreading(desk, origin);
                } else if is_over && present == 0 && does_any_lack(&desk.book) {
                    self.open(desk);
                }
            }
            Phase::Spreading { ref mut check_at, ref mut patience, began_at, .. } => {
                let is_stall_checked = *check_at <= desk.now;
                if is_stall_checked {
                    *check_at = desk.now + STALL_CHECK_EVERY;
                }
                let (owners, done) = self.parts.counts();
                let is_over =
                    patience.look(desk.now, began_at, done, owners, desk.book.chunks().count());
                let waits_long =
                    room_asked_at.is_some_and(|at| desk.now.since(at) >= ROOM_WAIT_MAX);
                if is_over && (self.parts.next_ready(&desk.book).is_none() || waits_long) {
                    self.open(desk);
                } else if is_stall_checked {
                    self.hand_on_stalled(desk);
                }
            }
            Phase::Open | Phase::Finishing { .. } => {}
        }
    }

    /// Peers that have taken nothing for as long as a spread waits for peers lose the rest of
    /// their parts to the others.
    fn hand_on_stalled(&mut self, desk: &mut Desk) {
        let wait = desk.book.config().spread_wait;
        let silent =
            |&slot: &PeerSlot| desk.now.since(desk.book.peer(slot).seen.progress_at) >= wait;
        let stalled: Vec<PeerSlot> = self.parts.owing().filter(silent).collect();
        if stalled.len() == self.parts.counts().0 {
            return self.open(desk);
        }
        for slot in stalled {
            self.hand_on(&mut desk.book, desk.now, slot, false);
        }
    }
}

/// Whether peers that take no part, as they have something already, are held back in vain.
fn does_any_lack(book: &Book) -> bool {
    book.peers().iter().any(|(_, peer)| peer.is_joined() && !peer.settled.is_full())
}

/// What is fetched for whom.
impl Seed {
    /// The owner may be able to take a chunk.
    pub(crate) fn ready(&mut self, book: &mut Book, slot: PeerSlot) {
        self.parts.refresh_ready(book, slot);
    }

    /// The next chunk of the next owner that can take one.
    pub(crate) fn pick(&mut self, desk: &mut Desk) -> Option<Pick> {
        let origin = self.spreading_origin()?;
        if !may_ask(&desk.book, desk.book.peer(origin)) {
            return None;
        }
        let (slot, chunk) = self.parts.next_ready(&desk.book)?;
        if !desk.book.peer(origin).have.contains(chunk) {
            self.open(desk);
            return None;
        }
        Some(Pick { chunk, holder: origin, need: Need::Seeding(slot) })
    }

    /// A fetch for a part begins.
    pub(crate) fn fetching(&mut self, book: &mut Book, slot: PeerSlot, chunk: u32) {
        self.parts.fetching(book, slot, chunk);
    }

    /// A chunk that was fetched for a part is in the cache.
    pub(crate) fn fetched(&mut self, desk: &mut Desk, fetch: &Fetch) {
        let (Need::Seeding(slot), chunk) = (fetch.need, fetch.chunk) else { return };
        self.parts.fetch_ended(&desk.book, slot, chunk);
        if self.spreading_origin().is_none() {
            return;
        }
        let owner = self.parts.owner(chunk);
        let owner =
            owner.filter(|&owner| self.parts.has(owner) && desk.book.peer(owner).lacks(chunk));
        if let Some(owner) = owner {
            desk.book.note_progress(desk.now, owner);
            deliver::deliver(desk, owner, chunk);
        } else {
            self.forget(desk, chunk, true);
        }
        self.ready(&mut desk.book, slot);
    }

    /// A fetch brought nothing, and no rival goes on.
    pub(crate) fn fetch_lost(&mut self, book: &mut Book, fetch: &Fetch) {
        let Need::Seeding(slot) = fetch.need else { return };
        if fetch.rival.is_some() {
            return;
        }
        self.parts.fetch_ended(book, slot, fetch.chunk);
        if let Some(owner) = self.parts.owner(fetch.chunk) {
            self.parts.todo(book, owner, fetch.chunk);
        }
    }

    /// A delivery is written (or given up). If it was a part's, the relay forgets the chunk.
    pub(crate) fn released(
        &mut self,
        desk: &mut Desk,
        Delivery { chunk, .. }: Delivery,
        is_drained: bool,
    ) {
        if is_drained {
            self.absent(&mut desk.book, chunk);
        }
        let is_spread = self.spreading_origin().is_some();
        if is_spread && desk.book.chunks().is_cached(chunk) && desk.book.chunk(chunk).unwritten == 0
        {
            self.forget(desk, chunk, false);
        }
    }

    fn forget(&mut self, desk: &mut Desk, chunk: u32, is_recalled: bool) {
        if evict(desk, chunk, is_recalled) {
            self.absent(&mut desk.book, chunk);
        }
    }

    /// The chunk's memory is free: it can be fetched for its owner (again).
    pub(crate) fn absent(&mut self, book: &mut Book, chunk: u32) {
        if let Some(owner) = self.parts.owner(chunk) {
            self.ready(book, owner);
        }
    }

    /// A delivery did not arrive, or its receiver lost the chunk again.
    pub(crate) fn returned(&mut self, book: &mut Book, slot: PeerSlot, chunk: u32) {
        if self.spreading_origin().is_some() && self.parts.owner(chunk) == Some(slot) {
            self.parts.returned(book, slot, chunk);
        }
    }

    /// A peer has a chunk now.
    pub(crate) fn kept(
        &mut self,
        desk: &mut Desk,
        (slot, chunk): (PeerSlot, u32),
        delivered: bool,
    ) {
        match self.phase {
            Phase::Spreading { .. } => {
                let is_own = self.parts.owner(chunk) == Some(slot);
                if delivered && is_own && self.parts.has(slot) {
                    self.parts.set_acknowledged(chunk, true);
                    if self.parts.acknowledged.is_full() {
                        self.open(desk);
                    }
                }
            }
            Phase::Finishing { .. } => self.count_copy(desk, (slot, chunk), delivered),
            _ => {}
        }
    }

    /// In a spread: a chunk that waits for an owner that takes nothing.
    pub(crate) fn victim(&self, book: &Book) -> Option<u32> {
        let mut cached = book.chunks().cached.iter_up().map(|(chunk, _)| chunk);
        cached.find(|&chunk| {
            let owner = self.parts.owner(chunk).and_then(|owner| book.find(owner));
            !owner.is_some_and(Peer::is_counted)
        })
    }
}
