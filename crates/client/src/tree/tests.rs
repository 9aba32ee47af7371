//! What is written as one string of bytes lies in files, and is read as the same string.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use relay_protocol::bundle::Glob;

use super::{
    survey::{Foreseen, Found},
    *,
};
use crate::content::read_at;

fn file(path: &'static str, size_bytes: u64, is_executable: bool) -> Entry<'static> {
    let kind = Kind::File { size_bytes, is_executable };
    Entry { path: path.as_bytes(), kind, preserved: None }
}

fn directory(path: &'static str) -> Entry<'static> {
    Entry { path: path.as_bytes(), kind: Kind::Directory, preserved: None }
}

fn index() -> Arc<Index> {
    let entries = vec![
        file("a", 5, false),
        directory("d"),
        file("d/empty", 0, false),
        file("d/x", 70_000, true),
        file("z", 3, false),
    ];
    Arc::new(Index::new(entries).unwrap())
}

fn bundle(index: &Index) -> Vec<u8> {
    let bytes = (0..70_008_u32).map(|i| u8::try_from(i * 7 % 251).unwrap());
    index.header().iter().copied().chain(bytes).collect()
}

fn root(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn read(tree: &Tree, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    read_at(tree, &mut bytes, len, start as u64).unwrap();
    bytes
}

#[test]
fn pieces_that_come_in_any_order_make_the_files_and_are_read_again() {
    let (dir, index) = (tempfile::tempdir().unwrap(), index());
    let bundle = bundle(&index);
    fs::create_dir(dir.path().join("d")).unwrap();
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    let chunks: Vec<_> = bundle.chunks(1000).enumerate().collect();
    for &(number, chunk) in chunks.iter().rev() {
        tree.overwrite_at(chunk, number as u64 * 1000).unwrap();
    }
    let header = index.header().len();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), &bundle[header..header + 5]);
    assert_eq!(fs::read(dir.path().join("d/x")).unwrap(), &bundle[header + 5..header + 70_005]);
    assert_eq!(fs::read(dir.path().join("z")).unwrap(), &bundle[header + 70_005..]);
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
    assert!(mode("d/x") & 0o100 != 0 && mode("a") & 0o111 == 0);
    for tree in [&tree, &Tree::to_read(root(dir.path()), index)] {
        for (start, len) in [(0, bundle.len()), (0, 1), (header - 1, 9), (header + 4, 70_002)] {
            assert!(read(tree, start, len) == bundle[start..start + len], "{start} {len}");
        }
        assert_eq!(read(tree, bundle.len() - 2, 10), &bundle[bundle.len() - 2..], "it ends there");
    }
}

#[test]
fn what_has_not_come_is_a_hole_where_it_is_written_and_an_error_where_it_is_shared() {
    let (dir, index) = (tempfile::tempdir().unwrap(), index());
    let bundle = bundle(&index);
    fs::create_dir(dir.path().join("d")).unwrap();
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    let (header, end) = (index.header_bytes(), index.bundle_bytes());
    assert_eq!(tree.next_data(header, end).unwrap(), None);
    assert_eq!(tree.next_data(0, end).unwrap(), Some(0), "the index is here");
    let at = bundle.len() - 3;
    tree.overwrite_at(&bundle[at..], at as u64).unwrap();
    assert_eq!(tree.next_data(header, end).unwrap(), Some(at as u64));
    assert_eq!(read(&tree, at - 4, 7), [&[0; 4], &bundle[at..]].concat());
    let shared = Tree::to_read(root(dir.path()), index);
    let error = read_at(&shared, &mut Vec::new(), 100, header).unwrap_err();
    assert!(error.to_string().starts_with("a: "), "{error}");
    fs::write(dir.path().join("a"), "1234").unwrap();
    let error = read_at(&shared, &mut Vec::new(), 100, header).unwrap_err();
    assert!(error.to_string().contains("a: it is shorter now"), "{error}");
}

#[test]
fn what_is_not_selected_is_not_written() {
    let (dir, index) = (tempfile::tempdir().unwrap(), index());
    let bundle = bundle(&index);
    let selected = index.select(&[Glob::parse(b"z").unwrap()]);
    let tree = Tree::to_write(root(dir.path()), index, Some(selected));
    tree.overwrite_at(&bundle, 0).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["z"]);
}

