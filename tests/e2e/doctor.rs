//! `relay doctor` as a program: what it says of this machine, and what its exit code means.

use std::{net::TcpListener, process::Command};

use crate::support::process::{RelayProcess, run};

fn doctor(args: &[&str]) -> Command {
    let mut command = crate::programs::relay();
    command.arg("doctor").args(args);
    command
}

#[test]
fn a_machine_that_runs_a_relay_passes_and_each_line_says_what_it_is_about() {
    let ended = run(&mut doctor(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    for what in [
        "event loops",
        "locked memory",
        "descriptors",
        "socket buffers",
        "congestion control",
        "cores",
        "memory",
        "IPv6",
        "port",
    ] {
        let is_there = ended
            .stdout
            .lines()
            .any(|line| line.get(6..).is_some_and(|rest| rest.starts_with(what)));
        assert!(is_there, "{what} in\n{}", ended.stdout);
    }
}

#[test]
fn a_port_that_is_taken_is_bad_and_a_wrong_option_is_wrong_usage() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let ended = run(&mut doctor(&["--listen", &addr, "--http", "127.0.0.1:0"]));
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    let line = ended.stdout.lines().find(|line| line.starts_with(" BAD")).expect("a bad line");
    assert!(line.contains(&addr), "{line}");
    assert_eq!(run(&mut doctor(&["--nonsense"])).code, 2);
    assert_eq!(run(&mut doctor(&["--http", "0.0.0.0:0"])).code, 2, "it wants a token");
}

#[test]
fn the_subcommand_leaves_the_relay_itself_as_it_was() {
    let relay = RelayProcess::start(crate::programs::relay(), &["--cores", "1"]);
    assert_eq!(relay.metric("relay_peers", &[]), 0.0);
    let help = run(crate::programs::relay().arg("--help"));
    assert!(help.stdout.contains("relay doctor"), "{}", help.stdout);
    assert_eq!(run(crate::programs::relay().arg("docto")).code, 2);
}
