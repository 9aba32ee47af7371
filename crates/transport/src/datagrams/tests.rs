//! Two ends over a network that loses, repeats, reorders and readdresses on demand, in virtual time.

use core::net::SocketAddr;
use std::{convert::Infallible, rc::Rc, time::Duration};

use super::{exercise::config, *};
use crate::{exercise::relay_identity, payload::Payload, send_queue::SendEvent};
use relay_protocol::{DataPieceHeader, limits::DATAGRAM_SILENCE_TIMEOUT, rng::Rng};

const MS: Duration = Duration::from_millis(1);
const PEER: &str = "10.0.0.1:1000";
const ELSEWHERE: &str = "10.0.0.9:9000";
const RELAY: &str = "10.0.0.2:2000";

/// What one end has heard.
#[derive(Default)]
struct Heard {
    messages: Vec<Message>,
    pieces: Vec<(DataPieceHeader, Vec<u8>)>,
    ignored: u32,
    discarded: u64,
}

impl Heard {
    /// The bytes of a send, by where they lie in the chunk.
    fn bytes(&self, tag: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (header, piece) in self.pieces.iter().filter(|(header, _)| header.tag == tag) {
            bytes[header.offset as usize..][..piece.len()].copy_from_slice(piece);
        }
        bytes
    }
}

/// A network between both ends.
struct World {
    relay: Datagrams,
    peer: Datagrams,
    heard: [Heard; 2],
    now: Time,
    /// Each end's datagrams on their way, with the time of arrival: to the peer, to the relay.
    ways: [Vec<(Time, Vec<u8>)>; 2],
    rng: Rng,
    /// How many of a thousand are lost, and come later than those after them.
    loss_permille: u64,
    reorder_permille: u64,
    peer_at: SocketAddr,
    to_relay_bytes: u64,
    to_peer_bytes: u64,
    /// Takes a datagram to the relay away, or alters it.
    tamper: fn(&mut Vec<u8>) -> bool,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn route(remote: SocketAddr) -> Route {
    Route { socket: 0, remote, local: None }
}

impl World {
    fn new(channel: Channel, seed: u64) -> Self {
        Self::with(&config(channel), &config(channel), seed)
    }

    fn with(relay: &DatagramsConfig, peer: &DatagramsConfig, seed: u64) -> Self {
        let now = Time::ZERO + 5000 * MS;
        let identity = relay_identity();
        let trust = Trust::pinned(identity.pin());
        Self {
            relay: Datagrams::accept(relay, &identity, now),
            peer: Datagrams::connect(peer, &trust, ("relay", addr(RELAY)), now),
            heard: Default::default(),
            now,
            ways: Default::default(),
            rng: Rng::new(seed, 0),
            loss_permille: 0,
            reorder_permille: 0,
            peer_at: addr(PEER),
            to_relay_bytes: 0,
            to_peer_bytes: 0,
            tamper: |_| true,
        }
    }

    /// One side sends what it may.
    fn send(&mut self, to_relay: bool) {
        let end = if to_relay { &mut self.peer } else { &mut self.relay };
        end.give_data(u64::MAX);
        let mut out = Vec::new();
        while let Some(way) = end.poll_transmit(self.now, 4, &mut out) {
            for datagram in out.chunks(way.segment_bytes) {
                let mut datagram = datagram.to_vec();
                let sent = datagram.len() as u64;
                *(if to_relay { &mut self.to_relay_bytes } else { &mut self.to_peer_bytes }) +=
                    sent;
                let is_lost = self.rng.below(1000) < self.loss_permille
                    || to_relay && !(self.tamper)(&mut datagram)
                    || !to_relay && way.route.remote != self.peer_at;
                let delay = if self.rng.below(1000) < self.reorder_permille { 35 } else { 10 };
                if !is_lost {
                    self.ways[usize::from(to_relay)].push((self.now + delay * MS, datagram));
                }
            }
            out.clear();
        }
        end.invariants();
    }

    /// One side takes what has come.
    fn receive(&mut self, at_relay: bool) -> Result<(), DatagramError<Infallible>> {
        let (end, from) = match at_relay {
            true => (&mut self.relay, self.peer_at),
            false => (&mut self.peer, addr(RELAY)),
        };
        let heard = &mut self.heard[usize::from(at_relay)];
        let way = &mut self.ways[usize::from(at_relay)];
        let (due, later): (Vec<_>, Vec<_>) = way.drain(..).partition(|(at, _)| *at <= self.now);
        *way = later;
        for (_, datagram) in due {
            if end.handle_datagram(self.now, route(from), &datagram)? == Received::Ignored {
                heard.ignored += 1;
            }
        }
        if end.poll_timeout().is_some_and(|due| due <= self.now) {
            end.handle_timeout(self.now)?;
        }
        while let Some(message) = end.poll_message()? {
            heard.messages.push(message);
        }
        end.read_data(self.now, u64::MAX, &mut |header, piece| {
            heard.pieces.push((header, piece.to_vec()));
            Ok(())
        })?;
        heard.discarded += end.take_discarded();
        Ok(())
    }

