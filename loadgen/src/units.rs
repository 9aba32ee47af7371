//! Figures as people read them. What people write is read by [`relay::config`].

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

/// A rate that reads well, in the units that sizes have: `4.88 GiB/s`.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    let mut value = bytes_per_second;
    for unit in ["B/s", "KiB/s", "MiB/s", "GiB/s"] {
        if value < 1024.0 || unit == "GiB/s" {
            return format!("{} {unit}", three_digits(value));
        }
        value /= 1024.0;
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

/// The nearest whole number; 0 for what is negative or no number.
#[expect(clippy::cast_possible_truncation, reason = "values beyond are the largest there is")]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// With its thousands apart: `9,795,918`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    fn figures_have_three_digits() {
        assert_eq!(size(100 << 20), "100 MiB");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(size(0), "0 B");
        assert_eq!(rate(5.241e9), "4.88 GiB/s");
        assert_eq!(rate(1000.0), "1000 B/s");
        assert_eq!(seconds(0.0473), "47.3 ms");
        assert_eq!(seconds(0.000_85), "850 us");
        assert_eq!(thousands(9_795_918), "9,795,918");
        assert_eq!(thousands(100), "100");
        assert_eq!([whole(-1.0), whole(f64::NAN), whole(2.5)], [0, 0, 3]);
    }
}
