//! One late fetch at a time, played by hand: which holder is asked as well, which instead, and whose room is
//! used.

use std::time::Duration;

use crate::{
    Action, Eviction, FetchFailure, FetchId, Join, LAMBDA_DEFAULT, PeerSlot, Swarm, SwarmConfig,
};
use relay_protocol::{Bitfield, Order, time::Time};

const CHUNK_BYTES: u32 = 1 << 16;
const START: Time = Time(1_000_000_000);
const LATE: Time = Time(START.0 + 2_000_000_000);

/// A swarm, two peers that claim the whole file, and one that lacks it and would take all of it.
struct Scene {
    swarm: Swarm,
    first: PeerSlot,
    second: PeerSlot,
    hungry: PeerSlot,
}

impl Scene {
    fn new(chunk_count: u32, fetches_max: u32) -> Self {
        let mut swarm = Swarm::new(SwarmConfig {
            size_bytes: u64::from(chunk_count) * u64::from(CHUNK_BYTES),
            chunk_size_bytes: CHUNK_BYTES,
            eviction: Eviction::Demand,
            lambda: LAMBDA_DEFAULT,
            fetches_max,
            cache_chunks_max: 2 * fetches_max,
            missing_deadline: Duration::from_secs(60),
            spread_wait: Duration::from_secs(10),
            leaving_deadline: Duration::from_secs(60),
        });
        let mut join = |claims| {
            let join = Join {
                claims,
                order: Order::Relay,
                seeding: None,
                is_suspect: false,
                is_uplink: false,
            };
            swarm.handle_join(START, join)
        };
        let (first, second) =
            (join(Bitfield::full(chunk_count)), join(Bitfield::full(chunk_count)));
        let hungry = join(Bitfield::empty(chunk_count));
        swarm.handle_manifest(START, first, Ok(()));
        swarm.handle_allowance(START, hungry, 1 << 20);
        Self { swarm, first, second, hungry }
    }

    /// What it wants done now, given so much room.
    fn drain(&mut self, now: Time, mut room: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.swarm.poll_action() {
            let is_there = room > 0;
            match action {
                Action::WantRoom if is_there => self.swarm.handle_room(now),
                Action::TryRoom => self.swarm.handle_room_tried(now, is_there),
                _ => {}
            }
            match action {
                Action::WantRoom | Action::TryRoom => room = room.saturating_sub(1),
                Action::ReleaseRoom | Action::Evict { .. } => room += 1,
                _ => {}
            }
            self.swarm.invariants();
            actions.push(action);
        }
        actions
    }

    /// The first fetch that it asks for, given room.
    fn asked(&mut self) -> (FetchId, PeerSlot) {
        *fetches(&self.drain(START, 8)).first().expect("a peer lacks it and another has it")
    }

    /// The fetch is late: what happens.
    fn is_late(&mut self, room: u32) -> Vec<Action> {
        self.swarm.handle_timeout(LATE);
        self.drain(LATE, room)
    }

    fn other(&self, holder: PeerSlot) -> PeerSlot {
        if holder == self.first { self.second } else { self.first }
    }
}

