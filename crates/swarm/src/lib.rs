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
//! in which the deciders get their turn (`Swarm::settle`); `inputs` has what each input changes first. `view`
//! and `look` are for onlookers, `invariants` for tests.
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

mod actions;
mod api;
mod book;
mod decide;
mod inputs;
mod invariants;
mod look;
mod view;

use relay_protocol::time::Time;

use actions::Actions;
pub use api::{Action, Counters, Eviction, FetchFailure, FetchId, Join, PeerSlot, SwarmConfig};
use book::Book;
pub use decide::rent::LAMBDA_DEFAULT;
use decide::{
    fetch::Fetching, late::Late, leave::Leave, manifest::Manifest, missing::MissingChunks,
    pick::Picker, room::Room, seed::Seed,
};
pub use view::{ChunkPlace, PeerView, PeerWatch, Wait};

/// The peers of one file and the relay's memory of it.
#[derive(Debug)]
pub struct Swarm {
    book: Book,
    manifest: Manifest,
    seed: Seed,
    leave: Leave,
    missing: MissingChunks,
    late: Late,
    picker: Picker,
    room: Room,
    actions: Actions,
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
            actions: Actions::default(),
            book: Book::new(config, chunk_count),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop();
        match action {
            Some(Action::WantRoom) => self.room.told(),
            Some(Action::Deliver { chunk, peer, .. }) => self.book.note_told(peer, chunk),
            Some(_) => {}
            None => self.book.recycle_slots(),
        }
        action
    }

    /// When [`Self::handle_timeout`] is due though nothing happens; may lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.book.watch_timeout(),
            self.manifest.timeout(),
            self.seed.timeout(),
            self.leave.timeout(&self.book),
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
        self.room.price_due_at(&self.book)
    }

    /// After every input: decides what now can be decided.
    fn settle(&mut self, now: Time) {
        let (book, actions) = (&mut self.book, &mut self.actions);
        self.manifest.step(book, actions, now);
        if book.holds_back() {
            let (has_manifest, asked_at) = (self.manifest.is_known(), self.room.asked_at());
            self.seed.step(book, actions, now, has_manifest, asked_at);
        }
        if self.leave.is_due(&self.book, now) {
            self.let_leave(now);
        }
        if self.missing.is_due(&self.book, now, self.manifest.is_missing()) {
            self.tell_missing(now);
        }
        if self.late.has_waiting() {
            let (mut fetching, room) = self.fetching(now);
            fetching.hedge_late(room);
        }
        self.fetch_more(now);
        self.room.end(&self.book, now);
    }

    /// Peers that no other depends on may go.
    fn let_leave(&mut self, now: Time) {
        let mut round = self.leave.begin_round(&self.book);
        while let Some(slot) = self.leave.next_granted(&self.book, now, &mut round) {
            self.actions.push(Action::LeaveGranted { peer: slot });
            self.retire(now, slot);
        }
    }

    /// Peers that wait in vain are told so, and at last given up on.
    fn tell_missing(&mut self, now: Time) {
        let is_manifest_missing = self.manifest.is_missing();
        for slot in self.book.starving().peers().to_vec() {
            let (book, actions) = (&mut self.book, &mut self.actions);
            if self.missing.look_at(book, actions, now, slot, is_manifest_missing) {
                self.retire(now, slot);
            }
        }
    }

    /// Starts what is worth fetching while there is room, and asks for room while there is none.
    fn fetch_more(&mut self, now: Time) {
        let Self { book, actions, manifest, seed, leave, late, picker, room, .. } = self;
        room.note_returned(book, now);
        loop {
            if !book.may_fetch_more() || !manifest.is_known() {
                return room.withdraw(book, actions);
            }
            if book.held() == 0 && room.is_asked() {
                return room.make(book, actions, now, seed);
            }
            // One question at a time: this one is answered at once.
            if room.is_tried() {
                return;
            }
            if picker.knows_of_nothing(book) && book.held() == 0 {
                return;
            }
            match picker.pick(book, actions, now, seed, leave, room) {
                // A spread that has just ended leaves other things to fetch.
                None if book.has_news() => {}
                None => return room.withdraw(book, actions),
                Some(pick) if book.held() == 0 => return room.ask(actions, now, pick.need),
                Some(pick) => Fetching { book, actions, seed, late, now }.start(pick, None),
            }
        }
    }

    /// What begins and ends fetches, and the room that there is for them.
    fn fetching(&mut self, now: Time) -> (Fetching<'_>, &mut Room) {
        let Self { book, actions, seed, late, room, .. } = self;
        (Fetching { book, actions, seed, late, now }, room)
    }

    /// Takes a peer out of every count; its slot and its deliveries stay until it has gone.
    fn retire(&mut self, now: Time, slot: PeerSlot) {
        if !self.book.peer(slot).is_holder() {
            return;
        }
        let had = self.book.retire(now, slot);
        self.seed.copies_lost(&self.book, &had);
        self.leave.ended(slot);
        self.fetching(now).0.drop_all_of(slot);
        self.seed.lost(&mut self.book, &mut self.actions, now, slot);
        self.manifest.lost(slot);
    }
}
