//! Both halves of the data channel over a path that loses, delays, doubles and reorders, in virtual
//! time: whatever happens, every chunk arrives byte for byte, and nothing is counted wrongly.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;

use super::{CongestionControl, DataOut, RangeSet};
use crate::{Datagrams, DatagramsConfig, Payload, Route, SendEvent};
use relay_protocol::{
    DataPieceHeader, DatagramKeys, Message, PacketRange, Side, rng::Rng, time::Time,
};

const CHUNK: usize = 200_000;

/// What the path does.
#[derive(Clone, Copy, Default)]
struct Weather {
    lost_percent: u64,
    doubled_percent: u64,
    delay_millis: u64,
    jitter_millis: u64,
    datagram_bytes_max: Option<usize>,
    /// Bytes a millisecond; what would wait for more than 50 ms is lost.
    rate: Option<u64>,
    /// Nothing comes through in this time.
    dark: Option<(u64, u64)>,
    /// So often the relay's socket has no room, for a millisecond.
    full_percent: u64,
    /// Nothing of this chunk comes through.
    lost_chunk: Option<u32>,
    control: CongestionControl,
    /// What the peer's socket holds, if it is not little.
    room_bytes: Option<u32>,
}

/// What is due first comes first: (when, order, what).
type Due<T> = BinaryHeap<Reverse<(Time, u64, T)>>;

/// A relay that sends, a peer that receives, and the path between them.
struct World {
    now: Time,
    random: Rng,
    weather: Weather,
    relay: Datagrams,
    peer: Datagrams,
    /// Whether to the peer, and a datagram.
    under_way: Due<(bool, Vec<u8>)>,
    acks: Due<()>,
    ack_messages: BTreeMap<u64, Message>,
    free_at: Time,
    writable_at: Option<Time>,
    sequence: u64,
    chunks: BTreeMap<u32, (Vec<u8>, RangeSet)>,
    received_bytes: u64,
    events: Vec<SendEvent>,
    longest: usize,
    dropped: u64,
}

fn route(port: u16) -> Route {
    Route { socket: 0, remote: ([127, 0, 0, 1], port).into(), local: None }
}

