//! Between a connection and its store: chunks that are being written, chunks that are being read.
//!
//! A store may take its time; what was begun on a connection also ends on it, so that the next one
//! begins with a store at rest and knows every chunk that was kept. Decides nothing.

use std::{collections::VecDeque, io, rc::Rc, time::Duration};

use bytes::Bytes;
use shards::bell::LocalBell;

use crate::{
    error::ConnectionError,
    store::{ChunkStore, StoreEvent},
};
use relay_protocol::Digest;

/// What the store of a connection has under way.
pub(super) struct Keeping {
    store: Box<dyn ChunkStore>,
    /// Chunks being written, oldest put first, and their latencies. Bounded by the
    /// peer's window, and by what the store takes before it is full.
    puts: VecDeque<(u32, Duration)>,
    /// Chunks being read; bounded by [`UPLOADS_QUEUED_MAX`](crate::uploads::UPLOADS_QUEUED_MAX) and as many fetches
    /// that were cancelled meanwhile.
    gets: usize,
}

/// What became of a chunk.
pub(super) enum Outcome {
    /// It was verified, and is kept now.
    Kept { chunk: u32, latency: Duration },
    /// It was read for this fetch, or could not be.
    Read { fetch_id: u32, chunk: u32, result: io::Result<Bytes> },
}

impl Keeping {
    pub(super) fn new(store: Box<dyn ChunkStore>) -> Self {
        Self { store, puts: VecDeque::new(), gets: 0 }
    }

    /// Goes on with another store, at rest; the one before.
    pub(super) fn replace_store(&mut self, store: Box<dyn ChunkStore>) -> Box<dyn ChunkStore> {
        std::mem::replace(&mut self.store, store)
    }

    /// Has the store ring this bell; whether it ever will.
    pub(super) fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.store.watch(bell)
    }

    /// Begins to keep a verified chunk.
    pub(super) fn put(&mut self, chunk: u32, bytes: Bytes, latency: Duration) {
        self.puts.push_back((chunk, latency));
        self.store.put(chunk, bytes);
    }

    /// A verified chunk was opened, and is not kept.
    pub(super) fn note_opened(&mut self, chunk: u32, plain: Digest) -> Result<(), ConnectionError> {
        let noted = self.store.note_opened(chunk, plain);
        noted.map_err(|error| ConnectionError::Store { what: "open", chunk, error })
    }

    /// Begins to read a chunk, or reads it.
    pub(super) fn get(
        &mut self,
        fetch_id: u32,
        chunk: u32,
        digest: Digest,
    ) -> io::Result<Option<Bytes>> {
        let read = self.store.get(fetch_id, chunk, digest);
        self.gets += usize::from(matches!(read, Ok(None)));
        read
    }

    /// The next thing that the store has finished.
    pub(super) fn poll(&mut self) -> Result<Option<Outcome>, ConnectionError> {
        while let Some(event) = self.store.poll_event() {
            match event {
                StoreEvent::Read { tag, chunk, result } => {
                    self.gets -= 1;
                    return Ok(Some(Outcome::Read { fetch_id: tag, chunk, result }));
                }
                StoreEvent::Kept { chunk, result } => {
                    let latency = self.finish(chunk);
                    result.map_err(|error| ConnectionError::Store {
                        what: "write",
                        chunk,
                        error,
                    })?;
                    return Ok(Some(Outcome::Kept { chunk, latency }));
                }
                StoreEvent::Dropped { chunk } => {
                    self.finish(chunk);
                }
            }
        }
        Ok(None)
    }

    /// Takes a put off the list; most are the oldest.
    fn finish(&mut self, chunk: u32) -> Duration {
        let at = self.puts.iter().position(|&(put, _)| put == chunk);
        let put = at.and_then(|at| self.puts.remove(at));
        put.expect("a store tells only of what was put in").1
    }

    /// Nothing more comes.
    pub(super) fn handle_disconnected(&mut self) {
        self.store.handle_disconnected();
    }

    /// Whether chunks are being written.
    pub(super) fn is_writing(&self) -> bool {
        !self.puts.is_empty()
    }

    /// Whether nothing is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.puts.is_empty() && self.gets == 0
    }

    /// Whether nothing more should be received until something was written.
    pub(super) fn is_full(&self) -> bool {
        self.is_writing() && self.store.is_full()
    }
}
