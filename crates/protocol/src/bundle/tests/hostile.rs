//! Bundles that no encoder makes: every rule and every limit, one by one.

use super::{
    BundleError, Decoded, Entry, EntryFault, Index, Kind, directory, entry_fault, fault, file,
    good, kept, link, refused, unchecked, whole, with_preface,
};
use crate::{
    bundle::PREFACE_BYTES,
    limits::{
        BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_INDEX_BYTES_MAX, BUNDLE_LEVELS_MAX,
        BUNDLE_NAME_BYTES_MAX, BUNDLE_PATH_BYTES_MAX,
    },
};

#[test]
fn what_begins_otherwise_is_refused_at_its_first_wrong_byte() {
    let header = unchecked(&[file(b"a", 0)]);
    for at in 0..8 {
        let mut other = header[..=at].to_vec();
        other[at] ^= 0x20;
        assert_eq!(refused(&other), BundleError::NotABundle);
    }
    let mut other = header.clone();
    other[8] = 2;
    assert_eq!(refused(&other[..9]), BundleError::Version(2));
    assert_eq!(refused(&other), BundleError::Version(2));
}

#[test]
fn a_prefix_says_how_long_it_must_be() {
    let index = good(&[file(b"a", 100), file(b"b", 7)]);
    let bundle = [index.header(), &[0; 107]].concat();
    let size = bundle.len() as u64;
    for length in 0..bundle.len() {
        let decoded = Index::decode(&bundle[..length], size).expect("nothing is wrong");
        let needed = if length < PREFACE_BYTES { PREFACE_BYTES } else { index.header().len() };
        match decoded {
            Decoded::Whole(read) => assert!(length >= index.header().len() && read == index),
            Decoded::Needs { prefix_bytes } => {
                assert!(length < index.header().len());
                assert_eq!(prefix_bytes, needed);
            }
        }
    }
}

#[test]
fn a_bundle_is_as_long_as_its_index_says() {
    let header = unchecked(&[file(b"a", 100)]);
    let length = header.len() as u64;
    whole(&header, length + 100);
    for is_bytes in [length, length + 99, length + 101, u64::MAX] {
        let error = BundleError::Size { is_bytes, index_bytes: length + 100 };
        assert_eq!(Index::decode(&header, is_bytes), Err(error));
    }
    for is_bytes in [0, 12, length - 1] {
        let error = Index::decode(&header, is_bytes).expect_err("it is cut");
        assert!(matches!(error, BundleError::Cut { .. }), "{error}");
    }
    let error = Index::decode(b"", 12).expect_err("no bundle is so short");
    assert_eq!(error, BundleError::Cut { is_bytes: 12, needed_bytes: PREFACE_BYTES });
}

#[test]
fn an_index_that_is_cut_or_goes_on_is_refused() {
    let header = unchecked(&[directory(b"a"), file(b"a/b", 500), link(b"c", b"a")]);
    let index = &header[PREFACE_BYTES..];
    for length in 0..index.len() {
        let error = refused(&with_preface(&index[..length]));
        assert!(
            matches!(error, BundleError::Beginning | BundleError::Unreadable(_)),
            "{length} bytes: {error}"
        );
    }
    let more = [index, b"\0\0\0"].concat();
    assert_eq!(refused(&with_preface(&more)), BundleError::Trailing(3));
}

#[test]
fn a_number_that_is_longer_than_it_must_be_is_refused() {
    for (index, error) in [
        (&b"\x00\x81\x00\x01a\x00"[..], BundleError::Beginning),
        (b"\x80\x00\x01\x01a\x00", BundleError::Beginning),
        (b"\x02\x00", BundleError::Beginning),
        // Nothing has no mode to keep.
        (b"\x01\x00", BundleError::Beginning),
        (b"\x00\x80\x00", BundleError::Beginning),
        (b"\x00\x01\x81\x00a\x00", BundleError::NotShortest(0)),
        (b"\x00\x01\x01a\x80\x00", BundleError::NotShortest(0)),
        (b"\x00\x02\x01a\x00\x01b\x01\x85\x00\x00", BundleError::NotShortest(1)),
        (b"\x00\x01\x01l\x02\x81\x00a", BundleError::NotShortest(0)),
        (b"\x01\x01\x01d\x00\xed\x83\x00\x00\x00", BundleError::NotShortest(0)),
        (b"\x01\x01\x01d\x00\x01\x80\x00\x00", BundleError::NotShortest(0)),
        (b"\x01\x01\x01d\x00\x01\x00\x80\x00", BundleError::NotShortest(0)),
        // A kind, a truth and numbers that there are none of.
        (b"\x00\x01\x01a\x03", BundleError::Unreadable(0)),
        (b"\x00\x01\x01a\x01\x00\x02", BundleError::Unreadable(0)),
        (b"\x01\x01\x01d\x00\xff\xff\x04\x00\x00", BundleError::Unreadable(0)),
        (
            b"\x00\x01\x01a\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00",
            BundleError::Unreadable(0),
        ),
    ] {
        assert_eq!(refused(&with_preface(index)), error, "{index:02x?}");
    }
}

