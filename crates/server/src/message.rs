//! Everything that passes between shards: one closed enum each way.
//!
//! A peer's connection lives on one shard, its swarm's home on another (or the same). Requests
//! take a credit of the pair of shards; every request is answered by exactly one [`Handled`], as
//! soon as it was handled, which gives the credit back.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use shards::{
    ShardId,
    budget::{ChunkBuffer, Lease},
};

use relay_protocol::{Bitfield, ChunkRange, Failure, Manifest, Message, Order, Seeding, SwarmKey};
use relay_swarm::{FetchFailure, FetchId, PeerSlot};
use relay_transport::{ChunkBytes, Route};

/// Requests that one shard may have under way to another: a turn's worth.
pub(crate) const CREDITS_PER_PAIR: usize = 256;

/// A connection, from anywhere in the process. The generation tells a reused index apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ConnectionRef {
    pub shard: ShardId,
    pub index: u32,
    pub generation: u32,
}

/// A swarm, from anywhere in the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SwarmRef {
    pub home: ShardId,
    pub index: u32,
    pub generation: u32,
}

/// From one shard to another.
#[derive(Debug)]
pub(crate) enum Request {
    /// For a home shard.
    Home(HomeRequest),
    /// For the shard of a connection.
    Peer(PeerRequest),
}

impl Request {
    /// Chunks that peers claim in it: work for a scheduler, one by one.
    pub(crate) fn claims(&self) -> u32 {
        let Self::Home(HomeRequest::News(batch)) = self else { return 0 };
        let counts = batch.iter().flat_map(|news| &news.items).map(|item| match item {
            NewsItem::Have(range) | NewsItem::Lost(range) => range.count,
            _ => 0,
        });
        counts.fold(0, u32::saturating_add)
    }
}

/// To the shard that is home to a swarm.
#[derive(Debug)]
pub(crate) enum HomeRequest {
    /// A connection has introduced itself.
    Join(Box<JoinRequest>),
    /// What peers of one shard have to tell: coalesced, one entry a peer.
    News(Vec<PeerNews>),
    /// A fetch ended.
    Fetched { swarm: SwarmRef, fetch_id: FetchId, result: Result<FetchedChunk, FetchFailure> },
    /// The manifest that was asked for, verified, or why not.
    Manifest { swarm: SwarmRef, peer: PeerSlot, result: Result<Arc<Manifest>, FetchFailure> },
    /// Answer to a cancelled fetch whose lease moves on; `None` if the fetch had ended already.
    LeaseBack { swarm: SwarmRef, lease: Option<Lease> },
    /// Answer to [`PeerRequest::Recall`]: deliveries cut off, with the bytes that were sent.
    Recalled { swarm: SwarmRef, chunk: u32, rest: Vec<(PeerSlot, u32)> },
    /// The connection is gone.
    Gone { swarm: SwarmRef, peer: PeerSlot },
}

/// To the shard of a connection.
#[derive(Debug)]
pub(crate) enum PeerRequest {
    /// The answer to a join.
    Joined { to: ConnectionRef, swarm: SwarmRef, peer: PeerSlot, manifest: Option<Arc<Manifest>> },
    /// Join refused, give up, banned: say it and close.
    Close { to: ConnectionRef, failure: Failure },
    /// Say it.
    Tell { to: ConnectionRef, message: Message },
    /// Ask the peer for the manifest.
    FetchManifest { to: ConnectionRef },
    /// The swarm's manifest has come: each peer on this shard that waits for it gets it.
    Manifest { swarm: SwarmRef, manifest: Arc<Manifest> },
    /// Ask the peer for a chunk.
    Fetch { to: ConnectionRef, fetch: FetchOrder },
    /// Forget a fetch; with `lease_back` answer [`HomeRequest::LeaseBack`].
    CancelFetch { to: ConnectionRef, swarm: SwarmRef, fetch_id: FetchId, lease_back: bool },
    /// Send a cached chunk to these connections of the shard.
    Deliver { swarm: SwarmRef, chunk: CachedChunk, targets: Vec<Target> },
    /// Send no more of a chunk to this connection.
    CutOff { to: ConnectionRef, chunk: u32, has_it: bool },
    /// Take an evicted chunk back from all sends.
    Recall { swarm: SwarmRef, chunk: u32 },
    /// A datagram for one of its connections came to another shard's socket.
    Datagram { route: Route, bytes: Bytes },
}

