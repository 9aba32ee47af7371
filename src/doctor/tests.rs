//! What facts mean.

use std::io;

use shards::DriverChoice;

use super::{
    facts::Facts,
    finding::Grade,
    judge::judge,
    ports::{Port, Refusal, Use},
};
use relay_program::machine::{LimitOf, MemoryLimit};
use relay_server::{Congestion, Descriptors, MemoryPlan};

fn descriptors(limit: u64) -> Descriptors {
    Descriptors::new(Some(limit), 16_384, 4, 2, 0)
}

fn memory(cache: Option<u64>, limit_bytes: u64) -> MemoryPlan {
    let limit = MemoryLimit { bytes: limit_bytes, of: LimitOf::Group };
    MemoryPlan::new(cache, 4, Some(limit), Some(8 << 30))
}

fn healthy() -> Facts {
    Facts {
        is_linux: true,
        driver: Ok((true, "io-uring: it works here".into())),
        driver_wished: DriverChoice::Auto,
        is_uring_renounced: false,
        io_uring_disabled: Some(0),
        locked_bytes: Some(8 << 20),
        descriptors: descriptors(1 << 20),
        buffers: vec![
            ("net.core.rmem_max", "4194304".into()),
            ("net.ipv4.tcp_rmem", "4096\t131072\t67108864".into()),
        ],
        congestion_default: Some("bbr".into()),
        congestion_available: "reno cubic bbr".into(),
        congestion_allowed: "reno bbr".into(),
        congestion: Congestion::System,
        congestion_outcome: Ok(()),
        is_loopback_only: false,
        shard_count: 4,
        cores_available: 4,
        cores_wished: 0,
        quota_cores: None,
        memory: memory(None, 8 << 30),
        lending: ("without copying".into(), None),
        loopback: Ok(()),
        ipv6: Ok(()),
        pin: Ok(None),
        unreadable: Vec::new(),
        ports: vec![Port { what: Use::Http, addr: ([127, 0, 0, 1], 7441).into(), outcome: Ok(()) }],
    }
}

/// What is found amiss after a change, with its mend.
fn amiss(change: impl FnOnce(&mut Facts)) -> Vec<(Grade, &'static str, String)> {
    let mut facts = healthy();
    change(&mut facts);
    let findings = judge(&facts).into_iter().filter(|finding| finding.grade > Grade::Fine);
    findings
        .map(|finding| (finding.grade, finding.what, finding.mend.expect("it says what mends it")))
        .collect()
}

fn only(change: impl FnOnce(&mut Facts), grade: Grade, what: &str, command: &str) {
    let found = amiss(change);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1), (grade, what));
    assert!(found[0].2.contains(command), "{found:?}");
}

#[test]
fn a_healthy_machine_is_told_so() {
    assert_eq!(amiss(|_| {}), []);
    assert_eq!(judge(&healthy()).len(), 12);
}

#[test]
fn an_identity_that_can_not_be_read_is_mended() {
    only(
        |facts| facts.pin = Err("others may read it".into()),
        Grade::Bad,
        "identity",
        "--identity-file",
    );
    assert_eq!(
        amiss(|facts| facts.pin = Ok(Some(relay_protocol::Pin::of_public_key(b"a key")))),
        []
    );
}

#[test]
fn each_event_loop_that_is_not_the_best_is_mended_where_it_can_be() {
    let epoll = |facts: &mut Facts| facts.driver = Ok((false, "epoll: fallback".into()));
    let what = "event loops";
    only(epoll, Grade::Note, what, "seccomp");
    let disabled = |facts: &mut Facts| {
        epoll(facts);
        facts.io_uring_disabled = Some(2);
    };
    only(disabled, Grade::Note, what, "kernel.io_uring_disabled=0");
    let renounced = |facts: &mut Facts| {
        epoll(facts);
        facts.is_uring_renounced = true;
    };
    only(renounced, Grade::Note, what, "unset MONOIO_FORCE_LEGACY_DRIVER");
    let old = |facts: &mut Facts| {
        epoll(facts);
        facts.io_uring_disabled = None;
    };
    only(old, Grade::Note, what, "a kernel from 5.11 on");
    let wished = |facts: &mut Facts| {
        epoll(facts);
        facts.driver_wished = DriverChoice::Epoll;
    };
    assert_eq!(amiss(wished), [], "whoever asks for epoll knows");
    only(|facts| facts.driver = Err("no ring".into()), Grade::Bad, what, "--driver auto");
}

