//! No peer waits for ever, and nothing is said twice, because another is slow, silent or asleep.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use relay::{
    protocol::{Channel, ChunkRange, Failure, FailureCode, Message, SwarmKey, encode_message},
    time::Time,
    transport::{
        Datagrams, DatagramsConfig, Route, Trust,
        datagrams::{Address, CongestionControl, PathSettings},
    },
};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    pause,
    process::RelayProcess,
    wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

/// Hears until this message comes; parts of the manifest before it.
fn parts_before(wire: &mut Wire, is_awaited: impl Fn(&Message) -> bool) -> usize {
    let mut parts = 0;
    loop {
        match wire.hear().expect("the relay is there") {
            Heard::Control(message) if is_awaited(&message) => return parts,
            Heard::Control(Message::ManifestPart { .. }) => parts += 1,
            Heard::Closed => panic!("the relay closed the connection"),
            _ => {}
        }
    }
}

/// What the relay heard before this has had its effects, on a relay of one shard.
fn parts_before_pong(wire: &mut Wire, token: u64) -> usize {
    wire.send(&Message::Ping { token }).expect("the relay is there");
    parts_before(wire, |message| *message == Message::Pong { token })
}

#[test]
fn a_manifest_that_comes_from_a_second_holder_is_not_sent_to_anybody_again() {
    let relay = RelayProcess::start(relay(), &["--cores", "1"]);
    let file = TestFile::new(1, 1 << 20, 16);
    let mut slow = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut peer = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    peer.send(&Message::ManifestRequest).expect("the relay is there");
    parts_before(&mut slow, |message| *message == Message::ManifestRequest);
    // After a while another holder is asked, too.
    let mut swift = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    parts_before(&mut swift, |message| *message == Message::ManifestRequest);
    let parts: Vec<Message> = file.manifest.parts(0).collect();
    parts.iter().for_each(|part| swift.send(part).expect("the relay is there"));
    for part in &parts {
        parts_before(&mut peer, |message| message == part);
    }
    parts.iter().for_each(|part| slow.send(part).expect("the relay is there"));
    parts_before_pong(&mut slow, 1);
    let again = parts_before_pong(&mut peer, 2) + parts_before_pong(&mut peer, 3);
    assert_eq!(again, 0, "whoever has the manifest takes more of it for a fault");
}

#[test]
#[cfg(target_os = "linux")]
fn a_shard_that_sleeps_gives_its_memory_to_whoever_waits_on_another() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let all = sched_getaffinity(None).expect("it is told");
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core)).collect();
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--cache", "1M"]);
    // Each fills the memory, and the one that has it then says nothing more. The relay gives connections to the
    // shard on their client's core: what the first file needs is all on one shard, what the second does
    // on the other, and so are, of these two files, the homes.
    let files = [0, 1].map(|seed| Arc::new(TestFile::new(seed, 5 << 18, 17)));
    let mut origins = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let mut core = CpuSet::new();
        core.set(cores[number % cores.len()]);
        sched_setaffinity(None, &core).expect("it is one of ours");
        origins.push(Origin::start(relay.addr, file));
        download(relay.addr, file);
        // So long that the shard sleeps, and has no time to look at either.
        pause(Duration::from_secs(3));
    }
    assert!(origins.iter().all(Origin::is_serving));
}

#[test]
fn who_says_why_he_closes_and_does_not_close_is_closed() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = TestFile::new(1, 1 << 20, 16);
    let mut wire = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let failure = Failure { code: FailureCode::ShuttingDown, text: "in a while".into() };
    // In one piece: the answer to the ping is still to be written when the last word is heard.
    let mut words = Vec::new();
    encode_message(&Message::Ping { token: 1 }, &mut words);
    encode_message(&Message::Failure(failure), &mut words);
    wire.say_bytes(&words).expect("the relay is there");
    wait_until("the connection to be closed", || relay.metric("relay_connections", &[]) == 0.0);
}

/// A client whose data channel is to run in datagrams, and that never sends one: nothing of a chunk goes
/// out to it.
fn join_for_datagrams(addr: SocketAddr, key: SwarmKey) -> Wire {
    let (mut wire, _) = Wire::greet(addr).expect("the relay is there");
    wire.send(&Message::DatagramRequest { channel: Channel::Data }).expect("the relay is there");
    wire.send(&Message::Hello(hello(key))).expect("the relay is there");
    parts_before(&mut wire, |message| matches!(message, Message::Accepted(_)));
    wire
}

