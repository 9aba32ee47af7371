//! The programs of this package as commands, for the crates of tests that start them.

use std::process::Command;

/// `relay`, without arguments.
pub(crate) fn relay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_relay"))
}

/// `peer` with these arguments, whatever the environment of the tests says.
pub(crate) fn peer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(args).env_remove("PEER_TIMEOUT");
    command
}
