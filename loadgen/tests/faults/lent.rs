//! Chunks that are lent to the kernel: that they are, that all arrive, and that trouble leaves nothing behind. Where
//! a machine offers no place for files with large pages, all is copied, and that is what is looked for.

use std::{collections::BTreeSet, fs};

use rustix::process::Signal;

use crate::{
    loadgen, relay, succeeds,
    support::{
        process::{RelayProcess, Running, drivers, run},
        wait_until,
    },
};

/// As many as make it worth it (`TAKERS_MIN` in `crates/server/src/lending.rs`), and some.
const CLIENTS: &str = "40";

/// Twice the cache, which holds just as many chunks as make files worth it. Peers take seconds for what the relay fetches at
/// first, so all have joined when the rest is fetched.
const CACHE: &str = "16M";
const MUCH: [&str; 6] = ["--file", "32M", "--chunk", "64K", "--rate", "4M"];

/// What a start says when chunks are lent.
const LENDS: &str = "sent from files";

fn job<'a>(to: &'a str, more: &[&'a str]) -> Running {
    let common = ["--relay", to, "--clients", CLIENTS, "--seed", "7", "--seeding", "origin"];
    Running::start(loadgen().args(common).args(more))
}

/// A relay, and whether it says that it lends chunks.
fn start(args: &[&str]) -> (RelayProcess, bool) {
    let mut command = relay();
    command.env("RELAY_LOG", "info");
    let relay = RelayProcess::start(command, args);
    wait_until("the relay to say how it sends", || {
        let log = relay.log();
        log.contains(LENDS) || log.contains("chunks are copied")
    });
    let lends = relay.log().contains(LENDS);
    (relay, lends)
}

/// A relay that a shell starts after it has done this.
fn started_by(first: &str) -> RelayProcess {
    let mut shell = std::process::Command::new("sh");
    let then = format!("{first}; exec \"$0\" relay-role \"$@\"");
    shell.args(["-c", &then, env!("CARGO_BIN_EXE_loadgen")]).env("RELAY_LOG", "info");
    RelayProcess::start(shell, &[])
}

#[test]
fn what_many_want_is_lent_and_verified_and_nothing_stays_pinned() {
    for driver in drivers(relay) {
        let (relay, lends) = start(&["--driver", driver, "--cache", CACHE]);
        let to = relay.addr.to_string();
        succeeds(&job(&to, &MUCH).wait());
        let (chunks, bytes) = ("relay_chunks_lent_total", "relay_lent_bytes_total");
        assert_eq!(relay.metric(chunks, &[]) > 0.0, lends, "{driver}: {}", relay.log());
        assert_eq!(relay.metric(bytes, &[]) > 0.0, lends, "{driver}");
        let limit = relay.metric("relay_chunk_bytes_limit", &[]);
        assert!(relay.metric("relay_chunk_bytes_peak", &[]) <= limit, "{driver}");
        for gauge in ["relay_pinned_bytes", "relay_chunk_file_bytes"] {
            wait_until("files to go", || relay.metric(gauge, &[]) == 0.0);
        }
    }
}

#[test]
fn who_asks_for_copies_gets_copies() {
    let (relay, lends) = start(&["--chunk-dir", "none"]);
    let to = relay.addr.to_string();
    succeeds(&job(&to, &["--file", "4M"]).wait());
    assert!(!lends && relay.metric("relay_chunks_lent_total", &[]) == 0.0, "{}", relay.log());
}

#[test]
fn a_directory_of_no_use_is_told_of_and_chunks_are_copied() {
    let (relay, lends) = start(&["--chunk-dir", env!("CARGO_TARGET_TMPDIR")]);
    let to = relay.addr.to_string();
    succeeds(&job(&to, &["--file", "4M"]).wait());
    assert!(!lends && relay.log().contains("--chunk-dir"), "{}", relay.log());
}

#[test]
fn where_files_may_not_be_long_enough_chunks_are_copied_and_no_signal_comes() {
    let relay = started_by("ulimit -f 1024");
    let to = relay.addr.to_string();
    succeeds(&job(&to, &["--file", "4M"]).wait());
    assert_eq!(relay.metric("relay_chunks_lent_total", &[]), 0.0);
    assert!(relay.log().contains("ulimit -f"), "{}", relay.log());
}

#[test]
fn where_descriptors_are_short_they_are_for_peers_and_chunks_are_copied() {
    let relay = started_by("ulimit -n 300");
    let to = relay.addr.to_string();
    succeeds(&job(&to, &["--file", "4M"]).wait());
    assert_eq!(relay.metric("relay_chunks_lent_total", &[]), 0.0);
    assert!(relay.log().contains("descriptors are left for files"), "{}", relay.log());
}

