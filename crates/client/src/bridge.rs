//! Two peers, of the same file at two relays, and a bounded shelf between them: what one relay's peers hold, the end at
//! the other relay claims, and gets when that relay fetches it.
//!
//! ```text
//!  relay above ◄── end Up ──┐ shelf ┌── end Down ──► relay below
//!       peers               │       │                   peers
//! ```
//!
//! Both ends are ordinary peers: what comes is verified before it crosses, tokens and pins are each relay's own, and a
//! relay that gets wrong bytes blames its end. Each end is told by its relay what other peers hold
//! ([`relay_protocol::Message::Available`]), and the other end claims that. Nothing crosses that no relay has fetched;
//! each fetches a chunk once for all its peers. `crossing` decides, `room` bounds, this carries out.

mod crossing;
mod room;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shards::{bell::LocalBell, clock, task};

pub use self::{crossing::Side, room::Shelf};
use self::{
    crossing::{Crossing, Waiting, Wish},
    room::placed,
};
use super::{
    connection::{Scratch, now},
    error::ConnectionError,
    file_state::FileState,
    observer::{Notice, Observer, Reaction},
    peer::{Peer, PeerConfig, PeerHandle},
    store::{ChunkStore, StoreEvent},
};
use relay_protocol::{Digest, Manifest, SwarmKey, time::Time};

/// How soon room that another bridge gives back is noticed.
const ROOM_TICK: Duration = Duration::from_millis(5);

/// How often time is looked at while chunks are on their way.
const BUSY_TICK: Duration = Duration::from_secs(1);

/// How a bridge is built.
pub struct BridgeConfig {
    /// The file.
    pub key: SwarmKey,
    /// How the end at the relay above behaves.
    pub up: PeerConfig,
    /// How the end at this relay behaves.
    pub down: PeerConfig,
    /// The room that chunks take on their way.
    pub shelf: Shelf,
    /// The relays that the upper end stands for.
    pub below: Vec<u64>,
    /// Whether the lower end joins only when peers of the relay above hold something.
    pub awaits_upstream: bool,
    /// Told of the bytes of each chunk that came from a relay.
    pub came: Rc<dyn Fn(Side, u64)>,
}

/// What the parts of a bridge share.
struct Shared {
    key: SwarmKey,
    crossing: RefCell<Crossing>,
    manifest: RefCell<Option<Arc<Manifest>>>,
    ends: [EndState; 2],
    came: Rc<dyn Fn(Side, u64)>,
    /// The lower end waits until peers of the relay above hold something.
    awaits_upstream: Cell<bool>,
    stops: Cell<bool>,
    /// Something happened.
    bell: LocalBell,
}

/// What is known of one end, outside of its peer.
#[derive(Default)]
struct EndState {
    events: RefCell<VecDeque<StoreEvent>>,
    /// Rung for events.
    stored: RefCell<Option<Rc<LocalBell>>>,
    /// The peer has ended by itself.
    ended: RefCell<Option<ConnectionError>>,
}

impl Shared {
    fn end(&self, side: Side) -> &EndState {
        match side {
            Side::Up => &self.ends[0],
            Side::Down => &self.ends[1],
        }
    }

    /// The store of this end has done something.
    fn push(&self, side: Side, event: StoreEvent) {
        let end = self.end(side);
        end.events.borrow_mut().push_back(event);
        if let Some(stored) = &*end.stored.borrow() {
            stored.ring();
        }
    }

    /// Tells the stores what is refused.
    fn refuse(&self) {
        loop {
            let refused = self.crossing.borrow_mut().poll_refused();
            let Some(Waiting { side, tag, chunk }) = refused else { return };
            self.push(side, StoreEvent::Read { tag, chunk, result: Err(elsewhere()) });
        }
    }
}

/// Why a chunk is not supplied.
fn elsewhere() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no peer of the other relay supplies it")
}

/// One end's place for chunks: nothing is kept, all crosses.
struct EndStore {
    shared: Rc<Shared>,
    side: Side,
}

