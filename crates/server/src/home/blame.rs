//! Which addresses supplied wrong bytes to a swarm, for a while. Pure.
//!
//! A banned peer can connect again, and nothing tells it from an honest one behind the same
//! address. So an address that lied is not refused: a peer that joins from it is served like any
//! other, but asked for chunks only where no other peer can be. An honest neighbour loses nothing; a liar
//! that comes back is not listened to as long as another peer has the file.
//!
//! Invariant: `entries.len() <= ADDRESSES_MAX`, each address once, in the order of their last lie.

use core::net::{IpAddr, Ipv6Addr};
use std::{collections::VecDeque, time::Duration};

use relay_protocol::time::Time;

/// Addresses that one swarm remembers: the oldest is forgotten for a new one. A liar with more
/// addresses than this costs one chunk of ingress for each of them, as it would at first anyway.
const ADDRESSES_MAX: usize = 256;

/// How long a lie counts: addresses change hands.
const BLAME_TIME: Duration = Duration::from_secs(600);

/// Bits of an IPv6 address that one customer has for himself.
const IPV6_PREFIX_BITS: u32 = 64;

/// The addresses that lied to one swarm.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    entries: VecDeque<(IpAddr, Time)>,
}

impl Blame {
    /// A peer from there supplied wrong bytes.
    pub(crate) fn note(&mut self, now: Time, address: IpAddr) {
        let address = party(address);
        self.entries.retain(|&(other, _)| other != address);
        if self.entries.len() == ADDRESSES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((address, now));
    }

    /// Whether a peer from there did, not long ago.
    pub(crate) fn is_blamed(&mut self, now: Time, address: IpAddr) -> bool {
        while self.entries.front().is_some_and(|&(_, at)| now.since(at) >= BLAME_TIME) {
            self.entries.pop_front();
        }
        let address = party(address);
        self.entries.iter().any(|&(other, _)| other == address)
    }
}

/// What of an address its owner can't change at will.
pub(crate) fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let kept = u128::MAX << (u128::BITS - IPV6_PREFIX_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & kept))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_blamed_for_a_while_and_its_neighbours_are_not() {
        let mut blame = Blame::default();
        let at = Time::ZERO + Duration::from_secs(1);
        blame.note(at, address("192.0.2.7"));
        blame.note(at, address("2001:db8:1:2::5"));
        assert!(blame.is_blamed(at, address("::ffff:192.0.2.7")));
        assert!(blame.is_blamed(at, address("2001:db8:1:2:3::9")), "the same customer");
        assert!(!blame.is_blamed(at, address("192.0.2.8")));
        assert!(!blame.is_blamed(at, address("2001:db8:1:3::5")));
        blame.note(at + BLAME_TIME / 2, address("192.0.2.7"));
        let later = at + BLAME_TIME;
        assert!(blame.is_blamed(later, address("192.0.2.7")), "it lied again meanwhile");
        assert!(!blame.is_blamed(later, address("2001:db8:1:2::5")));
    }

    #[test]
    fn only_so_many_are_remembered_the_latest_of_them() {
        let mut blame = Blame::default();
        let at = Time::ZERO + Duration::from_secs(1);
        let number = |index: usize| IpAddr::from(u32::try_from(index).expect("few").to_be_bytes());
        (0..2 * ADDRESSES_MAX).for_each(|index| blame.note(at, number(index)));
        assert_eq!(blame.entries.len(), ADDRESSES_MAX);
        assert!(!blame.is_blamed(at, number(0)));
        assert!(blame.is_blamed(at, number(2 * ADDRESSES_MAX - 1)));
    }
}
