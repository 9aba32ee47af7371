//! How a datagram finds its connection: by the connection ids (RFC 9000, 5.1) that the relay issues.
//!
//! Each begins with the shard that serves the connection, which is where the kernel steers by, and goes on with the
//! connection's number on that shard. So a relay keeps no table of ids, and a datagram for no connection of the relay's
//! costs one look. The first id that a peer uses is made from the secret of both sides' stream: only the peer that
//! was offered datagrams knows it.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use relay_protocol::limits::DATAGRAM_SECRET_BYTES;

/// Shard and number.
const ADDRESS_BYTES: usize = 9;

/// Bytes of the first id that only the two sides can know: who guesses them has one attempt in 2^64.
const SECRET_PART_BYTES: usize = 8;

/// Bytes by which the ids of one connection differ.
const SALT_BYTES: usize = 4;

/// Bytes of each id that a relay issues.
pub(super) const ID_BYTES: usize = ADDRESS_BYTES + SALT_BYTES;

/// The first byte of a datagram that begins with a long header has this bit (RFC 8999, 5.1).
const LONG_HEADER: u8 = 0x80;

/// Where the length of the id lies in a long header: behind the first byte and the version.
const LONG_ID_LEN_AT: usize = 5;

/// What a datagram that comes to a relay is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The shard that serves the connection.
    pub shard: u8,
    /// Which of its connections.
    pub connection: u64,
}

impl Address {
    /// Of a datagram to a relay; `None` if it is none of ours.
    #[must_use]
    pub fn peek(datagram: &[u8]) -> Option<Self> {
        let (first, rest) = datagram.split_first()?;
        let id = match first & LONG_HEADER {
            0 => rest,
            _ => {
                let len = usize::from(*datagram.get(LONG_ID_LEN_AT)?);
                datagram.get(LONG_ID_LEN_AT + 1..)?.get(..len)?
            }
        };
        let (shard, rest) = id.split_first()?;
        let connection = u64::from_le_bytes(*rest.first_chunk()?);
        Some(Self { shard: *shard, connection })
    }

    /// Whether a datagram with a long header names this id.
    pub(super) fn names(datagram: &[u8], id: &ConnectionId) -> bool {
        datagram.first().is_some_and(|first| first & LONG_HEADER != 0)
            && datagram.get(LONG_ID_LEN_AT).is_some_and(|&len| usize::from(len) == id.len())
            && datagram.get(LONG_ID_LEN_AT + 1..).is_some_and(|rest| rest.starts_with(id))
    }

    fn encode(self) -> [u8; ADDRESS_BYTES] {
        let mut bytes = [self.shard; ADDRESS_BYTES];
        bytes[1..].copy_from_slice(&self.connection.to_le_bytes());
        bytes
    }

    /// What a peer names in its first datagrams.
    pub(super) fn first_id(self, secret: &[u8; DATAGRAM_SECRET_BYTES]) -> ConnectionId {
        let mut id = [0; ADDRESS_BYTES + SECRET_PART_BYTES];
        id[..ADDRESS_BYTES].copy_from_slice(&self.encode());
        let part = blake3::derive_key("psp-relay v3 first id of a peer's datagrams", secret);
        id[ADDRESS_BYTES..].copy_from_slice(&part[..SECRET_PART_BYTES]);
        ConnectionId::new(&id)
    }
}

/// Issues the ids of one of the relay's connections.
pub(super) struct Ids {
    address: Address,
    issued: u32,
}

impl Ids {
    pub(super) fn new(address: Address) -> Self {
        Self { address, issued: 0 }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        id[..ADDRESS_BYTES].copy_from_slice(&self.address.encode());
        id[ADDRESS_BYTES..].copy_from_slice(&self.issued.to_le_bytes());
        self.issued = self.issued.wrapping_add(1);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Address = Address { shard: 7, connection: 0x0102_0304_0506_0708 };

    /// A datagram with a long header, or a short one, that names this id.
    fn datagram(id: &[u8], is_long: bool) -> Vec<u8> {
        let mut bytes = vec![0x40];
        if is_long {
            bytes = vec![0xc0, 0, 0, 0, 1, u8::try_from(id.len()).expect("short")];
        }
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&[9; 30]);
        bytes
    }

    #[test]
    fn both_headers_lead_to_the_connection() {
        let (mut ids, first) = (Ids::new(ADDRESS), ADDRESS.first_id(&[3; 32]));
        let (one, other) = (ids.generate_cid(), ids.generate_cid());
        assert_ne!(one, other);
        for is_long in [false, true] {
            for id in [&one, &other, &first] {
                assert_eq!(Address::peek(&datagram(id, is_long)), Some(ADDRESS));
            }
        }
        assert_ne!(first, ADDRESS.first_id(&[4; 32]), "only the two sides know it");
    }

    #[test]
    fn what_is_too_short_to_name_a_connection_is_none_of_ours() {
        for is_long in [false, true] {
            let whole = datagram(&[1; 9], is_long);
            let least = if is_long { 15 } else { 10 };
            for len in 0..least {
                assert_eq!(Address::peek(&whole[..len]), None, "{len}");
            }
            assert!(Address::peek(&whole[..least]).is_some());
        }
        let lies = [0xc0, 0, 0, 0, 1, 200, 1, 2, 3];
        assert_eq!(Address::peek(&lies), None);
    }
}
