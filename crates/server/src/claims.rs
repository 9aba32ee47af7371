//! How many claims of chunks may be on their way to a home at once.
//!
//! Each claim is an event of the home's scheduler, and one message of a peer may claim a quarter of a
//! million chunks. So claims are handed over in portions, everybody's in turn: what somebody claims time
//! and again holds nobody else up, on this shard or another.

use shards::ShardId;

/// Claims under way to one home, and those that a home handles in one turn: about a millisecond.
pub(crate) const CLAIMS_AT_ONCE_MAX: u32 = 1024;

/// Claims of one peer that are handed over before others get their turn. A peer that gets chunks claims
/// one or two at a time.
pub(crate) const CLAIMS_PER_PEER_MAX: u32 = 128;

/// Claims of a peer that has gone: as many as the largest window near by holds of the smallest chunks, or one
/// far away of chunks of 16 KiB. More than that it has hardly got of late, and nobody waits for it.
pub(crate) const CLAIMS_OF_GONE_MAX: u32 = 4096;

const _: () = {
    use relay_protocol::{
        limits::CHUNK_SIZE_LOG2_MIN,
        path::{BYTES_MAX, BYTES_NEAR},
    };
    assert!(CLAIMS_OF_GONE_MAX as u64 >= BYTES_NEAR >> CHUNK_SIZE_LOG2_MIN);
    assert!(CLAIMS_OF_GONE_MAX as u64 >= BYTES_MAX >> 14);
};

/// Claims that were handed over and not handled yet, by home.
#[derive(Debug)]
pub(crate) struct Claims(Vec<u32>);

impl Claims {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self(vec![0; shard_count])
    }

    /// How many may be handed over now.
    pub(crate) fn left(&self, home: ShardId) -> u32 {
        CLAIMS_AT_ONCE_MAX.saturating_sub(self.0[home.index()])
    }

    /// So many were handed over; of those who have gone, whatever is left.
    pub(crate) fn hand_over(&mut self, home: ShardId, count: u32) {
        self.0[home.index()] += count;
    }

    /// So many were handled.
    pub(crate) fn handled(&mut self, home: ShardId, count: u32) {
        self.0[home.index()] -= count;
    }
}
