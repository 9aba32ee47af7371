//! What `peer get` leaves beside its target, and what it says of that: as it is when it says it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    get::{CHUNK_BYTES, Ran, Stage, hesitant_origin},
    support::{
        honest::Origin,
        process::{NO_STATE, with_state},
        wait_until,
    },
};

#[test]
fn what_was_there_before_and_could_not_be_checked_is_not_called_nothing() {
    let mut stage = Stage::new(21, 10 * CHUNK_BYTES);
    stage.relay.kill();
    fs::write(stage.path("x.part"), &stage.file.bytes[..5 * CHUNK_BYTES]).expect("writable");
    let ran = stage.get("x", &["--timeout", "500ms"]);
    let ran = ran.failed(1, &["what was in x.part (80 KiB", "is kept", "run this again"]);
    assert!(!ran.stderr.contains("nothing of it has come"), "{}", ran.stderr);
    assert_eq!(stage.chunks_in("x.part"), 5);
}

#[test]
fn nothing_is_called_kept_that_was_taken_away() {
    let stage = Stage::new(22, 10 * CHUNK_BYTES);
    hesitant_origin(stage.relay.addr, &stage.file, 4);
    fs::create_dir(stage.path("sub")).expect("writable");
    let get = stage.start("x", &["-o", "sub"]);
    wait_until("the first chunks", || stage.chunks_in("sub/x.part") == 4);
    fs::remove_dir_all(stage.path("sub")).expect("it is ours");
    kill_process(Pid::from_child(&get), Signal::INT).expect("it runs");
    let ran = Ran::of(get).failed(1, &["interrupted", "was moved or deleted"]);
    assert!(!ran.stderr.contains("are kept in"), "{}", ran.stderr);
}

#[test]
fn sizes_that_look_alike_are_told_in_bytes() {
    let stage = Stage::new(23, 1 << 24);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    let mut almost = stage.file.bytes.clone();
    almost[0] ^= 1;
    fs::write(stage.path("x.part"), &almost).expect("writable");
    let ran = stage.get("x", &[]).ok();
    let told = format!("resuming: {} bytes of {} bytes", (1 << 24) - CHUNK_BYTES, 1 << 24);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    stage.assert_whole("x");
}

/// Where a file system can't tell holes from data, a file that was only made long looks like one that is full.
/// Needs a name space with a file system of its own.
#[test]
#[cfg(target_os = "linux")]
fn a_get_remembers_what_it_made_where_holes_look_like_data() {
    let stage = Stage::new(24, 10 * CHUNK_BYTES);
    let script = "mount -t ramfs none \"$1\" && cd \"$1\" || exit 99
        \"$0\" get \"$2\" --timeout 500ms; echo left: $(ls -A); read -r line
        exec \"$0\" get \"$2\"";
    let mount = stage.path("mount");
    fs::create_dir(&mount).expect("writable");
    let mut get = Command::new("unshare");
    get.args(["-Urm", "sh", "-c", script, env!("CARGO_BIN_EXE_peer")]).arg(&mount);
    get.arg(stage.ticket("x")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut get) = with_state(&mut get, NO_STATE).spawn() else {
        return println!("NOT CHECKED: there is no unshare");
    };
    let mut left = String::new();
    BufReader::new(get.stdout.take().expect("piped")).read_line(&mut left).expect("readable");
    if left.is_empty() {
        let ran = Ran::of(get);
        return println!("NOT CHECKED: no ramfs can be had here: {}", ran.stderr);
    }
    assert_eq!(left, "left:\n", "a get that kept nothing leaves nothing");
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    drop(get.stdin.take());
    let ran = Ran::of(get);
    assert!(!ran.stderr.contains("resuming") && ran.stderr.contains("verified"), "{}", ran.stderr);
}
