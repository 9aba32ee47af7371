//! Too much of something: silence, floods, no descriptors, peers that take nothing. The relay
//! bounds what each costs, counts it, and serves the honest beside it.

use std::{process::Command, sync::Arc};

use relay::protocol::{
    Claims, Digest, FailureCode, Hello, Message, PREAMBLE_BYTES, SwarmKey, encode_preamble,
    limits::HANDSHAKE_TIMEOUT,
};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin, download},
    http, in_background,
    process::RelayProcess,
    wait_until,
    wire::{Heard, Wire, hello},
};

/// Un-introduced connections that the relay allows.
const UNINTRODUCED_MAX: usize = 2048;

/// As the relay has it: files at once.
const SWARMS_MAX: usize = 1024;

/// As the relay has it: connections that only ask for counters.
const OBSERVERS_MAX: usize = 256;

/// Allows this process all the descriptors that it may have, since tests run side by side in it;
/// whether they are as many as are wanted here.
fn allow_descriptors(wanted: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < wanted) {
        println!("only {:?} descriptors are allowed here", limit.maximum);
        return false;
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("no more than the hard limit");
    true
}

#[test]
fn silence_is_ended_and_counted_whatever_it_follows() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(1, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    let mut silent = Vec::new();
    silent.push(Wire::connect(relay.addr).expect("connected"));
    let mut half_preamble = Wire::connect(relay.addr).expect("connected");
    half_preamble.send_bytes(&encode_preamble()[..PREAMBLE_BYTES / 2]).expect("sent");
    silent.push(half_preamble);
    silent.push(Wire::greet(relay.addr).expect("greeted").0);
    let (mut no_bitfield, _) = Wire::greet(relay.addr).expect("greeted");
    let claims = Claims::Some;
    no_bitfield
        .send(&Message::Hello(crate::support::wire::with_claims(&file, claims)))
        .expect("sent");
    silent.push(no_bitfield);
    // Talk is no introduction.
    let (mut talker, _) = Wire::greet(relay.addr).expect("greeted");
    let talking = in_background(move || {
        for token in 0.. {
            let ping = Message::Ping { token };
            if talker.send(&ping).is_err() || talker.hear().is_err() {
                return;
            }
            crate::support::pause(HANDSHAKE_TIMEOUT / 50);
        }
    });
    download(relay.addr, &file);
    for mut wire in silent {
        wire.hear_end();
    }
    talking.join().expect("the talker was cut off");
    let label = ["reason=\"handshake_timeout\""];
    assert_eq!(relay.metric("relay_connections_refused_total", &label), 5.0);
    download(relay.addr, &file);
}

#[test]
fn a_flood_of_connections_pushes_out_its_own_oldest() {
    let flood = UNINTRODUCED_MAX + 400;
    if !allow_descriptors(flood as u64 + 200) {
        return;
    }
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(2, 1 << 20, 16));
    let origin = Origin::start(relay.addr, &file);
    let mut early = Download::join(relay.addr, file.key()).expect("it may join");
    let mut wires: Vec<_> =
        (0..flood).map(|_| Wire::connect(relay.addr).expect("connected")).collect();
    let label = ["reason=\"handshake_flood\""];
    relay.wait_metric("relay_connections_refused_total", &label, 400.0);
    // The oldest went first.
    assert_eq!(wires.remove(0).hear_end(), None);
    // What is refused counts as open until its shard has closed it, a moment later.
    wait_until("the rest of the flood to be closed", || {
        relay.metric("relay_connections", &[]) <= (UNINTRODUCED_MAX + 2) as f64
    });
    // Peers that were there go on, and one that comes now gets in.
    while !early.is_complete() {
        early.step().expect("the early client gets the file");
    }
    download(relay.addr, &file);
    assert!(origin.is_serving());
    let resident = relay.metric("process_resident_memory_bytes", &[]);
    assert!(resident < f64::from(1 << 28), "{resident} bytes are resident");
}

#[test]
fn a_flood_of_observers_pushes_out_those_that_ask_nothing() {
    if !allow_descriptors(OBSERVERS_MAX as u64 + 200) {
        return;
    }
    let relay = RelayProcess::start(relay(), &["--cores", "1"]);
    let observe = || {
        let file = TestFile::new(2, 1, 16);
        Wire::join(relay.addr, Hello { key: None, ..hello(file.key()) }).expect("it may ask")
    };
    let ask = |wire: &mut Wire| {
        wire.send(&Message::StatsRequest).expect("it is connected");
        assert!(matches!(wire.hear(), Ok(Heard::Control(Message::Stats(_)))), "it is answered");
    };
    let (mut asks, mut silent) = (observe(), observe());
    let _others: Vec<_> = (2..OBSERVERS_MAX).map(|_| observe()).collect();
    ask(&mut asks);
    let mut late = observe();
    let told = silent.hear_end().expect("it is told why");
    assert_eq!(told.code, FailureCode::TooManyPeers);
    ask(&mut asks);
    ask(&mut late);
    let label = ["reason=\"observer_flood\""];
    relay.wait_metric("relay_connections_refused_total", &label, 1.0);
    let open = relay.metric("relay_connections", &[]);
    assert!(open <= OBSERVERS_MAX as f64 + 1.0, "{open} are open");
}

