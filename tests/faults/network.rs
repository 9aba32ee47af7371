//! The fault proxy does what it is told: tests that rely on it would pass for nothing otherwise.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::Ordering,
    time::Duration,
};

use relay::protocol::{DataHeader, encode_control, encode_preamble, frame_crc};
use shards::clock;

use crate::support::{
    PATIENCE, in_background,
    network::{Faults, MILLION, Proxy},
};

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);

/// Datagrams of one burst: few enough for any socket's buffer.
const BURST: u32 = 100;

/// A listener that hears what comes through, and a peer that is connected to the proxy.
struct Ends {
    proxy: Proxy,
    relay: UdpSocket,
    peer: UdpSocket,
}

fn ends(faults: Faults) -> Ends {
    let relay = UdpSocket::bind(LOOPBACK).expect("loopback");
    let proxy = Proxy::start(relay.local_addr().expect("bound"), 1, faults);
    let peer = UdpSocket::bind(LOOPBACK).expect("loopback");
    peer.connect(proxy.addr).expect("loopback");
    relay.set_read_timeout(Some(PATIENCE)).expect("a socket");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    Ends { proxy, relay, peer }
}

impl Ends {
    /// Sends numbered datagrams, and then, with nothing wrong any more, one that ends the burst.
    fn burst(&self, least: u64) {
        for number in 0..BURST {
            self.peer.send(&number.to_le_bytes()).expect("loopback");
        }
        crate::support::wait_until("the burst to be taken in", || {
            self.proxy.happened.datagrams.load(Ordering::Relaxed) >= least
        });
        crate::support::pause(Duration::from_millis(100));
        self.proxy.set(Faults::default());
        self.peer.send(&BURST.to_le_bytes()).expect("loopback");
    }

    /// What came, up to the one that ends the burst, in this order.
    fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let mut buffer = [0; 64];
        loop {
            let count = self.relay.recv(&mut buffer).expect("the last one comes");
            if buffer[..count] == BURST.to_le_bytes() {
                return heard;
            }
            heard.push(buffer[..count].to_vec());
        }
    }
}

fn numbers(heard: &[Vec<u8>]) -> Vec<u32> {
    let number = |bytes: &Vec<u8>| u32::from_le_bytes(bytes[..].try_into().expect("four bytes"));
    heard.iter().map(number).collect()
}

fn after_burst(faults: Faults) -> (Ends, Vec<Vec<u8>>) {
    let ends = ends(faults);
    ends.burst(u64::from(BURST));
    let heard = ends.heard();
    (ends, heard)
}

#[test]
fn without_faults_datagrams_come_once_in_order_and_answers_come_back() {
    let (ends, heard) = after_burst(Faults::default());
    assert_eq!(numbers(&heard), (0..BURST).collect::<Vec<_>>());
    assert_eq!(ends.proxy.happened.faults(), 0);
    ends.peer.send(b"ask").expect("loopback");
    let mut buffer = [0; 64];
    let (_, from) = ends.relay.recv_from(&mut buffer).expect("it comes");
    ends.relay.send_to(b"answer", from).expect("loopback");
    let count = ends.peer.recv(&mut buffer).expect("it comes back");
    assert_eq!(&buffer[..count], b"answer");
}

#[test]
fn datagrams_are_lost_doubled_overtaken_and_damaged_as_often_as_told() {
    let half = MILLION / 2;
    let few = 20..=80;

    let (_ends, heard) = after_burst(Faults { lost: half, ..Faults::default() });
    assert!(few.contains(&heard.len()), "{} of {BURST}", heard.len());

    let (_ends, heard) = after_burst(Faults { doubled: half, ..Faults::default() });
    assert_eq!(numbers(&heard).into_iter().collect::<BTreeSet<_>>().len(), BURST as usize);
    assert!(few.contains(&(heard.len() - BURST as usize)), "{}", heard.len());

    let (_ends, heard) = after_burst(Faults { overtaken: half, ..Faults::default() });
    let heard = numbers(&heard);
    assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), BURST as usize);
    assert!(!heard.is_sorted(), "{heard:?}");

    let (ends, heard) = after_burst(Faults { damaged: half, ..Faults::default() });
    assert_eq!(heard.len(), BURST as usize);
    let damaged = numbers(&heard).into_iter().zip(0..).filter(|(heard, sent)| heard != sent);
    let counted = ends.proxy.happened.damaged.load(Ordering::Relaxed);
    assert_eq!(damaged.count() as u64, counted);
    assert!(few.contains(&usize::try_from(counted).expect("few")), "{counted}");
}

#[test]
fn a_black_hole_a_short_path_and_a_full_bottleneck_lose_datagrams() {
    let (_ends, heard) = after_burst(Faults { black_hole: true, ..Faults::default() });
    assert_eq!(heard.len(), 0);
    let (_ends, heard) = after_burst(Faults { datagram_bytes_max: Some(3), ..Faults::default() });
    assert_eq!(heard.len(), 0);
    let (_ends, heard) = after_burst(Faults { datagram_bytes_max: Some(4), ..Faults::default() });
    assert_eq!(heard.len(), BURST as usize);
    // Each takes 40 ms, and what would wait for more than 100 ms is lost.
    let (_ends, heard) = after_burst(Faults { rate: Some(100), ..Faults::default() });
    assert!((1..10).contains(&heard.len()), "{}", heard.len());
}

