//! What is on its way to one peer, and how much more it may be sent.
//!
//! Invariant: `under_way_bytes` is the sum of the deliveries' `length_bytes`.

use std::collections::VecDeque;

use relay_protocol::limits;

use super::meter::Meter;

/// How far a delivery has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// The shell has not looked at the decision yet: news of the chunk is of an older send.
    Decided,
    /// The shell has it and the kernel has nothing of it.
    Queued,
    /// The kernel has taken a frame.
    Begun,
    /// The kernel has taken all of it: it pins no memory any more.
    Written,
}

/// A chunk on its way to a peer, from the decision to the acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) chunk: u32,
    /// Where in the chunk it starts, in bytes.
    pub(crate) offset_bytes: u32,
    /// How much of it is to come.
    pub(crate) length_bytes: u32,
    pub(crate) stage: Stage,
}

/// What the peer takes.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Oldest first.
    pub(crate) deliveries: VecDeque<Delivery>,
    /// Bytes of these.
    pub(crate) under_way_bytes: u64,
    /// Chunks that it has in part, with the bytes it has from the start, oldest first.
    pub(crate) partials: VecDeque<(u32, u32)>,
    /// What it may have been assigned since it joined.
    pub(crate) allowance_bytes: u64,
    /// What it has been assigned.
    pub(crate) assigned_bytes: u64,
    pub(crate) down: Meter,
}

impl Intake {
    #[inline]
    pub(crate) fn has_credit(&self) -> bool {
        self.allowance_bytes > self.assigned_bytes
    }

    /// Deliveries that pin their chunk's memory.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = &Delivery> {
        self.deliveries.iter().filter(|delivery| delivery.stage < Stage::Written)
    }

    /// A delivery is decided.
    #[inline]
    pub(super) fn assign(&mut self, chunk: u32, offset_bytes: u32, length_bytes: u32) {
        let stage = Stage::Decided;
        self.deliveries.push_back(Delivery { chunk, offset_bytes, length_bytes, stage });
        self.under_way_bytes += u64::from(length_bytes);
        self.assigned_bytes += u64::from(length_bytes);
    }

    /// So much of what was assigned never comes.
    pub(super) fn unassign(&mut self, bytes: u64) {
        self.assigned_bytes = self.assigned_bytes.saturating_sub(bytes);
    }

    #[inline]
    pub(super) fn delivery(&mut self, chunk: u32) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|delivery| delivery.chunk == chunk)
    }

    #[inline]
    pub(super) fn take_delivery(&mut self, chunk: u32) -> Option<Delivery> {
        let position = self.deliveries.iter().position(|delivery| delivery.chunk == chunk)?;
        let delivery = self.deliveries.remove(position)?;
        self.under_way_bytes -= u64::from(delivery.length_bytes);
        Some(delivery)
    }

    pub(super) fn remember_partial(&mut self, chunk: u32, offset_bytes: u32) {
        self.partials.retain(|&(other, _)| other != chunk);
        if offset_bytes == 0 {
            return;
        }
        if self.partials.len() == limits::PARTIAL_CHUNKS_MAX {
            self.partials.pop_front();
        }
        self.partials.push_back((chunk, offset_bytes));
    }

    #[inline]
    pub(super) fn take_partial(&mut self, chunk: u32) -> u32 {
        let position = self.partials.iter().position(|&(other, _)| other == chunk);
        position.and_then(|at| self.partials.remove(at)).map_or(0, |(_, offset)| offset)
    }

    /// Checks the module's invariant.
    pub(crate) fn invariants(&self) {
        let under_way = self.deliveries.iter().map(|it| u64::from(it.length_bytes));
        assert_eq!(self.under_way_bytes, under_way.sum::<u64>());
    }
}
