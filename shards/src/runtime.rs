//! Starts one pinned thread and one event loop per shard, and joins them.
//!
//! All shards are up before any main function runs. A shard that panics makes the others drain,
//! since they would wait for it forever, and is named by [`Shards::join`]. Does not catch signals
//! and sets no deadline for draining: the owner does.

use std::{
    fmt,
    future::Future,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use rustix::io::Errno;

use crate::{
    clock,
    cores::Cores,
    driver::{self, Driver, EventLoop},
    handoff::{Arrivals, Handoff, Incoming, handoff},
    heartbeats::{Beat, Heartbeats},
    inbox::{Inbox, Mailbox, inbox},
    placement::{Placement, ShardId},
    port::Port,
    ringer::{BellSocket, Ringer},
    root::Main,
    station::Station,
    task,
};

/// What lets a process start more threads.
pub const MORE_THREADS: &str = "let the process have more threads (pids.max of its control group, ulimit -u) \
                                or more memory for their stacks (ulimit -v)";

/// What lets a process have the thread that it was refused, or the descriptors which that needs.
#[must_use]
pub fn mend_of_no_thread(error: &io::Error) -> &'static str {
    let descriptors = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    match error.raw_os_error().is_some_and(|code| descriptors.contains(&code)) {
        true => "let the process open more files (ulimit -n)",
        false => MORE_THREADS,
    }
}

/// How to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// How many shards, and where.
    pub placement: Placement,
    /// What their event loops wait on, see [`driver::choose`].
    pub driver: Driver,
    /// Threads are called this, a dash and the shard's number. Systems show 15 characters.
    pub name: &'static str,
    /// Requests that each shard may have in flight to each other shard, at least 1.
    pub credits_per_pair: usize,
    /// Sockets that may wait at each shard to be taken, at least 1.
    pub handoff_capacity: usize,
}

/// The shards could not be started. None of their main functions ran.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No descriptor for a doorbell.
    #[error("no doorbell for shard {shard}: {error}")]
    Doorbell {
        /// The shard that it was for.
        shard: ShardId,
        /// The system's reason.
        error: io::Error,
    },
    /// The system refuses a thread.
    #[error("no thread for shard {shard}: {error}; {MORE_THREADS}")]
    Thread {
        /// The shard that it was for.
        shard: ShardId,
        /// The system's reason.
        error: io::Error,
    },
    /// Neither the driver asked for nor the fallback can be built.
    #[error("no event loop for shard {shard}: {error}")]
    EventLoop {
        /// The shard that it was for.
        shard: ShardId,
        /// The system's reason.
        error: io::Error,
    },
}

/// A shard ended by a panic.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {shard} panicked: {message}")]
pub struct JoinError {
    /// The first such shard by number.
    pub shard: ShardId,
    /// What the panic said.
    pub message: String,
}

/// All shards, as seen by the thread that started them. Dropping it lets them run on.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<thread::JoinHandle<()>>,
    ringers: Arc<[Ringer]>,
    draining: Arc<AtomicBool>,
    handoff: Handoff,
    heartbeats: Heartbeats,
}

/// One shard, as seen by its main function. Clones are the same shard.
pub struct Shard<Q, R> {
    /// Which one.
    pub id: ShardId,
    /// The core that its thread is pinned to, by its system number.
    pub core: Option<usize>,
    /// What its event loop waits on: not what was asked for, if that was refused on this thread.
    pub driver: Driver,
    /// Its end of the mesh.
    pub port: Port<Q, R>,
    arrivals: Arrivals,
    station: Rc<Station>,
    draining: Arc<AtomicBool>,
    beat: Beat,
    cores: Cores,
}

impl<Q, R> Clone for Shard<Q, R> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            core: self.core,
            driver: self.driver,
            port: self.port.clone(),
            arrivals: self.arrivals.clone(),
            station: self.station.clone(),
            draining: self.draining.clone(),
            beat: self.beat.clone(),
            cores: self.cores.clone(),
        }
    }
}

impl<Q, R> fmt::Debug for Shard<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

impl<Q, R> Shard<Q, R> {
    /// Waits for the next socket that was handed over. A shard must take its sockets, or its
    /// `Port::wait` keeps returning.
    pub async fn accepted(&self) -> Incoming {
        loop {
            if let Some(incoming) = self.try_accept() {
                return incoming;
            }
            self.station.wait().await;
        }
    }

    /// The next socket that was handed over, if there is one.
    #[must_use]
    pub fn try_accept(&self) -> Option<Incoming> {
        self.arrivals.next()
    }

    /// Counts a connection that this shard opened by itself. Handed-over ones count already.
    pub fn connection_opened(&self) {
        self.arrivals.opened();
    }

    /// Takes a connection off this shard's count.
    ///
    /// # Panics
    /// There was none.
    pub fn connection_closed(&self) {
        self.arrivals.closed();
    }

