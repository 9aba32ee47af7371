//! What onlookers see of a swarm: its peers' progress, where each chunk is, and which peer waits for what.
//! Only types; `look` fills them in.

use std::time::Duration;

use relay_protocol::Bitfield;

use crate::api::PeerSlot;

/// One peer's progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// Which.
    pub slot: PeerSlot,
    /// Chunks that it has.
    pub chunks_held: u32,
    /// Chunks on their way to it.
    pub deliveries: u32,
    /// Fetches outstanding at it.
    pub fetches: u32,
    /// It has credit and lacks everything that is cached.
    pub is_starving: bool,
    /// It said LEAVING.
    pub is_leaving: bool,
}

/// Where a chunk is, as seen from the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkPlace {
    /// Not with the relay, and no connected peer holds it.
    Missing,
    /// Not with the relay.
    Absent,
    /// Under way from a holder.
    Fetching,
    /// In the cache.
    Cached,
    /// Evicted; deliveries under way still hold its memory.
    Draining,
}

/// What a peer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nothing: it has the whole file.
    Nothing,
    /// For this chunk and others, which are on their way to it.
    Delivery {
        /// The oldest of them.
        chunk: u32,
    },
    /// For the list of the file's digests, which no peer has supplied yet.
    Manifest,
    /// For its part of a file that is being spread.
    Spread,
    /// The relay waits for it: it has not said that it would take more.
    Credit,
    /// For chunks that no connected peer holds.
    Missing {
        /// The first of them.
        chunk: u32,
        /// How many.
        count: u32,
    },
    /// For a chunk that the relay has asked a holder for.
    Holder {
        /// Which chunk.
        chunk: u32,
        /// The holder that was asked.
        holder: PeerSlot,
        /// How long ago.
        asked: Duration,
    },
    /// For memory: the cache is full of what others still need.
    Room,
    /// For its turn, which comes next.
    Turn,
    /// For the end of its connection: banned, given up on, or granted to leave.
    End,
}

/// One peer, as an onlooker sees it.
#[derive(Clone, Copy, Debug)]
pub struct PeerWatch<'a> {
    /// Which.
    pub slot: PeerSlot,
    /// Chunks that it has, verified.
    pub have: &'a Bitfield,
    /// What it waits for.
    pub wait: Wait,
    /// How long ago it last made progress, or supplied something.
    pub idle: Duration,
    /// Chunks on their way to it.
    pub deliveries: usize,
    /// Chunks that it was asked for and has not supplied yet.
    pub fetches: u32,
    /// It stated how the file is to be spread.
    pub is_origin: bool,
    /// It said LEAVING.
    pub is_leaving: bool,
}
