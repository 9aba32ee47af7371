//! The programs of this package as commands, for the crates of tests that start them.
//!
//! They share files as they are, unless a test wants them sealed: peers made by hand know the wire, on which nothing
//! tells a sealed file from another, and no test makes a secret in the state of the user who runs it.

use std::{path::Path, process::Command};

/// `relay`, without arguments.
pub(crate) fn relay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.env("RELAY_PLAIN", "1").env_remove("RELAY_SECRET_FILE");
    command
}

/// `peer` with these arguments, whatever the environment of the tests says.
pub(crate) fn peer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(args).env_remove("PEER_TIMEOUT").env_remove("PEER_SECRET_FILE");
    command.env("PEER_PLAIN", "1");
    command
}

/// Has a program seal what it shares, as it does by default, by a secret that it makes below this directory.
#[allow(dead_code, reason = "not every crate of tests seals")]
pub(crate) fn sealing(mut command: Command, state: &Path) -> Command {
    command.env_remove("PEER_PLAIN").env_remove("RELAY_PLAIN").env("XDG_STATE_HOME", state);
    command
}
