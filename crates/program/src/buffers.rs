//! What the kernel's socket buffers let through on a long path, and the command that mends it.
//!
//! A stream has at most a buffer's worth under way: a rate of buffer ÷ round trip, whatever the network carries.

use std::time::Duration;

use relay_protocol::path::{BYTES_MAX, LONG, RATE_EXPECTED};
use relay_units::bytes_text;

/// The largest buffer worth having: what may be under way on the longest path.
pub const WANTED_BYTES: u64 = BYTES_MAX;

/// The most that a setting lets a buffer grow to: its last number.
pub fn most_bytes(value: &str) -> Option<u64> {
    value.split_whitespace().next_back()?.parse().ok()
}

/// About so many bytes a second pass through such a buffer: half of it is the kernel's own book-keeping.
fn rate(most_bytes: u64, round_trip: Duration) -> u64 {
    let nanos = round_trip.as_nanos().max(1);
    u64::try_from(u128::from(most_bytes / 2) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// What the relay and its peers want of them, for people.
pub fn rate_text(most_bytes: u64, round_trip: Duration) -> String {
    format!("{}/s", bytes_text(rate(most_bytes, round_trip)))
}

/// Raises the most, and leaves the setting's other numbers.
pub fn mend(name: &str, value: &str, wanted_bytes: u64) -> String {
    match value.split_whitespace().collect::<Vec<_>>()[..] {
        [least, usual, _] => format!("sysctl -w {name}='{least} {usual} {wanted_bytes}'"),
        _ => format!("sysctl -w {name}={wanted_bytes}"),
    }
}

/// What to tell a user who receives over a path of this round trip, if this setting bounds it.
pub fn warning(name: &str, value: &str, round_trip: Duration) -> Option<String> {
    let most = most_bytes(value)?;
    let rate = rate(most, round_trip);
    (round_trip >= LONG && most < WANTED_BYTES && rate < RATE_EXPECTED).then(|| {
        format!(
            "the relay is {} ms away, and this machine's {name} lets at most {} through over such a \
             path; as root: {}",
            round_trip.as_millis(),
            rate_text(most, round_trip),
            mend(name, value, WANTED_BYTES)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_only_where_it_bounds_a_long_path() {
        let at = |value, ms| warning("net.ipv4.tcp_rmem", value, Duration::from_millis(ms));
        let text = at("4096\t131072\t6291456", 100).expect("30 MiB/s");
        assert!(text.contains("100 ms away") && text.contains("30 MiB/s"), "{text}");
        assert!(text.ends_with("sysctl -w net.ipv4.tcp_rmem='4096 131072 67108864'"), "{text}");
        assert_eq!(at("4096 131072 6291456", 1), None, "near by it is enough");
        assert_eq!(at("4096 131072 67108864", 300), None, "more is not worth having");
        assert_eq!(at("", 300), None);
    }
}
