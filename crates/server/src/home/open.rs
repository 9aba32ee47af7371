//! What a home has asked of other shards and waits for. Decides nothing.

use relay_protocol::time::Time;
use relay_swarm::PeerSlot;

/// A fetch that a holder was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFetch {
    pub(super) chunk: u32,
    pub(super) holder: PeerSlot,
    pub(super) since: Time,
}

/// A chunk that is being taken back.
#[derive(Debug, Default)]
pub(super) struct OpenRecall {
    /// Shards that have not answered yet.
    pub(super) answers_due: usize,
    pub(super) rest: Vec<(PeerSlot, u32)>,
}
