//! What can go wrong on the way through a proxy: for the user, what to do about it; for the peer, whether another
//! attempt may go better.

use core::{net::SocketAddr, time::Duration};
use std::io;

use relay_protocol::RelayAddr;

/// A relay that could not be reached through a proxy.
#[derive(Debug, thiserror::Error)]
#[error("could not reach the relay at {relay} through the proxy {proxy}: {fault}")]
pub struct ProxyError {
    /// The proxy as users write it, without its password.
    pub proxy: String,
    /// The relay.
    pub relay: RelayAddr,
    /// Why.
    pub fault: ProxyFault,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// The proxy's name has no address.
    #[error("the proxy's address could not be found: {0}: check its name")]
    LookUp(io::Error),
    /// No connection to the proxy could be made.
    #[error(
        "could not connect to the proxy at {addr}: {error}: check its port, and that it runs there"
    )]
    Connect {
        /// The proxy's address.
        addr: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The connection to the proxy broke.
    #[error("the connection to the proxy broke: {0}")]
    Io(io::Error),
    /// It closed before the relay was reached.
    #[error(
        "the proxy closed the connection without saying why: it may be of another kind than the URL says, or not \
         allow this relay: ask its operator"
    )]
    Closed,
    /// It did not lead to the relay in time.
    #[error(
        "it took longer than {} s: the proxy may not reach the relay, or be of another kind than its URL says",
        .0.as_secs()
    )]
    Slow(Duration),
    /// Its first byte is not SOCKS 5's.
    #[error("the proxy does not speak SOCKS 5: if it is an HTTP proxy, write http:// in its URL")]
    NotSocks,
    /// Something in its answer can't be.
    #[error("the proxy's answer can't be: {0}: ask its operator")]
    Nonsense(&'static str),
    /// It doesn't answer with HTTP.
    #[error("the proxy does not speak HTTP: if it is a SOCKS proxy, write socks5h:// in its URL")]
    NotHttp,
    /// The head of its answer does not end.
    #[error("the proxy's answer is longer than {0} bytes: ask its operator")]
    TooLong(usize),
    /// It asks who we are.
    #[error(
        "the proxy wants a user name and a password: write USER:PASSWORD@ before its host in its URL"
    )]
    LoginWanted,
    /// It doesn't believe it.
    #[error("the proxy refuses the user name or the password: check them in its URL")]
    LoginRefused,
    /// It takes none of the ways to log in that there are here.
    #[error(
        "the proxy takes no user name and password, but another way to log in, which is not supported: ask its \
         operator for another proxy"
    )]
    LoginUnknown,
    /// SOCKS 5 says no.
    #[error("{}", socks_text(*.0))]
    Socks(u8),
    /// HTTP says no.
    #[error("the proxy answers {status}{}: {}", spaced(reason), http_advice(*status))]
    Http {
        /// The status.
        status: u16,
        /// What it says to that, cut and without control characters.
        reason: String,
    },
}

/// What a reply of SOCKS 5 means (RFC 1928, section 6), and what to do.
fn socks_text(reply: u8) -> String {
    let text = match reply {
        1 => "the proxy failed, and does not say why: ask its operator",
        2 => "the proxy does not allow it: ask its operator to allow this relay",
        3 => "the proxy's network does not reach the relay: check the relay's address",
        4 => {
            "the proxy does not reach the relay's machine: check the relay's name, and that it is running"
        }
        5 => {
            "the relay's machine refuses the proxy's connection: check the relay's port, and that it is running"
        }
        6 => "the proxy does not reach the relay: its packets run out of hops: ask its operator",
        7 => "the proxy makes no connections for others: ask its operator for another proxy",
        8 => {
            "the proxy can't use an address of this kind: name the relay by its name and write socks5h://, or by an \
             address of the other kind (IPv4, IPv6)"
        }
        _ => {
            return format!(
                "the proxy answers with {reply}, which has no meaning: ask its operator"
            );
        }
    };
    text.to_owned()
}

fn http_advice(status: u16) -> &'static str {
    match status {
        403 | 405 | 451 => "ask its operator to allow CONNECT to this relay and its port",
        500..=599 => {
            "it may not reach the relay: check the relay's address, and that it is running"
        }
        _ => "ask its operator whether it allows CONNECT to this relay and its port",
    }
}

fn spaced(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason}") }
}

impl ProxyFault {
    /// Whether another attempt may go better: what is down may come up, and a decision stays.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::LookUp(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
            Self::Connect { error, .. } => error.kind() != io::ErrorKind::InvalidInput,
            Self::Io(_) | Self::Closed | Self::Slow(_) => true,
            Self::Socks(reply) => matches!(reply, 1 | 3 | 4 | 5 | 6),
            Self::Http { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::NotSocks
            | Self::Nonsense(_)
            | Self::NotHttp
            | Self::TooLong(_)
            | Self::LoginWanted
            | Self::LoginRefused
            | Self::LoginUnknown => false,
        }
    }

    /// Whether it is about what was asked for: another relay, or another address of it, may do.
    #[must_use]
    pub fn is_of_relay(&self) -> bool {
        matches!(self, Self::Socks(_) | Self::Http { .. } | Self::Closed | Self::Slow(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_stay_and_what_is_down_may_come_up() {
        let http = |status| ProxyFault::Http { status, reason: String::new() };
        for (fault, is_transient) in [
            (ProxyFault::Socks(1), true),
            (ProxyFault::Socks(2), false),
            (ProxyFault::Socks(3), true),
            (ProxyFault::Socks(4), true),
            (ProxyFault::Socks(5), true),
            (ProxyFault::Socks(6), true),
            (ProxyFault::Socks(7), false),
            (ProxyFault::Socks(8), false),
            (ProxyFault::Socks(9), false),
            (http(403), false),
            (http(404), false),
            (http(502), true),
            (http(429), true),
            (ProxyFault::Closed, true),
            (ProxyFault::LoginRefused, false),
            (ProxyFault::LoginWanted, false),
            (
                ProxyFault::Connect {
                    addr: SocketAddr::from(([127, 0, 0, 1], 1)),
                    error: io::ErrorKind::ConnectionRefused.into(),
                },
                true,
            ),
        ] {
            assert_eq!(fault.is_transient(), is_transient, "{fault}");
        }
        assert!(ProxyFault::Socks(4).is_of_relay() && !ProxyFault::LoginRefused.is_of_relay());
    }

    #[test]
    fn each_refusal_says_what_failed_on_what_why_and_what_to_do() {
        for reply in 1..=u8::MAX {
            let error = ProxyError {
                proxy: "socks5://proxy:1080".into(),
                relay: "relay:7440".parse().unwrap(),
                fault: ProxyFault::Socks(reply),
            };
            let text = error.to_string();
            assert!(text.contains("relay:7440") && text.contains("socks5://proxy:1080"), "{text}");
            assert!(
                text.contains(": ask") || text.contains(": check") || text.contains(": name"),
                "{text}"
            );
        }
        let reason = "Forbidden".to_owned();
        let text = ProxyFault::Http { status: 403, reason }.to_string();
        assert!(text.starts_with("the proxy answers 403 Forbidden: ask its operator"), "{text}");
    }
}
