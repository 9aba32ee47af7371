//! A relay as a publisher names it: where it is, and the pin that it must show, if the publisher knows it.

use std::{fmt, str::FromStr};

use super::{
    pin::{Pin, PinError},
    ticket::{RelayAddr, RelayAddrError},
};

/// Between a relay's address and its pin. No host and no port has one.
const PIN_MARK: char = '#';

/// A relay, and the pin that its key must have. Written `HOST:PORT#PIN`, or `HOST:PORT` without a pin.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PinnedRelay {
    /// Where it is.
    pub addr: RelayAddr,
    /// What it is known by; `None` if that is not known here.
    pub pin: Option<Pin>,
}

/// Why a text names no relay.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PinnedRelayError {
    /// The part before the `#`.
    #[error(transparent)]
    Addr(#[from] RelayAddrError),
    /// The part behind the `#`.
    #[error("what follows the # is no pin: {0}")]
    Pin(#[from] PinError),
}

impl From<RelayAddr> for PinnedRelay {
    fn from(addr: RelayAddr) -> Self {
        Self { addr, pin: None }
    }
}

impl FromStr for PinnedRelay {
    type Err = PinnedRelayError;

    fn from_str(text: &str) -> Result<Self, PinnedRelayError> {
        let (addr, pin) = match text.split_once(PIN_MARK) {
            // A URL may have such a mark as well: what is wrong with it comes first.
            Some((addr, pin)) => (addr.parse()?, Some(pin.parse()?)),
            None => (text.parse()?, None),
        };
        Ok(Self { addr, pin })
    }
}

impl fmt::Display for PinnedRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, pin } = self;
        match pin {
            Some(pin) => write!(f, "{addr}{PIN_MARK}{pin}"),
            None => write!(f, "{addr}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_read_as_it_is_written_with_and_without_its_pin() {
        let pin = Pin::of_public_key(b"a key");
        for addr in ["relay.example.org:7440", "[2001:db8::1]:80", "[fe80::1%eth0]:7440"] {
            for (text, pin) in [(addr.to_owned(), None), (format!("{addr}#{pin}"), Some(pin))] {
                let relay: PinnedRelay = text.parse().expect("it is one");
                assert_eq!((relay.addr.to_string(), relay.pin), (addr.to_owned(), pin));
                assert_eq!(relay.to_string(), text);
            }
        }
        // The port may be left out here too.
        let short: PinnedRelay = format!(" relay#{pin} ").parse().expect("it is one");
        assert_eq!(short.to_string(), format!("relay:7440#{pin}"));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_part_that_is_wrong() {
        let error = |text: &str| text.parse::<PinnedRelay>().expect_err("it is none").to_string();
        for text in ["relay:7440#", "relay:7440#abc", "relay:7440#a#b"] {
            let error = error(text);
            assert!(error.contains("follows the #") && error.contains("26"), "{error}");
        }
        let pin = Pin::of_public_key(b"a key");
        assert!(error(&format!("http://relay#{pin}")).contains("URL"));
        assert!(error(&format!("relay:0#{pin}")).contains("port"));
        assert!(error(&format!("#{pin}")).contains("host"));
    }
}
