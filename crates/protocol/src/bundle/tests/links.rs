//! Links: which targets stay in the tree by their text, and which only seem to.

use super::{BundleError, Entry, LinkFault, directory, fault, file, good, link};
use crate::limits::{BUNDLE_LEVELS_MAX, BUNDLE_NAME_BYTES_MAX, BUNDLE_PATH_BYTES_MAX};

/// What is wrong with a link at `d/e/l`, beside directories, a file and another link.
fn of_target(target: &[u8]) -> LinkFault {
    match fault(&tree(target)) {
        BundleError::Link { path, fault, .. } => {
            assert_eq!(path, "d/e/l");
            fault
        }
        other => panic!("{other}"),
    }
}

fn tree(target: &[u8]) -> [Entry<'_>; 6] {
    [
        directory(b"d"),
        directory(b"d/e"),
        link(b"d/e/k", b".."),
        link(b"d/e/l", target),
        file(b"d/f", 1),
        link(b"up", b"d/e"),
    ]
}

#[test]
fn links_within_the_tree_may_be() {
    for target in [
        &b"k"[..],
        b"l",
        b".",
        b"./",
        b"..",
        b"../..",
        b"../../d/e/l",
        b"../f",
        b"..//./f",
        b"../../up",
        b"k/",
        b"k/.",
        b"../e/../f",
        b"../../d/../d/e/../../up",
        b"nothing/there",
        b"../../nothing/./there",
        b"../f/x",
        b"caf\xe9 \\",
        b"...",
        b"..x",
    ] {
        good(&tree(target));
    }
}

#[test]
fn a_target_that_can_not_be_is_refused() {
    let long = [b'x'; BUNDLE_NAME_BYTES_MAX + 1];
    good(&tree(&long[1..]));
    assert_eq!(of_target(&long), LinkFault::NameTooLong(256));
    let long = b"./".repeat(BUNDLE_PATH_BYTES_MAX / 2 + 1);
    assert_eq!(of_target(&long), LinkFault::TargetTooLong(4098));
    let deep = b"x/".repeat(BUNDLE_LEVELS_MAX + 1);
    good(&tree(&deep[2..]));
    assert_eq!(of_target(&deep), LinkFault::TooDeep(65));
    assert_eq!(of_target(b""), LinkFault::Empty);
    for control in [&b"a\nb"[..], b"a\0", b"\x7f", "\u{9b}2J".as_bytes()] {
        assert_eq!(of_target(control), LinkFault::Control);
    }
}

#[test]
fn a_link_that_leaves_the_tree_is_refused() {
    for target in [&b"/"[..], b"/etc/passwd", b"//x"] {
        assert_eq!(of_target(target), LinkFault::Absolute);
    }
    for target in [
        &b"../../.."[..],
        b"../../../d/e",
        b"../../../../../../../etc/passwd",
        b"../e/../../..",
        b".././.././..//x",
    ] {
        assert_eq!(of_target(target), LinkFault::LeavesTree, "{target:?}");
    }
    let at_root = fault(&[link(b"l", b"..")]);
    let said = "the bundle's link \"l\" to \"..\" leads out of the bundle";
    assert_eq!(at_root.to_string(), said);
}

#[test]
fn a_link_through_another_is_refused_for_its_text_would_lie() {
    for (target, through) in [
        (&b"k/e"[..], "d/e/k"),
        (b"k/nothing/there", "d/e/k"),
        (b"k/../x", "d/e/k"),
        (b"../../up/../..", "up"),
        (b"../../up/l", "up"),
        (b"../../up/a/b/c/../d", "up"),
        (b"l/x", "d/e/l"),
    ] {
        assert_eq!(of_target(target), LinkFault::ThroughLink(through.into()), "{target:?}");
    }
}

#[test]
fn a_step_up_begins_at_a_directory_that_is_listed() {
    for (target, from) in [
        (&b"nothing/../x"[..], "d/e/nothing"),
        // Where case does not count this is another link: the real way would lead out of the tree.
        (b"K/../..", "d/e/K"),
        (b"../f/..", "d/f"),
        (b"../../d/x/y/../..", "d/x/y"),
    ] {
        assert_eq!(of_target(target), LinkFault::UpFromNoDirectory(from.into()), "{target:?}");
    }
}

#[test]
fn the_link_on_the_way_is_found_at_any_depth() {
    let levels: Vec<Vec<u8>> =
        (1..=BUNDLE_LEVELS_MAX - 1).map(|levels| vec![&b"d"[..]; levels].join(&b'/')).collect();
    for depth in 0..levels.len() {
        let mut tree: Vec<_> = levels[..depth].iter().map(|path| directory(path)).collect();
        tree.push(link(&levels[depth], b"."));
        let target = [&levels[depth][..], b"/x/y"].concat();
        let (path, short) = (b"l", &target[..target.len().min(2 * BUNDLE_LEVELS_MAX - 1)]);
        tree.push(link(path, short));
        let BundleError::Link { fault, .. } = fault(&tree) else { panic!("depth {depth}") };
        let through = String::from_utf8(levels[depth].clone()).expect("letters");
        assert_eq!(fault, LinkFault::ThroughLink(through));
    }
}
