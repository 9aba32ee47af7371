//! Pure: which peer has what, which gets what next.
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
//! Reading order: `api` (the vocabulary), `book` (what is known), `decide` (what is decided). Here is the order
//! in which the deciders get their turn (`Swarm::settle`); `inputs` has what each input changes first. `desk`
//! is what a decider is handed. `view` and `look` are for onlookers, `invariants` for tests.
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
//! let join = |claims, seeding| Join { claims, order: Order::Relay, seeding, is_suspect: false, is_uplink: false };
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

mod api;
mod book;
mod decide;
mod desk;
mod inputs;
mod invariants;
mod look;
mod view;

use relay_protocol::time::Time;

pub use api::{
    Action, Counters, Eviction, FetchFailure, FetchId, Join, Limits, PeerSlot, SwarmConfig,
};
use book::Book;
pub use decide::rent::LAMBDA_DEFAULT;
use decide::{
    fetch::Fetching, late::Late, leave::Leave, manifest::Manifest, missing::MissingChunks,
    pick::Picker, room::Room, seed::Seed, uplinks::Uplinks,
};
use desk::Desk;
pub use view::{ChunkPlace, PeerView, PeerWatch, Wait};

/// The peers of one file and the relay's memory of it.
#[derive(Debug)]
pub struct Swarm {
    desk: Desk,
    manifest: Manifest,
    seed: Seed,
    leave: Leave,
    missing: MissingChunks,
    late: Late,
    picker: Picker,
    room: Room,
    uplinks: Uplinks,
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
            manifest: Manifest::new(chunk_count),
            seed: Seed::default(),
            leave: Leave::default(),
            missing: MissingChunks::default(),
            late: Late::default(),
            picker: Picker::default(),
            room: Room::new(&config),
            uplinks: Uplinks::default(),
            desk: Desk::new(Book::new(config, chunk_count)),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.desk.actions.pop();
        match action {
            Some(Action::WantRoom) => self.room.told(),
            Some(Action::Deliver { chunk, peer, .. }) => self.desk.book.note_told(peer, chunk),
            Some(_) => {}
            None => self.desk.book.recycle_slots(),
        }
        action
    }

    /// When [`Self::handle_timeout`] is due though nothing happens; may lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.desk.book.watch_timeout(),
            self.manifest.timeout(),
            self.seed.timeout(),
            self.leave.timeout(&self.desk.book),
            self.missing.timeout(),
            self.late.timeout(),
            self.room.timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When starving peers may have lost the price of what they wait for; `None` while nothing is priced.
    #[must_use]
    pub fn price_due_at(&self) -> Option<Time> {
        self.room.price_due_at(&self.desk.book)
    }

    /// Before every input.
    fn begin(&mut self, now: Time) {
        self.desk.now = now;
        self.room.begin(&self.desk.book, now);
    }

    /// After every input: decides what now can be decided.
    fn settle(&mut self) {
        self.manifest.step(&mut self.desk);
        if self.desk.book.holds_back() {
            let (has_manifest, asked_at) = (self.manifest.is_known(), self.room.asked_at());
            self.seed.step(&mut self.desk, has_manifest, asked_at);
        }
        if self.leave.is_due(&self.desk) {
            self.let_leave();
        }
        if self.missing.is_due(&self.desk, self.manifest.is_missing()) {
            self.tell_missing();
        }
        if self.late.has_waiting() {
            let (mut fetching, room) = self.fetching();
            fetching.hedge_late(room);
        }
        self.fetch_more();
        self.uplinks.step(&mut self.desk);
        self.room.end(&self.desk);
    }

    /// Peers that no other depends on may go.
    fn let_leave(&mut self) {
        let mut round = self.leave.begin_round(&self.desk.book);
        while let Some(slot) = self.leave.next_granted(&self.desk, &mut round) {
            self.desk.actions.push(Action::LeaveGranted { peer: slot });
            self.retire(slot);
        }
    }

    /// Peers that wait in vain are told so, and at last given up on.
    fn tell_missing(&mut self) {
        let is_manifest_missing = self.manifest.is_missing();
        for slot in self.desk.book.starving().peers().to_vec() {
            if self.missing.look_at(&mut self.desk, slot, is_manifest_missing) {
                self.retire(slot);
            }
        }
    }

    /// Starts what is worth fetching while there is room, and asks for room while there is none.
    fn fetch_more(&mut self) {
        let Self { desk, manifest, seed, leave, late, picker, room, .. } = self;
        room.note_returned(desk);
        loop {
            if !desk.book.may_fetch_more() || !manifest.is_known() {
                return room.withdraw(desk);
            }
            let has_room = desk.book.held() > 0;
            if !has_room && room.is_asked() {
                return room.make(desk, seed);
            }
            // One question at a time: this one is answered at once.
            if room.is_tried() {
                return;
            }
            if !has_room && picker.knows_of_nothing(&desk.book) {
                return;
            }
            match picker.pick(desk, seed, leave, room) {
                // A spread that has just ended leaves other things to fetch.
                None if desk.book.has_news() => {}
                None => return room.withdraw(desk),
                Some(pick) if !has_room => return room.ask(desk, pick.need),
                Some(pick) => Fetching { desk, seed, late }.start(pick, None),
            }
        }
    }

    /// What begins and ends fetches, and the room that there is for them.
    fn fetching(&mut self) -> (Fetching<'_>, &mut Room) {
        let Self { desk, seed, late, room, .. } = self;
        (Fetching { desk, seed, late }, room)
    }

    /// Takes a peer out of every count; its slot and its deliveries stay until it has gone.
    fn retire(&mut self, slot: PeerSlot) {
        let book = &mut self.desk.book;
        if !book.peer(slot).is_holder() {
            return;
        }
        let had = book.retire(self.desk.now, slot);
        self.seed.copies_lost(book, &had);
        self.uplinks.lost(slot);
        self.leave.ended(slot);
        self.fetching().0.drop_all_of(slot);
        self.seed.lost(&mut self.desk, slot);
        self.manifest.lost(slot);
    }
}
