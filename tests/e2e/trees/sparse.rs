//! Long runs of zeros take up no room where they are got, of files and in directories, and are not got again.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use super::{super::get::Stage as FileStage, Stage, hostile::Mount};
use crate::programs::{peer, relay};
use crate::support::{
    bundle::{Node, TestTree, of_bundle},
    file::TestFile,
    process::{RelayProcess, Running, run},
    wait_for,
};

/// Bytes that a file takes up.
fn allocated(path: &std::path::Path) -> u64 {
    fs::metadata(path).expect("it is there").blocks() * 512
}

/// Whether this file system knows holes at all.
fn knows_holes(directory: &std::path::Path) -> bool {
    let file = File::create(directory.join("probe")).expect("writable");
    file.set_len(1 << 20).expect("writable");
    let holes = file.metadata().expect("it is there").blocks() == 0;
    fs::remove_file(directory.join("probe")).expect("it is there");
    holes || {
        println!("NOT CHECKED: the file system knows no holes");
        false
    }
}

/// 8 MiB, of which little is not zero.
fn sparse_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 8 << 20];
    bytes[3 << 20..(3 << 20) + 200_000].copy_from_slice(&TestFile::new(1, 200_000, 10).bytes);
    bytes[5_000_000] = 1;
    bytes
}

#[test]
fn zeros_are_holes_of_files_and_in_directories() {
    let tree = TestTree::default()
        .with_file("a", 1000)
        .with("d/disk", Node::File(sparse_bytes(), false))
        .with("d/zeros", Node::File(vec![0; 1 << 20], true))
        .with("d/few", Node::File(vec![0; 100], false));
    let stage = Stage::new(tree);
    let _origin = stage.origin();
    stage.get("x", &[]).ok();
    stage.assert_whole("x");
    stage.get("y", &["--no-sparse"]).ok();
    stage.assert_whole("y");
    let file = FileStage::of(sparse_bytes());
    let _origin = crate::support::honest::Origin::start(file.relay.addr, &file.file);
    file.get("x", &[]).ok();
    file.assert_whole("x");
    file.get("y", &["--no-sparse"]).ok();
    file.assert_whole("y");
    if knows_holes(stage.dir.path()) {
        assert!(allocated(&stage.path("x/d/disk")) < 1 << 20);
        // Chunks end anywhere in a file: what is in the first and the last of them is less than a hole.
        assert!(allocated(&stage.path("x/d/zeros")) <= 16 << 10);
        assert!(allocated(&stage.path("y/d/disk")) >= 8 << 20);
        assert!(allocated(&file.path("x")) < 1 << 20);
        assert!(allocated(&file.path("y")) >= 8 << 20);
    }
}

#[test]
fn old_data_becomes_holes_and_holes_are_not_got_again() {
    let bytes = sparse_bytes();
    let stage = FileStage::of(bytes.clone());
    let _origin = crate::support::honest::Origin::start(stage.relay.addr, &stage.file);
    // What is there is of another file.
    fs::write(stage.path("x.part"), vec![7; bytes.len()]).expect("writable");
    let json = stage.get("x", &["--json"]).ok().json();
    assert_eq!(json["resumed_bytes"], 0, "{json}");
    stage.assert_whole("x");
    // All of it but a chunk, as a killed get leaves it.
    let part = File::create(stage.path("y.part")).expect("writable");
    part.set_len(bytes.len() as u64).expect("writable");
    let data =
        3 << 20..(3 << 20) + (200_000_usize).next_multiple_of(super::super::get::CHUNK_BYTES);
    part.write_all_at(&bytes[data.clone()], data.start as u64).expect("writable");
    let json = stage.get("y", &["--json"]).ok().json();
    stage.assert_whole("y");
    let chunk = super::super::get::CHUNK_BYTES;
    if knows_holes(stage.dir.path()) {
        assert!(allocated(&stage.path("x")) < 1 << 20, "{}", allocated(&stage.path("x")));
        // Those with data in them but for the zeros around it.
        assert_eq!(json["received_bytes"], chunk, "{json}");
    }
}

