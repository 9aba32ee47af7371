//! Sealed files as their users meet them: shared by default, opened by the ticket alone, interrupted, misled, and
//! told apart from files that are not sealed.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use relay::{
    client::{
        Opening,
        resume::{Hashing, chunks_present},
    },
    protocol::{Digest, Sealed, ShareSecret, Ticket, digest_file},
};
use rustix::process::Signal;

use super::get::{CHUNK_BYTES, Ran, hesitant_origin};
use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    process::{RelayProcess, Running, run},
    wait_for, wait_until,
};

const CHUNK_SIZE_LOG2: u8 = 14;

/// A file, its ciphertext as the swarm moves it, and a relay.
struct Stage {
    dir: tempfile::TempDir,
    relay: RelayProcess,
    plain: Vec<u8>,
    sealed: Sealed,
    moved: Arc<TestFile>,
}

/// What is moved of this content.
fn moved(plain: &[u8], sealed: &Sealed) -> TestFile {
    let mut bytes = plain.to_vec();
    sealed.cipher(bytes.len() as u64).apply(0, &mut bytes);
    TestFile::of(bytes, CHUNK_SIZE_LOG2)
}

impl Stage {
    fn new(seed: u64, len: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let plain = TestFile::new(seed, len, CHUNK_SIZE_LOG2).bytes;
        let sealed = Sealed { secret: ShareSecret([7; 16]), plain: digest_file(&plain) };
        let moved = Arc::new(moved(&plain, &sealed));
        Self { dir, relay: RelayProcess::start(relay(), &[]), plain, sealed, moved }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ticket(&self, file: &TestFile, sealed: Option<&Sealed>, name: &str) -> String {
        let relay = self.relay.addr.to_string().parse().expect("an address");
        let ticket = Ticket::new(relay, file.key(), name).expect("a short name");
        ticket.with_sealed(sealed.cloned()).to_string()
    }

    /// A get by this ticket, in the directory.
    fn start(&self, ticket: &str, args: &[&str]) -> Child {
        let mut command = peer(&["get", ticket]);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program can be started")
    }

    fn get(&self, ticket: &str, args: &[&str]) -> Ran {
        Ran::of(self.start(ticket, args))
    }

    /// A get of the sealed file as `name`.
    fn get_sealed(&self, name: &str, args: &[&str]) -> Ran {
        self.get(&self.ticket(&self.moved, Some(&self.sealed), name), args)
    }

    /// Chunks of the sealed file that lie opened in a partial file.
    fn chunks_in(&self, name: &str) -> u32 {
        let Ok(part) = File::open(self.path(name)) else { return 0 };
        let opening = Opening::new(&self.sealed, &self.moved.key());
        let present =
            chunks_present(&part, &self.moved.manifest, Some(&opening), &Hashing::default());
        present.map_or(0, |have| have.count())
    }

    fn assert_whole(&self, name: &str) {
        assert!(fs::read(self.path(name)).expect("it is there") == self.plain, "{name} differs");
        for left in [".part", ".part.manifest"] {
            assert!(!self.path(&format!("{name}{left}")).exists(), "{name}{left} is left over");
        }
    }
}

/// Has a program seal what it shares, as it does by default, by a secret that it makes below this directory.
fn sealing(mut command: Command, state: &Path) -> Command {
    command.env_remove("PEER_PLAIN").env_remove("RELAY_PLAIN").env("XDG_STATE_HOME", state);
    command
}

/// `peer share` of a file, as it is by default, once its ticket is printed.
pub(super) fn share(
    path: &Path,
    relay: SocketAddr,
    state: &Path,
    more: &[&str],
) -> (Running, Ticket) {
    let addr = relay.to_string();
    let mut command = sealing(peer(&["share", "--relay", &addr]), state);
    let running = Running::start(command.arg(path).args(more));
    let line = wait_for("the ticket", || {
        running.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    (running, line.parse().expect("it prints a ticket"))
}

pub(super) fn end(running: Running) {
    running.signal(Signal::INT);
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn a_share_is_sealed_and_the_swarm_moves_what_only_its_ticket_opens() {
    let relay = RelayProcess::start(relay(), &[]);
    for len in [0, 1, 700_001] {
        // One byte is the same under one of 256 keys.
        let differs = |are_equal: bool| len == 1 || are_equal == (len == 0);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let (path, state) = (dir.path().join("movie.mkv"), dir.path().join("state"));
        let plain = TestFile::new(1, len, 18);
        fs::write(&path, &plain.bytes).expect("a file can be written");
        let (running, ticket) = share(&path, relay.addr, &state, &[]);
        assert!(ticket.to_string().starts_with("relay2"));
        let sealed = ticket.sealed.clone().expect("it is sealed");
        assert_eq!((sealed.plain, ticket.name()), (plain.key().id, "movie.mkv"));
        // A client by hand, which opens nothing.
        let ciphertext = {
            let mut bytes = plain.bytes.clone();
            sealed.cipher(len as u64).apply(0, &mut bytes);
            TestFile::of(bytes, 18)
        };
        assert_eq!(ticket.key, ciphertext.key());
        assert!(differs(ciphertext.bytes == plain.bytes));
        download(relay.addr, &ciphertext);
        let mut get = peer(&["get", &ticket.to_string(), "-o"]);
        let got = run(get.arg(dir.path().join("got")));
        assert_eq!(got.code, 0, "{}", got.stderr);
        let digest = got.stdout.split("  ").next().unwrap_or_default();
        assert_eq!(digest, plain.key().id.to_string(), "as b3sum prints it");
        assert!(fs::read(dir.path().join("got")).expect("it is there") == plain.bytes);
        end(running);
        // The secret was made for its owner alone, and is kept.
        let secret = state.join("relay/secret");
        let mode = fs::metadata(&secret).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read(&secret).expect("it can be read").len(), 65);
        let (again, same) = share(&path, relay.addr, &state, &[]);
        assert_eq!(same, ticket, "the same file of the same user is the same swarm");
        let (other, another) = share(&path, relay.addr, &dir.path().join("another user"), &[]);
        assert_ne!(another.sealed, ticket.sealed);
        assert!(differs(another.key == ticket.key), "no other can tell that it is the same file");
        let given = state.join("relay/secret").display().to_string();
        let elsewhere = dir.path().join("unused");
        let (by_file, same) = share(&path, relay.addr, &elsewhere, &["--secret-file", &given]);
        assert_eq!(same, ticket);
        assert!(!elsewhere.join("relay/secret").exists(), "a secret that was given is not made");
        let (as_it_is, open) = share(&path, relay.addr, &elsewhere, &["--plain"]);
        let addr = relay.addr.to_string().parse().expect("an address");
        let expected = Ticket::new(addr, plain.key(), "movie.mkv").expect("a short name");
        assert_eq!(open.to_string(), expected.to_string(), "today's ticket, byte for byte");
        [again, other, by_file, as_it_is].into_iter().for_each(end);
    }
}

#[test]
fn a_ticket_comes_from_stdin_or_a_file_as_well() {
    let stage = Stage::new(2, 20 * CHUNK_BYTES + 1);
    let _origin = Origin::start(stage.relay.addr, &stage.moved);
    let ticket = stage.ticket(&stage.moved, Some(&stage.sealed), "x");
    fs::write(stage.path("ticket"), format!("{ticket}\n")).expect("writable");
    stage.get("@ticket", &[]).ok();
    stage.assert_whole("x");
    let with_stdin = |args: &[&str]| {
        let mut command = peer(args);
        command.current_dir(stage.dir.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let mut stdin = child.stdin.take().expect("piped");
        let written = stdin.write_all(ticket.as_bytes());
        // One that reads the ticket from a file may have ended.
        assert!(written.is_ok() || !args.contains(&"-"), "it reads: {written:?}");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    };
    let streamed = with_stdin(&["get", "-", "-o", "-"]);
    assert_eq!(streamed.status.code(), Some(0));
    assert!(streamed.stdout == stage.plain, "it comes out opened, in order");
    for args in [&["check", "x", "-"][..], &["check", "x", "@ticket"]] {
        let checked = Ran::from(with_stdin(args));
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
    let secret: String = stage.sealed.secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
    for args in [&["info", "-"][..], &["info", "@ticket"], &["info", "--json", "-"]] {
        let told = Ran::from(with_stdin(args)).ok();
        for part in [&stage.sealed.plain.to_string(), &stage.moved.key().id.to_string(), "sealed"] {
            assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
        }
        assert!(!told.stdout.contains(&secret) && !told.stdout.contains(&ticket[..40]));
    }
    stage.get("@nothing", &[]).failed(2, &["could not read nothing"]);
    let help = run(&mut peer(&["get", "--help"])).stdout;
    assert!(help.contains("command lines"), "{help}");
}

#[test]
fn check_says_where_a_sealed_file_differs() {
    let stage = Stage::new(3, 9 * CHUNK_BYTES);
    let _origin = Origin::start(stage.relay.addr, &stage.moved);
    let ticket = stage.ticket(&stage.moved, Some(&stage.sealed), "x");
    let mut other = stage.plain.clone();
    other[3 * CHUNK_BYTES + 7] ^= 1;
    other[8 * CHUNK_BYTES] ^= 1;
    fs::write(stage.path("x"), &other).expect("writable");
    let path = stage.path("x").display().to_string();
    let checked = run(&mut peer(&["check", &path, &ticket]));
    assert_eq!(checked.code, 1);
    let says =
        format!("2 of its 9 chunks differ, the first is chunk 3, from offset {}", 3 * CHUNK_BYTES);
    assert!(checked.stderr.contains(&says), "{}", checked.stderr);
    let checked = run(&mut peer(&["check", &path, &ticket, "--json"]));
    assert!(checked.stdout.contains("\"first_different_chunk\":3"), "{}", checked.stdout);
}

#[test]
fn a_ticket_that_opens_something_else_fails_clearly_and_leaves_no_finished_file() {
    let stage = Stage::new(4, 6 * CHUNK_BYTES + 5);
    let _origin = Origin::start(stage.relay.addr, &stage.moved);
    let right = &stage.sealed;
    let wrong_secret = Sealed { secret: ShareSecret([8; 16]), ..right.clone() };
    let wrong_plain = Sealed { plain: Digest([8; 32]), ..right.clone() };
    for (name, sealed) in [("secret", &wrong_secret), ("plain", &wrong_plain)] {
        let ticket = stage.ticket(&stage.moved, Some(sealed), name);
        let says = ["the ticket contradicts itself", &sealed.plain.to_string(), "new ticket"];
        // A second time all of it is there already, and is as wrong.
        for _ in 0..2 {
            let ran = stage.get(&ticket, &[]).failed(1, &says);
            assert_eq!(ran.stdout, "");
            assert!(!stage.path(name).exists(), "it has no finished file");
        }
        let streamed = stage.get(&ticket, &["-o", "-"]);
        assert_eq!(streamed.code, Some(1), "{}", streamed.stderr);
        assert!(streamed.stderr.contains(says[0]), "{}", streamed.stderr);
        // What came of it misleads no right get into the same place.
        stage.get_sealed(name, &[]).ok();
        stage.assert_whole(name);
    }
}

#[test]
fn a_get_that_is_killed_ten_times_gets_each_chunk_once() {
    const KILLS: u32 = 10;
    const EACH: u32 = 3;
    const CHUNKS: u32 = KILLS * EACH + 7;
    let mut stage = Stage::new(5, CHUNKS as usize * CHUNK_BYTES - 9);
    for round in 1..=KILLS {
        // A relay of its own: what it delivers is of this round.
        stage.relay = RelayProcess::start(relay(), &[]);
        hesitant_origin(stage.relay.addr, &stage.moved, EACH as usize);
        let ticket = stage.ticket(&stage.moved, Some(&stage.sealed), "x");
        let mut get = stage.start(&ticket, &["--quiet"]);
        wait_until("the next chunks", || stage.chunks_in("x.part") == round * EACH);
        get.kill().expect("it runs");
        get.wait().expect("it is gone");
        assert!(!stage.path("x").exists(), "never half");
    }
    stage.relay = RelayProcess::start(relay(), &[]);
    let _origin = Origin::start(stage.relay.addr, &stage.moved);
    let json = stage.get_sealed("x", &["--json"]).ok().json();
    stage.assert_whole("x");
    let delivered = stage.relay.metric("relay_chunks_delivered_total", &[]);
    assert_eq!(delivered, f64::from(CHUNKS - KILLS * EACH), "{json}");
    assert_eq!((&json["verified"], &json["sealed"]), (&true.into(), &true.into()));
    assert_eq!(json["plain_digest"], stage.sealed.plain.to_string());
    assert_eq!(json["id"], stage.moved.key().id.to_string());
}

#[test]
fn sealed_and_plain_gets_of_one_target_do_not_mix() {
    let stage = Stage::new(6, 12 * CHUNK_BYTES + 100);
    let plain = Arc::new(TestFile::of(stage.plain.clone(), CHUNK_SIZE_LOG2));
    let other = Arc::new(TestFile::new(99, stage.plain.len(), CHUNK_SIZE_LOG2));
    let files = [&stage.moved, &plain, &other];
    let _origins = files.map(|file| Origin::start(stage.relay.addr, file));
    let half = 5 * CHUNK_BYTES;
    // What lies there of which get, which ticket, and how much of it is right.
    for (name, there, sealed, resumed) in [
        // Both leave what people see on disk: one goes on where the other ended.
        ("plain-then-sealed", &stage.plain[..half], true, half),
        ("sealed-then-plain", &stage.plain[..half], false, half),
        // Nobody writes this, and nothing of it is taken.
        ("ciphertext-then-sealed", &stage.moved.bytes[..half], true, 0),
        ("ciphertext-then-plain", &stage.moved.bytes[..half], false, 0),
        ("another-then-sealed", &other.bytes[..half], true, 0),
    ] {
        for manifest in [&stage.moved, &plain, &other] {
            fs::write(stage.path(&format!("{name}.part")), there).expect("writable");
            let key = manifest.key();
            let digests = manifest.manifest.digests().iter().flat_map(|digest| digest.0);
            let mut list = b"PSPMANI1".to_vec();
            list.extend(key.id.0);
            list.extend(key.size_bytes.to_le_bytes());
            list.push(key.chunk_size_log2);
            list.extend(digests);
            fs::write(stage.path(&format!("{name}.part.manifest")), list).expect("writable");
            let ticket = match sealed {
                true => stage.ticket(&stage.moved, Some(&stage.sealed), name),
                false => stage.ticket(&plain, None, name),
            };
            let json = stage.get(&ticket, &["--json"]).ok().json();
            assert_eq!(json["resumed_bytes"], resumed, "{name}: {json}");
            stage.assert_whole(name);
            fs::remove_file(stage.path(name)).expect("it is there");
        }
    }
    // The sealed file as it is moved is a file like any other for those who want just that.
    let ticket = stage.ticket(&stage.moved, None, "moved");
    stage.get(&ticket, &[]).ok();
    assert!(fs::read(stage.path("moved")).expect("it is there") == stage.moved.bytes);
    // A file in its place is the ticket's, or is not, by what it opens to.
    fs::write(stage.path("y"), &stage.plain).expect("writable");
    let ran = stage.get_sealed("y", &[]).ok();
    assert!(ran.stderr.contains("here already, whole and verified"), "{ran:?}");
    assert!(ran.stdout.starts_with(&stage.sealed.plain.to_string()), "{ran:?}");
    fs::write(stage.path("y"), &stage.moved.bytes).expect("writable");
    stage.get_sealed("y", &[]).failed(1, &["is there already, and is another file"]);
}

#[test]
fn who_got_a_sealed_file_serves_others_sealed() {
    let stage = Stage::new(7, 15 * CHUNK_BYTES);
    let mut wire = crate::support::wire::Wire::join(
        stage.relay.addr,
        crate::support::wire::origin_hello(stage.moved.key()),
    )
    .expect("the origin may join");
    wire.send(&relay::protocol::Message::Ping { token: 1 }).expect("it is connected");
    let origin = Origin::serve(wire, &stage.moved);
    assert!(origin.is_serving());
    let first = stage.ticket(&stage.moved, Some(&stage.sealed), "first");
    let seeding = stage.start(&first, &["--seed-for", "1h", "--json"]);
    wait_until("the whole file", || stage.path("first").exists());
    // The relay forgets what it has, and the origin with it: only this peer is left.
    let mut stage = stage;
    let addr = stage.relay.addr;
    stage.relay.kill();
    wait_until("the origin to end", || !origin.is_serving());
    stage.relay = RelayProcess::start_on(relay(), addr, &[]);
    stage.get_sealed("second", &[]).ok();
    stage.assert_whole("second");
    // By hand as well: what it sends is the ciphertext.
    download(stage.relay.addr, &stage.moved);
    // A file that was there from the start is sealed for others as well.
    fs::rename(stage.path("second"), stage.path("third")).expect("it is there");
    rustix::process::kill_process(rustix::process::Pid::from_child(&seeding), Signal::INT)
        .expect("it runs");
    Ran::of(seeding).ok();
    let third = stage.ticket(&stage.moved, Some(&stage.sealed), "third");
    let seeding = stage.start(&third, &["--seed-for", "1h"]);
    stage.relay.wait_metric("relay_peers", &[], 1.0);
    download(stage.relay.addr, &stage.moved);
    rustix::process::kill_process(rustix::process::Pid::from_child(&seeding), Signal::INT)
        .expect("it runs");
    Ran::of(seeding).ok();
}

#[test]
fn a_file_is_sealed_as_its_ticket_says_whoever_shares_it() {
    let relay = RelayProcess::start(relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (path, state) = (dir.path().join("x"), dir.path().join("state"));
    fs::write(&path, TestFile::new(8, 300_000, 18).bytes).expect("writable");
    let (running, ticket) = share(&path, relay.addr, &state, &[]);
    end(running);
    let text = ticket.to_string();
    let copy = dir.path().join("copy");
    fs::copy(&path, &copy).expect("a file can be copied");
    let unused = dir.path().join("unused");
    let mut command = sealing(peer(&["share", "--ticket", &text]), &unused);
    let running = Running::start(command.arg(&copy));
    wait_until("the same ticket", || running.stdout() == format!("{text}\n"));
    assert!(!unused.exists(), "no secret is needed but the ticket's");
    let got = run(peer(&["get", &text, "-o"]).arg(dir.path().join("got")));
    assert_eq!(got.code, 0, "{}", got.stderr);
    end(running);
    let mut bytes = fs::read(&copy).expect("readable");
    bytes[77] ^= 1;
    fs::write(&copy, &bytes).expect("writable");
    let mut command = sealing(peer(&["share", "--ticket", &text]), &unused);
    let refused = run(command.arg(&copy));
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("its content differs"), "{}", refused.stderr);
}

#[test]
fn a_relay_seals_what_it_serves_and_logs_no_ticket() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (path, state) = (dir.path().join("x"), dir.path().join("state"));
    let plain = TestFile::new(9, 300_000, 18);
    fs::write(&path, &plain.bytes).expect("writable");
    let serve = ["--serve", path.to_str().expect("temporary paths are text")];
    let start = |more: &[&str]| {
        let mut command: Command = sealing(relay(), &state);
        command.env("RELAY_LOG", "trace");
        RelayProcess::start(command, &[&serve[..], more].concat())
    };
    let ticket_of = |relay: &RelayProcess| {
        let (ticket, _) = relay.tickets[0].split_once(' ').expect("a ticket and a path");
        ticket.to_owned()
    };
    let sealing = start(&[]);
    let text = ticket_of(&sealing);
    let ticket: Ticket = text.parse().expect("it is a ticket");
    let sealed = ticket.sealed.as_ref().expect("it is sealed");
    assert_eq!(sealed.plain, plain.key().id);
    let got = run(peer(&["get", &text, "-o"]).arg(dir.path().join("got")));
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert!(fs::read(dir.path().join("got")).expect("it is there") == plain.bytes);
    let log = sealing.log();
    assert!(log.contains("hashing and sealing"), "{log}");
    assert!(!log.contains("relay2") && !log.contains(&text[6..40]), "a ticket is in the log");
    let open = start(&["--plain"]);
    let ticket: Ticket = ticket_of(&open).parse().expect("it is a ticket");
    assert_eq!((ticket.key, ticket.sealed), (plain.key(), None));
    assert!(ticket_of(&open).starts_with("relay1"));
}

#[test]
fn a_sealed_file_that_changes_while_it_is_shared_is_never_served_under_the_same_key() {
    let relay = RelayProcess::start(relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("x");
    let mut bytes = TestFile::new(10, 700_000, 18).bytes;
    fs::write(&path, &bytes).expect("writable");
    let (running, ticket) = share(&path, relay.addr, &dir.path().join("state"), &[]);
    bytes[300_000] ^= 1;
    fs::write(&path, &bytes).expect("writable");
    let mut get = peer(&["get", &ticket.to_string(), "--timeout", "2s", "-o"]);
    let got = run(get.arg(dir.path().join("got")));
    assert_eq!(got.code, 1, "{}", got.stderr);
    assert!(!dir.path().join("got").exists());
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("Nothing wrong was sent"), "{}", ended.stderr);
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0);
}
