//! Two sides back to back over a path that loses, doubles, delays and reorders, in virtual time.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use relay_protocol::{
    Digest,
    limits::{
        DATAGRAM_ACK_DELAY_MAX, DATAGRAM_ACK_QUIET, DATAGRAM_ANSWER_TIMEOUT,
        DATAGRAM_KEEPALIVE_INTERVAL, DATAGRAM_SILENCE_TIMEOUT,
    },
    rng::Rng,
};

#[derive(Clone, Copy)]
struct Faults {
    loss_per_mille: u64,
    double_per_mille: u64,
    jitter_ms: u64,
    /// Nothing passes between these, in milliseconds.
    black_out: (u64, u64),
}

const CLEAN: Faults =
    Faults { loss_per_mille: 0, double_per_mille: 0, jitter_ms: 0, black_out: (0, 0) };

const PEER: Route =
    Route { socket: 0, remote: SocketAddr::new(std_ip(127, 0, 0, 1), 1000), local: None };
const RELAY: Route = Route { remote: SocketAddr::new(std_ip(127, 0, 0, 2), 7440), ..PEER };

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

const fn std_ip(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

struct World {
    now: Time,
    faults: Faults,
    chance: Rng,
    /// (when, order of sending) to (to the relay, source, bytes).
    wire: BTreeMap<(Time, u64), (bool, Route, Vec<u8>)>,
    sent: u64,
    sides: [Datagrams; 2],
    /// Where the peer's datagrams seem to come from.
    source: Route,
    received: [Vec<Message>; 2],
    takes: bool,
}

const RELAY_SIDE: usize = 0;
const PEER_SIDE: usize = 1;

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let side = |side: Side, route| {
            let keys = DatagramKeys::derive(&[1; 32]);
            let config =
                DatagramsConfig { side, shard: 1, connection: 77, keys, route, challenge_seed: 5 };
            Datagrams::new(config, Time::ZERO)
        };
        Self {
            now: Time::ZERO,
            faults,
            chance: Rng::new(seed, 0),
            wire: BTreeMap::new(),
            sent: 0,
            sides: [side(Side::Relay, None), side(Side::Peer, Some(RELAY))],
            source: PEER,
            received: [Vec::new(), Vec::new()],
            takes: true,
        }
    }

    fn transmit(&mut self) {
        for side in [RELAY_SIDE, PEER_SIDE] {
            let mut out = Vec::new();
            while let Some(route) = self.sides[side].poll_transmit(self.now, &mut out) {
                let bytes = std::mem::take(&mut out);
                assert!(bytes.len() <= relay_protocol::limits::DATAGRAM_BYTES_MAX);
                let to_relay = side == PEER_SIDE;
                if !to_relay && route != self.source {
                    continue; // No side is there any more.
                }
                self.carry(to_relay, &bytes);
            }
            self.sides[side].invariants();
            assert!(!self.sides[side].wants_transmit(self.now), "asked until there is none");
        }
    }

    fn carry(&mut self, to_relay: bool, bytes: &[u8]) {
        let millis = self.now.since(Time::ZERO).as_millis();
        let (from, until) = self.faults.black_out;
        if self.chance.below(1000) < self.faults.loss_per_mille
            || (u128::from(from)..u128::from(until)).contains(&millis)
        {
            return;
        }
        let copies = 1 + u32::from(self.chance.below(1000) < self.faults.double_per_mille);
        for _ in 0..copies {
            let jitter = self.chance.below(self.faults.jitter_ms * 1000 + 1);
            let at = self.now + Duration::from_micros(5_000 + jitter);
            self.sent += 1;
            let from = if to_relay { self.source } else { RELAY };
            self.wire.insert((at, self.sent), (to_relay, from, bytes.to_vec()));
        }
    }

    /// Until the next thing has happened.
    fn step(&mut self) -> Result<(), Silence> {
        self.transmit();
        let timer = self.sides.iter().map(Datagrams::poll_timeout).min().expect("two");
        let arrival = self.wire.first_key_value().map_or(timer, |(&(at, _), _)| at);
        let next = timer.min(arrival);
        assert!(next > self.now || next == arrival, "time goes on: {:?} {:?}", next, self.now);
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now
        {
            let (to_relay, from, bytes) = entry.remove();
            let side = if to_relay { RELAY_SIDE } else { PEER_SIDE };
            let received = &mut self.received[side];
            let mut take = |message| {
                received.push(message);
                Ok::<(), ()>(())
            };
            self.sides[side]
                .handle_datagram(self.now, from, &bytes, self.takes, &mut take)
                .expect("honest");
        }
        self.sides.iter_mut().try_for_each(|side| side.handle_timeout(self.now))
    }

    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..1_000_000 {
            if done(self) {
                return;
            }
            self.step().expect("heard");
        }
        panic!("it does not come to an end");
    }
}

