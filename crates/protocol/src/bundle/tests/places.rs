//! What lies where in a bundle, and which entries patterns choose.

use super::{Entry, Index, directory, file, good, link};
use crate::bundle::{Glob, Piece, PieceOf};

const TREE: [(&str, u64); 7] =
    [("a", 5), ("b", 0), ("c", 0), ("d", 1), ("e", 1), ("f", 300), ("g", 0)];

fn index() -> Index {
    good(&TREE.map(|(path, size_bytes)| file(path.as_bytes(), size_bytes)))
}

/// Byte by byte, whose it is.
fn owners(index: &Index) -> Vec<(PieceOf, u64)> {
    let mut owners: Vec<_> = (0..index.header_bytes()).map(|at| (PieceOf::Header, at)).collect();
    for (number, entry) in index.entries().enumerate() {
        owners.extend((0..entry.kind.size_bytes()).map(|at| (PieceOf::File(number), at)));
    }
    owners
}

#[test]
fn every_range_is_cut_into_pieces_that_are_its_bytes_owners() {
    let index = index();
    let owners = owners(&index);
    assert_eq!(owners.len() as u64, index.bundle_bytes());
    let interesting = owners.len() - 310;
    let ends = (0..owners.len() + 3).filter(|&at| at < 4 || at > interesting);
    for start in (0..owners.len() + 3).filter(|&at| at % 7 == 0 || at > owners.len() - 310) {
        for end in ends.clone().filter(|end| end % 3 == 0 || *end > owners.len() - 5) {
            let pieces: Vec<Piece> = index.pieces(start as u64..end as u64).collect();
            assert!(pieces.iter().all(|piece| !piece.bytes.is_empty()));
            let found =
                pieces.iter().flat_map(|piece| piece.bytes.clone().map(|at| (piece.of, at)));
            let expected = owners.get(start..end.min(owners.len())).unwrap_or(&[]);
            assert!(found.eq(expected.iter().copied()), "{start}..{end}: {pieces:?}");
        }
    }
}

#[test]
fn a_chunk_spans_many_small_files_and_skips_what_has_no_bytes() {
    let index = index();
    let at = index.header_bytes();
    let of: Vec<_> = index.pieces(at + 4..at + 8).map(|piece| piece.of).collect();
    assert_eq!(of, [0, 3, 4, 5].map(PieceOf::File));
    assert_eq!(index.pieces(at - 1..at + 1).count(), 2);
    assert_eq!(index.pieces(u64::MAX - 1..u64::MAX).count(), 0);
    assert_eq!(index.pieces(0..u64::MAX).count(), 5);
    assert_eq!(index.place(1), Some(at + 5..at + 5));
    assert_eq!(index.place(5), Some(at + 7..at + 307));
    assert_eq!((index.place(7), index.entry(7)), (None, None));
}

fn selected(entries: &[Entry<'_>], patterns: &[&str]) -> Vec<String> {
    let index = good(entries);
    let globs: Vec<_> =
        patterns.iter().map(|pattern| Glob::parse(pattern.as_bytes()).expect("right")).collect();
    let chosen = index.select(&globs);
    let all = index.entries().zip(chosen);
    let chosen = all.filter(|(_, is_chosen)| *is_chosen);
    chosen.map(|(entry, _)| String::from_utf8_lossy(entry.path).into_owned()).collect()
}

#[test]
fn patterns_choose_entries_and_the_directories_that_these_lie_in() {
    let tree = [
        directory(b"d"),
        file(b"d-x", 1),
        directory(b"d/e"),
        directory(b"d/e/empty"),
        file(b"d/e/f.txt", 1),
        link(b"d/e/l", b"f.txt"),
        file(b"d/g", 1),
        file(b"h.txt", 1),
    ];
    assert_eq!(selected(&tree, &["**/*.txt"]), ["d", "d/e", "d/e/f.txt", "h.txt"]);
    assert_eq!(selected(&tree, &["d/e"]).len(), 5);
    assert_eq!(selected(&tree, &["d/e/*", "d-?"]).len(), 6);
    assert_eq!(selected(&tree, &["*"]).len(), tree.len());
    assert!(selected(&tree, &["x", "**/x"]).is_empty());
    assert!(selected(&tree, &[]).is_empty());
}

#[test]
fn names_that_differ_only_in_case_may_be_and_are_found() {
    let tree = [directory(b"D"), file(b"D/x", 1), directory(b"d"), file(b"d/X", 1)];
    assert_eq!(good(&tree).same_but_for_case(), [(0, 2), (1, 3)]);
}
