//! The relay: listener, shards, control thread, put together and taken apart again.
//!
//! ```text
//!  listener thread ──hand-off──► shards (pinned) ◄──requests, replies──► shards
//!                                   │ cells, heartbeats (read only)
//!                                   ▼
//!                                control thread: HTTP; main thread: signals
//! ```
//!
//! In the order of a request: `listener` accepts, `accept` begins a connection, `session`
//! speaks the protocol, `message` carries it to the `home`, whose swarm decides; `peers` carries
//! that out, `pump` writes.

mod accept;
mod blame;
mod cells;
mod claims;
mod closing;
mod connection;
mod control;
mod datagrams;
mod departures;
mod descriptors;
mod doctor;
mod drain;
mod fault;
mod fetching;
mod guesses;
mod home;
mod homes;
mod http;
mod listener;
mod logging;
mod memory;
mod message;
mod metrics;
mod outbox;
mod peers;
mod pump;
mod session;
mod shard;
mod shared;
mod signals;
mod slots;
mod snapshot;
mod status;
mod sweep;
mod unjoined;
mod unsent;
mod usage;
mod window;
mod window_pool;

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusRecorder;
use shards::{Driver, JoinError, Placement, Shards, Start, budget::Budget};
use tokio::sync::{mpsc, oneshot};

/// What [`crate::exercise`] drives.
#[cfg(any(test, fuzzing))]
pub(crate) mod exercise {
    pub(crate) use super::{
        message::FetchOrder,
        session::{Effect, NEWS_ITEMS_MAX, Session, SessionConfig},
        window::Window,
    };
}

pub use listener::ListenError;
pub use memory::{MemoryPlan, Verdict};
pub(crate) use session::SessionConfig;

use self::{
    control::{Control, Watching},
    descriptors::Descriptors,
    listener::Listeners,
    metrics::Metrics,
    shard::ShardState,
    shared::{Setup, Shared},
    snapshot::{ShardSnapshot, Watch},
    status::{Feed, access::Access},
};
use crate::{
    arguments,
    config::{RelayArgs, RelayConfig},
    protocol::limits::CHUNK_SIZE_LOG2_DEFAULT,
};

/// Requests that one shard may have under way to another: a turn's worth.
const CREDITS_PER_PAIR: usize = 256;

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

    /// The relay accepts at these addresses. Returns lines for stdout.
    ///
    /// # Errors
    /// Then the relay ends.
    fn start(&mut self, listening: &[SocketAddr]) -> anyhow::Result<Vec<String>>;

    /// The relay has ended.
    fn stop(&mut self);
}

