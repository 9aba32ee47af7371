//! Two homes that share too little memory, played by hand: which waits for bytes, and which only
//! seems to.

use std::{net::IpAddr, time::Duration};

use shards::{Budget, Shards};

use super::*;
use crate::{
    message::{JoinRequest, Request},
    observe::metrics,
    one_shard,
};
use relay_protocol::{Bitfield, Order};
use relay_swarm::{Eviction, LAMBDA_DEFAULT};

const CHUNK_SIZE_LOG2: u8 = 16;
const CHUNK_BYTES: usize = 1 << CHUNK_SIZE_LOG2;

/// A home with its file, and everything that it asks of others.
struct Stage {
    home: Home,
    manifest: Arc<Manifest>,
    outbox: Outbox,
    cells: Arc<ShardCells>,
    joined: u32,
}

impl Stage {
    fn new(seed: u8, budget: &Budget, shards: &Shards) -> Self {
        Self::with_fetches(1, seed, budget, shards)
    }

    fn with_fetches(fetches_max: u32, seed: u8, budget: &Budget, shards: &Shards) -> Self {
        let manifest = Manifest::of(&vec![seed; 4 * CHUNK_BYTES], CHUNK_SIZE_LOG2);
        let manifest = Arc::new(manifest.expect("a small file"));
        let waiter = budget.waiter(shards.ringer(ShardId(0))).expect("a place");
        let key = *manifest.key();
        let config = SwarmConfig {
            size_bytes: key.size_bytes,
            chunk_size_bytes: key.chunk_size_bytes(),
            eviction: Eviction::Demand,
            lambda: LAMBDA_DEFAULT,
            fetches_max,
            cache_chunks_max: 1,
            missing_deadline: Duration::from_secs(60),
            spread_wait: Duration::from_secs(10),
            leaving_deadline: Duration::from_secs(60),
        };
        let reference = SwarmRef { home: ShardId(0), index: seed.into(), generation: 0 };
        let recorder = metrics::recorder().expect("buckets are right");
        let cells = metrics::cells(&recorder, 1).remove(0);
        let home = Home::new(key, reference, config, waiter, 1, false);
        Self { home, manifest, outbox: Outbox::new(ShardId(0), 1), cells, joined: 0 }
    }

    /// A home with its only holder, which was asked for a chunk, and a peer that wants it.
    fn that_fetches(
        now: Time,
        budget: &Budget,
        shards: &Shards,
    ) -> (Self, PeerSlot, PeerSlot, FetchOrder) {
        let mut stage = Self::new(1, budget, shards);
        let holder = stage.join_holder(now);
        let hungry = stage.join_hungry(now);
        stage.know_manifest(now, holder);
        let asked = fetch_in(stage.drive(now)).expect("the only holder is asked");
        (stage, holder, hungry, asked)
    }

    /// A peer joins, with everything or nothing.
    fn join(&mut self, now: Time, claims: Bitfield) -> PeerSlot {
        self.join_from(now, claims, [192, 0, 2, 1].into())
    }

    fn join_from(&mut self, now: Time, claims: Bitfield, remote: IpAddr) -> PeerSlot {
        let from = ConnectionRef { shard: ShardId(0), index: self.joined, generation: 0 };
        self.joined += 1;
        let key = *self.home.key();
        let remote = (remote, 40_000).into();
        let join = JoinRequest {
            from,
            remote,
            key,
            claims,
            order: Order::Relay,
            seeding: None,
            may_begin: true,
            uplink: None,
        };
        self.home.handle_join(now, join, &mut self.outbox);
        self.home.members.slot_of(from.index).expect("it has joined")
    }

    /// The connection of a peer.
    fn index_of(&self, peer: PeerSlot) -> Option<u32> {
        self.home.connection(peer).map(|connection| connection.index)
    }

    fn join_holder(&mut self, now: Time) -> PeerSlot {
        self.join(now, Bitfield::full(4))
    }

    /// A peer that lacks everything and would take it.
    fn join_hungry(&mut self, now: Time) -> PeerSlot {
        self.join_hungry_with(now, Bitfield::empty(4))
    }

