//! The end of a spread: peers exchange what they have, and the origin waits until they hold all of the file.
//!
//! Until then it is asked for nothing that others hold, too. A chunk has a copy if a peer acknowledged a delivery of it, or
//! if a peer holds it that has supplied something right: a bare claim may be a lie. When its last holder but the
//! origin goes, or turns out not to have it, it has none.

use relay_protocol::Bitfield;

use super::{Phase, Seed};
use crate::{
    api::{Action, PeerSlot},
    book::{Book, peer::Peer},
    decide::deliver::serve,
    desk::Desk,
};

impl Seed {
    /// The exchange begins.
    pub(super) fn open(&mut self, desk: &mut Desk) {
        let (origin, was_spread) = match self.phase {
            Phase::Waiting { origin, .. } => (Some(origin), false),
            Phase::Spreading { origin, .. } => (Some(origin), true),
            Phase::Open | Phase::Finishing { .. } => (None, false),
        };
        let origin = origin.filter(|&origin| desk.book.find(origin).is_some_and(Peer::is_holder));
        self.phase = origin.map_or(Phase::Open, |origin| Phase::Finishing { origin });
        desk.book.hold_back(false);
        self.parts.clear();
        desk.book.note_news();
        let slots = desk.book.slots();
        if let Some(origin) = origin {
            if was_spread {
                desk.book.let_go(origin);
            }
            for chunk in 0..desk.book.chunks().count() {
                self.forget_lost_copy(&desk.book, origin, chunk);
            }
            slots.iter().for_each(|&slot| self.count_copies(desk, slot));
            self.let_origin_go(desk);
        }
        for slot in slots {
            serve(desk, slot);
        }
    }

    /// A peer has a chunk now, by a delivery or by its own word.
    pub(super) fn count_copy(
        &mut self,
        desk: &mut Desk,
        (slot, chunk): (PeerSlot, u32),
        delivered: bool,
    ) {
        if let Phase::Finishing { origin } = self.phase
            && origin != slot
            && (delivered || desk.book.peer(slot).supply.is_proven)
        {
            self.parts.acknowledged.insert(chunk);
            self.let_origin_go(desk);
        }
    }

    /// The peer has supplied something right: what it holds are copies.
    pub(crate) fn count_copies(&mut self, desk: &mut Desk, slot: PeerSlot) {
        let peer = desk.book.peer(slot);
        if let Phase::Finishing { origin } = self.phase
            && origin != slot
            && peer.supply.is_proven
            && peer.is_holder()
        {
            for chunk in peer.have.iter() {
                self.parts.acknowledged.insert(chunk);
            }
            self.let_origin_go(desk);
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
    fn let_origin_go(&mut self, desk: &mut Desk) {
        if let Phase::Finishing { origin } = self.phase
            && self.parts.acknowledged.is_full()
        {
            self.phase = Phase::Open;
            desk.book.let_go(origin);
            desk.actions.push(Action::SeedingDone { origin });
        }
    }
}
