//! One on the path that changes file bytes and makes the CRC fit: it can't read or make what is under TLS, so neither
//! side is blamed for what it does, and no wrong byte is kept.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use relay::protocol::{
    CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, PREAMBLE_BYTES, RelayAddr, Ticket, frame_crc,
};

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    in_background,
    process::{RelayProcess, Running, run},
    wait_until,
};

const CHUNK_SIZE_LOG2: u8 = 16;

/// Which way the frames go that are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToRelay,
    ToPeer,
}

/// The path: where to connect, and how many frames it still changes.
struct Path {
    addr: SocketAddr,
    left: Arc<AtomicUsize>,
}

impl Path {
    /// Changes a byte of so many frames that go this way, and passes everything else on as it is.
    fn forging(relay: SocketAddr, way: Way, frames: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it has an address");
        let left = Arc::new(AtomicUsize::new(frames));
        let of_thread = Arc::clone(&left);
        in_background(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(relay) else { return };
                let copy =
                    |stream: &TcpStream| stream.try_clone().expect("a descriptor can be copied");
                for (from, to, goes) in
                    [(copy(&near), copy(&far), Way::ToRelay), (far, near, Way::ToPeer)]
                {
                    let none = Arc::new(AtomicUsize::new(0));
                    let left = if goes == way { Arc::clone(&of_thread) } else { none };
                    in_background(move || {
                        // Either side may close whenever it likes.
                        pass(&from, &to, &left).ok();
                        from.shutdown(Shutdown::Both).ok();
                        to.shutdown(Shutdown::Both).ok();
                    });
                }
            }
        });
        Self { addr, left }
    }

    fn has_forged_all(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicUsize) -> io::Result<()> {
    let mut preamble = [0; PREAMBLE_BYTES];
    from.read_exact(&mut preamble)?;
    to.write_all(&preamble)?;
    loop {
        let mut frame = vec![0; CONTROL_HEADER_BYTES];
        from.read_exact(&mut frame)?;
        let is_data = frame[0] == 2;
        let len = usize::from(u16::from_le_bytes([frame[2], frame[3]]));
        let head = if is_data { DATA_HEADER_BYTES } else { CONTROL_HEADER_BYTES };
        frame.resize(head + len, 0);
        from.read_exact(&mut frame[CONTROL_HEADER_BYTES..])?;
        let takes = |left: usize| left.checked_sub(1);
        if is_data && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes).is_ok() {
            let (header, payload) = frame.split_at_mut(DATA_HEADER_BYTES);
            payload[len / 2] ^= 1;
            header[16..20].copy_from_slice(&frame_crc(payload).to_le_bytes());
        }
        to.write_all(&frame)?;
    }
}

fn ticket(relay: SocketAddr, file: &TestFile, name: &str) -> String {
    let relay = RelayAddr::new(&relay.ip().to_string(), relay.port()).expect("an address");
    Ticket::new(relay, file.key(), name).expect("a short name").to_string()
}

#[test]
fn a_path_that_forges_checksums_gets_nobody_banned() {
    let relay = RelayProcess::start(relay(), &[]);
    let path = Path::forging(relay.addr, Way::ToRelay, 3);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = TestFile::new(11, 20 << CHUNK_SIZE_LOG2, CHUNK_SIZE_LOG2);
    let source = dir.path().join("source");
    fs::write(&source, &file.bytes).expect("written");
    let through = path.addr.to_string();
    let mut share = peer(&["share", "--chunk", "64K", "--relay", &through]);
    let share = Running::start(share.arg(&source));
    wait_until("the ticket", || share.stdout().ends_with('\n'));
    download(relay.addr, &file);
    assert!(path.has_forged_all());
    assert!(relay.metric("relay_chunks_rejected_total", &["reason=\"link_corrupt\""]) >= 1.0);
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0, "{}", relay.log());
}

#[test]
fn a_forged_chunk_is_got_again_and_a_path_that_always_forges_is_given_up() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(12, 20 << CHUNK_SIZE_LOG2, CHUNK_SIZE_LOG2));
    let _origin = Origin::start(relay.addr, &file);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = Path::forging(relay.addr, Way::ToPeer, 2);
    let got = run(peer(&["get", &ticket(path.addr, &file, "got")]).current_dir(dir.path()));
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert!(path.has_forged_all());
    assert!(fs::read(dir.path().join("got")).expect("it is there") == file.bytes);
    let path = Path::forging(relay.addr, Way::ToPeer, usize::MAX);
    let got = run(peer(&["get", &ticket(path.addr, &file, "other")]).current_dir(dir.path()));
    assert_eq!(got.code, 1, "{}", got.stderr);
    assert!(got.stderr.contains("the path forged them"), "{}", got.stderr);
    assert!(!dir.path().join("other").exists());
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0);
}
