//! `peer share` and `check` of directories and of several paths, and `relay --serve`: as their users type them. What a
//! bundle must be is built here from its format, and fetched by clients made by hand.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use relay::protocol::{
    Ticket, TicketKind,
    bundle::{Entry, Index, Kind, Preserved},
};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::download,
    process::{Ended, RelayProcess, Running, run},
    wait_for, wait_until,
};

/// The protocol's default.
const CHUNK_SIZE_LOG2: u8 = 18;

/// A file that has some chunks for itself.
const LARGE_BYTES: usize = (2 << CHUNK_SIZE_LOG2) + 7;

/// What a file of this name holds.
pub(crate) fn content(name: &str) -> Vec<u8> {
    match name {
        "docs/large" => TestFile::new(1, LARGE_BYTES, CHUNK_SIZE_LOG2).bytes,
        "nothing" => Vec::new(),
        name => name.repeat(100).into_bytes(),
    }
}

/// The files of the tree that these tests share.
const FILES: [&str; 5] = ["README", "docs/a", "docs/deep/b", "docs/large", "nothing"];

/// The tree, with its files made in this order.
pub(crate) fn tree_at(root: &Path, backwards: bool) {
    fs::create_dir_all(root.join("docs/deep")).expect("a directory can be made");
    fs::create_dir(root.join("docs/empty")).expect("a directory can be made");
    let mut names = FILES;
    if backwards {
        names.reverse();
    }
    for name in names {
        fs::write(root.join(name), content(name)).expect("a file can be written");
    }
    let mode = if backwards { 0o700 } else { 0o755 };
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(root.join("docs/a"), mode).expect("a mode can be set");
    symlink("deep/b", root.join("docs/link")).expect("a link can be made");
}

pub(crate) fn tree() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let root = dir.path().join("things");
    tree_at(&root, false);
    (dir, root)
}

