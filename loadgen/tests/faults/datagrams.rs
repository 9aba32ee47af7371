//! Runs over datagrams: they find their shard however they are steered, and a peer that can't be reached by
//! them is told what to do.

use super::loadgen;
use crate::support::{
    network::{Faults, Proxy},
    process::{RelayProcess, run},
};

fn relay(args: &[&str]) -> RelayProcess {
    let mut command = loadgen();
    command.arg("relay-role");
    RelayProcess::start(command, args)
}

/// A run's exit code, and what it said.
fn run_against(relay: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = loadgen();
    if !args.contains(&"--transport") {
        command.args(["--transport", "udp-control"]);
    }
    command.args(["--relay", relay, "--seed", "7"]);
    let ended = run(command.args(["--timeout", "100s", "--json", "-"]).args(args));
    (ended.code, ended.stdout, ended.stderr)
}

#[test]
fn everybody_gets_the_file_however_datagrams_find_their_shard() {
    for (steering, driver) in [("auto", "auto"), ("forward", "auto"), ("auto", "epoll")] {
        let args = ["--cores", "3", "--oversubscribe", "--driver", driver];
        let relay = relay(&[&args[..], &["--datagram-steering", steering]].concat());
        let args = ["--clients", "12", "--file", "6M", "--chunk", "16K", "--seeding", "origin"];
        let (code, report, text) = run_against(&relay.addr.to_string(), &args);
        assert_eq!(code, 0, "{text}");
        assert!(report.contains("\"transport\": \"udp-control\""), "{report}");
        assert!(relay.metric("relay_datagrams_total", &["direction=\"in\""]) > 100.0);
        assert!(relay.metric("relay_datagrams_total", &["direction=\"out\""]) > 100.0);
        let passed_on = relay.metric("relay_datagrams_passed_on_total", &[]);
        let by_kernel = cfg!(target_os = "linux") && steering == "auto";
        assert_eq!(passed_on > 0.0, !by_kernel, "{steering}: {passed_on} were passed on");
        let dropped = |reason: &str| {
            relay.metric("relay_datagrams_dropped_total", &[&format!("reason=\"{reason}\"")])
        };
        assert_eq!(dropped("malformed"), 0.0);
        // A shard that is behind, as on a busy machine, is passed no more: those are sent again.
        let not_passed_on = dropped("not_passed_on");
        assert!(not_passed_on <= passed_on / 4.0, "{not_passed_on}, and {passed_on} were");
    }
}

#[test]
fn nothing_that_was_sent_once_is_sent_again_while_nothing_is_lost() {
    let relay = relay(&["--cores", "2", "--oversubscribe"]);
    let args = ["--clients", "8", "--file", "2M", "--chunk", "16K", "--order", "sequential"];
    let (code, _, text) = run_against(&relay.addr.to_string(), &args);
    assert_eq!(code, 0, "{text}");
    let sent = relay.metric("relay_datagrams_total", &["direction=\"out\""]);
    let resent = relay.metric("relay_messages_resent_total", &[]);
    // A machine that is busy elsewhere lets acknowledgements come late now and then.
    assert!(resent <= sent / 4.0, "{resent} of {sent}");
}

#[test]
fn what_only_tries_how_long_datagrams_may_be_counts_as_no_file_bytes() {
    let relay = relay(&["--cores", "2", "--oversubscribe"]);
    let args = ["--transport", "udp-data", "--clients", "4", "--file", "1"];
    let (code, _, text) = run_against(&relay.addr.to_string(), &args);
    assert_eq!(code, 0, "{text}");
    // Once to spread it, once to exchange it, and a hedge or two on a busy machine.
    let took_in = relay.metric("relay_bytes_total", &["direction=\"in\"", "kind=\"data\""]);
    assert!((2.0..20.0).contains(&took_in), "{took_in} bytes of a file of one byte");
}

#[test]
fn a_relay_that_no_datagram_reaches_is_given_up_and_the_way_out_is_named() {
    let relay = relay(&[]);
    let silent = Faults { datagram_bytes_max: Some(1), ..Faults::default() };
    let proxy = Proxy::start(relay.addr, 1, silent);
    let (code, _, text) = run_against(&proxy.addr.to_string(), &["--clients", "2", "--file", "1M"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not answered for 3 s"), "{text}");
    assert!(text.contains("--transport tcp"), "{text}");
}