fn content(chunk: u32) -> Bytes {
    let mut bytes = vec![0; CHUNK];
    blake3::Hasher::new().update(&chunk.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let now = Time::from_start(Duration::from_secs(1));
        let end = |side, route| {
            let keys = DatagramKeys::derive(&[7; 32]);
            let config =
                DatagramsConfig { side, shard: 0, connection: 1, keys, route, challenge_seed: 5 };
            let mut end = Datagrams::new(config, now);
            end.open_data(weather.control, weather.room_bytes.unwrap_or(200_000));
            end
        };
        Self {
            now,
            random: Rng::new(seed, 0),
            weather,
            relay: end(Side::Relay, None),
            peer: end(Side::Peer, Some(route(1))),
            under_way: BinaryHeap::new(),
            acks: BinaryHeap::new(),
            ack_messages: BTreeMap::new(),
            free_at: now,
            writable_at: None,
            sequence: 0,
            chunks: BTreeMap::new(),
            received_bytes: 0,
            events: Vec::new(),
            longest: 0,
            dropped: 0,
        }
    }

    fn push(&mut self, chunk: u32) {
        let payload = Payload::with_crcs_of(chunk, content(chunk));
        self.relay.data_mut().expect("opened").push(payload, chunk, 0);
    }

    fn millis(&self) -> u64 {
        self.now.0 / 1_000_000 - 1000
    }

    fn send(&mut self, to_peer: bool, bytes: &[u8]) {
        let weather = self.weather;
        self.longest = self.longest.max(bytes.len());
        let is_dark = weather.dark.is_some_and(|(from, to)| (from..to).contains(&self.millis()));
        let is_long = weather.datagram_bytes_max.is_some_and(|most| bytes.len() > most);
        let mut due = self.now + Duration::from_millis(weather.delay_millis);
        let mut is_late = false;
        if let Some(rate) = weather.rate.filter(|_| to_peer) {
            is_late = self.free_at > self.now + Duration::from_millis(50);
            if !is_late && !is_long {
                let time = Duration::from_micros(bytes.len() as u64 * 1000 / rate);
                self.free_at = self.free_at.max(self.now) + time;
                due = self.free_at + Duration::from_millis(weather.delay_millis);
            }
        }
        let is_of = |chunk: u32| bytes[1] == 2 && bytes[20..24] == chunk.to_le_bytes();
        let is_unlucky = weather.lost_chunk.is_some_and(is_of);
        if is_dark
            || is_long
            || is_late
            || is_unlucky
            || self.random.below(100) < weather.lost_percent
        {
            self.dropped += 1;
            return;
        }
        let copies = 1 + u64::from(self.random.below(100) < weather.doubled_percent);
        for _ in 0..copies {
            let jitter = Duration::from_micros(self.random.below(weather.jitter_millis * 1000 + 1));
            self.sequence += 1;
            let datagram = (to_peer, bytes.to_vec());
            self.under_way.push(Reverse((due + jitter, self.sequence, datagram)));
        }
    }

    /// Both ends say what they have to say.
    fn transmit(&mut self) {
        let mut out = Vec::new();
        while self.relay.poll_transmit(self.now, &mut out).is_some() {
            self.send(true, &out);
            out.clear();
        }
        while self.peer.poll_transmit(self.now, &mut out).is_some() {
            self.send(false, &out);
            out.clear();
        }
        while let Some(transmit) = self.relay.poll_data(self.now, u64::MAX, 16, &mut out) {
            if self.random.below(100) < self.weather.full_percent {
                self.relay.data_mut().expect("opened").handle_unsent(transmit.first);
                self.relay.data().expect("opened").invariants();
                self.writable_at = Some(self.now + Duration::from_millis(1));
                out.clear();
                assert!(!self.relay.wants_data(self.now, u64::MAX), "until there is room");
                break;
            }
            for datagram in out.chunks(transmit.segment_bytes) {
                self.send(true, datagram);
            }
            out.clear();
        }
        while let Some(ack) = self.peer.poll_data_ack() {
            self.sequence += 1;
            let due = self.now + Duration::from_millis(self.weather.delay_millis);
            self.acks.push(Reverse((due, self.sequence, ())));
            self.ack_messages.insert(self.sequence, ack);
        }
        while let Some(event) = self.relay.data_mut().expect("opened").poll_event() {
            self.events.push(event);
        }
        self.relay.data().expect("opened").invariants();
    }

    /// The next thing that happens.
    fn step(&mut self) {
        self.transmit();
        let arrives = self.under_way.peek().map(|Reverse((due, ..))| *due);
        let acked = self.acks.peek().map(|Reverse((due, ..))| *due);
        let timers = [self.relay.poll_timeout(), self.peer.poll_timeout()];
        let writable = self.writable_at;
        let next = arrives.into_iter().chain(acked).chain(timers).chain(writable).min();
        self.now = self.now.max(next.expect("timers"));
        if self.writable_at.take_if(|at| *at <= self.now).is_some() {
            self.relay.data_mut().expect("opened").handle_writable();
        }
        while self.under_way.peek().is_some_and(|Reverse((due, ..))| *due <= self.now) {
            let Some(Reverse((_, _, (to_peer, datagram)))) = self.under_way.pop() else { break };
            self.arrive(to_peer, &datagram);
        }
        while let Some(&Reverse((due, sequence, ()))) = self.acks.peek() {
            if due > self.now {
                break;
            }
            self.acks.pop();
            if let Some(Message::DataAck { room_bytes, ranges }) =
                self.ack_messages.remove(&sequence)
            {
                let data = self.relay.data_mut().expect("opened");
                data.handle_acked(self.now, room_bytes, &ranges);
            }
        }
        self.relay.handle_timeout(self.now).expect("not silent for long");
        self.peer.handle_timeout(self.now).expect("not silent for long");
    }

    fn arrive(&mut self, to_peer: bool, datagram: &[u8]) {
        let mut no_message = |_| Ok::<(), ()>(());
        if !to_peer {
            self.relay
                .handle_datagram(self.now, route(2), datagram, true, &mut no_message)
                .expect("well-formed");
            return;
        }
        let (chunks, received) = (&mut self.chunks, &mut self.received_bytes);
        let mut take = |piece: DataPieceHeader, bytes: &[u8]| {
            let (held, ranges) =
                chunks.entry(piece.tag).or_insert_with(|| (vec![0; CHUNK], RangeSet::new()));
            let end = piece.offset as usize + bytes.len();
            held[piece.offset as usize..end].copy_from_slice(bytes);
            ranges.insert(piece.offset..u32::try_from(end).expect("small"));
            *received += bytes.len() as u64;
            Ok::<(), ()>(())
        };
        let is_data = datagram[1] == 2;
        if is_data {
            self.peer.handle_data(self.now, route(1), datagram, &mut take).expect("well-formed");
        } else {
            self.peer
                .handle_datagram(self.now, route(1), datagram, true, &mut no_message)
                .expect("well-formed");
        }
    }

    fn is_done(&self) -> bool {
        self.relay.data().expect("opened").is_empty()
    }

    /// Runs until everything that was pushed has arrived.
    fn run(&mut self) {
        for _ in 0..2_000_000 {
            if self.is_done() {
                self.transmit();
                return;
            }
            self.step();
        }
        panic!("it does not end: {:?}", self.relay.data());
    }

    fn assert_whole(&self, chunk: u32) {
        let (held, ranges) = &self.chunks[&chunk];
        assert!(ranges.covers(&(0..u32::try_from(CHUNK).expect("small"))));
        assert!(held[..] == content(chunk)[..], "chunk {chunk}");
    }
}

