//! Where a peer's relay is, and the way there: directly or through a proxy, to the first of its addresses that answers.
//!
//! Doesn't try again when all have failed: that is the peer's business.

use std::{borrow::Cow, fmt, io, iter, net::SocketAddr};

use shards::net::Socket;

use super::{
    dial::dial,
    endpoint::Endpoint,
    error::ConnectionError,
    look_up::look_up,
    proxy::{self, Proxies, Proxy, ProxyError, ProxyFault},
    race::race,
};
use relay_protocol::RelayAddr;

/// A relay, as the user or a ticket names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remote {
    /// By its address.
    Addr(SocketAddr),
    /// By its name or address as text; looked up for each connection, as it may move.
    Named(RelayAddr),
    /// The first of several that can be reached.
    AnyOf {
        /// The best one.
        first: RelayAddr,
        /// Those that are tried after it, in this order.
        more: Vec<RelayAddr>,
    },
    /// The same, those through a proxy that are not excepted.
    Through {
        /// The best one.
        first: RelayAddr,
        /// Those that are tried after it, in this order.
        more: Vec<RelayAddr>,
        /// The proxy.
        proxies: Proxies,
    },
}

impl From<SocketAddr> for Remote {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<RelayAddr> for Remote {
    fn from(addr: RelayAddr) -> Self {
        Self::Named(addr)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Named(addr)
            | Self::AnyOf { first: addr, .. }
            | Self::Through { first: addr, .. } => addr.fmt(f),
        }
    }
}

impl Remote {
    /// The name, or the address, that a certificate would have to name.
    #[must_use]
    pub fn host(&self) -> Cow<'_, str> {
        match self {
            Self::Addr(addr) => addr.ip().to_string().into(),
            Self::Named(addr)
            | Self::AnyOf { first: addr, .. }
            | Self::Through { first: addr, .. } => addr.host().into(),
        }
    }

    /// Whether there is a proxy, for some of its relays at least.
    #[must_use]
    pub fn may_be_proxied(&self) -> bool {
        matches!(self, Self::Through { .. })
    }

    /// Connects from this shard; also to what.
    ///
    /// # Errors
    /// The name has no address, none of its addresses answers, or the proxy does not lead to it: the error of the first
    /// address, of the first name.
    pub async fn connect(&self) -> Result<(Socket, Endpoint), ConnectionError> {
        let (first, more, proxies) = match self {
            Self::Addr(addr) => return connect_directly(vec![*addr]).await,
            Self::Named(first) => (first, &[][..], None),
            Self::AnyOf { first, more } => (first, &more[..], None),
            Self::Through { first, more, proxies } => (first, &more[..], Some(proxies)),
        };
        let mut first_error = None;
        for relay in iter::once(first).chain(more) {
            let connected = match proxies.and_then(|proxies| proxies.proxy_for(relay)) {
                Some(proxy) => connect_through(proxy, relay).await,
                None => connect_to(relay).await,
            };
            match connected {
                Ok(connected) => return Ok(connected),
                Err(error) => first_error.get_or_insert(error),
            };
        }
        Err(first_error.expect("there is a relay"))
    }
}

async fn connect_to(relay: &RelayAddr) -> Result<(Socket, Endpoint), ConnectionError> {
    connect_directly(addresses_of(relay).await?).await
}

async fn addresses_of(relay: &RelayAddr) -> Result<Vec<SocketAddr>, ConnectionError> {
    let fail = |error| ConnectionError::LookUp { remote: relay.clone(), error };
    look_up(relay).await.map_err(fail)
}

async fn connect_directly(
    addresses: Vec<SocketAddr>,
) -> Result<(Socket, Endpoint), ConnectionError> {
    let dialling = |remote| async move {
        let dialled = dial(remote).await;
        dialled
            .map(|socket| (socket, remote.into()))
            .map_err(|error| ConnectionError::Connect { remote, error })
    };
    race(addresses, dialling, |_| false).await
}

async fn connect_through(
    proxy: &Proxy,
    relay: &RelayAddr,
) -> Result<(Socket, Endpoint), ConnectionError> {
    let fail = |fault| {
        let (proxy, relay) = (proxy.to_string(), relay.clone());
        ConnectionError::Proxy(Box::new(ProxyError { proxy, relay, fault }))
    };
    let to_proxy = look_up(proxy.addr()).await.map_err(|error| fail(ProxyFault::LookUp(error)))?;
    let targets = match proxy.looks_up_names() {
        true => vec![relay.clone()],
        false => targets_of(relay).await?,
    };
    let opening = |target| proxy::open(proxy, to_proxy.clone(), &target);
    // What the proxy says of itself, such as of a wrong password, it would say of each address.
    let opened = race(targets, opening, |fault| !fault.is_of_relay()).await;
    let (socket, addr) = opened.map_err(fail)?;
    Ok((socket, Endpoint::behind_proxy(addr, relay, proxy)))
}

/// The addresses of a relay, for a proxy.
async fn targets_of(relay: &RelayAddr) -> Result<Vec<RelayAddr>, ConnectionError> {
    let addresses = addresses_of(relay).await?;
    // One that only this machine's interface gives a meaning has none for a proxy.
    let target = |addr: &SocketAddr| RelayAddr::new(&addr.ip().to_string(), addr.port()).ok();
    let targets: Vec<_> = addresses.iter().filter_map(target).collect();
    if targets.is_empty() {
        let text = "it has only link-local addresses, to which no proxy leads: name it in NO_PROXY";
        let error = io::Error::new(io::ErrorKind::AddrNotAvailable, text);
        return Err(ConnectionError::LookUp { remote: relay.clone(), error });
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        // Bound but not listened on: no other program gets the port, and connecting is refused.
        let unused = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let unused = unused.unwrap();
        unused.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let shut = unused.local_addr().unwrap().as_socket().unwrap();
        let run = async move {
            let (_, answered) = connect_directly(vec![shut, open]).await.unwrap();
            assert_eq!(answered, open.into());
            let error = connect_directly(vec![shut, shut]).await.unwrap_err();
            assert!(error.is_transient() && error.to_string().contains(&shut.to_string()));
            let name: RelayAddr = format!("localhost:{}", open.port()).parse().unwrap();
            assert!(Remote::Named(name.clone()).connect().await.is_ok());
            let refusing: RelayAddr = shut.to_string().parse().unwrap();
            for more in [vec![name.clone()], vec![refusing.clone(), name]] {
                let several = Remote::AnyOf { first: refusing.clone(), more };
                assert_eq!(several.connect().await.unwrap().1.addr().port(), open.port());
            }
            let several = Remote::AnyOf { first: refusing.clone(), more: vec![refusing] };
            let error = several.connect().await.unwrap_err();
            assert!(error.to_string().contains(&shut.to_string()));
        };
        shards::block_on(shards::Driver::Epoll, run).unwrap();
    }
}