#[test]
fn a_changed_address_is_another_one_to_the_relay_and_the_same_to_the_peer() {
    let ends = ends(Faults::default());
    let mut buffer = [0; 64];
    ends.peer.send(b"one").expect("loopback");
    let (_, before) = ends.relay.recv_from(&mut buffer).expect("it comes");
    ends.proxy.change_addresses();
    let after = crate::support::wait_for("another address", || {
        ends.peer.send(b"two").expect("loopback");
        let (_, from) = ends.relay.recv_from(&mut buffer).expect("it comes");
        (from != before).then_some(from)
    });
    ends.relay.send_to(b"answer", after).expect("loopback");
    let count = ends.peer.recv(&mut buffer).expect("it comes back");
    assert_eq!(&buffer[..count], b"answer");
}

/// Sends everything back; ends with the stream.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).expect("loopback");
    let addr = listener.local_addr().expect("bound");
    in_background(move || {
        let (mut stream, _) = listener.accept().expect("one comes");
        let mut sink = stream.try_clone().expect("a socket");
        std::io::copy(&mut stream, &mut sink).ok();
        sink.shutdown(std::net::Shutdown::Write).ok();
    });
    addr
}

fn stream_to(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// What comes back of these bytes, and how long it took.
fn there_and_back(proxy: &Proxy, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = stream_to(proxy);
    let began = clock::now();
    let mut sink = stream.try_clone().expect("a socket");
    let sent = bytes.to_vec();
    let sending = in_background(move || {
        sink.write_all(&sent).expect("it is taken");
        sink.shutdown(std::net::Shutdown::Write).expect("open");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("it ends well");
    sending.join().expect("sent");
    (back, clock::now() - began)
}

fn content() -> Vec<u8> {
    (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect()
}

#[test]
fn streams_come_whole_and_in_order_and_half_closed_ones_still_answer() {
    let proxy = Proxy::start(echo(), 1, Faults::default());
    let (back, _) = there_and_back(&proxy, &content());
    assert!(back == content());
    assert_eq!(proxy.happened.streams.load(Ordering::Relaxed), 1);
}

#[test]
fn streams_are_late_and_throttled_as_told() {
    let millis = Duration::from_millis;
    let faults = Faults { delay: millis(60), jitter: millis(20), ..Faults::default() };
    let proxy = Proxy::start(echo(), 1, faults);
    let (back, took) = there_and_back(&proxy, b"ping");
    assert_eq!(back, b"ping");
    assert!(took >= millis(120), "there and back: {took:?}");

    let proxy = Proxy::start(echo(), 1, Faults { rate: Some(1_000_000), ..Faults::default() });
    let (back, took) = there_and_back(&proxy, &content());
    assert!(back == content());
    assert!(took >= millis(300), "{took:?}");

    let proxy = Proxy::start(echo(), 1, Faults { lost: MILLION, ..Faults::default() });
    let (back, took) = there_and_back(&proxy, b"ping");
    assert_eq!(back, b"ping");
    assert!(took >= millis(400), "{took:?}");
}

#[test]
fn streams_are_damaged_in_their_file_bytes_only() {
    let proxy = Proxy::start(echo(), 1, Faults { damaged: MILLION, ..Faults::default() });
    let mut sent = encode_preamble().to_vec();
    let mut payloads = Vec::new();
    for chunk in 0..100_u32 {
        encode_control(&chunk.to_le_bytes(), &mut sent);
        let (payload, offset, tag) = ([7; 1000], 0, 0);
        let crc = frame_crc(&payload);
        sent.extend(DataHeader { chunk, offset, payload_len: 1000, tag, checksum: crc }.encode());
        payloads.push(sent.len()..sent.len() + payload.len());
        sent.extend(payload);
    }
    let (back, _) = there_and_back(&proxy, &sent);
    assert_eq!(back.len(), sent.len());
    let differs: Vec<usize> = (0..sent.len()).filter(|&at| back[at] != sent[at]).collect();
    assert!(!differs.is_empty());
    assert!(differs.iter().all(|at| payloads.iter().any(|payload| payload.contains(at))));
}

#[test]
fn a_black_hole_holds_streams_up_and_lets_them_go_on() {
    let proxy = Proxy::start(echo(), 1, Faults::default());
    let mut stream = stream_to(&proxy);
    let mut buffer = [0; 4];
    stream.write_all(b"ping").expect("it is taken");
    stream.read_exact(&mut buffer).expect("it comes back");
    proxy.set(Faults { black_hole: true, ..Faults::default() });
    stream.write_all(b"pong").expect("it is taken");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    stream.read_exact(&mut buffer).expect_err("nothing comes through");
    proxy.set(Faults::default());
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.read_exact(&mut buffer).expect("it comes back at last");
    assert_eq!(&buffer, b"pong");
}

#[test]
fn a_reset_cuts_every_stream() {
    let proxy = Proxy::start(echo(), 1, Faults::default());
    let mut stream = stream_to(&proxy);
    let mut buffer = [0; 4];
    stream.write_all(b"ping").expect("it is taken");
    stream.read_exact(&mut buffer).expect("it comes back");
    proxy.reset_streams();
    let error = stream.read_exact(&mut buffer).expect_err("it was cut");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_relay_that_is_not_there_is_not_there_through_the_proxy_either() {
    let gone = TcpListener::bind(LOOPBACK).expect("loopback").local_addr().expect("bound");
    let proxy = Proxy::start(gone, 1, Faults::default());
    let mut stream = stream_to(&proxy);
    assert!(!matches!(stream.read(&mut [0; 4]), Ok(1..)));
}
