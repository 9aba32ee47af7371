//! Bundles by honest and by hostile hands: what comes back, what is refused, and what lies where.

mod hostile;
mod links;
mod places;

use super::{BundleError, Decoded, Entry, EntryFault, Index, Kind, LinkFault, Preserved};
use crate::limits::{BUNDLE_MAGIC, BUNDLE_VERSION};

fn directory(path: &[u8]) -> Entry<'_> {
    Entry { path, kind: Kind::Directory, preserved: None }
}

fn file(path: &[u8], size_bytes: u64) -> Entry<'_> {
    Entry { path, kind: Kind::File { size_bytes, is_executable: false }, preserved: None }
}

fn link<'a>(path: &'a [u8], target: &'a [u8]) -> Entry<'a> {
    Entry { path, kind: Kind::Link { target }, preserved: None }
}

fn kept(entry: Entry<'_>, mode: u16, modified_secs: i64, modified_nanos: u32) -> Entry<'_> {
    Entry { preserved: Some(Preserved { mode, modified_secs, modified_nanos }), ..entry }
}

/// The header of what no encoder writes: entries in whatever order, and checked by no rule.
fn unchecked(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut index = match entries.first() {
        Some(Entry { preserved: Some(_), .. }) => vec![1],
        _ => vec![0],
    };
    number(entries.len() as u64, &mut index);
    for Entry { path, kind, preserved } in entries {
        text(path, &mut index);
        match kind {
            Kind::Directory => index.push(0),
            Kind::File { size_bytes, is_executable } => {
                index.push(1);
                number(*size_bytes, &mut index);
                index.push((*is_executable).into());
            }
            Kind::Link { target } => {
                index.push(2);
                text(target, &mut index);
            }
        }
        if let Some(Preserved { mode, modified_secs, modified_nanos }) = preserved {
            number((*mode).into(), &mut index);
            let zigzag = (modified_secs << 1 ^ modified_secs >> 63).cast_unsigned();
            number(zigzag, &mut index);
            number((*modified_nanos).into(), &mut index);
        }
    }
    with_preface(&index)
}

fn with_preface(index: &[u8]) -> Vec<u8> {
    let length = u32::try_from(index.len()).unwrap().to_le_bytes();
    [&BUNDLE_MAGIC[..], &[BUNDLE_VERSION], &length, index].concat()
}

fn text(bytes: &[u8], to: &mut Vec<u8>) {
    number(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

fn number(mut number: u64, to: &mut Vec<u8>) {
    while number > 0x7f {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

/// What is wrong with a header, whatever its files have.
fn refused(header: &[u8]) -> BundleError {
    match Index::decode(header, header.len() as u64) {
        Err(BundleError::Size { index_bytes, .. }) => {
            Index::decode(header, index_bytes).expect_err("its size is right")
        }
        Err(error) => error,
        Ok(decoded) => panic!("this is right: {decoded:?}"),
    }
}

/// Of entries as they are; an encoder that is given them in order says the same.
fn fault(entries: &[Entry<'_>]) -> BundleError {
    let error = refused(&unchecked(entries));
    if entries.is_sorted_by_key(|entry| entry.path) {
        assert_eq!(Index::new(entries.to_vec()).expect_err("as decoded"), error);
    }
    error
}

fn entry_fault(entries: &[Entry<'_>], path: &str) -> EntryFault {
    match fault(entries) {
        BundleError::Entry { path: shown, fault } => {
            assert_eq!(shown, path);
            fault
        }
        other => panic!("{other}"),
    }
}

fn whole(header: &[u8], bundle_bytes: u64) -> Index {
    match Index::decode(header, bundle_bytes) {
        Ok(Decoded::Whole(index)) => index,
        other => panic!("{other:?}"),
    }
}

/// Goes there and back, and was written as the format says.
fn good(entries: &[Entry<'_>]) -> Index {
    let index = Index::new(entries.to_vec()).expect("it keeps all rules");
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(|entry| entry.path);
    assert_eq!(index.header(), unchecked(&sorted));
    assert_eq!(whole(index.header(), index.bundle_bytes()), index);
    assert!(index.entries().eq(sorted));
    index
}

#[test]
fn a_tree_comes_back_as_it_was_in_any_order() {
    let tree = [
        directory(b"a"),
        file(b"a-b", 3),
        file(b"a/b", 0),
        directory(b"a/c"),
        Entry {
            kind: Kind::File { size_bytes: 1 << 40, is_executable: true },
            ..file(b"a/c/run", 0)
        },
        link(b"a/c/up", b"../b"),
        file(b"caf\xe9", 300),
        file("ключ 🧀\u{200f}".as_bytes(), 1),
    ];
    let index = good(&tree);
    let counts = index.counts();
    assert_eq!((counts.directories, counts.files, counts.links), (2, 5, 1));
    assert_eq!(counts.file_bytes, (1 << 40) + 304);
    let reversed: Vec<_> = tree.into_iter().rev().collect();
    assert_eq!(Index::new(reversed), Ok(index));
}

#[test]
fn an_empty_directory_is_a_bundle_of_fifteen_bytes() {
    let index = good(&[]);
    assert!(index.is_empty() && !index.is_preserving());
    assert_eq!(index.header(), b"PSPBUNDL\x01\x02\0\0\0\0\0");
    assert_eq!((index.bundle_bytes(), index.pieces(0..99).count()), (15, 1));
}

#[test]
fn mode_and_time_are_kept_of_all_or_of_none() {
    let tree = [
        kept(directory(b"d"), 0o755, i64::MIN, 0),
        kept(file(b"d/f", 1), 0o640, -1, 999_999_999),
        kept(link(b"d/l", b"f"), 0o777, i64::MAX, 1),
    ];
    assert!(good(&tree).is_preserving());
    let mixed = vec![tree[0], file(b"d/f", 1)];
    assert_eq!(Index::new(mixed), Err(BundleError::Mixed("d/f".into())));
    let mixed = vec![directory(b"d"), tree[1]];
    assert_eq!(Index::new(mixed), Err(BundleError::Mixed("d/f".into())));
}

#[test]
fn an_encoder_drops_the_bits_of_a_mode_that_are_not_kept() {
    let tree = |directory_mode, file_mode, link_mode| {
        Index::new(vec![
            kept(directory(b"d"), directory_mode, 0, 0),
            kept(file(b"f", 0), file_mode, 0, 0),
            kept(link(b"l", b"f"), link_mode, 0, 0),
        ])
    };
    let index = tree(0o41777, 0o106_644, 0o120_000).expect("all bits may be given");
    let modes: Vec<_> =
        index.entries().filter_map(|entry| entry.preserved).map(|kept| kept.mode).collect();
    assert_eq!(modes, [0o777, 0o644, 0o777]);
    assert_eq!(tree(0o777, 0o644, 0o777), Ok(index));
}

#[test]
fn a_hundred_thousand_entries_go_there_and_back() {
    let paths: Vec<Vec<u8>> = (0..100_000_u32)
        .map(|at| match at % 100 {
            0 => format!("d{:04}", at / 100),
            _ => format!("d{:04}/file-{at:05}", at / 100),
        })
        .map(String::into_bytes)
        .collect();
    let entries: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| match at % 100 {
            0 => directory(path),
            _ => file(path, at as u64 % 3 * 1000),
        })
        .collect();
    let index = good(&entries);
    assert_eq!((index.len(), index.counts().directories), (100_000, 1000));
    let mut offset = index.header_bytes();
    for (number, entry) in entries.iter().enumerate() {
        let end = offset + entry.kind.size_bytes();
        assert_eq!(index.place(number), Some(offset..end));
        assert_eq!(index.find(entry.path).map(|(found, _)| found), Some(number));
        offset = end;
    }
    assert_eq!(offset, index.bundle_bytes());
    assert!(index.same_but_for_case().is_empty());
}
