//! The relay: listener, shards, control thread, put together and taken apart again.
//!
//! ```text
//!  listener thread ──hand-off──► shards (pinned) ◄──requests, replies──► shards
//!                                   │ cells, heartbeats (read only)
//!                                   ▼
//!                                control thread: HTTP; main thread: signals
//! ```
//!
//! In the order of a request: `listener` accepts, `connection::accept` begins a connection, `session`
//! speaks the protocol, `message` carries it to the `home`, whose swarm decides; `shard::requests` carries
//! that out, `connection::pump` writes.

pub mod config;
mod connection;
mod descriptors;
#[cfg(feature = "exercise")]
pub mod exercise;
mod home;
pub mod identity;
mod lending;
pub mod limits;
mod listener;
mod memory;
mod message;
mod observe;
#[cfg(any(test, feature = "exercise"))]
mod one_shard;
mod process;
mod rates;
mod session;
mod shard;
mod signals;
pub mod uplinks;

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusRecorder;
use shards::{Driver, JoinError, Placement, Ringer, Shards, Start, budget::Budget};
use tokio::sync::{mpsc, oneshot};

pub use config::{Config, Congestion};
pub use descriptors::Descriptors;
pub use lending::find_place;
pub use limits::{Limits, Settings, SettingsError};
pub use listener::{ListenError, is_family_absent};
pub use memory::{MemoryPlan, Verdict};

use self::{
    home::homes::SWARMS_MAX,
    listener::Listeners,
    message::CREDITS_PER_PAIR,
    observe::{
        control::{self, Watching},
        metrics::{self, Metrics},
        snapshot::{ShardSnapshot, Watch},
        status::{Feed, View, access::Access},
    },
    process::{About, ChunkMemory, Policy, Setup, Shared},
    shard::{ShardState, turn},
    uplinks::UplinkPort,
};
use relay_protocol::{Pin, limits::CHUNK_SIZE_LOG2_DEFAULT};
use relay_transport::Identity;

/// Sockets that wait for one shard to take them over.
const HANDOFF_CAPACITY: usize = 1024;

/// Chunk memory that is touched before the first peer is let in, within `--cache`: what a wave of
/// deliveries needs while the rest is still to be had from the system. More would make an idle
/// relay large, and delay its start (20 ms on iron, 0.2 s in a virtual machine with two cores).
const WARM_BYTES_MAX: usize = 128 << 20;

/// A relay that can't say where it listens does not start.
const NO_STDOUT: &str =
    "failed to write this relay's addresses to stdout (send it to a file, or to /dev/null)";

/// What runs beside a relay in its process, and has connections to it.
pub trait Companion {
    /// How many; they don't count as `--max-peers`.
    fn connections(&self) -> usize;

    /// Where it hears which swarms have peers, if it runs the relay's uplinks.
    fn uplinks(&self) -> Option<UplinkPort> {
        None
    }

    /// The relay accepts at these addresses. Returns lines for stdout.
    ///
    /// # Errors
    /// Then the relay ends.
    fn start(&mut self, listening: &[SocketAddr]) -> anyhow::Result<Vec<String>>;

    /// The relay has ended.
    fn stop(&mut self);
}

/// The allocator asks for huge pages, and each thread that allocates a little then holds two
/// megabytes: 25 MiB of a relay that holds 34 without them. Chunks are copied no slower from small
/// pages (measured with the main job: within its noise). Where that can't be had, it costs memory.
pub fn renounce_huge_pages() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

