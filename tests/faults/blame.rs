//! A liar that was cut off comes back: it is not asked again while another peer has the file, and
//! its honest neighbours, which share its address, are served and serve as before.

#![cfg(target_os = "linux")]

use std::{net::Ipv4Addr, sync::Arc};

use relay::protocol::{Claims, Failure, FailureCode, Message};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin, download},
    in_background,
    process::RelayProcess,
    wire::{Heard, Wire, hello, origin_hello, with_claims},
};

/// Where the liar is. On Linux all of 127.0.0.0/8 is this machine.
const LIAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How often it comes back.
const RETURNS: usize = 10;

/// Answers every fetch with wrong bytes, until it is told why it is closed.
fn lie(mut wire: Wire, file: &TestFile) -> Option<Failure> {
    loop {
        match wire.hear() {
            Ok(Heard::Control(Message::ManifestRequest)) => {
                file.manifest.parts(0).for_each(|part| wire.send(&part).expect("sent"));
            }
            Ok(Heard::Control(Message::Fetch { fetch_id, chunk })) => {
                let wrong: Vec<u8> = file.chunk(chunk).iter().map(|byte| !byte).collect();
                wire.send_chunk(fetch_id, chunk, &wrong).ok();
            }
            Ok(Heard::Control(Message::Failure(failure))) => return Some(failure),
            Ok(Heard::Closed) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[test]
fn a_liar_that_comes_back_is_not_asked_again_and_its_neighbours_are_not_punished() {
    let relay = RelayProcess::start(relay(), &["--cache", "256K"]);
    let addr = relay.addr;
    let file = Arc::new(TestFile::new(1, 1 << 20, 14));
    let liar = Wire::connect_from(LIAR, addr).expect("a second loopback address");
    let liar = liar.joined(origin_hello(file.key())).expect("it may join");
    let waiting = in_background({
        let file = Arc::clone(&file);
        move || download(addr, &file)
    });
    // It is alone, so it is asked.
    let failure = lie(liar, &file).expect("it is told why");
    assert_eq!(failure.code, FailureCode::Banned);
    let origin = Origin::start(addr, &file);
    waiting.join().expect("the honest client gets the file");
    // It comes back, again and again, each time another peer wants the file.
    let returned: Vec<_> = (0..RETURNS)
        .map(|_| {
            let wire = Wire::connect_from(LIAR, addr).expect("connected");
            let claims = with_claims(&file, Claims::Everything);
            let wire = wire.joined(claims).expect("nobody is refused for his address");
            let of_liar = Arc::clone(&file);
            let lying = in_background(move || lie(wire, &of_liar));
            download(addr, &file);
            lying
        })
        .collect();
    // Only where the origin seemed to be stuck, as on a busy machine, was another peer tried.
    let again = relay.metric("relay_peers_banned_total", &[]) - 1.0;
    let hedges = relay.metric("relay_hedges_total", &[]);
    assert!(again <= hedges, "it was asked {again} times again, with {hedges} hedges");
    assert!(origin.is_serving());
    // An honest neighbour gets the file like every peer.
    let neighbour = Wire::connect_from(LIAR, addr).expect("connected");
    let neighbour = neighbour.joined(hello(file.key())).expect("it may join");
    Download::over(neighbour, file.key()).expect("it may ask").finish(&file).expect("it gets it");
    drop(relay);
    for lying in returned {
        let failure = lying.join().expect("a liar ends with the relay at the latest");
        assert!(failure.is_none_or(|failure| failure.code == FailureCode::Banned));
    }
}

#[test]
fn who_shares_an_address_with_a_liar_is_asked_when_nobody_else_has_the_file() {
    let relay = RelayProcess::start(relay(), &["--cache", "256K"]);
    let addr = relay.addr;
    let file = Arc::new(TestFile::new(2, 1 << 20, 14));
    let liar = Wire::connect_from(LIAR, addr).expect("a second loopback address");
    let liar = liar.joined(origin_hello(file.key())).expect("it may join");
    let waiting = in_background({
        let file = Arc::clone(&file);
        move || download(addr, &file)
    });
    assert!(lie(liar, &file).is_some());
    let neighbour = Wire::connect_from(LIAR, addr).expect("connected");
    let neighbour = neighbour.joined(origin_hello(file.key())).expect("it may join");
    let neighbour = Origin::serve(neighbour, &file);
    waiting.join().expect("the neighbour supplies the file");
    download(addr, &file);
    assert!(neighbour.is_serving());
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 1.0);
}
