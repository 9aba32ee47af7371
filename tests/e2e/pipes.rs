//! `peer share -`: what comes through a pipe is shared as a file would be.

use std::{fs, io::Write as _, path::Path, process::Command, thread::JoinHandle};

use relay::protocol::{Ticket, TicketKind, digest_file};

use crate::programs::{peer, relay};
use crate::support::{
    in_background,
    process::{Ended, RelayProcess, Running, run},
    wait_for,
};

/// Bytes that are no pattern.
fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A peer whose stdin is a pipe that brings these bytes, as long as it takes them.
fn share(directory: &Path, bytes: Vec<u8>, args: &[&str]) -> (Running, JoinHandle<()>) {
    let pipe = directory.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there");
    assert!(made.success(), "a pipe can be made");
    let program = peer(&["share", "-"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@" <"$0""#]).arg(&pipe);
    command.arg(program.get_program()).args(program.get_args()).args(args);
    command.env("TMPDIR", directory);
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let running = Running::start(&mut command);
    let writer = in_background(move || {
        let mut pipe = fs::File::options().write(true).open(pipe).expect("a reader comes");
        // One that is refused closes it.
        pipe.write_all(&bytes).ok();
    });
    (running, writer)
}

fn ticket_of(running: &Running) -> String {
    wait_for("the ticket", || {
        let stdout = running.stdout();
        stdout.split_once('\n').map(|(line, _)| line.to_owned())
    })
}

fn refused(ended: &Ended, code: i32, says: &str) {
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert!(ended.stderr.contains(says), "{says} is not in {}", ended.stderr);
    assert_eq!(ended.stdout, "", "no ticket");
}

#[test]
fn what_comes_through_a_pipe_arrives_and_leaves_nothing_behind() {
    let relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr.to_string();
    for (len, args) in [
        (3 << 20, &["--name", "dump.sql"][..]),
        ((1 << 20) + 77, &["--name", "dump.sql", "--plain"]),
        (5000, &["--name", "dump.sql", "--chunk", "1K"]),
        (0, &["--name", "dump.sql"]),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes = content(len);
        let (running, writer) =
            share(dir.path(), bytes.clone(), &[args, &["--relay", &addr]].concat());
        let text = ticket_of(&running);
        writer.join().expect("all was taken");
        let ticket: Ticket = text.parse().expect("a ticket");
        assert_eq!((ticket.name(), ticket.kind), ("dump.sql", TicketKind::File));
        assert_eq!(ticket.plain(), digest_file(&bytes), "what b3sum prints");
        let end = run(peer(&["get", &text, "-o"]).arg(dir.path()));
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert!(fs::read(dir.path().join("dump.sql")).expect("it is here") == bytes);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .expect("it can be listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["dump.sql", "pipe"], "no path leads to what is shared");
    }
}

#[test]
fn a_pipe_without_a_name_is_called_stdin_and_its_owner_is_told() {
    let relay = RelayProcess::start(relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory");
    let (running, writer) = share(dir.path(), content(10), &["--relay", &relay.addr.to_string()]);
    let ticket: Ticket = ticket_of(&running).parse().expect("a ticket");
    writer.join().expect("all was taken");
    assert_eq!(ticket.name(), "stdin");
    assert!(running.stderr().contains("--name"), "{}", running.stderr());
}

#[test]
fn what_is_more_than_allowed_or_no_pipe_at_all_is_refused() {
    let relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr.to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--relay", &addr, "--spool-max", "100K"];
    let (running, writer) = share(dir.path(), content(1 << 20), &args);
    refused(&running.wait(), 1, "--spool-max");
    // More than a file may have is no promise that can be kept.
    for size in ["4T", "5T"] {
        let ended = run(&mut peer(&["share", "-", "--relay", &addr, "--spool-max", size]));
        refused(&ended, 2, "no file may have 4 TiB");
    }
    writer.join().expect("it is done");
    let both = run(&mut peer(&["share", "-", "--ticket", "-", "--relay", &addr]));
    refused(&both, 2, "both the file and the ticket");
    let beside = run(&mut peer(&["share", "-", "Cargo.toml", "--relay", &addr]));
    refused(&beside, 1, "by itself alone");
}
