//! Which chunks are lent to the kernel instead of copied, and what that may take.
//!
//! The home decides when it has a chunk fetched, by the peers that need it then. The shard that receives it lays it out
//! in a file before anything else refers to it, so a chunk is either in memory or in a file, wherever it is sent from.

use shards::{
    Budget, ChunkFiles,
    chunk_files::place::{self, Choice, Found},
};

use crate::{
    memory::MemoryPlan,
    message::{FetchedChunk, VerifiedChunk},
};
use relay_protocol::SwarmKey;
use relay_transport::{ChunkBytes, LENT_BYTES_MAX, LENT_BYTES_MIN, LentChunk};

/// A chunk that fewer peers need is copied for each of them. With 10 and 20 peers on one machine files cost as much
/// wall time as they saved of the relay's (1.08 and 1.01), with 40 they saved an eighth (docs/decisions, 0018).
pub(crate) const TAKERS_MIN: u32 = 32;

/// A cache of fewer chunks than this has them all in memory. Each takes up to a page more in a file, and peers that are
/// lent more at a time than they would be copied are further from each other: in a cache of 64 chunks, and in one of 16,
/// chunks were fetched again, or the job was slower.
const CACHE_CHUNKS_LEAST: usize = 256;

/// A smaller cache than this has no chunk in a file, however short chunks are.
const CACHE_BYTES_LEAST: usize = CACHE_CHUNKS_LEAST * LENT_BYTES_MIN;

/// Fewer files than this are of no use.
const FILES_MIN: usize = 64;

/// Looks for a place for chunk files: the start and `relay doctor` both ask here. A bound on what sockets may refer to
/// is in `crates/server/src/memory.rs`, one on the number of files in `descriptors.rs` beside it.
#[must_use]
pub fn find_place(choice: &Choice, memory: &MemoryPlan, files_max: usize) -> Found {
    if files_max < FILES_MIN && *choice != Choice::Never {
        let why =
            format!("{files_max} descriptors are left for files of chunks, {FILES_MIN} are needed");
        return Found::none(
            &why,
            Some("raise the hard limit of descriptors, or lower --max-peers"),
        );
    }
    let cache_bytes = usize::try_from(memory.cache_bytes).unwrap_or(usize::MAX);
    if cache_bytes < CACHE_BYTES_LEAST && *choice != Choice::Never {
        let (has, least) = (cache_bytes >> 10, CACHE_BYTES_LEAST >> 20);
        let why = format!("--cache is {has} KiB, and less than {least} MiB hold too few chunks");
        return Found::none(&why, Some("raise --cache, where 32 peers and more want one file"));
    }
    place::find(choice, cache_bytes)
}

/// Chunk files in the place that was found, if there is one.
pub(crate) fn open(found: Found, memory: &MemoryPlan, files_max: usize) -> Option<ChunkFiles> {
    let pinned_max = usize::try_from(memory.pinned_bytes()).unwrap_or(usize::MAX);
    found.directory.map(|directory| ChunkFiles::new(directory, files_max, pinned_max))
}

/// Whether a chunk of this file is to be lent when so many peers need it.
pub(crate) fn is_worth_it(key: &SwarmKey, chunk: u32, takers: u32) -> bool {
    let len_bytes = key.chunk_len_bytes(chunk) as usize;
    takers >= TAKERS_MIN && (LENT_BYTES_MIN..=LENT_BYTES_MAX).contains(&len_bytes)
}

/// Bytes that one chunk is leased: what its file takes, if it may come to lie in one.
pub(crate) fn lease_bytes(chunk_bytes: usize, peers: usize, budget: &Budget) -> usize {
    let is_likely = peers >= TAKERS_MIN as usize
        && (LENT_BYTES_MIN..=LENT_BYTES_MAX).contains(&chunk_bytes)
        && budget.limit_bytes() / chunk_bytes >= CACHE_CHUNKS_LEAST;
    if is_likely { LentChunk::leased_bytes(chunk_bytes) } else { chunk_bytes }
}

/// Puts a chunk where it stays until it is evicted; whether that is a file.
pub(crate) fn keep(files: Option<&ChunkFiles>, verified: VerifiedChunk) -> (FetchedChunk, bool) {
    let VerifiedChunk { index, buffer, crcs, is_to_be_lent } = verified;
    let Some(files) = files.filter(|_| is_to_be_lent) else {
        return (FetchedChunk { bytes: buffer.freeze().into(), crcs }, false);
    };
    match LentChunk::lay_out(files, index, buffer, &crcs) {
        Ok(lent) => {
            let bytes = ChunkBytes::File(lent.into());
            (FetchedChunk { bytes, crcs }, true)
        }
        Err((buffer, error)) => {
            if let Some(error) = error {
                tracing::debug!(
                    chunk = index,
                    "this chunk is copied for each peer: no file: {error}"
                );
            }
            (FetchedChunk { bytes: buffer.freeze().into(), crcs }, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(cache_bytes: u64, choice: &Choice) -> String {
        let memory = MemoryPlan::new(Some(cache_bytes), 1, None, None);
        find_place(choice, &memory, FILES_MIN).to_string()
    }

    #[test]
    fn a_cache_without_any_chunk_in_a_file_is_the_reason_and_not_the_tmpfs() {
        let small = found(64 << 10, &Choice::Auto);
        assert!(small.contains("--cache is 64 KiB") && small.contains("raise --cache"), "{small}");
        let most = CACHE_BYTES_LEAST as u64;
        assert!(!found(most, &Choice::Auto).contains("raise --cache"));
        assert!(found(64 << 10, &Choice::Never).contains("asked for"));
    }
}
