//! Gets of directories that are killed, refused and misled, and those during which others write to the same place.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
};

use relay::client::{
    Tree,
    resume::{Hashing, chunks_present},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{super::get::Ran, CHUNK_SIZE_LOG2, Stage};
use crate::programs::relay;
use crate::support::{
    bundle::{Node, TestTree},
    process::RelayProcess,
    wait_until,
};

/// Chunks that lie in a partial directory.
fn chunks_in(stage: &Stage, part: &str) -> u32 {
    let Ok(root) = File::open(stage.path(part)) else { return 0 };
    let tree = Tree::to_write(root.into(), Arc::new(stage.tree.index()), None);
    chunks_present(&tree, &stage.file.manifest, None, &Hashing::default())
        .map_or(0, |have| have.count())
}

#[test]
fn a_get_that_is_killed_ten_times_ends_with_the_very_directory() {
    let mut stage = Stage::new(TestTree::usual());
    let all = stage.file.key().chunk_count();
    let index_chunks = u32::try_from(stage.index_chunks()).expect("small");
    let each = (all - index_chunks) / 11;
    assert!(each >= 3, "{all} chunks");
    for kill in 1..=10 {
        // Another relay each time, which has not heard that the origin refuses some.
        stage.relay = RelayProcess::start(relay(), &[]);
        let expected = index_chunks + kill * each;
        stage.origin_of(expected as usize);
        let mut get = stage.start("x", &[]);
        wait_until("some chunks more", || chunks_in(&stage, "x.part") >= expected);
        get.kill().expect("it runs");
        get.wait().expect("it is gone");
        assert!(!stage.path("x").exists(), "never half");
    }
    stage.relay = RelayProcess::start(relay(), &[]);
    let _origin = stage.origin();
    let json = stage.get("x", &["--json"]).ok().json();
    stage.assert_whole("x");
    assert_eq!(stage.names(), ["x"]);
    let delivered = stage.relay.metric("relay_chunks_delivered_total", &[]);
    assert_eq!(delivered, f64::from(all - index_chunks - 10 * each), "{json}");
}

#[test]
fn nothing_in_a_partial_directory_misleads_a_get() {
    let stage = Stage::new(TestTree::usual());
    stage.origin_of(60);
    let get = stage.start("x", &[]);
    wait_until("some chunks", || chunks_in(&stage, "x.part") >= 40);
    let ran = stage.get("x", &[]);
    ran.failed(1, &["another get writes x.part right now"]);
    kill_process(Pid::from_child(&get), Signal::INT).expect("it runs");
    Ran::of(get).failed(1, &["interrupted", "are kept in x.part"]);
    // Altered, cut, made longer, of another kind, strange; and what lies beside is nonsense.
    let part = stage.path("x.part");
    let write = |name: &str, bytes: &[u8]| fs::write(part.join(name), bytes).expect("writable");
    write("large", &[7; 1000]);
    write("one", b"longer than one");
    write("many/0", b"");
    write("strange", b"strange");
    fs::create_dir_all(part.join("many/199/deep/er")).expect("writable");
    fs::write(part.join("many/199/deep/er/file"), "x").expect("writable");
    symlink("/etc", part.join("z last"))
        .or_else(|_| {
            fs::remove_file(part.join("z last"))?;
            symlink("/etc", part.join("z last"))
        })
        .expect("writable");
    fs::write(stage.path("x.part.index"), "PSPBUNDL and nonsense").expect("writable");
    let mut again = stage;
    again.relay = RelayProcess::start(relay(), &[]);
    let _origin = again.origin();
    again.get("x", &[]).ok();
    again.assert_whole("x");
}

#[test]
fn what_no_get_put_into_a_partial_directory_is_not_removed() {
    let stage = Stage::new(TestTree::usual());
    let _origin = stage.origin();
    fs::create_dir(stage.path("x.part")).expect("writable");
    fs::write(stage.path("x.part/precious"), "precious").expect("writable");
    // Under a name of the ticket's as well: it is neither cut nor made executable.
    fs::write(stage.path("x.part/large"), "mine").expect("writable");
    let ran = stage.get("x", &[]);
    ran.failed(1, &["x.part is there, and no get made it", "lies in it", "-o"]);
    assert_eq!(fs::read(stage.path("x.part/precious")).expect("there"), b"precious");
    assert_eq!(fs::read(stage.path("x.part/large")).expect("there"), b"mine");
    // Nor what is no directory at all.
    fs::write(stage.path("y.part"), "precious").expect("writable");
    stage.get("y", &[]).failed(1, &["y.part is not a directory"]);
    symlink(stage.path("x.part"), stage.path("z.part")).expect("writable");
    stage.get("z", &[]).failed(1, &["z.part is not a directory"]);
    assert_eq!(super::names(&stage.path("x.part")), ["large", "precious"]);
}

#[test]
fn what_was_got_and_is_not_meant_now_is_not_removed() {
    let mut stage = Stage::new(TestTree::usual());
    stage.origin_of(60);
    let mut get = stage.start("x", &[]);
    wait_until("some chunks", || chunks_in(&stage, "x.part") >= 50);
    get.kill().expect("it runs");
    get.wait().expect("it is gone");
    let before = chunks_in(&stage, "x.part");
    stage.relay = RelayProcess::start(relay(), &[]);
    let _origin = stage.origin();
    let ran = stage.get("x", &["--only", "large"]);
    ran.failed(1, &["x.part holds more than --only means", "without --only", "-o"]);
    assert_eq!(chunks_in(&stage, "x.part"), before);
    let resumed = stage.get("x", &["--json"]).ok().json()["resumed_bytes"].as_u64();
    assert!(resumed.expect("a number") >= 49 << CHUNK_SIZE_LOG2, "{resumed:?}");
    stage.assert_whole("x");
}

#[test]
fn another_tree_of_the_same_name_takes_what_both_have_in_common() {
    let first = Stage::new(TestTree::usual());
    first.origin_of(90);
    let mut get = first.start("x", &[]);
    wait_until("some chunks", || chunks_in(&first, "x.part") >= 80);
    get.kill().expect("it runs");
    get.wait().expect("it is gone");
    // As it is shared again: a file less, one more, another content.
    let tree = TestTree::usual()
        .only(|path| path != b"one")
        .with("many/new", Node::File(b"new".to_vec(), false))
        .with("empty", Node::File(b"no more".to_vec(), true));
    let mut second = Stage::new(tree);
    second.dir = first.dir;
    let _origin = second.origin();
    let ran = second.get("x", &[]).ok();
    assert!(ran.stderr.contains("x.part is of another directory"), "{ran:?}");
    second.assert_whole("x");
}

#[test]
fn nothing_is_written_elsewhere_when_a_directory_becomes_a_link_meanwhile() {
    let stage = Stage::new(TestTree::usual());
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    for name in ["0", "150"] {
        fs::write(outside.path().join(name), "precious").expect("writable");
    }
    let index_chunks = stage.index_chunks();
    stage.origin_of(index_chunks + 2);
    let get = stage.start("x", &["--timeout", "30s"]);
    // The origin has fallen silent in the middle of it.
    wait_until("two chunks", || chunks_in(&stage, "x.part") as usize >= index_chunks + 2);
    let part = stage.path("x.part");
    for (name, away) in [("many", "was many"), ("bin", "was bin"), ("d", "was d")] {
        fs::rename(part.join(name), stage.path(away)).expect("it is there");
        symlink(outside.path(), part.join(name)).expect("writable");
    }
    let _origin = stage.origin();
    Ran::of(get).failed(1, &["a link lies on the way there"]);
    assert_eq!(super::names(outside.path()), ["0", "150"]);
    for name in ["0", "150"] {
        assert_eq!(fs::read(outside.path().join(name)).expect("there"), b"precious");
    }
    assert!(!stage.path("x").exists());
}

#[test]
fn what_is_swapped_after_it_was_written_does_not_become_the_directory() {
    // Only links and empty files are lacking when a directory that is full becomes a link.
    let stage = Stage::new(TestTree::usual());
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    let chunks = stage.file.key().chunk_count() as usize;
    stage.origin_of(chunks - 1);
    let get = stage.start("x", &[]);
    wait_until("all but one", || chunks_in(&stage, "x.part") as usize >= chunks - 1);
    let part = stage.path("x.part");
    fs::rename(part.join("bin"), stage.path("was bin")).expect("it is there");
    symlink(outside.path(), part.join("bin")).expect("writable");
    let _origin = stage.origin();
    Ran::of(get).failed(1, &["bin"]);
    assert!(!stage.path("x").exists());
    assert_eq!(super::names(outside.path()), Vec::<String>::new());
    assert!(Path::new(&part).is_dir());
}

#[test]
fn a_directory_that_is_got_in_part_is_resumed_in_part() {
    let mut stage = Stage::new(TestTree::usual());
    let only = ["--only", "large", "--only", "many/5?"];
    let meant = |path: &[u8]| path == b"large" || path.starts_with(b"many/5") && path.len() == 7;
    stage.origin_of(30);
    let mut get = stage.start("x", &only);
    wait_until("some chunks", || {
        stage.path("x.part/large").metadata().is_ok_and(|metadata| {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 >= 10 << CHUNK_SIZE_LOG2
        })
    });
    get.kill().expect("it runs");
    get.wait().expect("it is gone");
    stage.relay = RelayProcess::start(relay(), &[]);
    let _origin = stage.origin();
    let json = stage.get("x", &[&only[..], &["--json"]].concat()).ok().json();
    stage.tree.only(meant).assert_at(&stage.path("x"));
    let resumed = json["resumed_bytes"].as_u64().expect("a number");
    assert!(resumed >= 10 << CHUNK_SIZE_LOG2, "{json}");
}
