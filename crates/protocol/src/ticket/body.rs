//! What a ticket's text holds, as bytes, in either version. What is read is judged before it is used.

use serde::{Deserialize, Serialize};

use super::{RelayAddr, Ticket, TicketError};
use crate::{
    key::{Digest, SwarmKey},
    limits::{PIN_BYTES, SHARE_SECRET_BYTES, TICKET_CHECKSUM_BYTES},
    pin::Pin,
    seal::{Sealed, ShareSecret},
};

/// The mark of a file that may be executed.
const MARK_EXECUTABLE: u8 = 1;

/// Stands for a relay whose pin is not known. A pin is a hash: none comes out like this.
const NO_PIN: Pin = Pin([0; PIN_BYTES]);

/// Versions of tickets that this program writes and reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    /// One relay without a pin, a file as it is.
    One,
    /// Relays with a pin, a file that may be sealed.
    Two,
}

impl Version {
    pub(super) fn digit(self) -> char {
        match self {
            Self::One => '1',
            Self::Two => '2',
        }
    }

    pub(super) fn of_digit(digit: char) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|version| version.digit() == digit)
    }

    /// Separates this use of BLAKE3 from any other.
    fn checksum_context(self) -> &'static str {
        match self {
            Self::One => "psp-relay v1 checksum of a ticket",
            Self::Two => "psp-relay v2 checksum of a ticket",
        }
    }

    pub(super) fn checksum(self, body: &[u8]) -> [u8; TICKET_CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key(self.checksum_context());
        let hash = hasher.update(body).finalize();
        *hash.as_bytes().first_chunk().expect("a hash is longer")
    }
}

/// What version 1 encodes, in this order.
#[derive(Serialize, Deserialize)]
struct BodyOne<'a> {
    relay: &'a str,
    key: SwarmKey,
    name: &'a str,
}

/// What version 2 encodes, in this order.
#[derive(Serialize, Deserialize)]
struct BodyTwo<'a> {
    #[serde(borrow)]
    relays: Vec<&'a str>,
    pin: Pin,
    key: SwarmKey,
    name: &'a str,
    sealed: Option<([u8; SHARE_SECRET_BYTES], Digest)>,
}

/// The bytes of a ticket without their checksum.
pub(super) fn encode(ticket: &Ticket, version: Version) -> Vec<u8> {
    let relays: Vec<String> = ticket.relays().map(ToString::to_string).collect();
    let (key, name) = (ticket.key, ticket.name.as_str());
    let encoded = match version {
        Version::One => postcard::to_stdvec(&BodyOne { relay: &relays[0], key, name }),
        Version::Two => {
            let relays = relays.iter().map(String::as_str).collect();
            let pin = ticket.pin.unwrap_or(NO_PIN);
            let sealed = ticket.sealed.as_ref().map(|sealed| (sealed.secret.0, sealed.plain));
            postcard::to_stdvec(&BodyTwo { relays, pin, key, name, sealed })
        }
    };
    let mut bytes = encoded.expect("plain fields can be encoded");
    bytes.extend(ticket.is_executable.then_some(MARK_EXECUTABLE));
    bytes
}

/// The ticket of such bytes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(bytes: &[u8], version: Version) -> Result<Ticket, TicketError> {
    let (ticket, marks) = match version {
        Version::One => {
            let (body, marks) = take::<BodyOne<'_>>(bytes)?;
            (Ticket::new(RelayAddr::with_port(body.relay)?, body.key, body.name)?, marks)
        }
        Version::Two => {
            let (body, marks) = take::<BodyTwo<'_>>(bytes)?;
            (of_two(&body)?, marks)
        }
    };
    match marks {
        [] => Ok(ticket),
        [MARK_EXECUTABLE] => Ok(ticket.with_executable(true)),
        _ => Err(TicketError::Marks),
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), TicketError> {
    postcard::take_from_bytes(bytes).map_err(|_| TicketError::Damaged("its content can't be read"))
}

fn of_two(body: &BodyTwo<'_>) -> Result<Ticket, TicketError> {
    let relays: Result<Vec<RelayAddr>, _> =
        body.relays.iter().map(|text| RelayAddr::with_port(text)).collect();
    let mut relays = relays?.into_iter();
    let first = relays.next().ok_or(TicketError::RelayCount(0))?;
    let sealed = body.sealed.map(|(secret, plain)| Sealed { secret: ShareSecret(secret), plain });
    let pin = Some(body.pin).filter(|&pin| pin != NO_PIN);
    let ticket = Ticket::new(first, body.key, body.name)?.with_more_relays(relays.collect())?;
    Ok(ticket.with_pin(pin).with_sealed(sealed))
}
