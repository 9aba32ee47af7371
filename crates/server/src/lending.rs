//! Which chunks are lent to the kernel instead of copied, and what that may take.
//!
//! The home decides when it has a chunk fetched, by the peers that need it then. The shard that receives it lays it out
//! in a file before anything else refers to it, so a chunk is either in memory or in a file, wherever it is sent from.

use std::{io, sync::Once};

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

/// A cache that has room for so many of no chunk that is lent.
const CACHE_BYTES_LEAST: u64 = (CACHE_CHUNKS_LEAST * LENT_BYTES_MIN) as u64;

/// Fewer files than this are of no use.
const FILES_MIN: usize = 64;

/// Looks for a place for chunk files: the start and `relay doctor` both ask here. A bound on what sockets may refer to
/// is in `crates/server/src/memory.rs`, one on the number of files in `descriptors.rs` beside it.
#[must_use]
pub fn find_place(choice: &Choice, memory: &MemoryPlan, files_max: usize) -> Found {
    let asks = *choice != Choice::Never;
    if asks && memory.cache_bytes < CACHE_BYTES_LEAST {
        let why = format!("--cache holds fewer than {CACHE_CHUNKS_LEAST} chunks of 64 KiB");
        return Found::none(
            &why,
            Some("raise --cache to 16M for chunks of 64 KiB, 64M for 256 KiB"),
        );
    }
    if asks && files_max < FILES_MIN {
        let why =
            format!("{files_max} descriptors are left for files of chunks, {FILES_MIN} are needed");
        return Found::none(
            &why,
            Some("raise the hard limit of descriptors, or lower --max-peers"),
        );
    }
    place::find(choice, usize::try_from(memory.cache_bytes).unwrap_or(usize::MAX))
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
                note_refusal(index, &error);
            }
            (FetchedChunk { bytes: buffer.freeze().into(), crcs }, false)
        }
    }
}

/// A chunk that was to be lent is copied. A place that is full refuses many a second, so it is said loudly once.
fn note_refusal(chunk: u32, error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "a chunk is copied for each peer, as it could not be laid out in a file: {error}; later ones are told of \
             at the log's level debug (--chunk-dir names another place)"
        );
    });
    tracing::debug!(chunk, "this chunk is copied for each peer: no file: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn why_not(cache_bytes: u64, files_max: usize) -> Option<String> {
        let memory = MemoryPlan::new(Some(cache_bytes), 2, None, None);
        let found = find_place(&Choice::Auto, &memory, files_max);
        found.directory.is_none().then(|| found.to_string())
    }

    #[test]
    fn a_cache_too_small_for_any_chunk_that_is_lent_is_the_reason_and_no_place_is_tried() {
        for cache_bytes in [4096, 256 << 10, 2 * MIB, 16 * MIB - 1] {
            let why = why_not(cache_bytes, 1000).expect("too small");
            assert!(why.contains("raise --cache to 16M"), "{why}");
        }
        assert!(why_not(16 * MIB, 1000).is_none_or(|why| !why.contains("--cache")));
        let budget = Budget::new(16 << 20, 1);
        let files = lease_bytes(LENT_BYTES_MIN, 100, &budget) > LENT_BYTES_MIN;
        let none = lease_bytes(LENT_BYTES_MIN, 100, &Budget::new((16 << 20) - 1, 1));
        assert!(files && none == LENT_BYTES_MIN, "it is the bound that leases go by");
    }

    #[test]
    fn few_descriptors_are_told_of_unless_copies_were_asked_for() {
        let why = why_not(64 * MIB, FILES_MIN - 1).expect("too few");
        assert!(why.contains("63 descriptors") && why.contains("--max-peers"), "{why}");
        let memory = MemoryPlan::new(Some(64 * MIB), 2, None, None);
        let asked = find_place(&Choice::Never, &memory, 0);
        assert!(asked.directory.is_none() && asked.mend.is_none(), "{asked}");
    }
}
