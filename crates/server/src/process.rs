//! What the threads of a relay's process share: configuration, the budget, a few counters; and what the process
//! uses, as the kernel counts it. Nothing here is locked.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use shards::{ChunkFiles, ShardId, budget::Budget};

use crate::{
    config::Config,
    descriptors::Places,
    observe::{
        cells::{Cell, ShardCells},
        guesses::Guesses,
        snapshot::Watch,
    },
    rates::Rates,
    session::{
        SessionConfig,
        window::{WINDOW_BYTES_INITIAL, WINDOW_BYTES_MIN},
    },
    shard::window_pool::{WINDOW_POOL_BYTES, WindowPool},
    uplinks::UplinkPort,
};
use relay_protocol::{Stats, SwarmKey, time::Time};
use relay_swarm::Eviction;
use relay_transport::Identity;

/// Shared by reference by everything in the process.
pub(crate) struct Shared {
    pub memory: ChunkMemory,
    pub policy: Policy,
    pub about: About,
    pub cells: Vec<Arc<ShardCells>>,
    pub nonces: Nonces,
    /// What descriptors allow.
    pub places: Places,
    pub peers: PeerCount,
    /// Wrong tokens on HTTP.
    pub guesses: Guesses,
    pub listener: ListenerCells,
    pub windows: WindowPool,
    /// Whether shards are being watched.
    pub watch: Watch,
    phase: Phase,
}

/// Where chunks are.
pub(crate) struct ChunkMemory {
    /// Of their bytes, wherever they are.
    pub budget: Budget,
    /// Where those lie that are lent to the kernel, if there is such a place.
    pub files: Option<ChunkFiles>,
}

/// What the relay was told to do.
pub(crate) struct Policy {
    pub identity: Identity,
    pub session: Arc<SessionConfig>,
    pub eviction: Eviction,
    pub missing_timeout: Duration,
    /// What changes while it runs.
    pub rates: Rates,
    /// What runs this relay's uplinks, if it has any.
    pub uplinks: Option<UplinkPort>,
}

impl Policy {
    pub(crate) fn of(config: &Config, identity: Identity, uplinks: Option<UplinkPort>) -> Self {
        Self {
            identity,
            session: Arc::new(config.session()),
            eviction: config.eviction,
            missing_timeout: config.missing_timeout,
            rates: Rates::default(),
            uplinks,
        }
    }
}

/// What the relay runs on, as others are told.
pub(crate) struct About {
    pub driver: String,
    pub congestion: String,
}

/// How many peers are introduced, and may be.
pub(crate) struct PeerCount {
    now: AtomicUsize,
    pub max: usize,
}

/// How far the process is.
struct Phase {
    step: AtomicU8,
    drain_deadline_ns: AtomicU64,
}

const PHASE_STARTING: u8 = 0;
const PHASE_READY: u8 = 1;
const PHASE_DRAINING: u8 = 2;

/// What the listener counts; only its thread writes.
#[derive(Debug, Default)]
pub(crate) struct ListenerCells {
    pub descriptors: Cell,
    pub handed_off: Cell,
}

