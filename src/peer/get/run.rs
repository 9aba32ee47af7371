//! Gets what lacks, on an event loop: one peer, watched, until the file is whole and no other peer
//! needs this one, or there is no hope.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{atomic::Ordering::Relaxed, mpsc::SyncSender},
    time::Duration,
};

use shards::{DriverChoice, Offload, bell::LocalBell, clock, task};

use super::{
    super::{
        args::SeedFor,
        error::no_thread,
        event_loop::{self, STOOD_STILL},
    },
    beside,
    ending::{code_of, explain, is_worth_asking_again},
    job::{Done, Job, Place, Stage},
    screen::News,
    status::{Phase, time_text},
};
use crate::{
    buffers,
    client::{
        ConnectionError, Disk, FileState, Notice, Observer, Patience, Peer, PeerConfig, PeerHandle,
        Reaction, SessionConfig, new_scratch,
    },
    machine,
    protocol::FailureCode,
    time::Time,
};

/// From this round trip on the path itself is long: a busy relay near by takes as long as a short path.
const FAR: Duration = Duration::from_millis(60);

/// How often signals and time-outs are looked at.
const TICK: Duration = Duration::from_millis(50);

/// For the first connection to come about; a relay that is just being started is found.
const FIRST_CONNECT: Duration = Duration::from_secs(10);

/// The relay gives leave by then, or this peer goes without.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// A stream, of which nothing can be served, stays until the relay has heard of the last chunks.
const STREAM_LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// After the relay gave up waiting for chunks: it is asked again after so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is under way to the disk is waited for so long when the get is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs to the end.
///
/// # Errors
/// A sentence for the user: what failed, and why.
pub(super) fn run(driver: DriverChoice, job: Job, file: FileState) -> Result<Done, String> {
    let ended = event_loop::run(driver, supervise(Rc::new(job), file));
    ended.map_err(|error| error.to_string())?
}

/// What the observer and the supervisor share.
struct Local {
    job: Rc<Job>,
    bell: Rc<LocalBell>,
    /// Does what blocks and is not a chunk's.
    offload: Offload<Result<(), String>>,
    state: RefCell<State>,
    /// Of the time that the process has not run, so much was seen.
    lapsed: Cell<Duration>,
}

/// What changes while it runs.
struct State {
    stage: Stage,
    /// Why the last peer ended.
    last_error: Option<String>,
    /// How many chunks a stream's reader has not taken.
    writes: Option<Rc<Cell<usize>>>,
}

async fn supervise(job: Rc<Job>, mut file: FileState) -> Result<Done, String> {
    let no_thread = |error| no_thread("for files", &error);
    let disk = Disk::start().map_err(no_thread)?;
    let is_whole = matches!(job.place, Place::Whole(_));
    let stage = if is_whole { Stage::Finished(clock::now(), Ok(())) } else { Stage::Getting };
    let local = Rc::new(Local {
        bell: Rc::new(LocalBell::new()),
        offload: Offload::start("peer-finish", 1).map_err(no_thread)?,
        state: RefCell::new(State { stage, last_error: None, writes: None }),
        lapsed: Cell::new(clock::lapsed()),
        job,
    });
    local.job.status.enter(if is_whole { Phase::Seeding } else { Phase::Getting });
    task::spawn(tick(Rc::downgrade(&local)));
    loop {
        let job = &local.job;
        let (store, writes) = job.place.store(&file, job.opening.as_ref(), &disk);
        local.state.borrow_mut().writes = writes;
        let config = local.peer_config(store.keeps_bytes(), &file);
        let peer = Peer::new(config, file, store, Box::new(Watch(Rc::clone(&local))))
            .with_transport(local.job.manner.transport);
        file = match local.run_peer(peer).await? {
            Ended::Done(done) => return Ok(done),
            Ended::AskAgain(file) => file,
        };
        let ask_at = clock::now() + ASK_AGAIN_AFTER;
        while clock::now() < ask_at {
            if let Some(verdict) = local.verdict() {
                return verdict;
            }
            local.bell.wait().await;
        }
    }
}

