//! The ticket: what one user hands to another, so that a file can be got. It names the relay, the
//! swarm key and the file's name. The relay never sees one.
//!
//! ```text
//! relay1 | base32 without padding of: postcard(relay, key, name) [marks] | checksum
//! ```
//!
//! `relay1` is the word with the version. The relay is text, `HOST:PORT`; the key as in the wire
//! format; the name text. One byte of marks follows if there is any: 1 for a file that may be executed. The
//! checksum is the first [`TICKET_CHECKSUM_BYTES`] bytes of the BLAKE3 of all before it under
//! `CHECKSUM_CONTEXT`. Case does not count, nor do white space and invisible characters anywhere (mail
//! programs break lines), nor what mail programs put before each line that they quote, nor quotes and
//! punctuation around it.
//!
//! A name is data: code that makes a path of it asks [`check_name`](super::check_name) first. Here it is only
//! limited.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::{
    key::{KeyError, SwarmKey},
    limits::{
        HOST_BYTES_MAX, INTERFACE_BYTES_MAX, TICKET_CHARS_MAX, TICKET_CHECKSUM_BYTES,
        TICKET_NAME_BYTES_MAX, TICKET_TEXT_BYTES_MAX,
    },
};

/// What every ticket begins with.
const WORD: &str = "RELAY";

/// Version of the tickets that this program writes and reads.
const VERSION: char = '1';

/// Separates this use of BLAKE3 from any other.
const CHECKSUM_CONTEXT: &str = "psp-relay v1 checksum of a ticket";

/// Of a relay that is named without one.
pub const RELAY_PORT: u16 = 7440;

/// The mark of a file that may be executed.
const MARK_EXECUTABLE: u8 = 1;

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

/// All that is needed to get a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Where the relay is.
    pub relay: RelayAddr,
    /// Which file.
    pub key: SwarmKey,
    /// Whether its owner may execute it.
    pub is_executable: bool,
    /// What its owner calls it.
    name: String,
}

/// Why a text is not a ticket that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// It is something else.
    #[error(
        "this is not a ticket: a ticket begins with relay1; copy the line that `peer share` printed"
    )]
    NotATicket,
    /// A newer program wrote it.
    #[error(
        "this ticket is of version {0}, this program reads version {VERSION}: use the program that \
         made it, or a newer one"
    )]
    Version(char),
    /// It is longer than any.
    #[error(
        "the ticket is damaged: it is longer than {TICKET_CHARS_MAX} characters; copy it again"
    )]
    TooLong,
    /// A character that no ticket holds.
    #[error("the ticket is damaged: it holds the character {0:?}; copy it again")]
    Character(char),
    /// Something is missing or was altered.
    #[error("the ticket is damaged: {0}; copy it again, whole")]
    Damaged(&'static str),
    /// The checksum is right, the content makes no sense: its writer is at fault.
    #[error("the ticket names no file that can be: {0}; ask for a new one")]
    Key(#[from] KeyError),
    /// The ticket's address of a relay can't be one.
    #[error("the ticket names no relay: {0}; ask for a new one")]
    Relay(#[from] RelayAddrError),
    /// A newer program wrote it.
    #[error("a newer program made this ticket: use that program, or a newer one")]
    Marks,
    /// The name is too long.
    #[error("the file's name has {0} bytes, a ticket holds {TICKET_NAME_BYTES_MAX}: rename it")]
    NameTooLong(usize),
}

/// What is encoded, in this order.
#[derive(Serialize, Deserialize)]
struct Body<'a> {
    relay: &'a str,
    key: SwarmKey,
    name: &'a str,
}

impl Ticket {
    /// A ticket for a file.
    ///
    /// # Errors
    /// The name is too long, or the key names no file that can be.
    pub fn new(
        relay: RelayAddr,
        key: SwarmKey,
        name: impl Into<String>,
    ) -> Result<Self, TicketError> {
        let name = name.into();
        if name.len() > TICKET_NAME_BYTES_MAX {
            return Err(TicketError::NameTooLong(name.len()));
        }
        key.validate()?;
        Ok(Self { relay, key, is_executable: false, name })
    }

    /// Says whether the file's owner may execute it.
    #[must_use]
    pub fn with_executable(self, is_executable: bool) -> Self {
        Self { is_executable, ..self }
    }

    /// What the file's owner calls it: at most [`TICKET_NAME_BYTES_MAX`] bytes of anything.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads what a ticket's text holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &[u8]) -> Result<Self, TicketError> {
        let (body, marks) = postcard::take_from_bytes::<Body<'_>>(body)
            .map_err(|_| TicketError::Damaged("its content can't be read"))?;
        let is_executable = match marks {
            [] => false,
            [MARK_EXECUTABLE] => true,
            _ => return Err(TicketError::Marks),
        };
        let ticket = Self::new(RelayAddr::with_port(body.relay)?, body.key, body.name)?;
        Ok(Self { is_executable, ..ticket })
    }
}

fn checksum(body: &[u8]) -> [u8; TICKET_CHECKSUM_BYTES] {
    let hash = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT).update(body).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = self.relay.to_string();
        let body = Body { relay: &relay, key: self.key, name: &self.name };
        let mut bytes = postcard::to_stdvec(&body).expect("plain fields can be encoded");
        bytes.extend(self.is_executable.then_some(MARK_EXECUTABLE));
        bytes.extend_from_slice(&checksum(&bytes));
        let text = format!("{WORD}{VERSION}{}", BASE32_NOPAD.encode(&bytes));
        f.write_str(&text.to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_TEXT_BYTES_MAX {
            return Err(TicketError::TooLong);
        }
        let unquoted = text.lines().flat_map(|line| line.trim_start_matches(is_quoting).chars());
        let text: String = unquoted.filter(|&char| !is_invisible(char)).collect();
        let text = text.trim_matches(is_around).to_ascii_uppercase();
        let rest = text.strip_prefix(WORD).ok_or(TicketError::NotATicket)?;
        let mut rest = rest.chars();
        match rest.next() {
            Some(VERSION) => {}
            Some(version @ '0'..='9') => return Err(TicketError::Version(version)),
            _ => return Err(TicketError::NotATicket),
        }
        let code = rest.as_str();
        if code.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        if let Some(strange) = code.chars().find(|char| !matches!(char, 'A'..='Z' | '2'..='7')) {
            return Err(TicketError::Character(strange));
        }
        let cut = TicketError::Damaged("a part of it is missing");
        let bytes = BASE32_NOPAD.decode(code.as_bytes()).map_err(|_| cut.clone())?;
        let (body, sum) = bytes.split_last_chunk::<TICKET_CHECKSUM_BYTES>().ok_or(cut)?;
        if checksum(body) != *sum {
            return Err(TicketError::Damaged("a part of it is missing or was altered"));
        }
        Self::decode(body)
    }
}

/// What copying and pasting puts between characters.
fn is_invisible(char: char) -> bool {
    char.is_whitespace()
        || char.is_control()
        || matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// What mail programs put before a line that they quote.
fn is_quoting(char: char) -> bool {
    matches!(char, '>' | '|') || is_invisible(char)
}

/// What people put around a ticket: quotes, brackets, the end of a sentence.
fn is_around(char: char) -> bool {
    !char.is_ascii_alphanumeric()
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