#[test]
fn running_out_of_descriptors_refuses_and_recovers() {
    const DESCRIPTORS: usize = 200;
    if !allow_descriptors(1000) {
        return;
    }
    // The limit is the relay's alone: a shell lowers it and becomes the relay.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""));
    command.arg(env!("CARGO_BIN_EXE_relay"));
    let relay = RelayProcess::start(command, &[]);
    assert!(relay.log().contains("--max-peers lowered"), "{}", relay.log());
    let file = Arc::new(TestFile::new(3, 1 << 20, 16));
    let origin = Origin::start(relay.addr, &file);
    let mut early = Download::join(relay.addr, file.key()).expect("it may join");
    let flood: Vec<_> = (0..DESCRIPTORS + 100).map(|_| Wire::connect(relay.addr)).collect();
    wait_until("the log to say so", || relay.log().contains("refused a connection"));
    while !early.is_complete() {
        early.step().expect("who was there is served");
    }
    drop(flood);
    wait_until("HTTP to answer again", || {
        http::get(relay.http, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    relay.wait_metric("relay_connections_refused_total", &["reason=\"descriptors\""], 1.0);
    wait_until("the flood to be over", || relay.metric("relay_connections", &[]) <= 2.0);
    download(relay.addr, &file);
    assert!(origin.is_serving());
    let lines = relay.log().lines().filter(|line| line.contains("refused a connection")).count();
    assert!(lines <= 1000, "{lines} lines: it does not try thousands of times");
}

#[test]
fn peers_beyond_the_most_are_told_to_come_later() {
    let relay = RelayProcess::start(relay(), &["--max-peers", "3"]);
    let file = Arc::new(TestFile::new(4, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    let first = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    let _second = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    let (mut third, _) = Wire::greet(relay.addr).expect("greeted");
    third.send(&Message::Hello(hello(file.key()))).expect("sent");
    let failure = third.hear_end().expect("it is told why");
    assert_eq!(failure.code, FailureCode::TooManyPeers);
    assert!(failure.text.contains("--max-peers"), "{}", failure.text);
    relay.wait_metric("relay_connections_refused_total", &["reason=\"too_many_peers\""], 1.0);
    drop(first);
    wait_until("a place to be free", || Wire::join(relay.addr, hello(file.key())).is_ok());
    wait_until("it to be free again", || relay.metric("relay_peers", &[]) <= 2.0);
    download(relay.addr, &file);
}

#[test]
fn files_beyond_the_most_wait_for_one_to_end() {
    if !allow_descriptors(SWARMS_MAX as u64 + 200) {
        return;
    }
    let relay = RelayProcess::start(relay(), &[]);
    let key_of = |file: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(file as u64).to_le_bytes());
        SwarmKey { id: Digest(id), size_bytes: 1 << 20, chunk_size_log2: 16 }
    };
    let join = |file: usize| Wire::join(relay.addr, hello(key_of(file)));
    let mut wires: Vec<_> = (0..SWARMS_MAX).map(|file| join(file).expect("it may join")).collect();
    let (mut late, _) = Wire::greet(relay.addr).expect("greeted");
    late.send(&Message::Hello(hello(key_of(SWARMS_MAX)))).expect("sent");
    let failure = late.hear_end().expect("it is told why");
    // With this code a peer asks again, instead of taking the file for given up.
    assert_eq!(failure.code, FailureCode::TooManyPeers);
    assert!(failure.text.contains("1024 files"), "{}", failure.text);
    relay.wait_metric("relay_connections_refused_total", &["reason=\"too_many_files\""], 1.0);
    drop(join(1).expect("another peer of a file that is there may join"));
    wires.pop();
    wait_until("a place to be free", || join(SWARMS_MAX).is_ok());
}

#[test]
fn who_takes_nothing_pins_nothing_and_is_cut_off() {
    // Eight chunks of cache, and as many stuck readers as would fill it many times.
    let relay = RelayProcess::start(relay(), &["--cache", "512K"]);
    let file = Arc::new(TestFile::new(5, 4 << 20, 16));
    let origin = Origin::start(relay.addr, &file);
    let mut stuck: Vec<_> = (0..20)
        .map(|_| {
            let mut wire = Wire::join(relay.addr, hello(file.key())).expect("it may join");
            let progress = Message::Progress { received_bytes: 0, granted_bytes: 1 << 30 };
            wire.send(&progress).expect("sent");
            wire
        })
        .collect();
    download(relay.addr, &file);
    download(relay.addr, &file);
    let peak = relay.metric("relay_chunk_bytes_peak", &[]);
    assert!(peak <= f64::from(512 << 10), "{peak}");
    for wire in &mut stuck {
        wire.hear_end();
    }
    relay.wait_metric("relay_connections_stalled_total", &[], 20.0);
    download(relay.addr, &file);
    assert!(origin.is_serving());
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0);
}

#[test]
fn chunks_that_nobody_holds_end_the_wait_with_how_many() {
    let relay = RelayProcess::start(relay(), &["--missing-timeout", "2s"]);
    let file = TestFile::new(6, 1 << 20, 16);
    let mut lonely = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    let progress = Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 };
    lonely.send(&progress).expect("sent");
    let failure = lonely.hear_end().expect("it is told why");
    assert_eq!(failure.code, FailureCode::ChunksMissing);
    assert!(failure.text.contains("16"), "{}", failure.text);
}

#[test]
fn a_peer_that_reads_nothing_is_gone_soon_after_it_was_closed() {
    let relay = RelayProcess::start(relay(), &["--missing-timeout", "1s"]);
    let file = TestFile::new(8, 1 << 20, 16);
    let mut deaf = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    deaf.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 }).expect("sent");
    // It asks for more than sockets and queues hold the answers to: the relay stops reading.
    let pings = deaf.flood(&Message::Ping { token: u64::MAX });
    assert!(pings > 1000, "{pings} were taken");
    wait_until("the relay to give it up", || relay.log().contains("closing: nobody"));
    // Its part in the swarm ends at once, its socket when it has had its time.
    wait_until("its swarm to be without it", || relay.metric("relay_peers", &[]) < 1.0);
    wait_until("its socket to be closed", || relay.metric("relay_connections", &[]) < 1.0);
    drop(deaf);
}