#[test]
fn limits_that_are_too_small_are_named_with_the_command_that_mends_them() {
    let locked = |facts: &mut Facts| facts.locked_bytes = Some(64 << 10);
    only(locked, Grade::Note, "locked memory", "ulimit -l 4096");
    let few = |limit| move |facts: &mut Facts| facts.descriptors = descriptors(limit);
    only(few(1024), Grade::Note, "descriptors", "ulimit -Hn 16752");
    only(few(100), Grade::Note, "descriptors", "LimitNOFILE=16752");
    // What does not serve two peers is no relay.
    only(few(40), Grade::Bad, "descriptors", "LimitNOFILE=58");
    let datagrams = |facts: &mut Facts| facts.buffers[0].1 = "212992".into();
    let (note, buffers) = (Grade::Note, "socket buffers");
    only(datagrams, note, buffers, "sysctl -w net.core.rmem_max=4194304");
    let streams = |facts: &mut Facts| facts.buffers[1].1 = "4096\t16384\t6291456".into();
    only(streams, note, buffers, "net.ipv4.tcp_rmem='4096 16384 67108864'");
    only(|facts| facts.quota_cores = Some(1.5), note, "cores", "--cores 1");
    only(|facts| facts.cores_wished = 8, note, "cores", "--oversubscribe");
    only(|facts| facts.shard_count = 8, note, "cores", "--cores 4 without --oversubscribe");
    only(|facts| facts.memory = memory(Some(1 << 30), 512 << 20), note, "memory", "--cache 309M");
    assert_eq!(amiss(|facts| facts.memory = memory(None, 200 << 20)), [], "the default follows");
    let copies = |facts: &mut Facts| facts.lending = ("copied".into(), Some("--chunk-dir".into()));
    only(copies, note, "sending", "--chunk-dir");
    only(|facts| facts.loopback = Err("no".into()), note, "loopback", "ip link set lo up");
    only(|facts| facts.ipv6 = Err("no".into()), note, "IPv6", "disable_ipv6=0");
    let unreadable = |facts: &mut Facts| facts.unreadable.push(("film.mkv".into(), "no".into()));
    only(unreadable, Grade::Bad, "file to serve", "chmod");
}

#[test]
fn a_congestion_control_that_was_asked_for_must_be_there_and_ours_need_not() {
    let what = "congestion control";
    let refused = |congestion, kind: io::ErrorKind| {
        move |facts: &mut Facts| {
            facts.congestion = congestion;
            facts.congestion_outcome = Err((kind, "no".into()));
        }
    };
    let asked = |name: &str| Congestion::Asked(name.into());
    let missing = refused(asked("vegas"), io::ErrorKind::NotFound);
    only(missing, Grade::Bad, what, "modprobe tcp_vegas");
    let allow = "net.ipv4.tcp_allowed_congestion_control='reno bbr cubic'";
    only(refused(asked("cubic"), io::ErrorKind::PermissionDenied), Grade::Bad, what, allow);
    let preferred = Congestion::Preferred("cubic");
    only(refused(preferred, io::ErrorKind::PermissionDenied), Grade::Note, what, allow);
    let slow = |facts: &mut Facts| {
        facts.congestion = asked("bbr");
        facts.is_loopback_only = true;
    };
    only(slow, Grade::Note, what, "--congestion cubic");
}

#[test]
fn a_port_that_cannot_be_had_is_mended_by_its_reason() {
    let refused = |what, kind, is_own| {
        move |facts: &mut Facts| {
            facts.ports[0].what = what;
            facts.ports[0].outcome = Err(Refusal { kind, text: "no".into(), is_own });
        }
    };
    let taken = io::ErrorKind::AddrInUse;
    only(refused(Use::Http, taken, false), Grade::Bad, "port", "ss -lntp 'sport = :7441'");
    only(refused(Use::Http, taken, true), Grade::Bad, "port", "two options want it");
    // The relay then serves streams.
    only(refused(Use::Datagrams, taken, false), Grade::Note, "port", "ss -lnup");
    let elsewhere = io::ErrorKind::AddrNotAvailable;
    only(refused(Use::Streams, elsewhere, false), Grade::Bad, "port", "ip addr");
    let denied = io::ErrorKind::PermissionDenied;
    only(refused(Use::Streams, denied, false), Grade::Bad, "port", "unprivileged_port_start=7441");
}

#[test]
fn a_quota_is_whole_cores_at_most() {
    assert_eq!(super::facts::floor(1.5), 1);
    assert_eq!(super::facts::floor(0.5), 0);
}
