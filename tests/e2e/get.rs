//! `peer get` as a user meets it: through a real relay, from origins made by hand; interrupted,
//! misled, refused, and timed out.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use relay::{
    client::resume::{Hashing, chunks_present},
    protocol::{Message, RelayAddr, Ticket},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::Origin,
    in_background,
    process::{NO_STATE, RelayProcess, drivers, with_state},
    wait_until,
    wire::{Heard, Wire, origin_hello},
};

const CHUNK_SIZE_LOG2: u8 = 14;
pub(crate) const CHUNK_BYTES: usize = 1 << CHUNK_SIZE_LOG2;

/// A directory, a relay, and a file to share there.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) relay: RelayProcess,
    pub(crate) file: Arc<TestFile>,
}

impl Stage {
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        Self::with(seed, len, &[])
    }

    fn with(seed: u64, len: usize, args: &[&str]) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
            relay: RelayProcess::start(relay(), args),
            file: Arc::new(TestFile::new(seed, len, CHUNK_SIZE_LOG2)),
        }
    }

    /// With a file of these bytes.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { file: Arc::new(TestFile::of(bytes, CHUNK_SIZE_LOG2)), ..Self::new(0, 0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ticket(&self, name: &str) -> String {
        ticket(self.relay.addr, &self.file, name)
    }

    /// A get of the file as `name`, in the directory.
    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = crate::programs::peer(&[]);
        command.args(["get", &self.ticket(name)]).args(args).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Child {
        self.command(name, args).spawn().expect("the program can be started")
    }

    pub(crate) fn get(&self, name: &str, args: &[&str]) -> Ran {
        Ran::of(self.start(name, args))
    }

    /// Chunks that lie verified in a partial file.
    pub(crate) fn chunks_in(&self, name: &str) -> u32 {
        let Ok(part) = File::open(self.path(name)) else { return 0 };
        chunks_present(&part, &self.file.manifest, None, &Hashing::default())
            .map_or(0, |have| have.count())
    }

    pub(crate) fn assert_whole(&self, name: &str) {
        assert!(
            fs::read(self.path(name)).expect("it is there") == self.file.bytes,
            "{name} differs"
        );
        for left in [".part", ".part.manifest"] {
            assert!(!self.path(&format!("{name}{left}")).exists(), "{name}{left} is left over");
        }
    }
}

fn ticket(relay: SocketAddr, file: &TestFile, name: &str) -> String {
    let relay = RelayAddr::new(&relay.ip().to_string(), relay.port()).expect("an address");
    Ticket::new(relay, file.key(), name).expect("a short name").to_string()
}

