//! What shares and gets say of how they are doing: as it is now, in words that help, and in time.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use relay::protocol::{RelayAddr, Ticket};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::{Download, download},
    network::{Faults, Proxy},
    pause,
    process::{Ended, RelayProcess, Running},
    wait_for, wait_until,
    wire::{Wire, hello},
};

const CHUNK_SIZE_LOG2: u8 = 18;

struct Stage {
    dir: TempDir,
    path: PathBuf,
    file: TestFile,
}

impl Stage {
    fn new(seed: u64, chunks: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().join("movie.mkv");
        let file = TestFile::new(seed, chunks << CHUNK_SIZE_LOG2, CHUNK_SIZE_LOG2);
        fs::write(&path, &file.bytes).expect("a file can be written");
        Self { dir, path, file }
    }

    fn share(&self, addr: &str, more: &[&str]) -> (Running, String) {
        let path = self.path.to_str().expect("temporary paths are text");
        let running = Running::start(peer(&["share", path, "--relay", addr]).args(more));
        let line = wait_for("the ticket", || {
            running.stdout().split_once('\n').map(|(line, _)| line.to_owned())
        });
        (running, line)
    }

    fn get(&self, ticket: &str, more: &[&str]) -> Running {
        Running::start(peer(&["get", ticket]).args(more).current_dir(self.dir.path()))
    }

    fn ticket(&self, relay: &RelayProcess, name: &str) -> String {
        let addr = RelayAddr::new("127.0.0.1", relay.addr.port()).expect("an address");
        Ticket::new(addr, self.file.key(), name).expect("a short name").to_string()
    }
}

/// It failed, and says these, but not those.
fn failed(ended: &Ended, says: &[&str], says_not: &[&str]) {
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    for text in says {
        assert!(ended.stderr.contains(text), "'{text}' is not in {}", ended.stderr);
    }
    for text in says_not {
        assert!(!ended.stderr.contains(text), "'{text}' is in {}", ended.stderr);
    }
}

#[test]
fn a_getter_of_a_file_that_changed_at_its_origin_is_told_to_ask_for_another_ticket() {
    let stage = Stage::new(1, 6);
    let path = stage.path.to_str().expect("temporary paths are text");
    let serving = RelayProcess::start(relay(), &["--serve", path]);
    let relay = RelayProcess::start(relay(), &[]);
    let (share, ticket) = stage.share(&relay.addr.to_string(), &[]);
    let mut bytes = stage.file.bytes.clone();
    bytes[700_000] ^= 1;
    fs::write(&stage.path, &bytes).expect("a file can be written");
    let ticket_of_serving = serving.tickets[0].split(' ').next().expect("a ticket").to_owned();
    for (ticket, name) in [(ticket, "one"), (ticket_of_serving, "two")] {
        let ended = stage.get(&ticket, &["-o", name]).wait();
        failed(&ended, &["origin has given it up", "new ticket"], &["run this again"]);
    }
    assert_eq!(share.wait().code, 1, "its file is no longer what it was");
    assert!(relay.metric("relay_peers_banned_total", &[]) < 0.5);
}

#[test]
fn a_file_that_shrank_is_given_up_though_nobody_was_asked_for_a_chunk() {
    let stage = Stage::new(2, 12);
    // The relay holds a third of the file at most.
    let relay = RelayProcess::start(relay(), &["--cache", "1M"]);
    let (share, ticket) = stage.share(&relay.addr.to_string(), &[]);
    let key = ticket.parse::<Ticket>().expect("it is a ticket").key;
    // A peer has a part, which proves the share, and takes no more.
    let mut first = Download::join(relay.addr, key).expect("the relay is there");
    while first.have_count() == 0 {
        first.step().expect("the relay is there");
    }
    fs::write(&stage.path, b"short").expect("a file can be written");
    assert_eq!(share.wait().code, 1);
    let get = stage.get(&ticket, &["-o", "copy"]);
    relay.wait_metric("relay_peers", &[], 2.0);
    drop(first);
    let ended = get.wait();
    failed(&ended, &["origin has given it up", "new ticket"], &["run this again"]);
}

