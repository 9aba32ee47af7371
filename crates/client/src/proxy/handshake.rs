//! What is said to a proxy until it is a tunnel to the relay, whatever it speaks.
//!
//! Bytes in, bytes out: touches no socket.

use relay_protocol::RelayAddr;

use super::{
    connect::Connect,
    fault::ProxyFault,
    socks::{PIECE_BYTES_MAX, Socks},
    url::{Proxy, ProxyKind},
};

/// [`Handshake::wants`] is never more than this.
pub(super) const WANTED_BYTES_MAX: usize = PIECE_BYTES_MAX;

/// The exchange with a proxy.
#[derive(Debug)]
pub struct Handshake(Speech);

#[derive(Debug)]
enum Speech {
    Socks(Socks),
    Connect(Connect),
}

impl Handshake {
    /// To have this relay reached: by its name, if the relay has one.
    #[must_use]
    pub fn new(proxy: &Proxy, relay: &RelayAddr) -> Self {
        Self(match proxy.kind() {
            ProxyKind::Socks5 | ProxyKind::Socks5h => Speech::Socks(Socks::new(proxy, relay)),
            ProxyKind::Http => Speech::Connect(Connect::new(proxy, relay)),
        })
    }

    /// What is to be sent to the proxy now.
    pub fn take_output(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Speech::Socks(socks) => socks.take_output(),
            Speech::Connect(connect) => connect.take_output(),
        }
    }

    /// So many bytes at least does the proxy still send, so that none of them is the relay's; 0 once what it sends is
    /// the relay's.
    #[must_use]
    pub fn wants(&self) -> usize {
        match &self.0 {
            Speech::Socks(socks) => socks.wants(),
            Speech::Connect(connect) => connect.wants(),
        }
    }

    /// Takes what the proxy sent. How many of the bytes that were: the others are the relay's.
    ///
    /// # Errors
    /// The proxy refuses, or is none.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, ProxyFault> {
        match &mut self.0 {
            Speech::Socks(socks) => socks.handle_input(bytes),
            Speech::Connect(connect) => connect.handle_input(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::rng::Rng;

    use super::*;

    /// What a proxy may begin with, so that chance gets beyond the first byte.
    const BEGINNINGS: [&[u8]; 5] = [
        b"",
        b"\x05\0\x05\0\0\x03",
        b"\x05\x02\x01\0\x05\0\0\x01",
        b"HTTP/1.1 ",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.0 2",
    ];

    /// How many bytes were the proxy's, or that it failed, if it says all this in pieces of at most so many bytes.
    fn taken(url: &str, said: &[u8], piece_max: usize) -> Option<usize> {
        let relay = "relay.example.org:7440".parse().expect("a relay");
        let mut handshake = Handshake::new(&url.parse().expect("a proxy"), &relay);
        let mut taken = 0;
        for piece in said.chunks(piece_max) {
            handshake.take_output();
            let count = handshake.handle_input(piece).ok()?;
            taken += count;
            assert!(handshake.wants() <= WANTED_BYTES_MAX && count <= piece.len());
            assert!(count == piece.len() || handshake.wants() == 0, "it takes what it wants");
        }
        Some(taken)
    }

    #[test]
    fn whatever_a_proxy_says_is_taken_the_same_in_one_piece_and_byte_by_byte() {
        let mut rng = Rng::new(7, 0);
        for round in 0..5_000_u32 {
            let begin = BEGINNINGS[round as usize % BEGINNINGS.len()];
            let mut said = begin.to_vec();
            // Bytes that mean something to one of both, now and then.
            said.extend((0..40).map(|_| match rng.below(8) {
                0 => b'\n',
                1 => b'\r',
                2 => b' ',
                3 => b'0',
                4 => 0,
                5 => 1,
                6 => 2,
                _ => rng.next_u64().to_le_bytes()[0],
            }));
            for url in ["socks5h://proxy", "socks5://a:b@proxy", "http://proxy:1"] {
                let at_once = taken(url, &said, said.len());
                assert_eq!(taken(url, &said, 1), at_once, "{url} {said:?}");
                assert_eq!(taken(url, &said, 3), at_once, "{url} {said:?}");
            }
        }
    }
}
