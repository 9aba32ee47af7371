//! What a shell tells a session at first, and what a session tells its shell.

use std::{num::NonZeroU64, time::Duration};

use bytes::Bytes;

use crate::wants::ChunkOrder;
use relay_protocol::{ChunkRange, DatagramOffer, Digest, Seeding, SwarmStatus, Token};

/// How a peer behaves on a connection.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Which side chooses the order of chunks.
    pub order: ChunkOrder,
    /// A publisher's wish how to begin.
    pub seeding: Option<Seeding>,
    /// What the relay may ask for.
    pub token: Option<Token>,
    /// Limit of the intake, in payload bytes a second.
    pub intake_bytes_per_second: Option<NonZeroU64>,
    /// Limit of what is supplied to others, in payload bytes a second.
    pub upload_bytes_per_second: Option<NonZeroU64>,
    /// Whether verified chunks come with their bytes.
    pub keeps_bytes: bool,
    /// Only the list of digests is wanted: nothing is granted.
    pub is_manifest_only: bool,
}

/// What the shell should know or do.
#[derive(Debug, PartialEq)]
pub enum SessionEvent {
    /// The relay took the peer in, and answered after this time.
    Accepted {
        /// From the hello to the relay's consent.
        round_trip: Duration,
    },
    /// The list of digests is here, and proven.
    ManifestVerified,
    /// A chunk is whole and verified: keep it, then call [`Session::handle_kept`](super::Session::handle_kept).
    Verified {
        /// The chunk's index.
        chunk: u32,
        /// Its bytes, if the session keeps bytes.
        bytes: Option<Bytes>,
        /// The digest of what came out, if the session opens what comes.
        plain: Option<Digest>,
        /// Peer order: from the want; relay order: from its credit's becoming available.
        latency: Duration,
    },
    /// Take this fetch out of the send queue.
    CancelUpload {
        /// As in [`Upload`](crate::uploads::Upload).
        fetch_id: u32,
    },
    /// The last chunk was kept.
    Complete,
    /// Peers hold all of the file that this one spreads: it may go.
    SeedingDone,
    /// No connected peer depends on this one: it may go.
    LeaveGranted,
    /// How far the swarm is, as was asked.
    Status(SwarmStatus),
    /// No connected peer holds chunks that this one lacks.
    Waiting {
        /// Number of chunks that the peer lacks and no peer holds.
        missing_count: u32,
        /// The first of them.
        first_missing: u32,
        /// How long the relay still waits.
        deadline: Duration,
    },
    /// Other peers hold these chunks, or do no longer; told to an end of an uplink.
    Available {
        /// The chunks, as a set.
        ranges: Vec<ChunkRange>,
        /// They do.
        held: bool,
    },
    /// The channel that was asked for runs in datagrams from now on; told before
    /// [`Self::Accepted`].
    Datagrams {
        /// How they find the relay's end.
        offer: DatagramOffer,
    },
}
