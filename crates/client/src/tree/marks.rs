//! A mark for each entry of a tree, set from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Marks of so many entries.
#[derive(Debug)]
pub(super) struct Marks(Vec<AtomicU64>);

impl Marks {
    /// None is set.
    pub(super) fn new(count: usize) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn set(&self, number: usize) {
        self.0[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
    }

    pub(super) fn is_set(&self, number: usize) -> bool {
        self.0[number / 64].load(Ordering::Relaxed) & 1 << (number % 64) != 0
    }
}