/// How one peer ended.
enum Ended {
    Done(Done),
    /// The relay knows no holder of what lacks, but there is time left.
    AskAgain(FileState),
}

impl Local {
    fn peer_config(&self, keeps_bytes: bool, file: &FileState) -> PeerConfig {
        let job = &self.job;
        let session = SessionConfig {
            order: job.place.order(file),
            seeding: None,
            token: job.token.clone(),
            intake_bytes_per_second: job.manner.rate,
            upload_bytes_per_second: job.manner.rate,
            keeps_bytes,
            is_manifest_only: job.manifest_only,
        };
        let was_accepted = job.status.was_accepted.load(Relaxed);
        let first = if was_accepted { job.timeout } else { FIRST_CONNECT.min(job.timeout) };
        PeerConfig {
            remote: job.remote.clone(),
            trust: job.belief.trust().clone(),
            session,
            patience: Patience { first, later: job.timeout },
            seed: u64::from(std::process::id()),
        }
    }

    /// Runs one peer until it ends, or there is a verdict over it.
    async fn run_peer(&self, peer: Peer) -> Result<Ended, String> {
        let handle = peer.handle();
        let bell = Rc::clone(&self.bell);
        let running = task::spawn(async move {
            let ended = peer.run(new_scratch()).await;
            bell.ring();
            ended
        });
        while !running.is_finished() {
            if let Some(verdict) = self.verdict() {
                self.stop(&handle, || running.is_finished()).await;
                return verdict.map(Ended::Done);
            }
            self.bell.wait().await;
        }
        let (result, file) = running.await.ok_or("the event loop has ended")?;
        // A relay that refuses a file from the start says the same, before it takes the peer in.
        let is_refused =
            |error: &ConnectionError| code_of(error) == Some(FailureCode::SwarmRefused);
        if result.as_ref().is_err_and(is_refused) && self.job.status.is_connected.load(Relaxed) {
            self.job.status.is_given_up.store(true, Relaxed);
        }
        match &result {
            Err(error) if is_worth_asking_again(error) => self.job.status.handle_given_up(),
            _ => self.job.status.handle_disconnected(),
        }
        match self.stage() {
            Stage::Getting => {}
            Stage::Manifest(manifest) => return Ok(Ended::Done(Done::Manifest(manifest))),
            _ => return self.wait_finished().await.map(Ended::Done),
        }
        match result {
            Err(error) if is_worth_asking_again(&error) => {
                self.lost(&error);
                Ok(Ended::AskAgain(file))
            }
            Err(error) => Err(explain(&self.job.belief, &error)),
            Ok(_) => Err("the transfer was stopped".into()),
        }
    }

    /// Stops a peer; what its disk has under way is waited for, but not for ever.
    async fn stop(&self, handle: &PeerHandle, is_finished: impl Fn() -> bool) {
        handle.stop();
        let deadline = clock::now() + STOP_TIMEOUT;
        while !is_finished() && clock::now() < deadline {
            self.bell.wait().await;
        }
    }

    fn stage(&self) -> Stage {
        self.state.borrow().stage.clone()
    }

    fn enter(&self, stage: Stage) {
        self.state.borrow_mut().stage = stage;
    }