impl ChunkStore for EndStore {
    fn keeps_bytes(&self) -> bool {
        true
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        *self.shared.end(self.side).stored.borrow_mut() = Some(Rc::clone(bell));
        true
    }

    fn put(&mut self, chunk: u32, bytes: Bytes) {
        let Self { shared, side } = self;
        let (tags, place) = shared.crossing.borrow_mut().handle_came(*side, chunk);
        (shared.came)(*side, bytes.len() as u64);
        let bytes = match place {
            Some(place) if !tags.is_empty() => placed(bytes, place),
            _ => bytes,
        };
        for tag in tags {
            let read = StoreEvent::Read { tag, chunk, result: Ok(bytes.clone()) };
            shared.push(side.other(), read);
        }
        shared.push(*side, StoreEvent::Kept { chunk, result: Ok(()) });
        shared.bell.ring();
    }

    fn get(&mut self, tag: u32, chunk: u32, _: Digest) -> io::Result<Option<Bytes>> {
        let fetch = Waiting { side: self.side, tag, chunk };
        let waits = self.shared.crossing.borrow_mut().handle_fetch(fetch);
        self.shared.bell.ring();
        if waits { Ok(None) } else { Err(elsewhere()) }
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.shared.end(self.side).events.borrow_mut().pop_front()
    }

    fn is_full(&self) -> bool {
        false
    }

    fn handle_disconnected(&mut self) {
        self.shared.crossing.borrow_mut().handle_fetches_lost(self.side);
        self.shared.refuse();
        self.shared.bell.ring();
    }
}

/// What one end's peer is watched by.
struct EndObserver {
    shared: Rc<Shared>,
    side: Side,
    /// Told what happens to the peer as well.
    owner: Box<dyn Observer>,
}

impl Observer for EndObserver {
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        let (shared, side) = (&self.shared, self.side);
        match notice {
            Notice::Accepted { .. } => shared.crossing.borrow_mut().handle_connected(side),
            Notice::Disconnected { .. } => shared.crossing.borrow_mut().handle_disconnected(side),
            Notice::ManifestVerified => {
                *shared.manifest.borrow_mut() = file.manifest().cloned();
                shared.crossing.borrow_mut().handle_manifest();
            }
            Notice::Available { ranges, held } => {
                shared.crossing.borrow_mut().handle_available(side, ranges, *held);
            }
            _ => return self.owner.notice(now, notice, file),
        }
        shared.refuse();
        shared.bell.ring();
        self.owner.notice(now, notice, file)
    }
}

/// A bridge that was not started yet.
pub struct Bridge {
    shared: Rc<Shared>,
    shelf: Shelf,
    up: Peer,
    down: Option<Peer>,
    handles: [PeerHandle; 2],
}

/// Tells a running bridge what to do. For the same shard.
#[derive(Clone)]
pub struct BridgeHandle {
    shared: Rc<Shared>,
    up: PeerHandle,
}

impl BridgeHandle {
    /// Ends it.
    pub fn stop(&self) {
        self.shared.stops.set(true);
        self.shared.bell.ring();
    }

    /// The lower end joins, whatever peers of the relay above hold.
    pub fn join_below(&self) {
        self.shared.awaits_upstream.set(false);
        self.shared.bell.ring();
    }

    /// The upper end stands for these relays from now on.
    pub fn stand_for(&self, below: &[u64]) {
        self.up.stand_for(below);
    }

    /// Whether both ends are connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let crossing = self.shared.crossing.borrow();
        Side::BOTH.into_iter().all(|side| crossing.is_connected(side))
    }
}

