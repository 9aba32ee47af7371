//! Two ends over a network that loses, repeats, reorders and readdresses on demand, in virtual time.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use super::*;
use crate::exercise::relay_identity;
use relay_protocol::{limits::DATAGRAM_SILENCE_TIMEOUT, rng::Rng};

const MS: Duration = Duration::from_millis(1);
const PEER: &str = "10.0.0.1:1000";
const ELSEWHERE: &str = "10.0.0.9:9000";
const RELAY: &str = "10.0.0.2:2000";

fn config(channel: Channel) -> DatagramsConfig {
    DatagramsConfig {
        address: Address { shard: 3, connection: 77 },
        secret: [5; DATAGRAM_SECRET_BYTES],
        channel,
        path: PathSettings {
            congestion: CongestionControl::Cubic,
            room_bytes: 1 << 20,
            datagram_bytes_max: Some(1472),
            is_local: false,
        },
    }
}

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
                *(if to_relay { &mut self.to_relay_bytes } else { &mut self.to_peer_bytes }) += sent;
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
