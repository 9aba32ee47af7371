//! Bundles that break a rule, made by hand as bytes: each is refused with the entry's name, and nothing is written.

use std::fs;

use super::{CHUNK_BYTES, Stage};
use crate::programs::{peer, relay};
use crate::support::{
    bundle::TestTree,
    process::{RelayProcess, run},
};

/// A fault, entries that have it, and words that a refusal says.
type Case<'a> = (&'a str, Vec<Vec<u8>>, &'a [&'a str]);

/// A number of an index.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
    bytes
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [number(bytes.len() as u64), bytes.to_vec()].concat()
}

fn directory(path: &[u8]) -> Vec<u8> {
    [bytes(path), vec![0]].concat()
}

fn file(path: &[u8], size_bytes: u64) -> Vec<u8> {
    [bytes(path), vec![1], number(size_bytes), vec![0]].concat()
}

fn link(path: &[u8], target: &[u8]) -> Vec<u8> {
    [bytes(path), vec![2], bytes(target)].concat()
}

/// A bundle with these entries, and this content behind the index.
fn bundle(entries: &[Vec<u8>], content: &[u8]) -> Vec<u8> {
    let mut index = vec![0];
    index.extend(number(entries.len() as u64));
    index.extend(entries.concat());
    with_index(&index, content)
}

fn with_index(index: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(index.len()).expect("a short one").to_le_bytes();
    [b"PSPBUNDL\x01", &length[..], index, content].concat()
}

/// It is refused in these words, by each way of getting it, and nothing is there then but what was.
fn assert_refused(what: &str, bytes: Vec<u8>, words: &[&str]) {
    println!("{what}");
    let stage = Stage::of_bytes(bytes);
    let _origin = stage.origin();
    fs::write(stage.path("precious"), "precious").expect("writable");
    for args in [&[][..], &["--force"], &["--only", "**/*"], &["-o", "-"]] {
        let ran = stage.get("x", args).failed(1, words);
        assert!(ran.stdout.is_empty(), "{what}: {ran:?}");
        assert!(!ran.stderr.trim_end().chars().any(|c| c.is_control() && c != '\n'), "{ran:?}");
    }
    stage.get("y", &[]).failed(1, &["nothing was written"]);
    assert_eq!(stage.names(), ["precious"], "{what}");
    assert_eq!(fs::read(stage.path("precious")).expect("there"), b"precious");
}

#[test]
fn paths_that_may_not_be_are_refused_before_a_byte_is_written() {
    let deep = [b"d"; 65].map(|name| &name[..]).join(&b'/');
    let above: Vec<Vec<u8>> = (1..65).map(|levels| directory(&deep[..levels * 2 - 1])).collect();
    let long_path = [&b"p/".repeat(60)[..], &[b'x'; 4000]].concat();
    let cases: [Case<'_>; 15] = [
        ("up", vec![directory(b"a"), file(b"a/../../x", 0)], &["\"a/../../x\"", "\"..\""]),
        ("only up", vec![file(b"..", 0)], &["\"..\""]),
        ("here", vec![file(b"./x", 0)], &["\"./x\"", "\".\""]),
        ("absolute", vec![file(b"/etc/passwd", 0)], &["\"/etc/passwd\"", "absolute"]),
        ("nothing", vec![file(b"", 0)], &["names nothing"]),
        ("two slashes", vec![directory(b"a"), file(b"a//x", 0)], &["\"a//x\"", "empty component"]),
        ("twice", vec![file(b"x", 0), file(b"x", 0)], &["\"x\"", "twice"]),
        ("unsorted", vec![file(b"y", 0), file(b"x", 0)], &["\"x\"", "sorts after"]),
        ("terminal", vec![file(b"a\x1b[2Jb", 0)], &["a\\u{1b}[2Jb", "control character"]),
        ("line", vec![file(b"a\nb", 0)], &["control character"]),
        ("zero", vec![file(b"a\0b", 0)], &["control character"]),
        ("no parent", vec![file(b"a/x", 0)], &["\"a/x\"", "does not list"]),
        ("below a file", vec![file(b"a", 0), file(b"a/x", 0)], &["\"a/x\"", "below a file"]),
        ("long name", vec![file(&[b'x'; 256], 0)], &["256 bytes", "255"]),
        ("long path", vec![file(&long_path, 0)], &["4120 bytes", "4096"]),
    ];
    for (what, entries, words) in cases {
        assert_refused(what, bundle(&entries, b""), words);
    }
    let too_deep = [above, vec![file(&deep, 0)]].concat();
    assert_refused("deep", bundle(&too_deep, b""), &["65 levels", "64"]);
}

