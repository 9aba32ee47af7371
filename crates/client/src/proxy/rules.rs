//! Which relays are reached through the proxy, and which directly.

use std::sync::Arc;

use relay_protocol::RelayAddr;

use super::{exceptions::NoProxy, url::Proxy};

/// A proxy, and the relays that are reached without it. Clones share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxies {
    proxy: Arc<Proxy>,
    exceptions: NoProxy,
    /// Whether a relay on this machine is reached through it as well.
    takes_loopback: bool,
}

impl Proxies {
    /// For all relays but the exceptions.
    #[must_use]
    pub fn new(proxy: Proxy, exceptions: NoProxy) -> Self {
        Self { proxy: Arc::new(proxy), exceptions, takes_loopback: true }
    }

    /// Relays on this machine are reached directly.
    #[must_use]
    pub fn without_loopback(mut self) -> Self {
        self.takes_loopback = false;
        self
    }

    /// The proxy that leads to a relay; `None` if it is reached directly.
    #[must_use]
    pub fn proxy_for(&self, relay: &RelayAddr) -> Option<&Proxy> {
        let is_direct =
            self.exceptions.has(relay) || !self.takes_loopback && relay.is_of_this_machine();
        (!is_direct).then_some(&self.proxy)
    }

    /// Whatever the relay.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_and_if_so_wished_loopback_are_reached_directly() {
        let proxy: Proxy = "socks5://proxy".parse().unwrap();
        let proxies = Proxies::new(proxy.clone(), NoProxy::of("example.org"));
        let leads =
            |proxies: &Proxies, relay: &str| proxies.proxy_for(&relay.parse().unwrap()).is_some();
        assert!(leads(&proxies, "relay") && leads(&proxies, "localhost"));
        assert!(!leads(&proxies, "relay.example.org"));
        let proxies = proxies.without_loopback();
        assert!(leads(&proxies, "relay") && !leads(&proxies, "localhost"));
        assert!(!leads(&proxies, "127.0.0.1:1") && !leads(&proxies, "[::1]"));
        assert_eq!(proxies.proxy(), &proxy);
    }
}
