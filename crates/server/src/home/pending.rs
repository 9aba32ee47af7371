//! What a home waits for: fetches, recalls, and memory. Decides nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use shards::budget::{Lease, Waiter};

use relay_protocol::time::Time;
use relay_swarm::{FetchId, PeerSlot};

/// What was asked of other shards and is not answered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) fetches: HashMap<FetchId, OpenFetch>,
    /// Fetches whose lease is still on its way back from a cancelled one.
    pub(super) unleased: VecDeque<(FetchId, OpenFetch)>,
    recalls: BTreeMap<u32, OpenRecall>,
}

/// A fetch that a holder was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFetch {
    pub(super) chunk: u32,
    pub(super) holder: PeerSlot,
    pub(super) since: Time,
}

/// A chunk that is being taken back.
#[derive(Debug, Default)]
struct OpenRecall {
    /// Shards that have not answered yet.
    answers_due: usize,
    rest: Vec<(PeerSlot, u32)>,
}

impl Pending {
    /// So many more shards are asked to give a chunk back.
    pub(super) fn recall(&mut self, chunk: u32, shards: usize) {
        self.recalls.entry(chunk).or_default().answers_due += shards;
    }

    /// One of them has answered: with the last one what all of them cut off.
    pub(super) fn handle_recalled(
        &mut self,
        chunk: u32,
        rest: &[(PeerSlot, u32)],
    ) -> Option<Vec<(PeerSlot, u32)>> {
        let recall = self.recalls.get_mut(&chunk)?;
        recall.rest.extend_from_slice(rest);
        recall.answers_due -= 1;
        if recall.answers_due > 0 {
            return None;
        }
        self.recalls.remove(&chunk).map(|recall| recall.rest)
    }

    /// The peer has gone.
    pub(super) fn forget(&mut self, peer: PeerSlot) {
        self.fetches.retain(|_, fetch| fetch.holder != peer);
        self.unleased.retain(|(_, fetch)| fetch.holder != peer);
        // Its place may be another's before all shards have answered.
        for recall in self.recalls.values_mut() {
            recall.rest.retain(|&(slot, _)| slot != peer);
        }
    }
}

/// A home's part of the budget.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) waiter: Waiter,
    /// The swarm waits for a chunk's bytes.
    pub(super) is_wanted: bool,
    /// Those bytes, for the next fetch.
    pub(super) lease: Option<Lease>,
    /// Chunks that many peers want may be lent.
    pub(super) lends: bool,
}
