//! Everything that passes between a [`super::Swarm`] and its shell: one closed set of types. What onlookers
//! see is in `view`.

use std::time::Duration;

use relay_protocol::{ChunkRange, Order, Seeding};

/// A connected peer's place in its swarm: small, dense, reused after the peer has gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerSlot(pub u32);

/// Names one fetch in its swarm; never reused while the swarm lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u32);

/// What to drop first when room is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Eviction {
    /// What no peer lacks; what is still wanted only by rent or buy.
    #[default]
    Demand,
    /// What was used least recently, for comparison.
    Lru,
}

/// What a swarm needs to know once.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of every chunk but the last.
    pub chunk_size_bytes: u32,
    /// Eviction policy.
    pub eviction: Eviction,
    /// Rent-or-buy constant: lost deliveries (in chunks) that buy one eviction.
    pub lambda: f64,
    /// Fetches that may hold room at once (half of the budget, in chunks; at least one).
    pub fetches_max: u32,
    /// Chunks that the whole budget holds: more than that is never cached.
    pub cache_chunks_max: u32,
    /// How long peers wait for chunks that no connected peer holds.
    pub missing_deadline: Duration,
    /// How long a spread waits for its peers.
    pub spread_wait: Duration,
    /// How long a peer that says LEAVING is kept at most.
    pub leaving_deadline: Duration,
}

/// What the shell's own limits of rates mean for a swarm: it asks for no more than can be taken in, and blames no peer
/// for what the shell itself holds back. May change at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Fetches under way at once.
    pub fetches_max: u32,
    /// Of them, at one holder.
    pub depth_max: u32,
    /// No fetch is late before: so long it may take to read what was asked for.
    pub patience: Duration,
    /// What peers could take is held back: their rates tell nothing of them.
    pub holds_back: bool,
}

impl Default for Limits {
    /// None.
    fn default() -> Self {
        let (fetches_max, depth_max) = (u32::MAX, u32::MAX);
        Self { fetches_max, depth_max, patience: Duration::ZERO, holds_back: false }
    }
}

/// How a peer joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// The chunks that it has.
    pub claims: relay_protocol::Bitfield,
    /// Whether it chooses, or the relay.
    pub order: Order,
    /// Its wish how to begin, if it publishes.
    pub seeding: Option<Seeding>,
    /// A peer from where it comes supplied wrong bytes: it is asked for a chunk only where no other
    /// can be.
    pub is_suspect: bool,
    /// It is an end of an uplink: it stands for peers of another relay, and needs nothing that it has not named.
    pub is_uplink: bool,
}

/// Why a fetch brought nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchFailure {
    /// The holder said that it can't. It no longer counts as a holder of that chunk.
    Refused,
    /// The holder lied: frames intact, digest wrong. It is banned.
    Lied,
    /// The link damaged it: no blame; the shell closes the connection.
    Damaged,
}

/// What the shell must do next.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Lease one chunk's bytes, then `handle_room`. At most one is outstanding.
    WantRoom,
    /// Lease one chunk's bytes if they are free now, without waiting for them, and say which with
    /// `handle_room_tried`, before any other action. Never while a [`Action::WantRoom`] is outstanding.
    TryRoom,
    /// The room asked for is no longer needed: leave the queue; if `handle_room` was called
    /// already, give the lease back.
    ReleaseRoom,
    /// Use the leased room to fetch `chunk` from `holder`.
    Fetch {
        /// Names it.
        fetch_id: FetchId,
        /// What.
        chunk: u32,
        /// From whom.
        holder: PeerSlot,
    },
    /// Forget this fetch: its late bytes are discarded. Its lease is free for the next
    /// [`Action::Fetch`] if `keep_room`, else it is given back.
    CancelFetch {
        /// Which.
        fetch_id: FetchId,
        /// Whom it was asked of.
        holder: PeerSlot,
        /// Whether the lease moves to the next fetch.
        keep_room: bool,
    },
    /// Ask `holder` for the manifest.
    FetchManifest {
        /// Whom.
        holder: PeerSlot,
    },
    /// Send cached `chunk` to `peer`, from `offset` on.
    Deliver {
        /// What.
        chunk: u32,
        /// To whom.
        peer: PeerSlot,
        /// Bytes of the chunk that it has already (after a recall), a multiple of the frame.
        offset: u32,
    },
    /// Drop `chunk` from the cache. Deliveries under way keep it alive until they are written.
    Evict {
        /// Which.
        chunk: u32,
    },
    /// Take back `chunk` (evicted before) from all deliveries that are under way; answer with
    /// `handle_recalled`.
    Recall {
        /// Which.
        chunk: u32,
    },
    /// Send no more of `chunk` to `peer`, which has spoken of it: the swarm doesn't count on that send any
    /// more, so it would never be taken back. Answer with `handle_cut_off` if something was still to come.
    CutOff {
        /// Of what.
        chunk: u32,
        /// To whom.
        peer: PeerSlot,
        /// Whether it says that it has it; else that it has lost what had come of it.
        has_it: bool,
    },
    /// Cut the peer off: it lied. The shell closes it and then calls `handle_gone`.
    Ban {
        /// Whom.
        peer: PeerSlot,
    },
    /// Tell the origin of a spread that peers hold all of the file: it may go.
    SeedingDone {
        /// Whom.
        origin: PeerSlot,
    },
    /// Tell the peer that it may go.
    LeaveGranted {
        /// Whom.
        peer: PeerSlot,
    },
    /// Tell an end of an uplink whether other peers hold these chunks.
    Available {
        /// Whom.
        peer: PeerSlot,
        /// Which, ascending.
        ranges: Vec<ChunkRange>,
        /// They do.
        held: bool,
    },
    /// Tell the peer that it waits for chunks that no peer holds.
    Waiting {
        /// Whom.
        peer: PeerSlot,
        /// How many.
        missing_count: u32,
        /// The first.
        first_missing: u32,
        /// For how much longer.
        deadline: Duration,
    },
    /// The deadline passed: close the peer with an error.
    GiveUp {
        /// Whom.
        peer: PeerSlot,
        /// How many chunks no peer holds.
        missing_count: u32,
        /// Their origin said that it can't supply them any more.
        is_given_up: bool,
    },
}

/// Counted since the swarm began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Deliveries decided.
    pub deliveries: u64,
    /// Deliveries whose chunk was cached already when it was wanted.
    pub hits: u64,
    /// Chunks that had to be fetched (hedges not counted).
    pub misses: u64,
    /// Fetches asked for, hedges too.
    pub fetches: u64,
    /// Fetches that were asked of a second holder.
    pub hedges: u64,
    /// Chunks dropped from the cache.
    pub evictions: u64,
    /// Evictions of chunks that a peer still wanted.
    pub purchases: u64,
    /// Peers that were cut off for a lie.
    pub bans: u64,
}
