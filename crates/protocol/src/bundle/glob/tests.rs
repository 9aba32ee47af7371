//! What patterns mean, what is none, and that a hostile one takes no long time.

use super::*;

fn matches(pattern: &str, path: &str) -> bool {
    Glob::parse(pattern.as_bytes()).expect(pattern).matches(path.as_bytes())
}

#[test]
fn patterns_mean_what_the_table_says() {
    for (pattern, meant, not_meant) in [
        ("a", &["a", "a/b", "a/b/c"][..], &["b", "aa", "b/a", "A"][..]),
        ("a/", &["a", "a/b"], &["aa"]),
        ("a/**", &["a/b", "a/b/c"], &["a", "b"]),
        ("a/**/**", &["a/b", "a/b/c"], &["a"]),
        ("*", &["a", ".a", "a/b"], &[]),
        ("**", &["a", ".a", "a/b"], &[]),
        ("*.txt", &["a.txt", ".txt", "a.b.txt", "a.txt/b"], &["b/a.txt", "a.txt2"]),
        ("**/*.txt", &["a.txt", "b/a.txt", "b/c/a.txt", "a.txt/b"], &["a.text", "b/txt"]),
        ("a/**/b", &["a/b", "a/x/b", "a/x/y/b", "a/x/b/c"], &["a", "a/x", "b", "x/a/b"]),
        ("**/a/**/b/*", &["a/b/c", "x/a/y/b/z", "a/b/b/b"], &["a/b", "b/a/c"]),
        ("a*b*c", &["abc", "axbxc", "abbcc", "aXbcbc"], &["ab", "acb", "abcd"]),
        ("?", &["a", "ä", "日", "a/b"], &["ab", "äö"]),
        ("a?c", &["abc", "a?c"], &["ac", "a/c", "abbc"]),
        ("[a-c]x", &["ax", "bx", "cx"], &["dx", "Ax", "-x"]),
        ("[!a-c]x", &["dx", "-x", "äx"], &["ax", "x"]),
        ("[^a]", &["b"], &["a"]),
        ("[]a]", &["]", "a"], &["["]),
        ("[!]a]", &["b"], &["]", "a"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[-a]", &["a", "-"], &["b"]),
        ("[ä-ö]", &["ä", "ö", "õ"], &["a", "z"]),
        ("[[]1]", &["[1]"], &["1", "[1"]),
        ("\\[1]", &["[1]"], &["1"]),
        ("\\*\\?\\\\", &["*?\\"], &["ab\\"]),
        ("[\\]\\-x]", &["]", "-", "x"], &["\\"]),
        ("{a,b}", &["{a,b}"], &["a", "b"]),
        ("...", &["..."], &["abc"]),
        (".*", &[".a", ".a/b"], &["a"]),
    ] {
        for path in meant {
            assert!(matches(pattern, path), "{pattern} means {path}");
        }
        for path in not_meant {
            assert!(!matches(pattern, path), "{pattern} does not mean {path}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_count_as_characters() {
    let glob = |pattern: &[u8]| Glob::parse(pattern).expect("a pattern");
    assert!(glob(b"caf?.txt").matches(b"caf\xe9.txt"));
    assert!(glob(b"caf\xe9*").matches(b"caf\xe9.txt"));
    assert!(!glob(b"caf\xe9*").matches("café.txt".as_bytes()));
    assert!(glob(b"[\xe0-\xef]").matches(b"\xe9"));
    assert!(!glob(b"[\xe0-\xef]").matches("é".as_bytes()));
    assert!(glob(b"??").matches(b"\xc3\xff"), "the beginning of a character");
    assert!(glob(b"?\xf0").matches(b"\xf0\xf0"));
}

#[test]
fn what_is_no_pattern_is_told() {
    for (pattern, error) in [
        ("", GlobError::Empty),
        ("/a", GlobError::Absolute),
        ("/", GlobError::Absolute),
        ("a//b", GlobError::EmptyComponent),
        ("a//", GlobError::EmptyComponent),
        ("./a", GlobError::Dots(".")),
        ("a/..", GlobError::Dots("..")),
        ("a/../b", GlobError::Dots("..")),
        ("\\.", GlobError::Dots(".")),
        ("a**", GlobError::Asterisks),
        ("**a", GlobError::Asterisks),
        ("***", GlobError::Asterisks),
        ("x/a**b/y", GlobError::Asterisks),
        ("[", GlobError::Unclosed),
        ("[]", GlobError::Unclosed),
        ("[!]", GlobError::Unclosed),
        ("a[b/c]", GlobError::Unclosed),
        ("[a-", GlobError::Unclosed),
        ("[z-a]", GlobError::Range),
        ("a\\", GlobError::Backslash),
        ("a\\/b", GlobError::Backslash),
        ("[\\", GlobError::Backslash),
    ] {
        assert_eq!(Glob::parse(pattern.as_bytes()), Err(error), "{pattern}");
    }
    let too_long = vec![b'a'; GLOB_BYTES_MAX + 1];
    assert_eq!(Glob::parse(&too_long), Err(GlobError::TooLong(too_long.len())));
    assert!(Glob::parse(&too_long[1..]).is_ok());
}

/// The plainest meaning of the two stars, in time that is exponential.
fn is_meant(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([], [] | [b'/', ..]) => true,
        ([b'*', b'*', b'/', rest @ ..], _) => {
            let mut starts = vec![0];
            starts.extend((1..=path.len()).filter(|&at| path[at - 1] == b'/'));
            starts.into_iter().any(|at| is_meant(rest, &path[at..]))
        }
        ([b'*', rest @ ..], _) => {
            let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
            (0..=end).any(|at| is_meant(rest, &path[at..]))
        }
        ([own, rest @ ..], [other, behind @ ..]) => own == other && is_meant(rest, behind),
        _ => false,
    }
}

#[test]
fn every_short_pattern_means_what_its_plainest_meaning_is() {
    const PARTS: [&str; 6] = ["a", "b", "*", "a*", "*b", "**"];
    const NAMES: [&str; 4] = ["a", "b", "ab", "ba"];
    let joined = |all: &[&str], mut number: usize| {
        let mut chosen = Vec::new();
        while number > 0 {
            chosen.push(all[(number - 1) % all.len()]);
            number = (number - 1) / all.len();
        }
        chosen.join("/")
    };
    let mut meant = 0;
    for pattern in (1..260).map(|number| joined(&PARTS, number)) {
        // With a component behind it at the end, the stars are as any others.
        let plainest =
            if pattern.ends_with("**") { format!("{pattern}/*") } else { pattern.clone() };
        for path in (1..341).map(|number| joined(&NAMES, number)) {
            let expected = is_meant(plainest.as_bytes(), path.as_bytes());
            assert_eq!(matches(&pattern, &path), expected, "{pattern} and {path}");
            meant += usize::from(expected);
        }
    }
    assert!(meant > 1000, "{meant}");
}

#[test]
fn a_hostile_pattern_takes_a_bounded_number_of_steps() {
    let text = "a".repeat(250);
    let path = [&text[..]; 16].join("/");
    let stars = "a*".repeat(120);
    for pattern in [
        format!("{stars}b"),
        format!("**/{stars}b"),
        format!("{}b", "**/a*/".repeat(600)),
        format!("{}b", "**/*/".repeat(800)),
        format!("{}b", "*?".repeat(1500)),
        format!("**/{stars}/**/{stars}/**/{stars}b"),
    ] {
        assert!(!matches(&pattern, &path), "{pattern}");
    }
}
