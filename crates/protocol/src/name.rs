//! What a ticket may call a file: one rule, for making a ticket and for taking one.
//!
//! A name is data that a stranger wrote. It names one file in one directory, is no option to other
//! programs and no unfinished download, and two names that differ look different. [`fit_name`] makes
//! such a name of what a file is called, [`check_name`] says why another one is none.
//!
//! Knows no file system and opens nothing.

use std::fmt::Write as _;

use super::limits::{LABEL_BYTES_MAX, TICKET_NAME_BYTES_MAX};

/// Follows a file's name while it is not whole.
pub const PART_SUFFIX: &str = ".part";

/// Follows the partial file's name: the list of its digests.
pub const MANIFEST_SUFFIX: &str = ".manifest";

/// Follows the partial directory's name: the chunks that hold a bundle's index.
pub const INDEX_SUFFIX: &str = ".index";

/// The longest end of a name that is kept when the name is cut.
const EXTENSION_BYTES: usize = 16;

/// What tells names apart that were cut: so many bytes of their BLAKE3.
const CUT_MARK_BYTES: usize = 4;

/// Why a name is none, so that it fits "the name NAME, which ..".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameFault {
    /// There is nothing.
    #[error("is no name")]
    Empty,
    /// It leads somewhere.
    #[error("names more than a file in one directory")]
    Path,
    /// It is not UTF-8.
    #[error("holds bytes that are no text")]
    NoText,
    /// It would steer a terminal, or looks like another name.
    #[error("holds characters that don't show")]
    Invisible,
    /// It begins with a dash.
    #[error("looks like an option to other programs")]
    Option,
    /// It begins or ends with white space.
    #[error("begins or ends with a space")]
    Space,
    /// It ends as partial files do.
    #[error("could be taken for an unfinished download")]
    Unfinished,
    /// File systems have no longer ones.
    #[error("has more than {TICKET_NAME_BYTES_MAX} bytes")]
    TooLong,
}

/// Whether a ticket may call a file so.
///
/// # Errors
/// The first reason why not.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameFault::Path);
    }
    if let Some(fault) = in_context(name).find_map(char_fault) {
        return Err(fault);
    }
    if name.starts_with('-') {
        return Err(NameFault::Option);
    }
    if name.trim() != name {
        return Err(NameFault::Space);
    }
    if unfinished_at(name).is_some() {
        return Err(NameFault::Unfinished);
    }
    if name.len() > TICKET_NAME_BYTES_MAX {
        return Err(NameFault::TooLong);
    }
    Ok(())
}

/// Why a text is no label, so that it fits "a label that ..".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LabelFault {
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// It would steer a terminal, or looks like another text.
    #[error("holds characters that don't show")]
    Invisible,
    /// It begins or ends with white space.
    #[error("begins or ends with a space")]
    Space,
    /// There is no room for it.
    #[error("has more than {LABEL_BYTES_MAX} bytes")]
    TooLong,
}

/// Whether an origin may have its file called so where people watch a relay. Unlike a name it leads nowhere and
/// is no word of a command, so it may have slashes and begin with a dash.
///
/// # Errors
/// The first reason why not.
pub fn check_label(text: &str) -> Result<(), LabelFault> {
    // A label that is much too long need not be read whole.
    if text.len() > LABEL_BYTES_MAX {
        return Err(LabelFault::TooLong);
    }
    if text.is_empty() {
        return Err(LabelFault::Empty);
    }
    if in_context(text).any(|near| char_fault(near) == Some(NameFault::Invisible)) {
        return Err(LabelFault::Invisible);
    }
    if text.trim() != text {
        return Err(LabelFault::Space);
    }
    Ok(())
}

/// What a ticket calls a file of this name, and why that is another name, if it is. What can't stay is
/// written as `%` and two digits for each byte, so that two names never become one.
#[must_use]
pub fn fit_name(name: &[u8]) -> (String, Option<NameFault>) {
    let text = String::from_utf8_lossy(name);
    let is_text = matches!(text, std::borrow::Cow::Borrowed(_));
    let Err(fault) = check_name(&text) else {
        return match is_text {
            true => (text.into_owned(), None),
            false => (shortened(escaped(name), name), Some(NameFault::NoText)),
        };
    };
    let fault = if is_text { fault } else { NameFault::NoText };
    (shortened(escaped(name), name), Some(fault))
}

