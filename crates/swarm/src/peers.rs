//! What the swarm knows of each peer, and the table of peers.
//!
//! Decides nothing.

use std::{collections::VecDeque, time::Duration};

use super::{Join, PeerSlot, depth::Depth, meter::Meter, wants::Wants};
use relay_protocol::{Bitfield, Order, Seeding, limits, time::Time};

/// How far a delivery has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// The shell has not looked at the decision yet: news of the chunk is of an older send.
    Decided,
    /// The shell has it and the kernel has nothing of it.
    Queued,
    /// The kernel has taken a frame.
    Begun,
    /// The kernel has taken all of it: it pins no memory any more.
    Written,
}

/// A chunk on its way to a peer, from the decision to the acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) chunk: u32,
    /// Where in the chunk it starts, in bytes.
    pub(super) offset_bytes: u32,
    /// How much of it is to come.
    pub(super) length_bytes: u32,
    pub(super) stage: Stage,
}

/// A starving peer's part in what is known of all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starved {
    /// Its position among them.
    pub(super) at: u32,
    /// What it loses, in millionths of a chunk a second.
    pub(super) loses: u64,
    /// Its rate in bytes a second; zero if it is not known.
    pub(super) rate: u64,
}

/// Whether a peer takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It holds and wants.
    Joined,
    /// It said LEAVING: it holds, and wants no more.
    Leaving {
        since: Time,
        /// A chunk that only it holds, as last seen.
        witness: Option<u32>,
    },
    /// Banned, granted to leave or given up on: it only waits for its connection to end.
    Retired,
}

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) standing: Standing,
    pub(super) order: Order,
    pub(super) seeding: Option<Seeding>,
    pub(super) joined_empty: bool,
    /// It no longer counts among those that a spread waits for.
    pub(super) seeding_counted_out: bool,
    /// Chunks that it has and would supply.
    pub(super) have: Bitfield,
    /// Chunks that it needs no delivery of: those it has, those on their way, those it refused
    /// to supply. `have` is a subset.
    pub(super) settled: Bitfield,
    pub(super) deliveries: VecDeque<Delivery>,
    /// Bytes of these.
    pub(super) under_way_bytes: u64,
    /// Chunks that it has in part, with the bytes it has from the start, oldest first.
    pub(super) partials: VecDeque<(u32, u32)>,
    pub(super) wants: Wants,
    pub(super) allowance_bytes: u64,
    pub(super) assigned_bytes: u64,
    /// Sequence number in the log of cached chunks below which it needs nothing; in peer order,
    /// below which it has named nothing.
    pub(super) cursor: u64,
    /// Whether its wants are counted at the chunks: not so while it is dormant or leaving.
    pub(super) counted: bool,
    /// Whether it is as fast as those who starve, as far as is known.
    pub(super) keeps_pace: bool,
    /// When it last fell behind.
    pub(super) behind_since: Time,
    pub(super) watched: bool,
    pub(super) progress_at: Time,
    pub(super) starving: Option<Starved>,
    /// Who began to starve earlier has the smaller one.
    pub(super) starving_since: u64,
    /// Position among the idle holders.
    pub(super) idle: Option<u32>,
    pub(super) down: Meter,
    pub(super) up: Meter,
    pub(super) depth: Depth,
    pub(super) fetches: u32,
    /// It let a fetch run into its time-out and has not answered one since.
    pub(super) slow: bool,
    /// How long it has let us wait since it last answered a fetch. Fetches that wait at the same
    /// time count once.
    pub(super) unanswered: Duration,
    /// Up to then its silence is counted.
    pub(super) counted_until: Time,
    /// It has supplied something that proved right: a chunk, or the manifest. Until then it is
    /// asked for one chunk at a time.
    pub(super) is_proven: bool,
    /// It may go, or soon: what others hold too is not asked of it, unless they let the relay wait.
    pub(super) may_go: bool,
    pub(super) is_suspect: bool,
    pub(super) manifest_tried: bool,
    pub(super) missing_since: Option<Time>,
    pub(super) missing_told: Option<Time>,
}