    fn join_hungry_with(&mut self, now: Time, claims: Bitfield) -> PeerSlot {
        let peer = self.join(now, claims);
        let (swarm, items) = (self.home.reference(), Vec::new());
        let news = PeerNews { swarm, peer, allowance_bytes: 1 << 20, items };
        self.home.handle_news(now, news, &mut self.outbox, &self.cells);
        peer
    }

    fn know_manifest(&mut self, now: Time, from: PeerSlot) {
        let manifest = Ok(Arc::clone(&self.manifest));
        self.home.handle_manifest(now, from, manifest, &mut self.outbox);
    }

    /// What the home wants now.
    fn drive(&mut self, now: Time) -> Vec<Request> {
        self.home.drive(now, &mut self.outbox, &self.cells);
        std::iter::from_fn(|| self.outbox.pop_own()).collect()
    }
}

/// The fetch among them, with its lease.
fn fetch_in(requests: Vec<Request>) -> Option<FetchOrder> {
    requests.into_iter().find_map(|request| match request {
        Request::Peer(PeerRequest::Fetch { fetch, .. }) => Some(fetch),
        _ => None,
    })
}

#[test]
fn a_home_that_no_longer_waits_for_anything_holds_up_no_other() {
    let (budget, shards) = (Budget::new(CHUNK_BYTES, 2), one_shard::idle());
    let now = Time::ZERO + Duration::from_secs(1);
    let (mut first, slow, hungry, asked) = Stage::that_fetches(now, &budget, &shards);
    let fast = first.join_holder(now);
    // Its answer does not come: the other holder is to be asked, with the lease of the first.
    let late = now + Duration::from_secs(2);
    first.home.handle_timeout(late);
    let hedge = first.drive(late);
    let moves = |request: &Request| {
        matches!(request, Request::Peer(PeerRequest::CancelFetch { lease_back: true, .. }))
    };
    assert!(hedge.iter().any(moves), "there is no room for two: {hedge:?}");
    assert!(fetch_in(hedge).is_none(), "it waits for the lease");
    assert!(first.home.is_waiting_for_room());
    // Another home wants memory, too, and stands behind it.
    let mut second = Stage::new(2, &budget, &shards);
    let holder = second.join_holder(late);
    second.join_hungry(late);
    second.know_manifest(late, holder);
    assert!(fetch_in(second.drive(late)).is_none());
    assert_eq!(budget.waiting(), 2);
    // The bytes come back just when they are of no use to the first any more.
    drop(asked);
    for peer in [fast, hungry, slow] {
        first.home.handle_gone(late, peer);
    }
    first.drive(late);
    assert_eq!(budget.waiting(), 1, "the first waits for nothing");
    let fetch = fetch_in(second.drive(late)).expect("nobody stands before it");
    // The second goes on: its holder refuses one chunk, so that it needs room again.
    drop(fetch.lease);
    let refused = Err(FetchFailure::Refused);
    second.home.handle_fetched(late, fetch.fetch_id, refused, &second.cells);
    let again = fetch_in(second.drive(late)).expect("nobody stands before it");
    assert_ne!(again.chunk, fetch.chunk);
    shards.drain();
    shards.join().expect("it did nothing");
}

#[test]
fn a_second_holder_is_asked_with_a_lease_of_its_own_if_that_is_free() {
    for is_taken in [false, true] {
        let (budget, shards) = (Budget::new(2 * CHUNK_BYTES, 2), one_shard::idle());
        let now = Time::ZERO + Duration::from_secs(1);
        let mut stage = Stage::with_fetches(2, 1, &budget, &shards);
        let holder = stage.join_holder(now);
        // It lacks one chunk, so that nothing else is fetched.
        let mut claims = Bitfield::empty(4);
        for chunk in 1..4 {
            assert!(claims.insert(chunk));
        }
        stage.join_hungry_with(now, claims);
        stage.know_manifest(now, holder);
        let asked = fetch_in(stage.drive(now)).expect("the only holder is asked");
        stage.join_holder(now);
        stage.drive(now);
        let mut other = Stage::new(2, &budget, &shards);
        let taken = is_taken.then(|| other.home.try_lease().expect("there is room for two"));
        let late = now + Duration::from_secs(2);
        stage.home.handle_timeout(late);
        let requests = stage.drive(late);
        let cancels = |it: &Request| matches!(it, Request::Peer(PeerRequest::CancelFetch { .. }));
        assert_eq!(requests.iter().any(cancels), is_taken, "{requests:?}");
        let second = fetch_in(requests);
        assert_eq!(second.is_some(), !is_taken, "it waits for the first one's lease");
        assert!(second.is_none_or(|second| second.chunk == asked.chunk));
        // Both leases go back at the latest with what holds them.
        drop((asked, taken, stage, other));
        assert_eq!(budget.in_use_bytes(), 0);
        shards.drain();
        shards.join().expect("it did nothing");
    }
}

