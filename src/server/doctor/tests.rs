//! What facts mean.

use super::{Grade, facts, facts::Facts, judge};

fn healthy() -> Facts {
    Facts {
        is_linux: true,
        driver: Ok((true, "io-uring: it works here".into())),
        io_uring_disabled: Some(0),
        locked_bytes: Some(8 << 20),
        descriptors: Some(1 << 20),
        peers_wished: 16_384,
        buffers: vec![("net.core.rmem_max", 4 << 20), ("net.ipv4.tcp_rmem", 6 << 20)],
        congestion_default: Some("bbr".into()),
        congestion_available: vec!["reno".into(), "cubic".into(), "bbr".into()],
        congestion_wanted: None,
        is_loopback_only: false,
        shard_count: 4,
        cores_wished: 0,
        quota_cores: None,
        cache_bytes: 256 << 20,
        memory_bytes: Some(8 << 30),
        ipv6: Ok(()),
        ports: vec![("HTTP", ([127, 0, 0, 1], 7441).into(), Ok(()))],
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

#[test]
fn a_healthy_machine_is_told_so() {
    assert_eq!(amiss(|_| {}), []);
    assert_eq!(judge(&healthy()).len(), 9);
}

#[test]
fn each_thing_amiss_is_named_with_the_command_that_mends_it() {
    let only = |change: fn(&mut Facts), grade: Grade, what: &str, command: &str| {
        let found = amiss(change);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (grade, what));
        assert!(found[0].2.contains(command), "{found:?}");
    };
    let epoll = |facts: &mut Facts| facts.driver = Ok((false, "epoll: fallback".into()));
    only(epoll, Grade::Note, "event loops", "seccomp");
    only(
        |facts| {
            facts.driver = Ok((false, "epoll: fallback".into()));
            facts.io_uring_disabled = Some(2);
        },
        Grade::Note,
        "event loops",
        "kernel.io_uring_disabled=0",
    );
    only(|facts| facts.driver = Err("no ring".into()), Grade::Bad, "event loops", "--driver auto");
    only(
        |facts| facts.locked_bytes = Some(64 << 10),
        Grade::Note,
        "locked memory",
        "ulimit -l 4096",
    );
    only(|facts| facts.descriptors = Some(1024), Grade::Note, "descriptors", "ulimit -Hn 16512");
    only(|facts| facts.descriptors = Some(100), Grade::Bad, "descriptors", "LimitNOFILE=");
    only(
        |facts| facts.buffers[0].1 = 212_992,
        Grade::Note,
        "socket buffers",
        "sysctl -w net.core.rmem_max=4194304",
    );
    only(
        |facts| facts.congestion_wanted = Some("vegas".into()),
        Grade::Bad,
        "congestion control",
        "modprobe tcp_vegas",
    );
    only(
        |facts| facts.is_loopback_only = true,
        Grade::Note,
        "congestion control",
        "--congestion cubic",
    );
    only(|facts| facts.quota_cores = Some(1.5), Grade::Note, "cores", "--cores 1");
    only(|facts| facts.cores_wished = 8, Grade::Note, "cores", "--oversubscribe");
    only(|facts| facts.memory_bytes = Some(200 << 20), Grade::Note, "memory", "--cache 100M");
    only(|facts| facts.ipv6 = Err("no".into()), Grade::Note, "IPv6", "disable_ipv6=0");
    only(|facts| facts.ports[0].2 = Err("in use".into()), Grade::Bad, "port", "sport = :7441");
}

#[test]
fn quotas_are_read_as_the_kernel_writes_them() {
    assert_eq!(facts::parse_quota("max 100000\n"), None);
    assert_eq!(facts::parse_quota("150000 100000\n"), Some(1.5));
    assert_eq!(facts::parse_quota(""), None);
    assert_eq!(facts::floor(1.5), 1);
}
