//! Wrong usage and start-up faults of the relay: each is refused with a sentence that says what
//! failed, on what, why, and what to do. Needs no peer.

use std::net::TcpListener;

use crate::programs::relay;
use crate::support::process::{Ended, RelayProcess, run};

fn refused(args: &[&str]) -> Ended {
    let free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    run(relay().args(free).args(args))
}

#[test]
fn a_port_in_use_is_named_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it has an address").to_string();
    let ended = run(relay().args(["--listen", &addr, "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    for part in [addr.as_str(), "in use", "--listen"] {
        assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
    }
    assert_eq!(ended.stdout, "", "nothing is announced that is not there");
}

#[test]
fn two_relays_never_share_a_port() {
    let first = RelayProcess::start(relay(), &[]);
    let addr = first.addr.to_string();
    let second = run(relay().args(["--listen", &addr, "--http", "127.0.0.1:0"]));
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains(&addr), "{}", second.stderr);
}

#[test]
fn an_http_port_in_use_is_told_apart() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it has an address").to_string();
    let ended = run(relay().args(["--listen", "127.0.0.1:0", "--http", &addr]));
    assert_eq!(ended.code, 1);
    for part in [addr.as_str(), "HTTP", "in use", "--http"] {
        assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // TEST-NET-1: no machine has it.
    let ended = run(relay().args(["--listen", "192.0.2.1:0", "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 1);
    for part in ["192.0.2.1", "ip addr", "0.0.0.0"] {
        assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
    }
}

#[test]
fn an_unparsable_value_is_wrong_usage_and_shown() {
    for (option, value) in [
        ("--cache", "lots"),
        ("--cache", "100X"),
        ("--cache", "-1"),
        ("--cache", "99999999999999999999"),
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--cores", "0"),
        ("--cores", "many"),
        ("--driver", "kqueueue"),
        ("--drain-timeout", "soon"),
        ("--eviction", "fifo"),
        ("--max-peers", "0"),
    ] {
        let argument = format!("{option}={value}");
        let ended = run(relay().arg(&argument));
        assert_eq!(ended.code, 2, "{argument}: {}", ended.stderr);
        for part in [option, value] {
            assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
        }
    }
}

#[test]
fn an_environment_variable_is_an_option_too() {
    let ended = run(relay().env("RELAY_CACHE", "lots"));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("lots"), "{}", ended.stderr);
}

#[test]
fn a_cache_of_fewer_than_four_chunks_is_wrong_usage() {
    let ended = refused(&["--cache", "3K"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--cache"), "{}", ended.stderr);
}

#[test]
fn a_token_file_that_is_missing_unreadable_or_empty_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = dir.path().join("missing");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "\n  \n").expect("a file can be written");
    // A directory is what even root can't read as a file.
    for path in [missing.as_path(), dir.path(), empty.as_path()] {
        for option in ["--token-file", "--http-token-file"] {
            let path = path.display().to_string();
            let ended = refused(&[option, &path]);
            assert_eq!(ended.code, 2, "{option} {path}: {}", ended.stderr);
            for part in [option, path.as_str()] {
                assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
            }
        }
    }
}

#[test]
fn http_beyond_loopback_without_a_token_is_wrong_usage() {
    let ended = run(relay().args(["--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"]));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--http-token-file"), "{}", ended.stderr);
}

#[test]
fn an_unknown_congestion_control_is_named() {
    let ended = refused(&["--congestion", "warp"]);
    assert_eq!(ended.code, 1);
    for part in ["warp", "--congestion"] {
        assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
    }
}

#[test]
fn more_cores_than_there_are_is_one_line_with_both_numbers() {
    let relay = RelayProcess::start(relay(), &["--cores", "1000"]);
    let cores = std::thread::available_parallelism().expect("cores can be counted").to_string();
    let log = relay.log();
    // As a word: a line's time may hold the same digits.
    let names_it = |line: &&str| line.split_whitespace().any(|word| word == "1000");
    let lines: Vec<_> = log.lines().filter(names_it).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(&cores) && lines[0].contains("WARN"), "{}", lines[0]);
}

#[test]
fn help_shows_an_example_and_version_a_version() {
    let help = run(relay().arg("--help"));
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Example") && help.stdout.contains("RELAY_CORES"));
    let version = run(relay().arg("--version"));
    assert_eq!(
        (version.code, version.stdout.trim()),
        (0, concat!("relay ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn what_is_wrong_usage_says_what_would_be_right() {
    for (args, parts) in [
        (&["--cores", "0"][..], &["--cores", "at least 1"][..]),
        (&["--cores", "many"], &["'many'", "whole number"]),
        (&["--max-peers", "99999999999999999999999"], &["too large"]),
        (&["--listen", "localhost:7440"], &["'localhost:7440'", "0.0.0.0:7440"]),
        (&["--listen", "7440"], &["'7440'", "0.0.0.0:7440"]),
        (&["--http", "nowhere"], &["'nowhere'", "with a port"]),
        (&["--cache", "99999999T"], &["--cache", "too large"]),
    ] {
        let ended = run(relay().args(args));
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "{args:?}: '{part}' in: {}", ended.stderr);
        }
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn a_level_that_is_none_is_told_and_the_log_goes_on() {
    let mut command = relay();
    command.env("RELAY_LOG", "verbose");
    let relay = RelayProcess::start(command, &[]);
    let log = relay.log();
    assert!(log.contains("RELAY_LOG=verbose is no level"), "{log}");
    assert!(log.contains("driver "), "{log}");
}
