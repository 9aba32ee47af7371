//! A thread-per-core runtime: one pinned thread, one event loop, one shard.
//!
//! Shards share nothing but bounded channels. This crate places them on cores, starts and
//! joins them, hands sockets over to them, carries their requests and replies, and bounds
//! the memory that they hold together. It knows no protocol and no file: it would be
//! unchanged for another server.
//!
//! In reading order: [`placement`] and [`driver`] say where and on what the loops run,
//! [`runtime`] starts them, [`handoff`] gives a shard its sockets, [`port`] its messages,
//! [`net`], [`task`] and [`clock`] are what it works with, [`offload`] takes work that blocks off
//! its hands, and [`budget`] bounds its memory. [`chunk_files`] holds chunks that the kernel sends without copying.
//! What a loop does once per turn is in `turn`, its beginning and end in `root`. What wakes it is in `doorbell`
//! and `station`, and which shard may run on which core in `cores`.
//!
//! ```text
//!   listener ──Handoff──► shard 0 ◄──Port (requests, replies)──► shard 1
//!                            ▲ doorbell (eventfd), rung only when the shard is parked
//!   other threads ──Ringer───┘
//! ```
//!
//! One loop, without messages:
//!
//! ```
//! use std::time::Duration;
//!
//! let driver = shards::driver::choose(shards::DriverChoice::Auto)?.driver;
//! shards::block_on(driver, async {
//!     let before = shards::clock::now();
//!     shards::clock::sleep(Duration::from_millis(1)).await;
//!     assert!(shards::clock::now() > before);
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bell;
pub mod budget;
pub mod chunk_files;
pub mod clock;
mod cores;
pub mod datagrams;
mod doorbell;
pub mod driver;
pub mod handoff;
pub mod heartbeats;
mod inbox;
pub mod net;
pub mod offload;
pub mod placement;
pub mod port;
#[cfg(target_os = "linux")]
mod ring;
mod ringer;
mod root;
pub mod runtime;
pub mod spin;
mod station;
pub mod steering;
#[cfg(test)]
mod stepping;
pub mod task;
mod turn;

pub use budget::{Budget, ChunkBuffer, Lease, Waiter};
pub use chunk_files::{ChunkFile, ChunkFiles, Pin};
pub use driver::{Chosen, Driver, DriverChoice, DriverError};
pub use handoff::{Handoff, Incoming};
pub use heartbeats::Heartbeats;
pub use net::Socket;
pub use offload::Offload;
pub use placement::{Placement, ShardId};
pub use port::Port;
pub use ringer::Ringer;
pub use runtime::{
    JoinError, MORE_THREADS, Shard, Shards, Start, StartError, block_on, mend_of_no_thread, start,
};
pub use spin::{SPIN_PATIENCE, SpinWatch};