/// A name as it may be shown, whatever it holds: what does not show is written out.
#[must_use]
pub fn shown_name(name: &str) -> String {
    let mut shown = String::new();
    for near in in_context(name) {
        if near.char.is_control() || char_fault(near) == Some(NameFault::Invisible) {
            shown.extend(near.char.escape_unicode());
        } else {
            shown.push(near.char);
        }
    }
    shown
}

/// A name of at most so many bytes for what lies beside a file: the name and a suffix, or, where that is too
/// long, the name's beginning and a mark that other names don't have.
#[must_use]
pub fn beside_name(name: &[u8], suffix: &str, bytes_max: usize) -> Vec<u8> {
    let mut beside = name.to_vec();
    if name.len() + suffix.len() > bytes_max {
        let mark = cut_mark(name);
        let mut end = bytes_max.saturating_sub(suffix.len() + mark.len()).min(name.len());
        // Not within a character.
        while end > 0 && name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
        beside.truncate(end);
        beside.extend_from_slice(mark.as_bytes());
    }
    beside.extend_from_slice(suffix.as_bytes());
    beside
}

fn cut_mark(name: &[u8]) -> String {
    let hash = blake3::hash(name);
    let mut mark = String::from("~");
    for byte in &hash.as_bytes()[..CUT_MARK_BYTES] {
        write!(mark, "{byte:02x}").expect("text grows");
    }
    mark
}

/// With what can't stay written out; it may have become too long.
fn escaped(name: &[u8]) -> String {
    let mut fit = String::new();
    for part in name.utf8_chunks() {
        fit.push_str(part.valid());
        escape(&mut fit, part.invalid());
    }
    // What is written out may have been what another character needed beside it.
    while in_context(&fit).any(|near| char_fault(near).is_some()) {
        let mut better = String::new();
        for near in in_context(&fit) {
            match char_fault(near) {
                Some(_) => escape(&mut better, near.char.encode_utf8(&mut [0; 4]).as_bytes()),
                None => better.push(near.char),
            }
        }
        fit = better;
    }
    if fit.is_empty() {
        fit.push_str("file");
    }
    // What is wrong with the rest is wrong with its first or its last characters.
    while let Some(at) = fault_at(&fit) {
        let char = fit[at..].chars().next().expect("a character is there");
        let mut code = String::new();
        escape(&mut code, char.encode_utf8(&mut [0; 4]).as_bytes());
        fit.replace_range(at..at + char.len_utf8(), &code);
    }
    fit
}

fn escape(fit: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(fit, "%{byte:02X}").expect("text grows");
    }
}

/// The place of a character without which the name would be better, if it holds none that is wrong in itself.
fn fault_at(name: &str) -> Option<usize> {
    if name == "." || name == ".." || name.starts_with('-') || name.trim_start() != name {
        return Some(0);
    }
    if name.trim_end() != name {
        return name.char_indices().next_back().map(|(at, _)| at);
    }
    unfinished_at(name)
}

/// Where the suffix of a partial file begins, if the name ends with one. File systems that know no case are
/// meant, too.
fn unfinished_at(name: &str) -> Option<usize> {
    let ends_with = |name: &str, suffix: &str| {
        let at = name.len().checked_sub(suffix.len())?;
        name.as_bytes()[at..].eq_ignore_ascii_case(suffix.as_bytes()).then_some(at)
    };
    if let Some(at) = ends_with(name, PART_SUFFIX) {
        return Some(at);
    }
    let at = ends_with(name, MANIFEST_SUFFIX).or_else(|| ends_with(name, INDEX_SUFFIX))?;
    ends_with(&name[..at], PART_SUFFIX).map(|_| at)
}

/// Cut to what a ticket holds, if it is longer: the beginning, a mark, and what tells of which kind it is.
fn shortened(name: String, original: &[u8]) -> String {
    if name.len() <= TICKET_NAME_BYTES_MAX {
        return name;
    }
    let extension = name.rfind('.').filter(|&at| at > 0 && name.len() - at <= EXTENSION_BYTES);
    let extension = extension.map_or("", |at| &name[at..]);
    let mark = cut_mark(original);
    let room = TICKET_NAME_BYTES_MAX - mark.len() - extension.len();
    let begin = &name[..name.floor_char_boundary(room)];
    // What stood between two characters must not stand at an end.
    let begin = begin.trim_end_matches(|char| is_ignorable(char) || char.is_whitespace());
    format!("{begin}{mark}{extension}")
}

