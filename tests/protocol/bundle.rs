//! Bundles from outside: golden ones, what comes back of any tree, and what any bytes make.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use relay::protocol::bundle::{
    BundleError, Decoded, Entry, Glob, Index, Kind, PREFACE_BYTES, Piece, PieceOf, Preserved,
    same_but_for_case, shown_path,
};
use serde::Serialize;

use crate::golden::check;

const RUN: Kind<'_> = Kind::File { size_bytes: 70_000, is_executable: true };

fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Entry<'a> {
    Entry { path, kind, preserved: None }
}

fn file(size_bytes: u64) -> Kind<'static> {
    Kind::File { size_bytes, is_executable: false }
}

fn tree() -> Vec<Entry<'static>> {
    vec![
        entry(b"bin", Kind::Directory),
        entry(b"bin-empty", file(0)),
        entry(b"bin/latest", Kind::Link { target: b"../bin/run" }),
        entry(b"bin/run", RUN),
        entry("Größe.txt".as_bytes(), file(3)),
        entry(b"caf\xe9", file(1 << 40)),
    ]
}

fn preserved(mode: u16, modified_secs: i64, modified_nanos: u32) -> Option<Preserved> {
    Some(Preserved { mode, modified_secs, modified_nanos })
}

fn preserving_tree() -> Vec<Entry<'static>> {
    let kept = |(at, entry): (usize, Entry<'static>)| {
        let mode = match entry.kind {
            Kind::Directory => 0o755,
            Kind::Link { .. } => 0o777,
            Kind::File { is_executable: true, .. } => 0o750,
            Kind::File { .. } => 0o640,
        };
        let times = [(1_700_000_000, 123_456_789), (-1, 999_999_999), (0, 0)];
        let (secs, nanos) = times[at % 3];
        Entry { preserved: preserved(mode, secs, nanos), ..entry }
    };
    tree().into_iter().enumerate().map(kept).collect()
}

#[test]
fn headers_of_bundles_have_the_golden_bytes() {
    let header = |entries| Index::new(entries).unwrap().header().to_vec();
    let small = Index::new(vec![entry(b"a", file(2)), entry(b"b", file(1))]).unwrap();
    check(
        "bundle.txt",
        &[
            ("empty".into(), header(vec![])),
            ("one-file".into(), header(vec![entry(b"a", file(1))])),
            ("plain".into(), header(tree())),
            ("preserving".into(), header(preserving_tree())),
            ("whole".into(), [small.header(), b"hi!"].concat()),
        ],
    );
}

/// An index as the format describes it, for another encoder.
#[derive(Serialize)]
enum Form<'a> {
    Plain(Vec<(&'a [u8], Kind<'a>)>),
    Preserving(Vec<(&'a [u8], Kind<'a>, Preserved)>),
}

#[test]
fn an_index_is_the_postcard_of_what_it_holds() {
    let plain = tree();
    let mut sorted = plain.clone();
    sorted.sort_by_key(|entry| entry.path);
    let form = Form::Plain(sorted.iter().map(|entry| (entry.path, entry.kind)).collect());
    let index = Index::new(plain).unwrap();
    assert_eq!(index.header()[PREFACE_BYTES..], postcard::to_stdvec(&form).unwrap());
    let mut sorted = preserving_tree();
    sorted.sort_by_key(|entry| entry.path);
    let with = |entry: &Entry<'static>| (entry.path, entry.kind, entry.preserved.unwrap());
    let form = Form::Preserving(sorted.iter().map(with).collect());
    let index = Index::new(preserving_tree()).unwrap();
    assert_eq!(index.header()[PREFACE_BYTES..], postcard::to_stdvec(&form).unwrap());
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(u64, bool),
    Link(Vec<u8>),
}

/// Names that sort on either side of a slash, in both cases, and one that is no text.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let names: [&[u8]; 8] = [b"a", b"A", b"a-", b"b", b"-", "ä".as_bytes(), b"\xff", b"a b"];
    prop::sample::select(names.map(<[u8]>::to_vec).to_vec())
}

fn node() -> impl Strategy<Value = Node> {
    let sizes = prop_oneof![Just(0), 1..300_u64, Just(1 << 33)];
    let targets = prop::collection::vec(name(), 1..3).prop_map(|names| names.join(&b'/'));
    prop_oneof![
        Just(Node::Directory),
        (sizes, any::<bool>()).prop_map(|(size, is_executable)| Node::File(size, is_executable)),
        targets.prop_map(Node::Link),
    ]
}

/// Trees: what would lie below a file or a link is left out, directories that are missing are made.
fn any_tree() -> impl Strategy<Value = BTreeMap<Vec<u8>, Node>> {
    let paths = prop::collection::vec(name(), 1..4);
    prop::collection::vec((paths, node()), 0..40).prop_map(|wanted| {
        let mut tree: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
        for (path, node) in wanted {
            let above: Vec<_> = (1..path.len()).map(|levels| path[..levels].join(&b'/')).collect();
            let is_free = |path| tree.get(path).is_none_or(|node| matches!(node, Node::Directory));
            if above.iter().all(is_free) {
                for path in above {
                    tree.insert(path, Node::Directory);
                }
                tree.entry(path.join(&b'/')).or_insert(node);
            }
        }
        tree
    })
}

