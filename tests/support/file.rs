//! Content for tests: from a seed, so that a failure can be replayed.

use relay::protocol::{Manifest, SwarmKey};

/// A file with its manifest.
pub(crate) struct TestFile {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// Its digests.
    pub(crate) manifest: Manifest,
}

impl TestFile {
    /// `len` bytes that no two seeds share, cut into chunks of 2^`chunk_size_log2`.
    pub(crate) fn new(seed: u64, len: usize, chunk_size_log2: u8) -> Self {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        Self::of(bytes, chunk_size_log2)
    }

    /// These bytes, cut into chunks of 2^`chunk_size_log2`.
    pub(crate) fn of(bytes: Vec<u8>, chunk_size_log2: u8) -> Self {
        let manifest = Manifest::of(&bytes, chunk_size_log2).expect("test files are within limits");
        Self { bytes, manifest }
    }

    /// Names it.
    pub(crate) fn key(&self) -> SwarmKey {
        *self.manifest.key()
    }

    /// The bytes of one chunk.
    pub(crate) fn chunk(&self, chunk: u32) -> &[u8] {
        let key = self.key();
        let start = usize::try_from(key.chunk_offset_bytes(chunk)).expect("test files are small");
        &self.bytes[start..start + key.chunk_len_bytes(chunk) as usize]
    }
}
