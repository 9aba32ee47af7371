//! What a relay is told at its start, checked: whatever is in here can be used as it is.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use relay_protocol::RELAY_PORT;
use relay_swarm::Eviction;
use shards::{DriverChoice, chunk_files::place::Choice};

use crate::{
    limits::{Limits, Settings},
    memory::MemoryPlan,
    session::SessionConfig,
};

pub use crate::session::admission::TokenRules;

/// Where peers connect unless told otherwise.
pub const DATA_PORT_DEFAULT: u16 = RELAY_PORT;

/// Fewer chunks than this make no cache: one is received, one is sent, and each may wait for the
/// other's place.
pub const CACHE_CHUNKS_MIN: u64 = 4;

/// A relay's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Event loops; `None`: all cores.
    pub cores: Option<NonZeroUsize>,
    /// Really start so many, even on fewer cores.
    pub oversubscribe: bool,
    /// What drives them.
    pub driver: DriverChoice,
    /// Addresses for peers, none of them optional; empty: the default ones.
    pub listen: Vec<SocketAddr>,
    /// Whether the kernel is to find a datagram's event loop, where it can.
    pub steers: bool,
    /// Congestion control to set on the listener.
    pub congestion: Congestion,
    /// Introduced peers, at most.
    pub max_peers: NonZeroUsize,
    /// The bound on chunk bytes, and what it follows from.
    pub memory: MemoryPlan,
    /// Where chunk files are made.
    pub chunk_place: Choice,
    /// Largest chunk that the cache is fit for.
    pub chunk_size_log2_max: u8,
    /// What to drop first.
    pub eviction: Eviction,
    /// Which peers are taken, and what they may do.
    pub admission: TokenRules,
    /// Address for the status page, `/api/v1`, `/metrics` and the probes.
    pub http: SocketAddr,
    /// HTTP requests must present it.
    pub http_token: Option<String>,
    /// The probes want it as well.
    pub http_probes_need_token: bool,
    /// After a signal, how long chunks in flight may take to finish.
    pub drain_timeout: Duration,
    /// How long peers wait for chunks that no connected peer holds.
    pub missing_timeout: Duration,
    /// The rates that hold at first.
    pub limits: Limits,
    /// Where they are read again.
    pub settings: Settings,
    /// Bytes of the cache that are not for the chunks of homes: those on their way between relays.
    pub shelf_bytes: u64,
    /// Tells this process apart from other relays, wherever they are.
    pub relay_id: u64,
}

impl Config {
    /// What sessions need of it.
    pub(crate) fn session(&self) -> SessionConfig {
        let least = self.chunk_bytes() / CACHE_CHUNKS_MIN;
        SessionConfig {
            admission: self.admission.clone(),
            chunk_size_log2_max: self.chunk_size_log2_max,
            chunk_size_log2_limit: u8::try_from(least.ilog2()).expect("at most 63"),
            relay_id: self.relay_id,
        }
    }

    /// The bound on bytes of chunks that homes have.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.memory.cache_bytes - self.shelf_bytes
    }

    /// Addresses tried when none was given; the second only where IPv6 exists.
    #[must_use]
    pub fn listen_defaults() -> [SocketAddr; 2] {
        [
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DATA_PORT_DEFAULT),
            SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DATA_PORT_DEFAULT),
        ]
    }
}

#[cfg(test)]
impl Config {
    /// What `relay` without options has.
    pub(crate) fn for_tests() -> Self {
        Self {
            cores: None,
            oversubscribe: false,
            driver: DriverChoice::Auto,
            listen: Vec::new(),
            steers: true,
            congestion: Congestion::System,
            max_peers: NonZeroUsize::MIN,
            memory: MemoryPlan::of_this_machine(None, 1),
            chunk_place: Choice::Never,
            chunk_size_log2_max: relay_protocol::limits::CHUNK_SIZE_LOG2_DEFAULT,
            eviction: Eviction::Demand,
            admission: TokenRules::default(),
            http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            http_token: None,
            http_probes_need_token: false,
            drain_timeout: Duration::from_secs(10),
            missing_timeout: Duration::from_secs(60),
            limits: Limits::default(),
            settings: Settings::default(),
            shelf_bytes: 0,
            relay_id: 0,
        }
    }
}

/// Whose congestion control it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Congestion {
    /// The system's.
    System,
    /// Ours, where the system lets us.
    Preferred(&'static str),
    /// The one that was asked for: that or none.
    Asked(String),
}

impl Congestion {
    /// What is set; `None` leaves the system's.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::System => None,
            Self::Preferred(name) => Some(name),
            Self::Asked(name) => Some(name),
        }
    }
}
