//! The pin: what a relay is known by, short enough for a ticket.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::limits::PIN_BYTES;

/// The first [`PIN_BYTES`] bytes of the BLAKE3 of a relay's public key, as the key stands in a certificate
/// (`SubjectPublicKeyInfo` of RFC 5280, DER). Written in base32 without padding, in small letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pin(pub [u8; PIN_BYTES]);

/// Why a text is no pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a pin has 26 characters, letters from a to z and digits from 2 to 7: copy it from where the relay printed it"
)]
pub struct PinError;

impl Pin {
    /// The pin of a public key, given as DER.
    #[must_use]
    pub fn of_public_key(der: &[u8]) -> Self {
        let hash = blake3::hash(der);
        Self(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let bytes = BASE32_NOPAD.decode(text.trim().to_ascii_uppercase().as_bytes());
        let bytes = bytes.map_err(|_| PinError)?;
        bytes.try_into().map(Self).map_err(|_| PinError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written_in_letters_of_any_size() {
        let pin = Pin::of_public_key(b"a public key");
        let text = pin.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(pin));
        assert_eq!(format!(" {}\n", text.to_ascii_uppercase()).parse(), Ok(pin));
        let other = Pin::of_public_key(b"another");
        assert_ne!(pin, other);
        for wrong in ["", "abc", &text[1..], &format!("{text}a"), &text.replace(&text[..1], "1")] {
            assert_eq!(wrong.parse::<Pin>(), Err(PinError), "{wrong}");
        }
    }
}
