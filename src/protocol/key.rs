//! What names a file's content: digest and swarm key, and the arithmetic of its chunks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN};

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

/// Names a swarm: the file's BLAKE3, its size, its chunks' size. Who has the same content but
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
