//! Little of what a process needs: descriptors, memory, threads. Each program goes on with less, or ends with a
//! sentence that says what it lacks; none is ended by a signal.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    http,
    process::{NO_STATE, RelayProcess, with_state},
    wait_until,
    wire::{Wire, hello},
};

const RELAY: &str = env!("CARGO_BIN_EXE_relay");
const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// A program under a limit that is its alone: a shell sets it and becomes the program. It seals nothing and keeps no
/// key: the account that it runs as may have no place for secrets.
fn limited(limit: &str, program: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\"")).arg(program);
    command.env("PEER_PLAIN", "1").env("RELAY_PLAIN", "1").env("RELAY_EPHEMERAL_IDENTITY", "1");
    with_state(&mut command, NO_STATE);
    command
}

/// What it says when it ends, which it does by itself.
fn ended(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("a shell can be started")
}

/// It failed, with a sentence on stderr that has all of these, and without a panic.
fn assert_said(output: &Output, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{} {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "'{part}' in: {stderr}");
    }
}

#[test]
fn ninety_six_descriptors_serve_forty_peers_and_http() {
    let relay = RelayProcess::start(limited("-n 96", RELAY), &["--cores", "2"]);
    assert!(relay.log().contains("--max-peers lowered"), "{}", relay.log());
    let file = Arc::new(TestFile::new(31, 1 << 20, 16));
    let origin = Origin::start(relay.addr, &file);
    let wires: Vec<_> =
        (0..39).map(|_| Wire::join(relay.addr, hello(file.key())).expect("it may join")).collect();
    assert_eq!(http::get(relay.http, "/readyz").expect("answered").status, 200);
    assert_eq!(relay.metric("relay_peers", &[]), 40.0);
    // One more gets the file beside them.
    download(relay.addr, &file);
    assert!(origin.is_serving());
    drop(wires);
}

#[test]
fn descriptors_that_serve_no_two_peers_are_refused_with_the_numbers() {
    let usual = ["--cores", "2", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let output = ended(limited("-n 30", RELAY).args(usual));
    assert_said(&output, &["may open 30 descriptors", "needs 42", "LimitNOFILE=42"]);
    assert!(output.stdout.is_empty(), "nothing is announced that is not there");
    let output = ended(limited("-n 30", RELAY).arg("doctor").args(usual));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(" BAD  descriptors") && told.contains("LimitNOFILE=42"), "{told}");
}

#[test]
fn the_default_cache_follows_a_limit_and_a_given_one_is_warned_about() {
    let relay = RelayProcess::start(limited("-v 300000", RELAY), &["--cores", "2"]);
    wait_until("the log to say so", || {
        relay.log().contains("(ulimit -v) is 292 MiB, so --cache is")
    });
    let limit = relay.metric("relay_chunk_bytes_limit", &[]);
    assert!(limit < f64::from(200 << 20), "{limit}");
    drop(relay);
    let args = ["--cores", "2", "--cache", "200M"];
    let relay = RelayProcess::start(limited("-v 300000", RELAY), &args);
    wait_until("a warning", || relay.log().contains("WARN"));
    let log = relay.log();
    let line = log.lines().find(|line| line.contains("WARN")).expect("a warning");
    for part in ["292 MiB", "--cache 200 MiB", "would fit"] {
        assert!(line.contains(part), "'{part}' in: {line}");
    }
    assert_eq!(relay.metric("relay_chunk_bytes_limit", &[]), f64::from(200 << 20));
}

/// A file to share, and a relay that wants a token which no peer here has: one that gets as far as to it is told so
/// at once.
fn stage() -> (tempfile::TempDir, String, RelayProcess) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("everybody may enter");
    let [file, token] = ["film.mkv", "token"].map(|name| dir.path().join(name));
    std::fs::write(&file, vec![7; 8 << 20]).expect("written");
    std::fs::write(&token, "secret").expect("written");
    let token = token.display().to_string();
    let relay = RelayProcess::start(crate::programs::relay(), &["--token-file", &token]);
    (dir, file.display().to_string(), relay)
}

/// A relay that can't go on for long: where it gets as far as to its files, there is none.
fn hopeless(mut command: Command) -> Command {
    command.args([
        "--cores",
        "4",
        "--oversubscribe",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    command.args(["--serve", "no-such-file"]);
    command
}

#[test]
fn memory_that_the_system_refuses_ends_a_program_with_a_sentence() {
    let (_dir, file, relay) = stage();
    let at = relay.addr.to_string();
    // From where hardly a program starts to where nearly all of it fits.
    for kilobytes in (45_000..=85_000).step_by(10_000) {
        let limit = format!("-v {kilobytes}");
        assert_said(&ended(&mut hopeless(limited(&limit, RELAY))), &["error: "]);
        let mut share = limited(&limit, PEER);
        assert_said(&ended(share.args(["share", &file, "--relay", &at])), &["error: "]);
    }
}

#[test]
fn threads_that_the_system_refuses_are_a_sentence_and_no_panic() {
    if !rustix::process::geteuid().is_root() {
        println!("NOT CHECKED: only root can become a user without processes of his own");
        return;
    }
    // A user who has nothing else: the limit counts all threads of that user.
    const NOBODY_ELSE: u32 = 61_237;
    let (dir, file, relay) = stage();
    let at = relay.addr.to_string();
    let copies = [RELAY, PEER].map(|program| {
        let to = dir.path().join(program.rsplit('/').next().expect("a name"));
        std::fs::copy(program, &to).expect("copied");
        to.display().to_string()
    });
    for threads in 1..=6 {
        // Shells differ in the letter.
        let limit = format!("-p {threads} 2> /dev/null || ulimit -u {threads}");
        let mut command = limited(&limit, &copies[0]);
        command.args(["--cores", "4", "--oversubscribe", "--listen", "127.0.0.1:0"]);
        command.args(["--http", "127.0.0.1:0"]).uid(NOBODY_ELSE);
        assert_said(&ended(&mut command), &["error: ", "thread", "pids.max"]);
        let mut command = limited(&limit, &copies[1]);
        command.args(["share", &file, "--relay", &at]).uid(NOBODY_ELSE);
        assert_said(&ended(&mut command), &["error: "]);
    }
}
