//! Whether the relay's addresses can be had: bound as it binds them, all at once, then let go.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use socket2::{Domain, Socket, Type};

use relay_server::{Config, is_family_absent};

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Without it there is no relay.
    Streams,
    /// Without it peers have streams.
    Datagrams,
    /// Without it there is no relay.
    Http,
}

/// An address, and why it can't be had.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) what: Use,
    pub(super) addr: SocketAddr,
    pub(super) outcome: Result<(), Refusal>,
}

/// Why not.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: io::ErrorKind,
    pub(super) text: String,
    /// It is this relay's own: two of its options want it.
    pub(super) is_own: bool,
}

/// Tries them all.
pub(super) fn ports(config: &Config) -> Vec<Port> {
    let is_default = config.listen.is_empty();
    let listen =
        if is_default { Config::listen_defaults().to_vec() } else { config.listen.clone() };
    let wanted = listen.into_iter().flat_map(|addr| [(Use::Streams, addr), (Use::Datagrams, addr)]);
    // Held until all were tried: two options may want the same one.
    let mut held: Vec<(Use, SocketAddr, Socket)> = Vec::new();
    let mut ports = Vec::new();
    for (what, addr) in wanted.chain([(Use::Http, config.http)]) {
        let kind = if what == Use::Datagrams { Type::DGRAM } else { Type::STREAM };
        let bound = bind(addr, kind);
        // By default IPv6 is used where it exists.
        let may_be_absent = is_default && addr.is_ipv6() && what != Use::Http;
        if may_be_absent && bound.as_ref().is_err_and(is_family_absent) {
            continue;
        }
        let outcome = bound.map(|socket| held.push((what, addr, socket)));
        let outcome = outcome.map_err(|error| Refusal {
            kind: error.kind(),
            text: error.to_string(),
            is_own: held.iter().any(|(of, own, _)| {
                *own == addr && (*of == Use::Datagrams) == (what == Use::Datagrams)
            }),
        });
        ports.push(Port { what, addr, outcome });
    }
    ports
}

fn bind(addr: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&addr.into())?;
    if kind == Type::STREAM {
        // With reuse, only listening shows that another program does.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// Whether there is IPv6.
pub(super) fn ipv6() -> Result<(), String> {
    let addr: SocketAddr = (Ipv6Addr::LOCALHOST, 0).into();
    TcpListener::bind(addr).map(drop).map_err(|error| error.to_string())
}

/// Whether this machine reaches itself, as status page, scrapers and `--serve` want it.
pub(super) fn loopback() -> Result<(), String> {
    let reach = || -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        TcpStream::connect(listener.local_addr()?).map(drop)
    };
    reach().map_err(|error| error.to_string())
}
