//! The listener: one thread that binds, accepts, and hands sockets to shards. The one place for
//! admission by descriptors.
//!
//! It reads nothing from a socket.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt,
};
use shards::{
    Handoff, Incoming,
    steering::{DatagramGroup, bind_group},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Congestion};
use crate::process::Shared;

/// Connections that the kernel completes for us while the listener is busy.
const BACKLOG: i32 = 4096;

/// Ports tried, if any will do, until one is free for TCP and UDP.
const PORT_TRIES_MAX: u32 = 32;

/// Connections accepted before the listener looks whether it was told to stop.
const ACCEPTS_PER_TURN_MAX: usize = 64;

/// How long to wait when descriptors ran out: accepting at once would fail thousands of times.
const DESCRIPTOR_BACKOFF: Duration = Duration::from_millis(100);

/// How often a full hand-off queue is tried again.
const HANDOFF_BACKOFF: Duration = Duration::from_millis(1);

/// Unsent bytes beyond which the kernel calls a socket not writable: keeps the queue in the
/// kernel short, and costs nothing (measured).
const NOTSENT_LOWAT_BYTES: u32 = 256 << 10;

/// Silent paths are noticed after so long, then every so often.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What the listener listens on, bound but not yet accepting.
pub(crate) struct Listeners {
    listeners: Vec<TcpListener>,
    /// The datagram sockets of each address, one for each shard.
    groups: Vec<DatagramGroup>,
    /// The congestion control of the first.
    pub congestion: String,
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {addr}: {why}")]
pub struct ListenError {
    /// The address.
    pub addr: SocketAddr,
    /// The system's reason, and what to do.
    pub why: String,
    /// There are no addresses of this kind here, IPv6 above all.
    pub is_family_absent: bool,
}

impl ListenError {
    fn new(addr: SocketAddr, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses the port: stop it, or choose another with --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has the address: see `ip addr`, or use 0.0.0.0"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges: choose another with --listen"
            }
            _ => "choose another address with --listen",
        };
        Self { addr, why: format!("{error}; {hint}"), is_family_absent: is_family_absent(error) }
    }
}

impl Listeners {
    /// Binds every address, or says which can't be.
    pub(crate) fn bind(config: &Config, shard_count: usize) -> Result<Self, ListenError> {
        let bind = |addr| bind_both(addr, config, shard_count);
        let mut bound = Vec::new();
        if config.listen.is_empty() {
            bound = bind_defaults(Config::listen_defaults(), bind)?;
        }
        for &addr in &config.listen {
            bound.push(bind(addr)?);
        }
        let (listeners, groups): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
        // Datagrams go to the address that the stream went to: at all of them, or at none.
        let groups = groups.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default();
        let congestion =
            sockopt::tcp_congestion(&listeners[0]).unwrap_or_else(|_| "unknown".into());
        Ok(Self { listeners, groups, congestion })
    }

    /// The datagram sockets, for the shards.
    pub(crate) fn take_groups(&mut self) -> Vec<DatagramGroup> {
        std::mem::take(&mut self.groups)
    }

    /// The addresses, with the ports that were picked.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Accepts until `stop` becomes readable or its other end is closed.
    pub(crate) fn run(self, handoff: &Handoff, shared: &Arc<Shared>, stop: &OwnedFd) {
        let mut spare = File::open("/dev/null").ok();
        loop {
            let mut fds: Vec<PollFd<'_>> = self
                .listeners
                .iter()
                .map(|l| PollFd::from_borrowed_fd(l.as_fd(), PollFlags::IN))
                .collect();
            fds.push(PollFd::new(stop, PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("failed to wait for connections: {error}");
                    return;
                }
            }
            if !fds[self.listeners.len()].revents().is_empty() {
                return;
            }
            for listener in &self.listeners {
                if accept_all(listener, handoff, shared, stop, &mut spare) {
                    return;
                }
            }
        }
    }
}

