//! The relay's control side end to end: what it announces, /metrics, /healthz, /readyz, tokens of
//! HTTP, drivers, shards, and how it ends.

use std::{sync::Arc, time::Duration};

use relay::protocol::{FailureCode, Message};
use rustix::process::Signal;

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin, download},
    http, in_background,
    process::{RelayProcess, drivers},
    wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

/// What dashboards rely on, beside the histograms.
const METRICS: [&str; 25] = [
    "relay_connections",
    "relay_connections_accepted_total",
    "relay_connections_refused_total",
    "relay_bytes_total",
    "relay_chunks_delivered_total",
    "relay_chunks_fetched_total",
    "relay_cache_hits_total",
    "relay_cache_misses_total",
    "relay_cache_evictions_total",
    "relay_chunk_bytes",
    "relay_chunk_bytes_limit",
    "relay_hedges_total",
    "relay_chunks_rejected_total",
    "relay_peers_banned_total",
    "relay_inbox_depth_max",
    "relay_doorbell_rings_total",
    "relay_shard_busy_ratio",
    "relay_shard_heartbeat_age_seconds",
    "relay_swarms",
    "relay_peers",
    "relay_build_info",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_start_time_seconds",
];

#[test]
fn every_promised_metric_is_served_and_counts() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver, "--cache", "8M"]);
        let file = Arc::new(TestFile::new(1, 1 << 20, 16));
        let _origin = Origin::start(relay.addr, &file);
        let mut client = Download::join(relay.addr, file.key()).expect("it may join");
        while !client.is_complete() {
            client.step().expect("chunks come");
        }
        relay.wait_metric("relay_chunks_delivered_total", &[], 16.0);
        let page = http::metrics(relay.http);
        let missing: Vec<_> =
            METRICS.iter().filter(|name| http::sample_count(&page, name) == 0).collect();
        assert!(missing.is_empty(), "{missing:?} in\n{page}");
        for histogram in ["relay_fetch_seconds", "relay_delivery_seconds"] {
            let count = http::metric(&page, &format!("{histogram}_count"), &[]);
            assert!((count - 16.0).abs() < 0.5, "{histogram}: {count}");
            assert!(http::sample_count(&page, &format!("{histogram}_bucket")) > 10);
        }
        let value = |name: &str, labels: &[&str]| http::metric(&page, name, labels);
        assert_eq!(value("relay_chunk_bytes_limit", &[]), f64::from(8 << 20));
        assert_eq!(value("relay_chunks_fetched_total", &[]), 16.0);
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            assert_eq!(
                value("relay_bytes_total", &[direction, "kind=\"data\""]),
                f64::from(1 << 20)
            );
            assert!(value("relay_bytes_total", &[direction, "kind=\"control\""]) > 0.0);
        }
        assert_eq!(value("relay_build_info", &[&format!("driver=\"{driver}\"")]), 1.0);
        assert_eq!(
            value("relay_build_info", &[concat!("version=\"", env!("CARGO_PKG_VERSION"))]),
            1.0
        );
        assert_eq!(value("relay_peers_banned_total", &[]), 0.0);
        assert!(!page.contains("127.0.0.1"), "no metric names a peer");
    }
}

#[test]
fn what_a_client_acknowledged_before_it_went_is_counted() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(8, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    for count in 1u8..=5 {
        download(relay.addr, &file);
        relay.wait_metric("relay_chunks_delivered_total", &[], 16.0 * f64::from(count));
    }
}

#[test]
fn gauges_return_to_zero_when_everyone_has_gone() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = TestFile::new(2, 1 << 20, 16);
    let origin = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let client = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    wait_until("two peers of one swarm", || {
        relay.metric("relay_peers", &[]) == 2.0 && relay.metric("relay_swarms", &[]) == 1.0
    });
    drop(origin);
    client.reset();
    for gauge in ["relay_peers", "relay_connections", "relay_swarms", "relay_chunk_bytes"] {
        wait_until(gauge, || relay.metric(gauge, &[]) == 0.0);
    }
}

