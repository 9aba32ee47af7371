//! What a peer in peer order asked for by name and has not been sent, in its order.
//!
//! Invariants: `named` is the set of what is in `queue`; nothing is in `queue` twice;
//! `queue.len() <= WANTS_PER_PEER_MAX + 1`, where the one more is a delivery that was taken back.

use std::collections::VecDeque;

use relay_protocol::{Bitfield, limits::WANTS_PER_PEER_MAX};

/// Named chunks. Takes no memory before the first one is named.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    queue: VecDeque<u32>,
    named: Bitfield,
}

impl Wants {
    /// Names a chunk of `chunk_count` after all others; whether it is news and not one too many.
    pub(super) fn add(&mut self, chunk: u32, chunk_count: u32) -> bool {
        let is_new = !self.is_full() && self.name(chunk, chunk_count);
        if is_new {
            self.queue.push_back(chunk);
        }
        is_new
    }

    /// Names a chunk before all others; whether it was not named.
    pub(super) fn add_first(&mut self, chunk: u32, chunk_count: u32) -> bool {
        let is_new = self.name(chunk, chunk_count);
        if is_new {
            self.queue.push_front(chunk);
        }
        is_new
    }

    fn name(&mut self, chunk: u32, chunk_count: u32) -> bool {
        if self.named.is_empty() {
            self.named = Bitfield::empty(chunk_count);
        }
        self.named.insert(chunk)
    }

    /// The chunk is not wanted any more.
    pub(super) fn remove(&mut self, chunk: u32) {
        if !self.named.remove(chunk) {
            return;
        }
        if self.first() == Some(chunk) {
            self.queue.pop_front();
        } else if let Some(at) = self.queue.iter().position(|&other| other == chunk) {
            self.queue.remove(at);
        }
    }

    pub(crate) fn contains(&self, chunk: u32) -> bool {
        self.named.contains(chunk)
    }

    /// Whether no more may be named.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= WANTS_PER_PEER_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What it wants next.
    pub(crate) fn first(&self) -> Option<u32> {
        self.queue.front().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.queue.iter().copied()
    }

    /// Checks the module's invariants.
    pub(crate) fn invariants(&self) {
        assert!(self.queue.iter().all(|&chunk| self.named.contains(chunk)));
        assert_eq!(self.queue.len(), self.named.count() as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_kept_once_and_in_order() {
        let mut wants = Wants::default();
        assert!(!wants.contains(3));
        for chunk in [5, 3, 9, 3] {
            wants.add(chunk, 10);
            wants.invariants();
        }
        assert!(wants.add_first(1, 10) && !wants.add_first(9, 10));
        assert_eq!(wants.iter().collect::<Vec<_>>(), [1, 5, 3, 9]);
        for chunk in [3, 1, 3, 9, 5] {
            assert!(!wants.is_empty());
            wants.remove(chunk);
            wants.invariants();
        }
        assert!(wants.is_empty() && wants.first().is_none());
    }

    #[test]
    fn no_more_than_the_limit_are_kept() {
        let mut wants = Wants::default();
        let count = 2 * u32::try_from(WANTS_PER_PEER_MAX).unwrap();
        let taken = (0..count).filter(|&chunk| wants.add(chunk, count)).count();
        assert_eq!(taken, WANTS_PER_PEER_MAX);
        wants.invariants();
    }
}
