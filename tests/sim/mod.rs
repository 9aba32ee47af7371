//! A deterministic simulator of everything around a [`relay::swarm::Swarm`]: peers with links,
//! windows and vices, the shell with its sessions, and one budget for several swarms.
//!
//! Virtual time, one event at a time, everything from one seed. After every event DESIGN.md's
//! properties are asserted. It simulates no bytes: a chunk is right or wrong.

#![allow(dead_code, reason = "every test uses its own part of the simulator")]

mod budget;
pub(crate) mod channel;
pub(crate) mod fleet;
mod outcome;
pub(crate) mod peer;
mod rng;
mod shell;
pub(crate) mod world;

pub(crate) use rng::Rng;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// Payload bytes of a frame.
pub(crate) const FRAME: u32 = 16 << 10;

/// Seeds after which a long run says how far it is.
const PROGRESS_SEEDS: u64 = 10_000;

/// Runs so many seeds, or only `SIM_SEED`, or `SIM_SEEDS` of them, from `SIM_FIRST` on; says which
/// seed failed and how to replay it.
pub(crate) fn for_seeds(test: &str, count: u64, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        return run(seed);
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    for seed in first..first + number("SIM_SEEDS").unwrap_or(count) {
        if seed > first && seed.is_multiple_of(PROGRESS_SEEDS) {
            eprintln!("seeds {first} to {seed} hold");
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        if let Err(panic) = result {
            eprintln!("seed {seed} failed; replay: SIM_SEED={seed} cargo test {test}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Seconds as nanoseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2^63")]
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