/// A character and those beside it.
#[derive(Clone, Copy)]
struct Near {
    before: Option<char>,
    char: char,
    after: Option<char>,
}

fn in_context(text: &str) -> impl Iterator<Item = Near> + '_ {
    let mut chars = text.chars().peekable();
    let mut before = None;
    std::iter::from_fn(move || {
        let char = chars.next()?;
        let near = Near { before, char, after: chars.peek().copied() };
        before = Some(char);
        Some(near)
    })
}

/// Why this character may not stand here.
fn char_fault(near: Near) -> Option<NameFault> {
    match near.char {
        '/' | '\\' => Some(NameFault::Path),
        char if char.is_control() => Some(NameFault::Invisible),
        char if is_ignorable(char) && !shapes_others(near) => Some(NameFault::Invisible),
        _ => None,
    }
}

/// Whether a character that does not show by itself changes how its neighbours look, as spelling wants it:
/// joiners within words and emoji, and selectors of a variant after what has variants.
fn shapes_others(Near { before, char, after }: Near) -> bool {
    let Some(before) = before else { return false };
    match char {
        // A word of Malayalam may end with a joiner.
        '\u{200d}' if is_virama(before) => true,
        '\u{200c}' | '\u{200d}' => is_of_word(before) && after.is_some_and(is_of_word),
        '\u{fe0e}' | '\u{fe0f}' if after == Some('\u{20e3}') => {
            before.is_ascii_digit() || "#*".contains(before)
        }
        '\u{fe0e}' | '\u{fe0f}' => matches!(
            before,
            '\u{a9}' | '\u{ae}' | '\u{203c}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}'
                | '\u{3299}' | '\u{1f000}'..='\u{1faff}'
        ),
        '\u{fe00}'..='\u{fe0d}' | '\u{e0100}'..='\u{e01ef}' => matches!(
            before,
            '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
        ),
        '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(before, '\u{1820}'..='\u{18aa}'),
        _ => false,
    }
}

/// A letter, a digit, a mark on one, a picture, or the variant of one.
fn is_of_word(char: char) -> bool {
    let is_selector = matches!(char, '\u{fe0e}' | '\u{fe0f}');
    let shows = !is_ignorable(char) && !char.is_whitespace() && !char.is_control();
    is_selector || shows && (char.is_alphanumeric() || !char.is_ascii())
}

/// The sign by which scripts of India and its neighbours join two consonants.
fn is_virama(char: char) -> bool {
    matches!(
        char,
        '\u{94d}'
            | '\u{9cd}'
            | '\u{a4d}'
            | '\u{acd}'
            | '\u{b4d}'
            | '\u{bcd}'
            | '\u{c4d}'
            | '\u{ccd}'
            | '\u{d4d}'
            | '\u{dca}'
            | '\u{1039}'
            | '\u{103a}'
            | '\u{17d2}'
    )
}

