//! `peer share`, `check` and `info`, and `relay --serve`, end to end: as their users type them,
//! with clients made by hand from the wire format.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use relay::protocol::Ticket;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::{Download, download},
    in_background,
    process::{Ended, RelayProcess, Running, drivers, run},
    wait_for, wait_until,
};

/// The protocol's default.
const CHUNK_SIZE_LOG2: u8 = 18;

/// Four chunks, the last of them short.
const SIZE_BYTES: usize = (3 << CHUNK_SIZE_LOG2) + 5;

/// A file on disk.
struct Shared {
    dir: TempDir,
    path: PathBuf,
    file: TestFile,
}

impl Shared {
    fn new(seed: u64, len: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().join("movie.mkv");
        let file = TestFile::new(seed, len, CHUNK_SIZE_LOG2);
        fs::write(&path, &file.bytes).expect("a file can be written");
        Self { dir, path, file }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("temporary paths are text")
    }

    /// `peer share` of it through this relay, once its ticket is printed.
    fn share(&self, relay: &RelayProcess, more: &[&str]) -> (Running, String) {
        let addr = relay.addr.to_string();
        let running = Running::start(peer(&["share", self.path(), "--relay", &addr]).args(more));
        let line = wait_for("the ticket", || {
            let stdout = running.stdout();
            stdout.split_once('\n').map(|(line, _)| line.to_owned())
        });
        (running, line)
    }
}

fn ended(running: Running) -> Ended {
    running.wait()
}

#[test]
fn a_shared_file_arrives_and_ctrl_c_is_no_failure_on_every_driver() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        for size in [0, 1, SIZE_BYTES] {
            let shared = Shared::new(1, size);
            let (running, line) = shared.share(&relay, &["--driver", driver]);
            let ticket: Ticket = line.parse().expect("the line is a ticket");
            assert_eq!((ticket.key, ticket.name()), (shared.file.key(), "movie.mkv"));
            assert_eq!(ticket.relay.to_string(), relay.addr.to_string());
            download(relay.addr, &shared.file);
            running.signal(Signal::INT);
            let end = ended(running);
            assert_eq!((end.code, end.stdout.lines().count()), (0, 1), "{}", end.stderr);
        }
    }
}

