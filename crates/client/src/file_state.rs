//! What a peer has of one file: survives connections, so that a new one goes on where the last
//! ended. Holds no file bytes; those are in a [`super::ChunkStore`].

use std::sync::Arc;

use relay_protocol::{Bitfield, Manifest, SwarmKey};

/// One file as one peer knows it.
///
/// Invariants: `have.len() == key.chunk_count()`; a manifest is of the same key.
#[derive(Clone, Debug)]
pub struct FileState {
    key: SwarmKey,
    have: Bitfield,
    manifest: Option<Arc<Manifest>>,
}

impl FileState {
    /// A file of which nothing is known but its key.
    #[must_use]
    pub fn lacking(key: SwarmKey) -> Self {
        Self { key, have: Bitfield::empty(key.chunk_count()), manifest: None }
    }

    /// A file that is here as a whole.
    #[must_use]
    pub fn whole(manifest: Arc<Manifest>) -> Self {
        let key = *manifest.key();
        Self { key, have: Bitfield::full(key.chunk_count()), manifest: Some(manifest) }
    }

    /// Names the swarm.
    #[must_use]
    pub fn key(&self) -> &SwarmKey {
        &self.key
    }

    /// The chunks that are here, verified.
    #[must_use]
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The list of digests, once known.
    #[must_use]
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.manifest.as_ref()
    }

    /// Whether every chunk is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.have.is_full()
    }

    /// Books a chunk that was verified and is kept; whether it is new.
    pub fn add(&mut self, chunk: u32) -> bool {
        self.have.insert(chunk)
    }

    /// Takes the list of digests, or another copy of the same (many peers may share one).
    ///
    /// # Panics
    /// If it is of another file.
    pub fn set_manifest(&mut self, manifest: Arc<Manifest>) {
        assert_eq!(*manifest.key(), self.key, "a manifest of another file");
        self.manifest = Some(manifest);
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        assert_eq!(self.have.len(), self.key.chunk_count());
        assert!(self.manifest.as_ref().is_none_or(|manifest| *manifest.key() == self.key));
    }
}
