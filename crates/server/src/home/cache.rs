//! The chunks that a home has cached, and those of them that no peer was sent so far: so that every byte that
//! came in is accounted for.
//!
//! What comes in as data is passed on at least once, or dropped for a reason, or lies here:
//! `data in = passed on + sum of dropped + unsent + being received`.

use std::collections::HashMap;

use crate::{
    message::FetchedChunk,
    observe::cells::{Drop, ShardCells},
};
use relay_swarm::FetchFailure;

/// Of one home, by chunk.
#[derive(Debug, Default)]
pub(super) struct Cache {
    chunks: HashMap<u32, FetchedChunk>,
    /// Lengths of those that were not passed on.
    unsent: HashMap<u32, u64>,
}

impl Cache {
    pub(super) fn get(&self, chunk: u32) -> Option<&FetchedChunk> {
        self.chunks.get(&chunk)
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The chunk was fetched.
    pub(super) fn insert(&mut self, chunk: u32, fetched: FetchedChunk, cells: &ShardCells) {
        let len_bytes = u64::from(fetched.bytes.len_bytes());
        self.unsent.insert(chunk, len_bytes);
        cells.unsent_bytes.add(len_bytes);
        self.chunks.insert(chunk, fetched);
    }

    /// The chunk goes to a peer, perhaps not for the first time.
    pub(super) fn pass_on(&mut self, chunk: u32, cells: &ShardCells) {
        if let Some(len_bytes) = self.unsent.remove(&chunk) {
            cells.unsent_bytes.sub(len_bytes);
            cells.passed_on_bytes.add(len_bytes);
        }
    }

    /// The chunk leaves the cache.
    pub(super) fn remove(&mut self, chunk: u32, cells: &ShardCells) {
        self.chunks.remove(&chunk);
        if let Some(len_bytes) = self.unsent.remove(&chunk) {
            cells.unsent_bytes.sub(len_bytes);
            cells.count_dropped(Drop::Unused, len_bytes);
        }
    }

    /// All chunks leave the cache.
    pub(super) fn remove_all(&mut self, cells: &ShardCells) {
        self.chunks.clear();
        let len_bytes = self.unsent.drain().map(|(_, len_bytes)| len_bytes).sum();
        cells.unsent_bytes.sub(len_bytes);
        cells.count_dropped(Drop::Unused, len_bytes);
    }
}

/// A fetch ended that its home had cancelled, or whose home is gone.
pub(crate) fn count_unwanted(result: &Result<FetchedChunk, FetchFailure>, cells: &ShardCells) {
    if let Ok(chunk) = result {
        cells.count_dropped(Drop::Cancelled, u64::from(chunk.bytes.len_bytes()));
    }
}
