//! `peer get` and `peer check` at another relay than the ticket's, with the real programs: which pin that relay must
//! show, and what the user hears if it shows another.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::process::{Ended, RelayProcess, Running, run};

const CONTENT: &[u8] = b"what is shared\n";

/// A file that is shared at one relay, and by the same ticket at another one, which has a key of its own.
struct Stage {
    dir: TempDir,
    here: RelayProcess,
    there: RelayProcess,
}

fn relay_with_key(dir: &Path, name: &str) -> RelayProcess {
    let identity = dir.join(name).display().to_string();
    RelayProcess::start(relay(), &["--identity-file", &identity])
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        fs::write(dir.path().join("file"), CONTENT).expect("a file can be written");
        fs::write(dir.path().join("other"), CONTENT.to_ascii_uppercase()).expect("another one");
        let here = relay_with_key(dir.path(), "here");
        let there = relay_with_key(dir.path(), "there");
        Self { dir, here, there }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn there(&self) -> String {
        self.there.addr.to_string()
    }

    /// A ticket of a share here that has ended, and a share by it there.
    fn move_there(&self, more: &[&str]) -> (Running, String) {
        let state = self.path("state");
        let (sharing, ticket) = share(&self.path("file"), self.here.addr, &state, more);
        end(sharing);
        let ticket = ticket.to_string();
        let by_ticket = [&["--ticket", &ticket][..], more].concat();
        let (sharing, _) = share(&self.path("file"), self.there.addr, &state, &by_ticket);
        (sharing, ticket)
    }

    fn run(&self, args: &[&str], relay: Option<&str>) -> Ended {
        let mut command = peer(args);
        command.env("XDG_STATE_HOME", self.path("state of the getter"));
        if let Some(relay) = relay {
            command.env("PEER_RELAY", relay);
        }
        run(&mut command)
    }

    fn get(&self, ticket: &str, more: &[&str]) -> Ended {
        let got = self.text("got");
        let args = [&["get", ticket, "--force", "--timeout", "3s", "-o", &got][..], more].concat();
        let ended = self.run(&args, None);
        if ended.code == 0 {
            assert_eq!(fs::read(&got).expect("it is there"), CONTENT);
        }
        ended
    }
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' in: {text}");
    }
}

#[test]
fn another_relay_than_the_tickets_is_believed_by_the_pin_that_the_user_gives() {
    let stage = Stage::new();
    let (sharing, ticket) = stage.move_there(&[]);
    let pinned = format!("{}#{}", stage.there(), stage.there.pin);
    let ended = stage.get(&ticket, &["--relay", &pinned]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ticket_names = format!("the ticket names {}", stage.here.addr);
    says(&ended.stderr, &["through", &stage.there(), "--relay", &ticket_names]);
    let other = stage.text("other");
    let ended = stage.run(&["check", &other, &ticket, "--relay", &pinned], None);
    says(&ended.stderr, &["chunk 0"]);
    let ended = stage.run(&["check", &other, &ticket], Some(&pinned));
    says(&ended.stderr, &["chunk 0"]);
    let ended = stage.run(&["check", &other, &ticket], None);
    says(&ended.stderr, &["no peer that has the file"]);
    assert!(!stage.path("state of the getter").exists(), "a pin says all: nothing is remembered");
    // Without a pin, or with a wrong one, it is not.
    let (ours, theirs) = (stage.here.pin.to_string(), stage.there.pin.to_string());
    let advice = format!("--relay {}#PIN", stage.there());
    for args in
        [&["get", &ticket, "-o", &stage.text("got"), "--force"][..], &["check", &other, &ticket]]
    {
        let ended = stage.run(args, Some(&stage.there()));
        assert_eq!(ended.code, 1);
        says(
            &ended.stderr,
            &["names another relay", &ours, &theirs, &advice, "PEER_RELAY", "leave --relay out"],
        );
    }
    let wrong = format!("{}#{ours}", stage.there());
    let ended = stage.get(&ticket, &["--relay", &wrong]);
    assert_eq!(ended.code, 1);
    says(&ended.stderr, &["--relay names", &ours, &theirs, "impostor"]);
    end(sharing);
}

#[test]
fn the_tickets_relay_by_another_name_is_believed_by_the_tickets_pin() {
    let stage = Stage::new();
    let state = stage.path("state");
    let (sharing, ticket) = share(&stage.path("file"), stage.here.addr, &state, &[]);
    let name = format!("localhost:{}", stage.here.addr.port());
    // A name that leads nowhere, so that only the other one leads there.
    let mut lost = ticket;
    lost.relay = "relay.invalid:1".parse().expect("a name");
    let ended = stage.get(&lost.to_string(), &["--relay", &name]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!stage.path("state of the getter").exists(), "nothing is remembered");
    let ended = stage.get(&lost.to_string(), &["--relay", "http://relay"]);
    assert_eq!(ended.code, 2);
    says(&ended.stderr, &["--relay", "a relay has no URL"]);
    end(sharing);
}

#[test]
fn without_any_pin_another_relay_is_met_as_any_other() {
    let stage = Stage::new();
    let (sharing, ticket) = stage.move_there(&["--plain"]);
    let ended = stage.get(&ticket, &["--relay", &stage.there()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    says(&ended.stderr, &["for the first time", &stage.there.pin.to_string()]);
    let known = fs::read_to_string(stage.path("state of the getter/relay/known_relays"));
    assert_eq!(known.expect("it is there"), format!("{} {}\n", stage.there(), stage.there.pin));
    end(sharing);
}
