//! Which chunks are lent to the kernel instead of copied, and what that may take.
//!
//! The home decides when it has a chunk fetched, by the peers that need it then. The shard that receives it lays it out
//! in a file before anything else refers to it, so a chunk is either in memory or in a file, wherever it is sent from.

use shards::{ChunkFiles, chunk_files::place::Choice};

use crate::message::{FetchedChunk, VerifiedChunk};
use relay_protocol::SwarmKey;
use relay_transport::{ChunkBytes, LENT_BYTES_MAX, LENT_BYTES_MIN, LentChunk};

/// A chunk that fewer peers need is copied for each of them.
pub(crate) const TAKERS_MIN: u32 = 4;

/// Where chunk files are made. A bound on what sockets may refer to is in [`crate::memory`], one on their number in
/// [`crate::descriptors`].
pub(crate) fn open(choice: &Choice, cache_bytes: usize) -> shards::chunk_files::place::Found {
    shards::chunk_files::place::find(choice, cache_bytes)
}

/// Whether a chunk of this file is to be lent when so many peers need it.
pub(crate) fn is_worth_it(key: &SwarmKey, chunk: u32, takers: u32) -> bool {
    let len_bytes = key.chunk_len_bytes(chunk) as usize;
    u64::from(takers) >= shards::knob!("X_TAKERS", u64::from(TAKERS_MIN)) && (LENT_BYTES_MIN..=LENT_BYTES_MAX).contains(&len_bytes)
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
                tracing::debug!(chunk = index, "this chunk is copied for each peer: no file: {error}");
            }
            (FetchedChunk { bytes: buffer.freeze().into(), crcs }, false)
        }
    }
}