#[test]
fn once_ends_when_every_chunk_was_handed_out() {
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(2, SIZE_BYTES);
    let (mut running, line) = shared.share(&relay, &["--once", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&line).expect("the line is an object");
    let ticket: Ticket =
        object["ticket"].as_str().and_then(|text| text.parse().ok()).expect("it has the ticket");
    assert_eq!(object["size_bytes"], SIZE_BYTES);
    assert!(running.is_alive());
    download(relay.addr, &shared.file);
    let end = ended(running);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_eq!(ticket.key, shared.file.key());
    let last = end.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(r#""reason":"done""#), "{last}");
}

#[test]
fn until_copies_counts_those_who_got_the_file_and_went() {
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(3, SIZE_BYTES);
    let (mut running, ticket) = shared.share(&relay, &["--until-copies", "3"]);
    download(relay.addr, &shared.file);
    wait_until("one copy to be told", || running.stderr().contains("1 copy so far"));
    assert!(running.is_alive());
    // A peer that goes as soon as it is whole counts too, and so does one that keeps nothing.
    let copy = shared.dir.path().join("copy");
    let end = run(peer(&["get", &ticket, "-o"]).arg(&copy));
    assert_eq!(end.code, 0, "{}", end.stderr);
    wait_until("two copies to be told", || running.stderr().contains("2 copies so far"));
    assert!(running.is_alive());
    let end = run(&mut peer(&["get", &ticket, "-o", "-"]));
    assert_eq!(end.code, 0, "{}", end.stderr);
    let end = ended(running);
    assert_eq!(end.code, 0, "{}", end.stderr);
}

#[test]
fn a_file_that_changes_while_it_is_shared_is_noticed_and_never_served_wrong() {
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(4, SIZE_BYTES);
    let (running, _) = shared.share(&relay, &[]);
    let mut bytes = shared.file.bytes.clone();
    bytes[300_000] ^= 1;
    fs::write(&shared.path, &bytes).expect("a file can be written");
    let (addr, key) = (relay.addr, shared.file.key());
    let client = in_background(move || {
        let mut download = Download::join(addr, key)?;
        // It verifies each chunk, and says so if one is wrong.
        while !download.is_complete() {
            download.step()?;
        }
        std::io::Result::Ok(())
    });
    let end = ended(running);
    assert_eq!(end.code, 1, "{}", end.stderr);
    assert!(end.stderr.contains("Nothing wrong was sent"), "{}", end.stderr);
    assert!(end.stderr.contains("run peer share again"), "{}", end.stderr);
    assert!(relay.metric("relay_peers_banned_total", &[]) < 0.5);
    drop(relay);
    let error = client.join().expect("the client does not panic").expect_err("no file arrives");
    assert!(!error.to_string().contains("is wrong"), "{error}");
}

#[test]
fn a_file_that_shrinks_is_noticed_though_nobody_asks_for_it() {
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(5, SIZE_BYTES);
    let (running, _) = shared.share(&relay, &[]);
    fs::write(&shared.path, b"short").expect("a file can be written");
    let end = ended(running);
    assert_eq!(end.code, 1, "{}", end.stderr);
    assert!(end.stderr.contains("changed while it was shared"), "{}", end.stderr);
}

#[test]
fn a_share_goes_on_when_the_relay_was_restarted() {
    let mut first = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(6, SIZE_BYTES);
    let (running, _) = shared.share(&first, &[]);
    first.kill();
    let second = RelayProcess::start_on(relay(), first.addr, &[]);
    download(second.addr, &shared.file);
    assert!(running.stderr().contains("trying to connect again"), "{}", running.stderr());
    running.signal(Signal::TERM);
    assert_eq!(ended(running).code, 0);
}

#[test]
fn a_share_that_was_about_to_leave_leaves_the_relay_that_comes_back() {
    let mut first = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(16, SIZE_BYTES);
    let (running, _) = shared.share(&first, &["--once"]);
    // It lacks everything, so the share must wait for it when another one has got the file and gone.
    let dependant = Download::join(first.addr, shared.file.key()).expect("the relay is there");
    download(first.addr, &shared.file);
    wait_until("the share to wait", || running.stderr().contains("done; waiting"));
    first.kill();
    drop(dependant);
    let _second = RelayProcess::start_on(relay(), first.addr, &[]);
    let end = ended(running);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_eq!(end.stderr.matches("done; waiting").count(), 1, "{}", end.stderr);
}

#[test]
fn nobody_asks_for_an_empty_file_so_its_share_waits_for_no_copies() {
    let relay = RelayProcess::start(relay(), &[]);
    let (running, _) = Shared::new(17, 0).share(&relay, &["--until-copies", "3"]);
    let end = ended(running);
    assert_eq!(end.code, 0, "{}", end.stderr);
}

/// As where a log's disk is full, or its reader has gone.
#[test]
#[cfg(target_os = "linux")]
fn who_cannot_be_heard_does_his_work_all_the_same() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(18, SIZE_BYTES);
    let addr = relay.addr.to_string();
    let mut share = peer(&["share", shared.path(), "--relay", &addr, "--once"]);
    let mut share = share.stderr(full()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut ticket = String::new();
    let mut stdout = BufReader::new(share.stdout.take().expect("piped"));
    stdout.read_line(&mut ticket).expect("it prints its ticket");
    let copy = shared.dir.path().join("copy");
    let code = |command: &mut Command| {
        let status = command.stderr(full()).stdout(Stdio::null()).status();
        status.expect("it starts").code()
    };
    assert_eq!(code(peer(&["get", ticket.trim(), "-o"]).arg(&copy)), Some(0));
    assert!(fs::read(&copy).expect("it is there") == shared.file.bytes);
    assert_eq!(share.wait().expect("it ends").code(), Some(0));
    assert_eq!(code(&mut peer(&["info", "no ticket"])), Some(2));
    fs::write(&copy, b"another").expect("a file can be written");
    let copy = copy.to_str().expect("temporary paths are text");
    assert_eq!(code(&mut peer(&["check", copy, ticket.trim()])), Some(1));
}

#[test]
fn the_same_file_under_two_names_joins_one_swarm_and_others_their_own() {
    let relay = RelayProcess::start(relay(), &[]);
    let (one, two) = (Shared::new(7, SIZE_BYTES), Shared::new(8, SIZE_BYTES));
    let other = Shared { path: one.dir.path().join("other name"), ..Shared::new(7, SIZE_BYTES) };
    fs::copy(&one.path, &other.path).expect("a file can be copied");
    let shares = [&one, &other, &two].map(|shared| shared.share(&relay, &["--quiet"]));
    relay.wait_metric("relay_peers", &[], 3.0);
    assert!((relay.metric("relay_swarms", &[]) - 2.0).abs() < 0.5);
    download(relay.addr, &one.file);
    download(relay.addr, &two.file);
    assert!(shares.iter().all(|(running, _)| running.stderr().is_empty()));
}

#[test]
fn a_relay_with_tokens_takes_a_share_that_knows_one_and_no_other() {
    let shared = Shared::new(9, 1000);
    let token = |name: &str, text: &str| {
        let path = shared.dir.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        path.to_str().expect("temporary paths are text").to_owned()
    };
    let (right, wrong) = (token("right", "  sesame \n"), token("wrong", "barley\n"));
    let relay = RelayProcess::start(relay(), &["--token-file", &right]);
    let (running, _) = shared.share(&relay, &["--token-file", &right]);
    assert!(!running.stderr().contains("sesame"));
    let addr = relay.addr.to_string();
    let share = ["share", shared.path(), "--relay", &addr];
    for (more, advice) in [
        (&["--token-file", &wrong][..], "check the first line of --token-file"),
        (&[], "name one with --token-file"),
    ] {
        let end = run(peer(&share).args(more));
        assert_eq!((end.code, end.stdout.as_str()), (1, ""));
        assert!(end.stderr.contains(advice), "{}", end.stderr);
    }
}

#[test]
fn what_cannot_be_shared_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let dir = dir.path().to_str().expect("temporary paths are text");
    for (args, code, text) in [
        (vec!["share", "/dev/null", "--relay", "localhost:1"], 1, "only files, directories"),
        (vec!["share", dir, "no such file", "--relay", "localhost:1"], 1, "No such file"),
        (vec!["share", "no such file", "--relay", "localhost:1"], 1, "No such file"),
        (vec!["share", dir], 2, "--relay"),
        (vec!["share", dir, "--relay", "no/where"], 2, "HOST:PORT"),
        (vec!["share", dir, "--relay", "http://relay.example.org:7440"], 2, "has no URL"),
        (vec!["share", "-", dir, "--relay", "localhost:1"], 1, "stdin"),
        (vec!["info", "relay1abc"], 2, "damaged"),
        (vec!["info", "hello"], 2, "begins with relay2"),
        (vec![], 2, "share"),
    ] {
        let end = run(&mut peer(&args));
        assert_eq!(end.code, code, "{args:?}: {}", end.stderr);
        assert!(end.stderr.contains(text), "{args:?}: {}", end.stderr);
    }
}

#[test]
fn chunks_fit_a_small_cache() {
    let relay = RelayProcess::start(relay(), &["--cache", "1M"]);
    let shared = Shared::new(10, SIZE_BYTES);
    let (_running, line) = shared.share(&relay, &[]);
    let ticket: Ticket = line.parse().expect("the line is a ticket");
    assert_eq!(ticket.key.chunk_size_log2, 17);
    download(relay.addr, &TestFile::new(10, SIZE_BYTES, 17));
}

#[test]
fn check_tells_whether_and_where_a_file_differs() {
    let relay = RelayProcess::start(relay(), &[]);
    let shared = Shared::new(11, SIZE_BYTES);
    let (running, ticket) = shared.share(&relay, &[]);
    let check = |path: &Path| {
        let path = path.to_str().expect("temporary paths are text");
        run(&mut peer(&["check", path, &ticket]))
    };
    assert_eq!(check(&shared.path).code, 0);
    let mut bytes = shared.file.bytes.clone();
    let other = shared.dir.path().join("other");
    for at in [1 << CHUNK_SIZE_LOG2, SIZE_BYTES - 1] {
        bytes[at] ^= 1;
    }
    fs::write(&other, &bytes).expect("a file can be written");
    let end = check(&other);
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("2 of its 4 chunks differ"), "{}", end.stderr);
    assert!(end.stderr.contains("chunk 1, from offset 262144"), "{}", end.stderr);
    fs::write(&other, b"short").expect("a file can be written");
    let end = check(&other);
    assert!(end.code == 1 && end.stderr.contains("has 5 bytes"), "{}", end.stderr);
    drop(running);
    drop(relay);
    fs::write(&other, &bytes).expect("a file can be written");
    let end = check(&other);
    assert!(end.code == 1 && end.stderr.contains("its content differs"), "{}", end.stderr);
}

