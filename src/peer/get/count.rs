//! Which files of a tree are whole, counted as chunks come: by the event loop, while the screen reads.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use crate::protocol::{
    Bitfield, SwarmKey,
    bundle::{Index, Kind, PieceOf},
};

/// The files of a bundle that are wanted, and of each how many of its chunks are lacking.
#[derive(Debug)]
pub(crate) struct FileCount {
    key: SwarmKey,
    index: Arc<Index>,
    /// Of each entry; 0 of what is no file, or is not wanted.
    lacking: Vec<AtomicU32>,
    done: AtomicU64,
    total: u64,
}

impl FileCount {
    /// Of a bundle of which these chunks are here.
    pub(crate) fn new(
        key: SwarmKey,
        index: &Arc<Index>,
        selected: Option<&[bool]>,
        have: &Bitfield,
    ) -> Self {
        // Chunks that are lacking before each chunk.
        let mut before = Vec::with_capacity(key.chunk_count() as usize + 1);
        before.push(0);
        for chunk in 0..key.chunk_count() {
            before.push(before[chunk as usize] + u32::from(!have.contains(chunk)));
        }
        let lacking_of = |number: usize| {
            let place = index.place(number).filter(|place| !place.is_empty())?;
            let chunk = |at: u64| usize::try_from(at >> key.chunk_size_log2).ok();
            Some(before[chunk(place.end - 1)? + 1] - before[chunk(place.start)?])
        };
        let (mut done, mut total) = (0, 0);
        let mut lacking = Vec::with_capacity(index.len());
        for (number, entry) in index.entries().enumerate() {
            let is_wanted = matches!(entry.kind, Kind::File { .. })
                && selected.is_none_or(|selected| selected[number]);
            let count = if is_wanted { lacking_of(number).unwrap_or(0) } else { 0 };
            total += u64::from(is_wanted);
            done += u64::from(is_wanted && count == 0);
            lacking.push(AtomicU32::new(count));
        }
        Self { key, index: Arc::clone(index), lacking, done: AtomicU64::new(done), total }
    }

    /// A chunk is here that was not.
    pub(crate) fn handle_kept(&self, chunk: u32) {
        let start = self.key.chunk_offset_bytes(chunk);
        let end = start + u64::from(self.key.chunk_len_bytes(chunk));
        for piece in self.index.pieces(start..end) {
            let PieceOf::File(number) = piece.of else { continue };
            let before = self.lacking[number]
                .fetch_update(Relaxed, Relaxed, |lacking| lacking.checked_sub(1));
            if before == Ok(1) {
                self.done.fetch_add(1, Relaxed);
            }
        }
    }

    /// Files that are whole, and all that are wanted.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.total)
    }

    /// What is in the bundle.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Digest, bundle::Entry};

    #[test]
    fn a_file_is_whole_when_its_last_chunk_is_here() {
        let file = |path, size_bytes| Entry {
            path,
            kind: Kind::File { size_bytes, is_executable: false },
            preserved: None,
        };
        let entries = vec![file(&b"a"[..], 100), file(b"b", 5000), file(b"c", 0), file(b"d", 1)];
        let index = Arc::new(Index::new(entries).unwrap());
        let key =
            SwarmKey { id: Digest([0; 32]), size_bytes: index.bundle_bytes(), chunk_size_log2: 10 };
        let mut have = Bitfield::empty(key.chunk_count());
        have.insert(2);
        let all = FileCount::new(key, &index, None, &have);
        let some = FileCount::new(key, &index, Some(&[true, false, false, true]), &have);
        assert_eq!((all.counts(), some.counts()), ((1, 4), (0, 2)));
        for (chunk, of_all, of_some) in [(0, 2, 1), (1, 2, 1), (3, 2, 1), (4, 2, 1), (5, 4, 2)] {
            all.handle_kept(chunk);
            some.handle_kept(chunk);
            assert_eq!((all.counts().0, some.counts().0), (of_all, of_some), "chunk {chunk}");
        }
        all.handle_kept(5);
        assert_eq!(all.counts(), (4, 4), "once");
    }
}
