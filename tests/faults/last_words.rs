//! Why a connection ends reaches the peer that is closed, even if it was sending all the while; and
//! one that goes on sending is cut off all the same.

use std::sync::Arc;

use relay::protocol::{FailureCode, Message};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    process::{RelayProcess, drivers},
    wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

/// What a closing relay takes and discards of one connection.
const LINGER_BYTES_MAX: usize = 32 << 20;

#[test]
fn a_peer_that_floods_hears_why_it_is_closed() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let file = Arc::new(TestFile::new(1, 1 << 20, 16));
        let origin = Origin::start(relay.addr, &file);
        for round in 0..10 {
            let mut wire = Wire::join(relay.addr, hello(file.key())).expect("it may join");
            // File bytes that were not asked for: the first frame is the fault, the rest is more
            // than the sockets hold. It reads nothing before all is sent.
            for _ in 0..16 {
                wire.send_chunk(round, 0, &file.bytes).expect("what comes late is taken");
            }
            let failure = wire.hear_end().expect("it is told why");
            assert_eq!(failure.code, FailureCode::Protocol, "{failure}");
            assert!(failure.text.contains("did not ask"), "{failure}");
        }
        download(relay.addr, &file);
        assert!(origin.is_serving());
        wait_until("all of them to be gone", || relay.metric("relay_connections", &[]) <= 1.0);
    }
}

#[test]
fn a_flood_that_does_not_end_is_cut() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = TestFile::new(2, 1 << 20, 16);
    let mut wire = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    let mut sent = 0;
    while wire.send_chunk(0, 0, &file.bytes).is_ok() {
        sent += file.bytes.len();
        assert!(sent < 4 * LINGER_BYTES_MAX, "it is taken for ever");
    }
    // The peer is gone, not only its words.
    wait_until("it to be gone", || relay.metric("relay_connections", &[]) < 1.0);
    let taken = relay.metric("relay_bytes_total", &["direction=\"in\""]);
    let most = LINGER_BYTES_MAX as f64 + f64::from(1 << 20);
    assert!(taken <= most, "{taken} bytes were taken");
}

#[test]
fn a_banned_peer_that_goes_on_sending_hears_that_it_is_banned() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(3, 1 << 20, 16));
    let mut liar = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut client = Wire::join(relay.addr, hello(file.key())).expect("a client may join");
    client.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 }).expect("sent");
    // Every fetch is answered, and every answer is wrong.
    let failure = loop {
        match liar.hear().expect("the relay speaks") {
            Heard::Control(Message::ManifestRequest) => {
                for part in file.manifest.parts(0) {
                    liar.send(&part).expect("sent");
                }
            }
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let wrong: Vec<u8> = file.chunk(chunk).iter().map(|byte| !byte).collect();
                liar.send_chunk(fetch_id, chunk, &wrong).expect("what comes late is taken");
            }
            Heard::Control(Message::Failure(failure)) => break failure,
            Heard::Closed => panic!("it was not told why"),
            _ => {}
        }
    };
    assert_eq!(failure.code, FailureCode::Banned);
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 1.0);
    // Its part in the swarm has ended, though it keeps its socket open.
    wait_until("the swarm to be without it", || relay.metric("relay_peers", &[]) <= 1.0);
    drop((liar, client));
}
