//! The relays that are not reached through a proxy, as `NO_PROXY` lists them: names with all that is below them,
//! addresses, networks, and `*` for all.
//!
//! Looks nothing up: an address in the list fits a relay that is named by its address.

use core::net::IpAddr;

use relay_protocol::RelayAddr;

/// A list of exceptions. It is as long as its text, which a system bounds where it keeps the environment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NoProxy(Vec<Exception>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Exception {
    hosts: Hosts,
    /// Only with this port.
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Hosts {
    All,
    /// Addresses that begin with these bits.
    Net {
        addr: IpAddr,
        bits: u32,
    },
    /// This name, in small letters, and all below it.
    Domain(String),
}

impl NoProxy {
    /// The list that a text holds, separated by commas or spaces. What makes no sense in it fits no relay.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let entries = text.split(|char: char| char == ',' || char.is_ascii_whitespace());
        Self(entries.filter(|entry| !entry.is_empty()).filter_map(Exception::of).collect())
    }

    /// Whether a relay is in it.
    #[must_use]
    pub fn has(&self, relay: &RelayAddr) -> bool {
        self.0.iter().any(|exception| exception.has(relay))
    }
}

impl Exception {
    fn of(text: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::of_addresses(text) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let hosts = Hosts::of_addresses(unbracketed.unwrap_or(host));
        Some(Self { hosts: hosts.or_else(|| Hosts::of_names(host))?, port })
    }

    fn has(&self, relay: &RelayAddr) -> bool {
        self.port.is_none_or(|port| port == relay.port()) && self.hosts.has(relay.host())
    }
}

impl Hosts {
    fn of_addresses(text: &str) -> Option<Self> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let addr = addr.strip_prefix('[').and_then(|addr| addr.strip_suffix(']')).unwrap_or(addr);
        let addr: IpAddr = addr.parse().ok()?;
        let bits_max = bits_of(addr).1;
        let bits = bits.unwrap_or(bits_max);
        (bits <= bits_max).then_some(Self::Net { addr, bits })
    }

    fn of_names(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        // `.example.org`, and `*.example.org`, are often written.
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Domain(name))
    }

    fn has(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::All => true,
            Self::Net { addr, bits } => {
                // A link-local address may name an interface of this machine.
                let host = host.split_once('%').map_or(host, |(host, _)| host);
                host.parse()
                    .is_ok_and(|host: IpAddr| shares_bits(host.to_canonical(), *addr, *bits))
            }
            Self::Domain(name) => {
                // `2.1` is no domain that 192.0.2.1 is in.
                if host.parse::<IpAddr>().is_ok() {
                    return false;
                }
                let host = host.to_ascii_lowercase();
                let before = host.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
        }
    }
}

/// An address as a number, and how many bits it has.
fn bits_of(addr: IpAddr) -> (u128, u32) {
    match addr {
        IpAddr::V4(addr) => (addr.to_bits().into(), 32),
        IpAddr::V6(addr) => (addr.to_bits(), 128),
    }
}

/// Whether the first bits of both are the same.
fn shares_bits(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    let ((one, width), (other, other_width)) = (bits_of(one), bits_of(other));
    width == other_width && (one ^ other).checked_shr(width - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(list: &str, relay: &str) -> bool {
        NoProxy::of(list).has(&relay.parse().expect("a relay"))
    }

    #[test]
    fn names_fit_themselves_and_what_is_below_them() {
        for list in
            ["example.org", ".example.org", "*.Example.ORG", "x, example.org.", "x example.org"]
        {
            assert!(has(list, "example.org"), "{list}");
            assert!(has(list, "Relay.Example.org.:1"), "{list}");
            assert!(!has(list, "badexample.org"), "{list}");
            assert!(!has(list, "example.org.evil.net"), "{list}");
        }
        assert!(has("*", "relay") && has("*", "[::1]:1"));
        assert!(!has("", "relay") && !has(",, ,", "relay"));
    }

    #[test]
    fn addresses_and_networks_fit_relays_that_are_named_so() {
        for (list, relay, fits) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.10", false),
            ("192.0.2.0/24", "192.0.2.255:1", true),
            ("192.0.2.0/24", "192.0.3.1", false),
            ("192.0.2.77/31", "192.0.2.76", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "[2001:db8::1]", false),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]:1", true),
            ("2001:db8::/32", "[2001:db8:1::5]", true),
            ("[2001:db8::]/32", "[2001:db9::5]", false),
            ("::1", "[::1]", true),
            ("::/0", "[2001:db8::1]", true),
            ("fe80::/10", "[fe80::1%eth0]", true),
            ("2.1", "192.0.2.1", false),
            ("192.0.2.0/33", "192.0.2.0", false),
            ("192.0.2.0/x", "192.0.2.0", false),
        ] {
            assert_eq!(has(list, relay), fits, "{list} {relay}");
        }
    }

    #[test]
    fn an_exception_may_be_of_one_port() {
        for (list, relay, fits) in [
            ("example.org:7440", "relay.example.org", true),
            ("example.org:7440", "relay.example.org:7441", false),
            ("192.0.2.1:7440", "192.0.2.1", true),
            ("192.0.2.1:7441", "192.0.2.1", false),
            ("[::1]:7440", "[::1]", true),
            ("[::1]:7441", "[::1]", false),
            ("[::1]", "[::1]:9", true),
            ("*:7441", "relay", false),
            ("example.org:x", "example.org", false),
        ] {
            assert_eq!(has(list, relay), fits, "{list} {relay}");
        }
    }
}
