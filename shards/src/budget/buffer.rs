//! A lease of bytes, and the memory of one chunk, which carries its lease with it.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use bytes::Bytes;

use super::pool::{HomeBytes, Pool};

/// Bytes of the budget; its drop gives them back, on whatever thread.
pub struct Lease {
    pool: Arc<Pool>,
    bytes: usize,
    home: HomeBytes,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Lease {
    /// Of bytes that the queue has given, and the home is charged with.
    pub(super) fn new(pool: Arc<Pool>, bytes: usize, home: HomeBytes) -> Self {
        Self { pool, bytes, home }
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty buffer for exactly `len` bytes, within this lease. Nothing is written to its memory
    /// until it is filled.
    ///
    /// # Panics
    /// More than was leased.
    #[must_use]
    pub fn buffer(self, len: usize) -> ChunkBuffer {
        ChunkBuffer::new(self, len)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.give_back(self.bytes, &self.home);
    }
}

/// A buffer of fixed size that is filled once, from the front, and then [frozen](Self::freeze).
/// As a slice it is what was filled so far.
pub struct ChunkBuffer {
    /// Filled part; its capacity is within the lease and never grows.
    filled: Vec<u8>,
    size_bytes: usize,
    /// There until the buffer's end.
    lease: Option<Lease>,
}

impl fmt::Debug for ChunkBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ChunkBuffer");
        debug.field("len", &self.len()).field("size_bytes", &self.size_bytes).finish()
    }
}

impl ChunkBuffer {
    fn new(lease: Lease, size_bytes: usize) -> Self {
        assert!(size_bytes <= lease.bytes(), "a buffer stays within its lease");
        let filled = lease.pool.memory(lease.bytes(), size_bytes);
        Self { filled, size_bytes, lease: Some(lease) }
    }

    /// Adds bytes behind those that are there.
    ///
    /// # Panics
    /// More than the buffer has room for.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a chunk is no longer than was announced");
        self.filled.extend_from_slice(bytes);
    }

    /// Adds zeros up to the buffer's size, for callers that write in any order.
    pub fn fill_zeroed(&mut self) {
        self.filled.resize(self.size_bytes, 0);
    }

    /// Bytes filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether nothing is filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Bytes that it holds when full.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes still to come.
    #[must_use]
    pub fn room(&self) -> usize {
        self.size_bytes - self.filled.len()
    }

    /// Whether all bytes are there.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Shares what is filled without copying; the last clone's drop gives the lease back. Mind that
    /// any part of it keeps the whole chunk.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Bytes that are leased for it.
    #[must_use]
    pub fn leased_bytes(&self) -> usize {
        self.lease.as_ref().map_or(0, Lease::bytes)
    }

    /// Gives the memory up and keeps the right to it, for example for a fetch from another holder.
    #[must_use]
    pub fn into_lease(mut self) -> Lease {
        let lease = self.lease.take().expect("there until the buffer's end");
        lease.pool.keep(std::mem::take(&mut self.filled));
        lease
    }
}

impl Drop for ChunkBuffer {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let pool = Arc::clone(&lease.pool);
            // The lease first: what is spare must find room beside what is in use.
            drop(lease);
            pool.keep(std::mem::take(&mut self.filled));
        }
    }
}

impl Deref for ChunkBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.filled
    }
}

impl DerefMut for ChunkBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.filled
    }
}

impl AsRef<[u8]> for ChunkBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Budget, Ringer};

    fn lease(budget: &Budget, bytes: usize) -> crate::Lease {
        let (ringer, _bell) = Ringer::new().unwrap();
        budget.waiter(ringer).unwrap().try_lease(bytes).unwrap()
    }

    #[test]
    fn the_last_part_of_a_chunk_gives_its_lease_back() {
        let budget = Budget::new(100, 1);
        let mut buffer = lease(&budget, 100).buffer(60);
        buffer.append(&[1; 40]);
        assert!(!buffer.is_full());
        buffer.append(&[2; 20]);
        assert!(buffer.is_full());
        let bytes = buffer.freeze();
        let part = bytes.slice(59..);
        drop(bytes);
        assert_eq!((budget.in_use_bytes(), &part[..]), (100, &[2][..]));
        std::thread::scope(|scope| scope.spawn(move || drop(part)).join().unwrap());
        assert_eq!(budget.in_use_bytes(), 0);
    }

    #[test]
    fn memory_that_was_given_back_serves_again_and_never_beyond_the_limit() {
        const CHUNK: usize = 1 << 16;
        let budget = Budget::new(4 * CHUNK, 1);
        budget.warm_up(CHUNK, 100 * CHUNK, 3);
        assert_eq!(budget.spare_bytes(), 4 * CHUNK, "as much as the limit allows");
        let mut buffer = lease(&budget, CHUNK).buffer(CHUNK - 1);
        assert_eq!((budget.spare_bytes(), buffer.len()), (3 * CHUNK, 0));
        buffer.append(&[7; CHUNK - 1]);
        let address = buffer.as_ptr();
        assert!(buffer.is_full(), "a spare is no larger than was asked for");
        // Another size finds no spare, and takes the place of some.
        let other = lease(&budget, 2 * CHUNK).buffer(2 * CHUNK);
        assert_eq!(budget.spare_bytes(), CHUNK);
        drop(buffer);
        assert_eq!(budget.spare_bytes(), 2 * CHUNK);
        drop(other);
        assert_eq!(budget.spare_bytes(), 4 * CHUNK);
        let again: Vec<_> = (0..2).map(|_| lease(&budget, CHUNK).buffer(CHUNK)).collect();
        assert!(again.iter().any(|buffer| buffer.as_ptr() == address), "it is the same memory");
        assert_eq!(budget.spare_bytes() + budget.in_use_bytes(), 4 * CHUNK);
    }

    #[test]
    fn a_lease_of_more_than_the_memory_is_served_by_a_spare_all_the_same() {
        const CHUNK: usize = 1 << 16;
        let budget = Budget::new(4 * CHUNK, 1);
        budget.warm_up(CHUNK, CHUNK, 1);
        let buffer = lease(&budget, CHUNK + 4096).buffer(CHUNK);
        assert_eq!((buffer.leased_bytes(), budget.spare_bytes()), (CHUNK + 4096, 0));
        let lease = buffer.into_lease();
        assert_eq!((lease.bytes(), budget.spare_bytes()), (CHUNK + 4096, CHUNK));
    }

    #[test]
    fn memory_is_of_exact_size_and_the_lease_can_move_on() {
        let budget = Budget::new(1 << 20, 1);
        let buffer = lease(&budget, 1 << 20).buffer((1 << 20) - 7);
        assert_eq!(buffer.filled.capacity(), (1 << 20) - 7);
        let lease = buffer.into_lease();
        assert_eq!(budget.in_use_bytes(), 1 << 20);
        drop(lease);
        assert_eq!(budget.in_use_bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "no longer than was announced")]
    fn a_buffer_never_grows() {
        let budget = Budget::new(100, 1);
        lease(&budget, 100).buffer(3).append(&[0; 4]);
    }
}
