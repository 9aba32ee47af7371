//! Room for the chunks that cross bridges. All bridges of a process share it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

/// A bound on bytes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

/// Room for one chunk, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    shelf: Shelf,
    bytes: u64,
}

/// A chunk with its place: the last that refers to it gives the place back.
struct Placed {
    bytes: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Placed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Shelf {
    /// Holds so many bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self(Arc::new(Bound { limit_bytes, used_bytes: AtomicU64::new(0) }))
    }

    /// Room for so many bytes, if there is some. An empty shelf takes any chunk: one can always cross.
    pub(super) fn place(&self, bytes: u64) -> Option<Place> {
        let take = |used: u64| {
            let would_use = used + bytes;
            (used == 0 || would_use <= self.0.limit_bytes).then_some(would_use)
        };
        let (ordering, used) = (Ordering::Relaxed, &self.0.used_bytes);
        used.fetch_update(ordering, ordering, take).ok()?;
        Some(Place { shelf: self.clone(), bytes })
    }

    /// Bytes that are in use.
    #[cfg(test)]
    pub(super) fn used_bytes(&self) -> u64 {
        self.0.used_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shelf.0.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The chunk keeps its place as long as anything refers to it.
pub(super) fn placed(bytes: Bytes, place: Place) -> Bytes {
    Bytes::from_owner(Placed { bytes, _place: place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_until_the_last_that_refers_to_its_chunk_is_gone() {
        let shelf = Shelf::new(100);
        let place = shelf.place(60).expect("there is room");
        assert!(shelf.place(41).is_none());
        let chunk = placed(Bytes::from_static(b"chunk"), place);
        let part = chunk.slice(1..3);
        drop(chunk);
        assert_eq!((&*part, shelf.used_bytes()), (&b"hu"[..], 60));
        drop(part);
        assert_eq!(shelf.used_bytes(), 0);
        let large = shelf.place(500).expect("one can always cross");
        assert!(shelf.place(1).is_none());
        drop(large);
        assert!(shelf.place(1).is_some());
    }
}