    /// Whether the shards were told to come to an end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Leaves a sign of life. `Port::wait` and a ticker do, too.
    pub fn beat(&self) {
        self.beat.beat();
    }

    /// This shard has little left to do: from now on those that have more may run on its core as well as on
    /// their own. It runs on where it is. Threads that either has started stay where they are. Again
    /// does nothing.
    pub fn lend_core(&self) {
        self.cores.lend(self.id);
    }
}

impl Shards {
    /// Number of shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.ringers.len()
    }

    /// To give them sockets.
    #[must_use]
    pub fn handoff(&self) -> Handoff {
        self.handoff.clone()
    }

    /// To see that they live.
    #[must_use]
    pub fn heartbeats(&self) -> Heartbeats {
        self.heartbeats.clone()
    }

    /// To wake one.
    ///
    /// # Panics
    /// There is no such shard.
    #[must_use]
    pub fn ringer(&self, shard: ShardId) -> Ringer {
        self.ringers[shard.index()].clone()
    }

    /// To wake each, in their order.
    #[must_use]
    pub fn ringers(&self) -> Vec<Ringer> {
        self.ringers.to_vec()
    }

    /// Tells all shards to come to an end, and wakes them. Again does nothing.
    pub fn drain(&self) {
        drain(&self.draining, &self.ringers);
    }

    /// Waits until all main functions have ended. Does not tell them to.
    ///
    /// # Errors
    /// A shard panicked; all have ended nevertheless.
    pub fn join(self) -> Result<(), JoinError> {
        let mut failed = None;
        for (index, thread) in self.threads.into_iter().enumerate() {
            if let Err(payload) = thread.join() {
                let shard = ShardId::from_index(index);
                let message = task::panic_message(&*payload);
                failed.get_or_insert(JoinError { shard, message });
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn drain(draining: &AtomicBool, ringers: &[Ringer]) {
    if !draining.swap(true, Ordering::SeqCst) {
        ringers.iter().for_each(Ringer::ring);
    }
}

/// What a shard's thread is born with.
struct Seed<Q, R> {
    id: ShardId,
    core: Option<usize>,
    driver: Driver,
    credits_per_pair: usize,
    mailboxes: Vec<Mailbox<Q, R>>,
    inbox: Inbox<Q, R>,
    arrivals: Arrivals,
    bell: BellSocket,
    ringers: Arc<[Ringer]>,
    draining: Arc<AtomicBool>,
    beat: Beat,
    cores: Cores,
}

/// Starts all shards; each runs `main` once, and ends when it ends.
///
/// # Errors
/// A thread, a doorbell or an event loop can't be had; then no `main` runs.
///
/// # Panics
/// `credits_per_pair` or `handoff_capacity` is 0.
pub fn start<Q, R, F, Fut>(start: Start, main: F) -> Result<Shards, StartError>
where
    Q: Send + 'static,
    R: Send + 'static,
    F: Fn(Shard<Q, R>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let heartbeats = Heartbeats::new(start.placement.shard_count());
    let draining = Arc::new(AtomicBool::new(false));
    let name = start.name;
    let (seeds, handoff, ringers) = seeds::<Q, R>(start, &heartbeats, &draining)?;
    let mut threads = Vec::with_capacity(seeds.len());
    let mut gates = Vec::with_capacity(seeds.len());
    let (report, reports) = mpsc::sync_channel(seeds.len());
    let shard_count = seeds.len();
    for seed in seeds {
        let (shard, main, report) = (seed.id, main.clone(), report.clone());
        let (gate, gate_opened) = mpsc::sync_channel::<()>(1);
        let body = move || grow(seed, main, &report, &gate_opened);
        let thread = thread::Builder::new().name(format!("{name}-{shard}")).spawn(body);
        // On an error the gates close, and threads that wait at them end.
        threads.push(thread.map_err(|error| StartError::Thread { shard, error })?);
        gates.push(gate);
    }
    for _ in 0..shard_count {
        let (shard, result) = reports.recv().expect("each shard reports once before it runs");
        result.map_err(|error| StartError::EventLoop { shard, error })?;
    }
    for gate in gates {
        gate.send(()).expect("a shard that reported waits at its gate");
    }
    Ok(Shards { threads, ringers, draining, handoff, heartbeats })
}

type Seeds<Q, R> = (Vec<Seed<Q, R>>, Handoff, Arc<[Ringer]>);

/// Makes all channels and doorbells.
fn seeds<Q, R>(
    start: Start,
    heartbeats: &Heartbeats,
    draining: &Arc<AtomicBool>,
) -> Result<Seeds<Q, R>, StartError> {
    let Start { placement, driver, credits_per_pair, handoff_capacity, .. } = start;
    let mut ringers = Vec::new();
    let mut bells = Vec::new();
    for shard in placement.shards() {
        let made = Ringer::new().map_err(|error| StartError::Doorbell { shard, error });
        let (ringer, bell) = made?;
        ringers.push(ringer);
        bells.push(bell);
    }
    let ringers: Arc<[Ringer]> = ringers.into();
    let shard_count = placement.shard_count();
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = ringers
        .iter()
        .map(|ringer| inbox::<Q, R>(shard_count, credits_per_pair, ringer.clone()))
        .unzip();
    let (handoff, arrivals) =
        handoff(placement.clone(), &ringers, handoff_capacity, draining.clone());
    let cores = Cores::new(&placement);
    let parts = placement.shards().zip(inboxes).zip(arrivals).zip(bells);
    let seed = |(((id, inbox), arrivals), bell)| Seed {
        id,
        core: placement.core_of(id),
        driver,
        credits_per_pair,
        mailboxes: mailboxes.clone(),
        inbox,
        arrivals,
        bell,
        ringers: ringers.clone(),
        draining: draining.clone(),
        beat: heartbeats.beat_of(id),
        cores: cores.clone(),
    };
    Ok((parts.map(seed).collect(), handoff, ringers.clone()))
}

/// Makes the other shards drain if this one panics.
struct Alarm {
    draining: Arc<AtomicBool>,
    ringers: Arc<[Ringer]>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            drain(&self.draining, &self.ringers);
        }
    }
}

/// The life of a shard's thread.
fn grow<Q, R, F, Fut>(
    mut seed: Seed<Q, R>,
    main: F,
    report: &mpsc::SyncSender<(ShardId, io::Result<()>)>,
    gate: &mpsc::Receiver<()>,
) where
    Q: Send + 'static,
    R: Send + 'static,
    F: Fn(Shard<Q, R>) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let _alarm = Alarm { draining: seed.draining.clone(), ringers: seed.ringers.clone() };
    let id = seed.id;
    // Before the event loop is built, so that its memory is the core's own.
    seed.core = seed.core.filter(|&core| pin(id, core));
    let _occupant = seed.core.map(|_| seed.cores.occupy(id));
    let (mut event_loop, driver) = match build(id, seed.driver) {
        Ok(built) => built,
        Err(error) => {
            // There is no listener only if another shard has failed already.
            drop(report.send((id, Err(error))));
            return;
        }
    };
    seed.driver = driver;
    if report.send((id, Ok(()))).is_err() || gate.recv().is_err() {
        return;
    }
    event_loop.run(Main::new(run(seed, main)));
}

