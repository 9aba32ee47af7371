//! Several relays as one: `relay --upstream`, with real programs. What crosses is counted in bytes, by the relays'
//! own metrics.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use relay::protocol::{Pin, RelayAddr, Ticket};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    process::{Ended, RelayProcess, Running},
    wait_for, wait_until,
};

const CHUNK_SIZE_LOG2: u8 = 18;

/// A directory with a file to share.
struct Stage {
    dir: TempDir,
    file: TestFile,
}

impl Stage {
    fn new(seed: u64, chunks: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let file = TestFile::new(seed, (chunks << CHUNK_SIZE_LOG2) - 7, CHUNK_SIZE_LOG2);
        fs::write(dir.path().join("movie.mkv"), &file.bytes).expect("a file can be written");
        Self { dir, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("a file can be written");
        self.text(name)
    }

    /// A share that has begun.
    fn share(&self, relay: &RelayProcess, more: &[&str]) -> Running {
        let (path, addr) = (self.text("movie.mkv"), relay.addr.to_string());
        let args = ["share", &path, "--relay", &addr];
        let running = Running::start(peer(&args).args(more));
        wait_until("the ticket", || running.stdout().ends_with('\n'));
        running
    }

    /// The ticket names this relay, wherever the file was shared.
    fn ticket(&self, relay: &RelayProcess) -> String {
        let addr = RelayAddr::new(&relay.addr.ip().to_string(), relay.addr.port());
        let addr = addr.expect("an address is one");
        Ticket::new(addr, self.file.key(), "movie.mkv").expect("it fits").to_string()
    }

    /// A get on its way, of a copy with this name.
    fn get(&self, relay: &RelayProcess, name: &str, more: &[&str]) -> Running {
        let (ticket, copy) = (self.ticket(relay), self.text(name));
        Running::start(peer(&["get", &ticket, "-o", &copy]).args(more))
    }

    fn check_copy(&self, name: &str, end: &Ended) {
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert!(fs::read(self.path(name)).expect("it is there") == self.file.bytes, "{name}");
    }

    /// A relay took so much of the file in, or gave it out, as whole files: no less than that, and a part of a file more
    /// at most, as what is late is asked for twice.
    #[track_caller]
    fn check_files(&self, what: &str, bytes: f64, files: f64) {
        let counted = bytes / self.file.bytes.len() as f64;
        assert!(counted > files - 0.01 && counted < files + 0.5, "{what}: {counted} files");
    }

    /// At least a file, and at most so many.
    #[track_caller]
    fn check_files_most(&self, what: &str, bytes: f64, most: f64) {
        let counted = bytes / self.file.bytes.len() as f64;
        assert!(counted > 0.99 && counted < most, "{what}: {counted} files");
    }
}

fn taken_in(relay: &RelayProcess) -> f64 {
    relay.metric("relay_bytes_total", &["direction=\"in\"", "kind=\"data\""])
}

fn crossed(relay: &RelayProcess, direction: &str) -> f64 {
    relay.metric("relay_uplink_bytes_total", &[&format!("direction=\"{direction}\"")])
}

/// A relay that is below another.
fn below(upstream: &RelayProcess, more: &[&str]) -> RelayProcess {
    let addr = format!("{}#{}", upstream.addr, upstream.pin);
    RelayProcess::start(relay(), &[&["--upstream", &addr], more].concat())
}

fn addr_of(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(addr_of(0)).expect("a port is free");
    listener.local_addr().expect("it has one").port()
}

#[test]
fn what_is_shared_upstream_is_got_at_two_edges_and_crosses_once_to_each() {
    let stage = Stage::new(1, 24);
    let top = RelayProcess::start(relay(), &[]);
    let edges = [below(&top, &[]), below(&top, &[])];
    let _share = stage.share(&top, &[]);
    let gets: Vec<_> = (0..4)
        .map(|at| (format!("copy {at}"), stage.get(&edges[at % 2], &format!("copy {at}"), &[])))
        .collect();
    for (name, get) in gets {
        stage.check_copy(&name, &get.wait());
    }
    stage.check_files("the origin gave", taken_in(&top), 1.0);
    for edge in &edges {
        stage.check_files("an edge took", taken_in(edge), 1.0);
        stage.check_files("an uplink took", crossed(edge, "in"), 1.0);
        assert!(crossed(edge, "out") < 0.5);
    }
    for edge in &edges {
        wait_until("uplinks to end with their peers", || {
            edge.metric("relay_uplink_swarms", &[]) < 0.5 && edge.metric("relay_swarms", &[]) < 0.5
        });
    }
}

#[test]
fn what_is_shared_at_an_edge_is_got_upstream_at_another_edge_and_below_that() {
    let stage = Stage::new(2, 24);
    let top = RelayProcess::start(relay(), &[]);
    let edges = [below(&top, &[]), below(&top, &[])];
    let leaf = below(&edges[1], &[]);
    let _share = stage.share(&edges[0], &[]);
    let places = [("top", &top), ("edge", &edges[1]), ("leaf", &leaf), ("home", &edges[0])];
    let gets: Vec<_> =
        places.iter().map(|(name, relay)| (*name, stage.get(relay, name, &[]))).collect();
    for (name, get) in gets {
        stage.check_copy(name, &get.wait());
    }
    // A relay between two others asks both where one is late, so a chunk may come twice; never from each peer.
    for (name, relay) in places {
        stage.check_files_most(name, taken_in(relay), 2.5);
    }
    stage.check_files_most("up", crossed(&edges[0], "out"), 2.5);
    stage.check_files_most("down", crossed(&edges[1], "in"), 2.5);
    stage.check_files_most("down twice", crossed(&leaf, "in"), 2.5);
}

#[test]
fn peers_of_other_relays_supply_what_the_origin_left() {
    let stage = Stage::new(3, 12);
    // It holds two thirds of the file at most.
    let top = RelayProcess::start(relay(), &["--cache", "2M"]);
    let edges = [below(&top, &[]), below(&top, &[])];
    let share = stage.share(&top, &[]);
    let first = stage.get(&edges[0], "first", &["--seed-for", "10m"]);
    wait_until("a copy", || stage.path("first").exists());
    share.signal(Signal::INT);
    assert_eq!(share.wait().code, 0);
    stage.check_copy("second", &stage.get(&edges[1], "second", &[]).wait());
    stage.check_copy("third", &stage.get(&top, "third", &[]).wait());
    let up = crossed(&edges[0], "out") / stage.file.bytes.len() as f64;
    assert!(up > 0.3, "{up} files came from the peer that stays");
    drop(first);
}

#[test]
fn an_upstream_relay_that_is_killed_is_found_again_and_peers_here_go_on_meanwhile() {
    let stage = Stage::new(4, 40);
    let port = free_port();
    let mut top = RelayProcess::start_on(relay(), addr_of(port), &["--egress-rate", "2M"]);
    let edge = below(&top, &[]);
    let _share = stage.share(&top, &[]);
    let get = stage.get(&edge, "copy", &[]);
    edge.wait_metric("relay_uplink_bytes_total", &["direction=\"in\""], 1e6);
    top.kill();
    wait_until("the edge to notice", || edge.log().contains("is away"));
    let local = Stage::new(5, 3);
    let _local_share = local.share(&edge, &[]);
    local.check_copy("copy", &local.get(&edge, "copy", &[]).wait());
    let top = RelayProcess::start_on(relay(), addr_of(port), &[]);
    stage.check_copy("copy", &get.wait());
    assert!(edge.log().contains("is there again"), "{}", edge.log());
    // What had crossed before is not sent again, but for what was on its way.
    let both = crossed(&edge, "in");
    stage.check_files("both together", both, 1.0);
    assert!(taken_in(&top) < both);
}

#[test]
fn two_relays_above_each_other_say_so_and_each_serves_its_own() {
    let stage = Stage::new(6, 6);
    let ports = [free_port(), free_port()];
    let [first, second] = [0, 1].map(|at: usize| {
        let upstream = addr_of(ports[1 - at]).to_string();
        RelayProcess::start_on(relay(), addr_of(ports[at]), &["--upstream", &upstream])
    });
    let _share = stage.share(&first, &[]);
    stage.check_copy("own", &stage.get(&first, "own", &[]).wait());
    let circle = "in a circle: one of the relays must have no --upstream";
    let other = stage.get(&second, "other", &["--timeout", "60s"]);
    wait_until("a relay to say so", || {
        [&first, &second].iter().any(|relay| relay.log().contains(circle))
    });
    stage.check_copy("other", &other.wait());
    let refused = |relay: &RelayProcess| {
        relay.metric("relay_connections_refused_total", &["reason=\"uplink\""])
    };
    assert!(refused(&first) + refused(&second) > 0.5);
    let alone = free_port();
    let own = addr_of(alone).to_string();
    let alone = RelayProcess::start_on(relay(), addr_of(alone), &["--upstream", &own]);
    let _share = stage.share(&alone, &[]);
    stage.check_copy("alone", &stage.get(&alone, "alone", &[]).wait());
    wait_until("it to say so", || alone.log().contains(circle));
}

#[test]
fn a_wrong_token_or_pin_is_told_and_peers_here_are_served_all_the_same() {
    let stage = Stage::new(7, 4);
    let tokens = stage.write("tokens", "right\n");
    let top = RelayProcess::start(relay(), &["--token-file", &tokens]);
    let wrong = stage.write("wrong", "wrong\n");
    let other_pin = format!("{}#{}", top.addr, Pin::of_public_key(b"another"));
    let named = top.addr.to_string();
    for (args, says) in [
        (&["--upstream", &named][..], "--upstream-token-file"),
        (&["--upstream", &named, "--upstream-token-file", &wrong], "does not know the token"),
        (&["--upstream", &other_pin], "is expected"),
    ] {
        let edge = RelayProcess::start(relay(), args);
        let share = stage.share(&edge, &[]);
        stage.check_copy("copy", &stage.get(&edge, "copy", &[]).wait());
        fs::remove_file(stage.path("copy")).expect("it is there");
        wait_until("the reason", || edge.log().contains(says));
        assert!(edge.metric("relay_uplink_connected", &[]) < 0.5);
        drop(share);
    }
    let edge = below(&top, &["--upstream-token-file", &tokens]);
    let _share = stage.share(&top, &["--token-file", &tokens]);
    stage.check_copy("copy", &stage.get(&edge, "copy", &[]).wait());
}

#[test]
fn a_peer_that_may_only_get_gets_at_an_edge_what_was_published_upstream() {
    let stage = Stage::new(8, 4);
    let tokens = stage.write("tokens", "publish:publisher\nget:getter\nboth\n");
    let (publisher, getter) = (stage.write("p", "publisher"), stage.write("g", "getter"));
    let both = stage.write("b", "both");
    let args = ["--token-file", tokens.as_str()];
    let top = RelayProcess::start(relay(), &args);
    let edge = below(&top, &[&args[..], &["--upstream-token-file", &both]].concat());
    let asking = stage.get(&edge, "copy", &["--token-file", &getter]);
    let why = "no peer that may publish this file has shared it here yet";
    wait_until("the reason", || asking.stderr().contains(why));
    let _share = stage.share(&top, &["--token-file", &publisher]);
    stage.check_copy("copy", &asking.wait());
    // And it makes no difference to what is shared here after one has asked for it here.
    let other = Stage::new(10, 3);
    let asking = other.get(&edge, "here", &["--token-file", &getter]);
    wait_until("the reason", || asking.stderr().contains(why));
    let _share = other.share(&edge, &["--token-file", &publisher]);
    other.check_copy("there", &other.get(&top, "there", &["--token-file", &getter]).wait());
    other.check_copy("here", &asking.wait());
}

#[test]
fn sealed_files_and_directories_cross_as_others_do() {
    let stage = Stage::new(9, 6);
    let top = RelayProcess::start(relay(), &[]);
    let edge = below(&top, &[]);
    let secret = stage.text("secret");
    let tree = stage.path("tree");
    fs::create_dir_all(tree.join("deep")).expect("a directory can be made");
    fs::copy(stage.path("movie.mkv"), tree.join("deep/movie.mkv")).expect("copied");
    fs::write(tree.join("small"), "small").expect("written");
    let mut shares = Vec::new();
    for (name, copy) in [("movie.mkv", "sealed"), ("tree", "tree copy")] {
        let (path, addr) = (stage.text(name), edge.addr.to_string());
        let mut command = peer(&["share", &path, "--relay", &addr, "--secret-file", &secret]);
        let share = Running::start(command.env_remove("PEER_PLAIN"));
        let ticket = wait_for("the ticket", || {
            share.stdout().split_once('\n').map(|(line, _)| line.to_owned())
        });
        let at_top = format!("{}#{}", top.addr, top.pin);
        let copy = stage.text(copy);
        let ended =
            Running::start(&mut peer(&["get", &ticket, "--relay", &at_top, "-o", &copy])).wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        shares.push(share);
    }
    assert!(fs::read(stage.path("sealed")).expect("it is there") == stage.file.bytes);
    let copied = stage.path("tree copy");
    assert!(fs::read(copied.join("deep/movie.mkv")).expect("it is there") == stage.file.bytes);
    assert_eq!(fs::read(copied.join("small")).expect("it is there"), b"small");
}
