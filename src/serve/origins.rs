//! The origin in the relay's process: the files of `--serve`.
//!
//! It has a thread with an event loop of its own, and a disk thread; no shard ever waits for a file. It does not count
//! as one of `--max-peers`.

use std::{
    cell::Cell,
    io::ErrorKind,
    net::SocketAddr,
    rc::Rc,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use shards::{Driver, clock, task};

use super::own::{FOREVER, LAST_WORDS, reachable};
use crate::{
    client::{
        ChunkOrder, Disk, FileState, HashCache, Lookout, Notice, Origin, Patience, Peer,
        PeerConfig, PeerHandle, Reaction, Scratch, SessionConfig, new_scratch,
        origin::{Blame, Change, HashJob, How, Looking, Sealing, Source},
    },
    config::RelayArgs,
    places,
    protocol::{Pin, RelayAddr, Seeding, Token},
    server::{Companion, Config},
    stderr::Pace,
    time::Time,
    transport::Trust,
    units::bytes_text,
    user_secret,
};

/// The origin is accepted within this, or the relay does not start.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(10);

/// How often the origin looks whether the relay ends.
const TICK: Duration = Duration::from_millis(50);

/// Every so many ticks the files are looked at.
const TICKS_PER_LOOK: u32 = 20;

/// The files of `--serve`.
pub(super) struct Origins {
    files: Vec<Arc<Origin>>,
    advertised: Option<RelayAddr>,
    /// What this relay is known by.
    pin: Pin,
    token: Option<Token>,
    driver: Driver,
    running: Option<Running>,
}

struct Running {
    stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

/// What the origin's thread tells the main thread: a file's index, and that it is served, or why
/// not.
type Report = (usize, Result<(), String>);

impl Origins {
    /// Opens and digests the files, before anything is listened on.
    pub(super) fn prepare(
        args: &RelayArgs,
        config: &Config,
        (pin, token): (Pin, Option<Token>),
        driver: Driver,
    ) -> anyhow::Result<Box<dyn Companion>> {
        let secret = match args.origin.serve.is_empty() || args.origin.plain {
            true => None,
            false => {
                let secret = user_secret::open(args.origin.secret_file.as_deref());
                Some(secret.map_err(anyhow::Error::msg)?)
            }
        };
        let sealing = secret.as_ref().map_or(Sealing::Plain, Sealing::By);
        let doing = if secret.is_some() { "hashing and sealing" } else { "hashing" };
        let cache = places::cache_directory().map(HashCache::at);
        let mut files = Vec::new();
        for path in &args.origin.serve {
            let source = Source::open(slice::from_ref(path), Looking::default(), &mut |_| {})?;
            tracing::info!("{doing} {}", path.display());
            let chunk_size_log2 = source.chunk_size_log2(config.chunk_size_log2_max)?;
            let mut pace = Pace::new(clock::now());
            // All passes together.
            let all = bytes_text(source.size_bytes() * sealing.passes());
            let job = HashJob { cache: cache.as_ref(), ..HashJob::new(chunk_size_log2, sealing) };
            let origin = source.hash(&job, &mut |done| {
                if pace.is_due(clock::now()) {
                    tracing::info!("{doing} {}: {} of {all}", path.display(), bytes_text(done));
                }
            })?;
            if origin.is_remembered() {
                tracing::info!("{} is unchanged since it was hashed before", path.display());
            }
            if let Some(error) = origin.memory_fault() {
                tracing::info!("the hashes of {} can't be remembered: {error}", path.display());
            }
            files.push(Arc::new(origin));
        }
        let advertised = args.origin.advertise.clone();
        Ok(Box::new(Self { files, advertised, pin, token, driver, running: None }))
    }

    /// What tickets say.
    fn advertised(&self, first: SocketAddr) -> anyhow::Result<RelayAddr> {
        if let Some(advertised) = &self.advertised {
            return Ok(advertised.clone());
        }
        let host = match first {
            SocketAddr::V6(v6) if v6.scope_id() > 0 => {
                tracing::warn!(
                    "tickets name {first} by this machine's interface, which others don't have: give \
                     --advertise HOST:PORT"
                );
                format!("{}%{}", v6.ip(), v6.scope_id())
            }
            _ => first.ip().to_string(),
        };
        RelayAddr::new(&host, first.port())
            .with_context(|| format!("failed to name {first} in a ticket"))
    }
}

impl Companion for Origins {
    fn connections(&self) -> usize {
        self.files.len()
    }

    fn start(&mut self, listening: &[SocketAddr]) -> anyhow::Result<Vec<String>> {
        let (false, Some(&first)) = (self.files.is_empty(), listening.first()) else {
            return Ok(Vec::new());
        };
        let relay = self.advertised(first)?;
        if relay.is_of_this_machine() {
            tracing::warn!(
                "tickets name {relay}, where no other machine finds this relay: give --advertise \
                 HOST:PORT"
            );
        }
        let mut lines = Vec::new();
        for file in &self.files {
            let (ticket, fault) = file.ticket(relay.clone(), self.pin, None)?;
            if let Some(fault) = fault {
                let (path, name) = (file.shown(), ticket.name());
                tracing::warn!("the ticket of {path} calls it {name}: its own name {fault}");
            }
            lines.push(format!("relay ticket {ticket} {}", file.shown()));
        }
        let paths: Vec<_> = self.files.iter().map(|file| file.shown()).collect();
        let stopping = Arc::new(AtomicBool::new(false));
        let (sender, reports) = mpsc::sync_channel(paths.len());
        let serving = Serving {
            files: std::mem::take(&mut self.files),
            remote: reachable(first),
            pin: self.pin,
            token: self.token.clone(),
            reports: sender,
            stopping: Arc::clone(&stopping),
        };
        let driver = self.driver;
        let run = move || {
            if let Err(error) = shards::block_on(driver, serving.run()) {
                tracing::error!("the origin's event loop can't start: {error}");
            }
        };
        let thread = thread::Builder::new().name("relay-origin".into()).spawn(run);
        let thread = thread.map_err(|error| {
            let more = shards::MORE_THREADS;
            anyhow::anyhow!("failed to start thread relay-origin: {error}; {more}")
        })?;
        self.running = Some(Running { stopping, thread });
        for _ in &paths {
            match reports.recv_timeout(ACCEPTED_WITHIN) {
                Ok((_, Ok(()))) => {}
                Ok((index, Err(why))) => {
                    bail!("failed to serve {}: {why}", paths[index]);
                }
                Err(error) => bail!("failed to serve files: the origin is not accepted: {error}"),
            }
        }
        Ok(lines)
    }

    fn stop(&mut self) {
        if let Some(Running { stopping, thread }) = self.running.take() {
            stopping.store(true, Ordering::Relaxed);
            if thread.join().is_err() {
                tracing::error!("the origin panicked");
            }
        }
    }
}

/// The life of the origin's thread.
struct Serving {
    files: Vec<Arc<Origin>>,
    remote: SocketAddr,
    pin: Pin,
    token: Option<Token>,
    reports: mpsc::SyncSender<Report>,
    stopping: Arc<AtomicBool>,
}

impl Serving {
    async fn run(self) {
        let disk = match Disk::start() {
            Ok(disk) => disk,
            Err(error) => {
                let why = format!(
                    "failed to start the thread that reads it: {error}; {}",
                    shards::mend_of_no_thread(&error)
                );
                // The relay has given up, and waits no more.
                self.reports.try_send((0, Err(why))).ok();
                return;
            }
        };
        let lookout = match Lookout::start() {
            Ok(lookout) => Some(Rc::new(lookout)),
            Err(error) => {
                tracing::warn!("no thread looks whether served files change: {error}");
                None
            }
        };
        let scratch = new_scratch();
        let (mut handles, mut tasks) = (Vec::new(), Vec::new());
        for (index, file) in self.files.iter().enumerate() {
            let (handle, task) = self.start(index, file, (&disk, lookout.as_ref()), &scratch);
            handles.push(handle);
            tasks.push(task);
        }
        self.watch(lookout.as_deref()).await;
        handles.iter().for_each(PeerHandle::stop);
        let ends = async {
            for task in tasks {
                task.await;
            }
        };
        // One that waits for its next attempt to connect is not waited for.
        clock::timeout(LAST_WORDS, ends).await;
    }

    /// Begins to serve a file.
    fn start(
        &self,
        index: usize,
        file: &Arc<Origin>,
        (disk, lookout): (&Disk, Option<&Rc<Lookout>>),
        scratch: &Scratch,
    ) -> (PeerHandle, task::JoinHandle<()>) {
        let session = SessionConfig {
            order: ChunkOrder::Relay,
            seeding: Some(Seeding::Origin),
            token: self.token.clone(),
            intake_bytes_per_second: None,
            upload_bytes_per_second: None,
            keeps_bytes: false,
            is_manifest_only: false,
        };
        let patience = Patience { first: ACCEPTED_WITHIN, later: FOREVER };
        let (remote, seed) = (self.remote.into(), index as u64);
        let config = PeerConfig { remote, trust: Trust::pinned(self.pin), session, patience, seed };
        let state = FileState::whole(Arc::clone(file.manifest()));
        let watch = watch_peer(index, file, lookout.cloned(), self.reports.clone());
        let peer = Peer::new(config, state, Box::new(file.store(disk)), Box::new(watch));
        let (handle, path) = (peer.handle(), file.shown());
        let (scratch, reports) = (Rc::clone(scratch), self.reports.clone());
        let task = task::spawn(async move {
            if let (Err(error), _) = peer.run(scratch).await {
                tracing::error!("{path} is no longer served: {error}");
                // Once it was accepted, the relay waits no more.
                reports.try_send((index, Err(error.to_string()))).ok();
            }
        });
        (handle, task)
    }

    /// Until the relay ends; meanwhile the log tells of files that change.
    async fn watch(&self, lookout: Option<&Lookout>) {
        let told: Rc<Vec<Cell<bool>>> = Rc::new(self.files.iter().map(|_| false.into()).collect());
        let mut ticks = 0u32;
        while !self.stopping.load(Ordering::Relaxed) {
            clock::sleep(TICK).await;
            ticks = ticks.wrapping_add(1);
            let lookout = lookout.filter(|lookout| lookout.is_idle());
            let (Some(lookout), true) = (lookout, ticks.is_multiple_of(TICKS_PER_LOOK)) else {
                continue;
            };
            for (index, file) in self.files.iter().enumerate().filter(|(at, _)| !told[*at].get()) {
                let told = Rc::clone(&told);
                lookout.look(file, move |change| {
                    told[index].set(true);
                    warn_of(&change);
                });
            }
        }
    }
}

fn warn_of(Change { of, how }: &Change) {
    let how = match how {
        How::Modified => "was written to, or has other permissions",
        How::Resized { .. } => "has another length",
        How::Replaced | How::Gone => "was removed or replaced",
    };
    tracing::warn!(
        "{of} {how} since the relay was started. Only chunks that are still what they \
         were are served; start the relay again to serve what it is now"
    );
}

/// What to do about a chunk that can't be served.
fn advice(blame: &Blame) -> &'static str {
    match blame.is_forgotten {
        true => {
            "It looks unchanged since it was hashed, so a disk or another program is to blame; what was remembered of \
             it is forgotten. Start the relay again: it hashes the file as it is now"
        }
        false => "Start the relay again to serve the file as it is now",
    }
}

/// Tells the main thread when a file is served, and the log when it can't be any longer.
fn watch_peer(
    index: usize,
    file: &Arc<Origin>,
    lookout: Option<Rc<Lookout>>,
    reports: mpsc::SyncSender<Report>,
) -> impl FnMut(Time, &Notice<'_>, &FileState) -> Reaction + use<> {
    let file = Arc::clone(file);
    let was_unreadable = Cell::new(false);
    move |_, notice, _| {
        match notice {
            // Later acceptances find the channel closed, or full.
            Notice::Accepted { .. } => drop(reports.try_send((index, Ok(())))),
            // A want of descriptors passes by itself.
            Notice::Unreadable { error, .. } if error.kind() == ErrorKind::ResourceBusy => {}
            Notice::Unreadable { chunk, error } if !was_unreadable.replace(true) => {
                let (path, chunk, text) = (file.shown(), *chunk, error.to_string());
                let told = move |blame: Blame| {
                    let of = &blame.of;
                    tracing::error!(
                        "chunk {chunk} of {path} can't be served{of}: {text}. {}",
                        advice(&blame)
                    );
                };
                match &lookout {
                    Some(lookout) => lookout.explain(&file, (chunk, error.kind()), told),
                    // Without that thread it is looked at once, here.
                    None => told(file.explain(chunk, error.kind())),
                }
            }
            _ => {}
        }
        Reaction::GoOn
    }
}