#[test]
fn a_sparse_file_of_more_than_a_gibibyte_arrives_in_a_directory() {
    const SIZE: u64 = (1 << 30) + 12_345;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    if !knows_holes(dir.path()) {
        return;
    }
    let path = |name: &str| dir.path().join(name);
    // The bundle is made by hand, as a sparse file: its index, and a file of holes with data at both ends.
    let entry = relay::protocol::bundle::Entry {
        path: b"disk",
        kind: relay::protocol::bundle::Kind::File { size_bytes: SIZE, is_executable: false },
        preserved: None,
    };
    let index = relay::protocol::bundle::Index::new(vec![entry]).expect("a bundle");
    let header = index.header();
    let bundle = File::create(path("bundle")).expect("writable");
    bundle.set_len(index.bundle_bytes()).expect("writable");
    bundle.write_all_at(header, 0).expect("writable");
    bundle.write_all_at(b"first", header.len() as u64).expect("writable");
    bundle.write_all_at(b"last", index.bundle_bytes() - 4).expect("writable");
    let relay = RelayProcess::start(relay(), &[]);
    let mut share = peer(&["share", "bundle", "--relay", &relay.addr.to_string()]);
    let share = Running::start(share.current_dir(dir.path()));
    let ticket = wait_for("the ticket", || share.stdout().lines().next().map(str::to_owned));
    let ticket = of_bundle(&ticket);
    fs::create_dir(path("x")).expect("writable");
    let ran = run(peer(&["get", &ticket, "-o", "x"]).current_dir(dir.path()));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let disk = File::open(path("x/bundle/disk")).expect("it is there");
    assert_eq!(disk.metadata().expect("it is there").len(), SIZE);
    assert!(allocated(&path("x/bundle/disk")) < 1 << 20, "{}", allocated(&path("x/bundle/disk")));
    let mut ends = ([0; 5], [0; 4]);
    disk.read_exact_at(&mut ends.0, 0).expect("readable");
    disk.read_exact_at(&mut ends.1, SIZE - 4).expect("readable");
    assert_eq!((&ends.0, &ends.1), (b"first", b"last"));
    // It is here, by content.
    let ran = run(peer(&["get", &ticket, "-o", "x"]).current_dir(dir.path()));
    assert!(ran.stderr.contains("here already, whole and verified"), "{}", ran.stderr);
}

#[test]
fn room_is_asked_for_what_is_written() {
    let stage = FileStage::of(sparse_bytes());
    let _origin = crate::support::honest::Origin::start(stage.relay.addr, &stage.file);
    let tree = TestTree::default().with("disk", Node::File(sparse_bytes(), false));
    let trees = Stage::new(tree);
    let _origin_of_tree = trees.origin();
    for (size, fits) in [("4m", true), ("100k", false)] {
        let mounted = stage.path(size);
        fs::create_dir(&mounted).expect("writable");
        let at = mounted.to_string_lossy().into_owned();
        let options = format!("size={size}");
        let Some(_mount) = Mount::new(&at, &["-t", "tmpfs", "-o", &options, "tmpfs"]) else {
            println!("NOT CHECKED: no small file system can be mounted here");
            return;
        };
        let says = ["not enough room", "8 MiB", "are no zeros", "are free"];
        let (file, tree) = (format!("{at}/file"), format!("{at}/tree"));
        let gets = [stage.get("x", &["-o", &file]), trees.get("x", &["-o", &tree])];
        for got in gets {
            if fits {
                got.ok()
            } else {
                got.failed(1, &says)
            };
        }
        if !fits {
            assert_eq!(super::names(&mounted), Vec::<String>::new(), "nothing is left");
        }
        let no_sparse = stage.get("x", &["-o", &format!("{at}/other"), "--no-sparse"]);
        no_sparse.failed(1, &["not enough room", "are to come"]);
    }
}
