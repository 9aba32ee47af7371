//! One channel in datagrams: control, or for [`super::udp_data`] data.

use std::{
    io::{ErrorKind, IoSliceMut},
    net::Shutdown,
    rc::Rc,
};

use relay::{
    protocol::{
        DataHeader, DataPieceHeader, DatagramHeader, DatagramKeys, DatagramKind, Event, Message,
        Side, frame_crc,
    },
    time::Time,
    transport::{
        Channels, Datagrams, DatagramsConfig, Payload, ReadOutcome, Reader, ReceiveBuffer, Route,
        SendEvent, send_queue::CutOff,
    },
};
use shards::{
    Socket, clock,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta, transmit},
};

use super::{End, Frame, Heard, Kind, secured, tcp};

/// `--transport udp-control`.
pub(crate) const KIND: Kind =
    Kind { name: "udp-control", is_data_ordered: true, pair: || pair_with(false) };

struct UdpControl {
    socket: Socket,
    datagram_socket: DatagramSocket,
    channels: Channels,
    reader: Reader,
    buffer: ReceiveBuffer,
    heard: Heard,
    /// How its address looks to the other, and the other's to it.
    other: Route,
}

fn now() -> Time {
    Time::from_start(clock::now())
}

fn datagram_socket() -> DatagramSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    DatagramSocket::from_std(socket).expect("a socket can be watched")
}

fn route_to(socket: &DatagramSocket) -> Route {
    Route { socket: 0, remote: socket.local_addr().expect("bound"), local: None }
}

/// Two sides that have found each other, as after a handshake and a challenge.
fn introduced(peer: Route, relay: Route) -> (Datagrams, Datagrams) {
    let side = |side, route| {
        let keys = DatagramKeys::derive(&[1; 32]);
        let config =
            DatagramsConfig { side, shard: 0, connection: 1, keys, route, challenge_seed: 4 };
        Datagrams::new(config, now())
    };
    let (mut near, mut far) = (side(Side::Relay, None), side(Side::Peer, Some(relay)));
    let mut nothing = |_| Err("nobody has said anything");
    // A ping, a challenge, its response.
    for _ in 0..2 {
        let mut bytes = Vec::new();
        while far.poll_transmit(now(), &mut bytes).is_some() {
            near.handle_datagram(now(), peer, &bytes, true, &mut nothing).expect("sealed");
            bytes.clear();
        }
        while near.poll_transmit(now(), &mut bytes).is_some() {
            far.handle_datagram(now(), relay, &bytes, true, &mut nothing).expect("sealed");
            bytes.clear();
        }
    }
    (near, far)
}

/// Two ends; with data in datagrams, or control.
pub(super) fn pair_with(data: bool) -> (Box<dyn End>, Box<dyn End>) {
    let (near, far) = tcp::sockets();
    let (near_datagrams, far_datagrams) = (datagram_socket(), datagram_socket());
    let (to_near, to_far) = (route_to(&near_datagrams), route_to(&far_datagrams));
    let (relay, peer) = introduced(to_far, to_near);
    let (of_relay, of_peer) = secured();
    let end = |secure, socket, datagram_socket: DatagramSocket, mut datagrams: Datagrams, other| {
        if data {
            datagrams.open_data(
                relay::transport::data::CongestionControl::Cubic,
                datagram_socket.room_bytes(),
            );
        }
        let mut channels = Channels::new(secure);
        channels.open_datagrams(datagrams);
        Box::new(UdpControl {
            socket,
            datagram_socket,
            channels,
            reader: Reader::new(),
            buffer: ReceiveBuffer::new(RECEIVE_BUFFER_BYTES.div_ceil(16 << 10)),
            heard: Heard::default(),
            other,
        })
    };
    let near = end(of_relay, near, near_datagrams, relay, to_far);
    (near, end(of_peer, far, far_datagrams, peer, to_near))
}

