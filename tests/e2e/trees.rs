//! `peer get` and `peer list` of directories, as a user meets them: through a real relay, from bundles made by hand.

mod hostile;
mod interrupted;
mod part;
mod sparse;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use relay::protocol::{Message, RelayAddr, Sealed, ShareSecret, Ticket, TicketKind, digest_file};

use super::get::Ran;
use crate::programs::{peer, relay};
use crate::support::{
    bundle::{Node, TestTree},
    file::TestFile,
    honest::Origin,
    in_background,
    process::{RelayProcess, drivers},
    wire::{Heard, Wire, origin_hello},
};

const CHUNK_SIZE_LOG2: u8 = 12;
const CHUNK_BYTES: usize = 1 << CHUNK_SIZE_LOG2;

/// A directory, a relay, and a bundle to get there.
struct Stage {
    dir: tempfile::TempDir,
    relay: RelayProcess,
    tree: TestTree,
    file: Arc<TestFile>,
    sealed: Option<Sealed>,
}

impl Stage {
    fn new(tree: TestTree) -> Self {
        let file = Arc::new(tree.file(CHUNK_SIZE_LOG2));
        Self::with(tree, file, None)
    }

    fn sealed(tree: TestTree) -> Self {
        let mut bytes = tree.bytes();
        let sealed = Sealed { secret: ShareSecret([7; 16]), plain: digest_file(&bytes) };
        sealed.cipher(bytes.len() as u64).apply(0, &mut bytes);
        Self::with(tree, Arc::new(TestFile::of(bytes, CHUNK_SIZE_LOG2)), Some(sealed))
    }

    /// Of these bytes, which need be no bundle.
    fn of_bytes(bytes: Vec<u8>) -> Self {
        let file = Arc::new(TestFile::of(bytes, CHUNK_SIZE_LOG2));
        Self::with(TestTree::default(), file, None)
    }

    fn with(tree: TestTree, file: Arc<TestFile>, sealed: Option<Sealed>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self { dir, relay: RelayProcess::start(relay(), &[]), tree, file, sealed }
    }

    fn origin(&self) -> Origin {
        Origin::start(self.relay.addr, &self.file)
    }

    /// An origin that hands out only the first so many chunks, whatever it claims.
    fn origin_of(&self, chunks: usize) {
        let addr = self.relay.addr;
        let mut wire = Wire::join(addr, origin_hello(self.file.key())).expect("it may join");
        let file = Arc::clone(&self.file);
        in_background(move || {
            loop {
                let done = match wire.hear() {
                    Ok(Heard::Control(Message::Fetch { fetch_id, chunk })) => {
                        match (chunk as usize) < chunks {
                            true => wire.send_chunk(fetch_id, chunk, file.chunk(chunk)),
                            false => wire.send(&Message::FetchRefused { fetch_id }),
                        }
                    }
                    Ok(Heard::Control(Message::ManifestRequest)) => {
                        file.manifest.parts(0).try_for_each(|part| wire.send(&part))
                    }
                    Ok(Heard::Control(Message::Ping { token })) => {
                        wire.send(&Message::Pong { token })
                    }
                    Ok(Heard::Closed) | Err(_) => return,
                    Ok(_) => Ok(()),
                };
                if done.is_err() {
                    return;
                }
            }
        });
    }

    /// Chunks that hold the index.
    fn index_chunks(&self) -> usize {
        self.tree.index().header().len().div_ceil(CHUNK_BYTES)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ticket(&self, name: &str) -> String {
        let addr = self.relay.addr;
        let relay = RelayAddr::new(&addr.ip().to_string(), addr.port()).expect("an address");
        let ticket = Ticket::new(relay, self.file.key(), name).expect("a short name");
        // A sealed ticket needs the relay's pin, as `peer share` makes them.
        let pin = self.sealed.is_some().then_some(self.relay.pin);
        let ticket = ticket.with_sealed(self.sealed.clone()).with_pin(pin);
        ticket.with_kind(TicketKind::Bundle).to_string()
    }

    fn command(&self, what: &str, name: &str, args: &[&str]) -> Command {
        let mut command = peer(&[what]);
        command.arg(self.ticket(name)).args(args).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, name: &str, args: &[&str]) -> Child {
        self.command("get", name, args).spawn().expect("the program can be started")
    }

    fn get(&self, name: &str, args: &[&str]) -> Ran {
        Ran::of(self.start(name, args))
    }

    fn assert_whole(&self, name: &str) {
        self.tree.assert_at(&self.path(name));
        self.assert_nothing_beside(name);
    }

    fn assert_nothing_beside(&self, name: &str) {
        for left in [".part", ".part.manifest", ".part.index"] {
            assert!(!self.path(&format!("{name}{left}")).exists(), "{name}{left} is left over");
        }
    }

    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("readable"))).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_directory_arrives_as_it_is() {
    for driver in drivers(relay) {
        for stage in [Stage::new(TestTree::usual()), Stage::sealed(TestTree::usual())] {
            let _origin = stage.origin();
            let ran = stage.get("x", &["--driver", driver]).ok();
            assert_eq!(ran.stdout, "x\n");
            assert!(ran.stderr.contains("done: 211 files ("), "{ran:?}");
            stage.assert_whole("x");
            assert_eq!(stage.names(), ["x"]);
            let json = stage.get("y", &["--json", "--driver", driver]).ok().json();
            for (key, count) in [("done_files", 211), ("total_files", 211), ("links", 4)] {
                assert_eq!(json[key], count, "{json}");
            }
            assert_eq!(json["bundle"], true);
            assert_eq!(json["have_bytes"], stage.file.bytes.len());
            stage.assert_whole("y");
        }
    }
}

