//! Names that differ only in case: where a file system does not tell them apart, one would replace the other.

/// Numbers of paths that differ only in case, in pairs; of three that do, the second pairs with the first and the
/// third with the second. Nothing else of names is compared: some systems also take a letter with its accent
/// for the two characters that can make it.
#[must_use]
pub fn same_but_for_case<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Vec<(usize, usize)> {
    let mut folded: Vec<(Vec<u8>, usize)> = paths.into_iter().map(fold).zip(0..).collect();
    folded.sort_unstable();
    let pairs = folded.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let mut pairs: Vec<_> = pairs.map(|pair| (pair[0].1, pair[1].1)).collect();
    pairs.sort_unstable();
    pairs
}

/// The path as all that differ from it in case have it: each character's capital, as small letters, so that letters
/// with two small forms have one. Some systems tell more names apart, and that is the safe side.
fn fold(path: &[u8]) -> Vec<u8> {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let mut folded = Vec::with_capacity(path.len());
    for part in path.utf8_chunks() {
        let small = part.valid().chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
        folded.extend_from_slice(small.collect::<String>().as_bytes());
        folded.extend_from_slice(part.invalid());
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(paths: &[&str]) -> Vec<(usize, usize)> {
        same_but_for_case(paths.iter().map(|path| path.as_bytes()))
    }

    #[test]
    fn names_of_one_spelling_are_found_wherever_they_stand() {
        assert_eq!(pairs(&["A", "B", "a", "c"]), [(0, 2)]);
        assert_eq!(pairs(&["README", "Readme", "readme"]), [(0, 1), (1, 2)]);
        assert_eq!(pairs(&["D", "D/x", "d", "d/X"]), [(0, 2), (1, 3)]);
        assert_eq!(pairs(&["Ä", "ä", "Σ", "σ", "ς", "K", "\u{212a}"]).len(), 4);
    }

    #[test]
    fn names_that_differ_in_more_are_not() {
        assert!(pairs(&[]).is_empty());
        assert!(pairs(&["a", "aa", "a/a", "ä", "b"]).is_empty());
        assert!(same_but_for_case([&b"\xe9"[..], b"\xc9"]).is_empty(), "no text has no case");
        assert_eq!(same_but_for_case([&b"X\xe9"[..], b"x\xe9"]), [(0, 1)]);
    }
}