    /// Whether it is over, whatever the peer does.
    fn verdict(&self) -> Option<Result<Done, String>> {
        let (job, is_interrupted) = (&self.job, self.job.interrupted.load(Relaxed));
        let stage = self.stage();
        let Some(whole_at) = stage.whole_at() else {
            self.look_at_the_reader();
            let lapsed = clock::lapsed();
            if lapsed.saturating_sub(self.lapsed.replace(lapsed)) >= job.timeout.min(STOOD_STILL) {
                // Nothing could come while this process stood still.
                job.status.progress();
            }
            if is_interrupted {
                return Some(Err("interrupted".into()));
            }
            if job.status.waited() < job.timeout {
                return None;
            }
            let why = job.status.why(self.state.borrow().last_error.as_deref());
            let waited = time_text(job.timeout);
            return Some(Err(format!("nothing new has come for {waited}, so it gives up: {why}")));
        };
        // Only what is safely in its place is served, or left.
        let Stage::Finished(_, finished) = stage else { return None };
        let seeded = clock::now() - whole_at;
        let is_over = match (&job.place, job.seed_for) {
            (Place::Stream(_), _) => seeded >= STREAM_LEAVE_TIMEOUT,
            (_, SeedFor::Auto) => seeded >= LEAVE_TIMEOUT,
            (_, SeedFor::For(time)) => seeded >= time,
        };
        match finished {
            Err(error) => Some(Err(error)),
            Ok(()) => (is_over || is_interrupted).then_some(Ok(Done::Whole)),
        }
    }

    async fn wait_finished(&self) -> Result<Done, String> {
        loop {
            if let Stage::Finished(_, finished) = self.stage() {
                return finished.map(|()| Done::Whole);
            }
            self.bell.wait().await;
        }
    }

    /// While the reader of a stream is slow, the network is not to blame.
    fn look_at_the_reader(&self) {
        let writes = self.state.borrow().writes.as_ref().map_or(0, |writes| writes.get());
        let is_slow = writes > 0;
        self.job.status.is_reader_slow.store(is_slow, Relaxed);
        if is_slow {
            self.job.status.progress();
        }
    }

    fn handle_whole(self: &Rc<Self>) {
        if self.stage().whole_at().is_some() {
            return;
        }
        self.enter(Stage::Finishing(clock::now()));
        let finish: Box<dyn FnOnce() -> Result<Option<String>, String> + Send> =
            match self.job.place.clone() {
                Place::Part { part, overwrite } => Box::new(move || part.finish(overwrite)),
                Place::Stream(sink) => Box::new(move || {
                    let finished = sink.finish().map(|()| None);
                    finished.map_err(|error| format!("could not write the end: {error}"))
                }),
                Place::Whole(_) | Place::Memory(_) => return self.handle_finished(Ok(())),
            };
        self.job.status.enter(Phase::Finishing);
        let (local, news) = (Rc::downgrade(self), self.job.news.clone());
        self.offload.submit(
            move || {
                let note = finish()?;
                note.into_iter().for_each(|note| tell(&news, News::Note(note)));
                Ok(())
            },
            move |result| {
                let Some(local) = local.upgrade() else { return };
                local.handle_finished(result.unwrap_or_else(|panic| Err(panic.to_string())));
            },
        );
    }

    fn handle_finished(&self, result: Result<(), String>) {
        self.job.status.enter(Phase::Seeding);
        let whole_at = self.stage().whole_at().expect("a whole file is finished");
        self.enter(Stage::Finished(whole_at, result));
        self.bell.ring();
    }

    fn handle_manifest(self: &Rc<Self>, file: &FileState) -> Reaction {
        self.job.status.has_manifest.store(true, Relaxed);
        let Some(manifest) = file.manifest().cloned() else { return Reaction::GoOn };
        if self.job.manifest_only {
            self.enter(Stage::Manifest(manifest));
            return Reaction::Vanish;
        }
        if let Place::Part { part, .. } = self.job.place.clone() {
            // Not ourselves: what is still under way when the loop ends would keep us, and we it.
            let news = self.job.news.clone();
            let save = move || beside::save_manifest(part.target(), &manifest);
            self.offload.submit(
                move || save().map_err(|error| error.to_string()),
                move |result| {
                    if let Err(error) = result.unwrap_or_else(|panic| Err(panic.to_string())) {
                        tell(&news, News::Note(format!(
                            "could not keep the list of digests beside the file: {error}: a resumed \
                             get will ask for it again"
                        )));
                    }
                },
            );
        }
        Reaction::GoOn
    }

