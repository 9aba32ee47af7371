//! Relay: a peer-server-peer network that distributes files to many machines at once.
//!
//! This package has the programs `relay` and `peer`; what they are made of are crates of their own, which are
//! re-exported here for tests, benchmarks and `loadgen`. An arrow means "uses":
//!
//! ```text
//!  serve (relay)     peer             the programs: options to exit code
//!    │      ╲      ╱
//!  server    client                   the shells: sockets, shards, clocks, metrics
//!    │  ╲     │
//!    │   transport                    one contract, one file per implementation: moves frames
//!    │      │
//!  swarm    │                         pure: which peer has what, and gets what next
//!    ╲      │
//!      protocol                       pure: bytes <-> messages, limits, manifest, keys, time as a value
//!
//!  program                            command lines, results, messages, what the machine allows
//!  units                              sizes and durations as people write them
//!  shards                             pinned event loops, messages between them, a memory budget
//! ```
//!
//! Without the feature `server`, which is on by default, this is the program `peer` alone.

pub use relay_client as client;
pub use relay_program::{
    allocator, arguments, buffers, certificates, known_relays, log_level, machine, pages, places,
    secret_file, signals, stderr, stdout, token_file,
};
pub use relay_protocol::{self as protocol, path, rng, time};
#[cfg(feature = "server")]
pub use relay_server as server;
#[cfg(feature = "server")]
pub use relay_swarm as swarm;
pub use relay_transport as transport;
pub use relay_units as units;

pub mod peer;
mod user_secret;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
mod doctor;
#[cfg(feature = "server")]
mod logging;
#[cfg(feature = "server")]
pub mod serve;

#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