    fn step(&mut self) -> Result<(), DatagramError<Infallible>> {
        for to_relay in [true, false] {
            self.send(to_relay);
        }
        self.now = self.now + MS;
        self.receive(true)?;
        self.receive(false)
    }

    /// Until it is so, within a minute of virtual time.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + 60_000 * MS;
        while !is_so(self) {
            assert!(self.now < end, "waited in vain for {what}");
            self.step().expect("both ends behave");
        }
    }

    fn open(mut self) -> Self {
        self.until("the handshake", |world| world.relay.proof.is_done);
        self
    }
}

fn chunk(number: u32, len: usize) -> Rc<Payload> {
    let bytes: Vec<u8> = (0..len).map(|at| content(number, at)).collect();
    Payload::for_datagrams(number, bytes.into())
}

fn content(number: u32, at: usize) -> u8 {
    u8::try_from((at * 7 + at / 251 + number as usize) % 256).expect("a byte")
}

fn is_content(number: u32, bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, &byte)| byte == content(number, at))
}

#[test]
fn messages_and_chunks_come_both_ways() {
    let mut world = World::new(Channel::Both, 1).open();
    for token in 0..50 {
        world.peer.push_control(&Message::Ping { token });
        world.relay.push_control(&Message::Pong { token });
        world.relay.push_control(&Message::Have { ranges: Vec::new() });
    }
    world.relay.push_data(chunk(0, 300_000), 1, 0);
    world.peer.push_data(chunk(1, 70_000), 2, 16 << 10);
    world.until("all", |w| w.relay.is_data_empty() && w.peer.is_data_empty());
    let [of_peer, of_relay] = &world.heard;
    assert_eq!((of_peer.messages.len(), of_relay.messages.len()), (100, 50));
    assert!(is_content(0, &of_peer.bytes(1, 300_000)));
    assert!(is_content(1, &of_relay.bytes(2, 70_000)[..]) || !of_relay.pieces.is_empty());
    let first = of_relay.pieces.iter().map(|(header, _)| header.offset).min();
    assert_eq!(first, Some(16 << 10), "what lies before it was not sent");
}

#[test]
fn whatever_the_network_does_all_comes_byte_exact() {
    for seed in 0..12 {
        let mut world = World::new(Channel::Both, seed);
        world.loss_permille = [0, 10, 200][(seed % 3) as usize];
        world.reorder_permille = [0, 300][(seed % 2) as usize];
        let mut world = world.open();
        for number in 0..20 {
            world.relay.push_data(chunk(number, 40_000), number, 0);
            world.peer.push_control(&Message::Lacking { chunk: number });
            world.peer.push_control(&Message::Ping { token: number.into() });
        }
        world.until("all", |w| w.relay.is_data_empty() && w.heard[1].messages.len() >= 40);
        for number in 0..20 {
            assert!(is_content(number, &world.heard[0].bytes(number, 40_000)), "{seed}");
        }
        let in_order = |message: &&Message| matches!(message, Message::Lacking { .. });
        let lacking: Vec<_> = world.heard[1].messages.iter().filter(in_order).collect();
        let expected: Vec<_> = (0..20).map(|chunk| Message::Lacking { chunk }).collect();
        assert!(lacking.into_iter().eq(&expected), "{seed}");
        let events: Vec<_> = std::iter::from_fn(|| world.relay.poll_event()).collect();
        let is_finished = |event: &&SendEvent| matches!(event, SendEvent::Finished { .. });
        assert_eq!(events.iter().filter(is_finished).count(), 20, "{seed}");
    }
}

#[test]
fn what_is_taken_back_lets_go_of_its_bytes_and_both_sides_count_the_same() {
    let mut world = World::new(Channel::Data, 3).open();
    let payload = chunk(9, 200_000);
    let bytes = payload.memory().expect("there").clone();
    world.relay.push_data(Rc::clone(&payload), 1, 0);
    for _ in 0..15 {
        world.step().expect("both behave");
    }
    let given = u64::from(world.relay.sends.given_of_first());
    assert!((1..200_000).contains(&given));
    let cut_off = world.relay.recall(9).expect("it was under way");
    assert_eq!((cut_off.chunk, cut_off.tag, cut_off.reached_bytes), (9, 1, 0));
    drop(payload);
    assert!(bytes.is_unique(), "QUIC keeps nothing of it");
    for _ in 0..200 {
        world.step().expect("both behave");
    }
    let came: u64 = world.heard[0].pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
    assert_eq!(came + world.heard[0].discarded, given);
}

