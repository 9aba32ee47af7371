//! Limits of rates, from outside: they hold on every transport, change while the relay runs, and count against no peer.
//!
//! What takes time is bounded from below only: a machine that is busy makes nothing faster. How exactly limits are kept,
//! `bench/rates.py` measures.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::programs::{peer, relay};
use crate::support::{
    in_background,
    process::{RelayProcess, Running, run},
    wait_for, wait_until,
};

const TRANSPORTS: [&str; 3] = ["tcp", "udp-control", "udp-data"];

/// What goes beside the rate: a quantum, what may be made up for, and what a limited `get` grants at first.
const AT_ONCE_BYTES: u64 = 128 << 10;

/// A directory with a file of so many bytes, none of which is like its neighbours.
fn file(len: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("file");
    let bytes: Vec<u8> = (0..len).map(|at| ((at / 7 * 31 + at) % 251).to_le_bytes()[0]).collect();
    fs::write(&path, bytes).expect("a file can be written");
    (dir, path)
}

fn share(relay: &RelayProcess, path: &Path, more: &[&str]) -> (Running, String) {
    let addr = relay.addr.to_string();
    let path = path.to_str().expect("temporary paths are text");
    let running = Running::start(peer(&["share", path, "--relay", &addr]).args(more));
    let ticket = wait_for("the ticket", || {
        let stdout = running.stdout();
        stdout.split_once('\n').map(|(line, _)| line.to_owned())
    });
    (running, ticket)
}

/// Gets what the ticket names, and compares; how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "what is limited takes its time, and that is looked at"
)]
fn get(ticket: &str, original: &Path, more: &[&str]) -> Duration {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("got");
    let output = path.to_str().expect("temporary paths are text");
    let since = std::time::Instant::now();
    let ended = run(peer(&["get", ticket, "-o", output, "--timeout", "5m"]).args(more));
    let took = since.elapsed();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let same = fs::read(&path).expect("it is there") == fs::read(original).expect("it is there");
    assert!(same, "every byte is as it was");
    took
}

/// How long one transfer takes with these limits.
fn transfer(
    transport: &str,
    len: usize,
    of_relay: &[&str],
    of_share: &[&str],
    of_get: &[&str],
) -> Duration {
    let relay = RelayProcess::start(relay(), of_relay);
    let (_dir, path) = file(len);
    let transport = ["--transport", transport];
    let (_sharing, ticket) = share(&relay, &path, &[&transport, of_share].concat());
    let took = get(&ticket, &path, &[&transport, of_get].concat());
    assert_eq!(relay.metric("relay_connections_stalled_total", &[]), 0.0);
    took
}

#[test]
fn no_limit_lets_more_through_than_it_says_on_any_transport() {
    const LEN: usize = 3 << 19;
    let rate = ["--limit-rate", "1M"];
    let transfers: Vec<_> = TRANSPORTS
        .into_iter()
        .map(|transport| {
            in_background(move || {
                let none: [&str; 0] = [];
                let times = [
                    transfer(transport, LEN, &["--egress-rate", "1M"], &none, &none),
                    transfer(transport, LEN, &["--ingress-rate", "1M/s"], &none, &none),
                    transfer(transport, LEN, &["--peer-rate", "1MiB"], &none, &none),
                    transfer(transport, LEN, &none, &rate, &none),
                    transfer(transport, LEN, &none, &none, &rate),
                ];
                (transport, times)
            })
        })
        .collect();
    for transfer in transfers {
        let (transport, times) = transfer.join().expect("the file arrives");
        let least = (LEN as u64 - AT_ONCE_BYTES) as f64 / f64::from(1 << 20);
        let are_right = times.iter().all(|time| time.as_secs_f64() >= least);
        assert!(are_right, "{transport}: {times:?} for {least} s");
    }
}

#[test]
fn a_peer_that_the_relay_itself_holds_back_is_not_cut_off_or_blamed() {
    // A frame takes 16 s: longer than a peer may take nothing, or a holder answer nothing.
    const LEN: usize = 20 << 10;
    let transfers: Vec<_> = TRANSPORTS
        .into_iter()
        .flat_map(|transport| {
            ["--egress-rate", "--peer-rate", "--ingress-rate"].map(|limit| {
                in_background(move || transfer(transport, LEN, &[limit, "1K"], &[], &[]))
            })
        })
        .collect();
    for transfer in transfers {
        transfer.join().expect("it arrives");
    }
}

