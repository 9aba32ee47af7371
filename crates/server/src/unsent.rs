//! Cached chunks that nobody was sent so far: so that every byte that came in is accounted for.
//!
//! What comes in as data is passed on at least once, or dropped for a reason, or lies here:
//! `data in = passed on + sum of dropped + unsent + being received`.

use std::collections::HashMap;

use super::{
    cells::{Drop, ShardCells},
    message::FetchedChunk,
};
use relay_swarm::FetchFailure;

/// Of one home: chunks and their lengths.
#[derive(Debug, Default)]
pub(crate) struct Unsent(HashMap<u32, u64>);

impl Unsent {
    /// The chunk was fetched and is cached.
    pub(crate) fn insert(&mut self, chunk: u32, fetched: &FetchedChunk, cells: &ShardCells) {
        let len_bytes = fetched.bytes.len() as u64;
        self.0.insert(chunk, len_bytes);
        cells.unsent_bytes.add(len_bytes);
    }

    /// The chunk goes to somebody, perhaps not for the first time.
    pub(crate) fn pass_on(&mut self, chunk: u32, cells: &ShardCells) {
        if let Some(len_bytes) = self.0.remove(&chunk) {
            cells.unsent_bytes.sub(len_bytes);
            cells.passed_on_bytes.add(len_bytes);
        }
    }

    /// The chunk leaves the cache.
    pub(crate) fn remove(&mut self, chunk: u32, cells: &ShardCells) {
        if let Some(len_bytes) = self.0.remove(&chunk) {
            cells.unsent_bytes.sub(len_bytes);
            cells.count_dropped(Drop::Unused, len_bytes);
        }
    }

    /// All chunks leave the cache.
    pub(crate) fn remove_all(&mut self, cells: &ShardCells) {
        let len_bytes = self.0.drain().map(|(_, len_bytes)| len_bytes).sum();
        cells.unsent_bytes.sub(len_bytes);
        cells.count_dropped(Drop::Unused, len_bytes);
    }
}

/// A fetch ended that its home had cancelled, or whose home is gone.
pub(crate) fn count_unwanted(result: &Result<FetchedChunk, FetchFailure>, cells: &ShardCells) {
    if let Ok(chunk) = result {
        cells.count_dropped(Drop::Cancelled, chunk.bytes.len() as u64);
    }
}
