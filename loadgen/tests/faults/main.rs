//! The load generator in trouble: programs that die, peers that lie, people who mistype.

#[path = "../../../tests/support/mod.rs"]
mod support;

mod crash;
mod datagrams;
mod full;
mod lent;
mod liars;
mod restart;
mod results;
mod transports;
mod usage;

use std::process::Command;

use support::process::Ended;

fn loadgen() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
}

/// A relay: the load generator's own executable in that role.
fn relay() -> Command {
    let mut command = loadgen();
    command.arg("relay-role");
    command
}

fn succeeds(ended: &Ended) {
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}
