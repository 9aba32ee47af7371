//! What the relay's limits have to remember of one connection: its own rate each way, and whether it waits.
//!
//! Decides nothing: [`crate::shard::shaping`] does.

use std::cell::Cell;

use relay_protocol::rate::Gcra;

/// Where one connection stands with the limits. All of it is at rest while there are none.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// What it was sent, by the limit of each peer.
    pub sent: Cell<Gcra>,
    /// What it has supplied, by the same limit.
    pub received: Cell<Gcra>,
    /// It waits for its turn to be sent something.
    pub waits_to_send: Cell<bool>,
    /// It waits for its turn to be read from.
    pub waits_to_read: Cell<bool>,
    /// File bytes that it may be read, of the limit of all; what is not used goes back.
    pub granted_bytes: Cell<u64>,
}
