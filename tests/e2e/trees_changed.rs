//! A file of a shared directory changes: what `peer share` says, and that nothing wrong goes out.

use std::{fs, path::Path, time::UNIX_EPOCH};

use crate::{
    programs::relay,
    support::{process::RelayProcess, wait_until},
    trees_shared::{share, shared, tree},
};

/// What a share of the tree ends with after this change, and what it said.
fn end_after(alter: impl FnOnce(&Path)) -> (i32, String) {
    let relay = RelayProcess::start(relay(), &[]);
    let (_dir, root) = tree();
    let (running, _) = shared(&mut share(&relay, &[root.to_str().expect("text")]));
    alter(&root);
    let end = running.wait();
    (end.code, end.stderr)
}

#[test]
fn a_file_of_a_shared_directory_that_changes_or_goes_ends_the_share_with_its_name() {
    let (code, said) = end_after(|root| fs::write(root.join("docs/a"), "x").expect("writable"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("docs/a in "), "{said}");
    assert!(said.contains("it has 1 byte now and had") && said.contains("share again"), "{said}");
    let (code, said) = end_after(|root| fs::remove_file(root.join("nothing")).expect("removable"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing in ") && said.contains("was removed or replaced"), "{said}");
}

#[test]
fn what_is_only_touched_or_added_goes_on_being_shared() {
    let relay = RelayProcess::start(relay(), &[]);
    let (_dir, root) = tree();
    let (mut running, _) = shared(&mut share(&relay, &[root.to_str().expect("text")]));
    fs::write(root.join("docs/added"), "x").expect("writable");
    let file = fs::File::options().write(true).open(root.join("README")).expect("it is there");
    file.set_modified(UNIX_EPOCH).expect("a time can be set");
    wait_until("a warning", || running.stderr().contains("warning: README in "));
    assert!(running.is_alive() && !running.stderr().contains("added"), "{}", running.stderr());
}
