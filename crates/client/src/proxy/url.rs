//! A proxy as users write it: `SCHEME://[USER:PASSWORD@]HOST[:PORT]`.
//!
//! The password is shown nowhere: not by `Debug`, not by `Display`, not by an error.

use std::{fmt, str::FromStr};

use relay_protocol::{RelayAddr, RelayAddrError};

/// Of a SOCKS proxy that is named without one, as registered. HTTP proxies have no such port.
const SOCKS_PORT: u16 = 1080;

/// A user name, and a password, have at most so many bytes: RFC 1929 counts them in one byte.
const LOGIN_BYTES_MAX: usize = 255;

/// What a proxy speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyKind {
    /// SOCKS 5, and names are looked up here.
    Socks5,
    /// SOCKS 5, and the proxy looks names up.
    Socks5h,
    /// CONNECT of HTTP, and the proxy looks names up.
    Http,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    kind: ProxyKind,
    addr: RelayAddr,
    login: Option<Login>,
}

/// A user name and a password. Not printed for debugging.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Vec<u8>,
    pub(super) password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// Why a text names no proxy. Repeats nothing of it: a password may be anywhere in a wrong one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProxyUrlError {
    /// It doesn't begin with one that is known.
    #[error(
        "it does not begin with socks5://, socks5h:// or http://: write for example socks5h://proxy.example.org:1080"
    )]
    Scheme,
    /// HTTP proxies have no usual port.
    #[error(
        "it has no port, and HTTP proxies have no usual one: write for example http://proxy.example.org:3128"
    )]
    NoPort,
    /// What follows the last colon is none.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// The host is neither an address nor a name.
    #[error(
        "its host is neither a name nor an address (IPv6 in brackets): write for example \
         socks5h://proxy.example.org:1080"
    )]
    Host,
    /// A `%` without two digits.
    #[error(
        "its user name or password has a % without two hexadecimal digits: write %25 for a percent sign"
    )]
    Percent,
    /// There is a password, or an `@`, and no user.
    #[error("its user name is empty: write USER:PASSWORD@ before the host, or leave out the @")]
    NoUser,
    /// Basic authentication separates the two by a colon.
    #[error("its user name has a colon, which HTTP proxies can't take")]
    Colon,
    /// One byte counts them.
    #[error("its user name or password is longer than {LOGIN_BYTES_MAX} bytes")]
    LoginTooLong,
}

impl Proxy {
    /// What it speaks.
    #[must_use]
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Where it is.
    #[must_use]
    pub fn addr(&self) -> &RelayAddr {
        &self.addr
    }

    /// Whether relays' names are for it to look up.
    #[must_use]
    pub fn looks_up_names(&self) -> bool {
        self.kind != ProxyKind::Socks5
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(ProxyUrlError::Scheme)?;
        let kind = match scheme.to_ascii_lowercase().as_str() {
            // Desktops set the first one.
            "socks" | "socks5" => ProxyKind::Socks5,
            "socks5h" => ProxyKind::Socks5h,
            "http" => ProxyKind::Http,
            _ => return Err(ProxyUrlError::Scheme),
        };
        // The last one: a password may have others.
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(parse_login(login, kind)?), host),
            None => (None, rest),
        };
        let addr = parse_addr(host.strip_suffix('/').unwrap_or(host), kind)?;
        Ok(Self { kind, addr, login })
    }
}

fn parse_addr(text: &str, kind: ProxyKind) -> Result<RelayAddr, ProxyUrlError> {
    let has_port = match text.starts_with('[') {
        true => !text.ends_with(']'),
        false => text.contains(':'),
    };
    let addr = match (has_port, kind) {
        (true, _) => RelayAddr::with_port(text),
        (false, ProxyKind::Http) => return Err(ProxyUrlError::NoPort),
        (false, _) => RelayAddr::with_port(&format!("{text}:{SOCKS_PORT}")),
    };
    addr.map_err(|error| match error {
        RelayAddrError::Port => ProxyUrlError::Port,
        _ => ProxyUrlError::Host,
    })
}

