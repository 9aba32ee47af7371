//! What this shard has still to send to others: kept here while no credit is to be had.
//!
//! Bounded by state: a request in here belongs to a connection that joins or leaves, a fetch or
//! a recall under way, or a cached chunk; none of these adds another while it waits.

use std::collections::VecDeque;

use shards::{Port, ShardId};

use super::message::{Handled, Request};

/// Requests per shard, in order; those to this shard are handled in the same turn, unless too many claims
/// are in them.
#[derive(Debug)]
pub(crate) struct Outbox {
    own: ShardId,
    pending: Vec<VecDeque<Request>>,
}

impl Outbox {
    pub(crate) fn new(own: ShardId, shard_count: usize) -> Self {
        Self { own, pending: (0..shard_count).map(|_| VecDeque::new()).collect() }
    }

    pub(crate) fn push(&mut self, to: ShardId, request: Request) {
        self.pending[to.index()].push_back(request);
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
}
