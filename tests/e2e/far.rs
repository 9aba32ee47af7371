//! Long paths: what a get takes in round trips, whatever the machine's pace.
//!
//! A proxy adds time to each direction and holds nothing up otherwise.

use std::{process::Stdio, sync::Arc, time::Duration};

use relay::protocol::{RelayAddr, Ticket};
use shards::clock;

use crate::support::{
    file::TestFile,
    honest::Origin,
    network::{Faults, Proxy},
    process::RelayProcess,
};

/// Long against what all the work takes, on a slow machine too.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Far more than goes at once on a path near by: forty of its first windows.
const FILE_BYTES: usize = 10 << 20;

/// Round trips that a get takes at most. Consent, data, and leave take one each; the handshake of an origin that
/// is far, its manifest and its chunks are not counted with the get's own, but fall into the same bound.
/// With a window that grows by a constant, or four fetches at a time, it takes more than twenty.
const ROUND_TRIPS_MAX: u32 = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Getter,
    Origin,
}

/// The round trips that one get takes if this side is far, and what it says.
fn round_trips(side: Side) -> (f64, String) {
    let relay = RelayProcess::start(crate::programs::relay(), &[]);
    let faults = Faults { delay: ROUND_TRIP / 2, ..Faults::default() };
    let proxy = Proxy::start(relay.addr, 1, faults);
    let file = Arc::new(TestFile::new(7, FILE_BYTES, 16));
    let at = |far: Side| if side == far { proxy.addr } else { relay.addr };
    let origin = Origin::start(at(Side::Origin), &file);
    let addr = at(Side::Getter);
    let addr = RelayAddr::new(&addr.ip().to_string(), addr.port()).expect("an address");
    let ticket = Ticket::new(addr, file.key(), "got").expect("a short name").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let began = clock::now();
    let get = crate::programs::peer(&[])
        .args(["get", &ticket])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let took = clock::now() - began;
    let said = String::from_utf8_lossy(&get.stderr).into_owned();
    assert!(get.status.success(), "{said}");
    let got = std::fs::read(dir.path().join("got")).expect("it is there");
    assert!(got == file.bytes, "the file differs");
    assert!(origin.is_serving(), "it would serve others, too");
    (took.as_secs_f64() / ROUND_TRIP.as_secs_f64(), said)
}

#[test]
fn a_get_over_a_long_path_takes_a_few_round_trips() {
    let (round_trips, said) = round_trips(Side::Getter);
    assert!(round_trips < f64::from(ROUND_TRIPS_MAX), "{round_trips} round trips: {said}");
}

#[test]
fn a_get_from_an_origin_far_away_takes_a_few_round_trips() {
    let (round_trips, said) = round_trips(Side::Origin);
    assert!(round_trips < f64::from(ROUND_TRIPS_MAX), "{round_trips} round trips: {said}");
}
