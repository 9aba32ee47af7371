//! Relays behind relays, with the real programs: what is shared at one can be got at the others, each takes it in once,
//! and what happens when one of them goes, refuses, or names the other in a circle.

use std::{fs, sync::Arc};

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    process::{RelayProcess, run},
    wait_until,
};

const FILE_BYTES: usize = 3 << 20;

/// A relay behind that one.
fn edge(hub: &RelayProcess, more: &[&str]) -> RelayProcess {
    let hub = hub.addr.to_string();
    RelayProcess::start(relay(), &[&["--upstream", &hub][..], more].concat())
}

fn file(seed: u64) -> Arc<TestFile> {
    Arc::new(TestFile::new(seed, FILE_BYTES, 16))
}

/// File bytes that crossed its sockets, in files.
fn moved(relay: &RelayProcess, direction: &str) -> f64 {
    let direction = format!("direction=\"{direction}\"");
    relay.metric("relay_bytes_total", &[&direction, "kind=\"data\""]) / FILE_BYTES as f64
}

#[test]
fn what_is_shared_above_comes_once_and_goes_to_all_below() {
    let hub = RelayProcess::start(relay(), &[]);
    let edges = [edge(&hub, &[]), edge(&hub, &[])];
    let file = file(1);
    let origin = Origin::start(hub.addr, &file);
    for _ in 0..2 {
        edges.iter().for_each(|edge| download(edge.addr, &file));
    }
    assert!(origin.is_serving());
    assert!(moved(&hub, "in") < 1.2, "the origin gave {} files", moved(&hub, "in"));
    for edge in &edges {
        assert!(
            edge.metric("relay_uplink_bytes_total", &["direction=\"in\""]) >= FILE_BYTES as f64
        );
        assert_eq!(edge.metric("relay_uplink_bytes_total", &["direction=\"out\""]), 0.0);
    }
}

#[test]
fn what_is_shared_below_can_be_got_above_and_beside() {
    let hub = RelayProcess::start(relay(), &[]);
    let (edge, other) = (edge(&hub, &[]), edge(&hub, &[]));
    let file = file(2);
    let _origin = Origin::start(edge.addr, &file);
    edge.wait_metric("relay_uplink_connected", &[], 1.0);
    download(hub.addr, &file);
    download(other.addr, &file);
    assert!(moved(&edge, "in") < 1.2, "the origin gave {} files", moved(&edge, "in"));
    assert!(edge.metric("relay_uplink_bytes_total", &["direction=\"out\""]) >= FILE_BYTES as f64);
}

#[test]
fn a_chain_of_three_moves_a_file_from_end_to_end() {
    let hub = RelayProcess::start(relay(), &[]);
    let middle = edge(&hub, &[]);
    let last = edge(&middle, &[]);
    let down = file(3);
    let _origin = Origin::start(hub.addr, &down);
    download(last.addr, &down);
    let up = file(4);
    let _another = Origin::start(last.addr, &up);
    last.wait_metric("relay_uplink_connected", &[], 1.0);
    middle.wait_metric("relay_uplink_connected", &[], 1.0);
    download(hub.addr, &up);
}

#[test]
fn peers_below_go_on_without_the_relay_above_and_it_is_found_again() {
    let mut hub = RelayProcess::start(relay(), &[]);
    let edge = edge(&hub, &[]);
    let file = file(5);
    let _origin = Origin::start(edge.addr, &file);
    edge.wait_metric("relay_uplink_connected", &[], 1.0);
    hub.kill();
    wait_until("the edge to miss it", || edge.log().contains("is away"));
    download(edge.addr, &file);
    let hub = RelayProcess::start_on(relay(), hub.addr, &[]);
    download(hub.addr, &file);
    assert!(edge.log().contains("is there again"), "{}", edge.log());
}

#[test]
fn relays_that_name_each_other_say_so_and_serve_their_own_peers() {
    let mut first = RelayProcess::start(relay(), &[]);
    let addr = first.addr;
    let second = edge(&first, &[]);
    first.kill();
    let first = RelayProcess::start_on(relay(), addr, &["--upstream", &second.addr.to_string()]);
    let file = file(6);
    let _origins = [Origin::start(first.addr, &file), Origin::start(second.addr, &file)];
    let is_refused = |relay: &RelayProcess| relay.log().contains("in a circle");
    wait_until("one to say so", || is_refused(&first) || is_refused(&second));
    download(first.addr, &file);
    download(second.addr, &file);
    assert_eq!(
        first.metric("relay_panics_total", &[]) + second.metric("relay_panics_total", &[]),
        0.0
    );
}

#[test]
fn an_edge_needs_the_token_of_the_relay_above_and_its_pin() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let token = dir.path().join("tokens");
    fs::write(&token, "the token of the hub\n").expect("a file can be written");
    let (token, identity) = (token.display().to_string(), dir.path().join("key"));
    let hub = RelayProcess::start(
        relay(),
        &["--token-file", &token, "--identity-file", &identity.display().to_string()],
    );
    let file = file(7);
    let without = edge(&hub, &[]);
    let _origin = Origin::start(without.addr, &file);
    wait_until("a word about the token", || without.log().contains("--upstream-token-file"));
    let with = edge(&hub, &["--upstream-token-file", &token]);
    let _another = Origin::start(with.addr, &file);
    with.wait_metric("relay_uplink_connected", &[], 1.0);
    // Another relay's pin.
    let other = format!("{}#{}", hub.addr, without.pin);
    let misled =
        RelayProcess::start(relay(), &["--upstream", &other, "--upstream-token-file", &token]);
    let _third = Origin::start(misled.addr, &file);
    wait_until("a word about the pin", || misled.log().contains("pin"));
    assert_eq!(misled.metric("relay_uplink_connected", &[]), 0.0);
    download(misled.addr, &file);
}

#[test]
fn a_sealed_share_of_one_relay_is_got_at_another() {
    let hub = RelayProcess::start(relay(), &[]);
    let edge = edge(&hub, &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("movie.mkv");
    let plain = TestFile::new(8, 700_001, 16);
    fs::write(&path, &plain.bytes).expect("a file can be written");
    let (sharing, ticket) = share(&path, hub.addr, &dir.path().join("state"), &[]);
    let got = dir.path().join("got");
    let (ticket, at) = (ticket.to_string(), edge.addr.to_string());
    let ended = run(peer(&["get", &ticket, "--relay", &at, "-o"]).arg(&got));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(fs::read(&got).expect("it is there") == plain.bytes);
    end(sharing);
}
