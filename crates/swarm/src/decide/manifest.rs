//! From whom the manifest is asked: one peer, the next if it refuses or lies, and more and more of
//! them if they say nothing.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use relay_protocol::time::Time;

use crate::{
    api::{Action, PeerSlot},
    book::{Book, peer::Peer},
    desk::Desk,
};

/// After so long without an answer others are asked as well: twice as many each time, so that it
/// takes a few seconds to find one honest peer among a thousand that say nothing.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(1);

/// Digests of all manifests that one step may ask for: 4 MiB of them come at once at most, beside
/// those of earlier steps. A large manifest is asked of one more each time.
const DIGESTS_PER_STEP_MAX: u32 = 1 << 17;

/// When no peer is left to ask, those that were asked last have so long before the manifest counts as
/// missing.
const MISSING_AFTER: Duration = Duration::from_secs(5);

/// When no peer is left to ask, all are asked again after so long: a peer that had none may have
/// got one.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which peers are asked.
#[derive(Debug)]
pub(crate) struct Manifest {
    known: bool,
    /// In the order in which they were asked; none of them has answered.
    asked: Vec<PeerSlot>,
    asked_at: Time,
    /// Peers that were asked in this round, or have answered that they can't.
    tried: BTreeSet<PeerSlot>,
    /// How many the next step asks.
    width: u32,
    /// All peers that could have it were asked in vain: no chunk can be verified.
    exhausted: bool,
    /// When to look again.
    next_at: Option<Time>,
}

impl Manifest {
    pub(crate) fn new(chunk_count: u32) -> Self {
        Self {
            known: chunk_count == 0,
            asked: Vec::new(),
            asked_at: Time::ZERO,
            tried: BTreeSet::new(),
            width: 1,
            exhausted: false,
            next_at: None,
        }
    }

    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether no peer has it that was asked: then every chunk is as good as missing.
    #[inline]
    pub(crate) fn is_missing(&self) -> bool {
        self.exhausted && !self.known
    }

    /// The peer has supplied it.
    pub(crate) fn came(&mut self, book: &mut Book, now: Time, slot: PeerSlot) {
        // How long it took says how long the path is.
        let holds_nothing = |(other, peer): (_, &Peer)| other == slot || peer.have.count() == 0;
        if book.peers().iter().all(holds_nothing) && self.asked.contains(&slot) {
            book.guess_depth(slot, now.since(self.asked_at));
        }
        self.known = true;
        self.next_at = None;
        self.asked = Vec::new();
        book.note_news();
    }

    /// The peer has answered that it can't supply it, or supplied a wrong one.
    pub(crate) fn refused(&mut self, book: &Book, slot: PeerSlot) {
        self.lost(slot);
        if book.find(slot).is_some() {
            self.tried.insert(slot);
        }
    }

    /// The peer will not answer, if it was asked.
    pub(crate) fn lost(&mut self, slot: PeerSlot) {
        let before = self.asked.len();
        self.asked.retain(|&other| other != slot);
        if self.asked.len() < before && self.asked.is_empty() {
            self.next_at = None;
        }
    }

    /// The peer's slot may be another's soon.
    pub(crate) fn gone(&mut self, slot: PeerSlot) {
        self.tried.remove(&slot);
    }

    /// A peer joined or got its first chunk: it can be asked at once.
    pub(crate) fn holder_came(&mut self) {
        self.exhausted = false;
        if self.asked.is_empty() {
            self.next_at = None;
        }
    }

    pub(crate) fn timeout(&self) -> Option<Time> {
        self.next_at
    }

    /// Asks for it while it is not known.
    #[inline]
    pub(crate) fn step(&mut self, desk: &mut Desk) {
        if !self.known && self.next_at.is_none_or(|at| desk.now >= at) {
            self.ask(desk);
        }
    }

    fn ask(&mut self, desk: &mut Desk) {
        // An end of an uplink passes it on.
        let needs = |peer: &Peer| peer.terms.is_uplink || !peer.settled.is_full();
        let wanted = desk.book.peers().iter().any(|(_, peer)| needs(peer));
        let next = if wanted { self.next_holders(&desk.book) } else { Vec::new() };
        if next.is_empty() {
            return self.exhaust(desk.now, wanted);
        }
        self.asked_at = desk.now;
        self.next_at = Some(desk.now + ASK_NEXT_AFTER);
        let width_max = DIGESTS_PER_STEP_MAX / desk.book.chunks().count().max(1);
        self.width = (2 * self.width).min(width_max.max(1));
        for holder in next {
            self.tried.insert(holder);
            self.asked.push(holder);
            desk.actions.push(Action::FetchManifest { holder });
        }
    }

    /// The peers that are asked next: those that are trusted and claim most, of equals those that came first.
    fn next_holders(&self, book: &Book) -> Vec<PeerSlot> {
        let holders = book.peers().iter().filter(|(_, peer)| peer.have.count() > 0);
        let mut untried: Vec<_> = holders
            .filter(|(slot, _)| !self.tried.contains(slot))
            .map(|(slot, peer)| (peer.terms.is_suspect, Reverse(peer.have.count()), slot.0))
            .collect();
        untried.sort_unstable();
        untried.truncate(self.width as usize);
        untried.into_iter().map(|(.., slot)| PeerSlot(slot)).collect()
    }

    /// No peer is left to ask.
    fn exhaust(&mut self, now: Time, wanted: bool) {
        let patient_until = self.asked_at + MISSING_AFTER;
        if !self.asked.is_empty() && now < patient_until {
            self.next_at = Some(patient_until);
            return;
        }
        self.asked.clear();
        self.width = 1;
        self.exhausted = true;
        self.next_at = wanted.then(|| now + ASK_AGAIN_AFTER);
        self.tried.clear();
    }
}