#[test]
fn health_and_readiness_are_told() {
    let relay = RelayProcess::start(relay(), &[]);
    for path in ["/healthz", "/readyz"] {
        let answer = http::get(relay.http, path).expect("answered");
        assert_eq!((answer.status, answer.body.trim()), (200, "ok"), "{path}");
    }
    assert_eq!(http::get(relay.http, "/nowhere").expect("answered").status, 404);
}

#[test]
fn oversubscribing_really_starts_that_many_shards() {
    for driver in drivers(relay) {
        let args = ["--cores", "8", "--oversubscribe", "--driver", driver];
        let relay = RelayProcess::start(relay(), &args);
        let page = http::metrics(relay.http);
        for shard in 0..8 {
            let label = format!("shard=\"{shard}\"");
            let connections = http::samples_with(&page, "relay_connections", &label);
            assert_eq!(connections, 1, "shard {shard} in\n{page}");
        }
        assert_eq!(http::samples_with(&page, "relay_connections", "shard=\"8\""), 0);
        // Homes and connections lie on different shards: all of it works between them, too.
        let files: Vec<_> = (0..6).map(|seed| Arc::new(TestFile::new(seed, 1 << 20, 15))).collect();
        let origins: Vec<_> = files.iter().map(|file| Origin::start(relay.addr, file)).collect();
        let clients: Vec<_> = files
            .iter()
            .cycle()
            .take(18)
            .map(|file| {
                let (addr, file) = (relay.addr, Arc::clone(file));
                in_background(move || download(addr, &file))
            })
            .collect();
        for client in clients {
            client.join().expect("every client gets its file");
        }
        assert!(origins.iter().all(Origin::is_serving));
    }
}

#[test]
fn a_forced_driver_runs_and_the_log_says_why() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let log = relay.log();
        assert!(log.contains(&format!("driver {driver}")), "{log}");
    }
    let relay = RelayProcess::start(relay(), &[]);
    assert!(relay.log().contains("driver "), "{}", relay.log());
}

