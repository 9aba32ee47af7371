//! The relay's UDP port, from outside: it is the TCP port's, and it says nothing to strangers.

mod support;

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
    time::Duration,
};

use support::process::{RelayProcess, run};

fn relay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_relay"))
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
fn a_udp_port_that_somebody_else_has_is_named() {
    let somebody = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let addr: SocketAddr = somebody.local_addr().expect("bound");
    // As far as TCP goes it is free, or the test would show nothing.
    if TcpListener::bind(addr).is_err() {
        return;
    }
    let listen = addr.to_string();
    let ended = run(relay().args(["--listen", &listen, "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("UDP"), "{}", ended.stderr);
    assert!(ended.stderr.contains("another program uses the port"), "{}", ended.stderr);
}