#[test]
fn figures_of_a_share_survive_a_relays_restart_and_both_sides_say_that_they_are_connected_again() {
    let stage = Stage::new(3, 4);
    let mut first = RelayProcess::start(relay(), &[]);
    let addr = first.addr;
    let (share, line) = stage.share(&addr.to_string(), &["--json"]);
    let object: serde_json::Value = serde_json::from_str(&line).expect("it is an object");
    download(addr, &stage.file);
    let last = |share: &Running| -> Option<serde_json::Value> {
        let out = share.stdout();
        let line = out.lines().rev().find(|line| line.contains(r#""event":"status""#))?;
        serde_json::from_str(line).ok()
    };
    let is_whole = |status: serde_json::Value| {
        status["copies"] == 1 && status["chunks_handed_out"] == 4 && status["sent_bytes"] == 1 << 20
    };
    wait_until("one copy", || last(&share).is_some_and(is_whole));
    // It waits for a file that no peer shares.
    let other = Stage::new(4, 1);
    let get = other.get(&other.ticket(&first, "other"), &["--timeout", "60s"]);
    wait_until("the get to wait", || get.stderr().contains("waiting for"));
    first.signal(Signal::TERM);
    first.wait_exit();
    wait_until("the share to notice", || share.stderr().contains("trying to connect again"));
    wait_until("the get to say so", || get.stderr().contains("the relay has been gone"));
    let said = share.stderr() + &get.stderr();
    assert!(said.contains("shuts down") && !said.contains("ShuttingDown"), "{said}");
    let before = share.stdout().matches(r#""event":"status""#).count();
    let _second = RelayProcess::start_on(relay(), addr, &[]);
    wait_until("the share to be back", || share.stderr().contains("connected again"));
    wait_until("the get to be back", || get.stderr().contains("connected to the relay again"));
    wait_until("news of the swarm", || {
        share.stdout().matches(r#""event":"status""#).count() > before
    });
    assert!(last(&share).is_some_and(is_whole), "{}", share.stdout());
    assert_eq!(object["chunk_count"], 4);
    share.signal(Signal::INT);
    let ended = share.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("1 copy, 4 of 4 chunks handed out, 1 MiB sent"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_takes_long_says_how_far_it_is_where_there_is_no_terminal() {
    let stage = Stage::new(5, 6);
    let relay = RelayProcess::start(relay(), &[]);
    let slowly = Faults { rate: Some(200_000), ..Faults::default() };
    let proxy = Proxy::start(relay.addr, 1, slowly);
    let (_share, _) = stage.share(&relay.addr.to_string(), &[]);
    let through = |name: &str| {
        let addr = RelayAddr::new("127.0.0.1", proxy.addr.port()).expect("an address");
        Ticket::new(addr, stage.file.key(), name).expect("a short name").to_string()
    };
    let plain = stage.get(&through("plain"), &[]);
    let json = stage.get(&through("json"), &["--json"]);
    let quiet = stage.get(&through("quiet"), &["--quiet"]);
    let [plain, json, quiet] = [plain, json, quiet].map(Running::wait);
    for ended in [&plain, &json, &quiet] {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    let is_progress = |line: &str| line.contains(" of 1.5 MiB, ") && line.contains("left");
    assert!(plain.stderr.lines().any(is_progress), "{}", plain.stderr);
    let events: Vec<serde_json::Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let (report, events) = events.split_last().expect("there is a report");
    assert_eq!(report["verified"], true);
    assert!(events.iter().any(|event| {
        event["event"] == "progress"
            && event["phase"] == "getting"
            && event["total_bytes"] == 3 << 19
    }));
    assert!(!json.stderr.lines().any(is_progress), "{}", json.stderr);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_get_waits_for_room_at_a_full_relay_and_says_so() {
    let stage = Stage::new(6, 1);
    let relay = RelayProcess::start(relay(), &["--max-peers", "1"]);
    let _only = Wire::join(relay.addr, hello(stage.file.key())).expect("it may join");
    let get = stage.get(&stage.ticket(&relay, "copy"), &["--timeout", "3s"]);
    let ended = get.wait();
    let reason = "serves 1, as many peers as it may";
    failed(&ended, &["nothing new has come for 3.0 s", reason], &["no connection", "TooMany"]);
    let said = ended.stderr.lines().filter(|line| line.contains(reason)).count();
    assert!(said > 1, "it says why while it waits: {}", ended.stderr);
}

#[test]
fn a_link_local_relay_needs_an_interface_that_is_there_and_says_so_at_once() {
    let stage = Stage::new(7, 1);
    let path = stage.path.to_str().expect("temporary paths are text");
    for (program, args, code, text) in [
        ("peer", &["share", path, "--relay", "[fe80::1]:7440"][..], 2, "[fe80::1%eth0]:7440"),
        ("peer", &["share", path, "--relay", "[fe80::1%nosuch0]:7440"], 1, "interface nosuch0"),
        ("relay", &["--listen", "[fe80::1]:7440"], 2, "[fe80::1%eth0]:7440"),
        ("relay", &["--listen", "[fe80::1%nosuch0]:7440"], 2, "no interface of that name"),
    ] {
        let mut command = if program == "peer" { peer(&[]) } else { relay() };
        let ended = Running::start(command.args(args)).wait();
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(text), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
    }
}

/// Runs a program with SIGINT ignored from birth, as a shell does in the background.
fn deaf(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$0\" \"$@\"", program]).args(args);
    command
}

#[test]
fn what_is_meant_for_others_ends_no_share() {
    let stage = Stage::new(8, 1);
    let mut relay = RelayProcess::start(relay(), &[]);
    let path = stage.path.to_str().expect("temporary paths are text");
    let addr = relay.addr.to_string();
    let mut share = deaf(env!("CARGO_BIN_EXE_peer"), &["share", path, "--relay", &addr]);
    // That one is for gets.
    let mut share = Running::start(share.env("PEER_TIMEOUT", "300ms").env("PEER_PLAIN", "1"));
    wait_until("the ticket", || share.stdout().contains("relay1"));
    share.signal(Signal::INT);
    pause(Duration::from_millis(1_000));
    assert!(share.is_alive(), "{}", share.stderr());
    share.signal(Signal::TERM);
    assert_eq!(share.wait().code, 0);
    let mut own = peer(&["share", path, "--relay", &addr]);
    let ended = Running::start(own.env("PEER_SHARE_TIMEOUT", "300ms")).wait();
    failed(&ended, &["no peer took a chunk for 0.3 s"], &[]);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit().code(), Some(0));
}
