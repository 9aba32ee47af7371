//! A deterministic simulator of everything around a [`relay::swarm::Swarm`]: peers with links,
//! windows and vices, the shell with its sessions, and one budget for several swarms.
//!
//! Virtual time, one event at a time, everything from one seed. After every event the
//! properties that always hold are asserted. It simulates no bytes: a chunk is right or wrong.

#![allow(dead_code, reason = "every test uses its own part of the simulator")]

mod budget;
pub(crate) mod channel;
mod digest;
pub(crate) mod fleet;
mod home;
mod outcome;
pub(crate) mod peer;
mod rng;
mod shell;
pub(crate) mod world;

use std::{cell::Cell, io::Write as _, sync::Once};

pub(crate) use rng::Rng;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds in a microsecond.
pub(crate) const MICROSECOND: u64 = 1_000;

/// Payload bytes of a frame.
pub(crate) const FRAME: u32 = 16 << 10;

/// Seeds after which a long run says how far it is.
const PROGRESS_SEEDS: u64 = 10_000;

thread_local! {
    /// The test and the seed that this thread runs.
    static SEED: Cell<Option<(&'static str, u64)>> = const { Cell::new(None) };
}

/// Runs so many seeds, or only `SIM_SEED`, or `SIM_SEEDS` of them, from `SIM_FIRST` on; says which
/// seed failed and how to replay it.
pub(crate) fn for_seeds(test: &'static str, count: u64, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        return run(seed);
    }
    name_seeds_in_panics();
    let first = number("SIM_FIRST").unwrap_or(0);
    for seed in first..first + number("SIM_SEEDS").unwrap_or(count) {
        if seed > first && seed.is_multiple_of(PROGRESS_SEEDS) {
            println!("seeds {first} to {seed} hold");
        }
        SEED.set(Some((test, seed)));
        run(seed);
    }
    SEED.set(None);
    println!("digest {:016x} of what {test} decided", digest::take_all());
}

/// The seed comes before the panic's own message, and past the test harness, which keeps what is
/// printed until the test ends: neither an abort nor a kill can lose it.
fn name_seeds_in_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Some((test, seed)) = SEED.get() {
                let line =
                    format!("seed {seed} fails; replay: SIM_SEED={seed} cargo test {test}\n");
                std::io::stderr().write_all(line.as_bytes()).ok();
            }
            before(panic);
        }));
    });
}

/// Seconds as nanoseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2^63")]
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
