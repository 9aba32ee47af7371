//! Our points in time as the library wants them, and back.

use std::{sync::OnceLock, time::Instant};

use relay_protocol::time::Time;

/// The library's name for [`Time::ZERO`]. Only differences to it are ever looked at.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a mark to count from; it tells no time")]
    *EPOCH.get_or_init(Instant::now)
}

/// This point in time, for the library.
pub(super) fn instant(time: Time) -> Instant {
    epoch() + time.since(Time::ZERO)
}

/// A point in time of the library's.
pub(super) fn time(instant: Instant) -> Time {
    Time::from_start(instant.saturating_duration_since(epoch()))
}