#[test]
fn who_says_that_he_has_what_is_still_to_be_sent_keeps_nothing_of_it_in_memory() {
    let joins = [
        |addr, key| Wire::join(addr, hello(key)).expect("it may join"),
        join_for_datagrams as fn(SocketAddr, SwarmKey) -> Wire,
    ];
    for join in joins {
        // Room for eight chunks of the largest size.
        let relay = RelayProcess::start(relay(), &["--cores", "1", "--cache", "1M"]);
        let file = Arc::new(TestFile::new(1, 1 << 20, 17));
        let origin = Origin::start(relay.addr, &file);
        let chunks = file.key().chunk_count();
        let mut idle = Vec::new();
        for chunk in 0..chunks {
            let mut wire = join(relay.addr, file.key());
            let claim = |first, count| ChunkRange { first, count };
            let others = [claim(0, chunk), claim(chunk + 1, chunks - chunk - 1)];
            let ranges = others.into_iter().filter(|range| range.count > 0).collect();
            wire.send(&Message::Have { ranges }).expect("the relay is there");
            // Enough to be given a chunk, and too little for its first frame.
            let grant = Message::Progress { received_bytes: 0, granted_bytes: 1 };
            wire.send(&grant).expect("the relay is there");
            let given = f64::from(chunk + 1) * f64::from(1 << 17);
            relay.wait_metric("relay_data_passed_on_bytes_total", &[], given);
            parts_before_pong(&mut wire, 1);
            let ranges = vec![claim(chunk, 1)];
            wire.send(&Message::Have { ranges }).expect("the relay is there");
            idle.push(wire);
        }
        let another = Arc::new(TestFile::new(2, 1 << 20, 17));
        let another_origin = Origin::start(relay.addr, &another);
        download(relay.addr, &another);
        assert!(origin.is_serving() && another_origin.is_serving());
        // They are all there: none was closed to make room.
        for wire in &mut idle {
            parts_before_pong(wire, 2);
        }
    }
}

/// A client whose data channel runs in datagrams, and that falls silent in them once the relay knows it: it acknowledges
/// nothing of what it is sent.
fn fall_silent_in_datagrams(addr: SocketAddr, key: SwarmKey) -> (Wire, UdpSocket) {
    let (mut wire, _) = Wire::greet(addr).expect("the relay is there");
    wire.send(&Message::DatagramRequest { channel: Channel::Data }).expect("the relay is there");
    wire.send(&Message::Hello(hello(key))).expect("the relay is there");
    let offer = loop {
        match wire.hear().expect("the relay is there") {
            Heard::Control(Message::DatagramOffer(offer)) => break offer,
            Heard::Closed => panic!("the relay closed the connection"),
            _ => {}
        }
    };
    let config = DatagramsConfig {
        address: Address { shard: offer.shard, connection: offer.connection },
        secret: wire.datagram_secret(),
        channel: Channel::Data,
        path: PathSettings {
            congestion: CongestionControl::Cubic,
            room_bytes: 1 << 20,
            datagram_bytes_max: None,
            is_local: true,
        },
    };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("it can be set");
    let now = || Time::from_start(shards::clock::now()) + Duration::from_secs(1);
    let trust = Trust::first_seen();
    let mut datagrams = Datagrams::connect(&config, &trust, ("relay", addr), now());
    // The relay's last word of a handshake is a frame of its own: two rounds more bring it.
    let mut rounds_left = 2;
    while rounds_left > 0 {
        let mut out = Vec::new();
        while let Some(way) = datagrams.poll_transmit(now(), 1, &mut out) {
            socket.send_to(&out, way.route.remote).expect("loopback takes it");
            out.clear();
        }
        let mut bytes = vec![0; 64 << 10];
        if let Ok(count) = socket.recv(&mut bytes) {
            let route = Route { socket: 0, remote: addr, local: None };
            let handled = datagrams.handle_datagram::<()>(now(), route, &bytes[..count]);
            handled.expect("the relay keeps to the protocol");
        } else if datagrams.poll_timeout().is_some_and(|due| due <= now()) {
            datagrams.handle_timeout::<()>(now()).expect("the relay answers");
        }
        rounds_left -= u32::from(datagrams.is_open());
    }
    (wire, socket)
}

#[test]
fn who_acknowledges_nothing_in_datagrams_keeps_nothing_from_others() {
    const SILENT: u32 = 60;
    // Room for four chunks of the largest size.
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe", "--cache", "1M"]);
    let file = Arc::new(TestFile::new(1, 2 << 20, 17));
    let origin = Origin::start(relay.addr, &file);
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let (mut wire, socket) = fall_silent_in_datagrams(relay.addr, file.key());
        let grant = Message::Progress { received_bytes: 0, granted_bytes: u64::MAX };
        wire.send(&grant).expect("the relay is there");
        silent.push((wire, socket));
    }
    let sent = || relay.metric("relay_bytes_total", &["direction=\"out\"", "kind=\"data\""]);
    wait_until("each silent one to be sent something", || sent() >= f64::from(SILENT * (16 << 10)));
    // Others get this file and another one, though QUIC would keep what the silent ones were sent.
    for _ in 0..5 {
        download(relay.addr, &file);
    }
    let another = Arc::new(TestFile::new(2, 1 << 20, 17));
    let another_origin = Origin::start(relay.addr, &another);
    download(relay.addr, &another);
    assert!(origin.is_serving() && another_origin.is_serving());
    assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
}
