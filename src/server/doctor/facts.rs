//! What there is on this machine: limits, quotas, ports. Says nothing of what it means.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use rustix::process::{Resource, getrlimit};
use shards::{Driver, Placement};
use socket2::{Domain, Socket, Type};

use crate::config::RelayConfig;

/// Buffer sizes that the system caps, by the names of its settings.
const BUFFERS: [&str; 4] =
    ["net.core.rmem_max", "net.core.wmem_max", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];

/// What was found.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) is_linux: bool,
    /// Whether it is `io_uring` (or this system's best), and why; or why it does not work.
    pub(super) driver: Result<(bool, String), String>,
    pub(super) io_uring_disabled: Option<u64>,
    pub(super) locked_bytes: Option<u64>,
    pub(super) descriptors: Option<u64>,
    pub(super) peers_wished: usize,
    /// Largest size of each kind of buffer.
    pub(super) buffers: Vec<(&'static str, u64)>,
    pub(super) congestion_default: Option<String>,
    pub(super) congestion_available: Vec<String>,
    pub(super) congestion_wanted: Option<String>,
    pub(super) is_loopback_only: bool,
    pub(super) shard_count: usize,
    pub(super) cores_wished: usize,
    pub(super) quota_cores: Option<f64>,
    pub(super) cache_bytes: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) ipv6: Result<(), String>,
    /// For what, where, and whether it can be.
    pub(super) ports: Vec<(&'static str, SocketAddr, Result<(), String>)>,
}

impl Facts {
    /// Looks at everything.
    pub(super) fn gather(config: &RelayConfig) -> Self {
        let args = &config.args;
        let placement = Placement::plan(args.cores, args.oversubscribe);
        let driver = shards::driver::choose(args.driver)
            .map(|chosen| (chosen.driver != Driver::Epoll, chosen.reason))
            .map_err(|error| error.to_string());
        let groups = own_groups();
        Self {
            is_linux: cfg!(target_os = "linux"),
            driver,
            io_uring_disabled: setting("kernel.io_uring_disabled").and_then(|text| number(&text)),
            locked_bytes: getrlimit(Resource::Memlock).current,
            // The relay raises the soft limit by itself.
            descriptors: getrlimit(Resource::Nofile).maximum,
            peers_wished: args.max_peers.get(),
            buffers: BUFFERS.iter().filter_map(|&name| Some((name, largest(name)?))).collect(),
            congestion_default: setting("net.ipv4.tcp_congestion_control"),
            congestion_available: setting("net.ipv4.tcp_available_congestion_control")
                .map(|names| names.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            congestion_wanted: config.congestion.clone(),
            is_loopback_only: !config.listen.is_empty()
                && config.listen.iter().all(|addr| addr.ip().is_loopback()),
            shard_count: placement.shard_count(),
            cores_wished: args.cores.map_or(0, std::num::NonZeroUsize::get),
            quota_cores: groups.iter().filter_map(|group| quota(group)).reduce(f64::min),
            cache_bytes: args.cache,
            memory_bytes: memory(&groups),
            ipv6: ipv6(),
            ports: ports(config),
        }
    }
}

/// A kernel's setting, by its name.
fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The last of a setting's numbers: the most.
fn largest(name: &str) -> Option<u64> {
    number(setting(name)?.split_whitespace().last()?)
}

/// The control groups that this process is in, the innermost first, as directories.
fn own_groups() -> Vec<std::path::PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let root = Path::new("/sys/fs/cgroup");
    let innermost = root.join(own);
    innermost.ancestors().take_while(|path| path.starts_with(root)).map(Path::to_owned).collect()
}

/// The cores that a group may use, if that is limited.
fn quota(group: &Path) -> Option<f64> {
    parse_quota(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

/// `QUOTA PERIOD` in microseconds, or `max PERIOD`.
pub(super) fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

/// Whole cores of a quota.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of cores")]
pub(super) fn floor(cores: f64) -> usize {
    cores.max(0.0) as usize
}

/// What may be used: what is available, or less if a group limits it.
fn memory(groups: &[std::path::PathBuf]) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = number(line.trim().trim_end_matches("kB"))? << 10;
    let limit =
        |group: &std::path::PathBuf| number(&fs::read_to_string(group.join("memory.max")).ok()?);
    Some(groups.iter().filter_map(limit).fold(available, u64::min))
}

fn ipv6() -> Result<(), String> {
    let addr: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, 0).into();
    TcpListener::bind(addr).map(drop).map_err(|error| error.to_string())
}

fn ports(config: &RelayConfig) -> Vec<(&'static str, SocketAddr, Result<(), String>)> {
    let is_default = config.listen.is_empty();
    let listen =
        if is_default { RelayConfig::listen_defaults().to_vec() } else { config.listen.clone() };
    let mut ports = Vec::new();
    for addr in listen {
        // By default IPv6 is used where it exists.
        if is_default && addr.is_ipv6() && ipv6().is_err() {
            continue;
        }
        ports.push(("peers (TCP)", addr, bind(addr, Type::STREAM)));
        ports.push(("peers (UDP)", addr, bind(addr, Type::DGRAM)));
    }
    let http = config.args.http;
    ports.push(("HTTP", http, bind(http, Type::STREAM)));
    ports
}

/// Whether a relay could bind it: as it does, then let go.
fn bind(addr: SocketAddr, kind: Type) -> Result<(), String> {
    let bound = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(addr), kind, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            // With reuse, only listening shows that somebody else does.
            socket.listen(1)?;
            drop(TcpListener::from(socket));
        } else {
            socket.bind(&addr.into())?;
            drop(UdpSocket::from(socket));
        }
        Ok(())
    };
    bound().map_err(|error| error.to_string())
}