impl Bridge {
    /// With what either end's peer is watched by.
    #[must_use]
    pub fn new(config: BridgeConfig, watch: impl Fn(Side) -> Box<dyn Observer>) -> Self {
        let BridgeConfig { key, up, down, shelf, below, awaits_upstream, came } = config;
        let shared = Rc::new(Shared {
            key,
            crossing: RefCell::new(Crossing::new(key.chunk_count())),
            manifest: RefCell::new(None),
            ends: Default::default(),
            came,
            awaits_upstream: Cell::new(awaits_upstream),
            stops: Cell::new(false),
            bell: LocalBell::new(),
        });
        let end = |side, config| {
            let store = EndStore { shared: Rc::clone(&shared), side };
            let observer = EndObserver { shared: Rc::clone(&shared), side, owner: watch(side) };
            let file = FileState::lacking(key);
            Peer::new(config, file, Box::new(store), Box::new(observer))
        };
        let (up, down) = (end(Side::Up, up), end(Side::Down, down));
        let handles = [up.handle(), down.handle()];
        handles[0].stand_for(&below);
        // The end at the own relay stands for no other.
        handles[1].stand_for(&[]);
        Self { shared, shelf, up, down: Some(down), handles }
    }

    /// What tells it to stop.
    #[must_use]
    pub fn handle(&self) -> BridgeHandle {
        BridgeHandle { shared: Rc::clone(&self.shared), up: self.handles[0].clone() }
    }

    /// Runs on this shard until it was stopped, or an end can't go on: which one, and why.
    pub async fn run(self, scratch: Scratch) -> Result<(), (Side, ConnectionError)> {
        let Self { shared, shelf, up, mut down, handles } = self;
        let mut tasks = vec![start(Side::Up, up, &shared, &scratch)];
        let result = loop {
            let is_due =
                !shared.awaits_upstream.get() || shared.crossing.borrow().has_something(Side::Up);
            if is_due && let Some(down) = down.take() {
                tasks.push(start(Side::Down, down, &shared, &scratch));
            }
            work(&shared, &shelf, &handles);
            if shared.stops.get() {
                break Ok(());
            }
            let ended = |&side: &Side| shared.end(side).ended.borrow().is_some();
            if let Some(side) = Side::BOTH.into_iter().find(ended) {
                let error = shared.end(side).ended.take().expect("just seen");
                break Err((side, error));
            }
            let (waits_for_room, is_busy) = {
                let crossing = shared.crossing.borrow();
                (crossing.waits_for_room(), crossing.is_busy())
            };
            match (waits_for_room, is_busy) {
                (true, _) => drop(clock::timeout(ROOM_TICK, shared.bell.wait()).await),
                (false, true) => drop(clock::timeout(BUSY_TICK, shared.bell.wait()).await),
                (false, false) => shared.bell.wait().await,
            }
        };
        handles.iter().for_each(PeerHandle::stop);
        for task in tasks {
            task.await;
        }
        result
    }
}

fn start(side: Side, peer: Peer, shared: &Rc<Shared>, scratch: &Scratch) -> task::JoinHandle<()> {
    let (shared, scratch) = (Rc::clone(shared), Rc::clone(scratch));
    task::spawn(async move {
        if let (Err(error), _) = peer.run(scratch).await {
            *shared.end(side).ended.borrow_mut() = Some(error);
            shared.bell.ring();
        }
    })
}

/// Does what is to be done now.
fn work(shared: &Shared, shelf: &Shelf, handles: &[PeerHandle; 2]) {
    let now = now();
    shared.crossing.borrow_mut().handle_time(now);
    shared.refuse();
    let handle = |side| match side {
        Side::Up => &handles[0],
        Side::Down => &handles[1],
    };
    loop {
        let len = |chunk| u64::from(shared.key.chunk_len_bytes(chunk));
        let wish = shared.crossing.borrow_mut().poll_wish(now, |chunk| shelf.place(len(chunk)));
        match wish {
            Some(Wish::Name(side, chunk)) => {
                handle(side).say(|session| session.handle_named(chunk))
            }
            Some(Wish::Forget(side, chunk)) => {
                handle(side).say(|session| session.handle_forgotten(chunk));
            }
            None => break,
        }
    }
    let manifest = shared.manifest.borrow().clone();
    // Before, nothing that crosses could be verified.
    let Some(manifest) = manifest else { return };
    for side in Side::BOTH {
        let claims = shared.crossing.borrow_mut().poll_claims(side);
        if let Some(claims) = claims {
            handle(side).say(|session| {
                session.handle_manifest(&manifest);
                session.handle_claims(&claims);
            });
        }
    }
}