/// Characters that take no room, or that change how others are shown: what Unicode lets programs ignore, what
/// separates lines and changes directions, and what is blank without being a space.
fn is_ignorable(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_scripts_stay_as_they_are() {
        let longest = "x".repeat(TICKET_NAME_BYTES_MAX);
        for name in [
            "x",
            ".hidden",
            "a..b",
            "x.part1",
            "part",
            "100%.txt",
            "ä ö.txt",
            "日本",
            "葛\u{e0100}城",
            "می\u{200c}خواهم.txt",
            "क\u{94d}\u{200d}ष.txt",
            "അവന\u{d4d}\u{200d}.txt",
            "👨\u{200d}👩\u{200d}👧.jpg",
            "❤\u{fe0f}\u{200d}🔥",
            "1\u{fe0f}\u{20e3}.png",
            &longest,
        ] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
            assert_eq!(fit_name(name.as_bytes()), (name.to_owned(), None));
            assert_eq!(shown_name(name), name);
        }
    }

    #[test]
    fn what_a_get_would_refuse_is_altered_and_nothing_else() {
        for (name, fit, fault) in [
            ("-rf", "%2Drf", NameFault::Option),
            ("--", "%2D-", NameFault::Option),
            ("a\\b", "a%5Cb", NameFault::Path),
            (" x ", "%20x%20", NameFault::Space),
            ("\u{a0}x", "%C2%A0x", NameFault::Space),
            ("x.part", "x%2Epart", NameFault::Unfinished),
            ("x.PART", "x%2EPART", NameFault::Unfinished),
            ("x.part.manifest", "x.part%2Emanifest", NameFault::Unfinished),
            ("x.part.index", "x.part%2Eindex", NameFault::Unfinished),
            ("a\nb", "a%0Ab", NameFault::Invisible),
            ("a\0b", "a%00b", NameFault::Invisible),
            ("a\u{200f}b", "a%E2%80%8Fb", NameFault::Invisible),
            ("a\u{ad}b", "a%C2%ADb", NameFault::Invisible),
            ("a\u{180e}b", "a%E1%A0%8Eb", NameFault::Invisible),
            ("\u{3164}", "%E3%85%A4", NameFault::Invisible),
            ("a\u{34f}b", "a%CD%8Fb", NameFault::Invisible),
            ("a\u{e0041}", "a%F3%A0%81%81", NameFault::Invisible),
            ("a\u{200d}", "a%E2%80%8D", NameFault::Invisible),
            ("a\u{200d}\u{200d}b", "a%E2%80%8D%E2%80%8Db", NameFault::Invisible),
            ("a\u{fe0f}b", "a%EF%B8%8Fb", NameFault::Invisible),
            ("\u{fe0f}\u{200c}\u{fe0f}", "%EF%B8%8F%E2%80%8C%EF%B8%8F", NameFault::Invisible),
            ("..", "%2E.", NameFault::Path),
            ("", "file", NameFault::Empty),
        ] {
            assert_eq!(check_name(name), Err(fault), "{name:?}");
            assert_eq!(fit_name(name.as_bytes()), (fit.to_owned(), Some(fault)), "{name:?}");
            assert_eq!(check_name(fit), Ok(()), "{fit:?}");
        }
    }

    #[test]
    fn a_label_is_a_line_that_shows_what_it_holds() {
        let longest = "ä".repeat(LABEL_BYTES_MAX / 2);
        for label in
            ["x", "Nightly build 7 / arm64", "-rf", "می\u{200c}خواهم", "<b>&amp;", &longest]
        {
            assert_eq!(check_label(label), Ok(()), "{label:?}");
        }
        let too_long = format!("{longest}x");
        for (label, fault) in [
            ("", LabelFault::Empty),
            (" x", LabelFault::Space),
            ("x\u{a0}", LabelFault::Space),
            ("   ", LabelFault::Space),
            ("a\nb", LabelFault::Invisible),
            ("a\tb", LabelFault::Invisible),
            ("\u{1b}[2J", LabelFault::Invisible),
            ("a\u{202e}b", LabelFault::Invisible),
            ("a\u{2066}b", LabelFault::Invisible),
            ("a\u{200b}b", LabelFault::Invisible),
            ("\u{3164}", LabelFault::Invisible),
            (&too_long, LabelFault::TooLong),
        ] {
            assert_eq!(check_label(label), Err(fault), "{label:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_never_make_two_names_one() {
        let (one, fault) = fit_name(b"caf\xe9.txt");
        assert_eq!((one.as_str(), fault), ("caf%E9.txt", Some(NameFault::NoText)));
        assert_eq!(fit_name(b"caf\xe8.txt").0, "caf%E8.txt");
        assert_eq!(fit_name(b"-\xe8 ").0, "%2D%E8%20");
        let long = |last: u8| {
            let name = [&[0xe9; 200][..], &[last], b".txt"].concat();
            let (fit, _) = fit_name(&name);
            assert!(fit.len() <= TICKET_NAME_BYTES_MAX && fit.ends_with(".txt"), "{fit}");
            assert_eq!(check_name(&fit), Ok(()));
            fit
        };
        assert_ne!(long(0xe8), long(0xea));
    }

    #[test]
    fn what_lies_beside_a_file_of_a_long_name_has_a_shorter_one() {
        let beside = |name: &str| {
            String::from_utf8(beside_name(name.as_bytes(), PART_SUFFIX, 255)).expect("text")
        };
        assert_eq!(beside("x.iso"), "x.iso.part");
        assert_eq!(beside(&"x".repeat(250)).len(), 255);
        for name in ["x".repeat(251), "ä".repeat(127), "日".repeat(85)] {
            let part = beside(&name);
            assert!(part.len() <= 255 && part.ends_with(PART_SUFFIX), "{part}");
            assert_eq!(part, beside(&name), "it is found again");
        }
        assert_ne!(beside(&format!("{}a", "x".repeat(254))), beside(&"x".repeat(255)));
    }
}