#[test]
fn only_the_peer_that_has_the_streams_secret_gets_through() {
    let relay = config(Channel::Both);
    let stranger = DatagramsConfig { secret: [6; DATAGRAM_SECRET_BYTES], ..relay.clone() };
    let mut world = World::with(&relay, &stranger, 1);
    for _ in 0..2_500 {
        world.step().expect("it is not answered");
    }
    assert_eq!(world.to_peer_bytes, 0, "nothing is said to a stranger");
    assert!(world.heard[1].ignored > 0);
    // One that has seen the first id on its way, and knows no more.
    let mut proof = World::with(&relay, &relay, 1);
    proof.peer.proof.secret = [6; DATAGRAM_SECRET_BYTES];
    let error = (0..5_000).find_map(|_| proof.step().err());
    assert!(matches!(error, Some(DatagramError::Unproven)), "{error:?}");
    assert!(proof.heard[1].messages.is_empty() && proof.heard[1].pieces.is_empty());
}

#[test]
fn another_relay_is_not_believed() {
    let mut world = World::new(Channel::Both, 1);
    let identity = crate::exercise::other_identity();
    world.relay = Datagrams::accept(&config(Channel::Both), &identity, world.now);
    let error = (0..5_000).find_map(|_| world.step().err());
    assert!(matches!(error, Some(DatagramError::Lost(_))), "{error:?}");
}

#[test]
fn a_datagram_that_is_altered_or_comes_again_changes_nothing() {
    let mut world = World::new(Channel::Control, 1);
    world.tamper = |datagram| {
        let last = datagram.len() - 1;
        datagram[last] ^= 1;
        true
    };
    for _ in 0..200 {
        world.step().expect("what is forged is dropped");
    }
    assert_eq!(world.to_peer_bytes, 0);
    world.tamper = |_| true;
    let mut world = world.open();
    world.peer.push_control(&Message::Ping { token: 1 });
    world.send(true);
    let kept: Vec<_> = world.ways[1].iter().map(|(_, bytes)| bytes.clone()).collect();
    world.until("it", |world| !world.heard[1].messages.is_empty());
    let ignored = world.heard[1].ignored;
    for datagram in &kept {
        world.ways[1].push((world.now, datagram.clone()));
    }
    for _ in 0..50 {
        world.step().expect("it came before");
    }
    assert_eq!(world.heard[1].messages.len(), 1);
    assert!(world.heard[1].ignored >= ignored + u32::try_from(kept.len()).expect("few"));
}

#[test]
fn an_address_that_nobody_proved_gets_at_most_three_times_what_came_from_it() {
    let mut world = World::new(Channel::Both, 1);
    // The peer's first datagrams arrive; what the relay says to them is lost.
    for _ in 0..2_900 {
        world.send(true);
        world.send(false);
        world.ways[0].clear();
        world.now = world.now + MS;
        world.receive(true).expect("the relay is patient");
    }
    assert!(world.to_relay_bytes >= 1200 && world.to_peer_bytes > 0);
    assert!(world.to_peer_bytes <= 3 * world.to_relay_bytes, "RFC 9000, 8.1");
}

#[test]
fn a_peer_whose_address_changes_goes_on_from_there() {
    let mut world = World::new(Channel::Both, 1).open();
    world.relay.push_data(chunk(0, 2_000_000), 1, 0);
    for _ in 0..60 {
        world.step().expect("both behave");
    }
    assert!(!world.relay.is_data_empty());
    (world.peer_at, world.ways) = (addr(ELSEWHERE), Default::default());
    let moved_at = world.now;
    world.peer.ping();
    world.until("the rest", |world| world.relay.is_data_empty());
    assert!(world.now.since(moved_at) < 2_000 * MS + 2_000_000 / 200 * MS);
    assert!(world.peer.challenged_at().is_some_and(|at| at >= moved_at));
    assert!(is_content(0, &world.heard[0].bytes(1, 2_000_000)));
}

