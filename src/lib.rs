//! Relay: a peer-server-peer network that distributes files to many machines at once.
//!
//! Modules in reading order; an arrow means "uses".
//!
//! ```text
//!      serve           the `relay` program: a server, and files that it is itself the origin of
//!    │     │
//!  server  peer        the shells: sockets, shards, clocks, metrics
//!    │  ╲   │ ╲
//!    │   transport     one contract, one file per implementation: moves frames
//!    │      │
//!  swarm    │          pure: who has what, who gets what next
//!    ╲      │
//!      protocol        pure: bytes <-> messages, limits, manifest, keys
//!        │
//!       time           a point in time, handed in from outside
//!       path           how much may be under way on a path
//!       buffers        what the kernel's buffers let through on one
//!       rng            seeded numbers that need not be unpredictable
//!       units          sizes and durations as people write them
//!       machine        memory and processor time that may be used
//!       allocator      memory, and what is said when there is none
//!       pages          completions and manual pages
//!       arguments      command lines and variables
//!       log_level      what the log tells
//!       token_file     files of tokens
//!       signals        which ones end a program
//!       stderr         what people are told
//!       stdout         results
//! ```
//!
//! `server` and `peer` never import each other; `time`, `protocol` and `swarm` know no sockets,
//! no clock, no threads.

pub mod allocator;
pub mod arguments;
pub(crate) mod buffers;
pub mod log_level;
pub mod machine;
pub mod pages;
pub mod path;
pub mod rng;
mod signals;
pub mod stderr;
pub mod stdout;
pub mod time;
pub mod token_file;
pub mod units;

pub mod protocol;
pub mod swarm;

pub mod transport;

pub mod peer;
pub mod server;

pub mod serve;

pub mod config;

#[cfg(any(test, fuzzing))]
pub mod exercise;
