//! One client, or one origin: a real protocol peer, watched.
//!
//! The peer library does the work; here is only what a load generator adds: roles, records,
//! latencies, wrong bytes on purpose.

use std::{
    cell::RefCell,
    ffi::OsStr,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use relay::{
    client::{
        ChunkStore, ConnectionError, FileState, FileStore, Notice, Observer, OpeningStore,
        Patience, Peer, PeerConfig, Reaction, SessionConfig, SessionError, StoreEvent,
    },
    protocol::{Digest, FailureCode, Manifest, Seeding},
    time::Time,
};
use shards::{bell::LocalBell, clock};

use crate::{
    args::{SeedingMode, Store},
    member::{Job, Local, Member, Record},
    plan::{ClientPlan, Role},
};

/// How often a late client looks whether its time has come.
const JOIN_TICK: Duration = Duration::from_millis(5);

/// A client that may not vanish yet asks again after so many further chunks: each question looks
/// at every chunk that it has.
const VANISH_CHUNKS: u32 = 8;

/// Runs a client to its end. `member` gets its handle once there is one.
pub(crate) async fn run_client(local: Rc<Local>, plan: ClientPlan, member: Rc<Member>, peer: Peer) {
    if let Role::JoinsLate(share) = plan.role {
        // It takes no place among those that connect while it waits.
        while local.job.board.plain_share() < share && !local.stopping.get() {
            clock::sleep(JOIN_TICK).await;
        }
    }
    let now = Time::from_start(clock::now());
    member.record.borrow_mut().started_at = now;
    local.job.board.connecting(now);
    let (result, file) = peer.run(Rc::clone(&local.scratch)).await;
    let mut record = member.record.borrow_mut();
    record.finish(&result, &file);
    let cut_off = plan.role == Role::Corrupts;
    if record.has_failed && !cut_off && record.whole_at.is_none() && plan.role.must_succeed() {
        local.job.board.settled();
    }
    // A corrupting client is meant to be cut off.
    record.has_failed &= !cut_off;
}

/// Runs an origin to its end.
pub(crate) async fn run_origin(local: Rc<Local>, member: Rc<Member>, peer: Peer) {
    let now = Time::from_start(clock::now());
    member.record.borrow_mut().started_at = now;
    local.job.board.connecting(now);
    let (result, file) = peer.run(Rc::clone(&local.scratch)).await;
    let mut record = member.record.borrow_mut();
    record.finish(&result, &file);
    if record.has_failed {
        local.job.board.abort();
    }
}

/// A client's peer, ready to run.
///
/// # Errors
/// Its store can't be made.
pub(crate) fn client_peer(
    local: &Rc<Local>,
    plan: &ClientPlan,
    record: &Rc<RefCell<Record>>,
) -> io::Result<Peer> {
    let job = &local.job;
    let content = &job.contents[plan.file];
    let key = *content.manifest.key();
    let (file, store): (_, Box<dyn ChunkStore>) = match (&job.store, plan.role) {
        (_, Role::Corrupts) => (
            FileState::whole(Arc::clone(&content.manifest)),
            Box::new(WrongStore(content.store(&local.disk)?)),
        ),
        (Store::Verify, _) => {
            let source = content.store(&local.disk)?;
            let store = match content.opening() {
                Some(opening) => Box::new(OpeningStore::new(opening, source)),
                None => source,
            };
            (FileState::lacking(key), store)
        }
        (Store::Dir(dir), _) => {
            let path = client_path(dir, plan.index, &content.name);
            let store = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let store = store.and_then(|()| FileStore::create(key, &path, &local.disk));
            if content.is_executable {
                allow_to_execute(&path);
            }
            let store = store.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            let store = match content.opening() {
                Some(opening) => store.with_opening(opening),
                None => store,
            };
            (FileState::lacking(key), Box::new(store))
        }
    };
    let session = SessionConfig {
        order: plan.order,
        seeding: None,
        token: job.token.clone(),
        intake_bytes_per_second: plan.rate,
        upload_bytes_per_second: None,
        keeps_bytes: store.keeps_bytes(),
        is_manifest_only: false,
    };
    let watch = ClientWatch {
        local: Rc::clone(local),
        plan: plan.clone(),
        record: Rc::clone(record),
        ask_at: 0,
    };
    let peer = Peer::new(peer_config(job, session, plan.seed), file, store, Box::new(watch));
    Ok(peer.with_transport(job.transport))
}

/// An origin's peer, ready to run.
///
/// # Errors
/// Its file can't be opened.
pub(crate) fn origin_peer(
    local: &Rc<Local>,
    index: usize,
    record: &Rc<RefCell<Record>>,
) -> io::Result<Peer> {
    let job = &local.job;
    let content = &job.contents[index];
    let seeding = match job.seeding {
        SeedingMode::Spread => Seeding::Spread { peers: job.plan.spread_peers(index) },
        SeedingMode::Origin => Seeding::Origin,
    };
    let session = SessionConfig {
        order: relay::client::ChunkOrder::Relay,
        seeding: Some(seeding),
        token: job.token.clone(),
        intake_bytes_per_second: None,
        upload_bytes_per_second: None,
        keeps_bytes: false,
        is_manifest_only: false,
    };
    let file = FileState::whole(Arc::clone(&content.manifest));
    let watch = OriginWatch { local: Rc::clone(local), record: Rc::clone(record) };
    let config = peer_config(job, session, index as u64);
    let peer = Peer::new(config, file, content.store(&local.disk)?, Box::new(watch));
    Ok(peer.with_transport(job.transport))
}

/// For all that may read it. A file system that knows no such permission leaves the file as it is.
fn allow_to_execute(path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path) {
        let mut permissions = metadata.permissions();
        permissions.set_mode(permissions.mode() | (permissions.mode() & 0o444) >> 2);
        std::fs::set_permissions(path, permissions).ok();
    }
}

