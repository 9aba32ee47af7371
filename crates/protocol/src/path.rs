//! What a path between a relay and a peer may hold: how many bytes may be under way, by its round trip.
//!
//! Pure. The relay's windows and the peers' grants both end here, so that neither bounds a path on which
//! the other would dare more.

use std::time::Duration;

/// May be under way on any path. To a peer near by it is 4 GB/s, on a path of 1 ms.
pub const BYTES_NEAR: u64 = 4 << 20;

/// May be under way on the longest path: what 1 Gbit/s holds at 300 ms, and half as much again.
pub const BYTES_MAX: u64 = 64 << 20;

/// What one path may carry at most, in bytes per second: the most that may be under way at 100 ms.
pub const RATE_MAX: u64 = 10 * BYTES_MAX;

/// What a path is taken to carry before it was measured, in bytes per second: 1 Gbit/s. The kernel's own slow
/// start (in datagrams, ours) finds out for itself what the network carries; this only stays out of its way.
pub const RATE_EXPECTED: u64 = 125_000_000;

/// From this round trip on a path is long: waiting for it costs more than the queue that a window builds.
pub const LONG: Duration = Duration::from_millis(80);

/// Bytes that may be under way on a path of this round trip.
#[must_use]
pub fn bytes_max(round_trip: Duration) -> u64 {
    bytes_held(RATE_MAX, round_trip).clamp(BYTES_NEAR, BYTES_MAX)
}

/// Bytes that a path of this rate holds.
#[must_use]
pub fn bytes_held(bytes_per_second: u64, round_trip: Duration) -> u64 {
    let bytes = u128::from(bytes_per_second) * round_trip.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_under_way_grows_with_the_round_trip() {
        let at = |ms| bytes_max(Duration::from_millis(ms));
        assert_eq!([at(0), at(1), at(6)], [BYTES_NEAR; 3], "near by as ever");
        assert_eq!([at(100), at(300), at(100_000)], [BYTES_MAX; 3]);
        assert!(at(10) > BYTES_NEAR && at(10) < BYTES_MAX);
        for ms in [1, 10, 100, 300] {
            assert!(at(ms) >= bytes_held(RATE_EXPECTED, Duration::from_millis(ms)), "{ms} ms");
        }
    }
}