impl Shared {
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let Setup { memory, policy, about, cells, peers_max, places, watch } = setup;
        let phase = Phase {
            step: AtomicU8::new(PHASE_STARTING),
            drain_deadline_ns: AtomicU64::new(u64::MAX),
        };
        Arc::new(Self {
            memory,
            policy,
            about,
            cells,
            nonces: Nonces::new(),
            places,
            peers: PeerCount { now: AtomicUsize::new(0), max: peers_max },
            guesses: Guesses::new(),
            listener: ListenerCells::default(),
            windows: WindowPool::default(),
            watch,
            phase,
        })
    }

    /// From now on peers are served.
    pub(crate) fn set_ready(&self) {
        self.phase.step.store(PHASE_READY, Ordering::SeqCst);
    }

    /// From now on nothing new is begun; what is under way has until `deadline`.
    pub(crate) fn drain(&self, deadline: Duration) {
        self.phase.drain_deadline_ns.store(Time::from_start(deadline).0, Ordering::SeqCst);
        self.phase.step.store(PHASE_DRAINING, Ordering::SeqCst);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase.step.load(Ordering::SeqCst) == PHASE_READY
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.step.load(Ordering::SeqCst) == PHASE_DRAINING
    }

    /// When draining ends, done or not.
    pub(crate) fn drain_deadline(&self) -> Time {
        Time(self.phase.drain_deadline_ns.load(Ordering::SeqCst))
    }

    /// The home shard of a swarm: its id is uniformly distributed already.
    pub(crate) fn home_of(&self, key: &SwarmKey) -> ShardId {
        let mut head = [0; 8];
        head.copy_from_slice(&key.id.0[..8]);
        let index = u64::from_le_bytes(head) % self.cells.len() as u64;
        ShardId(u16::try_from(index).expect("few shards"))
    }

    /// One more introduced peer, if there may be one.
    pub(crate) fn peer_joins(&self) -> bool {
        let joined = self.peers.now.fetch_add(1, Ordering::Relaxed) < self.peers.max;
        if !joined {
            self.peer_left();
        }
        joined
    }

    /// Introduced peers that there may be.
    pub(crate) fn peers_max(&self) -> usize {
        self.peers.max
    }

    pub(crate) fn peer_left(&self) {
        self.peers.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// Introduced peers of the process.
    pub(crate) fn peers(&self) -> usize {
        self.peers.now.load(Ordering::Relaxed)
    }

    /// W before the first sample.
    pub(crate) fn initial_window_bytes(&self) -> u64 {
        let peers = self.peers().max(1) as u64;
        (WINDOW_POOL_BYTES / peers).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_INITIAL)
    }

    pub(crate) fn sum(&self, cell: impl Fn(&ShardCells) -> &Cell) -> u64 {
        self.cells.iter().map(|cells| cell(cells).get()).sum()
    }

    /// Sum over all shards and all of these cells.
    pub(crate) fn sum_all<const N: usize>(&self, cells: impl Fn(&ShardCells) -> &[Cell; N]) -> u64 {
        self.cells.iter().flat_map(|shard| cells(shard)).map(Cell::get).sum()
    }

    /// The process's counters, for the STATS message.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            ingress_bytes: self.sum(|c| &c.data_in_bytes),
            egress_bytes: self.sum(|c| &c.data_out_bytes),
            cache_hits: self.sum(|c| &c.cache_hits),
            cache_misses: self.sum(|c| &c.cache_misses),
            cache_evictions: self.sum(|c| &c.cache_evictions),
            chunk_bytes_peak: self.memory.budget.peak_bytes() as u64,
            // What is in files is not resident in the process, and is its own all the same.
            rss_bytes_peak: rss_bytes_peak()
                + self.memory.files.as_ref().map_or(0, |files| files.bytes_peak() as u64),
            cpu_us: cpu_us(),
            hedges: self.sum(|c| &c.hedges),
            peers_banned: self.sum(|c| &c.peers_banned),
            shards: u32::try_from(self.cells.len()).unwrap_or(u32::MAX),
            driver: self.about.driver.clone(),
            congestion: self.about.congestion.clone(),
        }
    }
}

/// What [`Shared::new`] needs.
pub(crate) struct Setup {
    pub memory: ChunkMemory,
    pub policy: Policy,
    pub about: About,
    pub cells: Vec<Arc<ShardCells>>,
    pub peers_max: usize,
    pub places: Places,
    pub watch: Watch,
}

/// Bytes of what is made up for one page.
const NONCE_BYTES: usize = 16;

/// Unpredictable numbers that are used once: a keyed hash of a counter.
pub(crate) struct Nonces {
    key: [u8; 32],
    counter: AtomicU64,
}

impl Nonces {
    fn new() -> Self {
        let mut key = [0; 32];
        let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
        assert_eq!(filled, Ok(key.len()), "32 bytes of randomness are always to be had");
        Self { key, counter: AtomicU64::new(0) }
    }

    /// A key of this process for another purpose than these.
    pub(crate) fn secret(&self) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, b"http session").as_bytes()
    }

    pub(crate) fn next(&self, remote: SocketAddr) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.next_secret(remote)[..NONCE_BYTES]);
        nonce
    }

    /// The same, as long as a key. None of it is ever shown as a nonce.
    pub(crate) fn next_secret(&self, remote: SocketAddr) -> [u8; 32] {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&count.to_le_bytes());
        hasher.update(remote.to_string().as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// Resident memory, the most so far, in bytes; 0 where the kernel does not tell.
fn rss_bytes_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// CPU time of the process in microseconds.
pub(crate) fn cpu_us() -> u64 {
    let spent = clock(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(id: rustix::time::ClockId) -> Duration {
    let spent = rustix::time::clock_gettime(id);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or(0),
        u32::try_from(spent.tv_nsec).unwrap_or(0),
    )
}