#[test]
fn links_that_could_lead_elsewhere_are_refused_before_a_byte_is_written() {
    let cases: [Case<'_>; 8] = [
        ("absolute", vec![link(b"l", b"/etc")], &["\"l\" to \"/etc\"", "absolute"]),
        ("out", vec![link(b"l", b"../x")], &["\"l\" to \"../x\"", "leads out"]),
        ("out by a detour", vec![directory(b"d"), link(b"d/l", b"../d/../../x")], &["leads out"]),
        ("nowhere", vec![link(b"l", b"")], &["leads nowhere"]),
        ("control", vec![link(b"l", b"a\x07")], &["control character in its target"]),
        (
            "through another",
            vec![directory(b"d"), link(b"d/m", b"."), link(b"l", b"d/m/x")],
            &["through the symbolic link"],
        ),
        ("up from nothing", vec![link(b"l", b"gone/../x")], &["goes up from \"gone\""]),
        ("below a link", vec![link(b"l", b"d"), file(b"l/x", 0)], &["\"l/x\"", "below a symbolic"]),
    ];
    for (what, entries, words) in cases {
        assert_refused(what, bundle(&entries, b""), words);
    }
}

#[test]
fn an_index_that_lies_or_is_none_is_refused_before_a_byte_is_written() {
    let good = bundle(&[file(b"x", 5)], b"12345");
    let header = |length: u32| [b"PSPBUNDL\x01", &length.to_le_bytes()[..]].concat();
    let mut newer = good.clone();
    newer[8] = 2;
    let index_alone = |index: &[u8]| with_index(index, b"");
    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        ("no bundle", vec![7; 3 * CHUNK_BYTES], &["this is no bundle"]),
        ("shorter than any", b"PSPB".to_vec(), &["4 bytes"]),
        ("newer", newer, &["version 2"]),
        ("index behind the end", [header(9000), vec![0; 5000]].concat(), &["5013 bytes", "9013"]),
        ("index too long", [header(u32::MAX), vec![0; 50]].concat(), &["4294967295 bytes"]),
        ("index cut", index_alone(&[&[0, 1][..], &file(b"x", 0)[..3]].concat()), &["entry 0"]),
        (
            "index with a rest",
            index_alone(&[&[0, 1][..], &file(b"x", 0), b"?"].concat()),
            &["belong to no entry"],
        ),
        (
            "more entries than there are",
            index_alone(&[&[0, 9][..], &file(b"x", 0)].concat()),
            &["entry 1"],
        ),
        ("not the shortest", index_alone(&[0, 1, 0x81, 0, b'x', 0]), &["shortest form"]),
        ("too many", index_alone(&[&[0][..], &number(1 << 30)].concat()), &["1073741824 entries"]),
        ("sizes too small", [&good[..], b"6"].concat(), &["by its index it would have"]),
        ("sizes too large", good[..good.len() - 1].to_vec(), &["by its index it would have"]),
    ];
    for (what, bytes, words) in cases {
        assert_refused(what, bytes, words);
    }
    let huge = [file(b"x", u64::MAX), file(b"y", u64::MAX)];
    assert_refused("sizes that overflow", bundle(&huge, b"1"), &["would have more than"]);
}

#[test]
fn an_index_of_many_chunks_is_read_before_anything_is_written() {
    // 40,000 entries: an index of many chunks, of which the last entry breaks a rule.
    let mut entries: Vec<Vec<u8>> =
        (0..40_000).map(|at| file(format!("{at:05}").as_bytes(), 0)).collect();
    entries.push(file(b"z/../x", 0));
    assert_refused("a late fault", bundle(&entries, b""), &["\"z/../x\"", "\"..\""]);
    entries.pop();
    let stage = Stage::of_bytes(bundle(&entries, b""));
    let _origin = stage.origin();
    stage.get("x", &["--only", "0000?"]).ok();
    assert_eq!(super::names(&stage.path("x")).len(), 10);
}

