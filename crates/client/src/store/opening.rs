//! Content of a sealed file that is opened and digested as it comes, and let go: for a peer that only finds out
//! whether all of it comes right. What others fetch comes from another place that has it.

use std::{io, rc::Rc};

use bytes::Bytes;
use shards::bell::LocalBell;

use super::contract::{ChunkStore, StoreEvent};
use crate::sealing::{Opening, Seal};
use relay_protocol::Digest;

/// Has what comes opened, and keeps none of it.
pub struct OpeningStore {
    opening: Opening,
    source: Box<dyn ChunkStore>,
}

impl std::fmt::Debug for OpeningStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpeningStore").field("opening", &self.opening).finish_non_exhaustive()
    }
}

impl OpeningStore {
    /// `source` supplies chunks to others, sealed.
    #[must_use]
    pub fn new(opening: Opening, source: Box<dyn ChunkStore>) -> Self {
        Self { opening, source }
    }
}

impl ChunkStore for OpeningStore {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn opens(&self) -> Option<&Seal> {
        Some(self.opening.seal())
    }

    fn note_opened(&mut self, chunk: u32, plain: Digest) -> io::Result<()> {
        self.opening.note_kept(chunk, plain)
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.source.watch(bell)
    }

    fn put(&mut self, _: u32, _: Bytes) {}

    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        self.source.get(tag, chunk, digest)
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.source.poll_event()
    }

    fn is_full(&self) -> bool {
        false
    }
}
