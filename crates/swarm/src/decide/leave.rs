//! Peers that would like to go: what only they hold is fetched first.
//!
//! A leaving peer holds and wants no more. It is granted to leave when no chunk is held by it
//! alone while some other peer stays that lacks it, or when its deadline has passed.

use relay_protocol::time::Time;

use super::holders::may_ask;
use crate::{
    api::PeerSlot,
    book::{
        Book,
        chunks::{Place, ones},
        fetches::{Need, Pick},
        peer::Standing,
    },
    desk::Desk,
};

/// Leaving peers that one choice of a fetch looks at.
const LEAVING_PER_SCAN: usize = 4;

/// A peer that would like to go.
#[derive(Clone, Copy, Debug)]
struct Leaver {
    slot: PeerSlot,
    since: Time,
    /// A chunk that only it holds, as last seen.
    witness: Option<u32>,
}

/// The peers that would like to go.
#[derive(Debug, Default)]
pub(crate) struct Leave {
    /// In the order in which they asked: the first goes first.
    leavers: Vec<Leaver>,
    /// A grant may have become possible.
    recheck: bool,
    turn: usize,
}

/// One look at all that would like to go.
#[derive(Debug)]
pub(crate) struct Round {
    rest: std::vec::IntoIter<PeerSlot>,
    /// A peer stays that lacks something.
    has_dependants: bool,
}

impl Leave {
    /// The peer asks to go.
    pub(crate) fn asked(&mut self, now: Time, slot: PeerSlot) {
        self.leavers.push(Leaver { slot, since: now, witness: None });
        self.recheck = true;
    }

    /// The peer has gone or is granted to.
    pub(crate) fn ended(&mut self, slot: PeerSlot) {
        self.leavers.retain(|other| other.slot != slot);
    }

    /// A grant may have become possible.
    pub(crate) fn recheck(&mut self) {
        self.recheck = true;
    }

    /// A chunk has one more holder: a peer that was kept for it may go.
    pub(crate) fn holder_came(&mut self, chunk: u32) {
        self.recheck |= self.leavers.iter().any(|leaver| leaver.witness == Some(chunk));
    }

    #[inline]
    pub(crate) fn timeout(&self, book: &Book) -> Option<Time> {
        self.leavers.first().map(|leaver| leaver.since + book.config().leaving_deadline)
    }

    /// Whether a grant may be possible.
    #[inline]
    pub(crate) fn is_due(&self, desk: &Desk) -> bool {
        let is_due = |at| self.recheck || at <= desk.now;
        self.timeout(&desk.book).is_some_and(is_due)
    }

    /// Begins to look at all that would like to go.
    pub(crate) fn begin_round(&mut self, book: &Book) -> Round {
        self.recheck = false;
        let slots: Vec<PeerSlot> = self.leavers.iter().map(|leaver| leaver.slot).collect();
        let has_dependants =
            book.peers().iter().any(|(_, peer)| peer.is_joined() && !peer.settled.is_full());
        Round { rest: slots.into_iter(), has_dependants }
    }

    /// The next peer of the round that may go.
    pub(crate) fn next_granted(&mut self, desk: &Desk, round: &mut Round) -> Option<PeerSlot> {
        round.rest.find(|&slot| {
            let Some(leaver) = self.leavers.iter_mut().find(|leaver| leaver.slot == slot) else {
                return false;
            };
            let patient = desk.now.since(leaver.since) < desk.book.config().leaving_deadline;
            let may_wait = round.has_dependants && patient;
            let witness = only_held_by(&desk.book, slot).next().filter(|_| may_wait);
            if witness.is_some() {
                leaver.witness = witness;
            }
            witness.is_none()
        })
    }

    /// A chunk that only a leaving peer holds.
    pub(crate) fn pick(&mut self, book: &Book) -> Option<Pick> {
        let count = self.leavers.len();
        for _ in 0..count.min(LEAVING_PER_SCAN) {
            self.turn = (self.turn + 1) % count;
            let holder = self.leavers[self.turn].slot;
            if !may_ask(book, book.peer(holder)) {
                continue;
            }
            let absent = |chunk: &u32| book.chunk(*chunk).place == Place::Absent;
            if let Some(chunk) = only_held_by(book, holder).find(absent) {
                return Some(Pick { chunk, holder, need: Need::Leaving });
            }
        }
        None
    }

    /// The list has the peers that said so, and no other.
    pub(crate) fn invariants(&self, book: &Book) {
        let is_leaving = |slot| book.peer(slot).standing == Standing::Leaving;
        assert!(self.leavers.iter().all(|leaver| is_leaving(leaver.slot)));
        let leaving = book.peers().iter().filter(|&(slot, _)| is_leaving(slot)).count();
        assert_eq!(self.leavers.len(), leaving);
    }
}

fn only_held_by(book: &Book, slot: PeerSlot) -> impl Iterator<Item = u32> {
    let words = book.peer(slot).have.words().iter().zip(book.chunks().sole_bits.words());
    ones(words.map(|(have, sole)| have & sole))
}
