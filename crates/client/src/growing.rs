//! The manifest of what comes in order and has no known length, as it comes: at the end it can be cut as the relay likes.
//!
//! Chunks are digested as small as is fast. Digests of chunks merge pair by pair to those of chunks twice as long, so the
//! size that is chosen at the end costs no second look at the bytes. When there are more chunks than a file may have, they
//! are merged at once: memory is bounded, however much comes.
//!
//! Reads no file, and starts no thread.

use crc_fast::{CrcAlgorithm, checksum_combine};

use super::hashing::Hashed;
use relay_protocol::{
    ChunkHasher, Digest, ManifestHasher, Merger, SwarmKey, limits::CHUNK_COUNT_MAX, merge_pairs,
};

/// Chunks as small as BLAKE3 is at its best with.
const FIRST_LOG2: u8 = 16;

/// Stands for "more than one": then a digest is no root.
const SEVERAL: u32 = CHUNK_COUNT_MAX;

/// Digests and checksums of what has come so far.
#[derive(Debug)]
pub struct Growing {
    chunk_size_log2: u8,
    size_bytes: u64,
    /// Of chunks that are whole.
    digests: Vec<Digest>,
    checksums: Vec<u64>,
    /// Of the last one, which is not whole.
    hasher: ChunkHasher,
    summer: crc_fast::Digest,
}

impl Default for Growing {
    fn default() -> Self {
        Self {
            chunk_size_log2: FIRST_LOG2,
            size_bytes: 0,
            digests: Vec::new(),
            checksums: Vec::new(),
            hasher: ChunkHasher::new(SEVERAL, 0, FIRST_LOG2),
            summer: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
        }
    }
}

impl Growing {
    /// Bytes that have come.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next bytes have come. Pieces of 64 KiB and more are fastest.
    ///
    /// # Panics
    /// They are more than the largest file has, 2^42 bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let chunk_bytes = 1_u64 << self.chunk_size_log2;
            let room = chunk_bytes - self.hasher.fed_bytes();
            let len = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let (now, behind) = bytes.split_at(len);
            self.hasher.update(now);
            self.summer.update(now);
            self.size_bytes += now.len() as u64;
            bytes = behind;
            if self.hasher.fed_bytes() == chunk_bytes {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        self.digests.push(self.hasher.finalize());
        self.checksums.push(self.summer.finalize_reset());
        if self.digests.len() == CHUNK_COUNT_MAX as usize {
            self.coarsen();
        }
        let chunk = u32::try_from(self.digests.len()).expect("fewer than a file's chunks");
        self.hasher.restart(SEVERAL, chunk, self.chunk_size_log2);
    }

    /// From now on chunks are twice as long. Only between chunks.
    fn coarsen(&mut self) {
        merge_pairs(&mut self.digests);
        let end_bytes = (self.checksums.len() as u64) << self.chunk_size_log2;
        merge_checksums(&mut self.checksums, end_bytes, self.chunk_size_log2);
        self.chunk_size_log2 += 1;
        assert!(self.chunk_size_log2 <= 24, "more than the largest file has");
    }

    /// The manifest and checksums in chunks of this size; `None` if they are smaller than what was kept, or the content is
    /// so short that it is as well looked at again.
    #[must_use]
    pub fn finish(&self, chunk_size_log2: u8) -> Option<Hashed> {
        let mut hasher = ManifestHasher::new(self.size_bytes, chunk_size_log2).ok()?;
        if chunk_size_log2 < self.chunk_size_log2 {
            return None;
        }
        let (mut digests, mut checksums) = (self.digests.clone(), self.checksums.clone());
        if self.hasher.fed_bytes() > 0 {
            digests.push(self.hasher.finalize());
            checksums.push(self.summer.finalize());
        }
        if digests.len() == 1 {
            // Its digest would be a root's.
            return None;
        }
        let mut merger = Merger::new();
        digests.iter().for_each(|&digest| merger.push(digest));
        let id = merger.finish();
        for log2 in self.chunk_size_log2..chunk_size_log2 {
            merge_pairs(&mut digests);
            merge_checksums(&mut checksums, self.size_bytes, log2);
        }
        let shape = SwarmKey { id, size_bytes: self.size_bytes, chunk_size_log2 };
        if shape.chunk_count() == 1 {
            digests = vec![id];
        }
        (0..).zip(&digests).for_each(|(chunk, &digest)| hasher.set(chunk, digest));
        let (key, manifest) = hasher.finish().expect("every chunk was set");
        debug_assert_eq!(key.id, id);
        Some(Hashed { manifest, checksums })
    }
}

/// The checksums of chunks twice as long, of chunks of 2^`log2` bytes that end at `end_bytes`.
fn merge_checksums(checksums: &mut Vec<u64>, end_bytes: u64, log2: u8) {
    let count = checksums.len().div_ceil(2);
    for pair in 0..count {
        let left = checksums[2 * pair];
        checksums[pair] = match checksums.get(2 * pair + 1) {
            Some(&right) => {
                let rest = end_bytes - ((2 * pair as u64 + 1) << log2);
                let len = rest.min(1 << log2);
                checksum_combine(CrcAlgorithm::Crc64Nvme, left, right, len)
            }
            None => left,
        };
    }
    checksums.truncate(count);
}

#[cfg(test)]
mod tests {
    use relay_protocol::Manifest;

    use super::*;
    use crate::hashing::chunk_checksum;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * i + i / 7) % 251).unwrap()).collect()
    }

    #[test]
    fn what_comes_in_pieces_has_the_manifest_of_the_whole_in_any_cut() {
        for len in [(64 << 10) + 1, 128 << 10, (1 << 20) - 5, (1 << 20) + 3, 3 << 20] {
            let bytes = content(len);
            let mut growing = Growing::default();
            for piece in bytes.chunks(70_001) {
                growing.update(piece);
            }
            assert_eq!(growing.size_bytes(), len as u64);
            for log2 in 16..=23 {
                let found = growing.finish(log2).expect("large enough");
                assert_eq!(found.manifest, Manifest::of(&bytes, log2).unwrap(), "{len}, 2^{log2}");
                let checksums: Vec<_> = bytes.chunks(1 << log2).map(chunk_checksum).collect();
                assert_eq!(found.checksums, checksums, "{len}, 2^{log2}");
            }
            assert!(growing.finish(15).is_none(), "of smaller chunks nothing is known");
        }
    }

    #[test]
    fn what_is_short_is_looked_at_again() {
        for len in [0, 1, 64 << 10] {
            let mut growing = Growing::default();
            growing.update(&content(len));
            assert_eq!(growing.size_bytes(), len as u64);
            assert_eq!(
                growing.finish(18).map(|found| found.checksums.len()),
                (len == 0).then_some(0)
            );
        }
    }

    #[test]
    fn chunks_that_grow_on_the_way_merge_to_the_same() {
        let bytes = content((5 << 16) + 77);
        let mut growing = Growing::default();
        growing.update(&bytes[..4 << 16]);
        growing.coarsen();
        growing.hasher.restart(SEVERAL, 2, 17);
        growing.update(&bytes[4 << 16..]);
        let found = growing.finish(17).unwrap();
        assert_eq!(found.manifest, Manifest::of(&bytes, 17).unwrap());
        let checksums: Vec<_> = bytes.chunks(1 << 17).map(chunk_checksum).collect();
        assert_eq!(found.checksums, checksums);
        assert!(growing.finish(16).is_none());
    }
}
