//! The list of a file's chunk digests: made from content, sent in parts, proven by merging to the
//! file's id.
//!
//! It is a pure function of the content and of how that is cut, so all honest copies are equal,
//! and a side that knows the swarm key can check one without trusting its sender.

use super::{
    digest::{ChunkHasher, Merger, digest_file},
    key::{Digest, KeyError, SwarmKey},
    limits::MANIFEST_PART_DIGESTS_MAX,
    message::Message,
};

/// The digests of all chunks of one file. Invariants: `digests.len() == key.chunk_count()`, and
/// they merge to `key.id`. At most 8 MiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    key: SwarmKey,
    digests: Vec<Digest>,
}

/// Why a list of digests is not the manifest of the file. All of them are the sender's fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManifestError {
    /// A part does not follow the one before.
    #[error("a manifest part begins at chunk {first_chunk}, chunk {expected} is next")]
    OutOfOrder {
        /// Where the part begins.
        first_chunk: u32,
        /// Where it had to begin.
        expected: u32,
    },
    /// A part without digests: it would go on for ever.
    #[error("a manifest part is empty")]
    Empty,
    /// There are more digests than chunks.
    #[error("a manifest has more digests than the {chunk_count} chunks of the file")]
    TooMany {
        /// Number of chunks.
        chunk_count: u32,
    },
    /// There are fewer digests than chunks.
    #[error("a manifest ends after {digests} digests of {chunk_count}")]
    Incomplete {
        /// Number of digests so far.
        digests: u32,
        /// Number of chunks.
        chunk_count: u32,
    },
    /// The digests are not those of the file.
    #[error("a manifest merges to {merged}, the file's id is {id}")]
    Mismatch {
        /// What the digests merge to.
        merged: Digest,
        /// The id of the swarm key.
        id: Digest,
    },
}

impl Manifest {
    /// Of a file in memory.
    ///
    /// # Errors
    /// A chunk size out of range, or too many chunks.
    pub fn of(bytes: &[u8], chunk_size_log2: u8) -> Result<Self, KeyError> {
        let mut hasher = ManifestHasher::new(bytes.len() as u64, chunk_size_log2)?;
        let mut chunk_hasher = ChunkHasher::new(hasher.chunk_count().max(1), 0, chunk_size_log2);
        for (chunk, part) in (0..).zip(bytes.chunks(1 << chunk_size_log2)) {
            chunk_hasher.restart(hasher.chunk_count(), chunk, chunk_size_log2);
            chunk_hasher.update(part);
            hasher.set(chunk, chunk_hasher.finalize());
        }
        let (_, manifest) = hasher.finish().expect("every chunk was set");
        Ok(manifest)
    }

    /// From digests whose origin is not trusted, for example a file beside a partial download.
    ///
    /// # Errors
    /// They are too few, too many, or do not merge to the key's id.
    pub fn verify(key: SwarmKey, digests: &[Digest]) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(key);
        if !digests.is_empty() {
            builder.push(0, digests)?;
        }
        builder.finish()
    }

    /// What file it is of.
    #[must_use]
    pub fn key(&self) -> &SwarmKey {
        &self.key
    }

    /// The digests, in order of their chunks.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The digest of a chunk.
    ///
    /// # Panics
    /// If the file has no such chunk.
    #[must_use]
    pub fn digest(&self, chunk: u32) -> Digest {
        self.digests[chunk as usize]
    }

    /// Whether these are the chunk's bytes.
    ///
    /// # Panics
    /// If the file has no such chunk.
    #[must_use]
    pub fn matches(&self, chunk: u32, bytes: &[u8]) -> bool {
        bytes.len() == self.key.chunk_len_bytes(chunk) as usize
            && super::digest::digest_chunk(&self.key, chunk, bytes) == self.digest(chunk)
    }

    /// The message that carries the digests from this chunk on, as many as fit; `None` at the
    /// end. The next part begins [`MANIFEST_PART_DIGESTS_MAX`] chunks later.
    #[must_use]
    pub fn part(&self, first_chunk: u32) -> Option<Message> {
        let rest = self.digests.get(first_chunk as usize..)?;
        let digests = &rest[..rest.len().min(MANIFEST_PART_DIGESTS_MAX)];
        (!digests.is_empty())
            .then(|| Message::ManifestPart { first_chunk, digests: digests.to_vec() })
    }

    /// All parts from this chunk on; none for an empty file.
    pub fn parts(&self, first_chunk: u32) -> impl Iterator<Item = Message> + '_ {
        (first_chunk..).step_by(MANIFEST_PART_DIGESTS_MAX).map_while(|first| self.part(first))
    }
}

