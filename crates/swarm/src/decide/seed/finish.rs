//! The end of a spread: peers exchange what they have, and the origin waits until they hold all of the file.
//!
//! Until then it is asked for nothing that others hold, too. A chunk has a copy if a peer acknowledged a delivery of it, or
//! if a peer holds it that has supplied something right: a bare claim may be a lie. When its last holder but the
//! origin goes, or turns out not to have it, it has none.

use relay_protocol::{Bitfield, time::Time};

use super::{Phase, Seed};
use crate::{
    actions::Actions,
    api::{Action, PeerSlot},
    book::{Book, peer::Peer},
    decide::deliver::serve,
};

impl Seed {
    /// The exchange begins.
    pub(super) fn open(&mut self, book: &mut Book, actions: &mut Actions, now: Time) {
        let (origin, was_spread) = match self.phase {
            Phase::Waiting { origin, .. } => (Some(origin), false),
            Phase::Spreading { origin, .. } => (Some(origin), true),
            Phase::Open | Phase::Finishing { .. } => (None, false),
        };
        let origin = origin.filter(|&origin| book.find(origin).is_some_and(Peer::is_holder));
        self.phase = origin.map_or(Phase::Open, |origin| Phase::Finishing { origin });
        book.hold_back(false);
        self.parts.clear();
        book.note_news();
        let slots = book.slots();
        if let Some(origin) = origin {
            if was_spread {
                book.let_go(origin);
            }
            for chunk in 0..book.chunks().count() {
                self.forget_lost_copy(book, origin, chunk);
            }
            slots.iter().for_each(|&slot| self.count_copies(book, actions, slot));
            self.let_origin_go(book, actions);
        }
        for slot in slots {
            serve(book, actions, now, slot);
        }
    }

    /// A peer has a chunk now, by a delivery or by its own word.
    pub(super) fn count_copy(
        &mut self,
        book: &mut Book,
        actions: &mut Actions,
        (slot, chunk): (PeerSlot, u32),
        delivered: bool,
    ) {
        if let Phase::Finishing { origin } = self.phase
            && origin != slot
            && (delivered || book.peer(slot).supply.is_proven)
        {
            self.parts.acknowledged.insert(chunk);
            self.let_origin_go(book, actions);
        }
    }

    /// The peer has supplied something right: what it holds are copies.
    pub(crate) fn count_copies(&mut self, book: &mut Book, actions: &mut Actions, slot: PeerSlot) {
        let peer = book.peer(slot);
        if let Phase::Finishing { origin } = self.phase
            && origin != slot
            && peer.supply.is_proven
            && peer.is_holder()
        {
            for chunk in peer.have.iter() {
                self.parts.acknowledged.insert(chunk);
            }
            self.let_origin_go(book, actions);
        }
    }

    /// A holder of this chunk is one no more.
    pub(crate) fn copy_lost(&mut self, book: &Book, chunk: u32) {
        if let Phase::Finishing { origin } = self.phase {
            self.forget_lost_copy(book, origin, chunk);
        }
    }

    /// The same of all chunks of a holder that is retired.
    pub(crate) fn copies_lost(&mut self, book: &Book, chunks: &Bitfield) {
        chunks.iter().for_each(|chunk| self.copy_lost(book, chunk));
    }

    /// The chunk has no copy if no holder is left but the origin.
    fn forget_lost_copy(&mut self, book: &Book, origin: PeerSlot, chunk: u32) {
        let is_at_origin = book.find(origin).is_some_and(|origin| origin.have.contains(chunk));
        if book.chunk(chunk).holders <= u32::from(is_at_origin) {
            self.parts.acknowledged.remove(chunk);
        }
    }

    /// Tells the origin that it may go, once there is a copy of each chunk.
    fn let_origin_go(&mut self, book: &mut Book, actions: &mut Actions) {
        if let Phase::Finishing { origin } = self.phase
            && self.parts.acknowledged.is_full()
        {
            self.phase = Phase::Open;
            book.let_go(origin);
            actions.push(Action::SeedingDone { origin });
        }
    }
}
