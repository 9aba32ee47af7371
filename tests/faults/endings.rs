//! Peers that should not go on: one that is stopped, whatever it waits for, and one whose store fails.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use relay::{
    client::{
        ChunkOrder, ChunkStore, ConnectionError, Ended, FileState, MemoryStore, Notice, Patience,
        Peer, PeerConfig, Reaction, Remote, SessionConfig, StoreEvent, new_scratch,
    },
    protocol::{Digest, Manifest},
    time::Time,
    transport::Trust,
};
use shards::{bell::LocalBell, clock, task};
use socket2::{Domain, Socket, Type};

use crate::support::{file::TestFile, honest::Origin, in_background, process::RelayProcess};

/// Long enough to notice a wait in vain.
const LONG: Duration = Duration::from_secs(20);

fn config(remote: Remote, keeps_bytes: bool) -> PeerConfig {
    let session = SessionConfig {
        order: ChunkOrder::Relay,
        seeding: None,
        token: None,
        intake_bytes_per_second: None,
        upload_bytes_per_second: None,
        keeps_bytes,
        is_manifest_only: false,
    };
    PeerConfig {
        remote,
        trust: Trust::first_seen(),
        session,
        patience: Patience { first: LONG, later: LONG },
        seed: 1,
    }
}

/// A listener that no peer can connect to any more: the kernel drops what comes to it.
fn full_listener() -> (Socket, Vec<Socket>) {
    let new = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = new();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("it listens");
    let addr = listener.local_addr().expect("it has an address");
    let waiting = (0..8).map(|_| {
        let socket = new();
        socket.set_nonblocking(true).expect("a socket");
        socket.connect(&addr).ok();
        socket
    });
    let waiting = waiting.collect();
    (listener, waiting)
}

#[test]
fn a_peer_that_waits_for_an_address_that_answers_nothing_is_stopped_at_once() {
    let (silent, _waiting) = full_listener();
    let silent = silent.local_addr().expect("it has one").as_socket().expect("of the internet");
    let manifest = Arc::new(Manifest::of(b"content", 10).expect("a small file"));
    let run = async move {
        let file = FileState::whole(Arc::clone(&manifest));
        let store = MemoryStore::new(*manifest.key(), b"content"[..].into());
        let watch = |_: Time, _: &Notice<'_>, _: &FileState| Reaction::GoOn;
        let config = config(silent.into(), false);
        let peer = Peer::new(config, file, Box::new(store), Box::new(watch));
        let handle = peer.handle();
        let running = task::spawn(peer.run(new_scratch()));
        clock::sleep(Duration::from_millis(50)).await;
        assert!(!running.is_finished(), "it waits");
        handle.stop();
        let ended = task::race(running, clock::sleep(LONG / 2)).await;
        let (result, _) = ended.expect("it ends").expect("without a panic");
        assert_eq!(result.expect("it was stopped"), Ended::Stopped);
    };
    shards::block_on(shards::Driver::Epoll, run).expect("an event loop");
}

/// A disk that fails late: what was put into it is refused once the connection has ended.
struct FailsLate {
    bell: Option<Rc<LocalBell>>,
    puts: Vec<u32>,
    was_put: mpsc::Sender<u32>,
    has_ended: bool,
}

impl ChunkStore for FailsLate {
    fn keeps_bytes(&self) -> bool {
        true
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.bell = Some(Rc::clone(bell));
        true
    }

    fn put(&mut self, chunk: u32, _: Bytes) {
        self.puts.push(chunk);
        self.was_put.send(chunk).expect("the test listens");
    }

    fn get(&mut self, _: u32, _: u32, _: Digest) -> io::Result<Option<Bytes>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        let chunk = self.has_ended.then(|| self.puts.pop()).flatten()?;
        Some(StoreEvent::Kept { chunk, result: Err(io::ErrorKind::StorageFull.into()) })
    }

    fn is_full(&self) -> bool {
        false
    }

    fn handle_disconnected(&mut self) {
        self.has_ended = true;
        self.bell.as_ref().expect("watched").ring();
    }
}

#[test]
fn a_disk_that_fails_while_the_connection_ends_ends_the_peer() {
    let mut relay = RelayProcess::start(crate::programs::relay(), &["--cores", "1"]);
    let file = Arc::new(TestFile::new(1, 1 << 16, 16));
    let _origin = Origin::start(relay.addr, &file);
    let (was_put, puts) = mpsc::channel();
    let (remote, key) = (relay.addr.into(), file.key());
    let running = in_background(move || {
        let store = FailsLate { bell: None, puts: Vec::new(), was_put, has_ended: false };
        let config = config(remote, true);
        let (attempts, tried) = mpsc::channel();
        let watch = move |_: Time, notice: &Notice<'_>, _: &FileState| {
            if let Notice::Disconnected { .. } = notice {
                attempts.send(()).expect("counted at the end");
            }
            Reaction::GoOn
        };
        let file = FileState::lacking(key);
        let run = async move {
            let peer = Peer::new(config, file, Box::new(store), Box::new(watch));
            let (result, file) = peer.run(new_scratch()).await;
            assert!(
                matches!(result, Err(ConnectionError::Store { chunk: 0, .. })),
                "it ends with what the disk said: {result:?}"
            );
            assert_eq!(file.have().count(), 0);
            assert_eq!(tried.try_iter().count(), 0, "no other connection was tried");
        };
        shards::block_on(shards::Driver::Epoll, run).expect("an event loop");
    });
    assert_eq!(puts.recv_timeout(Duration::from_secs(60)), Ok(0));
    relay.kill();
    running.join().expect("as it should end");
}