/// Puts a manifest together from parts that came from another side, and proves it. Each digest costs about
/// one compression when it arrives: there is no long computation at the end that would hold up
/// an event loop.
///
/// Invariant: `digests.len() == merger.count() <= key.chunk_count()`. Memory grows with what
/// arrived, never with what the key announces.
#[derive(Clone, Debug)]
pub struct ManifestBuilder {
    key: SwarmKey,
    digests: Vec<Digest>,
    merger: Merger,
}

impl ManifestBuilder {
    /// Before the first part. The key is valid.
    #[must_use]
    pub fn new(key: SwarmKey) -> Self {
        Self { key, digests: Vec::new(), merger: Merger::new() }
    }

    /// The chunk that the next part must begin with; the number of digests so far.
    #[must_use]
    pub fn next_chunk(&self) -> u32 {
        self.merger.count()
    }

    /// Whether as many digests arrived as the file has chunks; an empty file's are complete from
    /// the start.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next_chunk() == self.key.chunk_count()
    }

    /// Takes in a part; whether it was the last. An error leaves the builder as it was.
    ///
    /// # Errors
    /// The part is empty, does not begin where the one before ended, or goes beyond the file.
    pub fn push(&mut self, first_chunk: u32, digests: &[Digest]) -> Result<bool, ManifestError> {
        let (expected, chunk_count) = (self.next_chunk(), self.key.chunk_count());
        if digests.is_empty() {
            return Err(ManifestError::Empty);
        }
        if first_chunk != expected {
            return Err(ManifestError::OutOfOrder { first_chunk, expected });
        }
        if digests.len() > (chunk_count - expected) as usize {
            return Err(ManifestError::TooMany { chunk_count });
        }
        self.digests.extend_from_slice(digests);
        digests.iter().for_each(|&digest| self.merger.push(digest));
        Ok(self.is_complete())
    }

    /// The manifest, proven.
    ///
    /// # Errors
    /// Digests are missing, or they do not merge to the key's id.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        let (digests, chunk_count) = (self.next_chunk(), self.key.chunk_count());
        if digests != chunk_count {
            return Err(ManifestError::Incomplete { digests, chunk_count });
        }
        let (merged, id) = (self.merger.finish(), self.key.id);
        if merged != id {
            return Err(ManifestError::Mismatch { merged, id });
        }
        self.digests.shrink_to_fit();
        Ok(Manifest { key: self.key, digests: self.digests })
    }

    /// Checks what must hold between two calls; for tests.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn invariants(&self) {
        self.merger.invariants();
        assert_eq!(self.digests.len(), self.merger.count() as usize);
        assert!(self.merger.count() <= self.key.chunk_count());
    }
}

/// Makes a manifest, and with it the key, of a file whose chunks are digested elsewhere, in any
/// order: by one thread, by many, from memory or from disk.
///
/// Invariant: `missing` is the number of `None` in `digests`.
#[derive(Clone, Debug)]
pub struct ManifestHasher {
    size_bytes: u64,
    chunk_size_log2: u8,
    digests: Vec<Option<Digest>>,
    missing: u32,
}

impl ManifestHasher {
    /// Before the first chunk.
    ///
    /// # Errors
    /// A chunk size out of range, or too many chunks.
    pub fn new(size_bytes: u64, chunk_size_log2: u8) -> Result<Self, KeyError> {
        let key = SwarmKey { id: digest_file(&[]), size_bytes, chunk_size_log2 };
        key.validate()?;
        let missing = key.chunk_count();
        Ok(Self { size_bytes, chunk_size_log2, digests: vec![None; missing as usize], missing })
    }

    /// Number of chunks, as [`ChunkHasher::new`] wants it.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.digests.len()).expect("validate() bounds the count")
    }

    /// Number of chunks whose digest is not known yet.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Sets a chunk's digest, by [`ChunkHasher`]; a second time replaces it.
    ///
    /// # Panics
    /// If the file has no such chunk.
    pub fn set(&mut self, chunk: u32, digest: Digest) {
        let before = self.digests[chunk as usize].replace(digest);
        self.missing -= u32::from(before.is_none());
    }

    /// The key and the manifest; `None` while digests are missing.
    #[must_use]
    pub fn finish(&self) -> Option<(SwarmKey, Manifest)> {
        let digests: Vec<Digest> = self.digests.iter().copied().collect::<Option<_>>()?;
        let mut merger = Merger::new();
        digests.iter().for_each(|&digest| merger.push(digest));
        let key = SwarmKey {
            id: merger.finish(),
            size_bytes: self.size_bytes,
            chunk_size_log2: self.chunk_size_log2,
        };
        Some((key, Manifest { key, digests }))
    }

    /// Checks what must hold between two calls; for tests.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn invariants(&self) {
        let missing = self.digests.iter().filter(|digest| digest.is_none()).count();
        assert_eq!(missing, self.missing as usize);
    }
}
