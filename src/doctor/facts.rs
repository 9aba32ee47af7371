//! What there is on this machine: limits, quotas, ports. Says nothing of what it means.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    net::sockopt,
    process::{Resource, getrlimit},
};
use shards::{Driver, DriverChoice, Placement, driver::FORCE_EPOLL_VARIABLE};
use socket2::{Domain, Socket, Type};

use super::ports::{self, Port};
use relay_program::{
    buffers,
    machine::{Groups, setting},
};
use relay_protocol::Pin;
use relay_server::{Config, Congestion, Descriptors, MemoryPlan, find_place};

use crate::config::RelayArgs;

/// Settings that cap socket buffers, with what the relay would like to have: what one peer may have
/// under way, in each direction of a stream, and what its datagram sockets ask for.
pub(super) const BUFFERS: [(&str, u64); 3] = [
    ("net.ipv4.tcp_wmem", buffers::WANTED_BYTES),
    ("net.ipv4.tcp_rmem", buffers::WANTED_BYTES),
    ("net.core.rmem_max", shards::datagrams::WISHED_BUFFER_BYTES as u64),
];

/// What was found.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) is_linux: bool,
    /// Whether it is `io_uring` (or this system's best), and why; or why it does not work.
    pub(super) driver: Result<(bool, String), String>,
    pub(super) driver_wished: DriverChoice,
    /// An environment variable rules rings out.
    pub(super) is_uring_renounced: bool,
    pub(super) io_uring_disabled: Option<u64>,
    pub(super) locked_bytes: Option<u64>,
    pub(super) descriptors: Descriptors,
    /// Settings that cap socket buffers, as the kernel tells them.
    pub(super) buffers: Vec<(&'static str, String)>,
    pub(super) congestion_default: Option<String>,
    pub(super) congestion_available: String,
    /// What those without privileges may choose.
    pub(super) congestion_allowed: String,
    pub(super) congestion: Congestion,
    /// Whether a socket takes it.
    pub(super) congestion_outcome: Result<(), (io::ErrorKind, String)>,
    pub(super) is_loopback_only: bool,
    pub(super) shard_count: usize,
    pub(super) cores_available: usize,
    pub(super) cores_wished: usize,
    pub(super) quota_cores: Option<f64>,
    pub(super) memory: MemoryPlan,
    /// Where chunks can be lent from, or why not, and what mends that.
    pub(super) lending: (String, Option<String>),
    pub(super) loopback: Result<(), String>,
    pub(super) ipv6: Result<(), String>,
    /// What peers know the relay by, `None` if it is made at the first start; or what is wrong with its file.
    pub(super) pin: Result<Option<Pin>, String>,
    /// The files of `--serve` that can't be read, and why.
    pub(super) unreadable: Vec<(PathBuf, String)>,
    pub(super) ports: Vec<Port>,
}

impl Facts {
    /// Looks at everything.
    pub(super) fn gather(args: &RelayArgs, config: &Config) -> Self {
        let placement = Placement::plan(args.cores, args.oversubscribe);
        let driver = shards::driver::choose(args.driver)
            .map(|chosen| (chosen.driver != Driver::Epoll, chosen.reason))
            .map_err(|error| error.to_string());
        let ports = ports::ports(config);
        let addresses = ports.iter().filter(|port| port.what == ports::Use::Streams).count();
        let (shard_count, own) = (placement.shard_count(), args.origin.serve.len());
        let buffer = |name| Some((name, setting(name)?));
        // The relay raises the soft limit by itself.
        let limit = getrlimit(Resource::Nofile).maximum;
        let descriptors =
            Descriptors::new(limit, args.max_peers.get(), shard_count, addresses, own);
        Self {
            is_linux: cfg!(target_os = "linux"),
            driver,
            driver_wished: args.driver,
            is_uring_renounced: std::env::var_os(FORCE_EPOLL_VARIABLE).is_some(),
            io_uring_disabled: setting("kernel.io_uring_disabled").and_then(|text| number(&text)),
            locked_bytes: getrlimit(Resource::Memlock).current,
            buffers: BUFFERS.iter().filter_map(|(name, _)| buffer(*name)).collect(),
            congestion_default: setting("net.ipv4.tcp_congestion_control"),
            congestion_available: setting("net.ipv4.tcp_available_congestion_control")
                .unwrap_or_default(),
            congestion_allowed: setting("net.ipv4.tcp_allowed_congestion_control")
                .unwrap_or_default(),
            congestion: config.congestion.clone(),
            congestion_outcome: set_congestion(&config.congestion),
            is_loopback_only: !config.listen.is_empty()
                && config.listen.iter().all(|addr| addr.ip().is_loopback()),
            shard_count,
            cores_available: placement.available(),
            cores_wished: args.cores.map_or(0, std::num::NonZeroUsize::get),
            quota_cores: Groups::gather().cores,
            memory: config.memory,
            lending: lending(config, &descriptors),
            descriptors,
            loopback: ports::loopback(),
            ipv6: ports::ipv6(),
            pin: args.identity.look().map(|identity| identity.map(|identity| identity.pin())),
            unreadable: args.origin.serve.iter().filter_map(|path| unreadable(path)).collect(),
            ports,
        }
    }
}

/// What a start would find.
fn lending(config: &Config, descriptors: &Descriptors) -> (String, Option<String>) {
    let files = descriptors.places().map_or(0, |places| places.files);
    let found = find_place(&config.chunk_place, &config.memory, files);
    (found.what, found.mend)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Whether a socket takes it: what is there may still be kept for the privileged.
fn set_congestion(congestion: &Congestion) -> Result<(), (io::ErrorKind, String)> {
    let set = |name: &str| -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        Ok(sockopt::set_tcp_congestion(&socket, name)?)
    };
    congestion.name().map_or(Ok(()), set).map_err(|error| (error.kind(), error.to_string()))
}

/// Whole cores of a quota.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of cores")]
pub(super) fn floor(cores: f64) -> usize {
    cores.max(0.0) as usize
}

fn unreadable(path: &Path) -> Option<(PathBuf, String)> {
    let why = match File::open(path).and_then(|file| file.metadata()) {
        Ok(about) if about.is_file() => return None,
        Ok(_) => "it is not a regular file".to_owned(),
        Err(error) => error.to_string(),
    };
    Some((path.to_owned(), why))
}