#[test]
fn a_chunk_that_comes_when_its_fetch_was_just_given_up_is_not_kept() {
    let (budget, shards) = (Budget::new(CHUNK_BYTES, 1), one_shard::idle());
    let now = Time::ZERO + Duration::from_secs(1);
    let (mut stage, _, _, asked) = Stage::that_fetches(now, &budget, &shards);
    stage.join_holder(now);
    // In one turn it is decided to ask the other instead, and the first one's chunk comes.
    let late = now + Duration::from_secs(2);
    stage.home.handle_timeout(late);
    let mut buffer = asked.lease.buffer(CHUNK_BYTES);
    buffer.fill_zeroed();
    let chunk = FetchedChunk { bytes: buffer.freeze().into(), crcs: Arc::new([]) };
    stage.home.handle_fetched(late, asked.fetch_id, Ok(chunk), &stage.cells);
    let requests = stage.drive(late);
    let cancels = |request: &Request| {
        matches!(request, Request::Peer(PeerRequest::CancelFetch { fetch_id, .. })
            if *fetch_id == asked.fetch_id)
    };
    assert!(requests.iter().any(cancels), "whoever is asked for the lease says where it is");
    let instead = fetch_in(requests).expect("nobody holds the only lease any more");
    assert_eq!(instead.chunk, asked.chunk);
    assert_eq!(budget.in_use_bytes(), CHUNK_BYTES);
    shards.drain();
    shards.join().expect("it did nothing");
}

#[test]
fn who_comes_from_where_somebody_lied_is_asked_only_if_nobody_else_has_the_chunk() {
    let (budget, shards) = (Budget::new(4 * CHUNK_BYTES, 1), one_shard::idle());
    let now = Time::ZERO + Duration::from_secs(1);
    let (all, there) = (Bitfield::full(4), IpAddr::from([192, 0, 2, 2]));
    let mut stage = Stage::new(1, &budget, &shards);
    let liar = stage.join_from(now, all.clone(), there);
    stage.join_hungry(now);
    stage.know_manifest(now, liar);
    let asked = fetch_in(stage.drive(now)).expect("it is alone, so it is asked");
    let lied = Err(FetchFailure::Lied);
    stage.home.handle_fetched(now, asked.fetch_id, lied, &stage.cells);
    drop(asked.lease);
    stage.drive(now);
    stage.home.handle_gone(now, liar);
    // It comes back three times over, before and after another peer that has the file.
    stage.join_from(now, all.clone(), there);
    let sound = stage.join_holder(now);
    stage.join_from(now, all.clone(), there);
    stage.join_from(now, all, there);
    let whom = |requests: &[Request]| {
        requests.iter().find_map(|request| match request {
            Request::Peer(PeerRequest::Fetch { to, .. }) => Some(to.index),
            _ => None,
        })
    };
    let first = stage.drive(now);
    let right = stage.index_of(sound);
    assert_eq!(whom(&first), right, "the sound holder is asked: {first:?}");
    let second = stage.drive(now);
    assert!(whom(&second).is_none_or(|index| Some(index) == right));
    // When it has gone, a suspect is better than no holder.
    stage.home.handle_gone(now, sound);
    drop((first, second));
    let suspect = whom(&stage.drive(now)).expect("the others are asked now");
    assert_ne!(Some(suspect), right);
    shards.drain();
    shards.join().expect("it did nothing");
}
