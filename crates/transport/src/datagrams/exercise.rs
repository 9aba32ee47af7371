//! A connection of QUIC with one end that breaks every rule above QUIC, and a network that does as it likes, driven by
//! a script of bytes. The other end may end the connection, and nothing else.

use core::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{Dir, StreamId, VarInt};

use super::{Address, CongestionControl, Datagrams, DatagramsConfig, PathSettings};
use crate::{
    exercise::{Script, relay_identity},
    lane::Route,
    payload::Payload,
    secure::Trust,
};
use relay_protocol::{Channel, Message, limits::DATAGRAM_SECRET_BYTES, time::Time};

/// Time between steps.
const STEP: Duration = Duration::from_millis(5);

/// Rounds that a handshake over a clear network takes at most.
const HANDSHAKE_ROUNDS: u32 = 20;

/// Times in a row that something may be due at one time.
const TIMEOUT_ROUNDS: u32 = 50;

/// Bytes of the chunks that the honest end sends.
const CHUNK_BYTES: usize = 70_000;

struct World {
    honest: Datagrams,
    hostile: Datagrams,
    /// The hostile end's own streams.
    streams: Vec<StreamId>,
    now: Time,
    next_tag: u32,
    has_ended: bool,
}

/// What both ends of a connection know, over Ethernet.
pub(super) fn config(channel: Channel) -> DatagramsConfig {
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

fn route() -> Route {
    let remote = SocketAddr::from(([127, 0, 0, 1], 7440));
    Route { socket: 0, remote, local: None }
}

impl World {
    fn new(channel: Channel, is_relay_honest: bool) -> Self {
        let config = config(channel);
        let now = Time::ZERO + Duration::from_secs(1);
        let identity = relay_identity();
        let trust = Trust::pinned(identity.pin());
        let relay = Datagrams::accept(&config, &identity, now);
        let peer = Datagrams::connect(&config, &trust, ("relay", route().remote), now);
        let (honest, hostile) = if is_relay_honest { (relay, peer) } else { (peer, relay) };
        let (streams, next_tag, has_ended) = (Vec::new(), 1, false);
        let mut world = Self { honest, hostile, streams, now, next_tag, has_ended };
        for _ in 0..HANDSHAKE_ROUNDS {
            world.exchange(&mut Script(&[]));
            world.now = world.now + STEP;
        }
        assert!(world.honest.is_open() && world.hostile.is_open(), "nothing was in the way");
        world
    }

    /// Both ends' datagrams, of which the script loses, repeats and damages some.
    fn exchange(&mut self, script: &mut Script<'_>) {
        let mut out = Vec::new();
        for to_honest in [true, false] {
            let (from, to) = match to_honest {
                true => (&mut self.hostile, &mut self.honest),
                false => (&mut self.honest, &mut self.hostile),
            };
            from.give_data(u64::MAX);
            while let Some(way) = from.poll_transmit(self.now, 2, &mut out) {
                for datagram in out.chunks(way.segment_bytes) {
                    let mut datagram = datagram.to_vec();
                    let times = match script.byte() {
                        250.. => 0,
                        240.. => 2,
                        230.. => {
                            let at = script.number() as usize % datagram.len();
                            datagram[at] ^= 1;
                            1
                        }
                        _ => 1,
                    };
                    for _ in 0..times {
                        let handled = to.handle_datagram::<()>(self.now, route(), &datagram);
                        self.has_ended |= handled.is_err() && to_honest;
                    }
                }
                out.clear();
            }
        }
    }

    /// What the hostile end does with QUIC.
    fn misbehave(&mut self, script: &mut Script<'_>) {
        let Some(connection) = self.hostile.link.connection() else { return };
        self.hostile.outgoing.is_due = true;
        let chosen = script.byte();
        let count = self.streams.len().max(1);
        let stream = self.streams.get(usize::from(chosen) % count).copied();
        match (script.byte() % 7, stream) {
            (6, _) => {
                let reason = Bytes::copy_from_slice(script.bytes(600));
                connection.close(super::instant::instant(self.now), VarInt::from_u32(7), reason);
            }
            (0, _) | (_, None) => self.streams.extend(connection.streams().open(Dir::Uni)),
            (1 | 2, Some(id)) => {
                let len = usize::from(script.byte()) * 4;
                connection.send_stream(id).write(script.bytes(len)).ok();
            }
            (3, Some(id)) => drop(connection.send_stream(id).finish()),
            (4, Some(id)) => {
                let code = VarInt::from_u64(script.count()).unwrap_or(VarInt::MAX);
                connection.send_stream(id).reset(code).ok();
            }
            (_, Some(_)) => {
                // It wants nothing of what the honest end sends.
                while let Some(id) = connection.streams().accept(Dir::Uni) {
                    connection.recv_stream(id).stop(VarInt::from_u32(0)).ok();
                }
            }
        }
    }

    /// What the honest end's owner does.
    fn work(&mut self, script: &mut Script<'_>) {
        let honest = &mut self.honest;
        let has_control = honest.channel() != Channel::Data;
        let has_data = honest.channel() != Channel::Control;
        let tag = script.number() % self.next_tag;
        match script.byte() % 6 {
            0 if has_control => honest.push_control(&Message::Ping { token: 1 }),
            1 if has_data => {
                let bytes = Bytes::from(vec![7; CHUNK_BYTES]);
                honest.push_data(Payload::for_datagrams(self.next_tag, bytes), self.next_tag, 0);
                self.next_tag += 1;
            }
            2 => drop(honest.cancel(tag)),
            3 => drop(honest.recall(tag)),
            4 => drop(honest.drop_rest(tag)),
            _ => honest.hold_data(self.now + Duration::from_millis(script.byte().into())),
        }
    }

    /// The honest end takes what has come.
    fn read(&mut self, bytes_max: u64) {
        let honest = &mut self.honest;
        for _ in 0..64 {
            match honest.poll_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.has_ended = true;
                    return;
                }
            }
        }
        let read = honest.read_data::<()>(self.now, bytes_max, &mut |_, piece| {
            assert!(!piece.is_empty(), "a piece has bytes");
            Ok(())
        });
        self.has_ended |= read.is_err();
        honest.take_discarded();
        honest.expect_data(bytes_max);
        while honest.poll_event().is_some() {}
        honest.invariants();
    }
}

