//! Control in datagrams, data on the stream.

use std::{
    io::{ErrorKind, IoSliceMut},
    net::Shutdown,
    rc::Rc,
};

use relay::{
    protocol::{DatagramKeys, Event, Message, Side},
    time::Time,
    transport::{
        Channels, Datagrams, DatagramsConfig, Payload, READ_BYTES_MAX, ReadOutcome, Reader, Route,
        SendEvent, send_queue::CutOff,
    },
};
use shards::{
    Socket, clock,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta, Transmit},
};

use super::{End, Heard, Kind, tcp};

/// `--transport udp-control`.
pub(crate) const KIND: Kind = Kind { name: "udp-control", is_data_ordered: true, pair };

struct UdpControl {
    socket: Socket,
    datagram_socket: DatagramSocket,
    channels: Channels,
    reader: Reader,
    scratch: Vec<u8>,
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
        let keys = DatagramKeys::derive(&[1; 32], &[2; 16], &[3; 16]);
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

fn pair() -> (Box<dyn End>, Box<dyn End>) {
    let (near, far) = tcp::sockets();
    let (near_datagrams, far_datagrams) = (datagram_socket(), datagram_socket());
    let (to_near, to_far) = (route_to(&near_datagrams), route_to(&far_datagrams));
    let (relay, peer) = introduced(to_far, to_near);
    let end = |socket, datagram_socket, datagrams, other| {
        let mut channels = Channels::new();
        channels.push_preamble();
        channels.open_datagrams(datagrams);
        Box::new(UdpControl {
            socket,
            datagram_socket,
            channels,
            reader: Reader::new(),
            scratch: vec![0; READ_BYTES_MAX.max(RECEIVE_BUFFER_BYTES)],
            heard: Heard::default(),
            other,
        })
    };
    (end(near, near_datagrams, relay, to_far), end(far, far_datagrams, peer, to_near))
}

impl UdpControl {
    /// Whether anything was sent.
    fn transmit(&mut self) -> bool {
        let datagrams = self.channels.datagrams_mut().expect("opened");
        datagrams.handle_timeout(now()).expect("the other side is heard");
        let (mut contents, mut sent) = (Vec::new(), false);
        while let Some(route) = datagrams.poll_transmit(now(), &mut contents) {
            let transmit = Transmit {
                destination: route.remote,
                ecn: None,
                contents: &contents,
                segment_size: None,
                src_ip: None,
            };
            self.datagram_socket.try_send(&transmit).expect("loopback takes it");
            contents.clear();
            sent = true;
        }
        sent
    }

    /// Whether anything came.
    fn receive(&mut self) -> bool {
        let mut metas = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut self.scratch)];
        match self.datagram_socket.try_receive(&mut buffers, &mut metas) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let [meta] = metas;
        let heard = &mut self.heard;
        let mut take = |message| {
            heard.take(Event::Control(message));
            Ok::<(), std::convert::Infallible>(())
        };
        let datagrams = self.channels.datagrams_mut().expect("opened");
        for datagram in self.scratch[..meta.len].chunks(meta.stride) {
            let received = datagrams.handle_datagram(now(), self.other, datagram, true, &mut take);
            received.expect("a well-behaved end was misunderstood");
        }
        true
    }
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
        let sent = self.transmit();
        match self.channels.write(&self.socket, data_bytes_max) {
            Ok(written) => (written.data_bytes, sent || written.total_bytes > 0),
            Err(_) => (0, sent),
        }
    }

    fn read(&mut self) -> bool {
        let received = self.receive();
        if self.heard.is_closed {
            return received;
        }
        let heard = &mut self.heard;
        let mut handler = |event: Event<'_>| {
            heard.take(event);
            Ok::<(), std::convert::Infallible>(())
        };
        match self.reader.read(&self.socket, &mut self.scratch, &mut handler) {
            Ok(ReadOutcome::Read(_)) => true,
            Ok(ReadOutcome::Blocked) => received,
            Ok(ReadOutcome::Closed) => {
                self.heard.is_closed = true;
                true
            }
            Err(error) => panic!("a well-behaved end was misunderstood: {error}"),
        }
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