/// The bundle of that tree, below this prefix.
fn bundle(prefix: &str, preserved: &dyn Fn(&str) -> Option<Preserved>) -> Vec<u8> {
    let mut paths: Vec<(String, Kind<'_>)> = Vec::new();
    for name in FILES {
        let kind =
            Kind::File { size_bytes: content(name).len() as u64, is_executable: name == "docs/a" };
        paths.push((format!("{prefix}{name}"), kind));
    }
    for name in ["docs", "docs/deep", "docs/empty"] {
        paths.push((format!("{prefix}{name}"), Kind::Directory));
    }
    paths.push((format!("{prefix}docs/link"), Kind::Link { target: b"deep/b" }));
    if !prefix.is_empty() {
        paths.push((prefix.trim_end_matches('/').to_owned(), Kind::Directory));
    }
    let entries = paths.iter().map(|(path, kind)| Entry {
        path: path.as_bytes(),
        kind: *kind,
        preserved: preserved(path),
    });
    let index = Index::new(entries.collect()).expect("it is a bundle");
    let mut bytes = index.header().to_vec();
    for entry in index.entries() {
        let name = std::str::from_utf8(entry.path).expect("names are text");
        if matches!(entry.kind, Kind::File { .. }) {
            bytes.extend(content(name.strip_prefix(prefix).expect("it has the prefix")));
        }
    }
    bytes
}

/// A share that has printed its ticket.
pub(crate) fn shared(command: &mut Command) -> (Running, Ticket) {
    let mut running = Running::start(command);
    let line = wait_for("the ticket", || {
        assert!(running.is_alive() || !running.stdout().is_empty(), "{}", running.stderr());
        running.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    let text = match serde_json::from_str::<serde_json::Value>(&line) {
        Ok(object) => object["ticket"].as_str().expect("it has the ticket").to_owned(),
        Err(_) => line,
    };
    (running, text.parse().expect("it is a ticket"))
}

pub(crate) fn share(relay: &RelayProcess, args: &[&str]) -> Command {
    let mut command = peer(&["share", "--relay", &relay.addr.to_string()]);
    command.args(args);
    command
}

fn failed(end: &Ended, code: i32, parts: &[&str]) {
    assert_eq!((end.code, end.stdout.as_str()), (code, ""), "{}", end.stderr);
    for part in parts {
        assert!(end.stderr.contains(part), "{part}: {}", end.stderr);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[test]
fn a_directory_is_shared_as_its_bundle_wherever_it_lies_and_however_it_was_made() {
    let relay = RelayProcess::start(relay(), &[]);
    let (dir, root) = tree();
    let other = dir.path().join("elsewhere/things");
    tree_at(&other, true);
    let expected = TestFile::of(bundle("", &|_| None), CHUNK_SIZE_LOG2);
    let slash = format!("{}/", text(&root));
    let mut here = share(&relay, &["."]);
    here.current_dir(&other);
    for command in [&mut share(&relay, &[text(&root)]), &mut share(&relay, &[&slash]), &mut here] {
        let (running, ticket) = shared(command);
        assert_eq!((ticket.kind, ticket.name()), (TicketKind::Bundle, "things"));
        assert_eq!(ticket.key, expected.key(), "it is the bundle");
        download(relay.addr, &expected);
        assert!(running.stderr().contains("(5 files, "), "{}", running.stderr());
        running.signal(Signal::INT);
        assert_eq!(running.wait().code, 0);
    }
    // Sealed as files are.
    let state = dir.path().join("state");
    let mut sealed = share(&relay, &[text(&root)]);
    let (_running, ticket) = shared(sealed.env_remove("PEER_PLAIN").env("XDG_STATE_HOME", state));
    let seal = ticket.sealed.as_ref().expect("it is sealed");
    assert_eq!(seal.plain, expected.key().id);
    let mut moved = expected.bytes.clone();
    seal.cipher(moved.len() as u64).apply(0, &mut moved);
    download(relay.addr, &TestFile::of(moved, CHUNK_SIZE_LOG2));
}

#[test]
fn several_paths_are_shared_together_in_any_order_and_named_as_wished() {
    let relay = RelayProcess::start(relay(), &[]);
    let (dir, root) = tree();
    let file = dir.path().join("x.txt");
    fs::write(&file, content("x.txt")).expect("a file can be written");
    let link = dir.path().join("called");
    symlink("x.txt", &link).expect("a link can be made");
    let (file, root, link) = (text(&file), text(&root), text(&link));
    let (running, first) = shared(&mut share(&relay, &[file, root, link]));
    assert_eq!((first.kind, first.name()), (TicketKind::Bundle, "x.txt-and-2-more"));
    let (_other, second) = shared(&mut share(&relay, &[link, root, file, "--name", "all of it"]));
    assert_eq!((second.name(), second.key), ("all of it", first.key));
    drop(running);
    let (_running, only) = shared(&mut share(&relay, &[root, "--name", "x"]));
    assert_eq!((only.name(), only.kind), ("x", TicketKind::Bundle));
    let (_running, renamed) = shared(&mut share(&relay, &[file, "--name", "y.txt"]));
    assert_eq!((renamed.name(), renamed.kind), ("y.txt", TicketKind::File));
    let again = format!("{root}/docs/../../x.txt");
    let end = run(&mut share(&relay, &[file, &again]));
    failed(&end, 1, &["are both called x.txt", "rename one"]);
    let end = run(&mut share(&relay, &[file, "--name", "../x"]));
    failed(&end, 2, &["--name", "names more than a file in one directory"]);
}

#[test]
fn what_can_not_be_shared_is_named_and_what_is_special_may_be_left_out() {
    let relay = RelayProcess::start(relay(), &[]);
    let (_dir, root) = tree();
    let _socket = UnixListener::bind(root.join("docs/socket")).expect("a socket can be made");
    let end = run(&mut share(&relay, &[text(&root)]));
    failed(&end, 1, &["1 entry can't be shared", "docs/socket (a socket)", "--skip-special"]);
    let (running, ticket) = shared(&mut share(&relay, &[text(&root), "--skip-special"]));
    assert_eq!(ticket.key, TestFile::of(bundle("", &|_| None), CHUNK_SIZE_LOG2).key());
    let said = running.stderr();
    assert!(said.contains("left out 1 entry that is no file: docs/socket (a socket)"), "{said}");
    fs::remove_file(root.join("docs/socket")).expect("it can be removed");
    for (name, target, parts) in [
        ("docs/a\u{1b}b", None, ["docs/a\\u{1b}b", "control character"]),
        ("docs/up", Some("../../x"), ["\"docs/up\" to \"../../x\"", "leads out of the bundle"]),
    ] {
        match target {
            None => fs::write(root.join(name), "x").expect("a file can be written"),
            Some(target) => symlink(target, root.join(name)).expect("a link can be made"),
        }
        let end = run(&mut share(&relay, &[text(&root)]));
        failed(&end, 1, &parts);
        fs::remove_file(root.join(name)).expect("it can be removed");
    }
}

#[test]
fn files_that_may_not_be_read_are_named() {
    let (dir, root) = tree();
    for name in ["README", "docs/deep"] {
        let mode = fs::Permissions::from_mode(0o000);
        fs::set_permissions(root.join(name), mode).expect("a mode can be set");
    }
    let mut command = peer(&["share", text(&root), "--relay", "localhost:1"]);
    if rustix::process::geteuid().is_root() {
        // Root may read everything, and another user must find the way to the tree and the program.
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).expect("a mode can be set");
        command.uid(65534).gid(65534);
        if Command::new(env!("CARGO_BIN_EXE_peer")).uid(65534).arg("--version").output().is_err() {
            println!("NOT CHECKED: no other user may run the program");
            return;
        }
    }
    let end = run(&mut command);
    let denied = ["2 entries can't be shared", "README (Permission denied", "docs/deep (Perm"];
    failed(&end, 1, &denied);
}

#[test]
fn modes_and_times_are_kept_if_wished_and_a_ticket_says_so_when_it_is_shared_again() {
    let relay = RelayProcess::start(relay(), &[]);
    let (_dir, root) = tree();
    let preserved = |path: &str| {
        let metadata = fs::symlink_metadata(root.join(path)).expect("it is there");
        use std::os::unix::fs::MetadataExt as _;
        let mode = u16::try_from(metadata.mode() & 0o777).expect("nine bits");
        let modified_nanos = u32::try_from(metadata.mtime_nsec()).expect("below a second");
        Some(Preserved { mode, modified_secs: metadata.mtime(), modified_nanos })
    };
    let expected = TestFile::of(bundle("", &preserved), CHUNK_SIZE_LOG2);
    let (running, kept) = shared(&mut share(&relay, &[text(&root), "--preserve"]));
    assert_eq!(kept.key, expected.key());
    running.kill();
    let (running, plain) = shared(&mut share(&relay, &[text(&root), "--name", "y"]));
    assert_ne!(plain.key, kept.key);
    running.kill();
    for ticket in [&kept, &plain] {
        let again = ["share", text(&root), "--ticket", &ticket.to_string()];
        let (_running, same) = shared(&mut peer(&again));
        assert_eq!(same, *ticket);
    }
    let again = |path: &str| run(&mut peer(&["share", path, "--ticket", &plain.to_string()]));
    failed(&again(text(&root.join("README"))), 1, &["is not the ticket's directory: it is a file"]);
    fs::write(root.join("docs/a"), "otherwise").expect("it can be written");
    failed(&again(text(&root)), 1, &["things is not the ticket's directory: it has"]);
    let (_running, file) = shared(&mut share(&relay, &[text(&root.join("README"))]));
    let end = run(&mut peer(&["share", text(&root), "--ticket", &file.to_string()]));
    failed(&end, 1, &["is not the ticket's file: it is a directory"]);
}

#[test]
fn a_relay_serves_a_directory() {
    let (_dir, root) = tree();
    let relay = RelayProcess::start(relay(), &["--serve", text(&root)]);
    let (ticket, path) = relay.tickets[0].split_once(' ').expect("ticket and path");
    let ticket: Ticket = ticket.parse().expect("it is a ticket");
    assert_eq!((ticket.kind, ticket.name(), path), (TicketKind::Bundle, "things", text(&root)));
    download(relay.addr, &TestFile::of(bundle("", &|_| None), CHUNK_SIZE_LOG2));
}

#[test]
fn check_tells_whether_a_directory_is_the_tickets_and_which_entries_differ() {
    let relay = RelayProcess::start(relay(), &[]);
    let (dir, root) = tree();
    let state = dir.path().join("state");
    for is_sealed in [false, true] {
        let copy = dir.path().join(format!("copy {is_sealed}"));
        tree_at(&copy, true);
        let mut command = share(&relay, &[text(&root)]);
        if is_sealed {
            command.env_remove("PEER_PLAIN").env("XDG_STATE_HOME", &state);
        }
        let (running, ticket) = shared(&mut command);
        let ticket = ticket.to_string();
        let check = |path: &Path| run(&mut peer(&["check", text(path), &ticket]));
        let end = check(&copy);
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert!(end.stderr.contains("is the ticket's directory"), "{}", end.stderr);
        let mut large = content("docs/large");
        large[1 << CHUNK_SIZE_LOG2] ^= 1;
        fs::write(copy.join("docs/large"), &large).expect("it can be written");
        let end = check(&copy);
        failed(&end, 1, &["is not the ticket's directory: what differs is docs/large"]);
        fs::remove_file(copy.join("README")).expect("it can be removed");
        fs::write(copy.join("docs/more"), "x").expect("it can be written");
        fs::write(copy.join("docs/a"), "x").expect("it can be written");
        let end = check(&copy);
        let told =
            ["lacks README", "has as well docs/more", "docs/a (it has 1 bytes", "not compared"];
        failed(&end, 1, &told);
        let end = run(&mut peer(&["check", text(&copy), &ticket, "--json"]));
        let object: serde_json::Value = serde_json::from_str(&end.stdout).expect("an object");
        assert_eq!((&object["same"], &object["lacking_count"]), (&false.into(), &1.into()));
        assert_eq!(object["extra"][0], "docs/more");
        let end = check(&root.join("README"));
        failed(&end, 1, &["is a file, and the ticket is of a directory"]);
        running.kill();
        // Its cache could tell, too.
        wait_until("the swarm to end", || relay.metric("relay_swarms", &[]) == 0.0);
        let end = check(&copy);
        failed(&end, 1, &["its content differs. Where it differs could not be found"]);
    }
    let (_running, file) = shared(&mut share(&relay, &[text(&root.join("README"))]));
    let end = run(&mut peer(&["check", text(&root), &file.to_string()]));
    failed(&end, 1, &["is a directory, and the ticket is of a file"]);
}