#[test]
fn info_prints_what_a_ticket_holds() {
    let key = TestFile::new(12, SIZE_BYTES, CHUNK_SIZE_LOG2).key();
    let relay = "relay.example.org:7440".parse().expect("it names a relay");
    let ticket = Ticket::new(relay, key, "a\u{1b}[2Jb").expect("it fits").to_string();
    let end = run(&mut peer(&["info", &ticket]));
    assert_eq!(end.code, 0);
    for part in ["a\\u{1b}[2Jb", "relay.example.org:7440", &key.id.to_string(), "4 chunks"] {
        assert!(end.stdout.contains(part), "{part}: {}", end.stdout);
    }
    let end = run(&mut peer(&["info", "--json", &ticket]));
    let object: serde_json::Value = serde_json::from_str(&end.stdout).expect("it is an object");
    assert_eq!(object["chunk_count"], 4);
    assert_eq!(object["name"], "a\u{1b}[2Jb");
}

#[test]
fn a_relay_serves_files_of_its_own_and_drains_like_any_other() {
    let (one, empty) = (Shared::new(13, SIZE_BYTES), Shared::new(14, 0));
    let token = one.dir.path().join("token");
    fs::write(&token, "sesame\n").expect("a file can be written");
    for (more, advertised) in
        [(&["--advertise", "relay.example.org:7440"][..], true), (&["--max-peers", "1"], false)]
    {
        let serve = ["--serve", one.path(), "--serve", empty.path()];
        let mut relay = RelayProcess::start(relay(), &[&serve[..], more].concat());
        for (line, shared) in relay.tickets.iter().zip([&one, &empty]) {
            let (ticket, path) = line.split_once(' ').expect("a ticket and a path");
            let ticket: Ticket = ticket.parse().expect("it is a ticket");
            assert_eq!((ticket.key, path), (shared.file.key(), shared.path()));
            let addr = relay.addr.to_string();
            let expected = if advertised { "relay.example.org:7440" } else { &addr };
            assert_eq!(ticket.relay.to_string(), expected);
            // With --max-peers 1 the client finds its place: the origin takes none.
            download(relay.addr, &shared.file);
            // A connection for each file served; the client's is over when the relay has seen its end.
            wait_until("its place to be free", || relay.metric("relay_connections", &[]) <= 2.0);
        }
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait_exit().code(), Some(0), "{}", relay.log());
    }
    let token = token.to_str().expect("temporary paths are text");
    let relay = RelayProcess::start(relay(), &["--serve", one.path(), "--token-file", token]);
    assert_eq!(relay.tickets.len(), 1);
    assert!(!relay.log().contains("sesame"));
}

#[test]
fn a_relay_that_cannot_read_what_it_is_to_serve_does_not_start() {
    let mut command = relay();
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--serve", "no such file"]);
    let end = run(&mut command);
    assert_eq!((end.code, end.stdout.as_str()), (1, ""));
    assert!(end.stderr.contains("no such file: No such file"), "{}", end.stderr);
}

#[test]
fn completions_and_manuals_name_every_option() {
    let of = |mut command: Command, args: &[&str]| {
        let end = run(command.args(args));
        assert_eq!(end.code, 0, "{}", end.stderr);
        end.stdout
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(of(peer(&[]), &["completions", shell]).contains("until-copies"), "{shell}");
        assert!(of(relay(), &["completions", shell]).contains("max-peers"), "{shell}");
    }
    // Hyphens are escaped in roff.
    assert!(of(peer(&[]), &["man"]).contains("until\\-copies"));
    assert!(of(relay(), &["man"]).contains("max\\-peers"));
    let end = run(relay().args(["completions", "smoke"]));
    assert!(end.code == 2 && end.stderr.contains("bash"), "{}", end.stderr);
}
