//! What is found in a directory, what is refused, and that it ends.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
};

use rustix::fs::{FileType as Kinds, mknodat};

use super::*;
use crate::content::read_at;

type Found = Result<(Tree, Arc<Walked>), WalkError>;

fn found(path: &Path) -> Found {
    walk_directory(path, false, &mut |_| {})?.tree(Keeping::Nothing)
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.index().entries().map(|entry| shown_path(entry.path)).collect()
}

fn error(found: Found) -> String {
    found.map(|(tree, _)| paths(&tree)).unwrap_err().to_string()
}

fn bytes(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = usize::try_from(tree.index().bundle_bytes()).unwrap();
    assert_eq!(read_at(tree, &mut bytes, len, 0).unwrap(), len);
    bytes
}

fn pipe(path: &Path) {
    mknodat(CWD, path, Kinds::Fifo, Mode::RUSR, 0).unwrap();
}

/// A tree with something of everything.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("d/empty")).unwrap();
    fs::write(at("d/x"), "of d").unwrap();
    fs::set_permissions(at("d/x"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at("a-b"), [7; 3000]).unwrap();
    fs::write(at("nothing"), "").unwrap();
    symlink("d/x", at("link")).unwrap();
    symlink("nowhere", at("d/dangling")).unwrap();
    dir
}

#[test]
fn a_tree_is_found_as_it_is_and_equal_ones_are_one() {
    let (one, other) = (made(), made());
    let (tree, walked) = found(one.path()).unwrap();
    let names = ["a-b", "d", "d/dangling", "d/empty", "d/x", "link", "nothing"];
    assert_eq!(paths(&tree), names);
    let (_, link) = tree.index().find(b"link").unwrap();
    assert_eq!(link.kind, Kind::Link { target: b"d/x" });
    let (number, x) = tree.index().find(b"d/x").unwrap();
    assert_eq!(x.kind, Kind::File { size_bytes: 4, is_executable: true });
    assert_eq!(walked.stamps()[number], tree.stamp_now(number).unwrap());
    let content = bytes(&tree);
    assert!(content.ends_with(&[&[7; 3000][..], b"of d"].concat()));
    assert_eq!(content, bytes(&found(other.path()).unwrap().0));
    assert_eq!(walked.first_changed(), None);
}

#[test]
fn modes_and_times_are_kept_if_that_is_wanted_or_of_the_right_length() {
    let dir = made();
    let walk = |keeping| walk_directory(dir.path(), false, &mut |_| {}).unwrap().tree(keeping);
    let (plain, preserving) =
        (walk(Keeping::Nothing).unwrap().0, walk(Keeping::Preserved).unwrap().0);
    assert!(!plain.index().is_preserving() && preserving.index().is_preserving());
    let entry = preserving.index().find(b"d/x").unwrap().1;
    let metadata = dir.path().join("d/x").metadata().unwrap();
    let preserved = entry.preserved.unwrap();
    assert_eq!(preserved.mode, 0o700);
    let since = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(u64::try_from(preserved.modified_secs), Ok(since.as_secs()));
    assert_eq!(preserved.modified_nanos, since.subsec_nanos());
    for (size, is_preserving) in [
        (plain.index().bundle_bytes(), false),
        (preserving.index().bundle_bytes(), true),
        (7, false),
    ] {
        let (tree, _) = walk(Keeping::WhicheverHas(size)).unwrap();
        assert_eq!(tree.index().is_preserving(), is_preserving, "{size}");
    }
}

