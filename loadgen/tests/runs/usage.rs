//! What the command line promises: exit codes, and errors that say what to do.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    thread,
};

use crate::support::{Relay, command, run};

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for (args, reason) in [
        (&["--clients", "many"][..], "--clients"),
        (&["--clients", "0"], "not between"),
        (&["--file", "no-such-file"], "no such file"),
        (&["--transport", "pigeon"], "choose one of tcp, udp-control"),
        (&["--corrupt", "100"], "leave none"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--relay", "nonsense:port"], "--relay"),
        (&["--token-file", "/no/such/file"], "/no/such/file"),
    ] {
        let output = command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn flags_read_the_environment() {
    let output = command(&[]).env("LOADGEN_CLIENTS", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--clients 0"));
    // Set to nothing is not set, for the relay of its own, too.
    let mut command = command(&["--clients", "2", "--file", "1K"]);
    for name in ["LOADGEN_CLIENTS", "LOADGEN_CORES", "LOADGEN_SEED", "LOADGEN_RELAY"] {
        command.env(name, "");
    }
    command.env("LOADGEN_CACHE", "1M").env("RELAY_CORES", "").env("RELAY_MAX_PEERS", "");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for (args, name) in
        [(&["compare", "nginx", "--help"][..], "LOADGEN_CLIENTS"), (&["--cores="], "LOADGEN_CORES")]
    {
        let output = self::command(args).env(name, "").output().unwrap();
        let expected = if args.contains(&"--help") { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(expected), "an option without its value is an error");
    }
}

#[test]
fn help_has_an_example_and_the_exit_codes() {
    let output = command(&["--help"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("loadgen --clients 100 --file 100M"));
    assert!(text.contains("Exit codes"));
    assert!(text.contains("sweep") && text.contains("compare"));
}

#[test]
fn a_relay_that_is_named_with_its_pin_must_prove_that_one() {
    let relay = Relay::start("127.0.0.1:0", &["--cores", "1"]);
    let (right, other) = (format!("{}#{}", relay.address, relay.pin), "a".repeat(26));
    run(&["--clients", "2", "--file", "1M", "--relay", &right]).assert_success();
    let refused = run(&["--clients", "2", "--relay", &format!("{}#{other}", relay.address)]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for part in ["impostor", &relay.pin, &other] {
        assert!(refused.stderr.contains(part), "{part} in: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("is it running"), "it is: {}", refused.stderr);
}

#[test]
fn an_unreadable_file_and_a_directory_are_told_apart() {
    let run = run(&["--file", "/", "--relay-args", "--cores 1"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("/ is a directory"), "{}", run.stderr);
}

#[test]
fn what_would_empty_its_own_content_or_waits_for_a_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("client-1");
    std::fs::create_dir(&place).unwrap();
    let source = place.join("content");
    std::fs::write(&source, b"all there is").unwrap();
    let store = format!("dir:{}", dir.path().display());
    let job = ["--clients", "2", "--store", &store, "--file", source.to_str().unwrap()];
    let refused = run(&job);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("choose another directory"), "{}", refused.stderr);
    assert_eq!(std::fs::read(&source).unwrap(), b"all there is");

    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = run(&["--file", pipe.to_str().unwrap(), "--relay-args", "--cores 1"]);
    assert!(refused.stderr.contains("pipe is not a file"), "{}", refused.stderr);
}

#[test]
fn a_relay_of_its_own_takes_an_address_for_its_page() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let args = format!("--cores 1 --http {free}");
    run(&["--clients", "2", "--file", "1M", "--relay-args", &args]).assert_success();
}

#[test]
#[cfg(target_os = "linux")]
fn a_report_is_kept_though_nobody_listens_on_stdout() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let json = tempfile::NamedTempFile::new().unwrap();
    let mut command = command(&["--clients", "2", "--file", "1M", "--relay-args", "--cores 1"]);
    let status = command.arg("--json").arg(json.path()).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1), "what can't be told is an error");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_eq!(report["clients_verified"], 2);
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let run = run(&["--relay", &address]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains(&address) && run.stderr.contains("refused"), "{}", run.stderr);
    assert_has_failed_report(&run);
}

/// Of a run that could not begin: every key of one that did, what was asked for, and why not.
fn assert_has_failed_report(failed: &crate::support::Run) {
    let done = run(&["--clients", "1", "--file", "1", "--relay-args", "--cores 1"]);
    assert_same_keys(&failed.report, &done.report, "");
    assert_eq!(failed.report["seed"], 7);
    assert_eq!(failed.report["clients_verified"], 0);
    let [error] = &failed.report["errors"].as_array().unwrap()[..] else {
        panic!("one reason: {}", failed.report["errors"]);
    };
    let error = error.as_str().unwrap();
    assert!(!error.is_empty() && failed.stderr.contains(error), "{error}");
}

fn assert_same_keys(left: &serde_json::Value, right: &serde_json::Value, place: &str) {
    let keys = |value: &serde_json::Value| value.as_object().map(|map| map.len());
    assert_eq!(keys(left), keys(right), "{place}");
    for (key, of_right) in right.as_object().into_iter().flatten() {
        let of_left = left.get(key).unwrap_or_else(|| panic!("{place}/{key} is missing"));
        assert_same_keys(of_left, of_right, &format!("{place}/{key}"));
    }
}

/// Answers one connection with these bytes, and runs against it.
fn run_against(answer: &'static [u8]) -> crate::support::Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
            // Until the other side has gone.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        run(&["--relay", &address])
    })
}

#[test]
fn what_is_no_relay_or_of_another_version_is_told() {
    let http = run_against(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(http.code, Some(1));
    assert!(http.stderr.contains("does not speak this protocol"), "{}", http.stderr);
    let version = run_against(b"PSPRELAY\x63\0\0\0\0\0\0\0");
    assert_eq!(version.code, Some(1));
    assert!(version.stderr.contains("version 99"), "{}", version.stderr);
}

#[test]
fn a_relay_of_its_own_that_does_not_start_says_why() {
    let run = run(&["--clients", "1", "--file", "1", "--relay-args", "--no-such-flag"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("no-such-flag"), "{}", run.stderr);
    assert_has_failed_report(&run);
}

#[test]
fn a_run_that_takes_too_long_says_who_waits_for_what() {
    let run = run(&[
        "--clients",
        "2",
        "--file",
        "10M",
        "--rate",
        "100K",
        "--timeout",
        "2s",
        "--relay-args",
        "--cores 1",
    ]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("timed out after 2 s"), "{}", run.stdout);
    assert!(run.stdout.contains("client-1 has"), "{}", run.stdout);
    assert_eq!(run.report["clients_verified"], 0);
}

#[test]
fn the_report_can_go_to_stdout_alone() {
    let output = command(&[
        "--clients",
        "2",
        "--file",
        "100K",
        "--seed",
        "3",
        "--json",
        "-",
        "--timeout",
        "60s",
        "--relay-args",
        "--cores 1",
    ])
    .output()
    .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["clients_verified"], 2);
    assert_eq!(report["seed"], 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 of 2 clients"));
}
