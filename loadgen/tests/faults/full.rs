//! A relay that has no room for all of a run's clients.

use crate::{
    loadgen, relay,
    support::{
        process::{RelayProcess, Running},
        wait_until,
    },
};

#[test]
fn a_full_relay_is_told_at_once_and_ends_the_run_after_a_while() {
    let relay = RelayProcess::start(relay(), &["--max-peers", "2"]);
    let addr = relay.addr.to_string();
    let args = ["--relay", &addr, "--clients", "4", "--file", "1M", "--seeding", "origin"];
    let job = Running::start(loadgen().args(args).args(["--timeout", "5m"]));
    wait_until("the word", || job.stderr().contains("the relay is full"));
    let ended = job.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("--max-peers") && !said.contains("TooManyPeers"), "{said}");
    assert!(said.matches("the relay is full").count() > 1, "it is the reason, too: {said}");
}