/// The whole program: arguments to exit code. `prepare` makes what runs beside it.
#[must_use]
pub fn main_with_args(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    prepare: impl FnOnce(&RelayConfig, Driver) -> anyhow::Result<Box<dyn Companion>>,
) -> ExitCode {
    renounce_huge_pages();
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    if args.get(1).is_some_and(|word| word == "doctor") {
        return doctor::main(
            std::iter::once("relay doctor".into()).chain(args.into_iter().skip(2)),
        );
    }
    let args = match arguments::parse::<RelayArgs>(args) {
        Ok(args) => args,
        Err(error) => return arguments::print(&error),
    };
    let config = match RelayConfig::new(args) {
        Ok(config) => config,
        Err(error) => {
            crate::stderr::say(format_args!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let _log = match logging::init(config.args.log_format) {
        Ok(log) => log,
        Err(error) => {
            crate::stderr::say(format_args!("error: {}", no_thread("relay-log", &error)));
            return ExitCode::FAILURE;
        }
    };
    match run(config, prepare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::stderr::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The allocator asks for huge pages, and each thread that allocates a little then holds two
/// megabytes: 25 MiB of a relay that holds 34 without them. Chunks are copied no slower from small
/// pages (measured with the main job: within its noise). Where that can't be had, it costs memory.
fn renounce_huge_pages() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

/// Runs a relay until a signal ends it.
fn run(
    config: RelayConfig,
    prepare: impl FnOnce(&RelayConfig, Driver) -> anyhow::Result<Box<dyn Companion>>,
) -> anyhow::Result<()> {
    crate::stdout::check().context(NO_STDOUT)?;
    let args = config.args.clone();
    let placement = Placement::plan(args.cores, args.oversubscribe);
    if let Some(warning) = placement.warning() {
        tracing::warn!("{warning}");
    }
    let chosen = shards::driver::choose(args.driver).context("failed to start the event loops")?;
    let signals = signals::Signals::register().context("failed to register signal handlers")?;
    let first_signal = signals.watch()?;
    let mut companion = prepare(&config, chosen.driver)?;
    let own = companion.connections();
    let limit = descriptors::raise();
    let (wished, shard_count) = (args.max_peers.get(), placement.shard_count());
    // Before anything is bound: where there are too few, that is what is said.
    let least = config.listen.len().max(1);
    Descriptors::new(limit, wished, shard_count, least, own).places()?;
    let mut listeners = Listeners::bind(&config, shard_count)?;
    let addresses = listeners.local_addrs().len();
    let descriptors = Descriptors::new(limit, wished, shard_count, addresses, own);
    let places = descriptors::share_out(&descriptors)?;
    let http = control::bind(args.http)?;
    config.memory.tell();
    tracing::info!("driver {}", chosen.reason);
    tracing::info!("congestion control {}", listeners.congestion);

    let recorder = metrics::recorder()?;
    let (watch, snapshots) = Watch::new(placement.shard_count());
    let shared = Shared::new(Setup {
        budget: Budget::new(
            usize::try_from(config.memory.cache_bytes).unwrap_or(usize::MAX),
            homes::SWARMS_MAX,
        ),
        session: config.session(),
        eviction: args.eviction.into(),
        missing_timeout: args.missing_timeout,
        cells: metrics::cells(&recorder, placement.shard_count()),
        driver: chosen.driver.to_string(),
        congestion: listeners.congestion.clone(),
        peers_max: own + places.peers,
        places,
        watch,
    });
    let start = Start {
        placement,
        driver: chosen.driver,
        name: "relay",
        credits_per_pair: CREDITS_PER_PAIR,
        handoff_capacity: HANDOFF_CAPACITY,
    };
    let of_shards = Arc::clone(&shared);
    let groups: Arc<[_]> = listeners.take_groups().into();
    let main = move |shard| ShardState::new(shard, &of_shards, &groups).run();
    let shards = shards::start(start, main)
        .context("failed to start the event loops (--cores N starts N of them)")?;

    let chunk_bytes = 1 << CHUNK_SIZE_LOG2_DEFAULT.min(config.chunk_size_log2_max);
    shared.budget.warm_up(chunk_bytes, WARM_BYTES_MAX, shared.cells.len());
    let listening = listeners.local_addrs();
    let http_addr = http.local_addr().context("failed to read the HTTP address")?;
    let access =
        Access::new(config.http_token, shared.nonces.secret(), args.http_probes_need_token);
    let serving = Serving::start(http, recorder, access, (&shards, snapshots), &shared)?;
    let accepting = Accepting::start(listeners, &shards, &shared)?;
    let served = companion.start(&listening)?;
    // Only now is everything there that may be missing.
    announce(&listening, http_addr, served)?;
    shared.set_ready();
    first_signal.wait();
    let joined = drain(&shared, args.drain_timeout, accepting, shards);
    companion.stop();
    serving.stop();
    joined.context("a shard failed")?;
    tracing::info!("ended");
    Ok(())
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
        let control = Arc::new(Control {
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
            if let Err(error) = control::serve(&runtime, control, watching, http, ended) {
                tracing::error!("the HTTP service ended: {error:#}");
            }
        })?;
        Ok(Self { thread, end })
    }

    /// From now on nobody is answered.
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

    /// From now on nobody is accepted.
    fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the listener panicked");
        }
    }
}

/// What scripts read to learn which ports were picked.
fn announce(listening: &[SocketAddr], http: SocketAddr, served: Vec<String>) -> anyhow::Result<()> {
    let mut lines: Vec<_> =
        listening.iter().map(|addr| format!("relay listening on {addr}")).collect();
    lines.push(format!("relay http on {http}"));
    lines.extend(served);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    crate::stdout::print(text.as_bytes()).context(NO_STDOUT)
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<T>> {
    let builder = thread::Builder::new().name(name.into());
    builder.spawn(run).map_err(|error| no_thread(name, &error))
}

/// The system refuses a thread: why, and what to do.
fn no_thread(name: &str, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("failed to start thread {name}: {error}; {}", shards::MORE_THREADS)
}
