//! Datagrams as users meet them: files are shared, served and got over every transport; the relay's
//! UDP port is the TCP port's, says nothing to strangers, and is missed without harm.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
    sync::atomic::Ordering,
    time::Duration,
};

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    network::{Faults, Proxy},
    process::{RelayProcess, Running, drivers, run},
    wait_for, wait_until,
};
use relay::protocol::Ticket;
use rustix::process::Signal;
use tempfile::TempDir;

/// Five chunks of the protocol's default, the last of them short.
const FILE_BYTES: usize = (4 << 18) + 5;

/// A file in a directory of its own, and its path as text.
fn file(seed: u64) -> (TempDir, String, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("file");
    let bytes = TestFile::new(seed, FILE_BYTES, 18).bytes;
    std::fs::write(&path, &bytes).expect("a file can be written");
    let path = path.to_str().expect("temporary paths are text").to_owned();
    (dir, path, bytes)
}

/// Gets the ticket's file over this transport.
fn get(ticket: &str, transport: &str, dir: &TempDir) -> Vec<u8> {
    let target = dir.path().join("got");
    let text = target.to_str().expect("temporary paths are text");
    let ended = run(&mut peer(&["get", ticket, "-o", text, "--force", "--transport", transport]));
    assert_eq!(ended.code, 0, "{transport}: {}", ended.stderr);
    std::fs::read(target).expect("it is there")
}

#[test]
fn files_are_shared_served_and_got_over_every_transport_whatever_the_others_use() {
    let (dir, path, bytes) = file(1);
    let (_served_dir, served_path, served_bytes) = file(2);
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--serve", &served_path, "--driver", driver]);
        let served = relay.tickets[0].split(' ').next().expect("a ticket, then its file");
        let addr = relay.addr.to_string();
        let datagrams = || {
            ["control", "data"].map(|kind| {
                let kind = format!("kind=\"{kind}\"");
                relay.metric("relay_datagrams_total", &["direction=\"out\"", &kind])
            })
        };
        for (shares, gets) in [
            ("tcp", "tcp"),
            ("udp-control", "udp-control"),
            ("udp-data", "udp-data"),
            ("udp-data", "udp-control"),
            ("quic", "quic"),
            ("udp-control", "quic"),
        ] {
            let args = ["share", &path, "--relay", &addr, "--transport", shares];
            let running = Running::start(peer(&args).args(["--driver", driver]));
            let ticket = wait_for("the ticket", || {
                running.stdout().split_once('\n').map(|(line, _)| line.to_owned())
            });
            let before = datagrams();
            assert!(get(&ticket, gets, &dir) == bytes, "{shares} to {gets}");
            assert!(get(served, gets, &dir) == served_bytes, "served to {gets}");
            let [control, data] = [0, 1].map(|kind| datagrams()[kind] > before[kind]);
            // What carries file bytes also carries what is said of them.
            let runs = |kinds: &[&str]| kinds.contains(&shares) || kinds.contains(&gets);
            let expected = (runs(&["udp-control"]), runs(&["udp-data", "quic"]));
            assert_eq!((control, data), expected, "{shares} to {gets}");
            running.signal(Signal::INT);
            let ended = running.wait();
            assert_eq!(ended.code, 0, "{shares}: {}", ended.stderr);
        }
        assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0);
        assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
    }
}

#[test]
fn strangers_get_no_answer_whatever_they_send() {
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe"]);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    stranger.connect(relay.addr).expect("loopback");
    let mut sent = 0;
    for length in [1, 8, 36, 37, 100, 1200, 9000] {
        for first in [0_u8, 1, 2, 255] {
            // One that looks right but for its seal, and noise.
            let mut proper = vec![0; length];
            proper[0] = first;
            if let Some(kind) = proper.get_mut(1) {
                *kind = 1;
            }
            let noise: Vec<u8> =
                (0..length).map(|at| first ^ u8::try_from(at * 31 % 251).expect("small")).collect();
            for bytes in [proper, noise] {
                stranger.send(&bytes).expect("loopback takes it");
                sent += 1;
            }
        }
    }
    relay.wait_metric("relay_datagrams_total", &["direction=\"in\""], f64::from(sent));
    relay.wait_metric("relay_datagrams_dropped_total", &[], f64::from(sent));
    assert_eq!(relay.metric("relay_datagrams_total", &["direction=\"out\""]), 0.0);
    stranger.set_read_timeout(Some(Duration::from_millis(50))).expect("it can be set");
    assert!(stranger.recv(&mut [0; 2000]).is_err(), "it was answered");
}