/// The kernel waits for the children of such a process by itself, so none is left to wait for.
#[test]
fn who_ignores_the_ends_of_children_has_a_mount_all_the_same() {
    let (_, lends) = start(&[]);
    let relay = started_by("trap '' CHLD");
    wait_until("the relay to say how it sends", || relay.log().contains("chunks "));
    assert_eq!(relay.log().contains(LENDS), lends, "{}", relay.log());
}

#[test]
fn a_small_cache_is_named_as_the_reason() {
    let (relay, lends) = start(&["--cache", "4M"]);
    assert!(!lends && relay.log().contains("raise --cache"), "{}", relay.log());
}

#[test]
fn peers_of_all_transports_share_a_swarm_while_chunks_are_lent() {
    let (relay, lends) = start(&["--cache", CACHE]);
    let to = relay.addr.to_string();
    // One file, so one swarm; each brings an origin and some clients.
    let others = ["quic", "udp-data", "udp-control"].map(|transport| {
        let few = ["--clients", "5", "--transport", transport, "--seeding", "origin"];
        let common = ["--relay", &to, "--seed", "7"];
        Running::start(loadgen().args(common).args(few).args(MUCH))
    });
    succeeds(&job(&to, &MUCH).wait());
    others.into_iter().for_each(|other| succeeds(&other.wait()));
    assert_eq!(relay.metric("relay_lent_bytes_total", &[]) > 0.0, lends, "{}", relay.log());
    assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
    for gauge in ["relay_pinned_bytes", "relay_chunk_file_bytes"] {
        wait_until("files to go", || relay.metric(gauge, &[]) == 0.0);
    }
}

/// What they say comes in datagrams, and what is lent goes by the stream, from which nothing is read.
#[test]
fn peers_that_speak_in_datagrams_and_stay_keep_no_file_pinned() {
    let (relay, lends) = start(&["--cache", CACHE]);
    let to = relay.addr.to_string();
    let stays = ["--transport", "udp-control", "--stay", "100s"];
    let staying = job(&to, &[&MUCH[..], &stays].concat());
    let all = 40.0 * 512.0;
    relay.wait_metric("relay_chunks_delivered_total", &[], all);
    wait_until("files to be let go of", || relay.metric("relay_pinned_bytes", &[]) == 0.0);
    assert!(relay.metric("relay_peers", &[]) >= 40.0, "they are still there");
    assert_eq!(relay.metric("relay_lent_bytes_total", &[]) > 0.0, lends);
    staying.kill();
}

#[test]
fn peers_that_die_with_lent_bytes_under_way_leave_nothing_pinned() {
    let (relay, lends) = start(&["--cache", CACHE]);
    let to = relay.addr.to_string();
    let mut before = 0.0;
    for _ in 0..2 {
        let victims = job(&to, &MUCH);
        let sent = |name| relay.metric(name, &[]);
        wait_until("lent bytes to be under way", || {
            let name =
                if lends { "relay_lent_bytes_total" } else { "relay_chunks_delivered_total" };
            sent(name) > before
        });
        before = sent("relay_lent_bytes_total").max(before);
        victims.kill();
        wait_until("their end", || relay.metric("relay_peers", &[]) == 0.0);
        wait_until("files to go", || {
            relay.metric("relay_pinned_bytes", &[]) + relay.metric("relay_chunk_file_bytes", &[])
                == 0.0
        });
    }
    succeeds(&job(&to, &["--file", "4M"]).wait());
}

#[test]
fn a_relay_that_is_killed_leaves_no_mount_no_file_and_no_process() {
    let left = || -> BTreeSet<String> {
        let shared = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        shared.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let mounts = || {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        all.lines().filter(|line| line.contains("huge=within_size")).count()
    };
    let (left_before, mounts_before) = (left(), mounts());
    let (mut relay, _) = start(&[]);
    let children = format!("/proc/{0}/task/{0}/children", relay.id());
    assert_eq!(fs::read_to_string(children).unwrap_or_default(), "", "the child has ended");
    assert_eq!(mounts(), mounts_before, "its mount is attached nowhere");
    let to = relay.addr.to_string();
    let job = job(&to, &["--file", "16M", "--rate", "500K", "--timeout", "5s"]);
    relay.wait_metric("relay_chunks_delivered_total", &[], 40.0);
    relay.signal(Signal::KILL);
    relay.wait_exit();
    job.kill();
    let new: Vec<_> = left().difference(&left_before).cloned().collect();
    assert!(!new.iter().any(|name| name.contains("relay")), "{new:?}");
}

#[test]
fn doctor_and_start_say_the_same() {
    let (relay, lends) = start(&[]);
    drop(relay);
    let mut doctor = relay_with("doctor");
    let ended = run(&mut doctor);
    assert_eq!(ended.stdout.contains(LENDS), lends, "{}", ended.stdout);
}

fn relay_with(subcommand: &str) -> std::process::Command {
    let mut command = relay();
    command.arg(subcommand);
    command
}