#[test]
fn nothing_is_written_through_a_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let index = index();
    let bundle = bundle(&index);
    std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
    fs::write(outside.path().join("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(outside.path().join("precious"), dir.path().join("a")).unwrap();
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    let at = index.header_bytes();
    let error = tree.overwrite_at(&bundle[to_usize(at)..][..5], at).unwrap_err();
    assert!(error.to_string().contains("a: "), "{error}");
    let error = tree.overwrite_at(&bundle[to_usize(at) + 5..], at + 5).unwrap_err();
    assert!(error.to_string().contains("d/x: ") && error.to_string().contains("link"), "{error}");
    assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

fn link(path: &'static str, target: &'static str) -> Entry<'static> {
    let kind = Kind::Link { target: target.as_bytes() };
    Entry { path: path.as_bytes(), kind, preserved: None }
}

fn found(tree: &Tree) -> Vec<(String, Found)> {
    let mut all = Vec::new();
    tree.survey(&mut |path, found| {
        all.push((String::from_utf8_lossy(path).into_owned(), found));
        Ok(())
    })
    .unwrap();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn what_has_no_bytes_is_made_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = file("d/zeros", 1 << 20, true);
    let entries = vec![directory("d"), file("d/empty", 0, false), link("l", "d/empty"), zeros];
    let index = Arc::new(Index::new(entries).unwrap());
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    tree.make_directories().unwrap();
    tree.make_directories().unwrap();
    tree.overwrite_at(&vec![0; 1 << 20], index.header_bytes()).unwrap();
    assert!(!dir.path().join("d/zeros").exists(), "a hole is not there yet");
    assert!(!tree.is_as_listed().unwrap());
    assert_eq!(tree.complete().unwrap().not_preserved, None);
    assert!(tree.is_as_listed().unwrap());
    assert_eq!(found(&tree).len(), 4);
    assert_eq!(fs::read_link(dir.path().join("l")).unwrap(), Path::new("d/empty"));
    assert!(fs::read(dir.path().join("d/zeros")).unwrap() == vec![0; 1 << 20]);
    assert_eq!(fs::metadata(dir.path().join("d/empty")).unwrap().len(), 0);
    // Where it leads, what kind it is, and how long it is count as well.
    fs::remove_file(dir.path().join("l")).unwrap();
    std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
    assert_eq!(found(&tree)[3], ("l".to_owned(), Found::Strange));
    fs::remove_file(dir.path().join("l")).unwrap();
    std::os::unix::fs::symlink("d/empty", dir.path().join("l")).unwrap();
    fs::write(dir.path().join("d/empty"), "x").unwrap();
    assert!(!tree.is_as_listed().unwrap());
}

#[test]
fn a_tree_is_not_complete_if_something_is_gone_or_strange() {
    let dir = tempfile::tempdir().unwrap();
    let index = index();
    let bundle = bundle(&index);
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    tree.make_directories().unwrap();
    tree.overwrite_at(&bundle, 0).unwrap();
    fs::remove_file(dir.path().join("z")).unwrap();
    let error = tree.complete().unwrap_err();
    assert!(error.to_string().contains("z: it was moved or deleted"), "{error}");
    tree.overwrite_at(&bundle, 0).unwrap();
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    assert_eq!(tree.foresee().unwrap().strange, None);
    assert!(tree.take_over().unwrap().has_files);
    tree.overwrite_at(&bundle, 0).unwrap();
    fs::write(dir.path().join("d/strange"), "").unwrap();
    let error = tree.complete().unwrap_err();
    assert!(error.to_string().contains("d/strange: it was put there"), "{error}");
}

#[test]
fn what_was_there_is_adapted_and_what_is_strange_is_removed_without_following_links() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("precious"), "precious").unwrap();
    let index = index();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("z/deep/er")).unwrap();
    fs::write(at("z/deep/er/file"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), at("z/deep/away")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("d")).unwrap();
    fs::write(at("a"), "longer than it is listed").unwrap();
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    let before = fs::read(at("a")).unwrap();
    let foreseen = tree.foresee().unwrap();
    assert!(foreseen.file.is_some() && foreseen.strange.is_some());
    assert!(
        fs::read(at("a")).unwrap() == before && at("z/deep/er/file").exists(),
        "only looked at"
    );
    assert!(tree.take_over().unwrap().has_files);
    assert_eq!(fs::read(at("a")).unwrap(), b"longe");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    fs::remove_file(at("a")).unwrap();
    fs::hard_link(outside.path().join("precious"), at("a")).unwrap();
    let error = tree.take_over().unwrap_err();
    assert!(error.to_string().contains("a: it has a second name"), "{error}");
    assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"precious");
}

#[test]
fn what_is_not_selected_is_told_from_what_is_strange() {
    let dir = tempfile::tempdir().unwrap();
    let index = index();
    fs::create_dir(dir.path().join("d")).unwrap();
    let whole = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    assert_eq!(whole.foresee().unwrap(), Foreseen::default(), "directories alone are nothing");
    fs::write(dir.path().join("a"), "12345").unwrap();
    let selected = index.select(&[Glob::parse(b"z").unwrap()]);
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), Some(selected));
    let foreseen = tree.foresee().unwrap();
    assert!(foreseen.unselected.is_some() && foreseen.strange.is_none(), "{foreseen:?}");
    assert_eq!(foreseen.file.as_deref(), Some(&b"a"[..]));
    let stop = Arc::new(AtomicBool::new(true));
    let error = tree.with_stop(stop).foresee().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
}

#[test]
fn files_and_directories_that_may_not_be_written_are_gone_on_with() {
    let (dir, index) = (tempfile::tempdir().unwrap(), index());
    let bundle = bundle(&index);
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    tree.make_directories().unwrap();
    tree.overwrite_at(&bundle, 0).unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("d/x", 0o400);
    set("d", 0o555);
    let tree = Tree::to_write(root(dir.path()), Arc::clone(&index), None);
    let taken = tree.take_over().unwrap();
    assert!(taken.has_files);
    tree.overwrite_at(&bundle, 0).unwrap();
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
    assert_eq!((mode("d") & 0o777, mode("d/x") & 0o777), (0o755, 0o700));
}