/// Of what a tree has, as an encoder is given it; without links that lead through others.
fn entries(tree: &BTreeMap<Vec<u8>, Node>, is_preserving: bool) -> Vec<Entry<'_>> {
    let is_link = |path: &[u8]| matches!(tree.get(path), Some(Node::Link(_)));
    let mut entries = Vec::new();
    for (path, node) in tree {
        let kind = match node {
            Node::Directory => Kind::Directory,
            Node::File(size_bytes, is_executable) => {
                Kind::File { size_bytes: *size_bytes, is_executable: *is_executable }
            }
            Node::Link(target) => {
                let parent = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
                let first = target.split(|&byte| byte == b'/').next().unwrap();
                let way = [&path[..parent], first].concat();
                if first.len() < target.len() && is_link(&way) {
                    continue;
                }
                Kind::Link { target }
            }
        };
        let mode = match node {
            Node::File(_, false) => 0o664,
            _ => 0o777,
        };
        let kept = preserved(mode, -i64::try_from(path.len()).unwrap(), 5);
        entries.push(Entry { path, kind, preserved: kept.filter(|_| is_preserving) });
    }
    entries
}

proptest! {
    #[test]
    fn any_tree_comes_back_as_it_was(
        tree in any_tree(), is_preserving: bool, turn in 0..100_usize, more in 0..100_usize,
    ) {
        let entries = entries(&tree, is_preserving);
        let index = Index::new(entries.clone()).unwrap();
        prop_assert!(index.entries().eq(entries.iter().copied()));
        let mut turned = entries.clone();
        turned.rotate_left(turn % entries.len().max(1));
        prop_assert_eq!(Index::new(turned), Ok(index.clone()), "the order does not count");

        let header = index.header();
        let bundle = [header, &vec![0; more]].concat();
        let decoded = Index::decode(&bundle, index.bundle_bytes());
        prop_assert_eq!(decoded, Ok(Decoded::Whole(index.clone())));
        let cut = turn % header.len();
        let expected = if cut < PREFACE_BYTES { PREFACE_BYTES } else { header.len() };
        let decoded = Index::decode(&header[..cut], index.bundle_bytes());
        prop_assert_eq!(decoded, Ok(Decoded::Needs { prefix_bytes: expected }));
        for (number, entry) in entries.iter().enumerate() {
            prop_assert_eq!(index.find(entry.path), Some((number, *entry)));
        }
    }

    #[test]
    fn pieces_follow_one_another_without_a_gap(
        tree in any_tree(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let index = Index::new(entries(&tree, false)).unwrap();
        let length = usize::try_from(index.bundle_bytes()).unwrap() + 1;
        let (from, to) = (from.index(length) as u64, to.index(length) as u64);
        let mut at = from;
        for Piece { of, bytes } in index.pieces(from..to) {
            let begin = match of {
                PieceOf::Header => 0,
                PieceOf::File(number) => index.place(number).unwrap().start,
            };
            prop_assert!(!bytes.is_empty());
            prop_assert_eq!(begin + bytes.start, at);
            at = begin + bytes.end;
        }
        prop_assert_eq!(at, from.max(to));
    }

    #[test]
    fn a_header_with_a_byte_altered_is_refused_or_another(
        tree in any_tree(), at in any::<prop::sample::Index>(), by in 1..=255_u8, is_preserving: bool,
    ) {
        let index = Index::new(entries(&tree, is_preserving)).unwrap();
        let mut altered = index.header().to_vec();
        let at = at.index(altered.len());
        altered[at] ^= by;
        let decoded = match Index::decode(&altered, index.bundle_bytes()) {
            Err(BundleError::Size { index_bytes, .. }) => Index::decode(&altered, index_bytes),
            other => other,
        };
        match decoded {
            Ok(Decoded::Whole(other)) => {
                prop_assert_eq!(other.header(), &altered[..]);
                prop_assert_eq!(Index::new(other.entries().collect()), Ok(other.clone()));
            }
            Ok(Decoded::Needs { prefix_bytes }) => prop_assert!(prefix_bytes > altered.len()),
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0..2_u8, size: u64,
    ) {
        drop(Index::decode(&bytes, size));
        let length = u32::try_from(bytes.len() + 1).unwrap().to_le_bytes();
        let index = [&b"PSPBUNDL\x01"[..], &length, &[form], &bytes].concat();
        drop(Index::decode(&index, size));
        prop_assert!(!shown_path(&bytes).contains(char::is_control));
    }

    #[test]
    fn any_pattern_is_understood_or_refused(
        pattern in prop::collection::vec(any::<u8>(), 0..60),
        path in prop::collection::vec(name(), 1..4),
    ) {
        let path = path.join(&b'/');
        if let Ok(glob) = Glob::parse(&pattern) {
            let below = [&path[..], b"/x"].concat();
            prop_assert!(!glob.matches(&path) || glob.matches(&below));
        }
        let escaped: Vec<u8> = path
            .utf8_chunks()
            .flat_map(|chunk| {
                let valid = chunk.valid().chars().map(|char| match char {
                    '/' => "/".to_owned(),
                    char => format!("\\{char}"),
                });
                valid.map(String::into_bytes).chain([chunk.invalid().to_vec()]).flatten()
            })
            .collect();
        prop_assert!(Glob::parse(&escaped).unwrap().matches(&path));
    }

    #[test]
    fn paths_that_are_one_in_another_case_are_found(
        paths in prop::collection::btree_set("[a-dA-D]{1,2}(/[a-bA-B]{1,2})?", 0..30),
    ) {
        let small: std::collections::BTreeSet<_> =
            paths.iter().map(|path| path.to_lowercase()).collect();
        let pairs = same_but_for_case(paths.iter().map(String::as_bytes));
        prop_assert_eq!(pairs.len(), paths.len() - small.len());
        let all: Vec<_> = paths.iter().collect();
        for (one, other) in pairs {
            prop_assert_eq!(all[one].to_lowercase(), all[other].to_lowercase());
        }
    }
}