/// Runs a relay until a signal ends it: `identity` is what it proves itself by, `prepare` makes what runs beside it.
///
/// # Errors
/// It could not start, or an event loop failed: a sentence for people.
pub fn run(
    config: Config,
    identity: Identity,
    prepare: impl FnOnce(Driver) -> anyhow::Result<Box<dyn Companion>>,
) -> anyhow::Result<()> {
    relay_program::stdout::check().context(NO_STDOUT)?;
    let placement = Placement::plan(config.cores, config.oversubscribe);
    if let Some(warning) = placement.warning() {
        tracing::warn!("{warning}");
    }
    let chosen =
        shards::driver::choose(config.driver).context("failed to start the event loops")?;
    let signals = signals::Signals::register().context("failed to register signal handlers")?;
    let first_signal = signals.watch().map_err(|error| no_thread(signals::THREAD, &error))?;
    let mut companion = prepare(chosen.driver)?;
    let own = companion.connections();
    let limit = descriptors::raise();
    let (wished, shard_count) = (config.max_peers.get(), placement.shard_count());
    // Before anything is bound: where there are too few, that is what is said.
    let least = config.listen.len().max(1);
    Descriptors::new(limit, wished, shard_count, least, own).places()?;
    let mut listeners = Listeners::bind(&config, shard_count)?;
    let addresses = listeners.local_addrs().len();
    let descriptors = Descriptors::new(limit, wished, shard_count, addresses, own);
    let places = descriptors::share_out(&descriptors)?;
    let http = control::bind(config.http)?;
    config.memory.tell();
    tracing::info!("driver {}", chosen.reason);
    tracing::info!("congestion control {}", listeners.congestion);

    let recorder = metrics::recorder()?;
    let (watch, snapshots) = Watch::new(placement.shard_count());
    let cache_bytes = usize::try_from(config.chunk_bytes()).unwrap_or(usize::MAX);
    let driver = chosen.driver.to_string();
    let found = find_place(&config.chunk_place, &config.memory, places.files);
    tracing::info!("{found}");
    let files = lending::open(found, &config.memory, places.files);
    let shared = Shared::new(Setup {
        memory: ChunkMemory { budget: Budget::new(cache_bytes, SWARMS_MAX), files },
        policy: Policy::of(&config, identity, companion.uplinks()),
        about: About { driver, congestion: listeners.congestion.clone() },
        cells: metrics::cells(&recorder, placement.shard_count()),
        peers_max: own + places.peers,
        places,
        watch,
    });
    begin_limits(&config.limits, &shared);
    let start = Start {
        placement,
        driver: chosen.driver,
        name: "relay",
        credits_per_pair: CREDITS_PER_PAIR,
        handoff_capacity: HANDOFF_CAPACITY,
    };
    let of_shards = Arc::clone(&shared);
    let groups: Arc<[_]> = listeners.take_groups().into();
    let main = move |shard| turn::run(ShardState::new(shard, &of_shards, &groups));
    let shards = shards::start(start, main)
        .context("failed to start the event loops (--cores N starts N of them)")?;

    let chunk_bytes = 1 << CHUNK_SIZE_LOG2_DEFAULT.min(config.chunk_size_log2_max);
    shared.memory.budget.warm_up(chunk_bytes, WARM_BYTES_MAX, shared.cells.len());
    let listening = listeners.local_addrs();
    let http_addr = http.local_addr().context("failed to read the HTTP address")?;
    let access =
        Access::new(config.http_token, shared.nonces.secret(), config.http_probes_need_token);
    let serving = Serving::start(http, recorder, access, (&shards, snapshots), &shared)?;
    let accepting = Accepting::start(listeners, &shards, &shared)?;
    let served = companion.start(&listening)?;
    // Only now is everything there that may be missing.
    announce(&listening, http_addr, shared.policy.identity.pin(), served)?;
    shared.set_ready();
    wait_for_end(&first_signal, &config.settings, &shared, &shards.ringers());
    let joined = drain(&shared, config.drain_timeout, accepting, shards);
    companion.stop();
    serving.stop();
    joined.context("a shard failed")?;
    tracing::info!("ended");
    Ok(())
}

/// From the start these limits hold, if there are any.
fn begin_limits(limits: &Limits, shared: &Shared) {
    if !limits.is_none() {
        shared.policy.rates.set(limits);
        tracing::info!("limits {limits}");
    }
}

