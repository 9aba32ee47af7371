//! A relay's address as people and tickets write it: `HOST:PORT`. Looks nothing up.

use std::{fmt, str::FromStr};

use crate::limits::{HOST_BYTES_MAX, INTERFACE_BYTES_MAX};

/// Of a relay that is named without one.
pub const RELAY_PORT: u16 = 7440;

/// Where a relay is: a name or an address, and a port. Written `HOST:PORT`, with an IPv6 address
/// in brackets; read without the port, too.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RelayAddr {
    /// A DNS name, an IPv4 address, or an IPv6 address without brackets, which may name an interface
    /// behind a `%`.
    host: String,
    port: u16,
}

/// Why a text names no relay.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelayAddrError {
    /// There is no port, where one is wanted.
    #[error("it has no port: write HOST:PORT, for example relay.example.org:7440")]
    NoPort,
    /// It is an address for browsers.
    #[error(
        "a relay has no URL: write HOST:PORT, for example relay.example.org:7440, with the port for \
         peers and not that for HTTP"
    )]
    Url,
    /// What follows the last colon is none.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// An IPv6 address needs brackets.
    #[error("it is no IPv6 address in brackets: write for example [2001:db8::1]:7440")]
    Brackets,
    /// A link-local address is one of every interface.
    #[error(
        "a link-local address needs the interface of this machine that it is reached by: write for \
         example [fe80::1%eth0]:7440"
    )]
    NoInterface,
    /// What follows the `%` can't be an interface, or the address needs none.
    #[error(
        "its part from the % on names no interface of a link-local address: write for example \
         [fe80::1%eth0]:7440"
    )]
    Interface,
    /// The host is neither an address nor a name.
    #[error(
        "its host is neither a name nor an address: write HOST:PORT, for example relay.example.org:7440"
    )]
    Host,
    /// It is longer than a name can be.
    #[error("its host is longer than {HOST_BYTES_MAX} characters")]
    TooLong,
}

impl RelayAddr {
    /// A name or an address without brackets, and a port.
    ///
    /// # Errors
    /// The host is neither, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, RelayAddrError> {
        if host.len() > HOST_BYTES_MAX {
            return Err(RelayAddrError::TooLong);
        }
        if port == 0 {
            return Err(RelayAddrError::Port);
        }
        if host.contains(':') {
            check_ipv6(host)?;
        } else if !is_name(host) {
            return Err(RelayAddrError::Host);
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The name or the address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it means the machine on which it is read: others that use it find themselves.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        if let Ok(address) = self.host.parse::<core::net::IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback() || address.is_unspecified();
        }
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        let names = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"];
        names.contains(&host.as_str()) || host.ends_with(".localhost")
    }

    /// As it is written, with its port.
    ///
    /// # Errors
    /// There is no port, or it is no relay's address.
    pub fn with_port(text: &str) -> Result<Self, RelayAddrError> {
        let text = text.trim();
        if text.contains("://") {
            return Err(RelayAddrError::Url);
        }
        let (host, port) = text.rsplit_once(':').ok_or(RelayAddrError::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(RelayAddrError::Brackets)?,
            None if host.contains(':') => return Err(RelayAddrError::Brackets),
            None => host,
        };
        if text.starts_with('[') && !host.contains(':') {
            return Err(RelayAddrError::Brackets);
        }
        // `+80` is a number to the parser.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or(RelayAddrError::Port)?;
        Self::new(host, port)
    }
}

/// An IPv6 address, with an interface if it is link-local, and without one if not.
fn check_ipv6(host: &str) -> Result<(), RelayAddrError> {
    let (address, interface) = match host.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (host, None),
    };
    let address: core::net::Ipv6Addr = address.parse().map_err(|_| RelayAddrError::Brackets)?;
    let is_interface = |name: &str| {
        (1..=INTERFACE_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte))
    };
    match interface {
        None if address.is_unicast_link_local() => Err(RelayAddrError::NoInterface),
        Some(name) if !address.is_unicast_link_local() || !is_interface(name) => {
            Err(RelayAddrError::Interface)
        }
        _ => Ok(()),
    }
}

/// Letters, digits, hyphens, underscores and dots; no empty label. IPv4 addresses look like that.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

impl FromStr for RelayAddr {
    type Err = RelayAddrError;

    fn from_str(text: &str) -> Result<Self, RelayAddrError> {
        let text = text.trim();
        let has_port = match text.starts_with('[') {
            true => !text.ends_with(']'),
            false => text.contains(':'),
        };
        match has_port {
            true => Self::with_port(text),
            false => Self::with_port(&format!("{text}:{RELAY_PORT}")),
        }
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_names_or_addresses_with_a_port() {
        for text in [
            "localhost:1",
            "relay.example.org.:7440",
            "127.0.0.1:65535",
            "[::1]:7440",
            "[fe80::1%eth0]:7440",
            "[fe80::1%2]:7440",
        ] {
            let addr: RelayAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
            assert_eq!(RelayAddr::with_port(text), Ok(addr));
        }
        for text in ["relay", "192.0.2.1", "[2001:db8::1]"] {
            let addr: RelayAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), format!("{text}:7440"), "the usual port is meant");
            assert!(RelayAddr::with_port(text).is_err(), "{text}");
        }
        for (text, error) in [
            ("", RelayAddrError::Host),
            ("relay:", RelayAddrError::Port),
            ("relay:0", RelayAddrError::Port),
            ("relay:+80", RelayAddrError::Port),
            ("relay:65536", RelayAddrError::Port),
            ("::1:7440", RelayAddrError::Brackets),
            ("[::1:7440", RelayAddrError::Brackets),
            ("[::g]:7440", RelayAddrError::Brackets),
            ("[relay]:7440", RelayAddrError::Brackets),
            ("[fe80::1]:7440", RelayAddrError::NoInterface),
            ("[fe80::1%]:7440", RelayAddrError::Interface),
            ("[fe80::1%eth 0]:7440", RelayAddrError::Interface),
            ("[fe80::1%an_interface_of_16]:7440", RelayAddrError::Interface),
            ("[2001:db8::1%eth0]:7440", RelayAddrError::Interface),
            (":7440", RelayAddrError::Host),
            ("a..b:7440", RelayAddrError::Host),
            ("http//x:7440", RelayAddrError::Host),
            ("http://x:7440", RelayAddrError::Url),
            ("https://x/", RelayAddrError::Url),
            ("::1", RelayAddrError::Brackets),
            ("a\u{1b}[b:7440", RelayAddrError::Host),
        ] {
            assert_eq!(text.parse::<RelayAddr>(), Err(error), "{text}");
        }
        assert_eq!(RelayAddr::with_port("relay"), Err(RelayAddrError::NoPort));
        let long = format!("{}:1", "a".repeat(HOST_BYTES_MAX + 1));
        assert_eq!(long.parse::<RelayAddr>(), Err(RelayAddrError::TooLong));
    }

    #[test]
    fn an_address_that_means_the_reader_is_told_apart() {
        for (text, is_of_this_machine) in [
            ("localhost", true),
            ("LOCALHOST.:1", true),
            ("relay.localhost", true),
            ("127.0.0.2", true),
            ("0.0.0.0", true),
            ("[::1]", true),
            ("[::]", true),
            ("[::ffff:127.0.0.1]", true),
            ("192.168.0.1", false),
            ("[fe80::1%eth0]", false),
            ("localhost.example.org", false),
        ] {
            let addr: RelayAddr = text.parse().unwrap();
            assert_eq!(addr.is_of_this_machine(), is_of_this_machine, "{text}");
        }
    }
}