fn all_arrives(seed: u64, weather: Weather) -> World {
    let mut world = World::new(seed, weather);
    (0..10).for_each(|chunk| world.push(chunk));
    world.run();
    (0..10).for_each(|chunk| world.assert_whole(chunk));
    let finished = (0..10).map(|chunk| SendEvent::Finished { chunk, tag: chunk });
    let is_finished = |event: &&SendEvent| matches!(event, SendEvent::Finished { .. });
    let told: Vec<SendEvent> = world.events.iter().filter(is_finished).copied().collect();
    assert!(told.into_iter().eq(finished), "{:?}", world.events);
    let counts = world.relay.data().expect("opened").counts();
    assert!(counts.resent_bytes <= counts.lost_bytes, "only what was lost: {counts:?}");
    assert_eq!(counts.sent_bytes, counts.resent_bytes + 10 * CHUNK as u64, "{counts:?}");
    world
}

#[test]
fn everything_arrives_whatever_the_path_does() {
    for seed in 0..40 {
        let mut random = Rng::new(seed, 0);
        let weather = Weather {
            lost_percent: [0, 1, 5, 20, 40][usize::try_from(random.below(5)).expect("five")],
            doubled_percent: random.below(30),
            delay_millis: random.below(60),
            jitter_millis: random.below(40),
            datagram_bytes_max: [None, Some(1200), Some(1452), Some(9000)]
                [usize::try_from(random.below(4)).expect("four")],
            rate: [None, Some(1_000), Some(20_000)]
                [usize::try_from(random.below(3)).expect("three")],
            dark: (random.below(100) < 30).then(|| (100, 100 + random.below(10_000))),
            control: [CongestionControl::Cubic, CongestionControl::Bbr]
                [usize::try_from(random.below(2)).expect("two")],
            lost_chunk: None,
            room_bytes: None,
            full_percent: [0, 0, 10, 60][usize::try_from(random.below(4)).expect("four")],
        };
        println!("seed {seed}");
        all_arrives(seed, weather);
    }
}

