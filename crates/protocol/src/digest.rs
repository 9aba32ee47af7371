//! From bytes to digests and from digests to a file's id: BLAKE3 cut at chunk boundaries.
//!
//! A chunk is a power-of-two multiple of BLAKE3's own 1 KiB chunk, so each is a whole subtree of
//! the file's hash tree. Its digest is the subtree's chaining value; these merge, two by two, to
//! exactly what `b3sum` prints for the file. A file of one chunk is the exception that the tree
//! makes: its only digest is the root itself.
//!
//! It reads no file and starts no thread: bytes come in.

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::{
    key::{Digest, SwarmKey},
    limits::CHUNK_COUNT_MAX,
};

/// Height of the tallest tree over chunk digests: that many subtrees wait for a sibling at most.
const TREE_HEIGHT_MAX: usize = CHUNK_COUNT_MAX.ilog2() as usize;

const _: () = assert!(CHUNK_COUNT_MAX.is_power_of_two());

/// The BLAKE3 of a file in memory, whole: what `b3sum` prints.
#[must_use]
pub fn digest_file(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// The digest of one chunk, whole in memory, of the file that the key names.
#[must_use]
pub fn digest_chunk(key: &SwarmKey, chunk: u32, bytes: &[u8]) -> Digest {
    let mut hasher = ChunkHasher::new(key.chunk_count(), chunk, key.chunk_size_log2);
    hasher.update(bytes);
    hasher.finalize()
}

/// Digests one chunk after the other, each fed in pieces. Pieces of 64 KiB and more are fastest.
/// It owns no heap memory: one may be kept for each chunk that is being received, or one reused.
#[derive(Clone, Debug)]
pub struct ChunkHasher {
    hasher: Hasher,
    is_root: bool,
}

impl ChunkHasher {
    /// Ready for the first byte of a chunk. Of the file only the number of chunks and their size
    /// need be known, so an origin can digest before it knows the key.
    #[must_use]
    pub fn new(chunk_count: u32, chunk: u32, chunk_size_log2: u8) -> Self {
        let mut hasher = Self { hasher: Hasher::new(), is_root: false };
        hasher.restart(chunk_count, chunk, chunk_size_log2);
        hasher
    }

    /// Forgets what was fed and gets ready for the first byte of another chunk.
    pub fn restart(&mut self, chunk_count: u32, chunk: u32, chunk_size_log2: u8) {
        debug_assert!(chunk < chunk_count, "chunk {chunk} of {chunk_count}");
        self.is_root = chunk_count == 1;
        // Not `reset()`: in blake3 1.8.7 it keeps the offset, and the next one fails an assertion.
        self.hasher = Hasher::new();
        self.hasher.set_input_offset(u64::from(chunk) << chunk_size_log2);
    }

    /// Takes in the next bytes of the chunk.
    ///
    /// # Panics
    /// If there are more of them than a chunk has, which is the caller's bug.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Bytes of the chunk that were fed so far.
    #[must_use]
    pub fn fed_bytes(&self) -> u64 {
        self.hasher.count()
    }

    /// The digest of what was fed.
    ///
    /// # Panics
    /// If that is nothing: chunks are never empty.
    #[must_use]
    pub fn finalize(&self) -> Digest {
        assert!(self.hasher.count() > 0, "chunks are never empty");
        if self.is_root {
            Digest(*self.hasher.finalize().as_bytes())
        } else {
            Digest(self.hasher.finalize_non_root())
        }
    }
}

/// The digests of chunks twice as long, of digests that are not a file's only one: in place. An odd last one stays as it
/// is, as that of a chunk which ends in the middle.
pub fn merge_pairs(digests: &mut Vec<Digest>) {
    let count = digests.len().div_ceil(2);
    for pair in 0..count {
        let left = digests[2 * pair];
        digests[pair] = match digests.get(2 * pair + 1) {
            Some(right) => Digest(merge_subtrees_non_root(&left.0, &right.0, Mode::Hash)),
            None => left,
        };
    }
    digests.truncate(count);
}

/// Merges chunk digests, in order of their chunks, to the file's id: in constant memory, a
/// handful of compressions for each, so that a long manifest can be checked as it arrives.
///
/// Invariant: `subtrees` has one entry for each 1 bit of `count - 1` (as numbers of chunks: left
/// the largest, each complete), and one more for the last digest, whose role isn't known before
/// another follows: only then can it not be part of the root's own last merge.
#[derive(Clone, Debug, Default)]
pub struct Merger {
    subtrees: Vec<[u8; 32]>,
    count: u32,
}

impl Merger {
    /// Before the first digest.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of digests taken in.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes in the digest of the next chunk.
    ///
    /// # Panics
    /// Beyond [`CHUNK_COUNT_MAX`] digests, which the caller's key excludes.
    pub fn push(&mut self, digest: Digest) {
        assert!(self.count < CHUNK_COUNT_MAX, "a file has at most {CHUNK_COUNT_MAX} chunks");
        // Subtrees of equal size are complete and can be merged now that more follows them.
        while self.subtrees.len() > self.count.count_ones() as usize {
            let right = self.subtrees.pop().expect("longer than a number of bits");
            let left = self.subtrees.pop().expect("two subtrees of equal size");
            self.subtrees.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
        self.subtrees.push(digest.0);
        self.count += 1;
    }

    /// The file's id: BLAKE3 of nothing without digests, the only digest if there is one.
    #[must_use]
    pub fn finish(&self) -> Digest {
        let mut rest = self.subtrees.iter().rev();
        let Some(&last) = rest.next() else { return digest_file(&[]) };
        let mut right = last;
        let mut rest = rest.peekable();
        while let Some(left) = rest.next() {
            right = if rest.peek().is_some() {
                merge_subtrees_non_root(left, &right, Mode::Hash)
            } else {
                *merge_subtrees_root(left, &right, Mode::Hash).as_bytes()
            };
        }
        Digest(right)
    }

    /// Checks what must hold between two calls; for tests.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn invariants(&self) {
        let waiting = self.count.checked_sub(1).map_or(0, |before| before.count_ones() + 1);
        assert_eq!(self.subtrees.len(), waiting as usize);
        assert!(self.subtrees.len() <= TREE_HEIGHT_MAX + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Merger, digest_file};

    #[test]
    fn merging_the_same_digests_in_another_order_gives_another_id() {
        let digests = [Digest([1; 32]), Digest([2; 32]), Digest([3; 32])];
        let merge = |order: [usize; 3]| {
            let mut merger = Merger::new();
            order.iter().for_each(|&index| merger.push(digests[index]));
            merger.invariants();
            merger.finish()
        };
        assert_eq!(merge([0, 1, 2]), merge([0, 1, 2]));
        assert_ne!(merge([0, 1, 2]), merge([0, 2, 1]));
        assert_ne!(merge([0, 1, 2]), merge([1, 0, 2]));
    }

    #[test]
    fn invariants_hold_for_every_number_of_digests() {
        let mut merger = Merger::new();
        merger.invariants();
        assert_eq!(merger.finish(), digest_file(&[]));
        for count in 1..=1025u32 {
            merger.push(Digest([7; 32]));
            merger.invariants();
            assert_eq!(merger.count(), count);
        }
    }
}