/// Blocks until a signal ends the process. Meanwhile SIGHUP has the settings read again.
fn wait_for_end(first: &signals::First, settings: &Settings, shared: &Shared, ringers: &[Ringer]) {
    first.wait(|| {
        if reload(settings, shared) {
            // Each shard has waiters of its own to tell.
            ringers.iter().for_each(Ringer::ring);
        }
    });
}

/// Reads the settings again; whether other limits hold than before.
fn reload(settings: &Settings, shared: &Shared) -> bool {
    let before = shared.policy.rates.limits();
    match settings.read() {
        Err(error) => {
            tracing::error!("SIGHUP: {error}. The limits stay: {before}");
            false
        }
        Ok(_) if settings.file.is_none() => {
            tracing::info!("SIGHUP: there is no --settings file to read again");
            false
        }
        Ok(limits) if limits == before => {
            tracing::info!("SIGHUP: the limits stay as they are: {before}");
            false
        }
        Ok(limits) => {
            shared.policy.rates.set(&limits);
            tracing::info!("SIGHUP: limits are now {limits}; they were {before}");
            true
        }
    }
}

/// Lets what is under way end, then the event loops.
fn drain(
    shared: &Shared,
    timeout: Duration,
    accepting: Accepting,
    shards: Shards,
) -> Result<(), JoinError> {
    tracing::info!("draining: chunks in flight are finished; a second signal ends at once");
    shared.drain(shards::clock::now() + timeout);
    accepting.stop();
    shards.drain();
    shards.join()
}

/// The control thread, until it is stopped.
struct Serving {
    thread: thread::JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Serving {
    fn start(
        http: TcpListener,
        recorder: PrometheusRecorder,
        access: Access,
        (shards, snapshots): (&Shards, mpsc::Receiver<Arc<ShardSnapshot>>),
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let runtime = control::runtime()?;
        let (feed, asks) = Feed::new();
        let view = Arc::new(View {
            metrics: Metrics::new(&recorder, shared),
            recorder,
            heartbeats: shards.heartbeats(),
            access,
            feed,
            shared: Arc::clone(shared),
        });
        let watching = Watching { snapshots, asks, ringers: shards.ringers() };
        let (end, ended) = oneshot::channel::<()>();
        let thread = spawn("relay-control", move || {
            let ended = async { drop(ended.await) };
            if let Err(error) = control::serve(&runtime, view, watching, http, ended) {
                tracing::error!("the HTTP service ended: {error:#}");
            }
        })?;
        Ok(Self { thread, end })
    }

    /// From now on no request is answered.
    fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// The listener's thread, until it is stopped.
struct Accepting {
    thread: thread::JoinHandle<()>,
    stop: OwnedFd,
}

impl Accepting {
    fn start(listeners: Listeners, shards: &Shards, shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let (stopped, stop) = listener::stop_pair().context("failed to make a pipe")?;
        let (handoff, shared) = (shards.handoff(), Arc::clone(shared));
        let thread = spawn("relay-listener", move || listeners.run(&handoff, &shared, &stopped))?;
        Ok(Self { thread, stop })
    }

    /// From now on no connection is accepted.
    fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the listener panicked");
        }
    }
}

/// What scripts read to learn which ports were picked.
fn announce(
    listening: &[SocketAddr],
    http: SocketAddr,
    pin: Pin,
    served: Vec<String>,
) -> anyhow::Result<()> {
    let mut lines: Vec<_> =
        listening.iter().map(|addr| format!("relay listening on {addr}")).collect();
    lines.push(format!("relay http on {http}"));
    lines.extend(served);
    // Last: scripts count on the order of the others.
    lines.push(format!("relay pin {pin}"));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    relay_program::stdout::print(text.as_bytes()).context(NO_STDOUT)
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<T>> {
    let builder = thread::Builder::new().name(name.into());
    builder.spawn(run).map_err(|error| no_thread(name, &error))
}

/// The system refuses a thread: why, and what to do.
pub fn no_thread(name: &str, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("failed to start thread {name}: {error}; {}", shards::MORE_THREADS)
}