#[test]
fn no_other_holder_is_asked_for_what_the_relays_own_limit_delays() {
    let relay = RelayProcess::start(relay(), &["--ingress-rate", "64K"]);
    // A chunk of 256 KiB takes 4 s; a fetch is late after one, before any was measured.
    let (_dir, path) = file(512 << 10);
    let (_one, ticket) = share(&relay, &path, &[]);
    let (_other, _) = share(&relay, &path, &["--ticket", &ticket]);
    get(&ticket, &path, &[]);
    assert_eq!(relay.metric("relay_hedges_total", &[]), 0.0);
    assert_eq!(relay.metric("relay_chunks_fetched_total", &[]), 2.0);
}

fn limit_of(relay: &RelayProcess, direction: &str, scope: &str) -> f64 {
    let labels = [format!("direction=\"{direction}\""), format!("scope=\"{scope}\"")];
    relay.metric("relay_rate_limit_bytes_per_second", &[&labels[0], &labels[1]])
}

#[test]
fn limits_change_while_a_transfer_runs_and_what_is_wrong_changes_nothing() {
    for transport in TRANSPORTS {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let settings = dir.path().join("settings");
        let write = |text: &str| fs::write(&settings, text).expect("written");
        write("egress-rate = 8K # an hour for the file\ningress-rate = 8K\n");
        let named = settings.to_str().expect("temporary paths are text");
        let relay = RelayProcess::start(relay(), &["--settings", named, "--peer-rate", "20M"]);
        assert_eq!(limit_of(&relay, "out", "all"), 8192.0);
        assert_eq!(limit_of(&relay, "in", "peer"), f64::from(20 << 20));
        let (_dir, path) = file(30 << 20);
        let (_sharing, ticket) = share(&relay, &path, &["--transport", transport]);
        let getting = {
            let (ticket, path) = (ticket.clone(), path.clone());
            in_background(move || get(&ticket, &path, &["--transport", transport]))
        };
        relay.wait_metric("relay_bytes_total", &["kind=\"data\"", "direction=\"in\""], 1.0);
        write("egress-rate = 8K\ningress-rate = quick\n");
        relay.signal(Signal::HUP);
        wait_until("the fault to be told", || relay.log().contains("line 2 of --settings"));
        assert!(relay.log().contains("The limits stay: egress 8 KiB/s"), "{}", relay.log());
        assert_eq!(limit_of(&relay, "out", "all"), 8192.0);
        assert!(!getting.is_finished());
        write("# none\n");
        relay.signal(Signal::HUP);
        getting.join().expect("nothing holds it back any more");
        assert_eq!((limit_of(&relay, "out", "all"), limit_of(&relay, "in", "all")), (0.0, 0.0));
        assert!(relay.log().contains("SIGHUP: limits are now egress none"), "{}", relay.log());
    }
}

#[test]
fn a_relay_without_a_settings_file_survives_sighup() {
    let mut relay = RelayProcess::start(relay(), &["--egress-rate", "1G"]);
    relay.signal(Signal::HUP);
    relay.signal(Signal::HUP);
    wait_until("it says so", || relay.log().contains("no --settings file to read again"));
    assert!(relay.is_alive());
    assert_eq!(limit_of(&relay, "out", "all"), f64::from(1 << 30));
}

#[test]
fn settings_that_mean_nothing_are_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("settings");
    let named = path.to_str().expect("temporary paths are text");
    let refused = |text: Option<&str>, word: &str| {
        if let Some(text) = text {
            fs::write(&path, text).expect("written");
        }
        let ended = run(relay().args(["--listen", "127.0.0.1:0", "--settings", named]));
        assert!(ended.code == 2 && ended.stderr.contains(word), "{}", ended.stderr);
    };
    refused(None, "No such file");
    refused(Some("egress = 1M"), "there are egress-rate, ingress-rate, peer-rate");
    refused(Some("egress-rate = 1M\negress-rate = 2M"), "line 2");
    let ended = run(relay().args(["--egress-rate", "fast"]));
    assert!(ended.code == 2 && ended.stderr.contains("100M"), "{}", ended.stderr);
}