/// How a get ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(child: Child) -> Self {
        Self::from(child.wait_with_output().expect("it ends"))
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It failed so, and says all of it.
    pub(crate) fn failed(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for text in says {
            assert!(self.stderr.contains(text), "{text} is not in {}", self.stderr);
        }
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("one JSON object")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// An origin that hands out so many chunks and then falls silent, until the relay or the test ends.
pub(crate) fn hesitant_origin(addr: SocketAddr, file: &Arc<TestFile>, chunks: usize) {
    let mut wire = Wire::join(addr, origin_hello(file.key())).expect("the origin may join");
    let file = Arc::clone(file);
    in_background(move || {
        let mut handed_out = 0;
        loop {
            let done = match wire.hear() {
                Ok(Heard::Control(Message::Fetch { fetch_id, chunk })) if handed_out < chunks => {
                    handed_out += 1;
                    wire.send_chunk(fetch_id, chunk, file.chunk(chunk))
                }
                Ok(Heard::Control(Message::ManifestRequest)) => {
                    file.manifest.parts(0).try_for_each(|part| wire.send(&part))
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

#[test]
fn an_interrupted_get_is_resumed_and_only_what_lacks_is_asked_for() {
    const CHUNKS: u32 = 40;
    const FIRST: u32 = 13;
    for driver in drivers(relay) {
        let mut stage = Stage::new(1, CHUNKS as usize * CHUNK_BYTES - 5);
        hesitant_origin(stage.relay.addr, &stage.file, FIRST as usize);
        let mut get = stage.start("x", &["--driver", driver]);
        wait_until("the first chunks", || stage.chunks_in("x.part") == FIRST);
        get.kill().expect("it runs");
        get.wait().expect("it is gone");
        assert!(!stage.path("x").exists(), "never half");
        // Another relay, so that its figures are of the second get alone.
        stage.relay = RelayProcess::start(relay(), &["--driver", driver]);
        let _origin = Origin::start(stage.relay.addr, &stage.file);
        let json = stage.get("x", &["--json", "--driver", driver]).ok().json();
        stage.assert_whole("x");
        let delivered = stage.relay.metric("relay_chunks_delivered_total", &[]);
        assert_eq!(delivered, f64::from(CHUNKS - FIRST), "{json}");
        // The short last chunk may have been among the first.
        let resumed = json["resumed_bytes"].as_u64().expect("a number");
        let most = u64::from(FIRST) * CHUNK_BYTES as u64;
        assert!(resumed == most || resumed == most - 5, "{json}");
        assert_eq!(json["verified"], true);
        assert_eq!(json["error"], serde_json::Value::Null);
        assert_eq!(json["path"], "x");
        assert_eq!(json["id"], stage.file.key().id.to_string());
    }
}

/// Name, what lies in its `.part`, what in its manifest, bytes that need not be fetched.
type Case<'a> = (&'a str, &'a [u8], Option<&'a [u8]>, u64);

#[test]
fn nothing_on_disk_misleads_a_get() {
    let stage = Stage::new(2, 20 * CHUNK_BYTES + 77);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    let whole = &stage.file.bytes;
    let other = TestFile::new(99, whole.len(), CHUNK_SIZE_LOG2);
    let mut damaged = whole.clone();
    damaged[5 * CHUNK_BYTES + 3] ^= 1;
    let longer = [&whole[..], b"and more"].concat();
    let resumed = |bytes: usize| bytes as u64;
    let cases: [Case<'_>; 7] = [
        ("damaged", &damaged, None, resumed(whole.len() - CHUNK_BYTES)),
        ("cut", &whole[..7 * CHUNK_BYTES + 1], None, resumed(7 * CHUNK_BYTES)),
        ("longer", &longer, None, resumed(whole.len())),
        (
            "foreign",
            &other.bytes,
            Some(b"PSPMANI1 and then no list of digests at all, but this"),
            0,
        ),
        ("nonsense", b"nonsense", Some(b"nonsense"), 0),
        ("empty", b"", Some(b""), 0),
        ("garbage-manifest", &whole[..2 * CHUNK_BYTES], Some(&[7; 5000]), resumed(2 * CHUNK_BYTES)),
    ];
    for (name, part, manifest, resumed) in cases {
        fs::write(stage.path(&format!("{name}.part")), part).expect("writable");
        if let Some(manifest) = manifest {
            fs::write(stage.path(&format!("{name}.part.manifest")), manifest).expect("writable");
        }
        let json = stage.get(name, &["--json"]).ok().json();
        assert_eq!(json["resumed_bytes"], resumed, "{name}: {json}");
        assert_eq!(json["received_bytes"], whole.len() as u64 - resumed, "{name}: {json}");
        stage.assert_whole(name);
    }
}

#[test]
fn what_is_there_already_is_replaced_only_by_force() {
    let stage = Stage::new(3, 3 * CHUNK_BYTES);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    fs::write(stage.path("x"), "precious").expect("writable");
    stage.get("x", &[]).failed(1, &["x is there already", "--force"]);
    fs::write(stage.path("x"), vec![1; stage.file.bytes.len()]).expect("writable");
    stage.get("x", &[]).failed(1, &["x is there already", "--force"]);
    stage.get("x", &["--force"]).ok();
    stage.assert_whole("x");
    let ran = stage.get("x", &[]).ok();
    assert!(ran.stderr.contains("here already, whole and verified"), "{ran:?}");
    let line = format!("{}  x\n", stage.file.key().id);
    assert_eq!(ran.stdout, line, "as b3sum prints it");
}

#[test]
fn a_target_is_a_name_or_a_directory_and_never_what_a_ticket_makes_of_it() {
    let stage = Stage::new(4, CHUNK_BYTES);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    for name in ["../x", "/tmp/x", "..", "", "a\nb", "-rf", "x.part"] {
        stage.get(name, &[]).failed(2, &["choose a name with -o"]);
    }
    fs::create_dir(stage.path("sub")).expect("writable");
    stage.get("x", &["-o", "sub"]).ok();
    assert!(fs::read(stage.path("sub/x")).expect("it is there") == stage.file.bytes);
    stage.get("../x", &["-o", "named", "--quiet"]).ok();
    stage.assert_whole("named");
    fs::create_dir(stage.path("dir")).expect("writable");
    stage.get("dir", &[]).failed(1, &["dir is a directory"]);
    stage.get("x", &["-o", "gone/"]).failed(2, &["there is no directory"]);
    stage.get("x", &["-o", "gone/x"]).failed(2, &["there is no directory"]);
    stage.get("x", &["-o", "/dev/null"]).failed(1, &["not a regular file"]);
    stage.get("x", &["-o", "-", "--json"]).failed(2, &["both want stdout"]);
    let left = fs::read_dir(stage.dir.path()).expect("readable").count();
    assert_eq!(left, 3, "sub, dir, named: nothing else was made");
}

#[test]
fn a_stream_comes_out_in_order_and_ends_when_nobody_reads_it() {
    for driver in drivers(relay) {
        let stage = Stage::new(5, 300 * CHUNK_BYTES + 1);
        let _origin = Origin::start(stage.relay.addr, &stage.file);
        let output = stage.command("../x", &["-o", "-", "--driver", driver]).output();
        let output = output.expect("it runs");
        assert!(output.stdout == stage.file.bytes, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
        let mut get = stage.start("x", &["-o", "-", "--driver", driver]);
        drop(get.stdout.take());
        Ran::of(get).failed(1, &["the program that read stdout has closed it"]);
        let left = fs::read_dir(stage.dir.path()).expect("readable").count();
        assert_eq!(left, 0, "nothing is kept of a stream");
    }
}

#[test]
fn files_without_chunks_and_with_one_are_got() {
    for len in [0, 1, CHUNK_BYTES] {
        let stage = Stage::new(6, len);
        let _origin = (len > 0).then(|| Origin::start(stage.relay.addr, &stage.file));
        stage.get("x", &[]).ok();
        stage.assert_whole("x");
        let streamed = stage.get("x", &["-o", "-", "--quiet"]).ok();
        assert_eq!(streamed.stderr, "");
    }
}

#[test]
fn who_waits_in_vain_is_told_for_what_and_what_is_kept() {
    let stage = Stage::new(7, 10 * CHUNK_BYTES);
    let nobody = stage.get("x", &["--timeout", "500ms"]);
    nobody.failed(1, &["nothing new has come for 0.5 s", "is anybody sharing the file?"]);
    let left = fs::read_dir(stage.dir.path()).expect("readable").count();
    assert_eq!(left, 0, "nothing came, so nothing is left");
    hesitant_origin(stage.relay.addr, &stage.file, 4);
    let silent = stage.get("x", &["--timeout", "1s", "--json"]);
    let json = silent.failed(1, &["the 6 chunks that are lacking", "are kept in x.part"]).json();
    assert_eq!(json["have_bytes"], 4 * CHUNK_BYTES, "{json}");
    assert_eq!(json["verified"], false);
    assert!(json["error"].as_str().is_some_and(|text| text.contains("run this again")), "{json}");
    assert_eq!(stage.chunks_in("x.part"), 4);
    let mut gone = stage;
    gone.relay.kill();
    let unreachable = gone.get("x", &["--timeout", "500ms"]);
    unreachable.failed(1, &["to the relay", "refused", "are kept in x.part"]);
    assert_eq!(gone.chunks_in("x.part"), 4, "what came before is kept, whatever fails");
    // The better part of something else, longer and shorter than what this get is after.
    for len in [20 * CHUNK_BYTES, CHUNK_BYTES] {
        let foreign = TestFile::new(98, len, CHUNK_SIZE_LOG2).bytes;
        fs::write(gone.path("y.part"), &foreign).expect("writable");
        gone.get("y", &["--timeout", "500ms"]).failed(1, &["to the relay", "refused"]);
        assert!(fs::read(gone.path("y.part")).expect("still there") == foreign, "nothing was lost");
    }
}

#[test]
fn a_relay_that_is_killed_and_comes_back_sends_nobody_a_chunk_twice() {
    const CHUNKS: u32 = 30;
    const FIRST: u32 = 9;
    let mut stage = Stage::new(8, CHUNKS as usize * CHUNK_BYTES);
    hesitant_origin(stage.relay.addr, &stage.file, FIRST as usize);
    let get = stage.start("x", &["--json"]);
    wait_until("the first chunks", || stage.chunks_in("x.part") == FIRST);
    let addr = stage.relay.addr;
    stage.relay.kill();
    stage.relay = RelayProcess::start_on(relay(), addr, &[]);
    let _origin = Origin::start(addr, &stage.file);
    let json = Ran::of(get).ok().json();
    stage.assert_whole("x");
    let delivered = stage.relay.metric("relay_chunks_delivered_total", &[]);
    assert_eq!(delivered, f64::from(CHUNKS - FIRST), "{json}");
}

#[test]
fn a_signal_ends_a_get_in_good_order_and_only_one_writes_at_a_time() {
    let stage = Stage::new(9, 10 * CHUNK_BYTES);
    hesitant_origin(stage.relay.addr, &stage.file, 3);
    let get = stage.start("x", &[]);
    wait_until("the first chunks", || stage.chunks_in("x.part") == 3);
    stage.get("x", &[]).failed(1, &["another get writes x.part right now"]);
    kill_process(Pid::from_child(&get), Signal::INT).expect("it runs");
    Ran::of(get).failed(1, &["interrupted", "are kept in x.part"]);
    assert_eq!(stage.chunks_in("x.part"), 3);
    assert!(stage.path("x.part.manifest").exists());
}

#[test]
fn a_file_that_may_not_grow_so_large_is_an_error_and_not_a_death() {
    let stage = Stage::new(10, 64 * CHUNK_BYTES);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 64; exec \"$0\" get \"$1\""]);
    limited.arg(env!("CARGO_BIN_EXE_peer")).arg(stage.ticket("x")).current_dir(stage.dir.path());
    let output = with_state(&mut limited, NO_STATE).output().expect("there is a shell");
    Ran::from(output).failed(1, &["could not make x.part 1 MiB long", "File too large", "-o"]);
    let left = fs::read_dir(stage.dir.path()).expect("readable").count();
    assert_eq!(left, 0, "neither the file nor a part of it");
}

#[test]
fn several_gets_of_one_file_under_several_names_run_at_once() {
    let stage = Stage::new(11, 50 * CHUNK_BYTES);
    let _origin = Origin::start(stage.relay.addr, &stage.file);
    let names = ["a", "b", "c", "d"];
    let gets: Vec<Child> = names.iter().map(|name| stage.start(name, &[])).collect();
    for get in gets {
        Ran::of(get).ok();
    }
    names.iter().for_each(|name| stage.assert_whole(name));
    let seeding = stage.start("e", &["--seed-for", "1h"]);
    wait_until("the whole file", || stage.path("e").exists());
    kill_process(Pid::from_child(&seeding), Signal::TERM).expect("it still serves");
    Ran::of(seeding).ok();
    assert!(Path::new(&stage.path("e")).is_file());
}