#[test]
fn a_clear_path_loses_nothing_and_nothing_is_sent_twice() {
    let world = all_arrives(1, Weather { delay_millis: 5, ..Weather::default() });
    assert_eq!(world.relay.data().expect("opened").counts().resent_bytes, 0);
    assert_eq!(world.longest, super::mtu::LONGEST_BYTES, "datagrams grow to what the path takes");
}

#[test]
fn what_the_system_has_no_room_for_counts_neither_as_sent_nor_as_lost() {
    let world = all_arrives(1, Weather { delay_millis: 5, full_percent: 50, ..Weather::default() });
    let counts = world.relay.data().expect("opened").counts();
    assert_eq!((counts.lost_bytes, counts.resent_bytes), (0, 0));
    assert_eq!(world.received_bytes, counts.sent_bytes);
}

#[test]
fn a_bottleneck_is_used_well_and_not_flooded() {
    // 10 MB/s; a path that is long, and one where all of the round trip is the queue's.
    for (control, delay_millis) in [
        (CongestionControl::Cubic, 20),
        (CongestionControl::Cubic, 0),
        (CongestionControl::Bbr, 20),
        (CongestionControl::Bbr, 0),
    ] {
        let weather = Weather { rate: Some(10_000), delay_millis, ..Weather::default() };
        let weather = Weather { room_bytes: Some(2 << 20), ..weather };
        let weather = Weather { control, datagram_bytes_max: Some(1452), ..weather };
        let mut world = World::new(1, weather);
        (0..200).for_each(|chunk| world.push(chunk));
        world.run();
        let took = world.now.since(Time::from_start(Duration::from_secs(1))).as_secs_f64();
        let ideal = 200.0 * CHUNK as f64 / 10e6;
        let path = format!("{control:?}, {delay_millis} ms");
        assert!(took < 1.15 * ideal, "{path}: {took} s, {ideal} s would do");
        let counts = world.relay.data().expect("opened").counts();
        assert!(counts.lost_bytes < counts.sent_bytes / 20, "{path}: {counts:?}");
    }
}

#[test]
fn what_is_recalled_is_sent_no_more_and_all_before_the_cut_has_arrived() {
    for seed in 0..20 {
        let weather = Weather { lost_percent: 20, delay_millis: 5, ..Weather::default() };
        let mut world = World::new(seed, weather);
        let payload = Payload::with_crcs_of(0, content(0));
        world.relay.data_mut().expect("opened").push(Rc::clone(&payload), 0, 0);
        world.push(1);
        for _ in 0..20 + seed * 5 {
            world.step();
        }
        let Some(cut) = world.relay.data_mut().expect("opened").recall(0) else { continue };
        assert!(payload.withdraw());
        let is_there = |world: &World| {
            let ranges = world.chunks.get(&0).map(|(_, ranges)| ranges.clone());
            cut.reached_bytes == 0 || ranges.is_some_and(|r| r.covers(&(0..cut.reached_bytes)))
        };
        assert!(is_there(&world), "seed {seed}: {cut:?}");
        assert_eq!(cut.reached_bytes % (16 << 10), 0);
        world.run();
        world.assert_whole(1);
    }
}

#[test]
fn what_was_lost_is_told_so_that_a_window_can_be_kept() {
    let weather = Weather { lost_percent: 20, delay_millis: 5, ..Weather::default() };
    let mut world = World::new(3, weather);
    (0..10).for_each(|chunk| world.push(chunk));
    world.run();
    // Everything is acknowledged: what was sent has arrived or was told to be lost, and what was
    // thought to be lost and came after all is little.
    let data = world.relay.data_mut().expect("opened");
    let under_way = data.counts().sent_bytes - data.take_lost_bytes();
    assert!(under_way <= world.received_bytes, "{under_way} of {}", world.received_bytes);
    assert!(under_way >= 10 * CHUNK as u64 * 9 / 10);
}

