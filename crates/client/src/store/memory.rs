//! Content that is all there in memory, or none at all. Answers at once, keeps nothing.

use std::{io, rc::Rc};

use bytes::{Bytes, BytesMut};
use shards::bell::LocalBell;

use super::contract::{ChunkStore, StoreEvent};
use crate::sealing::Seal;
use relay_protocol::{Digest, SwarmKey};

/// Content that is all there in memory: a publisher's, or the source that verifying clients
/// share. Chunks of it are never copied, nor checked: nothing else can write there. Of a sealed file it holds what
/// people see, and each chunk that it gives is sealed anew, and checked.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    key: SwarmKey,
    content: Bytes,
    seal: Option<Seal>,
}

impl MemoryStore {
    /// The whole content of the file that `key` names.
    ///
    /// # Panics
    /// If it is of another length.
    #[must_use]
    pub fn new(key: SwarmKey, content: Bytes) -> Self {
        assert_eq!(content.len() as u64, key.size_bytes, "content of another file");
        Self { key, content, seal: None }
    }

    /// Seals what it gives.
    #[must_use]
    pub fn with_seal(self, seal: Option<Seal>) -> Self {
        Self { seal, ..self }
    }

    /// One chunk of the content.
    #[must_use]
    pub fn chunk(&self, chunk: u32) -> Bytes {
        let start = usize::try_from(self.key.chunk_offset_bytes(chunk)).expect("it is in memory");
        self.content.slice(start..start + self.key.chunk_len_bytes(chunk) as usize)
    }
}

impl ChunkStore for MemoryStore {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn watch(&mut self, _: &Rc<LocalBell>) -> bool {
        false
    }

    fn put(&mut self, _: u32, _: Bytes) {}

    fn get(&mut self, _: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        let Some(seal) = &self.seal else { return Ok(Some(self.chunk(chunk))) };
        let mut bytes = BytesMut::from(&*self.chunk(chunk));
        if seal.turn(&self.key, chunk, &mut bytes, None) != digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is sealed as another file"));
        }
        Ok(Some(bytes.freeze()))
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        None
    }

    fn is_full(&self) -> bool {
        false
    }
}

/// Keeps nothing and has nothing: for a peer that only asks.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl ChunkStore for Nowhere {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn watch(&mut self, _: &Rc<LocalBell>) -> bool {
        false
    }

    fn put(&mut self, _: u32, _: Bytes) {}

    fn get(&mut self, _: u32, _: u32, _: Digest) -> io::Result<Option<Bytes>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        None
    }

    fn is_full(&self) -> bool {
        false
    }
}
