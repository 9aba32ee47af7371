//! What a relay and the path learn of a sealed file: its memory while it runs, and all that passes, are searched for
//! the content, the name and the key. A plain share, a label, and the memory of the one who shares show that the
//! search finds what is there.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::mpsc,
};

use relay::protocol::{Ticket, seal::FileKey};

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::{
    process::{RelayProcess, run},
    proxy::{Handlers, Proxy},
};

/// Stands in the file again and again, at every kind of offset.
const MARKER: &[u8] = b"<the content of a file that only its ticket opens>";

/// The file's name.
const NAME: &str = "name-that-only-tickets-tell.bin";

const FILE_BYTES: usize = 3_000_001;

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

/// All that a share and a get by its ticket leave: in the memory of the relay, and on the way.
struct Left {
    relay: RelayProcess,
    passed: Vec<u8>,
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
        let (sharing, ticket) = share(&path, proxy.addr, &state, more);
        let got = run(peer(&["get", &ticket.to_string(), "-o"]).arg(dir.join("got")));
        assert_eq!(got.code, 0, "{}", got.stderr);
        assert!(fs::read(dir.join("got")).expect("it is there") == content);
        let sharer_has_key = key_of(&ticket).is_some_and(|key| memory_holds(sharing.id(), &key));
        end(sharing);
        drop(proxy);
        let passed: Vec<u8> = told.try_iter().flatten().collect();
        assert!(passed.len() > 2 * FILE_BYTES, "all of it passed, up and down");
        Self { relay, passed, ticket, sharer_has_key }
    }

    /// Whether the relay or the path learnt this.
    fn holds(&self, needle: &[u8]) -> bool {
        self.path_holds(needle) | memory_holds(self.relay.id(), needle)
    }

    fn path_holds(&self, needle: &[u8]) -> bool {
        holds(&self.passed, needle)
    }
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
    assert!(!left.holds(MARKER), "content");
    assert!(!left.holds(NAME.as_bytes()), "name");
    assert!(!left.holds(&sealed.secret.0), "what opens it");
    assert!(!left.holds(&key_of(&left.ticket).expect("it is sealed")), "key");
    assert!(!left.holds(&sealed.plain.0), "digest of the content");
    // What they do learn, and who has the key.
    assert!(left.path_holds(&left.ticket.key.id.0), "the id of the swarm");
    assert!(memory_holds(left.relay.id(), &left.ticket.key.id.0));
    assert!(left.sharer_has_key, "a key that is in memory is found");
}

#[test]
fn a_plain_share_and_a_label_are_read_by_both() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let left = Left::by(dir.path(), &["--plain", "--label", NAME]);
    assert_eq!(left.ticket.sealed, None);
    for told in [MARKER, NAME.as_bytes()] {
        assert!(left.path_holds(told));
        assert!(memory_holds(left.relay.id(), told));
    }
}
