//! One shard of its own for tests and exercises, which have no machine to divide. Not part of the relay.

use shards::{DriverChoice, Placement, Shard, Shards, Start};

/// What a single shard on epoll is started with, on whatever core is free.
pub(crate) fn start() -> Start {
    Start {
        placement: Placement::plan(1.try_into().ok(), false),
        driver: shards::driver::choose(DriverChoice::Epoll).expect("epoll works").driver,
        name: "test",
        credits_per_pair: 8,
        handoff_capacity: 64,
    }
}

/// A shard that does nothing, for its doorbell.
pub(crate) fn idle() -> Shards {
    shards::start(start(), |_: Shard<(), ()>| async {}).expect("a shard can be started")
}
