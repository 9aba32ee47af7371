//! How long the process has been running: the one place that asks the system for the time.
//!
//! Waits for nothing.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::lapses::{LAPSE_MIN, Lapses};

/// How often an idle shard beats, and with that looks at the clock. A health check should allow several of
/// them. Each beat is a wake-up, and five times as many of them were most of what an idle process cost.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(500);

const _: () = assert!(LAPSE_MIN.as_millis() >= 3 * BEAT_INTERVAL.as_millis());

static EPOCH: OnceLock<Instant> = OnceLock::new();

static LAPSES: Lapses = Lapses::new();

/// Time since the first call in this process that it was running. Never goes back.
#[must_use]
pub fn now() -> Duration {
    LAPSES.running(&uptime)
}

/// Of the time since the first call, how much the process did not run: [`now`] leaves it out.
#[must_use]
pub fn lapsed() -> Duration {
    LAPSES.lapsed(&uptime)
}

/// As long as it lives there is an event loop, which looks at the clock every [`BEAT_INTERVAL`].
#[derive(Debug)]
pub(crate) struct Looking(());

impl Looking {
    pub(crate) fn begin() -> Self {
        LAPSES.begin_looking(&uptime);
        Self(())
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LAPSES.end_looking();
    }
}

fn uptime() -> Duration {
    let now = instant();
    now.saturating_duration_since(*EPOCH.get_or_init(|| now))
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else asks")]
fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::now;

    #[test]
    fn time_does_not_go_back() {
        let mut last = now();
        for _ in 0..1_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
