//! Memory of chunks that was given back, kept for the next lease of its size.
//!
//! The first touch of fresh memory is dear: the kernel clears it page by page, and under a
//! hypervisor each page may be fetched from the host first (measured in a virtual machine: 0.3 s
//! for 100 MiB, an eighth of what the relay spends on delivering them a hundred times over). Memory
//! that was used before costs nothing, and warming some up before the first connection moves that
//! price to where no peer waits.
//!
//! **Invariant.** `spare + in use ≤ limit` whenever no thread is between two steps: spares are room
//! that no home leases. A thread that breaks it for an instant (adds a spare, or leases what spares stand
//! on) frees spares before it allocates anything.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Smallest memory that is kept: below, the allocator's own caches serve.
const SIZE_LOG2_MIN: u32 = 16;

/// Largest: chunks are no larger.
const SIZE_LOG2_MAX: u32 = 24;

const CLASSES: usize = (SIZE_LOG2_MAX - SIZE_LOG2_MIN + 1) as usize;

/// Spares of one size, at most: a table of 24 KiB, and 256 MiB of chunks of the usual size.
const SPARES_PER_SIZE_MAX: usize = 1024;

/// Memory of one size.
type OfOneSize = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

/// Empty buffers by the power of two that is their capacity.
#[derive(Debug)]
pub(super) struct Spares {
    sizes: [OfOneSize; CLASSES],
    bytes: AtomicUsize,
}

fn class_of(size_bytes: usize) -> Option<usize> {
    let log2 = size_bytes.checked_ilog2().filter(|_| size_bytes.is_power_of_two())?;
    (SIZE_LOG2_MIN..=SIZE_LOG2_MAX).contains(&log2).then(|| (log2 - SIZE_LOG2_MIN) as usize)
}

impl Spares {
    pub(super) fn new() -> Self {
        Self {
            sizes: std::array::from_fn(|_| bounded(SPARES_PER_SIZE_MAX)),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// An empty buffer of exactly this capacity, if one is kept.
    pub(super) fn take(&self, size_bytes: usize) -> Option<Vec<u8>> {
        let memory = self.sizes[class_of(size_bytes)?].1.try_recv().ok()?;
        self.bytes.fetch_sub(size_bytes, SeqCst);
        Some(memory)
    }

    /// Keeps the memory if it is of a size that is asked for again, and `room_bytes` says that
    /// there is room for all that is kept then; otherwise frees it.
    pub(super) fn keep(&self, mut memory: Vec<u8>, room_bytes: impl Fn() -> usize) {
        memory.clear();
        let size_bytes = memory.capacity();
        let Some(class) = class_of(size_bytes) else { return };
        if self.bytes.fetch_add(size_bytes, SeqCst) + size_bytes > room_bytes()
            || self.sizes[class].0.try_send(memory).is_err()
        {
            self.bytes.fetch_sub(size_bytes, SeqCst);
            return;
        }
        // A home may have leased the room meanwhile, without seeing this spare in its place.
        self.shrink(room_bytes);
    }

    /// Frees spares until there is room for the rest.
    pub(super) fn shrink(&self, room_bytes: impl Fn() -> usize) {
        while self.bytes() > room_bytes() {
            let mut sizes = self.sizes.iter();
            let Some(memory) = sizes.find_map(|(_, spares)| spares.try_recv().ok()) else { return };
            self.bytes.fetch_sub(memory.capacity(), SeqCst);
        }
    }
}
