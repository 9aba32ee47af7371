//! What this shard has still to send to homes and to other shards: kept here while no credit is to be had.
//!
//! Bounded by state: a request in here belongs to a connection that joins or leaves, a fetch or
//! a recall under way, or a cached chunk; none of these adds another while it waits.
//!
//! Claims of chunks are counted beside. Each claim is an event of the home's scheduler, and one message of a peer
//! may claim a quarter of a million chunks. So claims are handed over in portions, each peer's in turn: what one
//! peer claims time and again holds no other up, on this shard or another.

use std::collections::VecDeque;

use shards::{Port, ShardId};

use crate::message::{Handled, HomeRequest, PeerRequest, Request};

/// Claims under way to one home, and those that a home handles in one turn: about a millisecond.
pub(crate) const CLAIMS_AT_ONCE_MAX: u32 = 1024;

/// Claims of one peer that are handed over before others get their turn. A peer that gets chunks claims
/// one or two at a time.
pub(crate) const CLAIMS_PER_PEER_MAX: u32 = 128;

/// Claims of a peer that has gone: as many as the largest window near by holds of the smallest chunks, or one
/// far away of chunks of 16 KiB. More than that it has hardly got of late, and no peer waits for it.
pub(crate) const CLAIMS_OF_GONE_MAX: u32 = 4096;

const _: () = {
    use relay_protocol::{
        limits::CHUNK_SIZE_LOG2_MIN,
        path::{BYTES_MAX, BYTES_NEAR},
    };
    assert!(CLAIMS_OF_GONE_MAX as u64 >= BYTES_NEAR >> CHUNK_SIZE_LOG2_MIN);
    assert!(CLAIMS_OF_GONE_MAX as u64 >= BYTES_MAX >> 14);
};

/// Requests per shard, in order; those to this shard are handled in the same turn, unless too many claims
/// are in them.
#[derive(Debug)]
pub(crate) struct Outbox {
    own: ShardId,
    pending: Vec<VecDeque<Request>>,
    /// Claims that were handed over and not handled yet, by home.
    claims: Vec<u32>,
}

impl Outbox {
    pub(crate) fn new(own: ShardId, shard_count: usize) -> Self {
        let pending = (0..shard_count).map(|_| VecDeque::new()).collect();
        Self { own, pending, claims: vec![0; shard_count] }
    }

    /// For the home shard of a swarm.
    pub(crate) fn push_home(&mut self, to: ShardId, request: HomeRequest) {
        self.pending[to.index()].push_back(Request::Home(request));
    }

    /// For the shard of a connection.
    pub(crate) fn push_peer(&mut self, to: ShardId, request: PeerRequest) {
        self.pending[to.index()].push_back(Request::Peer(request));
    }

    /// The next request to this very shard.
    pub(crate) fn pop_own(&mut self) -> Option<Request> {
        self.pending[self.own.index()].pop_front()
    }

    /// Sends as much as there are credits for, in order.
    pub(crate) fn flush(&mut self, port: &Port<Request, Handled>) {
        for index in 0..self.pending.len() {
            let to = ShardId(u16::try_from(index).expect("few shards"));
            if to == self.own {
                continue;
            }
            while let Some(request) = self.pending[index].pop_front() {
                if let Err(request) = port.try_request(to, request) {
                    self.pending[index].push_front(request);
                    break;
                }
            }
        }
    }

    /// Requests that wait for a credit.
    pub(crate) fn len(&self) -> usize {
        self.pending.iter().map(VecDeque::len).sum()
    }

    /// How many claims may be handed over to a home now.
    pub(crate) fn claims_left(&self, home: ShardId) -> u32 {
        CLAIMS_AT_ONCE_MAX.saturating_sub(self.claims[home.index()])
    }

    /// So many were handed over; of a peer that has gone, all that are left.
    pub(crate) fn hand_over(&mut self, home: ShardId, claims: u32) {
        self.claims[home.index()] += claims;
    }

    /// So many were handled.
    pub(crate) fn handled(&mut self, home: ShardId, claims: u32) {
        self.claims[home.index()] -= claims;
    }
}
