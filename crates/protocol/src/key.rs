//! What names a file's content: digest and swarm key, and the arithmetic of its chunks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{
    CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_DEFAULT, CHUNK_SIZE_LOG2_DEFAULT_MAX, CHUNK_SIZE_LOG2_MAX,
    CHUNK_SIZE_LOG2_MIN,
};

/// 32 bytes of BLAKE3: of a whole file, or the chaining value of a chunk's subtree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Names a swarm: the file's BLAKE3, its size, its chunks' size. A peer with the same content but
/// cuts it otherwise is in another swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SwarmKey {
    /// BLAKE3 of the whole file, what `b3sum` prints.
    pub id: Digest,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Binary logarithm of the chunk size in bytes.
    pub chunk_size_log2: u8,
}

/// Why a swarm key can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The chunk size is out of range.
    #[error(
        "chunk size 2^{0} is not between 2^{CHUNK_SIZE_LOG2_MIN} and 2^{CHUNK_SIZE_LOG2_MAX} bytes"
    )]
    ChunkSize(u8),
    /// The file has more chunks than a manifest holds.
    #[error(
        "{0} bytes in chunks of 2^{1} are more than {CHUNK_COUNT_MAX} chunks: use larger chunks"
    )]
    ChunkCount(u64, u8),
}

/// Chunks that are enough of a file: beyond, larger ones serve as well.
const CHUNK_COUNT_AMPLE: u64 = 1024;

/// Chunks of the default size that the relay's cache should hold, in terms of what it recommends
/// at most: eight times as many, hence 64.
const CACHED_CHUNKS_LOG2: u8 = 3;

impl SwarmKey {
    /// Checks what came from outside; the other methods rely on it.
    ///
    /// # Errors
    /// A chunk size out of range, or too many chunks.
    pub fn validate(&self) -> Result<(), KeyError> {
        if !(CHUNK_SIZE_LOG2_MIN..=CHUNK_SIZE_LOG2_MAX).contains(&self.chunk_size_log2) {
            return Err(KeyError::ChunkSize(self.chunk_size_log2));
        }
        if self.size_bytes.div_ceil(1 << self.chunk_size_log2) > u64::from(CHUNK_COUNT_MAX) {
            return Err(KeyError::ChunkCount(self.size_bytes, self.chunk_size_log2));
        }
        Ok(())
    }

    /// Bytes of every chunk but the last.
    #[must_use]
    pub fn chunk_size_bytes(&self) -> u32 {
        1 << self.chunk_size_log2
    }

    /// Number of chunks; none for an empty file.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(1 << self.chunk_size_log2))
            .expect("validate() bounds the count")
    }

    /// Where in the file the chunk begins.
    #[must_use]
    pub fn chunk_offset_bytes(&self, chunk: u32) -> u64 {
        u64::from(chunk) << self.chunk_size_log2
    }

    /// Bytes of this chunk: the last may be shorter, but never empty.
    #[must_use]
    pub fn chunk_len_bytes(&self, chunk: u32) -> u32 {
        let rest = self.size_bytes.saturating_sub(self.chunk_offset_bytes(chunk));
        u32::try_from(rest.min(u64::from(self.chunk_size_bytes()))).expect("at most a chunk")
    }
}

/// The chunk size that publishers choose unless told otherwise, as a binary logarithm, for a relay
/// that recommends at most `most_log2`. Each chunk costs messages and decisions, so a large file
/// has larger ones ([`CHUNK_SIZE_LOG2_DEFAULT`] to [`CHUNK_SIZE_LOG2_DEFAULT_MAX`]), where the
/// relay's cache still holds many of them. Larger than `most_log2` if there would be too many else.
#[must_use]
pub fn chunk_size_log2_for(size_bytes: u64, most_log2: u8) -> u8 {
    let is_ample = |&log2: &u8| size_bytes <= CHUNK_COUNT_AMPLE << log2;
    let fits = |&log2: &u8| {
        let key = SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2: log2 };
        key.validate().is_ok()
    };
    let cached_log2 = most_log2.saturating_sub(CACHED_CHUNKS_LOG2);
    let larger_max = CHUNK_SIZE_LOG2_DEFAULT_MAX.min(cached_log2);
    let by_size = (CHUNK_SIZE_LOG2_DEFAULT..larger_max).find(is_ample).unwrap_or(larger_max);
    let wished = by_size.max(CHUNK_SIZE_LOG2_DEFAULT).min(most_log2);
    (wished..=CHUNK_SIZE_LOG2_MAX).find(fits).unwrap_or(CHUNK_SIZE_LOG2_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_have_larger_chunks_where_the_relay_can_hold_many() {
        let sizes = [0, 1, 256 << 20, (256 << 20) + 1, 512 << 20, (512 << 20) + 1, 1 << 36];
        let chosen = sizes.map(|size_bytes| chunk_size_log2_for(size_bytes, 24));
        assert_eq!(chosen, [18, 18, 18, 19, 19, 20, 20]);
        // A cache of 16 MiB recommends 2 MiB, one of 32 MiB 4 MiB, one of 4 MiB half a MiB.
        assert_eq!(chunk_size_log2_for(1 << 30, 21), 18);
        assert_eq!(chunk_size_log2_for(1 << 30, 22), 19);
        assert_eq!(chunk_size_log2_for(1 << 30, 19), 18);
        assert_eq!(chunk_size_log2_for(1 << 30, 16), 16);
    }

    #[test]
    fn however_large_the_file_its_chunks_can_be_counted() {
        assert_eq!(chunk_size_log2_for(1 << 36, 18), 18);
        assert_eq!(chunk_size_log2_for((1 << 36) + 1, 18), 19);
        assert_eq!(chunk_size_log2_for(1 << 40, 24), 22);
        assert_eq!(chunk_size_log2_for(1 << 42, 18), 24);
        assert_eq!(chunk_size_log2_for(u64::MAX, 18), 24);
    }
}