impl Peer {
    pub(super) fn new(now: Time, join: Join, cursor: u64) -> Self {
        Self {
            standing: Standing::Joined,
            order: join.order,
            seeding: join.seeding,
            joined_empty: join.claims.count() == 0,
            seeding_counted_out: false,
            settled: join.claims.clone(),
            have: join.claims,
            deliveries: VecDeque::new(),
            under_way_bytes: 0,
            partials: VecDeque::new(),
            wants: Wants::default(),
            allowance_bytes: 0,
            assigned_bytes: 0,
            cursor,
            counted: false,
            keeps_pace: true,
            behind_since: now,
            watched: false,
            progress_at: now,
            starving: None,
            starving_since: 0,
            idle: None,
            down: Meter::default(),
            up: Meter::default(),
            depth: Depth::default(),
            fetches: 0,
            slow: false,
            unanswered: Duration::ZERO,
            counted_until: now,
            is_proven: false,
            may_go: false,
            is_suspect: join.is_suspect,
            manifest_tried: false,
            missing_since: None,
            missing_told: None,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.standing == Standing::Joined
    }

    pub(super) fn is_holder(&self) -> bool {
        self.standing != Standing::Retired
    }

    pub(super) fn has_credit(&self) -> bool {
        self.allowance_bytes > self.assigned_bytes
    }

    pub(super) fn lacks(&self, chunk: u32) -> bool {
        !self.settled.contains(chunk)
    }

    /// Whether it waits for chunks that it would take at once.
    pub(super) fn is_hungry(&self) -> bool {
        self.is_joined()
            && self.has_credit()
            && match self.order {
                Order::Relay => !self.settled.is_full(),
                Order::Peer => !self.wants.is_empty(),
            }
    }

    pub(super) fn delivery(&mut self, chunk: u32) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|delivery| delivery.chunk == chunk)
    }

    pub(super) fn take_delivery(&mut self, chunk: u32) -> Option<Delivery> {
        let position = self.deliveries.iter().position(|delivery| delivery.chunk == chunk)?;
        let delivery = self.deliveries.remove(position)?;
        self.under_way_bytes -= u64::from(delivery.length_bytes);
        Some(delivery)
    }

    pub(super) fn remember_partial(&mut self, chunk: u32, offset_bytes: u32) {
        self.partials.retain(|&(other, _)| other != chunk);
        if offset_bytes == 0 {
            return;
        }
        if self.partials.len() == limits::PARTIAL_CHUNKS_MAX {
            self.partials.pop_front();
        }
        self.partials.push_back((chunk, offset_bytes));
    }

    pub(super) fn take_partial(&mut self, chunk: u32) -> u32 {
        let position = self.partials.iter().position(|&(other, _)| other == chunk);
        position.and_then(|at| self.partials.remove(at)).map_or(0, |(_, offset)| offset)
    }
}

/// The peers by slot. A slot is used again only after its peer has gone.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<u32>,
    /// Empty slots that actions may still name.
    left: Vec<u32>,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: Peer) -> PeerSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer peers than descriptors")
        });
        self.slots[slot as usize] = Some(Box::new(peer));
        PeerSlot(slot)
    }

    pub(super) fn remove(&mut self, slot: PeerSlot) -> Option<Box<Peer>> {
        let peer = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.left.push(slot.0);
        Some(peer)
    }

    pub(super) fn get(&self, slot: PeerSlot) -> Option<&Peer> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.slots.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// How many are connected.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.left.len()
    }

    /// No action names a peer that has gone any more: their slots may be used again.
    pub(super) fn recycle(&mut self) {
        self.free.append(&mut self.left);
    }

    /// How many slots there are, in use or not.
    pub(super) fn slot_count(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("fewer peers than descriptors")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerSlot, &Peer)> {
        self.slots
            .iter()
            .zip(0u32..)
            .filter_map(|(peer, slot)| Some((PeerSlot(slot), peer.as_deref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerSlot, &mut Peer)> {
        self.slots
            .iter_mut()
            .zip(0u32..)
            .filter_map(|(peer, slot)| Some((PeerSlot(slot), peer.as_deref_mut()?)))
    }
}

impl std::ops::Index<PeerSlot> for Peers {
    type Output = Peer;
    fn index(&self, slot: PeerSlot) -> &Peer {
        self.get(slot).expect("the caller holds a live slot")
    }
}

impl std::ops::IndexMut<PeerSlot> for Peers {
    fn index_mut(&mut self, slot: PeerSlot) -> &mut Peer {
        self.get_mut(slot).expect("the caller holds a live slot")
    }
}
