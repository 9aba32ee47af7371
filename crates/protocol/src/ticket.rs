//! The ticket: what one user hands to another, so that a file can be got. It names the relays, the
//! swarm key and the file's name, and it opens a sealed file. The relay never sees one.
//!
//! ```text
//! relay1 | base32 without padding of: postcard(relay, key, name) [marks] | checksum
//! relay2 | base32 without padding of: postcard(relays, pin, key, name, seal) [marks] | checksum
//! ```
//!
//! `relay1` and `relay2` are the word with the version; what the first can say is written in it. A relay is text,
//! `HOST:PORT`; `relays` a list of 1 to [`TICKET_RELAYS_MAX`], best first; the pin 16 bytes, all of them zero if
//! none is known; the key as in the wire format; the name text; the seal an `Option` of the share's secret (16
//! bytes) and the file's own BLAKE3 (32 bytes). One byte of marks follows if there is any: 1 for a file that may
//! be executed, 2 for a [`bundle`](super::bundle). The checksum is the first [`TICKET_CHECKSUM_BYTES`] bytes of the BLAKE3 of all before it, under a
//! context of each version. Case does not count, nor do white space and invisible characters anywhere (mail
//! programs break lines), nor what mail programs put before each line that they quote, nor quotes and
//! punctuation around it.
//!
//! A name is data: code that makes a path of it asks [`check_name`](super::check_name) first. Here it is only
//! limited. A ticket of a sealed file is a key: nothing prints it but `Display`.

mod body;
mod error;
mod kind;
mod relay_addr;

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;

use self::body::{Parts, Version};
pub use self::{
    error::TicketError,
    kind::TicketKind,
    relay_addr::{RELAY_PORT, RelayAddr, RelayAddrError},
};
use super::{
    key::{Digest, SwarmKey},
    limits::{
        TICKET_CHARS_MAX, TICKET_CHECKSUM_BYTES, TICKET_NAME_BYTES_MAX, TICKET_RELAYS_MAX,
        TICKET_TEXT_BYTES_MAX,
    },
    pin::Pin,
    seal::Sealed,
};

/// What every ticket begins with.
const WORD: &str = "RELAY";

/// All that is needed to get a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Where the relay is.
    pub relay: RelayAddr,
    /// What the relay is known by. A ticket that was made before relays had a pin names none.
    pub pin: Option<Pin>,
    /// Which swarm: of a sealed file the ciphertext's.
    pub key: SwarmKey,
    /// Opens the file, if it is sealed.
    pub sealed: Option<Sealed>,
    /// A file, or a tree of them.
    pub kind: TicketKind,
    /// Further relays, for when the first is gone. Fewer than [`TICKET_RELAYS_MAX`].
    more_relays: Vec<RelayAddr>,
    /// What its owner calls it.
    name: String,
}

impl Ticket {
    /// A ticket for a file that is not sealed, through one relay without a pin.
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
        let (pin, sealed, more_relays) = (None, None, Vec::new());
        Ok(Self { relay, pin, key, sealed, kind: TicketKind::File, more_relays, name })
    }

    /// Says what it is of.
    #[must_use]
    pub fn with_kind(self, kind: TicketKind) -> Self {
        Self { kind, ..self }
    }

    /// Says what the relay is known by.
    #[must_use]
    pub fn with_pin(self, pin: Option<Pin>) -> Self {
        Self { pin, ..self }
    }

    /// Says what another ticket of the file says of it: its name, and what it is.
    #[must_use]
    pub fn with_name_of(self, other: &Self) -> Self {
        Self { name: other.name.clone(), kind: other.kind, ..self }
    }

    /// Says how the file is sealed. The key is the ciphertext's then.
    #[must_use]
    pub fn with_sealed(self, sealed: Option<Sealed>) -> Self {
        Self { sealed, ..self }
    }

    /// Names further relays, for when the first is gone. All have the same pin.
    ///
    /// # Errors
    /// They are more than a ticket holds.
    pub fn with_more_relays(self, more_relays: Vec<RelayAddr>) -> Result<Self, TicketError> {
        match 1 + more_relays.len() {
            1..=TICKET_RELAYS_MAX => Ok(Self { more_relays, ..self }),
            count => Err(TicketError::RelayCount(count)),
        }
    }

    /// Where the relays are, best first: 1 to [`TICKET_RELAYS_MAX`].
    pub fn relays(&self) -> impl Iterator<Item = &RelayAddr> {
        std::iter::once(&self.relay).chain(&self.more_relays)
    }

    /// BLAKE3 of the file itself, sealed or not: what `b3sum` prints.
    #[must_use]
    pub fn plain(&self) -> Digest {
        self.sealed.as_ref().map_or(self.key.id, |sealed| sealed.plain)
    }

    /// What the file's owner calls it: at most [`TICKET_NAME_BYTES_MAX`] bytes of anything.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The oldest version that can say all of this.
    fn version(&self) -> Version {
        let is_of_1 = self.pin.is_none() && self.sealed.is_none() && self.more_relays.is_empty();
        if is_of_1 { Version::One } else { Version::Two }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version();
        let mut bytes = body::encode(&self.to_parts(), version);
        bytes.extend_from_slice(&version.checksum(&bytes));
        let text = format!("{WORD}{}{}", version.digit(), BASE32_NOPAD.encode(&bytes));
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
        let digit = rest.next().filter(char::is_ascii_digit).ok_or(TicketError::NotATicket)?;
        let version = Version::of_digit(digit).ok_or(TicketError::Version(digit))?;
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
        if version.checksum(body) != *sum {
            return Err(TicketError::Damaged("a part of it is missing or was altered"));
        }
        Self::of_parts(body::decode(body, version)?)
    }
}

impl Ticket {
    fn to_parts(&self) -> Parts {
        Parts {
            relays: self.relays().cloned().collect(),
            pin: self.pin,
            key: self.key,
            name: self.name.clone(),
            sealed: self.sealed.clone(),
            kind: self.kind,
        }
    }

    fn of_parts(parts: Parts) -> Result<Self, TicketError> {
        let mut relays = parts.relays.into_iter();
        let first = relays.next().ok_or(TicketError::RelayCount(0))?;
        let ticket = Self::new(first, parts.key, parts.name)?;
        let ticket = ticket.with_more_relays(relays.collect())?.with_pin(parts.pin);
        Ok(ticket.with_sealed(parts.sealed).with_kind(parts.kind))
    }

    /// Reads what a ticket's text holds: of version 1, or of version 2 if `is_of_2`. For fuzz targets, which find
    /// no checksum.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &[u8], is_of_2: bool) -> Result<Self, TicketError> {
        let version = if is_of_2 { Version::Two } else { Version::One };
        Self::of_parts(body::decode(body, version)?)
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
