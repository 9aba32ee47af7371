//! Where a connection leads, as it is said to users.

use std::{fmt, net::SocketAddr, sync::Arc};

/// The other end of a connection: a relay, or a proxy that leads to one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    addr: SocketAddr,
    /// What to call the relay behind a proxy.
    behind: Option<Arc<str>>,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, behind: None }
    }
}

impl Endpoint {
    /// A relay behind a proxy at this address.
    #[must_use]
    pub fn behind_proxy(
        addr: SocketAddr,
        relay: &impl fmt::Display,
        proxy: &impl fmt::Display,
    ) -> Self {
        Self { addr, behind: Some(format!("{relay} (through the proxy {proxy})").into()) }
    }

    /// The address that the socket is connected to: the relay's, or the proxy's.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it is a proxy's: then datagrams to the address lead nowhere.
    #[must_use]
    pub fn is_proxy(&self) -> bool {
        self.behind.is_some()
    }
}

/// The relay.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.behind {
            Some(behind) => behind.fmt(f),
            None => self.addr.fmt(f),
        }
    }
}
