//! What people write on command lines, as values, and values as people read them. For all
//! programs; knows none of their options.
//!
//! ```
//! assert_eq!(relay_units::parse_size("100M"), Ok(100 << 20));
//! assert_eq!(relay_units::bytes_text(100 << 20), "100 MiB");
//! ```

use std::{
    fmt::Display,
    net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    num::{IntErrorKind, ParseIntError},
    ops::RangeInclusive,
    path::Path,
    str::FromStr,
    time::Duration,
};

/// Bytes, as GNU tools read them: `100M` and `100MiB` are 100·2²⁰, `100MB` is 100·10⁶.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let fail = |why: &str| format!("'{text}' {why}: write for example 100M (MiB) or 100MB (10^6)");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err(fail("is not a size"));
    }
    let number: u64 = number.parse().map_err(|_| fail("is too large"))?;
    let (letter, rest) = suffix.split_at(suffix.chars().next().map_or(0, char::len_utf8));
    let power = match letter.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(fail("has a unit that is not known")),
    };
    let base: u64 = match rest {
        "" | "iB" if letter != "B" || rest.is_empty() => 1024,
        "B" if power > 0 => 1000,
        _ => return Err(fail("has a unit that is not known")),
    };
    number.checked_mul(base.pow(power)).ok_or_else(|| fail("is too large"))
}

/// Bytes a second: a size, with or without `/s`; `none` and 0 are no limit, which is 0.
///
/// # Errors
/// A sentence that says what a rate looks like.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text == "none" {
        return Ok(0);
    }
    let size = text.strip_suffix("/s").unwrap_or(text);
    parse_size(size).map_err(|error| format!("{error}, a second; or none"))
}

/// Bytes a second for people: `100 MiB/s`; 0 is `none`.
#[must_use]
pub fn rate_text(bytes_per_second: u64) -> String {
    if bytes_per_second == 0 {
        "none".into()
    } else {
        format!("{}/s", bytes_text(bytes_per_second))
    }
}

/// A size that is a power of two, as its binary logarithm, which is within `log2`.
///
/// # Errors
/// A sentence that says what one looks like.
pub fn parse_power_of_two(text: &str, log2: RangeInclusive<u8>) -> Result<u8, String> {
    let bytes = parse_size(text)?;
    let found = log2.clone().find(|&log2| 1u64.checked_shl(log2.into()) == Some(bytes));
    found.ok_or_else(|| {
        let [least, most] = [log2.start(), log2.end()].map(|&log2| bytes_text(1 << log2));
        format!("it must be a power of two from {least} to {most}")
    })
}

/// A whole number, of the kind that is wanted.
///
/// # Errors
/// A sentence that says what it must be.
pub fn parse_count<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::Zero => "it must be at least 1".to_owned(),
        IntErrorKind::PosOverflow => format!("'{text}' is too large"),
        _ => format!("'{text}' is not a whole number: write for example 8"),
    })
}

/// An address to listen on.
///
/// # Errors
/// A sentence that says what one looks like.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let address = parse_address(text).ok_or_else(|| {
        format!(
            "'{text}' is not an address with a port: write for example 0.0.0.0:7440 or [::1]:7440; \
             names are not looked up here"
        )
    })?;
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            Err(format!(
                "'{text}' is link-local, and {}: write for example [fe80::1%eth0]:7440",
                match text.contains('%') {
                    true => "this machine has no interface of that name",
                    false => "every interface has such addresses",
                }
            ))
        }
        address => Ok(address),
    }
}

/// An address with a port; of a link-local one the interface may be named, as in `[fe80::1%eth0]:7440`.
/// One that this machine does not have leaves it without.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (address, _) = host.split_once('%')?;
    let (address, port): (Ipv6Addr, u16) = (address.parse().ok()?, port.parse().ok()?);
    // The system knows its interfaces' names.
    let found = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
    Some(found.unwrap_or_else(|| SocketAddr::from((address, port))))
}