#[test]
fn an_empty_directory_and_one_of_empty_files_arrive() {
    let none = TestTree::default();
    let empty = TestTree::default().with_file("a", 0).with("d/e", Node::Directory);
    for tree in [none, empty] {
        let stage = Stage::new(tree);
        let _origin = stage.origin();
        stage.get("x", &[]).ok();
        stage.assert_whole("x");
    }
}

#[test]
fn modes_and_times_come_with_a_directory_that_keeps_them() {
    for mode in [0o640, 0o711] {
        let stage = Stage::new(TestTree::usual().preserving(mode, -86_400));
        let _origin = stage.origin();
        stage.get("x", &[]).ok();
        stage.assert_whole("x");
    }
}

#[test]
fn what_is_there_already_is_kept_served_or_replaced() {
    let stage = Stage::new(TestTree::usual());
    let _origin = stage.origin();
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(outside.path().join("precious"), "precious").expect("writable");
    // Another directory, with a link out of it.
    let other = TestTree::default().with_file("other/file", 10);
    other.write(&stage.path("x"));
    std::os::unix::fs::symlink(outside.path(), stage.path("x/away")).expect("writable");
    // It may not be written, as of a tree that keeps its modes.
    let allow = |path: &str, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(stage.path(path), mode).expect("it is ours");
    };
    allow("x/other", 0o555);
    let before = TestTree::read(&stage.path("x"));
    stage.get("x", &[]).failed(1, &["x is there already, and is another directory", "--force"]);
    before.assert_at(&stage.path("x"));
    stage.get("x", &["--force"]).ok();
    stage.assert_whole("x");
    assert_eq!(names(outside.path()), ["precious"], "no link was followed");
    let ran = stage.get("x", &[]).ok();
    assert!(ran.stderr.contains("x is here already, whole and verified"), "{ran:?}");
    assert!(!ran.stderr.contains("may be executed"), "{ran:?}");
    allow("x/large", 0o755);
    let ran = stage.get("x", &[]).ok();
    assert!(ran.stderr.contains("differs from the ticket's for 1 file, such as large"), "{ran:?}");
    // The same names and sizes, but a byte.
    let mut large = fs::read(stage.path("x/large")).expect("readable");
    large[200_000] ^= 1;
    fs::write(stage.path("x/large"), &large).expect("writable");
    stage.get("x", &[]).failed(1, &["x is there already, and is another directory"]);
    stage.get("x", &["--force"]).ok();
    // One file more, one less, one longer.
    fs::write(stage.path("x/more"), "").expect("writable");
    stage.get("x", &[]).failed(1, &["another directory"]);
    fs::remove_file(stage.path("x/more")).expect("there");
    fs::remove_file(stage.path("x/bin/nowhere")).expect("there");
    stage.get("x", &[]).failed(1, &["another directory"]);
    // A file where a directory is to be, and the reverse.
    fs::write(stage.path("y"), "precious").expect("writable");
    for args in [&[][..], &["--force"]] {
        stage.get("y", args).failed(1, &["y is not a directory, and the ticket is of one"]);
    }
    assert_eq!(fs::read(stage.path("y")).expect("there"), b"precious");
    assert_eq!(stage.names(), ["x", "y"]);
}