#[test]
fn several_paths_are_entries_by_their_own_names_in_whatever_order() {
    let (dir, elsewhere) = (made(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("file"), "one more").unwrap();
    symlink(elsewhere.path().join("file"), elsewhere.path().join("called")).unwrap();
    symlink(dir.path().join("d"), elsewhere.path().join("way")).unwrap();
    let given = [
        dir.path().join("d/"),
        elsewhere.path().join("called"),
        elsewhere.path().join("way/."),
        dir.path().join("d/empty/../../a-b"),
    ];
    let several = |paths: &[PathBuf]| walk_several(paths, false, &mut |_| {}).unwrap();
    let (tree, walked) = several(&given).tree(Keeping::Nothing).unwrap();
    let names = [
        "a-b",
        "called",
        "d",
        "d/dangling",
        "d/empty",
        "d/x",
        "way",
        "way/dangling",
        "way/empty",
        "way/x",
    ];
    assert_eq!(paths(&tree), names);
    assert_eq!(tree.index().find(b"called").unwrap().1.kind.size_bytes(), 8, "it was followed");
    assert!(bytes(&tree).ends_with(b"one moreof dof d"));
    let reversed: Vec<_> = given.iter().rev().cloned().collect();
    let (again, _) = several(&reversed).tree(Keeping::Nothing).unwrap();
    assert_eq!(bytes(&tree), bytes(&again));
    for number in 0..tree.index().len() {
        let is_file = matches!(tree.index().entry(number).unwrap().kind, Kind::File { .. });
        if is_file {
            assert_eq!(tree.stamp_now(number).unwrap(), walked.stamps()[number]);
        }
    }
    let twice = [dir.path().join("d/x"), elsewhere.path().join("way/x")];
    let error = walk_several(&twice, false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("are both called x") && error.contains("way/x"), "{error}");
    let missing = [dir.path().join("d"), dir.path().join("missing")];
    let error = walk_several(&missing, false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
}

#[test]
fn what_is_no_file_is_named_or_left_out() {
    let dir = made();
    pipe(&dir.path().join("d/pipe"));
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    let text = error(found(dir.path()));
    for part in
        ["2 entries can't be shared", "d/pipe (a pipe)", "socket (a socket)", "--skip-special"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let walk = walk_directory(dir.path(), true, &mut |_| {}).unwrap();
    let skipped = walk.skipped().unwrap();
    assert!(skipped.starts_with("left out 2 entries") && skipped.contains("d/pipe"), "{skipped}");
    let (tree, _) = walk.tree(Keeping::Nothing).unwrap();
    assert_eq!(bytes(&tree), bytes(&found(made().path()).unwrap().0), "as if they were not there");
    let given = [dir.path().join("d/pipe"), dir.path().join("a-b")];
    let text = walk_several(&given, false, &mut |_| {}).unwrap_err().to_string();
    assert!(text.contains("pipe (a pipe)"), "{text}");
}

#[test]
fn names_that_no_bundle_has_are_named() {
    for (name, target, part) in [
        ("a\nb", None, "\"a\\u{a}b\" has a control character"),
        ("link", Some("../up"), "\"link\" to \"../up\" leads out of the bundle"),
        ("link", Some("/etc"), "is absolute"),
    ] {
        let dir = made();
        fs::remove_file(dir.path().join("link")).unwrap();
        match target {
            Some(target) => symlink(target, dir.path().join(name)).unwrap(),
            None => fs::write(dir.path().join(name), "x").unwrap(),
        }
        let text = error(found(dir.path()));
        assert!(text.contains(part) && text.contains("rename or remove"), "{part}: {text}");
    }
}

#[test]
fn as_many_levels_as_may_be_are_found_and_one_more_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_owned();
    (0..BUNDLE_LEVELS_MAX).for_each(|_| path.push("d"));
    fs::create_dir_all(&path).unwrap();
    assert_eq!(found(dir.path()).unwrap().0.index().len(), BUNDLE_LEVELS_MAX);
    // However deep it goes on.
    (0..40).for_each(|_| path.push("e"));
    fs::create_dir_all(&path).unwrap();
    let text = error(found(dir.path()));
    assert!(text.contains("levels deep"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn files_that_claim_to_be_empty_and_are_not_are_named() {
    let text = error(found(Path::new("/proc/self/net")));
    assert!(text.contains("more than the 0 bytes") && text.contains(" more"), "{text}");
    let given = ["/proc/version".into(), made().path().join("d")];
    let text = walk_several(&given[..1], false, &mut |_| {}).unwrap_err().to_string();
    assert!(text.contains("version (it holds more"), "{text}");
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    // Root may read everything.
    if rustix::process::geteuid().is_root() {
        println!("NOT CHECKED: this user may read everything");
        return;
    }
    let dir = made();
    for name in ["a-b", "d/x"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let text = error(found(dir.path()));
    assert!(text.contains("2 entries") && text.contains("d/x (Permission denied"), "{text}");
}

#[test]
fn each_file_that_is_read_is_looked_at() {
    let dir = made();
    let (tree, walked) = found(dir.path()).unwrap();
    let x = tree.index().find(b"d/x").unwrap().0;
    fs::write(dir.path().join("d/x"), "OF D").unwrap();
    fs::write(dir.path().join("added"), "it is none of the share's").unwrap();
    assert_eq!(walked.first_changed(), None, "it was not read yet");
    assert!(bytes(&tree).ends_with(b"OF D"), "whether that will do is the owner's question");
    assert_eq!(walked.first_changed(), Some(x));
    fs::write(dir.path().join("d/x"), "of").unwrap();
    let text = read_at(&tree, &mut Vec::new(), 1 << 20, 0).unwrap_err().to_string();
    assert!(text.contains("d/x: it is shorter now"), "{text}");
    fs::remove_file(dir.path().join("d/x")).unwrap();
    let text = read_at(&tree, &mut Vec::new(), 1 << 20, 0).unwrap_err().to_string();
    assert!(text.contains("d/x: No such file"), "{text}");
}

#[test]
fn the_caller_hears_how_many_entries_there_are() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..TELL_EVERY + 5 {
        fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    let mut told = Vec::new();
    walk_directory(dir.path(), false, &mut |count| told.push(count)).unwrap();
    assert_eq!(told, [TELL_EVERY, TELL_EVERY + 5]);
}
