//! `peer share --label`: what an origin would have its file called, from the command line, or from hostile
//! hands, to all who watch the relay.

use std::{path::Path, process::Command};

use relay::protocol::{FailureCode, Message, SwarmKey, encode_body};
use serde_json::Value;

use super::page::json;
use crate::support::{
    file::TestFile,
    process::{Ended, RelayProcess, Running, run},
    proxy::{Handlers, Proxy},
    wait_until,
    wire::{Wire, hello, origin_hello},
};

/// Number of the message.
const LABEL: u8 = 27;

fn relay() -> RelayProcess {
    RelayProcess::start(crate::programs::relay(), &[])
}

fn share(path: &Path, relay: std::net::SocketAddr, more: &[&str]) -> Command {
    let mut command = crate::programs::peer(&["share"]);
    command.arg(path).args(["--relay", &relay.to_string()]).args(more);
    command
}

/// What the relay calls its only file: in the list, and by itself.
fn label(relay: &RelayProcess) -> Value {
    let swarms = json(relay.http, "/api/v1/swarms");
    let Some(swarm) = swarms.pointer("/swarms/0") else { return Value::Null };
    let name = swarm["name"].as_str().expect("a name");
    let detail = json(relay.http, &format!("/api/v1/swarms/{name}"));
    assert!(swarm.get("label").is_some() && detail.get("label").is_some(), "{detail}");
    match detail["label"] == swarm["label"] {
        true => swarm["label"].clone(),
        // It came between the two questions.
        false => Value::Null,
    }
}

#[test]
fn whoever_watches_a_relay_is_told_what_the_first_origin_calls_its_file() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("secret name.bin");
    std::fs::write(&path, b"content").expect("a file can be written");
    for transport in ["tcp", "udp-control"] {
        let relay = relay();
        let own = ["--transport", transport, "--label", "Nightly <7> / größer"];
        let first = Running::start(&mut share(&path, relay.addr, &own));
        wait_until("the label", || label(&relay) == "Nightly <7> / größer");
        // Its answer shows that the relay has heard the second one's label.
        let second = Running::start(&mut share(&path, relay.addr, &["--label", "Mine", "--json"]));
        wait_until("a status", || second.stdout().contains(r#""event":"status""#));
        assert_eq!(label(&relay), "Nightly <7> / größer");
        first.kill();
        wait_until("one peer", || relay.metric("relay_peers", &[]) == 1.0);
        assert_eq!(label(&relay), "Nightly <7> / größer", "it is the swarm's");
    }
}

#[test]
fn a_label_that_does_not_show_is_wrong_usage() {
    let long = "x".repeat(65);
    for (label, why) in [
        ("", "it is empty"),
        (" x", "it begins or ends with a space"),
        ("a\u{202e}b", "characters that don't show"),
        ("a\nb", "characters that don't show"),
        (&long, "more than 64 bytes"),
    ] {
        let nowhere = "127.0.0.1:1".parse().expect("an address");
        let Ended { code, stderr, .. } =
            run(&mut share(Path::new("x"), nowhere, &["--label", label]));
        assert!(code == 2 && stderr.contains("--label") && stderr.contains(why), "{stderr}");
    }
}

#[test]
fn a_relay_that_knows_no_labels_is_named_as_the_reason() {
    let relay = relay();
    // To that relay such a message is what the label's is to an older one.
    let proxy = Proxy::start(relay.addr, || Handlers {
        up: Box::new(|frame| {
            if frame.message() == Some(LABEL) {
                frame.make_unknown();
            }
        }),
        down: Box::new(|_| {}),
    });
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("x.bin");
    std::fs::write(&path, b"content").expect("a file can be written");
    let Ended { code, stderr, .. } = run(&mut share(&path, proxy.addr, &["--label", "x"]));
    let says = "the relay does not take the label: share without --label, or update the relay";
    assert!(code == 1 && stderr.contains(says), "{stderr}");
}

#[test]
fn a_hostile_label_ends_its_connection_and_is_never_shown() {
    let relay = relay();
    let file = TestFile::new(1, 1000, 16);
    let key: SwarmKey = file.key();
    let _watched = Wire::join(relay.addr, hello(key)).expect("it may join");
    let told = |text: &str| {
        let mut body = Vec::new();
        encode_body(&Message::Label { text: "x".repeat(text.len()) }, &mut body);
        let at = body.len() - text.len();
        body[at..].copy_from_slice(text.as_bytes());
        body
    };
    for text in ["\u{1b}[2J", "a\u{202e}b", " x", "\u{200b}"] {
        let mut wire = Wire::join(relay.addr, origin_hello(key)).expect("it may join");
        wire.say_body(&told(text)).expect("sent");
        let failure = wire.hear_end().expect("it is told why");
        assert_eq!(failure.code, FailureCode::Protocol, "{failure}");
        assert_eq!(label(&relay), Value::Null, "{text:?}");
    }
    // Once more is no fault, and changes nothing.
    let mut wire = Wire::join(relay.addr, origin_hello(key)).expect("it may join");
    for text in ["First", "Second", "Third"] {
        wire.say_body(&told(text)).expect("sent");
    }
    wait_until("the label", || label(&relay) == "First");
}