/// A script: first the channels and which end is hostile, then what happens.
pub fn datagrams(script: &[u8]) {
    let mut script = Script(script);
    let setup = script.byte();
    let channel = [Channel::Control, Channel::Data, Channel::Both][usize::from(setup) % 3];
    let mut world = World::new(channel, setup & 0x80 == 0);
    while !script.is_over() && !world.has_ended {
        match script.byte() % 5 {
            0 | 1 => world.misbehave(&mut script),
            2 => world.work(&mut script),
            3 => {
                let len = usize::from(script.byte()) * 6;
                let handled =
                    world.honest.handle_datagram::<()>(world.now, route(), script.bytes(len));
                world.has_ended |= handled.is_err();
            }
            _ => world.now = world.now + STEP * u32::from(script.byte()),
        }
        world.exchange(&mut script);
        // As a shell does: what is due may be to send something, after which something else may be due.
        let mut rounds_left = TIMEOUT_ROUNDS;
        while !world.has_ended
            && !world.honest.has_unread_data(world.now)
            && world.honest.poll_timeout().is_some_and(|due| due <= world.now)
        {
            assert!(rounds_left > 0, "it is due for ever");
            rounds_left -= 1;
            world.has_ended |= world.honest.handle_timeout::<()>(world.now).is_err();
            world.honest.poll_poke(world.now);
            world.exchange(&mut Script(&[]));
        }
        world.read(script.count().max(1));
    }
}