fn parse_login(text: &str, kind: ProxyKind) -> Result<Login, ProxyUrlError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let (user, password) = (percent_decoded(user)?, percent_decoded(password)?);
    if user.is_empty() {
        return Err(ProxyUrlError::NoUser);
    }
    if user.len().max(password.len()) > LOGIN_BYTES_MAX {
        return Err(ProxyUrlError::LoginTooLong);
    }
    if kind == ProxyKind::Http && user.contains(&b':') {
        return Err(ProxyUrlError::Colon);
    }
    Ok(Login { user, password })
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, ProxyUrlError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(ProxyUrlError::Percent);
        };
        decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
    }
    Ok(decoded)
}

/// Without user name and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Socks5 => "socks5",
            ProxyKind::Socks5h => "socks5h",
            ProxyKind::Http => "http",
        };
        write!(f, "{scheme}://{}", self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> (Vec<u8>, Vec<u8>) {
        let proxy: Proxy = text.parse().unwrap();
        let login = proxy.login().expect("it has one");
        (login.user.clone(), login.password.clone())
    }

    #[test]
    fn proxies_are_read_as_they_are_written() {
        for (text, shown) in [
            ("socks5://proxy:1080", "socks5://proxy:1080"),
            ("socks5://proxy", "socks5://proxy:1080"),
            ("socks://127.0.0.1:9050/", "socks5://127.0.0.1:9050"),
            ("SOCKS5H://[::1]", "socks5h://[::1]:1080"),
            ("socks5h://user:secret@[2001:db8::1]:1", "socks5h://[2001:db8::1]:1"),
            (" http://proxy.example.org:3128/ ", "http://proxy.example.org:3128"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert_eq!(proxy.looks_up_names(), !shown.starts_with("socks5:"));
        }
    }

    #[test]
    fn a_login_may_have_any_character() {
        let pair = |user: &[u8], password: &[u8]| (user.to_vec(), password.to_vec());
        assert_eq!(login("http://a:b@proxy:1"), pair(b"a", b"b"));
        assert_eq!(login("http://a@proxy:1"), pair(b"a", b""));
        assert_eq!(login("socks5://a:p@s/s#w:d@proxy"), pair(b"a", b"p@s/s#w:d"));
        assert_eq!(login("socks5://%61%3a:%25%00%fF@proxy"), pair(b"a:", b"%\0\xff"));
        assert_eq!(login("socks5://ü:ß@proxy"), pair("ü".as_bytes(), "ß".as_bytes()));
    }

    #[test]
    fn what_is_no_proxy_is_told_with_its_reason_and_without_the_password() {
        let long = format!("socks5://u:{}hunter2@proxy", "x".repeat(LOGIN_BYTES_MAX));
        for (text, error) in [
            ("", ProxyUrlError::Scheme),
            ("proxy:hunter2", ProxyUrlError::Scheme),
            ("https://u:hunter2@proxy:1", ProxyUrlError::Scheme),
            ("socks4://u:hunter2@proxy:1", ProxyUrlError::Scheme),
            ("http://u:hunter2@proxy", ProxyUrlError::NoPort),
            ("http://u:hunter2@[::1]", ProxyUrlError::NoPort),
            ("http://u:hunter2@proxy:0", ProxyUrlError::Port),
            ("socks5://u:hunter2@proxy:x", ProxyUrlError::Port),
            ("socks5://u:hunter2@", ProxyUrlError::Host),
            ("socks5://u:hunter2@::1", ProxyUrlError::Host),
            ("socks5://u:hunter2@proxy:1/path", ProxyUrlError::Port),
            ("socks5://:hunter2@proxy", ProxyUrlError::NoUser),
            ("socks5://u:hunter2%@proxy", ProxyUrlError::Percent),
            ("socks5://u:hunter2%2@proxy", ProxyUrlError::Percent),
            ("socks5://u:hunter2%zz@proxy", ProxyUrlError::Percent),
            ("http://u%3a:hunter2@proxy:1", ProxyUrlError::Colon),
            (&long, ProxyUrlError::LoginTooLong),
        ] {
            let found = text.parse::<Proxy>().unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("hunter2"), "{found}");
        }
        let proxy: Proxy = "http://user:hunter2@proxy:1".parse().unwrap();
        let shown = format!("{proxy} {proxy:?} {:?}", proxy.login());
        assert!(!shown.contains("hunter2") && !shown.contains("user"), "{shown}");
    }
}
