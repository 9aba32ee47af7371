//! The observer of a peer: what it is told, and what it may want done.

use std::{io, sync::Arc, time::Duration};

use super::{error::ConnectionError, file_state::FileState};
use relay_protocol::{ChunkRange, Manifest, SwarmStatus, time::Time};

/// What happens to a peer.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The relay took it in, and recommends chunks of at most this size; told before [`Self::Accepted`].
    Recommended {
        /// Binary logarithm of the size.
        chunk_size_log2_max: u8,
    },
    /// The relay took it in.
    Accepted {
        /// From the hello to the relay's consent.
        round_trip: Duration,
    },
    /// It has the list of digests.
    ManifestVerified,
    /// A chunk was verified and kept.
    Verified {
        /// The chunk's index.
        chunk: u32,
        /// See [`super::SessionEvent::Verified`].
        latency: Duration,
    },
    /// A chunk that the relay asked for is with the kernel.
    Served {
        /// The chunk's index.
        chunk: u32,
    },
    /// A chunk that the relay asked for could not be read; the fetch was refused.
    Unreadable {
        /// The chunk's index.
        chunk: u32,
        /// The reason, the system's or the store's.
        error: &'a io::Error,
    },
    /// It has all chunks (told on each connection).
    Complete,
    /// Peers hold all of the file that it spreads: it may go.
    SeedingDone,
    /// It may go, and will.
    LeaveGranted,
    /// How far the swarm is: see [`PeerHandle::ask_status`](super::PeerHandle::ask_status).
    Status(SwarmStatus),
    /// Other peers hold these chunks, or do no longer; told to an end of an uplink.
    Available {
        /// The chunks, as a set.
        ranges: &'a [ChunkRange],
        /// They do.
        held: bool,
    },
    /// It lacks chunks that no connected peer holds.
    Waiting {
        /// Number of chunks that the peer lacks and no peer holds.
        missing_count: u32,
        /// The first of them.
        first_missing: u32,
        /// How long the relay still waits for a holder.
        deadline: Duration,
    },
    /// The connection ended or did not come about; another attempt follows.
    Disconnected {
        /// What ended it.
        error: &'a ConnectionError,
        /// When the next attempt is.
        retry_in: Duration,
    },
}

/// What an observer wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Nothing.
    GoOn,
    /// Ask the relay for leave.
    Leave,
    /// Go at once, without a word.
    Vanish,
    /// Go at once, and tell the relay that what is shared here is no longer what it was.
    GiveUp,
}

/// Watches a peer.
pub trait Observer {
    /// Something happened; `file` is what the peer has. Called on the peer's shard, in the middle
    /// of its work: it must be quick and must not call the [`PeerHandle`](super::PeerHandle).
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction;

    /// A copy of the manifest that many peers of one process share. The peer still asks for the
    /// list of digests and proves it; then it drops its own copy for this one.
    fn shared_manifest(&self) -> Option<&Arc<Manifest>> {
        None
    }
}

impl<F: FnMut(Time, &Notice<'_>, &FileState) -> Reaction> Observer for F {
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        self(now, notice, file)
    }
}