#[test]
fn counts_and_lengths_are_not_believed_before_their_bytes_are_there() {
    let mut header = unchecked(&[]);
    header[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&header), BundleError::IndexTooLong(u32::MAX as usize));
    let longest = u32::try_from(BUNDLE_INDEX_BYTES_MAX).unwrap();
    header[9..13].copy_from_slice(&(longest + 1).to_le_bytes());
    assert_eq!(refused(&header), BundleError::IndexTooLong(BUNDLE_INDEX_BYTES_MAX + 1));
    header[9..13].copy_from_slice(&longest.to_le_bytes());
    let needed = BUNDLE_INDEX_BYTES_MAX + PREFACE_BYTES;
    let decoded = Index::decode(&header, 1 << 40);
    assert_eq!(decoded, Ok(Decoded::Needs { prefix_bytes: needed }));
    // As many entries as may be, a path as long as can be said, and no byte of them.
    assert_eq!(refused(&with_preface(b"\x00\x80\x80\x40")), BundleError::Unreadable(0));
    let long = with_preface(b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a");
    assert_eq!(refused(&long), BundleError::Unreadable(0));
}

#[test]
fn more_entries_than_may_be_are_refused() {
    let paths: Vec<String> = (0..=BUNDLE_ENTRIES_MAX).map(|at| format!("{at:07}")).collect();
    let mut entries: Vec<_> = paths.iter().map(|path| directory(path.as_bytes())).collect();
    let error = BundleError::TooManyEntries(BUNDLE_ENTRIES_MAX + 1);
    assert_eq!(Index::new(entries.clone()), Err(error.clone()));
    assert_eq!(refused(&with_preface(b"\x00\x81\x80\x40")), error);
    entries.pop();
    assert_eq!(Index::new(entries).expect("just enough").len(), BUNDLE_ENTRIES_MAX);
}

#[test]
fn an_encoder_makes_no_index_that_is_too_long() {
    let target = vec![b"x".repeat(250); 16].join(&b'/');
    let paths: Vec<_> = (0..17_000).map(|at| format!("{at:05}")).collect();
    let entries: Vec<_> = paths.iter().map(|path| link(path.as_bytes(), &target)).collect();
    let error = Index::new(entries).expect_err("it is 65 MiB");
    assert!(matches!(error, BundleError::IndexTooLong(_)), "{error}");
}

#[test]
fn a_bundle_has_as_many_bytes_as_a_swarm_takes() {
    let header = unchecked(&[file(b"a", u64::MAX), file(b"b", 2)]);
    assert_eq!(refused(&header), BundleError::TooLarge);
    let of = |size| unchecked(&[file(b"a", size), file(b"b", 2)]);
    let most = BUNDLE_BYTES_MAX - 2 - of(BUNDLE_BYTES_MAX / 2).len() as u64;
    whole(&of(most), BUNDLE_BYTES_MAX);
    assert_eq!(refused(&of(most + 1)), BundleError::TooLarge);
    assert_eq!(Index::new(vec![file(b"a", u64::MAX)]), Err(BundleError::TooLarge));
}

#[test]
fn a_path_that_names_no_place_below_the_root_is_refused() {
    for (path, fault) in [
        ("", EntryFault::Empty),
        ("/", EntryFault::Absolute),
        ("/etc/passwd", EntryFault::Absolute),
        (".", EntryFault::Dot),
        ("..", EntryFault::DotDot),
        ("d/..", EntryFault::DotDot),
        ("../x", EntryFault::DotDot),
        ("d/./x", EntryFault::Dot),
        ("d/", EntryFault::EmptyComponent),
        ("d//x", EntryFault::EmptyComponent),
    ] {
        let mut entries = vec![file(path.as_bytes(), 1), directory(b"d")];
        entries.sort_by_key(|entry| entry.path);
        assert_eq!(entry_fault(&entries, path), fault);
    }
    for path in ["...", "..a", ".a", "a.", "-rf", " ", "\\", "a\\..\\b", "\u{202e}"] {
        good(&[file(path.as_bytes(), 1)]);
    }
}

#[test]
fn control_characters_are_refused_and_shown_escaped() {
    for byte in (0..0x20_u8).chain([0x7f]) {
        let path = [b'a', byte, b'b'];
        let shown = format!("a\\u{{{byte:x}}}b");
        assert_eq!(entry_fault(&[file(&path, 1)], &shown), EntryFault::Control);
    }
    let path = "ä\u{9b}2J";
    assert_eq!(entry_fault(&[file(path.as_bytes(), 1)], "ä\\u{9b}2J"), EntryFault::Control);
    assert_eq!(entry_fault(&[file(b"\xe9\n", 1)], "\\xe9\\u{a}"), EntryFault::Control);
    // Without what would make a character of it, it is a byte like others.
    good(&[file(b"a\x9b2J", 1)]);
}

