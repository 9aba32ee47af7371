//! What is known of one peer: its terms, what it has and wants, what is on its way to it, how it supplies.
//!
//! Decides nothing. Everything reads it; only the book changes it.

use std::time::Duration;

use relay_protocol::{Bitfield, Order, Seeding, time::Time};

use super::{depth::Depth, intake::Intake, meter::Meter, wants::Wants};
use crate::api::Join;

/// What was agreed when it joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) order: Order,
    pub(crate) seeding: Option<Seeding>,
    pub(crate) is_suspect: bool,
    pub(crate) is_uplink: bool,
}

/// Whether a peer takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It holds and wants, and its wants are counted at the chunks.
    Counted,
    /// It holds, and has fallen silent: its wants keep nothing in the cache.
    Dormant,
    /// It said LEAVING: it holds, and wants no more.
    Leaving,
    /// Banned, granted to leave or given up on: it only waits for its connection to end.
    Retired,
}

/// When the peer was last heard of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) progress_at: Time,
    /// It stands in the queue of those that are looked at again.
    pub(super) is_watched: bool,
}

/// Whether the peer is as fast as those that starve, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pacing {
    /// It is.
    Keeps,
    /// It has fallen behind.
    Behind {
        /// At this time.
        since: Time,
    },
}

/// A starving peer's part in what is known of all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Starved {
    /// Its position among them.
    pub(crate) at: u32,
    /// A peer that began to starve earlier has a smaller one.
    pub(crate) entered: u64,
    /// What it loses, in millionths of a chunk a second.
    pub(crate) loses: u64,
    /// Its rate in bytes a second; zero if it is not known.
    pub(crate) rate: u64,
}

/// A peer waits for chunks that no connected peer holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    pub(crate) since: Time,
    /// When it was last told so.
    pub(crate) told: Option<Time>,
}

/// How long the peer has let the relay wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// It let a fetch run into its time-out and has not answered one since.
    pub(crate) is_slow: bool,
    /// So long it has let the relay wait since it last answered a fetch. Fetches that wait at the same
    /// time count once.
    pub(crate) unanswered: Duration,
    /// Up to then its silence is counted.
    pub(crate) counted_until: Time,
}

/// What the peer supplies.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) up: Meter,
    pub(crate) depth: Depth,
    /// Fetches under way at it.
    pub(crate) fetches: u32,
    /// Position among the idle holders.
    pub(crate) idle: Option<u32>,
    pub(crate) silence: Silence,
    /// It has supplied something that proved right: a chunk, or the manifest. Until then it is
    /// asked for one chunk at a time.
    pub(crate) is_proven: bool,
    /// It may go, or soon: what others hold too is not asked of it, unless they let the relay wait.
    pub(crate) may_go: bool,
}

/// One connected peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) terms: Terms,
    pub(crate) standing: Standing,
    pub(crate) seen: Seen,
    /// Chunks that it has and would supply.
    pub(crate) have: Bitfield,
    /// Chunks that it needs no delivery of: those it has, those on their way, those it refused
    /// to supply; of an end of an uplink all that it has not named. `have` is a subset.
    pub(crate) settled: Bitfield,
    pub(crate) wants: Wants,
    /// Sequence number in the log of cached chunks below which it needs nothing; in peer order,
    /// below which it has named nothing.
    pub(crate) cursor: u64,
    pub(crate) intake: Intake,
    pub(crate) pacing: Pacing,
    pub(crate) starving: Option<Starved>,
    pub(crate) missing: Option<Missing>,
    pub(crate) supply: Supply,
}

impl Peer {
    pub(super) fn new(now: Time, join: Join, cursor: u64) -> Self {
        let Join { claims, order, seeding, is_suspect, is_uplink } = join;
        let settled = if is_uplink { Bitfield::full(claims.len()) } else { claims.clone() };
        Self {
            terms: Terms { order, seeding, is_suspect, is_uplink },
            standing: Standing::Dormant,
            seen: Seen { progress_at: now, is_watched: false },
            settled,
            have: claims,
            wants: Wants::default(),
            cursor,
            intake: Intake::default(),
            pacing: Pacing::Keeps,
            starving: None,
            missing: None,
            supply: Supply {
                up: Meter::default(),
                depth: Depth::default(),
                fetches: 0,
                idle: None,
                silence: Silence { is_slow: false, unanswered: Duration::ZERO, counted_until: now },
                is_proven: false,
                may_go: false,
            },
        }
    }

    /// Whether it takes part and wants chunks, if it lacks any.
    #[inline]
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.standing, Standing::Counted | Standing::Dormant)
    }

    /// Whether its wants are counted at the chunks.
    #[inline]
    pub(crate) fn is_counted(&self) -> bool {
        self.standing == Standing::Counted
    }

    /// Whether what it has can be asked of it.
    #[inline]
    pub(crate) fn is_holder(&self) -> bool {
        self.standing != Standing::Retired
    }

    #[inline]
    pub(crate) fn lacks(&self, chunk: u32) -> bool {
        !self.settled.contains(chunk)
    }

    /// Whether it waits for chunks that it would take at once.
    #[inline]
    pub(crate) fn is_hungry(&self) -> bool {
        self.is_joined()
            && self.intake.has_credit()
            && match self.terms.order {
                Order::Relay => !self.settled.is_full(),
                Order::Peer => !self.wants.is_empty(),
            }
    }

    /// Whether it takes this chunk, if it lacks it, as soon as it can: in peer order what it has not named
    /// may be far off.
    #[inline]
    pub(crate) fn asks_for(&self, chunk: u32) -> bool {
        self.terms.order == Order::Relay || self.wants.contains(chunk)
    }

    /// Whether it is as fast as those that starve.
    #[inline]
    pub(crate) fn keeps_pace(&self) -> bool {
        self.pacing == Pacing::Keeps
    }

    /// Whether its needs are worth a wait.
    #[inline]
    pub(crate) fn is_keen(&self) -> bool {
        self.is_counted() && self.keeps_pace()
    }
}
