//! What a relay and the path learn of a sealed file: its memory while it runs, and all that passes, are searched for
//! the content, the name and the key. A plain share, a label, and the memory of the one who shares show that the
//! search finds what is there.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::mpsc,
};

use relay::protocol::{Ticket, seal::FileKey};

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::{
    in_background,
    process::{RelayProcess, run},
    proxy::{Handlers, Proxy},
};

/// Stands in the file again and again, at every kind of offset.
const MARKER: &[u8] = b"<the content of a file that only its ticket opens>";

/// The file's name.
const NAME: &str = "name-that-only-tickets-tell.bin";

const FILE_BYTES: usize = 3_000_001;

/// A share asks the relay before it shares; then it shares, and the file is got.
const CONNECTIONS: usize = 3;

/// Bytes of memory that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Longest thing that is searched for: what lies across two reads is found, too.
const NEEDLE_BYTES_MAX: usize = 64;

/// Whether the memory of a process holds this.
fn memory_holds(pid: u32, needle: &[u8]) -> bool {
    assert!(needle.len() <= NEEDLE_BYTES_MAX, "a read overlaps the next by so much");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("it is ours");
    let mut buffer = vec![0; READ_BYTES + NEEDLE_BYTES_MAX];
    let areas = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        rest.starts_with('r').then(|| address(start)..address(end))
    });
    areas.into_iter().any(|area| {
        area.clone().step_by(READ_BYTES).any(|at| {
            let left = usize::try_from(area.end - at).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            // Some areas are the kernel's, and can't be read.
            let count = memory.read_at(&mut buffer[..wanted], at).unwrap_or(0);
            holds(&buffer[..count], needle)
        })
    })
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    // Most bytes are not the first one of it.
    let mut starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == needle[0]);
    starts.any(|(at, _)| bytes[at..].starts_with(needle))
}

/// All that a share and a get by its ticket leave: in the memory of the relay, in what it was told, and on the wire.
struct Left {
    relay: RelayProcess,
    /// What passed between peers and relay, byte by byte.
    wire: Vec<u8>,
    /// What the relay was told and said: the same, with TLS taken off.
    told: Vec<u8>,
    ticket: Ticket,
    /// Whether the memory of the one who shared holds the key.
    sharer_has_key: bool,
}

impl Left {
    /// `more`: what the share is told beside.
    fn by(dir: &Path, more: &[&str]) -> Self {
        let (path, state) = (dir.join(NAME), dir.join("state"));
        let content: Vec<u8> = MARKER.iter().copied().cycle().take(FILE_BYTES).collect();
        fs::write(&path, &content).expect("a file can be written");
        let relay = RelayProcess::start(relay(), &[]);
        let (tell, told) = mpsc::channel::<Vec<u8>>();
        let proxy = Proxy::start(relay.addr, move || {
            let (up, down) = (tell.clone(), tell.clone());
            Handlers {
                up: Box::new(move |frame| up.send(frame.bytes().to_vec()).unwrap_or(())),
                down: Box::new(move |frame| down.send(frame.bytes().to_vec()).unwrap_or(())),
            }
        });
        let (tap, captured) = tap(proxy.addr);
        let (sharing, ticket) = share(&path, tap, &state, more);
        let got = run(peer(&["get", &ticket.to_string(), "-o"]).arg(dir.join("got")));
        assert_eq!(got.code, 0, "{}", got.stderr);
        assert!(fs::read(dir.join("got")).expect("it is there") == content);
        let sharer_has_key = key_of(&ticket).is_some_and(|key| memory_holds(sharing.id(), &key));
        end(sharing);
        drop(proxy);
        let told: Vec<u8> = told.try_iter().flatten().collect();
        let wire: Vec<u8> = captured.try_iter().flatten().collect();
        for passed in [&told, &wire] {
            assert!(passed.len() > 2 * FILE_BYTES, "all of it passed, up and down");
        }
        Self { relay, wire, told, ticket, sharer_has_key }
    }

    /// Whether one that listens on the path learnt this.
    fn wire_holds(&self, needle: &[u8]) -> bool {
        holds(&self.wire, needle)
    }

    /// Whether the relay learnt this.
    fn relay_holds(&self, needle: &[u8]) -> bool {
        holds(&self.told, needle) | memory_holds(self.relay.id(), needle)
    }
}

/// A place on the path that sees all bytes and changes none: where to connect instead, and what passes in each
/// direction of each connection, once that has ended.
fn tap(to: SocketAddr) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it has an address");
    let (tell, captured) = mpsc::channel();
    in_background(move || {
        // A share and a get.
        for near in listener.incoming().flatten().take(CONNECTIONS) {
            let far = TcpStream::connect(to).expect("it is there");
            let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor can be copied");
            for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
                let tell = tell.clone();
                in_background(move || capture(from, to, &tell));
            }
        }
    });
    (addr, captured)
}

fn capture(mut from: TcpStream, mut to: TcpStream, tell: &mpsc::Sender<Vec<u8>>) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // One that has closed takes nothing more.
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
    tell.send(all).ok();
}

fn key_of(ticket: &Ticket) -> Option<[u8; 32]> {
    let sealed = ticket.sealed.as_ref()?;
    Some(FileKey::derive(&sealed.secret, sealed.plain, ticket.key.size_bytes).0)
}

#[test]
fn the_relay_and_the_path_learn_neither_content_nor_name_nor_key() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let left = Left::by(dir.path(), &[]);
    let sealed = left.ticket.sealed.clone().expect("it is sealed");
    let key = key_of(&left.ticket).expect("it is sealed");
    for (what, secret) in [
        ("content", MARKER),
        ("name", NAME.as_bytes()),
        ("what opens it", &sealed.secret.0),
        ("key", &key),
        ("digest of the content", &sealed.plain.0),
    ] {
        assert!(!left.relay_holds(secret), "the relay has learnt: {what}");
        assert!(!left.wire_holds(secret), "the path has learnt: {what}");
    }
    // What the relay does learn, the path does not, and the one who shared has the key.
    let id = left.ticket.key.id.0;
    assert!(holds(&left.told, &id) && memory_holds(left.relay.id(), &id), "the id of the swarm");
    assert!(!left.wire_holds(&id));
    assert!(left.sharer_has_key, "a key that is in memory is found");
}

#[test]
fn a_plain_share_is_read_by_both_and_a_label_by_the_relay() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let left = Left::by(dir.path(), &["--plain", "--label", NAME]);
    assert_eq!(left.ticket.sealed, None);
    for told in [MARKER, NAME.as_bytes()] {
        assert!(holds(&left.told, told) && memory_holds(left.relay.id(), told));
    }
    assert!(left.wire_holds(MARKER), "data is not under TLS");
    assert!(!left.wire_holds(NAME.as_bytes()), "what is said is");
}