/// `500ms`, `10s`, `5m`, `2h`; a bare number is seconds.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let fail = || format!("'{text}' is not a duration: write for example 500ms, 10s or 5m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| fail())?;
    let milliseconds = match suffix {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return Err(fail()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(fail)
}

/// A size as options take it.
#[must_use]
pub fn option_text(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{}K", (bytes >> 10).max(4)) } else { format!("{}M", bytes >> 20) }
}

/// Bytes for people: `100 MiB`, three figures.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes == 1 {
        return "1 byte".into();
    }
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    if unit == 0 {
        return format!("{bytes} bytes");
    }
    #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    let decimals = usize::from(value < 10.0) + usize::from(value < 100.0);
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}", UNITS[unit])
}

/// Two numbers of bytes that differ, so that their texts do, too.
#[must_use]
pub fn bytes_texts(one: u64, other: u64) -> (String, String) {
    let texts = (bytes_text(one), bytes_text(other));
    if texts.0 == texts.1 && one != other {
        return (count_text(one, "byte"), count_text(other, "byte"));
    }
    texts
}

/// A file and its digest as `b3sum` prints them, and `b3sum --check` reads them.
#[must_use]
pub fn checksum_line(digest: impl Display, path: &Path) -> String {
    let path = path.to_string_lossy();
    if !path.contains(['\\', '\n', '\r']) {
        return format!("{digest}  {path}");
    }
    let path = path.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
    format!(r"\{digest}  {path}")
}

/// A number with its digits in groups of three: `12,345`.
#[must_use]
pub fn grouped_text(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 chunk`, `2 chunks`.
#[must_use]
pub fn count_text(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A count with commas between groups of three digits: "100,000".
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration for people: `0.8 s`, `12 s`, `3 min 4 s`, `2 h 5 min`.
#[must_use]
pub fn time_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three_digits() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1 << 20, "1,048,576")]
        {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn sizes_follow_gnu_tools() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("7B", 7),
            ("100M", 100 << 20),
            ("100MiB", 100 << 20),
            ("100MB", 100_000_000),
            ("1k", 1024),
            ("1KiB", 1024),
            ("1kB", 1000),
            ("3G", 3 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1X",
            "1MBB",
            "1iB",
            "1BiB",
            "99999999999999999999",
            "20000000T",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_or_none() {
        for (text, bytes) in [
            ("20M", 20 << 20),
            (" 20MB/s ", 20_000_000),
            ("none", 0),
            ("0", 0),
            ("64K/s", 64 << 10),
        ] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "/s", "fast", "1M/m", "-1", "1M/s/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!((rate_text(0), rate_text(20 << 20)), ("none".into(), "20 MiB/s".into()));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        for text in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_have_three_figures_and_a_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (100 << 20, "100 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn sizes_that_differ_look_different() {
        assert_eq!(bytes_texts(1 << 20, 2 << 20), ("1 MiB".into(), "2 MiB".into()));
        assert_eq!(
            bytes_texts(300 << 20, (300 << 20) + 1),
            ("314572800 bytes".into(), "314572801 bytes".into())
        );
        assert_eq!(bytes_texts(1 << 30, 1 << 30).0, "1 GiB");
    }

    #[test]
    fn a_checksum_line_escapes_names_as_b3sum_does() {
        for (path, line) in [
            ("x", "d  x"),
            (" x  y", "d   x  y"),
            ("a\\b", "\\d  a\\\\b"),
            ("a\nb\rc", "\\d  a\\nb\\rc"),
            ("\\n", "\\d  \\\\n"),
        ] {
            assert_eq!(checksum_line("d", Path::new(path)), line);
        }
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345, "12,345"),
            (100_000, "100,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped_text(number), text);
        }
    }

    #[test]
    fn times_read_well() {
        for (seconds, text) in [
            (0.84, "0.8 s"),
            (12.9, "12 s"),
            (60.0, "1 min"),
            (184.0, "3 min 4 s"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(time_text(Duration::from_secs_f64(seconds)), text);
        }
    }
}