    /// The relay has proved itself: the next command knows it.
    fn remember_relay(&self) {
        if self.job.status.was_remembered.swap(true, Relaxed) {
            return;
        }
        let (belief, news) = (self.job.belief.clone(), self.job.news.clone());
        self.offload.submit(
            move || belief.remember().map_or_else(Err, |note| note.map_or(Ok(()), Err)),
            move |result| {
                if let Err(note) = result.unwrap_or_else(|panic| Err(panic.to_string())) {
                    tell(&news, News::Note(note));
                }
            },
        );
    }

    /// Says so if this machine's buffers hold the path up.
    fn judge_path(&self, round_trip: Duration) {
        const RECEIVE: &str = "net.ipv4.tcp_rmem";
        // What this machine's buffers hold up is the way to a proxy, which is another one.
        if !self.job.status.was_path_judged.swap(true, Relaxed)
            && !self.job.remote.may_be_proxied()
            && round_trip >= FAR
            && let Some(value) = machine::setting(RECEIVE)
            && let Some(text) = buffers::warning(RECEIVE, &value, round_trip)
        {
            self.tell(News::Note(text));
        }
    }

    /// What ended the last connection is remembered and shown.
    fn lost(&self, error: &ConnectionError) {
        self.job.status.relay_refused.store(is_worth_asking_again(error), Relaxed);
        self.state.borrow_mut().last_error = Some(error.to_string());
        self.tell(News::Lost(error.to_string()));
    }

    fn tell(&self, news: News) {
        tell(&self.job.news, news);
    }
}

/// What finds no room is not worth waiting for.
fn tell(to: &SyncSender<News>, news: News) {
    to.try_send(news).ok();
}

async fn tick(local: std::rc::Weak<Local>) {
    while let Some(local) = local.upgrade() {
        local.bell.ring();
        drop(local);
        clock::sleep(TICK).await;
    }
}

struct Watch(Rc<Local>);

impl Observer for Watch {
    fn notice(&mut self, _: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        let (local, status) = (&self.0, &self.0.job.status);
        let is_stream = matches!(local.job.place, Place::Stream(_));
        let is_leaving = is_stream || local.job.seed_for == SeedFor::Auto;
        match notice {
            // That is for the ends of uplinks.
            Notice::Available { .. } => {}
            Notice::Recommended { chunk_size_log2_max } => {
                status.handle_recommended(*chunk_size_log2_max);
            }
            Notice::Accepted { round_trip } => {
                local.judge_path(*round_trip);
                local.remember_relay();
                status.handle_accepted();
                local.state.borrow_mut().last_error = None;
                local.tell(News::Found);
            }
            Notice::ManifestVerified => return local.handle_manifest(file),
            Notice::Verified { chunk, .. } => status.handle_kept(*chunk),
            Notice::Served { chunk } => status.handle_served(*chunk),
            // Of a stream nothing is kept, and of a part of a tree not all of each chunk.
            Notice::Unreadable { .. } if is_stream || file.goal().is_some() => {}
            Notice::Unreadable { chunk, error } => {
                local.tell(News::Note(format!("could not read chunk {chunk} back: {error}")));
            }
            Notice::Complete if matches!(local.job.place, Place::Memory(_)) => {
                let manifest = file.manifest().cloned().expect("chunks were verified by it");
                local.enter(Stage::Manifest(manifest));
                return Reaction::Vanish;
            }
            Notice::Complete => {
                local.handle_whole();
                if is_leaving {
                    return Reaction::Leave;
                }
            }
            Notice::Waiting { missing_count, first_missing, .. } => {
                status.handle_missing(*missing_count, *first_missing);
            }
            Notice::Disconnected { error, .. } => {
                status.handle_disconnected();
                if local.stage().whole_at().is_some() && is_leaving {
                    // A peer that is not connected serves no other.
                    return Reaction::Vanish;
                }
                local.lost(error);
            }
            Notice::SeedingDone | Notice::LeaveGranted | Notice::Status(_) => {}
        }
        Reaction::GoOn
    }
}
