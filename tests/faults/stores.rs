//! A peer whose store fails, whenever it does, says so instead of trying in vain.

use std::{io, process::Command, rc::Rc, sync::Arc, sync::mpsc, time::Duration};

use bytes::Bytes;
use relay::{
    peer::{
        ChunkOrder, ChunkStore, ConnectionError, FileState, Notice, Patience, Peer, PeerConfig,
        Reaction, SessionConfig, StoreEvent, new_scratch,
    },
    protocol::{Digest, limits::NONCE_BYTES},
    time::Time,
};
use shards::bell::LocalBell;

use crate::support::{file::TestFile, honest::Origin, in_background, process::RelayProcess};

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
    let mut relay =
        RelayProcess::start(Command::new(env!("CARGO_BIN_EXE_relay")), &["--cores", "1"]);
    let file = Arc::new(TestFile::new(1, 1 << 16, 16));
    let _origin = Origin::start(relay.addr, &file);
    let (was_put, puts) = mpsc::channel();
    let (remote, key) = (relay.addr.into(), file.key());
    let running = in_background(move || {
        let store = FailsLate { bell: None, puts: Vec::new(), was_put, has_ended: false };
        let session = SessionConfig {
            order: ChunkOrder::Relay,
            seeding: None,
            token: None,
            nonce: [0; NONCE_BYTES],
            intake_bytes_per_second: None,
            keeps_bytes: true,
        };
        let patience = Duration::from_secs(20);
        let patience = Patience { first: patience, later: patience };
        let config = PeerConfig { remote, session, patience, seed: 1 };
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