#[test]
fn a_probe_that_is_due_while_the_new_address_may_not_be_written_to_is_no_fault() {
    let mut world = World::new(Channel::Both, 1).open();
    world.relay.push_data(chunk(0, 200_000), 1, 0);
    world.send(false);
    // All of it is lost. The peer moves, and what it says from there is short: three times that is less than the
    // relay's challenge.
    (world.peer_at, world.ways) = (addr(ELSEWHERE), Default::default());
    world.peer.ping();
    world.send(true);
    world.now = world.now + 10 * MS;
    world.receive(true).expect("a new address is no fault");
    let moved_at = world.now;
    while let Some(due) = world.relay.poll_timeout().filter(|due| due.since(moved_at) < 500 * MS) {
        world.now = world.now.max(due);
        world.relay.handle_timeout::<Infallible>(world.now).expect("nor is a probe that is due");
    }
    assert!(world.now > moved_at);
    world.until("the rest", |world| world.relay.is_data_empty());
    assert!(is_content(0, &world.heard[0].bytes(1, 200_000)));
}

#[test]
fn on_one_machine_one_probe_finds_the_longest_datagram() {
    let mut config = config(Channel::Both);
    (config.path.is_local, config.path.datagram_bytes_max) = (true, Some(u16::MAX));
    let mut world = World::with(&config, &config, 1).open();
    world.relay.push_data(chunk(0, 1_000_000), 1, 0);
    let mut longest = 0;
    while !world.relay.is_data_empty() {
        world.step().expect("both behave");
        longest =
            world.ways[0].iter().map(|(_, datagram)| datagram.len()).fold(longest, usize::max);
    }
    assert_eq!(longest, 33_000, "they are as long as settings say");
    let stats = world.relay.link.connection.as_ref().expect("it is open").1.stats();
    assert_eq!((stats.path.sent_plpmtud_probes, stats.path.current_mtu), (1, 33_000));
}

#[test]
fn a_black_out_is_borne_a_path_that_became_shorter_found_out_and_silence_ends_it() {
    let mut world = World::new(Channel::Both, 1).open();
    world.relay.push_data(chunk(0, 1_000_000), 1, 0);
    for _ in 0..60 {
        world.step().expect("both behave");
    }
    world.loss_permille = 1000;
    for _ in 0..10_000 {
        world.step().expect("both are patient");
    }
    assert!(world.relay.poll_poke(world.now), "it owes an answer: it is asked over the stream");
    world.loss_permille = 0;
    world.until("the rest", |world| world.relay.is_data_empty());
    assert!(is_content(0, &world.heard[0].bytes(1, 1_000_000)));
    // Datagrams beyond 1,200 bytes come through no longer, either way.
    world.peer.push_data(chunk(1, 500_000), 2, 0);
    world.tamper = |datagram| datagram.len() <= 1200;
    world.until("the rest by short datagrams", |world| world.peer.is_data_empty());
    assert!(is_content(1, &world.heard[1].bytes(2, 500_000)));
    world.loss_permille = 1000;
    let silent_since = world.now;
    let error = (0..100_000).find_map(|_| world.step().err());
    assert!(matches!(error, Some(DatagramError::Silence(Silence::Ceased(_)))), "{error:?}");
    assert!(world.now.since(silent_since) <= DATAGRAM_SILENCE_TIMEOUT + 10_000 * MS);
}

#[test]
fn what_this_side_holds_back_is_read_later_and_holds_the_other_back() {
    let mut world = World::new(Channel::Data, 1).open();
    let until = world.now + 500 * MS;
    world.relay.hold_data(until);
    world.peer.push_data(chunk(0, 4 << 20), 1, 0);
    while world.now < until {
        assert!(world.heard[1].pieces.is_empty());
        world.step().expect("both behave");
    }
    let given = world.peer.sends.next_piece_len();
    assert!(given.is_some(), "a window's worth was given, and no more");
    world.until("all", |world| world.peer.is_data_empty());
    assert!(is_content(0, &world.heard[1].bytes(1, 4 << 20)));
}

#[test]
fn a_lane_that_begins_twice_and_a_stream_of_no_kind_end_the_connection() {
    for kinds in [vec![1, 1], vec![3], vec![0], vec![9], vec![4]] {
        let mut world = World::new(Channel::Control, 1).open();
        for kind in &kinds {
            let connection = world.peer.link.connection().expect("it has begun");
            let id = connection.streams().open(Dir::Uni).expect("some are allowed");
            connection.send_stream(id).write(&[*kind]).expect("a byte");
            world.peer.outgoing.is_due = true;
        }
        let error = (0..500).find_map(|_| world.step().err());
        assert!(matches!(error, Some(DatagramError::Frame(_))), "{kinds:?}: {error:?}");
    }
}

#[test]
fn an_end_that_breaks_every_rule_ends_the_connection_and_nothing_else() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed, 0);
        let length = rng.below(2_000);
        let script: Vec<u8> = (0..length).map(|_| rng.below(256).to_le_bytes()[0]).collect();
        exercise::datagrams(&script);
    }
}