/// The answer to every request: it was handled, and its credit comes back.
#[derive(Debug)]
pub(crate) struct Handled {
    /// Chunks that were claimed in it: see [`crate::shard::outbox`].
    pub claims: u32,
}

/// What a hello asks for.
#[derive(Debug)]
pub(crate) struct Join {
    pub key: SwarmKey,
    pub claims: Bitfield,
    pub order: Order,
    pub seeding: Option<Seeding>,
    /// Whether the swarm begins with it, if there is none.
    pub may_begin: bool,
    /// It is an end of an uplink, and stands for these relays.
    pub uplink: Option<Arc<[u64]>>,
}

impl Join {
    pub(crate) fn request(self, from: ConnectionRef, remote: SocketAddr) -> JoinRequest {
        let Self { key, claims, order, seeding, may_begin, uplink } = self;
        JoinRequest { from, remote, key, claims, order, seeding, may_begin, uplink }
    }
}

/// How a connection asks to join.
#[derive(Debug)]
pub(crate) struct JoinRequest {
    pub from: ConnectionRef,
    /// Where its peer is.
    pub remote: SocketAddr,
    pub key: SwarmKey,
    pub claims: Bitfield,
    pub order: Order,
    pub seeding: Option<Seeding>,
    /// Whether the swarm begins with it, if there is none.
    pub may_begin: bool,
    /// It is an end of an uplink, and stands for these relays.
    pub uplink: Option<Arc<[u64]>>,
}

/// What one peer has to tell since the last time.
#[derive(Debug)]
pub(crate) struct PeerNews {
    pub swarm: SwarmRef,
    pub peer: PeerSlot,
    /// Bytes that the peer may have been assigned since it joined.
    pub allowance_bytes: u64,
    pub items: Vec<NewsItem>,
}

/// One thing that happened at a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NewsItem {
    /// The first frame of the delivery was written.
    Begun(u32),
    /// All of the delivery was written.
    Written(u32),
    /// What was still to be sent of this chunk, from that byte on, will not be: the home had it cut off.
    CutOff(u32, u32),
    /// The peer has verified these chunks.
    Have(ChunkRange),
    /// The peer, an end of an uplink, can no longer supply these chunks, and wants none of them.
    Lost(ChunkRange),
    /// The peer lacks the chunk again.
    Lacking(u32),
    /// The peer wants these.
    Want(Vec<u32>),
    /// The peer would like to go.
    Leaving,
    /// The peer asks how far the swarm is.
    StatusRequest,
    /// Its file is no longer what it was.
    GaveUp,
    /// What its user would have the file called.
    Label(Arc<str>),
    /// The peer, an end of an uplink, stands for these relays.
    Below(Arc<[u64]>),
}

/// A chunk that has just come whole and right.
#[derive(Debug)]
pub(crate) struct VerifiedChunk {
    pub index: u32,
    pub buffer: ChunkBuffer,
    pub crcs: Arc<[u32]>,
    /// As its home wished when it asked for it.
    pub is_to_be_lent: bool,
}

/// A chunk that was fetched and verified; its lease lives in `bytes`.
#[derive(Clone, Debug)]
pub(crate) struct FetchedChunk {
    pub bytes: ChunkBytes,
    pub crcs: Arc<[u32]>,
}

/// A cached chunk on its way to a shard.
#[derive(Clone, Debug)]
pub(crate) struct CachedChunk {
    pub index: u32,
    pub bytes: ChunkBytes,
    pub crcs: Arc<[u32]>,
}

/// What to fetch.
#[derive(Debug)]
pub(crate) struct FetchOrder {
    pub fetch_id: FetchId,
    pub chunk: u32,
    pub manifest: Arc<Manifest>,
    pub lease: Lease,
    /// So many peers need it that it is to be lent.
    pub is_to_be_lent: bool,
}

/// One delivery of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub index: u32,
    pub generation: u32,
    pub offset: u32,
}