fn fetches(actions: &[Action]) -> Vec<(FetchId, PeerSlot)> {
    let fetch = |action: &Action| match *action {
        Action::Fetch { fetch_id, holder, .. } => Some((fetch_id, holder)),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

/// Fetches that are cancelled, and whether their room is kept.
fn cancelled(actions: &[Action]) -> Vec<(FetchId, bool)> {
    let cancel = |action: &Action| match *action {
        Action::CancelFetch { fetch_id, keep_room, .. } => Some((fetch_id, keep_room)),
        _ => None,
    };
    actions.iter().filter_map(cancel).collect()
}

#[test]
fn with_room_another_is_asked_as_well_and_the_first_to_answer_wins() {
    for slow_one_wins in [false, true] {
        let mut scene = Scene::new(1, 2);
        let (slow, holder) = scene.asked();
        let actions = scene.is_late(8);
        let hedge = fetches(&actions);
        assert_eq!(hedge.len(), 1, "{actions:?}");
        assert_eq!(hedge[0].1, scene.other(holder));
        assert_eq!(cancelled(&actions), [], "the first may yet come");
        let (winner, loser) = if slow_one_wins { (slow, hedge[0].0) } else { (hedge[0].0, slow) };
        scene.swarm.handle_fetched(LATE, winner);
        let actions = scene.drain(LATE, 8);
        assert_eq!(cancelled(&actions), [(loser, false)], "its room is free");
        let chunk = Action::Deliver { chunk: 0, peer: scene.hungry, offset: 0 };
        assert!(actions.contains(&chunk), "{actions:?}");
    }
}

#[test]
fn a_hedge_that_fails_leaves_the_first_fetch_alone() {
    let mut scene = Scene::new(1, 2);
    let (slow, _) = scene.asked();
    let hedge = fetches(&scene.is_late(8))[0].0;
    scene.swarm.handle_fetch_failed(LATE, hedge, FetchFailure::Refused);
    assert_eq!(cancelled(&scene.drain(LATE, 8)), []);
    scene.swarm.handle_fetched(LATE, slow);
    assert!(scene.drain(LATE, 8).iter().any(|it| matches!(it, Action::Deliver { .. })));
}

#[test]
fn without_room_a_hedge_waits_for_none_and_takes_that_of_the_first() {
    let mut scene = Scene::new(1, 2);
    let (slow, holder) = scene.asked();
    let actions = scene.is_late(0);
    assert_eq!(cancelled(&actions), [(slow, true)], "{actions:?}");
    assert_eq!(fetches(&actions).len(), 1);
    assert_eq!(fetches(&actions)[0].1, scene.other(holder));
    assert_eq!(actions[0], Action::TryRoom);
    assert_eq!(actions.len(), 3, "it asks once, and for nothing more: {actions:?}");
}

#[test]
fn as_many_fetches_as_there_may_be_leave_no_place_for_a_second() {
    let mut scene = Scene::new(1, 1);
    let (slow, _) = scene.asked();
    let actions = scene.is_late(8);
    assert_eq!(cancelled(&actions), [(slow, true)], "{actions:?}");
    assert!(!actions.contains(&Action::TryRoom));
}

#[test]
fn a_chunk_that_no_peer_lacks_makes_room_for_a_hedge() {
    let mut scene = Scene::new(2, 2);
    let asked = fetches(&scene.drain(START, 8));
    let (done, _) = asked[0];
    scene.swarm.handle_fetched(START, done);
    let actions = scene.drain(START, 8);
    let delivered = actions.iter().find_map(|action| match *action {
        Action::Deliver { chunk, peer, .. } => Some((chunk, peer)),
        _ => None,
    });
    let (free, peer) = delivered.expect("it is delivered");
    scene.swarm.handle_begun(START, peer, free);
    scene.swarm.handle_written(START, peer, free);
    scene.swarm.handle_have(START, peer, free);
    let mut rest = fetches(&scene.drain(START, 8));
    rest.extend(&asked[1..]);
    assert_eq!(rest.len(), 1, "the other chunk is under way");
    let (slow, holder) = rest[0];
    // Memory is short until that chunk goes.
    let actions = scene.is_late(0);
    let begin = [Action::TryRoom, Action::Evict { chunk: free }, Action::TryRoom];
    assert_eq!(actions[..3], begin);
    assert_eq!(cancelled(&actions), [], "{slow:?} may yet come");
    assert_eq!(fetches(&actions)[0].1, scene.other(holder));
}

#[test]
fn a_swarm_that_waits_for_memory_already_does_not_try_for_a_hedge() {
    let mut scene = Scene::new(2, 4);
    // There is room for one, and a second chunk is wanted.
    let actions = scene.drain(START, 1);
    let (slow, _) = fetches(&actions)[0];
    assert_eq!(actions.last(), Some(&Action::WantRoom), "{actions:?}");
    let actions = scene.is_late(0);
    assert!(!actions.contains(&Action::TryRoom), "{actions:?}");
    assert_eq!(cancelled(&actions), [(slow, true)]);
}

fn limits(fetches_max: u32, depth_max: u32, patience: Duration) -> crate::Limits {
    crate::Limits { fetches_max, depth_max, patience, holds_back: false }
}

#[test]
fn a_fetch_that_the_shells_own_limit_slows_is_not_late() {
    let mut scene = Scene::new(1, 8);
    scene.swarm.handle_limits(START, limits(8, 8, Duration::from_secs(100)));
    let (_, holder) = scene.asked();
    assert_eq!(fetches(&scene.is_late(8)), [], "it may take 100 s to read it");
    let later = START + Duration::from_secs(101);
    scene.swarm.handle_timeout(later);
    let hedged = fetches(&scene.drain(later, 8));
    assert_eq!(hedged.first().map(|&(_, slot)| slot), Some(scene.other(holder)));
}

#[test]
fn a_fetch_that_waited_behind_others_is_not_late_because_they_have_ended() {
    let mut scene = Scene::new(1, 8);
    scene.swarm.handle_limits(START, limits(8, 8, Duration::from_secs(1)));
    let (_, holder) = scene.asked();
    // Others ask for a lot, and that ends.
    scene.swarm.handle_limits(START, limits(8, 8, Duration::from_secs(100)));
    scene.swarm.handle_limits(LATE, limits(8, 8, Duration::from_secs(1)));
    assert_eq!(fetches(&scene.is_late(8)), [], "what is before it has yet to be read");
    scene.swarm.handle_limits(LATE, crate::Limits::default());
    let later = LATE + Duration::from_secs(2);
    scene.swarm.handle_timeout(later);
    let hedged = fetches(&scene.drain(later, 8));
    assert_eq!(hedged.first().map(|&(_, slot)| slot), Some(scene.other(holder)), "no limit holds");
}

#[test]
fn no_more_is_asked_for_at_once_than_limits_let_through() {
    let mut scene = Scene::new(8, 8);
    scene.swarm.handle_limits(START, limits(1, 1, Duration::ZERO));
    let first = fetches(&scene.drain(START, 8));
    assert_eq!(first.len(), 1);
    scene.swarm.handle_fetched(START, first[0].0);
    assert_eq!(fetches(&scene.drain(START, 8)).len(), 1, "one after the other");
    scene.swarm.handle_limits(START, crate::Limits::default());
    assert!(!fetches(&scene.drain(START, 8)).is_empty(), "without limits there are more at once");
}
