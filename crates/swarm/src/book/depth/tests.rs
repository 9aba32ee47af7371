//! A holder behind a path, in virtual time: how many fetches it has, and what it supplies.

use std::collections::VecDeque;

use super::*;

const CHUNK_BYTES: u32 = 256 << 10;
const SECOND: u64 = 1_000_000_000;
const MBIT_1000: f64 = 125_000_000.0;

/// A holder that answers in order, at a rate, over a path; a peer always wants more.
struct Scene {
    now: Time,
    rate: f64,
    round_trip: Duration,
    /// When its link has carried all that it was asked for.
    free_at: Time,
    /// Of each fetch under way, when it started and when it is answered.
    under_way: VecDeque<(Time, Time)>,
    supplied: u32,
    depth: Depth,
}

impl Scene {
    fn new(rate: f64, round_trip_ms: u64) -> Self {
        Self {
            now: Time(SECOND),
            rate,
            round_trip: Duration::from_millis(round_trip_ms),
            free_at: Time::ZERO,
            under_way: VecDeque::new(),
            supplied: 0,
            depth: Depth::default(),
        }
    }

    fn fetches(&self) -> u32 {
        self.depth.fetches(CHUNK_BYTES)
    }

    /// Runs on; the part of what the link carries that was supplied meanwhile.
    fn run(&mut self, time: Duration) -> f64 {
        let (end, before) = (self.now + time, self.supplied);
        loop {
            while self.under_way.len() < self.fetches() as usize {
                let asked_at = self.now + self.round_trip / 2;
                let takes = Duration::from_secs_f64(f64::from(CHUNK_BYTES) / self.rate);
                self.free_at = self.free_at.max(asked_at) + takes;
                self.under_way.push_back((self.now, self.free_at + self.round_trip / 2));
                let outstanding = u32::try_from(self.under_way.len()).expect("few");
                self.depth.handle_started(self.now, outstanding);
            }
            let Some(&(started_at, answered_at)) = self.under_way.front() else { break };
            if answered_at > end {
                break;
            }
            self.under_way.pop_front();
            self.now = self.now.max(answered_at);
            self.supplied += 1;
            self.depth.handle_answered(self.now, started_at, CHUNK_BYTES, CHUNK_BYTES);
        }
        self.now = end;
        let bytes = f64::from(self.supplied - before) * f64::from(CHUNK_BYTES);
        bytes / (self.rate * time.as_secs_f64())
    }

    fn seconds(&mut self, seconds: u64) -> f64 {
        self.run(Duration::from_secs(seconds))
    }
}

#[test]
fn depth_doubles_each_round_trip_until_the_path_is_full() {
    for round_trip_ms in [100, 300] {
        let mut scene = Scene::new(MBIT_1000, round_trip_ms);
        let path = MBIT_1000 * scene.round_trip.as_secs_f64() / f64::from(CHUNK_BYTES);
        let mut before = scene.fetches();
        while f64::from(before) < path {
            let takes = f64::from(before) * f64::from(CHUNK_BYTES) / MBIT_1000;
            scene.run(scene.round_trip + Duration::from_secs_f64(takes + 0.001));
            let depth = scene.fetches();
            assert!(depth >= 2 * before || f64::from(depth) >= path, "{before}, then {depth}");
            before = depth;
        }
        assert!(scene.seconds(20) > 0.95, "{round_trip_ms} ms");
        let queue = MBIT_1000 * QUEUE_SECONDS / f64::from(CHUNK_BYTES);
        assert!(f64::from(scene.fetches()) <= path + queue + 3.0, "{}", scene.fetches());
    }
}

#[test]
fn a_slow_uplink_has_one_fetch_under_way_and_one_to_go_on_with() {
    for (rate, round_trip_ms, most) in [(100e3, 1, 2), (1e6, 1, 2), (1e6, 100, 2), (5e6, 300, 8)] {
        let mut scene = Scene::new(rate, round_trip_ms);
        scene.seconds(30);
        assert!(scene.fetches() <= most, "{rate}, {round_trip_ms} ms: {}", scene.fetches());
        assert!(scene.seconds(30) > 0.9, "{rate}, {round_trip_ms} ms");
    }
}

#[test]
fn a_holder_near_by_has_no_more_than_a_path_needs() {
    let mut scene = Scene::new(1e9, 0);
    scene.seconds(25);
    assert!((8..=40).contains(&scene.fetches()), "{}", scene.fetches());
    assert!(scene.seconds(5) > 0.95);
}

#[test]
fn a_queue_shrinks_what_is_asked_for_and_a_longer_path_raises_it_again() {
    let mut scene = Scene::new(MBIT_1000, 100);
    scene.seconds(5);
    let wide = scene.fetches();
    scene.rate /= 10.0;
    scene.seconds(10);
    assert!(scene.fetches() < wide / 4, "{wide}, then {}", scene.fetches());
    scene.round_trip = Duration::from_millis(300);
    scene.seconds(30);
    assert!(scene.seconds(10) > 0.9, "{} fetches", scene.fetches());
}

#[test]
fn the_only_holder_of_the_file_is_asked_at_once_for_what_a_long_path_holds() {
    let round_trip = Duration::from_millis(300);
    let mut scene = Scene::new(MBIT_1000, 300);
    scene.depth.handle_sole(round_trip, CHUNK_BYTES, 512);
    let first = scene.fetches();
    assert!(first >= 140, "{first}");
    assert!(scene.seconds(3) > 0.85);
    // Much too much for a slow one: that is asked for once.
    let mut slow = Scene::new(1e6, 300);
    slow.depth.handle_sole(round_trip, CHUNK_BYTES, 512);
    slow.seconds(90);
    assert!(slow.fetches() <= 3, "{}", slow.fetches());
    // And never more than may be at one holder, nor on a short path.
    let mut small = Depth::default();
    small.handle_sole(round_trip, CHUNK_BYTES, 8);
    assert_eq!(small.fetches(CHUNK_BYTES), 8);
    let mut near = Depth::default();
    near.handle_sole(Duration::from_millis(1), CHUNK_BYTES, 512);
    assert_eq!(near.fetches(CHUNK_BYTES), DEPTH_UNKNOWN);
}

#[test]
fn a_holder_that_answers_as_late_as_it_likes_has_what_the_limit_allows_at_most() {
    let mut depth = Depth::default();
    for step in 1..1000 {
        depth.handle_started(Time(step * SECOND), 300);
        depth.handle_answered(Time((step + 30) * SECOND), Time(step * SECOND), u32::MAX, 1 << 10);
        assert!(depth.fetches(1 << 10) as usize <= FETCHES_PER_PEER_MAX);
    }
}

#[test]
fn a_fetch_behind_others_is_in_its_turn_while_its_holder_answers() {
    let mut scene = Scene::new(1e6, 100);
    scene.seconds(60);
    let silence_max = Duration::from_secs(1);
    let queued = 20.0 * f64::from(CHUNK_BYTES);
    let (now, depth) = (scene.now, &scene.depth);
    let ago = |seconds| now - Duration::from_secs(seconds);
    assert!(depth.is_in_turn(now, ago(4), queued, silence_max), "it takes five seconds");
    assert!(!depth.is_in_turn(now, ago(4), queued / 20.0, silence_max));
    assert!(!depth.is_in_turn(now, ago(20), queued, silence_max), "it is long overdue");
    let later = now + Duration::from_secs(3);
    assert!(!depth.is_in_turn(later, ago(1), queued, silence_max), "the holder is silent");
    assert!(!Depth::default().is_in_turn(now, now, queued, silence_max), "nothing is known");
}