#[test]
fn tcp_and_udp_have_the_same_port_and_both_are_the_relays_own() {
    let first = RelayProcess::start(relay(), &[]);
    UdpSocket::bind(first.addr).expect_err("the relay has the UDP port, too");
    let listen = first.addr.to_string();
    let ended = run(relay().args(["--listen", &listen, "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("another program uses the port"), "{}", ended.stderr);
}

#[test]
fn without_its_udp_port_a_relay_serves_streams_and_says_what_to_do_about_datagrams() {
    let somebody = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let addr: SocketAddr = somebody.local_addr().expect("bound");
    // As far as TCP goes it is free, or the test would show nothing.
    if TcpListener::bind(addr).is_err() {
        return;
    }
    let relay = RelayProcess::start_on(relay(), addr, &[]);
    assert!(relay.log().contains("another program has the UDP port"), "{}", relay.log());
    let (_dir, path, _) = file(3);
    for (transport, code) in [("udp-control", 1), ("udp-data", 1), ("tcp", 0)] {
        let to = addr.to_string();
        let args = ["share", &path, "--relay", &to, "--transport", transport];
        let running = Running::start(&mut peer(&args));
        if code == 0 {
            wait_until("the ticket", || running.stdout().contains('\n'));
            running.kill();
            continue;
        }
        let ended = running.wait();
        assert_eq!(ended.code, code, "{transport}: {}", ended.stderr);
        assert!(ended.stderr.contains("--transport tcp"), "{transport}: {}", ended.stderr);
    }
}

#[test]
fn who_is_not_answered_asks_on_one_more_connection_before_he_says_that_datagrams_are_blocked() {
    let blocked = Faults { datagram_bytes_max: Some(0), ..Faults::default() };
    let (_dir, path, bytes) = file(5);
    let relay = RelayProcess::start(relay(), &["--serve", &path]);
    let ticket = relay.tickets[0].split(' ').next().expect("a ticket, then its file");
    let mut ticket: Ticket = ticket.parse().expect("a ticket");
    for (transport, is_passing) in [("udp-control", true), ("udp-data", true), ("udp-data", false)]
    {
        let proxy = Proxy::start(relay.addr, 1, blocked);
        let streams = || proxy.happened.streams.load(Ordering::Relaxed);
        ticket.relay = proxy.addr.to_string().parse().expect("an address");
        let ticket = ticket.to_string();
        let dir = tempfile::tempdir().expect("a directory can be made");
        let target = dir.path().join("got");
        let text = target.to_str().expect("temporary paths are text");
        let args = ["get", &ticket, "-o", text, "--transport", transport];
        let running = Running::start(&mut peer(&args));
        if is_passing {
            wait_until("another attempt", || streams() >= 2);
            proxy.set(Faults::default());
        }
        let ended = running.wait();
        if is_passing {
            assert_eq!(ended.code, 0, "{transport}: {}", ended.stderr);
            assert!(std::fs::read(target).expect("it is there") == bytes, "{transport}");
        } else {
            assert_eq!((ended.code, streams()), (1, 2), "{}", ended.stderr);
            assert!(ended.stderr.contains("--transport tcp"), "{}", ended.stderr);
        }
    }
}

/// A file of zeros that takes no room, of so many bytes.
fn zeros(len: u64) -> (TempDir, String) {
    let (dir, path, _) = file(4);
    let zeros = std::fs::OpenOptions::new().write(true).truncate(true).open(&path);
    zeros.and_then(|file| file.set_len(len)).expect("a file can be long");
    (dir, path)
}

#[test]
fn a_get_that_stops_amid_datagrams_is_cut_off_and_goes_on_when_it_wakes() {
    const LEN: u64 = 256 << 20;
    let (_dir, path) = zeros(LEN);
    let relay = RelayProcess::start(relay(), &["--serve", &path]);
    let ticket = relay.tickets[0].split(' ').next().expect("a ticket, then its file");
    let given = || relay.metric("relay_bytes_total", &["direction=\"out\"", "kind=\"data\""]);
    let script = "exec \"$0\" get \"$1\" --output - --transport udp-data >/dev/null";
    // One that has got all before it is stopped shows nothing: then another one is.
    let stopped = (0..20).find_map(|_| {
        let before = given();
        let mut get = Command::new("sh");
        let get = get.args(["-c", script, env!("CARGO_BIN_EXE_peer"), ticket]);
        let running = Running::start(get);
        wait_until("data to be given", || given() > before);
        running.signal(Signal::STOP);
        (given() - before < LEN as f64 / 2.0).then_some(running)
    });
    let stopped = stopped.expect("twenty times the file was got at once");
    relay.wait_metric("relay_connections_stalled_total", &[], 1.0);
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0);
    stopped.signal(Signal::CONT);
    let ended = stopped.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}
