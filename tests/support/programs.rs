//! The programs of this package as commands, for the crates of tests that start them.
//!
//! They share files as they are, unless a test wants them sealed: peers made by hand know the wire, on which nothing
//! tells a sealed file from another, and no test makes a secret in the state of the user who runs it.

use std::process::Command;

use crate::support::process::{CACHE, NO_STATE, RELAY_STATE};

/// `relay`, without arguments.
pub(crate) fn relay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command
        .env("RELAY_PLAIN", "1")
        .env_remove("RELAY_SECRET_FILE")
        .env_remove("RELAY_IDENTITY_FILE");
    command.env("XDG_STATE_HOME", RELAY_STATE).env("XDG_CACHE_HOME", CACHE);
    command
}

/// `peer` with these arguments, whatever the environment of the tests says.
pub(crate) fn peer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(args).env_remove("PEER_TIMEOUT").env_remove("PEER_SECRET_FILE");
    command.env("PEER_PLAIN", "1").env("XDG_STATE_HOME", NO_STATE).env("XDG_CACHE_HOME", CACHE);
    for name in ["PEER_RELAY", "PEER_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command
}