/// Whether a socket can't be had because this system, or this network namespace, has no addresses of its
/// kind.
pub fn is_family_absent(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// The second only where there are addresses of its kind. If another program has its port, that is an error:
/// half of the peers would meet a stranger there.
fn bind_defaults<T>(
    [v4, v6]: [SocketAddr; 2],
    bind: impl Fn(SocketAddr) -> Result<T, ListenError>,
) -> Result<Vec<T>, ListenError> {
    let mut bound = vec![bind(v4)?];
    match bind(v6) {
        Ok(both) => bound.push(both),
        Err(error) if error.is_family_absent => tracing::info!("no IPv6 here: {error}"),
        Err(error) => return Err(error),
    }
    Ok(bound)
}

/// TCP and UDP on the same port. TCP first: it keeps other relays off the port, so that only shards
/// of this one share its datagrams. No group: any program's outgoing datagrams may have taken a port
/// that was asked for by number, and the stream is what most peers want of it.
fn bind_both(
    addr: SocketAddr,
    config: &Config,
    shard_count: usize,
) -> Result<(TcpListener, Option<DatagramGroup>), ListenError> {
    let steers = config.steers;
    let mut tries = if addr.port() == 0 { PORT_TRIES_MAX } else { 1 };
    loop {
        let listener = bind(addr, &config.congestion)?;
        let bound = listener.local_addr().map_err(|error| ListenError::new(addr, &error))?;
        tries -= 1;
        match bind_group(bound, shard_count, steers) {
            Ok(group) => return Ok((listener, Some(group))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && addr.port() != 0 => {
                tracing::warn!(
                    %addr,
                    "no datagrams: another program has the UDP port; peers can use --transport tcp"
                );
                return Ok((listener, None));
            }
            Err(error) => {
                let refused = ListenError::new(addr, &error);
                return Err(ListenError { why: format!("UDP: {}", refused.why), ..refused });
            }
        }
    }
}

/// On the listener: set after accept, it leaves another one's pacing on. What was not asked for by name
/// is a wish: the system may keep it for the privileged (`net.ipv4.tcp_allowed_congestion_control`).
pub(super) fn set_congestion(socket: &Socket, congestion: &Congestion) -> Result<(), String> {
    let Some(name) = congestion.name() else { return Ok(()) };
    match (sockopt::set_tcp_congestion(socket, name), congestion) {
        (Ok(()), _) => Ok(()),
        (Err(error), Congestion::Preferred(_)) => {
            tracing::info!("congestion control {name} is not to be had ({error})");
            Ok(())
        }
        (Err(error), _) => {
            let kind = io::Error::from(error).kind();
            let hint = if kind == io::ErrorKind::PermissionDenied {
                format!(
                    "the system keeps it for the privileged: have `sysctl -w \
                     net.ipv4.tcp_allowed_congestion_control=\"... {name}\"` done"
                )
            } else {
                "see `sysctl net.ipv4.tcp_available_congestion_control`".to_owned()
            };
            Err(format!(
                "congestion control '{name}' is not to be had ({error}): {hint}, or leave \
                 --congestion out"
            ))
        }
    }
}

fn bind(addr: SocketAddr, congestion: &Congestion) -> Result<TcpListener, ListenError> {
    let fail = |error: &io::Error| ListenError::new(addr, error);
    let bound = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // After a crash the port is free again at once; two relays still can't share it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let socket = bound().map_err(|error| fail(&error))?;
    set_congestion(&socket, congestion).map_err(|why| ListenError {
        addr,
        why,
        is_family_absent: false,
    })?;
    socket.listen(BACKLOG).map_err(|error| fail(&error))?;
    Ok(socket.into())
}

/// Accepts what there is, or some of it; whether the listener was told to stop meanwhile.
fn accept_all(
    listener: &TcpListener,
    handoff: &Handoff,
    shared: &Arc<Shared>,
    stop: &OwnedFd,
    spare: &mut Option<File>,
) -> bool {
    for _ in 0..ACCEPTS_PER_TURN_MAX {
        match listener.accept() {
            Ok((stream, remote)) => {
                if let Err(error) = prepare(&stream) {
                    // The peer is gone already.
                    tracing::debug!(%remote, "failed to set up a socket: {error}");
                    continue;
                }
                if hand_off(Incoming { stream, remote, tag: 0 }, handoff, stop) {
                    return true;
                }
                shared.listener.handed_off.add(1);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if is_exhausted(&error) => {
                shared.listener.descriptors.add(1);
                tracing::warn!(
                    "refused a connection: {error}; raise the descriptor limit (ulimit -n), or \
                     lower --max-peers"
                );
                // The spare descriptor takes the connection off the queue, so that it is refused
                // and not left hanging.
                drop(spare.take());
                drop(listener.accept());
                *spare = File::open("/dev/null").ok();
                if pause(DESCRIPTOR_BACKOFF, stop) {
                    return true;
                }
            }
            // A connection that was reset before it was accepted, and the like.
            Err(error) => tracing::debug!("failed to accept: {error}"),
        }
    }
    false
}

fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    Ok(())
}

/// To the shard on whose core the peer works, or the least loaded; whether the listener was told
/// to stop meanwhile.
fn hand_off(mut incoming: Incoming, handoff: &Handoff, stop: &OwnedFd) -> bool {
    let core = incoming_core(&incoming.stream);
    loop {
        let shard = handoff.place(core);
        tracing::debug!(remote = %incoming.remote, core, %shard, "handed off");
        match handoff.send(shard, incoming) {
            Ok(()) => return false,
            Err(back) => incoming = back,
        }
        if pause(HANDOFF_BACKOFF, stop) {
            return true;
        }
    }
}

#[cfg(target_os = "linux")]
fn incoming_core(stream: &TcpStream) -> Option<usize> {
    socket2::SockRef::from(stream).cpu_affinity().ok()
}

#[cfg(not(target_os = "linux"))]
fn incoming_core(_stream: &TcpStream) -> Option<usize> {
    None
}

/// Waits; whether the listener was told to stop meanwhile.
fn pause(time: Duration, stop: &OwnedFd) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let mut fds = [PollFd::new(stop, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
}

/// A listener that can be told to stop.
pub(crate) fn stop_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_that_is_absent_is_done_without_and_a_port_of_somebody_else_is_not() {
        let code = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(is_family_absent(&code(Errno::AFNOSUPPORT)));
        assert!(is_family_absent(&code(Errno::ADDRNOTAVAIL)));
        assert!(!is_family_absent(&code(Errno::ADDRINUSE)));
        assert!(!is_family_absent(&code(Errno::ACCESS)));
        let config = Config::for_tests;
        let local = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port);
        let Ok(taken) = TcpListener::bind(local("::1", 0)) else {
            println!("NOT CHECKED: there is no IPv6 here");
            return;
        };
        let port = taken.local_addr().expect("it is bound").port();
        let defaults = |port| {
            bind_defaults([local("127.0.0.1", 0), local("::1", port)], |addr| {
                bind_both(addr, &config(), 1)
            })
        };
        let Err(error) = defaults(port) else { panic!("it is somebody else's") };
        assert!(error.to_string().contains("another program uses the port"), "{error}");
        assert_eq!(defaults(0).map(|bound| bound.len()).ok(), Some(2));
    }

    #[test]
    fn a_congestion_control_is_demanded_only_if_somebody_asked_for_it() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let set = |congestion| set_congestion(&socket, &congestion);
        assert_eq!(set(Congestion::System), Ok(()));
        // As where the system keeps it for the privileged.
        assert_eq!(set(Congestion::Preferred("no-such")), Ok(()));
        let why = set(Congestion::Asked("no-such".into())).expect_err("there is none");
        assert!(why.contains("'no-such'") && why.contains("--congestion"), "{why}");
    }
}
