//! Paths of a bundle as they may be shown to people: they are bytes that a stranger wrote.

use std::fmt::Write as _;

use crate::{limits::BUNDLE_PATH_BYTES_MAX, name::shown_name};

/// Stands for what was too long to be shown.
const CUT: &str = "…";

/// A path as it may be shown, whatever it holds: characters that don't show are written out as [`shown_name`] does,
/// bytes that are no text as `\x` and two digits. What is longer than any path is cut.
#[must_use]
pub fn shown_path(path: &[u8]) -> String {
    let kept = path.get(..BUNDLE_PATH_BYTES_MAX).unwrap_or(path);
    let mut shown = String::new();
    for part in kept.utf8_chunks() {
        shown.push_str(&shown_name(part.valid()));
        for byte in part.invalid() {
            write!(shown, "\\x{byte:02x}").expect("text grows");
        }
    }
    if kept.len() < path.len() {
        shown.push_str(CUT);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_is_written_out() {
        for (path, shown) in [
            (&b"src/main.rs"[..], "src/main.rs"),
            ("Käse 🧀/é".as_bytes(), "Käse 🧀/é"),
            (b"caf\xe9/x", "caf\\xe9/x"),
            (b"a\x1b[2J\nb", "a\\u{1b}[2J\\u{a}b"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            (b"\xe2\x80", "\\xe2\\x80"),
            (b"", ""),
        ] {
            assert_eq!(shown_path(path), shown);
        }
    }

    #[test]
    fn a_path_that_is_longer_than_any_is_cut() {
        let longest = vec![b'x'; BUNDLE_PATH_BYTES_MAX];
        assert_eq!(shown_path(&longest).len(), BUNDLE_PATH_BYTES_MAX);
        let shown = shown_path(&vec![b'x'; 1 << 20]);
        assert_eq!(shown.len(), BUNDLE_PATH_BYTES_MAX + CUT.len());
        assert!(shown.ends_with("x…"), "{}", shown.len());
    }
}
