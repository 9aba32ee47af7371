//! What tests of whole programs share: a relay as a child process, a hand-made peer for honest and
//! for dishonest use, HTTP, and figures of `/metrics`.
//!
//! Blocking code on purpose: a test reads as a list of what happens. Nothing here knows whether
//! something is fast; it waits for what must come, within [`PATIENCE`], which no healthy run needs.

#![allow(dead_code, reason = "each test crate uses its own part of this")]

pub(crate) mod bundle;
pub(crate) mod chromium;
pub(crate) mod file;
pub(crate) mod honest;
pub(crate) mod http;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod proxy;
mod tools;
pub(crate) mod tunnel;
pub(crate) mod wire;

use std::time::Duration;

pub(crate) use tools::tool;

/// Bound on any wait: a loaded machine needs seconds, only a bug needs this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something.
///
/// # Panics
/// It doesn't within [`PATIENCE`]; `what` says what was waited for.
#[expect(clippy::disallowed_methods, reason = "a look may take longer than the pause between two")]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        pause(POLL);
    }
}

/// Waits until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

#[expect(clippy::disallowed_methods, reason = "a test has no event loop to block")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[expect(clippy::disallowed_methods, reason = "a test has no event loop to run on")]
pub(crate) fn in_background<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(run)
}