#[test]
fn only_what_is_meant_is_got() {
    let tree = TestTree::usual();
    let stage = Stage::new(tree.clone());
    let _origin = stage.origin();
    let meant = |path: &[u8]| path.starts_with(b"bin/") || path == b"many/7";
    let json = stage.get("x", &["--only", "bin", "--only", "many/7", "--json"]).ok().json();
    tree.only(meant).assert_at(&stage.path("x"));
    stage.assert_nothing_beside("x");
    assert_eq!((&json["done_files"], &json["total_files"]), (&2.into(), &2.into()), "{json}");
    // Of the index, and of the two files.
    let delivered = stage.relay.metric("relay_chunks_delivered_total", &[]);
    let all = f64::from(stage.file.key().chunk_count());
    assert!(delivered < all / 3.0, "{delivered} of {all} chunks");
    stage.get("y", &["--only", "gone/**"]).failed(1, &["--only", "peer list"]);
    stage.get("y", &["--only", "a//b"]).failed(2, &["two slashes"]);
    stage.get("x", &["--only", "bin"]).failed(1, &["x is there already", "--force"]);
    assert_eq!(stage.names(), ["x"]);
    // What was got in part is got as a whole, from scratch.
    stage.get("x", &["--force"]).ok();
    stage.assert_whole("x");
}

#[test]
fn what_is_in_a_directory_is_listed_without_getting_it() {
    let stage = Stage::new(TestTree::usual());
    let _origin = stage.origin();
    let list = |args: &[&str]| {
        Ran::from(stage.command("list", "x", args).output().expect("the program can be started"))
    };
    let ran = list(&[]).ok();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    for line in [
        "- 300000 large",
        "d      - empty directory/",
        "x     23 bin/run",
        "l      - bin/up -> ../large",
        "-     55 not text \\xff\\xfe/\\xe9",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("211 files, "), "{ran:?}");
    assert!(ran.stderr.contains(" directories, 4 links: "), "{ran:?}");
    let only = list(&["--only", "many/1?", "--quiet"]).ok();
    assert_eq!((only.stdout.lines().count(), only.stderr.as_str()), (11, ""), "and its directory");
    let json = list(&["--json", "--only", "bin/*"]).ok();
    let objects: Vec<serde_json::Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(objects.len(), 5);
    assert_eq!(objects[0]["kind"], "directory");
    assert_eq!(objects[3]["target"], serde_json::Value::Null);
    assert_eq!((&objects[3]["executable"], &objects[3]["size_bytes"]), (&true.into(), &23.into()));
    list(&["--only", "gone"]).failed(1, &["peer list shows what there is"]);
    assert_eq!(stage.names(), Vec::<String>::new());
    // A single file needs no relay.
    let ticket: Ticket = stage.ticket("x.iso").parse().expect("a ticket");
    let single = ticket.with_kind(TicketKind::Executable).to_string();
    let run = |args: &[&str]| Ran::from(peer(args).output().expect("the program can be started"));
    let line = format!("x {} x.iso\n", stage.file.bytes.len());
    assert_eq!(run(&["list", &single]).ok().stdout, line);
    for command in ["list", "get"] {
        run(&[command, &single, "--only", "x"]).failed(2, &["--only", "single file"]);
    }
}

#[test]
fn a_directory_goes_to_another_program_as_a_tar() {
    let long = format!("{}/{}", "long ".repeat(30), "name ".repeat(40));
    let target = format!("{}/{}", "a".repeat(100), "b".repeat(100));
    let usual = TestTree::usual().with_file(&long, 999).with("far", Node::Link(target.into()));
    for (stage, only) in [
        (Stage::new(usual.clone()), None),
        (Stage::sealed(usual.clone()), None),
        (Stage::new(usual.clone()), Some("many/1*")),
        (Stage::new(usual.clone().preserving(0o755, 1_234_567_890)), None),
        (Stage::new(TestTree::default()), None),
    ] {
        let _origin = stage.origin();
        let mut args = vec!["-o", "-"];
        args.extend(only.into_iter().flat_map(|only| ["--only", only]));
        let output = stage.command("get", "../x", &args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stage.names(), Vec::<String>::new(), "nothing is kept of a stream");
        let (tar, out) = (stage.path("x.tar"), stage.path("out"));
        fs::write(&tar, &output.stdout).expect("writable");
        fs::create_dir(&out).expect("writable");
        let mut extract = Command::new("tar");
        extract.args(["--same-permissions", "-xf"]).arg(&tar).arg("-C").arg(&out);
        let extracted = extract.output().expect("there is a tar");
        assert!(extracted.status.success() && extracted.stderr.is_empty(), "{extracted:?}");
        match only {
            Some(_) => stage.tree.only(|path| path.starts_with(b"many/1")).assert_at(&out),
            None => stage.tree.assert_extracted_at(&out),
        }
        let again = stage.command("get", "../x", &args).output().expect("it runs");
        assert!(again.stdout == output.stdout, "the same bytes each time");
    }
}

#[test]
fn the_help_of_a_get_fits_two_screens() {
    let help = Ran::from(peer(&["get", "--help"]).output().expect("it runs")).ok();
    assert!(help.stdout.lines().count() <= 100, "{} lines", help.stdout.lines().count());
    assert!(help.stdout.contains("--only <GLOB>") && help.stdout.contains("--no-sparse"));
}