impl UdpControl {
    /// File bytes that were sent, and whether anything was.
    fn transmit(&mut self, mut data_bytes_max: u64) -> (u64, bool) {
        let datagrams = self.channels.datagrams_mut().expect("opened");
        datagrams.handle_timeout(now()).expect("the other side is heard");
        let (mut contents, mut sent) = (Vec::new(), false);
        while let Some(route) = datagrams.poll_transmit(now(), &mut contents) {
            let transmit = transmit(route.remote, None, &contents, contents.len());
            self.datagram_socket.try_send(&transmit).expect("loopback takes it");
            contents.clear();
            sent = true;
        }
        let (segments_max, mut data_bytes) = (self.datagram_socket.segments_max(), 0);
        while let Some(data) =
            datagrams.poll_data(now(), data_bytes_max, segments_max, &mut contents)
        {
            let transmit = transmit(data.route.remote, None, &contents, data.segment_bytes);
            self.datagram_socket.try_send(&transmit).expect("loopback takes it");
            contents.clear();
            sent = true;
            data_bytes += data.data_bytes;
            data_bytes_max -= data.data_bytes;
        }
        (data_bytes, sent)
    }

    /// Whether anything came.
    fn receive(&mut self) -> bool {
        let mut metas = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(self.buffer.bytes_mut())];
        match self.datagram_socket.try_receive(&mut buffers, &mut metas) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let [meta] = metas;
        let datagrams = self.channels.datagrams_mut().expect("opened");
        for datagram in self.buffer.bytes_mut()[..meta.len].chunks(meta.stride) {
            let kind = DatagramHeader::peek(datagram).expect("ours").kind;
            if kind == DatagramKind::Data {
                let take = &mut |piece: DataPieceHeader, bytes: &[u8]| {
                    take_piece(&mut self.heard, piece, bytes);
                    Ok::<(), std::convert::Infallible>(())
                };
                let received = datagrams.handle_data(now(), self.other, datagram, take);
                received.expect("a well-behaved end was misunderstood");
                continue;
            }
            let mut take = |message| {
                self.heard.messages.push(message);
                Ok::<(), std::convert::Infallible>(())
            };
            let received = datagrams.handle_datagram(now(), self.other, datagram, true, &mut take);
            received.expect("a well-behaved end was misunderstood");
        }
        true
    }
}

/// A piece in a datagram of its own.
fn take_piece(heard: &mut Heard, piece: DataPieceHeader, bytes: &[u8]) {
    let DataPieceHeader { chunk, offset, tag } = piece;
    let payload_len = u32::try_from(bytes.len()).expect("a datagram");
    // The seal takes the checksum's place.
    let header = DataHeader { chunk, offset, payload_len, tag, checksum: frame_crc(bytes) };
    let messages_before = heard.messages.len();
    heard.take_frame(Frame { header, bytes: bytes.to_vec(), messages_before });
}

impl End for UdpControl {
    fn push_control(&mut self, message: &Message) {
        self.channels.push_control(message);
    }

    fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.channels.push_data(payload, tag, offset);
    }

    fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.channels.cancel(tag)
    }

    fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.channels.recall(chunk)
    }

    fn poll_event(&mut self) -> Option<SendEvent> {
        self.channels.poll_event()
    }

    fn control_bytes(&self) -> usize {
        self.channels.control_bytes()
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn write(&mut self, data_bytes_max: u64) -> (u64, bool) {
        let (data_bytes, sent) = self.transmit(data_bytes_max);
        self.channels.acknowledge_data();
        match self.channels.write(&self.socket, data_bytes_max) {
            Ok(written) => (data_bytes + written.data_bytes, sent || written.total_bytes > 0),
            Err(_) => (data_bytes, sent),
        }
    }

    fn read(&mut self) -> bool {
        if self.heard.is_closed {
            return self.receive();
        }
        let (heard, channels) = (&mut self.heard, &mut self.channels);
        let mut handler = |event: Event<'_>| {
            heard.take(channels, &event);
            Ok::<(), std::convert::Infallible>(())
        };
        let read = match self.reader.read(&self.socket, &mut self.buffer, &mut handler) {
            Ok(ReadOutcome::Read { .. }) => true,
            Ok(ReadOutcome::Blocked) => false,
            Ok(ReadOutcome::Closed) => {
                self.heard.is_closed = true;
                true
            }
            Err(error) => panic!("a well-behaved end was misunderstood: {error}"),
        };
        self.receive() | read
    }

    fn heard(&self) -> &Heard {
        &self.heard
    }

    fn shut_write(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("open");
    }

    fn shut(&mut self) {
        self.socket.shutdown(Shutdown::Both).expect("open");
    }
}