#[test]
fn a_wish_to_end_is_heard_while_an_index_is_read() {
    // A reader of the worst index that may be takes long: it is not waited for.
    let mut entries = Vec::new();
    let mut path = Vec::new();
    for _ in 0..63 {
        path.extend_from_slice(b"d");
        entries.push(directory(&path));
        path.push(b'/');
    }
    entries.extend(
        (0..60_000).map(|at| file(&[&path[..], format!("{at:06}").as_bytes()].concat(), 0)),
    );
    let stage = Stage::of_bytes(bundle(&entries, b""));
    let _origin = stage.origin();
    let mut patterns = Vec::new();
    for letter in b'a'..=b'z' {
        patterns.extend([
            "--only".to_owned(),
            format!("{}x{}", "**/*d*/".repeat(400), char::from(letter)),
        ]);
    }
    let args: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let get = stage.start("x", &args);
    // All of it is at the relay, and the get has gone from there.
    let chunks = f64::from(stage.file.key().chunk_count());
    crate::support::wait_until("the index", || {
        stage.relay.metric("relay_chunks_fetched_total", &[]) >= chunks
            && stage.relay.metric("relay_peers", &[]) < 2.0
    });
    let pid = rustix::process::Pid::from_child(&get);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    super::Ran::of(get).failed(1, &["interrupted"]);
    assert_eq!(stage.names(), Vec::<String>::new());
}

/// Whether names that differ only in case are one there. Made only where this test may mount a file system that
/// can be told so.
#[test]
fn twins_by_case_are_refused_where_case_does_not_count() {
    let stage = Stage::new(TestTree::default().with_file("README", 3).with_file("readme", 4));
    let _origin = stage.origin();
    stage.get("x", &[]).ok();
    stage.assert_whole("x");
    let mounted = stage.path("mounted");
    fs::create_dir(&mounted).expect("writable");
    let at = mounted.to_string_lossy().into_owned();
    let Some(_mount) = Mount::new(&at, &["-t", "tmpfs", "-o", "casefold,size=1m", "tmpfs"]) else {
        println!("NOT CHECKED: no file system that ignores case can be mounted here");
        return;
    };
    let folded = format!("{at}/folded");
    fs::create_dir(&folded).expect("writable");
    let told = std::process::Command::new("chattr").args(["+F", &folded]).status();
    if !told.is_ok_and(|status| status.success()) {
        println!("NOT CHECKED: no directory can be told to ignore case here");
        return;
    }
    let args = ["-o", &*folded];
    stage.get("x", &args).failed(1, &["\"README\" and \"readme\"", "case", "-o", "--only"]);
    assert_eq!(super::names(folded.as_ref()), Vec::<String>::new());
    stage.get("x", &["-o", &folded, "--only", "README"]).ok();
    assert_eq!(super::names(format!("{folded}/x").as_ref()), ["README"]);
}

/// A file system that is unmounted in the end.
pub(super) struct Mount(String);

impl Mount {
    pub(super) fn new(at: &str, args: &[&str]) -> Option<Self> {
        let mounted = std::process::Command::new("mount").args(args).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        std::process::Command::new("umount").args(["-l", &self.0]).status().ok();
    }
}

#[test]
fn a_ticket_of_a_file_that_calls_itself_a_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let relay = RelayProcess::start(relay(), &[]);
    fs::write(dir.path().join("song"), vec![7; 100_000]).expect("writable");
    let share = crate::support::process::Running::start(
        peer(&["share", "song", "--relay", &relay.addr.to_string()]).current_dir(dir.path()),
    );
    let ticket =
        crate::support::wait_for("the ticket", || share.stdout().lines().next().map(str::to_owned));
    let ticket = crate::support::bundle::of_bundle(&ticket);
    let ran = run(peer(&["get", &ticket, "-o", "x"]).current_dir(dir.path()));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("this is no bundle"), "{}", ran.stderr);
    assert_eq!(super::names(dir.path()), ["song"]);
}