/// Where a client writes its file.
pub(crate) fn client_path(dir: &Path, client: usize, name: &OsStr) -> PathBuf {
    dir.join(format!("client-{client}")).join(name)
}

fn peer_config(job: &Job, session: SessionConfig, seed: u64) -> PeerConfig {
    // The run's own deadline ends it; until then a relay may come back.
    let patience = Patience { first: job.timeout, later: job.timeout };
    PeerConfig { remote: job.remote.into(), trust: job.trust.clone(), session, patience, seed }
}

/// Watches a client.
struct ClientWatch {
    local: Rc<Local>,
    plan: ClientPlan,
    record: Rc<RefCell<Record>>,
    /// Chunks that it must have before it asks again whether it may vanish.
    ask_at: u32,
}

impl ClientWatch {
    fn handle_verified(
        &mut self,
        now: Time,
        chunk: u32,
        latency: Duration,
        file: &FileState,
    ) -> Reaction {
        self.local.latencies.borrow_mut().record(latency);
        let board = &self.local.job.board;
        let bytes = file.key().chunk_len_bytes(chunk);
        board.verified(&self.plan, chunk, u64::from(bytes));
        if let Some(recorder) = &self.local.recorder {
            let since = self.local.since_start(now);
            recorder.borrow_mut().verified(since, self.plan.index, chunk, bytes, latency);
        }
        let Role::Vanishes(share) = self.plan.role else { return Reaction::GoOn };
        let have = file.have().count();
        let due = f64::from(have) >= share * f64::from(file.have().len());
        if !due || have < self.ask_at {
            return Reaction::GoOn;
        }
        if !board.may_vanish(&self.plan, file) {
            self.ask_at = have + VANISH_CHUNKS;
            return Reaction::GoOn;
        }
        Reaction::Vanish
    }

    fn handle_complete(&self, now: Time) {
        let board = &self.local.job.board;
        let mut record = self.record.borrow_mut();
        if self.plan.role == Role::Corrupts || record.whole_at.is_some() {
            return;
        }
        record.whole_at = Some(now);
        record.settled(&self.local);
        board.whole(now);
        if self.plan.role.must_succeed() {
            board.settled();
        }
    }
}

impl Observer for ClientWatch {
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        match notice {
            Notice::Verified { chunk, latency } => {
                return self.handle_verified(now, *chunk, *latency, file);
            }
            Notice::Served { chunk } => self.local.served(now, false, *chunk, file),
            Notice::Complete => self.handle_complete(now),
            Notice::Accepted { .. } => {
                let is_first = !self.record.borrow().was_accepted;
                if is_first && !matches!(self.plan.role, Role::JoinsLate(_)) {
                    self.local.job.board.accepted(now);
                }
                watch(&self.local, &self.record, notice);
            }
            notice => watch(&self.local, &self.record, notice),
        }
        Reaction::GoOn
    }

    fn shared_manifest(&self) -> Option<&Arc<Manifest>> {
        Some(&self.local.job.contents[self.plan.file].manifest)
    }
}

/// Watches an origin.
struct OriginWatch {
    local: Rc<Local>,
    record: Rc<RefCell<Record>>,
}

impl Observer for OriginWatch {
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        watch(&self.local, &self.record, notice);
        if let Notice::Served { chunk } = notice {
            self.local.served(now, true, *chunk, file);
        }
        match notice {
            Notice::SeedingDone => {
                self.local.job.board.seeding_done(now);
                Reaction::Leave
            }
            _ => Reaction::GoOn,
        }
    }
}

/// What is noted of clients and origins alike.
fn watch(local: &Local, record: &RefCell<Record>, notice: &Notice<'_>) {
    let mut record = record.borrow_mut();
    match notice {
        Notice::Accepted { .. } => record.accepted(local),
        Notice::Waiting { missing_count, first_missing, .. } => {
            let now = Time::from_start(clock::now());
            record.unheld = Some((*missing_count, *first_missing, now));
        }
        Notice::Disconnected { error, .. } => {
            record.error = Some(error.to_string());
            record.disconnected(local, no_room(error));
        }
        Notice::Unreadable { chunk, error } => {
            record.error = Some(format!("could not read chunk {chunk}: {error}"));
        }
        _ => {}
    }
}

/// What the relay says if it has no room for one more.
fn no_room(error: &ConnectionError) -> Option<&str> {
    match error {
        ConnectionError::Session { error: SessionError::Relay(failure), .. } => {
            (failure.code == FailureCode::TooManyPeers).then_some(failure.text.as_str())
        }
        _ => None,
    }
}

/// Supplies wrong bytes. The frames' checksums are made of what is sent, so they are right, and
/// the relay can't take it for the link's fault.
struct WrongStore(Box<dyn ChunkStore>);

impl ChunkStore for WrongStore {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.0.watch(bell)
    }

    fn put(&mut self, _: u32, _: Bytes) {}

    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        Ok(self.0.get(tag, chunk, digest)?.map(|right| wrong(&right)))
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        let mut event = self.0.poll_event()?;
        if let StoreEvent::Read { result: Ok(bytes), .. } = &mut event {
            *bytes = wrong(bytes);
        }
        Some(event)
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn wrong(right: &Bytes) -> Bytes {
    right.iter().map(|byte| !byte).collect()
}
