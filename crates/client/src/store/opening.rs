//! Content of a sealed file that is opened and digested chunk after chunk, and then let go: for a peer that only
//! finds out whether all of it comes right. What others fetch comes from another place that has it.

use std::{io, rc::Rc};

use bytes::Bytes;
use shards::bell::LocalBell;

use super::{
    contract::{ChunkStore, StoreEvent},
    disk::Mailbox,
    file::{note, opened},
};
use crate::sealing::Opening;
use relay_protocol::{Digest, SwarmKey};

/// Opens what is put in, at once, and keeps none of it.
pub struct OpeningStore {
    key: SwarmKey,
    opening: Opening,
    source: Box<dyn ChunkStore>,
    mailbox: Mailbox,
}

impl std::fmt::Debug for OpeningStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpeningStore").field("key", &self.key).finish_non_exhaustive()
    }
}

impl OpeningStore {
    /// Of the file that the key names. `source` supplies chunks to others, sealed.
    #[must_use]
    pub fn new(key: SwarmKey, opening: Opening, source: Box<dyn ChunkStore>) -> Self {
        Self { key, opening, source, mailbox: Mailbox::default() }
    }
}

impl ChunkStore for OpeningStore {
    fn keeps_bytes(&self) -> bool {
        true
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.source.watch(bell);
        self.mailbox.watch(bell);
        true
    }

    fn put(&mut self, chunk: u32, bytes: Bytes) {
        let (_, plain) = opened(Some(self.opening.seal()), &self.key, chunk, bytes);
        let result = note(Some(&self.opening), chunk, plain);
        self.mailbox.push(StoreEvent::Kept { chunk, result });
    }

    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        self.source.get(tag, chunk, digest)
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.mailbox.pop().or_else(|| self.source.poll_event())
    }

    fn is_full(&self) -> bool {
        false
    }
}
