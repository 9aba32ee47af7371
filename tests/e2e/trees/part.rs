//! What a get of a directory keeps and removes when it ends before its end, and how it serves others afterwards.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::{super::get::Ran, Stage};
use crate::support::{bundle::TestTree, wait_until};

#[test]
fn a_get_that_kept_nothing_leaves_nothing() {
    let stage = Stage::new(TestTree::usual());
    let ran = stage.get("x", &["--timeout", "500ms"]);
    ran.failed(1, &["is anybody sharing the file?", "nothing was written"]);
    assert_eq!(stage.names(), Vec::<String>::new());
    stage.origin_of(stage.index_chunks());
    stage.get("x", &["--timeout", "1s"]).failed(1, &["nothing new has come"]);
    assert_eq!(stage.names(), Vec::<String>::new(), "the index alone is nothing to keep");
    let mut gone = stage;
    gone.relay.kill();
    gone.get("x", &["--timeout", "500ms"]).failed(1, &["to the relay", "refused"]);
}

#[test]
fn a_directory_that_is_whole_is_served_to_others() {
    for stage in
        [Stage::new(TestTree::usual().preserving(0o440, 5)), Stage::sealed(TestTree::usual())]
    {
        let origin = stage.origin();
        let seeding = stage.start("x", &["--seed-for", "1h"]);
        wait_until("the whole directory", || stage.path("x").exists());
        // What was there before serves, too.
        let present = stage.start("x", &["--seed-for", "1h"]);
        wait_until("both to have joined", || stage.relay.metric("relay_peers", &[]) >= 3.0);
        drop(origin);
        stage.get("y", &[]).ok();
        stage.assert_whole("y");
        stage.get("z", &["-o", "z", "--only", "large"]).ok();
        stage.tree.only(|path| path == b"large").assert_at(&stage.path("z"));
        for get in [seeding, present] {
            kill_process(Pid::from_child(&get), Signal::TERM).expect("it still serves");
            Ran::of(get).ok();
        }
    }
}

#[test]
fn a_place_that_came_to_be_meanwhile_is_not_replaced() {
    let stage = Stage::new(TestTree::usual());
    let chunks = stage.file.key().chunk_count() as usize;
    stage.origin_of(chunks - 1);
    let get = stage.start("x", &[]);
    wait_until("the partial directory", || stage.path("x.part/many").exists());
    fs::create_dir(stage.path("x")).expect("writable");
    let _origin = stage.origin();
    let says = ["x came to be while it was got", "kept as x.part", "--force"];
    Ran::of(get).failed(1, &says);
    assert_eq!(super::names(&stage.path("x")), Vec::<String>::new());
    stage.get("x", &["--force"]).ok();
    stage.assert_whole("x");
}