#[test]
fn paths_have_the_lengths_that_systems_take() {
    let name = "x".repeat(BUNDLE_NAME_BYTES_MAX + 1);
    good(&[file(&name.as_bytes()[1..], 1)]);
    assert_eq!(entry_fault(&[file(name.as_bytes(), 1)], &name), EntryFault::NameTooLong(256));
    let levels: Vec<String> =
        (1..=BUNDLE_LEVELS_MAX + 1).map(|levels| vec!["d"; levels].join("/")).collect();
    let tree: Vec<_> = levels.iter().map(|path| directory(path.as_bytes())).collect();
    good(&tree[..BUNDLE_LEVELS_MAX]);
    assert_eq!(entry_fault(&tree, levels.last().unwrap()), EntryFault::TooDeep(65));
    let long = vec!["x".repeat(240); 17].join("/");
    assert_eq!(long.len(), BUNDLE_PATH_BYTES_MAX);
    let mut levels: Vec<_> =
        long.match_indices('/').map(|(at, _)| directory(&long.as_bytes()[..at])).collect();
    levels.push(file(long.as_bytes(), 1));
    good(&levels);
    let longer = format!("{long}y");
    let shown = format!("{long}…");
    let fault = entry_fault(&[file(longer.as_bytes(), 1)], &shown);
    assert_eq!(fault, EntryFault::PathTooLong(BUNDLE_PATH_BYTES_MAX + 1));
}

#[test]
fn entries_stand_in_order_and_once() {
    let unsorted = [file(b"b", 1), file(b"a", 1)];
    assert_eq!(entry_fault(&unsorted, "a"), EntryFault::Unsorted);
    let unsorted = [directory(b"a"), file(b"a/b", 1), file(b"a-b", 1)];
    assert_eq!(entry_fault(&unsorted, "a-b"), EntryFault::Unsorted);
    let unsorted = [file(b"\xff", 1), file(b"a", 1)];
    assert_eq!(entry_fault(&unsorted, "a"), EntryFault::Unsorted);
    for twice in [file(b"a", 2), directory(b"a"), link(b"a", b"b")] {
        assert_eq!(entry_fault(&[file(b"a", 1), twice], "a"), EntryFault::Twice);
    }
}

#[test]
fn entries_lie_in_directories_that_are_listed() {
    let below = |parent: Entry<'_>| entry_fault(&[parent, file(b"a/b", 1)], "a/b");
    assert_eq!(below(file(b"a", 1)), EntryFault::BelowFile);
    assert_eq!(below(link(b"a", b"c")), EntryFault::BelowLink);
    assert_eq!(below(directory(b"A")), EntryFault::NoParent);
    assert_eq!(entry_fault(&[file(b"a/b", 1)], "a/b"), EntryFault::NoParent);
    let gap = [directory(b"a"), directory(b"a/b/c")];
    assert_eq!(entry_fault(&gap, "a/b/c"), EntryFault::NoParent);
    let behind = [file(b"a/b", 1), directory(b"a")];
    assert_eq!(entry_fault(&behind, "a/b"), EntryFault::NoParent);
}

#[test]
fn modes_and_times_are_those_that_can_be_set() {
    let refuse = |entry: Entry<'_>| match refused(&unchecked(&[entry])) {
        BundleError::Entry { fault, .. } => fault,
        other => panic!("{other}"),
    };
    for mode in [0o1777, 0o2755, 0o4755, u16::MAX] {
        assert_eq!(refuse(kept(directory(b"d"), mode, 0, 0)), EntryFault::Mode(mode));
        assert_eq!(refuse(kept(file(b"d", 0), mode, 0, 0)), EntryFault::Mode(mode));
    }
    assert_eq!(refuse(kept(link(b"l", b"d"), 0o755, 0, 0)), EntryFault::Mode(0o755));
    let second = kept(directory(b"d"), 0, 0, 1_000_000_000);
    assert_eq!(refuse(second), EntryFault::Nanoseconds(1_000_000_000));
    let run = Kind::File { size_bytes: 0, is_executable: true };
    for (mode, kind) in [(0o644, run), (0o100, file(b"", 0).kind)] {
        let entry = kept(Entry { path: b"f", kind, preserved: None }, mode, 0, 0);
        assert_eq!(refuse(entry), EntryFault::Executable);
        assert!(matches!(fault(&[entry]), BundleError::Entry { .. }), "an encoder says so as well");
    }
    good(&[kept(file(b"f", 0), 0o611, 0, 0)]);
}

#[test]
fn errors_name_the_entry_so_that_it_may_be_shown() {
    let error = fault(&[file(b"a\x1b[2J", 1)]).to_string();
    assert_eq!(error, "the bundle's entry \"a\\u{1b}[2J\" has a control character in its path");
}
