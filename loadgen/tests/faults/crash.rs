//! Crashes and churn, with real processes: the relay ends and comes back, clients are killed,
//! clients lie. Every honest client ends with a verified file, on every driver that works here.

use rustix::process::Signal;

use crate::{
    loadgen, relay, succeeds,
    support::{
        process::{RelayProcess, Running, drivers, run},
        wait_until,
    },
};

#[test]
fn a_relay_that_shuts_down_and_returns_is_found_again() {
    let mut relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr;
    let to = addr.to_string();
    let job = Running::start(loadgen().args([
        "--relay",
        &to,
        "--clients",
        "10",
        "--file",
        "4M",
        "--rate",
        "1M",
        "--seeding",
        "origin",
        "--timeout",
        "100s",
    ]));
    relay.wait_metric("relay_chunks_delivered_total", &[], 10.0);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit().code(), Some(0), "{}", relay.log());
    let relay = RelayProcess::start_on(self::relay(), addr, &[]);
    succeeds(&job.wait());
    assert!(relay.metric("relay_chunks_delivered_total", &[]) > 0.0);
}

#[test]
fn a_relay_that_never_returns_ends_the_run_with_who_waits() {
    let mut relay = RelayProcess::start(relay(), &[]);
    let to = relay.addr.to_string();
    let job = Running::start(loadgen().args([
        "--relay",
        &to,
        "--clients",
        "5",
        "--file",
        "4M",
        "--rate",
        "500K",
        "--seeding",
        "origin",
        "--timeout",
        "8s",
    ]));
    relay.wait_metric("relay_chunks_delivered_total", &[], 5.0);
    relay.kill();
    let ended = job.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("chunks"), "who waits for what: {said}");
}

#[test]
fn clients_killed_in_mid_chunk_leave_the_others_alone() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver, "--cache", "2M"]);
        let to = relay.addr.to_string();
        let common = ["--relay", &to, "--file", "6M", "--seed", "7", "--rate", "1M"];
        let job =
            Running::start(loadgen().args(common).args(["--clients", "10", "--timeout", "100s"]));
        for _ in 0..3 {
            // The same seed is the same file: the victims are in the same swarm.
            let victims = Running::start(loadgen().args(common).args(["--clients", "10"]));
            wait_until("the victims to be at it", || relay.metric("relay_peers", &[]) >= 15.0);
            victims.kill();
        }
        succeeds(&job.wait());
        wait_until("everyone to be gone", || relay.metric("relay_connections", &[]) == 0.0);
        wait_until("their memory to be free", || relay.metric("relay_chunk_bytes", &[]) == 0.0);
        let peak = relay.metric("relay_chunk_bytes_peak", &[]);
        assert!(peak <= f64::from(2 << 20), "{peak}");
        assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
    }
}

#[test]
fn churn_and_liars_keep_no_honest_client_from_its_file() {
    for driver in drivers(relay) {
        for seeding in ["spread", "origin"] {
            let relay_args = format!("--driver {driver}");
            let ended = run(loadgen().args([
                "--clients",
                "30",
                "--file",
                "4M",
                "--churn",
                "kill=5,join=5",
                "--corrupt",
                "3",
                "--seeding",
                seeding,
                "--relay-args",
                &relay_args,
                "--driver",
                driver,
                "--timeout",
                "100s",
            ]));
            succeeds(&ended);
        }
    }
}

#[test]
fn half_of_the_clients_slow_on_a_cache_of_four_chunks() {
    for driver in drivers(relay) {
        // The largest chunk is an eighth of the cache; four of them leave half of it unused.
        let relay = RelayProcess::start(relay(), &["--driver", driver, "--cache", "256K"]);
        let to = relay.addr.to_string();
        let ended = run(loadgen().args([
            "--relay",
            &to,
            "--clients",
            "40",
            "--file",
            "1M",
            "--chunk",
            "32K",
            "--slow",
            "20@300K",
            "--seeding",
            "origin",
            "--timeout",
            "100s",
        ]));
        succeeds(&ended);
        let peak = relay.metric("relay_chunk_bytes_peak", &[]);
        assert!(peak > 0.0 && peak <= f64::from(256 << 10), "{peak}");
    }
}