#[test]
fn io_uring_is_not_used_where_the_environment_forbids_it() {
    let mut command = relay();
    command.env("MONOIO_FORCE_LEGACY_DRIVER", "1");
    let relay = RelayProcess::start(command, &[]);
    assert!(relay.metric("relay_build_info", &["driver=\"io-uring\""]) == 0.0);
    let file = Arc::new(TestFile::new(3, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    download(relay.addr, &file);
}

#[test]
fn a_signal_drains_and_ends_with_success() {
    for (driver, signal) in drivers(relay).into_iter().zip([Signal::TERM, Signal::INT]) {
        let mut relay = RelayProcess::start(relay(), &["--driver", driver]);
        let file = Arc::new(TestFile::new(4, 1 << 20, 16));
        let origin = Origin::start(relay.addr, &file);
        let mut idle = Wire::join(relay.addr, hello(file.key())).expect("it may join");
        download(relay.addr, &file);
        relay.signal(signal);
        let failure = idle.hear_end().expect("it is told why");
        assert_eq!(failure.code, FailureCode::ShuttingDown);
        assert_eq!(relay.wait_exit().code(), Some(0), "{}", relay.log());
        wait_until("the origin to be told", || !origin.is_serving());
    }
}

#[test]
fn a_draining_relay_is_not_ready_finishes_chunks_and_takes_nobody_in() {
    let mut relay = RelayProcess::start(relay(), &["--drain-timeout", "60s"]);
    let file = Arc::new(TestFile::new(5, 4 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    let mut client = Download::join(relay.addr, file.key()).expect("it may join");
    while client.have_count() < 3 {
        client.step().expect("chunks come");
    }
    // It reads nothing for a while: more than it has had is in flight, and not acknowledged.
    let more = u32::try_from(client.have_count() + 1).expect("a few chunks") << 16;
    let sent = ["kind=\"data\"", "direction=\"out\""];
    relay.wait_metric("relay_bytes_total", &sent, f64::from(more));
    relay.signal(Signal::TERM);
    wait_until("not ready", || {
        http::get(relay.http, "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    let health = http::get(relay.http, "/healthz").expect("answered");
    assert_eq!(health.status, 200, "draining is not sick: {}", health.body);
    wait_until("the port to be closed", || Wire::connect(relay.addr).is_err());
    assert!(relay.is_alive());
    let had = client.have_count();
    let error = loop {
        if let Err(error) = client.step() {
            break error;
        }
    };
    assert!(error.to_string().contains("shutting down"), "{error}");
    assert!(client.have_count() > had, "what was in flight arrived");
    assert_eq!(relay.wait_exit().code(), Some(0), "{}", relay.log());
}

#[test]
fn a_signal_that_is_repeated_at_once_counts_once() {
    let mut relay = RelayProcess::start(relay(), &[]);
    // As `timeout` of coreutils does: to the process, and then to its group.
    relay.signal(Signal::TERM);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit().code(), Some(0), "{}", relay.log());
}

#[test]
fn a_second_signal_ends_at_once_with_failure() {
    let mut relay = RelayProcess::start(relay(), &["--drain-timeout", "10m"]);
    let file = Arc::new(TestFile::new(6, 4 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    let mut client = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    let progress = Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 };
    client.send(&progress).expect("sent");
    // Data is on its way and never acknowledged: draining would take long.
    while !matches!(client.hear().expect("heard"), Heard::Data { .. }) {}
    relay.signal(Signal::TERM);
    wait_until("not ready", || {
        http::get(relay.http, "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    assert!(relay.is_alive(), "it waits for the chunk in flight");
    // A user who signals twice means it: a stray repetition comes sooner.
    crate::support::pause(Duration::from_millis(500));
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit().code(), Some(1), "{}", relay.log());
}

#[test]
fn after_a_crash_the_same_port_is_free_at_once() {
    let file = Arc::new(TestFile::new(7, 1 << 20, 16));
    let mut relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr;
    for _ in 0..10 {
        let origin = Origin::start(addr, &file);
        let mut client = Download::join(addr, file.key()).expect("it may join");
        while client.have_count() == 0 {
            client.step().expect("chunks come");
        }
        relay.kill();
        relay = RelayProcess::start_on(crate::programs::relay(), addr, &[]);
        drop((origin, client));
    }
    let _origin = Origin::start(addr, &file);
    download(addr, &file);
}

/// Times that the event loops' threads of a process went to sleep of their own accord.
#[cfg(target_os = "linux")]
fn sleeps_of_shards(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let sleeps = |task: std::path::PathBuf| {
        let name = std::fs::read_to_string(task.join("comm")).expect("a thread has a name");
        let number = name.trim_end().strip_prefix("relay-")?.parse::<u32>().ok();
        let status = std::fs::read_to_string(task.join("status")).expect("it runs");
        let count = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        number.and(count?.trim().parse::<u64>().ok())
    };
    let counts: Vec<u64> = tasks.filter_map(|task| sleeps(task.ok()?.path())).collect();
    assert_eq!(counts.len(), 2, "there are two shards");
    counts.iter().sum()
}

#[cfg(target_os = "linux")]
#[test]
fn shards_to_which_nothing_happens_sleep_on_but_for_their_heartbeat() {
    for driver in drivers(relay) {
        let args = ["--driver", driver, "--cores", "2", "--oversubscribe"];
        let relay = RelayProcess::start(relay(), &args);
        let file = Arc::new(TestFile::new(8, 1 << 20, 16));
        let _origin = Origin::start(relay.addr, &file);
        // It has had everything and stays, as a peer does that seeds.
        let mut client = Download::join(relay.addr, file.key()).expect("it may join");
        while !client.is_complete() {
            client.step().expect("chunks come");
        }
        let window = Duration::from_secs(1);
        let calm = || {
            let before = sleeps_of_shards(relay.id());
            std::thread::park_timeout(window);
            sleeps_of_shards(relay.id()) - before
        };
        // Two beats a second each; a look at the clock every 100 ms would be 20 sleeps more. What
        // came last may still be watched for a while.
        let mut last = 0;
        let is_calm = (0..10).any(|_| {
            last = calm();
            last <= 10
        });
        assert!(is_calm, "on {driver} an idle relay woke up {last} times in {window:?}");
        assert_eq!(http::get(relay.http, "/healthz").expect("answered").status, 200);
        let mut second = Download::join(relay.addr, file.key()).expect("it may join");
        while !second.is_complete() {
            second.step().expect("chunks come though everything slept");
        }
    }
}
