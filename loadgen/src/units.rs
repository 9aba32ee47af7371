//! Sizes, durations and figures as people write and read them.
//!
//! Sizes follow GNU tools: `100M` and `100MiB` are 100·2²⁰ bytes, `100MB` is 100·10⁶.

use std::time::Duration;

/// Bytes from a text such as `100M`, `64KiB`, `10MB`, `1.5G`, `4096`.
///
/// # Errors
/// A lowercase fragment that says what is wrong.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(digits);
    let unit = unit_bytes(suffix.trim())
        .ok_or_else(|| format!("{text:?} is not a size: write for example 100M, 64KiB or 10MB"))?;
    let bytes = match number.split_once('.') {
        None => number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)),
        Some(_) => number.parse::<f64>().ok().and_then(|number| fraction_bytes(number, unit)),
    };
    match bytes {
        Some(bytes) => Ok(bytes),
        None if number.chars().any(|c| c.is_ascii_digit()) => {
            Err(format!("{text:?} is larger than 2^63 bytes, or not a number"))
        }
        None => Err(format!("{text:?} is not a size: it has no number")),
    }
}

fn unit_bytes(suffix: &str) -> Option<u64> {
    let (letter, rest) = match suffix.chars().next() {
        None | Some('B') if suffix.len() <= 1 => return Some(1),
        Some(letter) => (letter.to_ascii_uppercase(), &suffix[letter.len_utf8()..]),
        None => return None,
    };
    let power = u32::try_from("KMGTPE".find(letter)?).ok()? + 1;
    match rest {
        "" | "i" | "iB" => 1024u64.checked_pow(power),
        "B" => 1000u64.checked_pow(power),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked just before"
)]
fn fraction_bytes(number: f64, unit: u64) -> Option<u64> {
    let bytes = number * unit as f64;
    (bytes < (1u64 << 63) as f64).then_some(bytes as u64)
}

/// A duration from a text such as `10s`, `5m`, `1h`, `250ms`, `10` (seconds).
///
/// # Errors
/// A lowercase fragment that says what is wrong.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is not a duration: write for example 10s, 5m or 250ms")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a duration: write for example 10s, 5m or 250ms"))
}

/// A size that reads well: `100 MiB`, `1.5 KiB`, `17 B`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 || unit == "TiB" {
            return format!("{} {unit}", three_digits(value));
        }
        value /= 1024.0;
    }
    unreachable!("the last unit takes everything")
}

/// A rate that reads well, in decimal units as networks have it: `5.24 GB/s`.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    let mut value = bytes_per_second;
    for unit in ["B/s", "kB/s", "MB/s", "GB/s"] {
        if value < 1000.0 || unit == "GB/s" {
            return format!("{} {unit}", three_digits(value));
        }
        value /= 1000.0;
    }
    unreachable!("the last unit takes everything")
}

/// A time that reads well: `2.31 s`, `47.0 ms`, `850 us`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds >= 1.0 {
        format!("{} s", three_digits(seconds))
    } else if seconds >= 0.001 {
        format!("{} ms", three_digits(seconds * 1e3))
    } else {
        format!("{} us", three_digits(seconds * 1e6))
    }
}

fn three_digits(value: f64) -> String {
    if value >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_gnu() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1k", 1 << 10),
            ("100M", 100 << 20),
            ("100MiB", 100 << 20),
            ("100MB", 100_000_000),
            ("1.5G", 3 << 29),
            (" 2 TiB ", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_so() {
        for text in ["", "M", "-1", "100X", "100MiBs", "1..5M", "99999999999999999999", "16E", "20EB"] {
            assert!(parse_size(text).unwrap_err().contains("not a"), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["", "s", "10 parsecs", "1e400s", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(size(100 << 20), "100 MiB");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(size(0), "0 B");
        assert_eq!(rate(5.241e9), "5.24 GB/s");
        assert_eq!(seconds(0.0473), "47.3 ms");
        assert_eq!(seconds(0.000_85), "850 us");
    }
}
