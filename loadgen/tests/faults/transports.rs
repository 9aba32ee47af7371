//! One fault script for every transport: real peers and a real relay with a network in between that
//! loses, delays, doubles, reorders, damages, throttles, goes dark, and forgets addresses. Whatever
//! carries the channels, every client ends with the file, byte for byte, and none is blamed.

use std::{path::Path, time::Duration};

use super::loadgen;
use crate::support::{
    network::{Faults, MILLION, Proxy},
    process::{RelayProcess, Running},
};

/// Clients of each run.
const CLIENTS: usize = 5;

/// Bytes of the file: some dozens of chunks, the last one short.
const FILE_BYTES: usize = 700_001;

/// Deliveries that each run comes to at least.
const DELIVERIES: f64 = (CLIENTS * FILE_BYTES.div_ceil(16 << 10)) as f64;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A swarm at work behind a proxy.
struct Run {
    relay: RelayProcess,
    proxy: Proxy,
    job: Option<Running>,
    dir: tempfile::TempDir,
}

impl Run {
    /// Starts with these faults; `more` are arguments of the load generator.
    fn start(transport: &str, faults: Faults, more: &[&str]) -> Self {
        let mut relay = loadgen();
        relay.arg("relay-role");
        let args = ["--cores", "2", "--oversubscribe", "--cache", "256K"];
        let relay = RelayProcess::start(relay, &args);
        let proxy = Proxy::start(relay.addr, 1, faults);
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join("source"), content()).expect("it can be written");
        let [source, out] = ["source", "out"].map(|name| dir.path().join(name));
        let to = proxy.addr.to_string();
        let mut job = loadgen();
        job.args(["--relay", &to, "--transport", transport, "--clients", &CLIENTS.to_string()]);
        job.arg("--file").arg(source).args(["--chunk", "16K", "--seed", "7", "--cores", "2"]);
        job.arg("--store").arg(format!("dir:{}", out.display()));
        job.args(["--seeding", "origin", "--timeout", "150s"]).args(more);
        Self { relay, proxy, job: Some(Running::start(&mut job)), dir }
    }

    /// Waits until some part of all deliveries is done.
    fn wait_part(&mut self, part: f64) {
        self.relay.wait_metric("relay_chunks_delivered_total", &[], part * DELIVERIES);
        let is_running = self.job.as_mut().is_some_and(Running::is_alive);
        assert!(is_running, "what goes wrong goes wrong in the middle of it");
    }

    /// All end with the file, and none was blamed.
    fn ends_well(mut self) {
        let ended = self.job.take().expect("started").wait();
        assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        for client in 0..CLIENTS {
            let path = self.dir.path().join(format!("out/client-{client}/source"));
            assert!(read(&path) == content(), "client {client} has the file byte for byte");
        }
        for (metric, labels) in [
            ("relay_peers_banned_total", &[][..]),
            ("relay_panics_total", &[]),
            ("relay_chunks_rejected_total", &["reason=\"wrong_digest\""]),
        ] {
            assert_eq!(self.relay.metric(metric, labels), 0.0, "{metric}");
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn content() -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    blake3::Hasher::new().update(b"weather").finalize_xof().fill(&mut bytes);
    bytes
}

/// A network that is bad from the first byte to the last.
fn bad_throughout(transport: &str, faults: Faults) {
    let run = Run::start(transport, faults, &[]);
    let happened = std::sync::Arc::clone(&run.proxy.happened);
    run.ends_well();
    let is_random = faults.lost + faults.doubled + faults.overtaken + faults.damaged > 0;
    if is_random && faults.lost != MILLION / 1000 {
        println!("faults that fell: {}", happened.faults());
    }
}

/// So many clients a second's worth of file that the middle of a run can't be missed.
const SLOWLY: [&str; 2] = ["--rate", "200K"];

fn goes_dark(transport: &str, time: Duration) {
    let mut run = Run::start(transport, Faults::default(), &SLOWLY);
    run.wait_part(0.2);
    run.proxy.set(Faults { black_hole: true, ..Faults::default() });
    crate::support::pause(time);
    run.proxy.set(Faults::default());
    run.ends_well();
}

fn forgets_addresses(transport: &str) {
    let mut run = Run::start(transport, Faults::default(), &SLOWLY);
    for part in [0.2, 0.4, 0.6] {
        run.wait_part(part);
        run.proxy.change_addresses();
    }
    run.ends_well();
}

fn cuts_streams(transport: &str) {
    let mut run = Run::start(transport, Faults::default(), &SLOWLY);
    for part in [0.2, 0.5] {
        run.wait_part(part);
        run.proxy.reset_streams();
    }
    run.ends_well();
}

/// Everything, one after the other, while the same clients go on.
fn changes_for_the_worse_and_the_better(transport: &str) {
    let clear = Faults::default();
    let mut run = Run::start(transport, clear, &SLOWLY);
    run.wait_part(0.1);
    for faults in [
        Faults { lost: MILLION / 5, ..clear },
        Faults { delay: millis(30), jitter: millis(60), overtaken: MILLION / 5, ..clear },
        Faults { black_hole: true, ..clear },
        Faults { doubled: MILLION / 2, damaged: MILLION / 100, ..clear },
        Faults { rate: Some(300_000), datagram_bytes_max: Some(1_200), ..clear },
    ] {
        run.proxy.set(faults);
        crate::support::pause(millis(500));
        run.proxy.change_addresses();
        run.proxy.set(clear);
        crate::support::pause(millis(100));
    }
    run.ends_well();
}

/// The script, once per transport.
macro_rules! script {
    ($transport:ident, $name:literal) => {
        mod $transport {
            use super::*;

            #[test]
            fn a_clear_network() {
                bad_throughout($name, Faults::default());
            }

            #[test]
            fn a_thousandth_is_lost() {
                bad_throughout($name, Faults { lost: MILLION / 1000, ..Faults::default() });
            }

            #[test]
            fn a_hundredth_is_lost() {
                bad_throughout($name, Faults { lost: MILLION / 100, ..Faults::default() });
            }

            #[test]
            fn a_twentieth_is_lost() {
                bad_throughout($name, Faults { lost: MILLION / 20, ..Faults::default() });
            }

            #[test]
            fn a_fifth_is_lost() {
                bad_throughout($name, Faults { lost: MILLION / 5, ..Faults::default() });
            }

            #[test]
            fn later_ones_overtake_and_many_come_twice() {
                let faults =
                    Faults { overtaken: MILLION / 4, doubled: MILLION / 4, ..Faults::default() };
                bad_throughout($name, faults);
            }

            #[test]
            fn bits_turn() {
                bad_throughout($name, Faults { damaged: MILLION / 50, ..Faults::default() });
            }

            #[test]
            fn a_narrow_way_for_short_datagrams() {
                let rate = Some(400_000);
                let datagram_bytes_max = Some(1_200);
                bad_throughout($name, Faults { rate, datagram_bytes_max, ..Faults::default() });
            }
        }
    };
}

script!(tcp, "tcp");
script!(udp_control, "udp-control");
script!(udp_data, "udp-data");
script!(quic, "quic");

/// Runs that wait more than they work, over all transports at once: a test's time is dear.
fn over_all_transports(run: fn(&'static str)) {
    let runs = ["tcp", "udp-control", "udp-data", "quic"]
        .map(|transport| (transport, crate::support::in_background(move || run(transport))));
    let failed: Vec<&str> = runs
        .into_iter()
        .filter_map(|(transport, run)| run.join().is_err().then_some(transport))
        .collect();
    assert!(failed.is_empty(), "over {failed:?}, see above");
}

#[test]
fn a_long_way_with_jitter() {
    over_all_transports(|transport| {
        let (delay, jitter) = (millis(30), millis(40));
        bad_throughout(transport, Faults { delay, jitter, ..Faults::default() });
    });
}

#[test]
fn ten_seconds_of_darkness() {
    over_all_transports(|transport| goes_dark(transport, millis(10_000)));
}

#[test]
fn addresses_are_forgotten() {
    over_all_transports(forgets_addresses);
}

#[test]
fn a_peer_that_moves_goes_on_soon_where_data_runs_in_datagrams() {
    for transport in ["udp-data", "quic"] {
        moves(transport);
    }
}

fn moves(transport: &str) {
    let mut run = Run::start(transport, Faults::default(), &SLOWLY);
    run.wait_part(0.3);
    run.proxy.move_everybody();
    let delivered = || run.relay.metric("relay_chunks_delivered_total", &[]);
    // What is on its way may still come.
    crate::support::pause(millis(1_000));
    let before = delivered();
    // The relay gives a silent peer up after 10 s, TCP after 30, the datagrams after 45.
    let goes_on = (0..200).any(|_| {
        crate::support::pause(millis(100));
        delivered() > before
    });
    assert!(goes_on, "{transport}: nothing came for 20 s");
    run.ends_well();
}

#[test]
fn streams_are_cut() {
    over_all_transports(cuts_streams);
}

#[test]
fn everything_one_after_the_other() {
    over_all_transports(changes_for_the_worse_and_the_better);
}
