//! What ends of uplinks are told: which chunks other peers of the swarm hold.
//!
//! An end claims by it, at the other relay, what can be had here. So the ends of one swarm never count each
//! other's claims as their own: each is told of the holders beside itself.

use std::collections::BTreeMap;

use relay_protocol::{Bitfield, ChunkRange};

use crate::{
    api::{Action, PeerSlot},
    book::Book,
    desk::Desk,
};

/// What each end was told.
#[derive(Debug, Default)]
pub(crate) struct Uplinks {
    told: BTreeMap<PeerSlot, Bitfield>,
}

impl Uplinks {
    /// A peer has joined.
    pub(crate) fn joined(&mut self, book: &mut Book, slot: PeerSlot) {
        if book.peer(slot).terms.is_uplink {
            self.told.insert(slot, Bitfield::empty(book.chunks().count()));
            book.note_all_held();
        }
    }

    /// The peer has gone, or is cut off.
    pub(crate) fn lost(&mut self, slot: PeerSlot) {
        self.told.remove(&slot);
    }

    /// Tells what has changed. Without an end it costs nothing.
    #[inline]
    pub(crate) fn step(&mut self, desk: &mut Desk) {
        if !self.told.is_empty() && desk.book.chunks().has_news_of_holders() {
            self.tell(desk);
        }
    }

    fn tell(&mut self, desk: &mut Desk) {
        let chunks = desk.book.take_news_of_holders();
        for (&slot, told) in &mut self.told {
            let (mut held, mut lost) = (Vec::new(), Vec::new());
            for &chunk in &chunks {
                let own = u32::from(desk.book.peer(slot).have.contains(chunk));
                let is_held = desk.book.chunk(chunk).holders > own;
                if is_held == told.contains(chunk) {
                    continue;
                }
                if is_held {
                    told.insert(chunk);
                    push(&mut held, chunk);
                } else {
                    told.remove(chunk);
                    push(&mut lost, chunk);
                }
            }
            for (ranges, held) in [(lost, false), (held, true)] {
                if !ranges.is_empty() {
                    desk.actions.push(Action::Available { peer: slot, ranges, held });
                }
            }
        }
    }

    /// Each end was told what others hold, unless there is news.
    pub(crate) fn invariants(&self, book: &Book) {
        if book.chunks().has_news_of_holders() {
            return;
        }
        for (&slot, told) in &self.told {
            for chunk in 0..book.chunks().count() {
                let own = u32::from(book.peer(slot).have.contains(chunk));
                assert_eq!(told.contains(chunk), book.chunk(chunk).holders > own, "chunk {chunk}");
            }
        }
    }
}

/// Neighbours become one range.
fn push(ranges: &mut Vec<ChunkRange>, chunk: u32) {
    match ranges.last_mut() {
        Some(last) if last.first + last.count == chunk => last.count += 1,
        _ => ranges.push(ChunkRange { first: chunk, count: 1 }),
    }
}

#[cfg(test)]
mod tests;