fn pin(shard: ShardId, core: usize) -> bool {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    if !pinned {
        tracing::warn!(%shard, core, "the shard could not be pinned to its core and runs anywhere");
    }
    pinned
}

/// Runs one future on this thread, without a shard around it, until it ends; what it spawned and
/// left running is dropped then. For tools and tests: there is no mesh and no pinning.
///
/// # Errors
/// The event loop can't be built.
pub fn block_on(driver: Driver, future: impl Future<Output = ()> + 'static) -> io::Result<()> {
    let run = async move {
        task::spawn(clock::look());
        future.await;
    };
    driver::build(driver)?.run(Main::new(run));
    Ok(())
}

/// A ring may be refused to one thread though others got theirs: locked memory runs out.
fn build(shard: ShardId, wanted: Driver) -> io::Result<(Box<dyn EventLoop>, Driver)> {
    match driver::build(wanted) {
        Err(error) if wanted == Driver::IoUring && cfg!(target_os = "linux") => {
            tracing::warn!(%shard, %error, "io_uring is refused to this shard: it runs on epoll");
            Ok((driver::build(Driver::Epoll)?, Driver::Epoll))
        }
        result => Ok((result?, wanted)),
    }
}

/// Builds the shard on its own thread and runs its main function.
async fn run<Q, R, F, Fut>(seed: Seed<Q, R>, main: F)
where
    Q: Send + 'static,
    R: Send + 'static,
    F: Fn(Shard<Q, R>) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (inbox, arrivals) = (seed.inbox.clone(), seed.arrivals.clone());
    let has_work = Box::new(move || !inbox.is_empty() || !arrivals.is_empty());
    let ringer = seed.ringers[seed.id.index()].clone();
    let station = Rc::new(Station::new(ringer, has_work));
    let listening = station.clone().listen(seed.bell);
    task::spawn(async move {
        let error = listening.await;
        panic!("the doorbell can't be watched: {error:?}");
    });
    task::spawn(seed.beat.clone().tick());
    let port = Port::new(
        seed.id,
        seed.credits_per_pair,
        seed.mailboxes,
        seed.inbox,
        station.clone(),
        seed.beat.clone(),
    );
    let shard = Shard {
        id: seed.id,
        core: seed.core,
        driver: seed.driver,
        port,
        arrivals: seed.arrivals,
        station,
        draining: seed.draining,
        beat: seed.beat,
        cores: seed.cores,
    };
    main(shard).await;
}
