//! What leases and homes share: the queue, the memory that is kept for leases to come, and counts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::{queue::Queue, spares::Spares};

/// The chunk memory of a process.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) queue: Queue,
    pub(super) spares: Spares,
    pub(super) peak_bytes: AtomicUsize,
    /// Homes with work, among which the limit is shared.
    pub(super) working: AtomicUsize,
}

impl Pool {
    /// See [`super::Budget::new`].
    pub(super) fn new(limit_bytes: usize, homes_max: usize) -> Self {
        Self {
            queue: Queue::new(limit_bytes, homes_max),
            spares: Spares::new(),
            peak_bytes: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
        }
    }

    /// What is not leased.
    fn room_bytes(&self) -> usize {
        self.queue.limit_bytes().saturating_sub(self.queue.in_use_bytes())
    }

    /// Memory of a lease: used before if possible.
    pub(super) fn memory(&self, lease_bytes: usize, len: usize) -> Vec<u8> {
        // Spares are powers of two; a lease may be of more, for what else is leased with the memory.
        let size_bytes = lease_bytes.checked_ilog2().map(|log2| 1 << log2);
        let spare = size_bytes.filter(|&size| size >= len).and_then(|size| self.spares.take(size));
        spare.unwrap_or_else(|| {
            self.spares.shrink(|| self.room_bytes());
            let mut memory = Vec::new();
            memory.reserve_exact(len);
            memory
        })
    }

    /// Keeps memory for leases to come, if there is room for it.
    pub(super) fn keep(&self, memory: Vec<u8>) {
        self.spares.keep(memory, || self.room_bytes());
    }

    /// A lease of this home has ended.
    pub(super) fn give_back(&self, bytes: usize, home: &HomeBytes) {
        home.0.fetch_sub(bytes, SeqCst);
        self.queue.give_back(bytes);
    }
}

/// What one home has leased; its leases give it back from any thread.
#[derive(Clone, Debug, Default)]
pub(super) struct HomeBytes(pub(super) Arc<AtomicUsize>);
