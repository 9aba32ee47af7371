//! How what runs in the relay's process treats that relay: where it is reached, and for how long.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// What runs in its process never gives its own relay up: as long as there is one, as people see it.
pub(super) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Connections get so long to end by themselves.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Where this process reaches an address that it listens on.
pub(super) fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut reached = listening;
    reached.set_ip(ip); // An interface stays.
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_reached_on_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:7440", "127.0.0.1:7440"),
            ("[::]:7440", "[::1]:7440"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
