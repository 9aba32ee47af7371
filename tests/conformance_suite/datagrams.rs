//! Channels in datagrams: control, data, or both.

use std::{
    io::{ErrorKind, IoSliceMut},
    net::SocketAddr,
};

use relay::{
    protocol::{Channel, DataHeader, DataPieceHeader, frame_crc, limits::DATAGRAM_SECRET_BYTES},
    time::Time,
    transport::{
        Channels, Datagrams, DatagramsConfig, Route, Trust,
        datagrams::{Address, CongestionControl, PathSettings},
        exercise::relay_identity,
    },
};
use shards::{
    clock,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta, longest_datagram, transmit},
};

use super::{
    End, Frame, Heard, Kind, secured,
    tcp::{self, Stream},
};

/// `--transport udp-control`.
pub(crate) const UDP_CONTROL: Kind =
    Kind { name: "udp-control", is_data_ordered: true, pair: || pair_with(Channel::Control) };

/// `--transport udp-data`.
pub(crate) const UDP_DATA: Kind =
    Kind { name: "udp-data", is_data_ordered: false, pair: || pair_with(Channel::Data) };

/// `--transport quic`.
pub(crate) const QUIC: Kind =
    Kind { name: "quic", is_data_ordered: false, pair: || pair_with(Channel::Both) };

struct InDatagrams {
    stream: Stream,
    datagram_socket: DatagramSocket,
    /// The other's address.
    other: Route,
}

fn now() -> Time {
    Time::from_start(clock::now())
}

fn datagram_socket() -> DatagramSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    DatagramSocket::from_std(socket).expect("a socket can be watched")
}

fn addr_of(socket: &DatagramSocket) -> SocketAddr {
    socket.local_addr().expect("bound")
}

/// Two ends whose stream is secured; the datagrams introduce themselves as they go.
fn pair_with(channel: Channel) -> (Box<dyn End>, Box<dyn End>) {
    let (near, far) = tcp::sockets();
    let (near_datagrams, far_datagrams) = (datagram_socket(), datagram_socket());
    let (to_near, to_far) = (addr_of(&near_datagrams), addr_of(&far_datagrams));
    let config = |socket: &DatagramSocket, other| DatagramsConfig {
        address: Address { shard: 0, connection: 1 },
        secret: [1; DATAGRAM_SECRET_BYTES],
        channel,
        path: PathSettings {
            congestion: CongestionControl::Cubic,
            room_bytes: socket.room_bytes(),
            datagram_bytes_max: longest_datagram(other),
            is_local: true,
        },
    };
    let identity = relay_identity();
    let relay = Datagrams::accept(&config(&near_datagrams, to_far), &identity, now());
    let trust = Trust::pinned(identity.pin());
    let peer = config(&far_datagrams, to_near);
    let peer = Datagrams::connect(&peer, &trust, ("relay", to_near), now());
    let (of_relay, of_peer) = secured();
    let end = |secure, socket, datagram_socket: DatagramSocket, datagrams, remote| {
        let mut channels = Channels::new(secure);
        channels.open_datagrams(datagrams);
        InDatagrams {
            stream: Stream::new(socket, channels, RECEIVE_BUFFER_BYTES.div_ceil(16 << 10)),
            datagram_socket,
            other: Route { socket: 0, remote, local: None },
        }
    };
    let mut near = end(of_relay, near, near_datagrams, relay, to_far);
    let mut far = end(of_peer, far, far_datagrams, peer, to_near);
    // As after `Accepted`: what either side sends from now on can be taken.
    while !(near.stream.channels.datagrams().is_some_and(Datagrams::is_open)
        && far.stream.channels.datagrams().is_some_and(Datagrams::is_open))
    {
        near.transmit(0);
        far.transmit(0);
        near.receive();
        far.receive();
    }
    (Box::new(near), Box::new(far))
}

impl InDatagrams {
    /// File bytes that QUIC was given, and whether anything was sent.
    fn transmit(&mut self, data_bytes_max: u64) -> (u64, bool) {
        let segments_max = self.datagram_socket.segments_max();
        let datagrams = self.stream.channels.datagrams_mut().expect("opened");
        if datagrams.poll_timeout().is_some_and(|due| due <= now()) {
            datagrams.handle_timeout::<()>(now()).expect("the other side is heard");
        }
        let given = datagrams.give_data(data_bytes_max);
        let (mut contents, mut sent) = (Vec::new(), given.bytes > 0);
        while let Some(way) = datagrams.poll_transmit(now(), segments_max, &mut contents) {
            let transmit = transmit(way.route.remote, None, &contents, way.segment_bytes);
            match self.datagram_socket.try_send(&transmit) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    datagrams.handle_unsent(way, &mut contents);
                    datagrams.handle_writable();
                    return (given.bytes, sent);
                }
                // A probe that is longer than this system takes.
                Err(_) => {}
            }
            contents.clear();
            sent = true;
        }
        (given.bytes, sent)
    }

    /// Whether anything came.
    fn receive(&mut self) -> bool {
        let mut metas = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(self.stream.buffer.bytes_mut())];
        match self.datagram_socket.try_receive(&mut buffers, &mut metas) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let [meta] = metas;
        let datagrams = self.stream.channels.datagrams_mut().expect("opened");
        for datagram in self.stream.buffer.bytes_mut()[..meta.len].chunks(meta.stride) {
            let received = datagrams.handle_datagram::<()>(now(), self.other, datagram);
            received.expect("a well-behaved end was misunderstood");
        }
        while let Some(message) = datagrams.poll_message().expect("a message") {
            self.stream.heard.messages.push(message);
        }
        let read = datagrams.read_data(now(), u64::MAX, &mut |piece, bytes| {
            take_piece(&mut self.stream.heard, piece, bytes);
            Ok::<(), ()>(())
        });
        read.expect("a well-behaved end was misunderstood");
        true
    }
}

/// A piece as it came.
fn take_piece(heard: &mut Heard, piece: DataPieceHeader, bytes: &[u8]) {
    let DataPieceHeader { chunk, offset, tag } = piece;
    let payload_len = u32::try_from(bytes.len()).expect("a datagram");
    // QUIC's seal takes the checksum's place.
    let header = DataHeader { chunk, offset, payload_len, tag, checksum: frame_crc(bytes) };
    let messages_before = heard.messages.len();
    heard.take_frame(Frame { header, bytes: bytes.to_vec(), messages_before });
}

impl End for InDatagrams {
    fn stream(&self) -> &Stream {
        &self.stream
    }

    fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn write(&mut self, data_bytes_max: u64) -> (u64, bool) {
        let (in_datagrams, was_sent) = self.transmit(data_bytes_max);
        let (by_stream, was_written) = self.stream.write(data_bytes_max);
        (in_datagrams + by_stream, was_sent || was_written)
    }

    fn read(&mut self) -> bool {
        self.stream.read() | self.receive()
    }
}
