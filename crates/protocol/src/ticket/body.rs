//! What a ticket's text holds, as bytes, in either version. Whether it makes a ticket is not judged here.

use serde::{Deserialize, Serialize};

use super::{error::TicketError, kind::TicketKind, relay_addr::RelayAddr};
use crate::{
    key::{Digest, SwarmKey},
    limits::{PIN_BYTES, SHARE_SECRET_BYTES, TICKET_CHECKSUM_BYTES},
    pin::Pin,
    seal::{Sealed, ShareSecret},
};

/// The mark of a file that may be executed.
const MARK_EXECUTABLE: u8 = 1;

/// The mark of a bundle.
const MARK_BUNDLE: u8 = 2;

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

/// What a ticket holds.
pub(super) struct Parts {
    pub(super) relays: Vec<RelayAddr>,
    pub(super) pin: Option<Pin>,
    pub(super) key: SwarmKey,
    pub(super) name: String,
    pub(super) sealed: Option<Sealed>,
    pub(super) kind: TicketKind,
}

/// The bytes of a ticket without their checksum. There is a relay.
pub(super) fn encode(parts: &Parts, version: Version) -> Vec<u8> {
    let relays: Vec<String> = parts.relays.iter().map(ToString::to_string).collect();
    let (key, name) = (parts.key, parts.name.as_str());
    let encoded = match version {
        Version::One => postcard::to_stdvec(&BodyOne { relay: &relays[0], key, name }),
        Version::Two => {
            let relays = relays.iter().map(String::as_str).collect();
            let pin = parts.pin.unwrap_or(NO_PIN);
            let sealed = parts.sealed.as_ref().map(|sealed| (sealed.secret.0, sealed.plain));
            postcard::to_stdvec(&BodyTwo { relays, pin, key, name, sealed })
        }
    };
    let mut bytes = encoded.expect("plain fields can be encoded");
    bytes.extend(match parts.kind {
        TicketKind::File => None,
        TicketKind::Executable => Some(MARK_EXECUTABLE),
        TicketKind::Bundle => Some(MARK_BUNDLE),
    });
    bytes
}

/// What such bytes hold.
///
/// # Errors
/// What is wrong with them.
pub(super) fn decode(bytes: &[u8], version: Version) -> Result<Parts, TicketError> {
    let (body, marks) = match version {
        Version::One => {
            let (BodyOne { relay, key, name }, marks) = take(bytes)?;
            (BodyTwo { relays: vec![relay], pin: NO_PIN, key, name, sealed: None }, marks)
        }
        Version::Two => take::<BodyTwo<'_>>(bytes)?,
    };
    let kind = match marks {
        [] => TicketKind::File,
        [MARK_EXECUTABLE] => TicketKind::Executable,
        [MARK_BUNDLE] => TicketKind::Bundle,
        _ => return Err(TicketError::Marks),
    };
    let relays = body.relays.iter().map(|text| RelayAddr::with_port(text));
    let sealed = body.sealed.map(|(secret, plain)| Sealed { secret: ShareSecret(secret), plain });
    Ok(Parts {
        relays: relays.collect::<Result<_, _>>()?,
        pin: Some(body.pin).filter(|&pin| pin != NO_PIN),
        key: body.key,
        name: body.name.to_owned(),
        sealed,
        kind,
    })
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), TicketError> {
    postcard::take_from_bytes(bytes).map_err(|_| TicketError::Damaged("its content can't be read"))
}
