//! Pure: who has what, who gets what next.
//!
//! A [`Swarm`] is all that the relay knows of one file: which connected peer has which chunk,
//! what is cached, what is being fetched from whom, what is on its way to whom. Time and events
//! go in (`handle_*`), decisions come out ([`Swarm::poll_action`]); [`Swarm::poll_timeout`] says
//! when to come back though nothing happened. It touches no byte of the file, no socket, no clock
//! and no budget: it asks for room and is told when there is some.
//!
//! The shell carries out actions in their order, after one input or several. When it has taken
//! [`Action::WantRoom`] and there is room, [`Swarm::handle_room`] is the next input: a wish that was
//! taken and not answered means that memory is short. Actions may name a peer that has gone
//! meanwhile (then they are void); its slot is not used again before the shell has seen them all.
//!
//! Reading order: `shared` (the vocabulary), `peers`, `wants`, `chunks`, `log`, `ranks`, `meter` and `depth` (what
//! is known), then the decisions: `membership` (who counts), `delivery` (what goes to whom),
//! `fetching`, `holders` and `hedging` (what is asked of whom), `pace`, `room` and `rent` (what is given up for it),
//! `seeding` and `patience`, `leaving`, `missing` and `manifest`. `view` and `watch` are for onlookers.
//!
//! ```
//! use std::time::Duration;
//!
//! use relay_protocol::{Bitfield, Order, Seeding, time::Time};
//! use relay_swarm::{Action, Eviction, Join, LAMBDA_DEFAULT, Swarm, SwarmConfig};
//!
//! let mut swarm = Swarm::new(SwarmConfig {
//!     size_bytes: 4 << 18,
//!     chunk_size_bytes: 1 << 18,
//!     eviction: Eviction::Demand,
//!     lambda: LAMBDA_DEFAULT,
//!     fetches_max: 2,
//!     cache_chunks_max: 4,
//!     missing_deadline: Duration::from_secs(60),
//!     spread_wait: Duration::from_secs(10),
//!     leaving_deadline: Duration::from_secs(60),
//! });
//! let join = |claims, seeding| Join { claims, order: Order::Relay, seeding, is_suspect: false };
//! let origin = swarm.handle_join(Time::ZERO, join(Bitfield::full(4), Some(Seeding::Origin)));
//! let peer = swarm.handle_join(Time::ZERO, join(Bitfield::empty(4), None));
//!
//! // The list of digests comes first; then what the peer has given leave for is fetched for it.
//! assert_eq!(swarm.poll_action(), Some(Action::FetchManifest { holder: origin }));
//! swarm.handle_manifest(Time::ZERO, origin, Ok(()));
//! swarm.handle_allowance(Time::ZERO, peer, 1 << 18);
//! let wants_room = std::iter::from_fn(|| swarm.poll_action()).any(|action| action == Action::WantRoom);
//! assert!(wants_room);
//! swarm.handle_room(Time::ZERO);
//! let fetches = std::iter::from_fn(|| swarm.poll_action());
//! assert!(fetches.into_iter().any(|action| matches!(action, Action::Fetch { holder, .. } if holder == origin)));
//! ```

mod chunks;
mod delivery;
mod depth;
mod fetching;
mod hedging;
mod holders;
mod invariants;
mod leaving;
mod log;
mod manifest;
mod membership;
mod meter;
mod missing;
mod pace;
mod patience;
mod peers;
mod ranks;
mod rent;
mod room;
mod seeding;
pub mod shared;
mod view;
mod wants;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use relay_protocol::time::Time;

pub use rent::LAMBDA_DEFAULT;
pub use shared::{Action, Eviction, FetchFailure, FetchId, Join, PeerSlot, SwarmConfig};
pub use view::{Counters, PeerView};
pub use watch::{ChunkPlace, PeerWatch, Wait};

/// The peers of one file and the relay's memory of it.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    peers: peers::Peers,
    chunks: chunks::Chunks,
    log: log::Log,
    starving: membership::Starving,
    fetches: BTreeMap<FetchId, fetching::Fetch>,
    fetch_queue: fetching::FetchQueue,
    idle_holders: holders::IdleHolders,
    room: room::Room,
    rent: rent::Rent,
    pace: pace::Pace,
    seeding: seeding::SeedState,
    manifest: manifest::ManifestState,
    leaving: leaving::LeavingState,
    missing: missing::MissingState,
    watch: VecDeque<(Time, PeerSlot)>,
    counters: Counters,
    /// What publishers ask about, as far as it is not found by looking at the peers.
    published: relay_protocol::SwarmStatus,
    actions: VecDeque<Action>,
}

impl Swarm {
    /// A swarm without peers.
    ///
    /// # Panics
    /// If the file has more chunks than [`relay_protocol::limits::CHUNK_COUNT_MAX`].
    #[must_use]
    pub fn new(config: SwarmConfig) -> Self {
        let chunk_count = config.size_bytes.div_ceil(u64::from(config.chunk_size_bytes));
        let chunk_count = u32::try_from(chunk_count).expect("the key was validated");
        assert!(chunk_count <= relay_protocol::limits::CHUNK_COUNT_MAX);
        Self {
            rent: rent::Rent::new(config.lambda, config.cache_chunks_max),
            pace: pace::Pace::default(),
            manifest: manifest::ManifestState::new(chunk_count),
            config,
            peers: peers::Peers::default(),
            chunks: chunks::Chunks::new(chunk_count),
            log: log::Log::default(),
            starving: membership::Starving::default(),
            fetches: BTreeMap::new(),
            fetch_queue: fetching::FetchQueue::default(),
            idle_holders: holders::IdleHolders::default(),
            room: room::Room::default(),
            seeding: seeding::SeedState::default(),
            leaving: leaving::LeavingState::default(),
            missing: missing::MissingState::default(),
            watch: VecDeque::new(),
            counters: Counters::default(),
            published: relay_protocol::SwarmStatus::default(),
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        match action {
            Some(Action::WantRoom) => self.room.told = true,
            Some(Action::Deliver { chunk, peer, .. }) => self.decision_told(peer, chunk),
            Some(_) => {}
            None => self.peers.recycle(),
        }
        action
    }

    /// When [`Self::handle_timeout`] is due though nothing happens; may lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.fetch_timeout(),
            self.room_timeout(),
            self.seeding_timeout(),
            self.manifest_timeout(),
            self.leaving_timeout(),
            self.missing_timeout(),
            self.watch.front().map(|&(at, _)| at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed: does whatever is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.begin(now);
        self.watch_peers(now);
        self.check_fetches(now);
        self.settle(now);
    }

    /// Before every input: what was lost since the last one is counted.
    fn begin(&mut self, now: Time) {
        self.rent.advance(now);
        self.room.unanswered = self.room.told;
    }

    /// After every input: decides what now can be decided.
    fn settle(&mut self, now: Time) {
        self.manifest_step(now);
        self.seeding_step(now);
        self.leaving_step(now);
        self.missing_step(now);
        self.hedge_step(now);
        self.fetch_step(now);
        self.rent.set_blocked(now, self.room.asked_at.is_some() && !self.starving.is_empty());
    }

    fn chunk_bytes(&self, chunk: u32) -> u32 {
        let start = u64::from(chunk) * u64::from(self.config.chunk_size_bytes);
        let rest = self.config.size_bytes - start;
        u32::try_from(rest)
            .map_or(self.config.chunk_size_bytes, |rest| rest.min(self.config.chunk_size_bytes))
    }
}
