//! Wrong usage of the load generator, and relays that are none: each is a sentence that says what
//! failed, on what, why, and what to do, and the right exit code.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
};

use relay::protocol::{encode_preamble, limits::VERSION};

use crate::{
    loadgen,
    support::{
        in_background,
        process::{Ended, RelayProcess, run},
    },
};

/// A small job with these arguments on top.
fn job(args: &[&str]) -> Ended {
    run(loadgen().args(["--clients", "2", "--file", "100K", "--timeout", "30s"]).args(args))
}

fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let ended = run(loadgen().args(args));
    assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

/// Something that is not a relay of ours: answers every connection with `answer`, then waits.
fn impostor(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it has an address");
    // Ends with the test's process: it waits for connections that do not come.
    drop(in_background(move || {
        for stream in listener.incoming().take(20) {
            let Ok(mut stream) = stream else { continue };
            if stream.write_all(&answer).is_ok() {
                let mut sink = [0; 1024];
                while matches!(stream.read(&mut sink), Ok(1..)) {}
            }
        }
    }));
    addr
}

#[test]
fn a_file_that_is_not_there_or_no_size_is_wrong_usage() {
    fails(&["--file", "no-such-file"], 2, &["--file", "no-such-file", "100M"]);
    fails(&["--file", "12Q"], 2, &["12Q"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // A directory is what even root can't read as a file.
    let path = dir.path().display().to_string();
    fails(&["--file", &path, "--relay-args", ""], 2, &[&path, "directory"]);
    let path = dir.path().join("secret");
    std::fs::write(&path, "secret").expect("written");
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&path, nobody).expect("changed");
    if std::fs::read(&path).is_err() {
        let path = path.display().to_string();
        fails(&["--file", &path, "--relay-args", ""], 1, &[&path, "ermission"]);
    }
}

#[test]
fn values_that_cannot_be_parsed_are_wrong_usage_and_shown() {
    for (option, value) in [
        ("--clients", "many"),
        ("--clients", "0"),
        ("--cache", "lots"),
        ("--chunk", "3000"),
        ("--seeding", "both"),
        ("--order", "best"),
        ("--slow", "3"),
        ("--churn", "kill=x"),
        ("--rate", "fast"),
        ("--timeout", "soon"),
        ("--store", "somewhere"),
        ("--transport", "pigeon"),
        ("--relay", "no/where"),
    ] {
        fails(&[&format!("{option}={value}")], 2, &[option, value]);
    }
    fails(&["--clients", "3", "--corrupt", "3"], 2, &["--corrupt"]);
    fails(&["--relay", "127.0.0.1:1", "--cache", "1M"], 2, &["--cache", "--relay"]);
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    // Bound, so that no other program takes it, but not listening.
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = socket.local_addr().expect("it has an address").to_string();
    drop(socket);
    fails(&["--relay", &addr], 1, &[&addr, "refused"]);
}

#[test]
fn a_relay_of_another_version_is_told_apart() {
    let mut preamble = encode_preamble();
    let theirs = VERSION + 41;
    preamble[8..10].copy_from_slice(&theirs.to_le_bytes());
    let addr = impostor(preamble.to_vec()).to_string();
    fails(&["--relay", &addr], 1, &[&addr, &theirs.to_string(), "version"]);
}

#[test]
fn what_is_no_relay_is_told_apart() {
    let addr = impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).to_string();
    fails(&["--relay", &addr], 1, &[&addr, "does not speak this protocol"]);
}

#[test]
fn what_says_nothing_is_not_waited_for_for_ever() {
    let addr = impostor(Vec::new()).to_string();
    fails(&["--relay", &addr, "--timeout", "20s"], 1, &[&addr]);
}

#[test]
fn a_relay_of_its_own_that_cannot_start_says_why() {
    // What the relay calls wrong usage is ours too: the words came from our command line.
    fails(&["--relay-args", "--cache lots"], 2, &["lots", "relay"]);
    fails(&["--relay-args", "--nonsense"], 2, &["--nonsense", "relay"]);
    fails(&["--cache", "1K"], 2, &["4K", "relay"]);
    fails(&["--relay-args", "--listen 192.0.2.1:1"], 1, &["192.0.2.1", "relay"]);
}

#[test]
fn a_token_that_is_missing_or_wrong_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (right, wrong) = (path("right", "right\n"), path("wrong", "wrong\n"));
    let mut command = loadgen();
    command.arg("relay-role");
    let relay = RelayProcess::start(command, &["--token-file", &right]);
    let addr = relay.addr.to_string();
    let ended = job(&["--relay", &addr, "--token-file", &right]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for args in [&["--relay", &addr][..], &["--relay", &addr, "--token-file", &wrong]] {
        let ended = job(args);
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("token"), "{}", ended.stderr);
    }
    fails(&["--token-file", "no-such-file"], 2, &["--token-file", "no-such-file"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("written");
    let store = format!("dir:{}", file.display());
    let ended = job(&["--relay-args", "", "--store", &store]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    // A job that began and failed ends with a report, which names what went wrong.
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains(&file.display().to_string()), "{said}");
    // A report that can't be written is refused before anything runs.
    let json = file.join("report.json").display().to_string();
    let ended = job(&["--relay-args", "", "--json", &json]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&json), "{}", ended.stderr);
    assert!(!ended.stderr.contains("seed "), "nothing ran: {}", ended.stderr);
}