#[test]
fn what_is_cut_off_keeps_no_other_send_from_finishing() {
    let mut world = World::new(1, Weather { delay_millis: 5, ..Weather::default() });
    (0..3).for_each(|chunk| world.push(chunk));
    world.transmit();
    world.relay.data_mut().expect("opened").recall(0).expect("it is under way");
    world.run();
    let finished = |chunk| SendEvent::Finished { chunk, tag: chunk };
    assert!(!world.events.contains(&finished(0)));
    assert!(world.events.ends_with(&[finished(1), finished(2)]), "{:?}", world.events);
}

#[test]
fn what_its_receiver_has_spoken_of_is_sent_no_more_and_what_was_sent_counts() {
    let mut world = World::new(1, Weather { delay_millis: 5, ..Weather::default() });
    (0..30).for_each(|chunk| world.push(chunk));
    (0..12).for_each(|_| world.step());
    let data = world.relay.data_mut().expect("opened");
    let sent_bytes = data.counts().sent_bytes;
    assert!(sent_bytes > 0 && sent_bytes < 30 * CHUNK as u64, "some of it: {sent_bytes}");
    // What has finished already is whole.
    let reached =
        |chunk| data.drop_rest(chunk).map_or(CHUNK as u64, |cut| cut.reached_bytes.into());
    let reached: u64 = (0..30).map(reached).sum();
    assert_eq!(reached, sent_bytes, "all that is under way counts as sent");
    assert!(data.is_empty(), "no chunk is kept for what may come of it");
    // More than what is under way takes to arrive.
    (0..100).for_each(|_| world.step());
    assert_eq!(world.received_bytes, sent_bytes, "and no more of it is sent");
}

#[test]
fn a_send_that_has_arrived_finishes_when_the_one_before_it_is_cut_off() {
    let mut world = World::new(1, Weather { delay_millis: 5, ..Weather::default() });
    // Until so much may be under way that the second does not wait for the first.
    (2..30).for_each(|chunk| world.push(chunk));
    world.run();
    world.weather.lost_chunk = Some(0);
    (0..2).for_each(|chunk| world.push(chunk));
    let whole = |(_, ranges): &(Vec<u8>, RangeSet)| ranges.len_bytes() == CHUNK as u64;
    for _ in 0..2_000 {
        if world.chunks.get(&1).is_some_and(whole) {
            break;
        }
        world.step();
    }
    world.assert_whole(1);
    // So that this is acknowledged, too.
    (0..50).for_each(|_| world.step());
    let finished = SendEvent::Finished { chunk: 1, tag: 1 };
    assert!(!world.events.contains(&finished), "the first holds it back: {:?}", world.events);
    world.relay.data_mut().expect("opened").recall(0).expect("it is under way");
    world.transmit();
    assert!(world.events.contains(&finished), "{:?}", world.events);
    assert!(world.is_done());
}

#[test]
fn a_sender_that_is_told_of_no_room_sends_nothing_until_it_is_told_of_some() {
    let mut out = DataOut::new(CongestionControl::Cubic);
    out.push(Payload::with_crcs_of(0, vec![7; CHUNK].into()), 0, 0);
    let mut now = Time::from_start(Duration::from_secs(1));
    let piece = out.peek_piece(now, u64::MAX).expect("the path takes one");
    out.handle_sent(now, 0, 1200, &piece);
    let all = [PacketRange { first: 0, count: 1 }];
    now = now + Duration::from_millis(1);
    out.handle_acked(now, 0, &all);
    for _ in 0..100 {
        now = now + Duration::from_secs(1);
        out.handle_timeout(now);
        assert!(out.peek_piece(now, u64::MAX).is_none() && out.poll_probe(now).is_none());
    }
    assert_eq!(out.counts().lost_bytes, 0, "what came was not lost");
    out.handle_acked(now, 1, &all);
    assert!(out.peek_piece(now, u64::MAX).is_some());
}
