//! What every place for chunks can do.

use std::{io, rc::Rc};

use bytes::Bytes;
use shards::bell::LocalBell;

use crate::sealing::Seal;
use relay_protocol::Digest;

/// A place for the chunks of one file. Belongs to one connection at a time.
pub trait ChunkStore {
    /// Whether [`Self::put`] wants the bytes. If not, chunks are verified and never copied.
    fn keeps_bytes(&self) -> bool;

    /// How what comes is opened, where [`Self::put`] wants no bytes: then [`Self::note_opened`] is told of each chunk
    /// instead.
    fn opens(&self) -> Option<&Seal> {
        None
    }

    /// The digest of a verified chunk when it is opened.
    ///
    /// # Errors
    /// It was the last, and the file is not the ticket's.
    fn note_opened(&mut self, _chunk: u32, _plain: Digest) -> io::Result<()> {
        Ok(())
    }

    /// From now on this bell is rung for every event; whether there will ever be one.
    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool;

    /// Begins to keep a verified chunk: [`StoreEvent::Kept`] follows.
    fn put(&mut self, chunk: u32, bytes: Bytes);

    /// A chunk that was kept, or was there from the start: at once, or `None` and a
    /// [`StoreEvent::Read`] under this tag later. What comes from where others may write is
    /// checked: against the digest, or what else tells that it is what it was.
    ///
    /// # Errors
    /// It can't be read, or is not what it was.
    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>>;

    /// What became of something that was begun.
    fn poll_event(&mut self) -> Option<StoreEvent>;

    /// Whether so much waits to be written that nothing more should be received. Only while puts
    /// of this store are under way: its own next event is the time to ask again.
    fn is_full(&self) -> bool;

    /// The connection has ended. Chunks that wait for others are let go, now and only now: until then the
    /// connection takes no byte of them again.
    fn handle_disconnected(&mut self) {}
}

/// What became of something that a store began.
#[derive(Debug)]
pub enum StoreEvent {
    /// A chunk is kept, or can't be.
    Kept {
        /// The chunk's index.
        chunk: u32,
        /// The system's reason, if not.
        result: io::Result<()>,
    },
    /// A chunk was let go: it is as if it had not come.
    Dropped {
        /// The chunk's index.
        chunk: u32,
    },
    /// A chunk was read, or can't be.
    Read {
        /// As given to [`ChunkStore::get`].
        tag: u32,
        /// The chunk's index.
        chunk: u32,
        /// Its bytes, of the right digest.
        result: io::Result<Bytes>,
    },
}