fn have(chunk: u32) -> Message {
    Message::Have { ranges: vec![relay_protocol::ChunkRange { first: chunk, count: 1 }] }
}

/// A mixed conversation both ways; what came is checked against what was said.
fn check(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults);
    let count = 300_u32;
    for number in 0..count {
        world.sides[PEER_SIDE].push_control(&have(number));
        world.sides[PEER_SIDE].push_control(&Message::Progress {
            received_bytes: u64::from(number),
            granted_bytes: u64::from(number) + 1,
        });
        let fetch = Message::Fetch { fetch_id: number, chunk: number };
        world.sides[RELAY_SIDE].push_control(&fetch);
        let digests = vec![Digest([7; 32]); 32];
        let part = Message::ManifestPart { first_chunk: number * 32, digests };
        world.sides[RELAY_SIDE].push_control(&part);
        if number % 7 == 0 {
            world.step().expect("heard");
        }
    }
    world.run_until(|world| world.sides.iter().all(Datagrams::is_empty));
    let haves: Vec<_> =
        world.received[0].iter().filter(|m| matches!(m, Message::Have { .. })).cloned().collect();
    assert_eq!(haves, (0..count).map(have).collect::<Vec<_>>(), "seed {seed}");
    let last = world.received[0].iter().rev().find_map(|message| match message {
        Message::Progress { received_bytes, .. } => Some(*received_bytes),
        _ => None,
    });
    assert_eq!(last, Some(u64::from(count) - 1), "seed {seed}: the newest progress came last");
    let mut fetches = Vec::new();
    let mut parts = Vec::new();
    for message in &world.received[1] {
        match message {
            Message::Fetch { fetch_id, .. } => fetches.push(*fetch_id),
            Message::ManifestPart { first_chunk, .. } => parts.push(*first_chunk),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    fetches.sort_unstable();
    assert_eq!(fetches, (0..count).collect::<Vec<_>>(), "seed {seed}: each fetch once");
    assert_eq!(parts, (0..count).map(|n| n * 32).collect::<Vec<_>>(), "seed {seed}: in order");
    world
}

#[test]
fn on_a_clean_path_nothing_is_said_twice() {
    let world = check(1, CLEAN);
    for mut side in world.sides {
        assert_eq!(side.take_resent(), 0);
    }
}

#[test]
fn every_message_arrives_once_whatever_the_path_loses_doubles_and_reorders() {
    for seed in 0..60 {
        for (loss_per_mille, jitter_ms) in [(1, 0), (10, 3), (50, 20), (200, 40)] {
            let faults = Faults { loss_per_mille, double_per_mille: 50, jitter_ms, ..CLEAN };
            check(seed, faults);
        }
    }
}

#[test]
fn a_black_out_of_ten_seconds_is_outlasted() {
    let world = check(3, Faults { black_out: (40, 10_040), ..CLEAN });
    let elapsed = world.now.since(Time::ZERO);
    assert!(elapsed < Duration::from_secs(13), "{elapsed:?}: the path is found again soon");
    assert!(world.sent < 2_000, "{}: and not hammered meanwhile", world.sent);
}

#[test]
fn a_peer_whose_address_changes_is_found_again() {
    let mut world = World::new(1, CLEAN);
    world.sides[RELAY_SIDE].push_control(&Message::SeedingDone);
    world.run_until(|world| world.received[PEER_SIDE].len() == 1);
    world.source = Route { remote: SocketAddr::new(std_ip(127, 0, 0, 9), 9), ..PEER };
    world.sides[RELAY_SIDE].push_control(&Message::LeaveGranted);
    world.sides[PEER_SIDE].push_control(&Message::Leaving);
    world.run_until(|world| {
        world.received[PEER_SIDE].len() == 2 && world.received[RELAY_SIDE].len() == 1
    });
    assert!(world.now.since(Time::ZERO) < Duration::from_secs(2), "{:?}", world.now);
}

#[test]
fn nothing_but_small_challenges_goes_to_an_unproven_address() {
    let mut world = World::new(1, CLEAN);
    for number in 0..50 {
        world.sides[RELAY_SIDE].push_control(&have(number));
    }
    let mut out = Vec::new();
    assert_eq!(world.sides[RELAY_SIDE].poll_transmit(Time::ZERO, &mut out), None);
    let mut hello = Vec::new();
    world.sides[PEER_SIDE].poll_transmit(Time::ZERO, &mut hello).expect("a ping");
    let mut ignore = |_| Ok::<(), ()>(());
    let relay = &mut world.sides[RELAY_SIDE];
    let received = relay.handle_datagram(Time::ZERO, PEER, &hello, true, &mut ignore);
    assert_eq!(received.expect("sealed"), Received::Taken);
    let mut challenges = 0;
    for millis in 0..10_000 {
        let now = Time::from_start(Duration::from_millis(millis));
        out.clear();
        while relay.poll_transmit(now, &mut out).is_some() {
            assert!(out.len() < 64, "a challenge is small");
            out.clear();
            challenges += 1;
        }
    }
    assert!(challenges <= 16, "{challenges}");
}

#[test]
fn what_is_forged_or_replayed_changes_nothing_and_is_not_answered() {
    let mut world = World::new(1, CLEAN);
    world.sides[PEER_SIDE].push_control(&Message::Leaving);
    let mut hello = Vec::new();
    world.sides[PEER_SIDE].poll_transmit(Time::ZERO, &mut hello).expect("a ping");
    let mut count = 0;
    let mut take = |_| {
        count += 1;
        Ok::<(), ()>(())
    };
    let relay = &mut world.sides[RELAY_SIDE];
    for at in 0..hello.len() {
        let mut forged = hello.clone();
        forged[at] ^= 0x10;
        let received = relay.handle_datagram(Time::ZERO, PEER, &forged, true, &mut take);
        // The first byte steers; the seal covers it all the same.
        assert_eq!(received.expect("ignored"), Received::Forged, "byte {at}");
    }
    let mut out = Vec::new();
    assert!(!relay.has_heard());
    assert_eq!(relay.poll_transmit(Time::ZERO, &mut out), None);
    let received = relay.handle_datagram(Time::ZERO, PEER, &hello, true, &mut take);
    assert_eq!(received.expect("sealed"), Received::Taken);
    let elsewhere = Route { remote: SocketAddr::new(std_ip(10, 0, 0, 1), 1), ..PEER };
    let received = relay.handle_datagram(Time::ZERO, elsewhere, &hello, true, &mut take);
    assert_eq!(received.expect("ignored"), Received::Replayed);
    assert_eq!(count, 1);
    assert_eq!(relay.poll_transmit(Time::ZERO, &mut out), Some(PEER), "not elsewhere");
}

#[test]
fn a_side_that_takes_no_messages_gets_them_later() {
    let mut world = World::new(1, CLEAN);
    world.takes = false;
    (0..100).for_each(|number| world.sides[PEER_SIDE].push_control(&have(number)));
    while world.now < Time::from_start(Duration::from_secs(5)) {
        world.step().expect("heard");
    }
    assert!(world.received[RELAY_SIDE].is_empty());
    world.takes = true;
    world.run_until(|world| world.sides[PEER_SIDE].is_empty());
    assert_eq!(world.received[RELAY_SIDE].len(), 100);
}

#[test]
fn an_idle_path_is_kept_alive_and_a_dead_one_noticed() {
    let mut world = World::new(1, CLEAN);
    while world.now < Time::from_start(Duration::from_secs(100)) {
        world.step().expect("kept alive");
    }
    assert!(world.sent < 40, "{}", world.sent);
    world.faults.loss_per_mille = 1000;
    let since = world.now;
    let silence = loop {
        if let Err(silence) = world.step() {
            break silence;
        }
    };
    assert_eq!(silence, Silence::Ceased(DATAGRAM_SILENCE_TIMEOUT));
    assert!(world.now.since(since) <= DATAGRAM_SILENCE_TIMEOUT + DATAGRAM_KEEPALIVE_INTERVAL);
}

#[test]
fn a_peer_that_stood_still_asks_again_before_it_gives_up() {
    let mut world = World::new(1, CLEAN);
    world.transmit();
    world.wire.clear();
    world.now = Time::ZERO + DATAGRAM_ANSWER_TIMEOUT * 2;
    world.sides.iter_mut().for_each(|side| side.handle_timeout(world.now).expect("it asks again"));
    world.run_until(|world| world.sides[PEER_SIDE].has_heard());
}

#[test]
fn a_peer_that_nobody_answers_says_so_after_three_seconds() {
    let mut world = World::new(1, Faults { loss_per_mille: 1000, ..CLEAN });
    let silence = loop {
        if let Err(silence) = world.step() {
            break silence;
        }
    };
    assert_eq!(silence, Silence::Unanswered(DATAGRAM_ANSWER_TIMEOUT));
    assert_eq!(world.now, Time::ZERO + DATAGRAM_ANSWER_TIMEOUT);
}

/// When the relay acknowledges a peer that says something so often, and how many it sends for `count`.
fn acknowledgements(count: u32, every: Duration) -> (Duration, usize) {
    let mut world = World::new(1, CLEAN);
    world.sides[PEER_SIDE].push_control(&have(0));
    world.run_until(|world| world.sides[PEER_SIDE].is_empty());
    let (start, before) = (world.now, world.sides[RELAY_SIDE].packets.next_number());
    for number in 1..=count {
        world.sides[PEER_SIDE].push_control(&have(number));
        let next = start + every * number;
        world.run_until(|world| {
            let timers = world.sides.iter().map(Datagrams::poll_timeout);
            let arrival = world.wire.first_key_value().map(|(&(at, _), _)| at);
            let wants = world.sides.iter().any(|side| side.wants_transmit(world.now));
            !wants && timers.chain(arrival).min().is_none_or(|at| at > next)
        });
        world.now = world.now.max(next);
    }
    world.run_until(|world| world.sides[PEER_SIDE].is_empty());
    let acks = world.sides[RELAY_SIDE].packets.next_number() - before;
    (world.now.since(start), usize::try_from(acks).expect("few"))
}

#[test]
fn in_a_flow_one_acknowledgement_tells_of_many_and_what_is_alone_waits_little() {
    let millis = Duration::from_millis;
    let (_, acks) = acknowledgements(80, millis(2));
    assert!((10..=12).contains(&acks), "{acks}: one for eight");
    let (_, acks) = acknowledgements(80, millis(9));
    assert!((15..=21).contains(&acks), "{acks}: one for each {DATAGRAM_ACK_DELAY_MAX:?}");
    let (elapsed, acks) = acknowledgements(1, Duration::ZERO);
    assert_eq!(acks, 1);
    assert_eq!(elapsed, millis(5) + DATAGRAM_ACK_QUIET + millis(5), "there, and back");
}
