//! A swarm in which all peers take chunks as fast as they are given: a load for measurements.
//!
//! Links take no time, no peer is slow and nothing fails, so nothing but the scheduler works. Not a
//! simulation: that is in `tests/sim`.

use std::{collections::VecDeque, time::Duration};

use relay::{
    protocol::{Bitfield, Order},
    swarm::{Action, Eviction, FetchId, Join, LAMBDA_DEFAULT, PeerSlot, Swarm, SwarmConfig},
    time::Time,
};

/// Bytes of a chunk; the scheduler never sees one.
const CHUNK_BYTES: u32 = 256 << 10;

/// How large the swarm is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Peers beside the origin.
    pub(crate) peers: u32,
    /// Chunks of the file.
    pub(crate) chunks: u32,
    /// Chunks that the cache holds.
    pub(crate) cached: u32,
    /// Deliveries that a fetch takes: with more, many peers starve meanwhile.
    pub(crate) pause: u32,
}

/// A swarm under way, and what its shell would know.
#[derive(Debug)]
pub(crate) struct Load {
    /// The scheduler.
    pub(crate) swarm: Swarm,
    /// Inputs that it was given, apart from joins.
    pub(crate) events: u64,
    /// Chunks that peers took.
    pub(crate) deliveries: u64,
    size: Size,
    now: Time,
    in_use: u32,
    wants_room: bool,
    pause: u32,
    sent: VecDeque<(PeerSlot, u32)>,
    fetching: VecDeque<FetchId>,
    received_bytes: Vec<u64>,
}

impl Load {
    /// All have joined and have credit; nothing was delivered yet.
    pub(crate) fn new(size: Size) -> Self {
        let mut swarm = Swarm::new(SwarmConfig {
            size_bytes: u64::from(size.chunks) * u64::from(CHUNK_BYTES),
            chunk_size_bytes: CHUNK_BYTES,
            eviction: Eviction::Demand,
            lambda: LAMBDA_DEFAULT,
            fetches_max: (size.cached / 2).max(1),
            cache_chunks_max: size.cached,
            missing_deadline: Duration::from_secs(60),
            spread_wait: Duration::from_secs(10),
            leaving_deadline: Duration::from_secs(60),
        });
        let join = |claims| Join {
            claims,
            order: Order::Relay,
            seeding: None,
            is_suspect: false,
            is_uplink: false,
        };
        let origin = swarm.handle_join(Time::ZERO, join(Bitfield::full(size.chunks)));
        for _ in 0..size.peers {
            swarm.handle_join(Time::ZERO, join(Bitfield::empty(size.chunks)));
        }
        swarm.handle_manifest(Time::ZERO, origin, Ok(()));
        for peer in 1..=size.peers {
            swarm.handle_allowance(Time::ZERO, PeerSlot(peer), 2 * u64::from(CHUNK_BYTES));
        }
        Self {
            swarm,
            events: u64::from(size.peers),
            deliveries: 0,
            size,
            now: Time::ZERO,
            in_use: 0,
            wants_room: false,
            pause: 0,
            sent: VecDeque::new(),
            fetching: VecDeque::new(),
            received_bytes: vec![0; size.peers as usize + 1],
        }
    }

    /// Whether all peers have everything.
    pub(crate) fn is_done(&self) -> bool {
        self.deliveries == u64::from(self.size.peers) * u64::from(self.size.chunks)
    }

    /// One thing that happens, and all that follows from it: three events if a delivery ends.
    pub(crate) fn step(&mut self) {
        self.perform();
        self.now = self.now + Duration::from_micros(1);
        self.pause = self.pause.saturating_sub(1);
        if (self.pause == 0 || self.sent.is_empty())
            && let Some(fetch_id) = self.fetching.pop_front()
        {
            self.pause = self.size.pause;
            self.swarm.handle_fetched(self.now, fetch_id);
            self.events += 1;
        } else if let Some((peer, chunk)) = self.sent.pop_front() {
            self.end_delivery(peer, chunk);
        } else {
            self.now = self.swarm.poll_timeout().expect("somebody waits").max(self.now);
            self.swarm.handle_timeout(self.now);
            self.events += 1;
        }
    }

    /// Carries out what the swarm wants.
    fn perform(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            match action {
                Action::Deliver { chunk, peer, .. } => self.sent.push_back((peer, chunk)),
                Action::Fetch { fetch_id, .. } => self.fetching.push_back(fetch_id),
                Action::Evict { .. } => self.in_use -= 1,
                Action::WantRoom => self.wants_room = true,
                Action::TryRoom => {
                    let is_there = self.in_use < self.size.cached;
                    self.in_use += if is_there { 1 } else { 0 };
                    self.swarm.handle_room_tried(self.now, is_there);
                    self.events += 1;
                }
                Action::ReleaseRoom if self.wants_room => self.wants_room = false,
                Action::ReleaseRoom => self.in_use -= 1,
                _ => {}
            }
            if self.wants_room && self.in_use < self.size.cached {
                (self.wants_room, self.in_use) = (false, self.in_use + 1);
                self.swarm.handle_room(self.now);
                self.events += 1;
            }
        }
    }

    fn end_delivery(&mut self, peer: PeerSlot, chunk: u32) {
        let received = &mut self.received_bytes[peer.0 as usize];
        *received += u64::from(CHUNK_BYTES);
        let allowance = *received + 2 * u64::from(CHUNK_BYTES);
        self.swarm.handle_written(self.now, peer, chunk);
        self.swarm.handle_have(self.now, peer, chunk);
        self.swarm.handle_allowance(self.now, peer, allowance);
        self.events += 3;
        self.deliveries += 1;
    }
}
