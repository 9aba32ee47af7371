//! What seals the datagrams of one connection, and opens them. Pure; which numbers are new is the transport's business.

use std::borrow::Cow;

use ring::aead;

use super::{
    datagram::{
        DATA_PIECE_HEADER_BYTES, DATAGRAM_HEADER_BYTES, DATAGRAM_MAC_BYTES, DataPieceHeader,
        KIND_DATA,
    },
    limits::DATAGRAM_SECRET_BYTES,
    message::Side,
};

/// Bytes of a data datagram that its MAC is taken of, if it is not all: what is before the file's.
const DATA_PROVEN_BYTES: usize = DATAGRAM_HEADER_BYTES + DATA_PIECE_HEADER_BYTES;

const _: () = assert!(DATAGRAM_SECRET_BYTES == blake3::KEY_LEN);

/// Seals datagrams of one direction of one connection. Never printed.
#[derive(Clone)]
pub struct DatagramKey {
    /// For messages, so that none is read on the way.
    cipher: aead::LessSafeKey,
    /// For file bytes.
    mac: [u8; blake3::KEY_LEN],
    /// Whether the MAC is of the file bytes, too.
    proves_bytes: bool,
}

/// The keys of one connection, one for each direction: a datagram that is sent back proves nothing.
#[derive(Clone, Debug)]
pub struct DatagramKeys {
    /// For what the peer sends.
    pub to_relay: DatagramKey,
    /// For what the relay sends.
    pub to_peer: DatagramKey,
}

impl std::fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramKey(..)")
    }
}

const TO_RELAY: u8 = 0;
const TO_PEER: u8 = 1;

/// Which of a secret's keys one is.
mod purpose {
    pub(super) const MAC: u8 = 0;
    pub(super) const CIPHER: u8 = 1;
}

impl DatagramKeys {
    /// From what both sides export of their TLS session.
    #[must_use]
    pub fn derive(secret: &[u8; DATAGRAM_SECRET_BYTES]) -> Self {
        let part = |direction: u8, purpose: u8| blake3::keyed_hash(secret, &[direction, purpose]);
        let key = |direction: u8| {
            let cipher = part(direction, purpose::CIPHER);
            let cipher = aead::UnboundKey::new(&aead::AES_256_GCM, cipher.as_bytes());
            DatagramKey {
                cipher: aead::LessSafeKey::new(cipher.expect("a key of 32 bytes")),
                mac: *part(direction, purpose::MAC).as_bytes(),
                // A peer that supplies wrong bytes is banned, so no other may be able to make them.
                proves_bytes: direction == TO_RELAY,
            }
        };
        Self { to_relay: key(TO_RELAY), to_peer: key(TO_PEER) }
    }

    /// The keys that `side` seals with, and those that it opens with.
    #[must_use]
    pub fn of(self, side: Side) -> (DatagramKey, DatagramKey) {
        match side {
            Side::Relay => (self.to_peer, self.to_relay),
            Side::Peer => (self.to_relay, self.to_peer),
        }
    }
}

impl DatagramKey {
    /// Seals the datagram that begins at `start` of `out`, which has a header whose number is new.
    ///
    /// # Panics
    /// If it has no header, which is our bug.
    pub fn seal(&self, out: &mut Vec<u8>, start: usize) {
        if is_data(&out[start..]) {
            let mac = blake3::keyed_hash(&self.mac, self.proven(&out[start..]));
            out.extend_from_slice(&mac.as_bytes()[..DATAGRAM_MAC_BYTES]);
            return;
        }
        let (header, body) = out[start..].split_at_mut(DATAGRAM_HEADER_BYTES);
        let nonce = nonce_of(header).expect("a header holds the number");
        let tag = self.cipher.seal_in_place_separate_tag(nonce, aead::Aad::from(&*header), body);
        out.extend_from_slice(tag.expect("a datagram is short").as_ref());
    }

    /// The body, if the datagram was sealed with this key and came as it was sent.
    #[must_use]
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if !is_data(datagram) {
            let (header, sealed) = datagram.split_at_checked(DATAGRAM_HEADER_BYTES)?;
            let mut body = sealed.to_vec();
            let opened =
                self.cipher.open_in_place(nonce_of(header)?, aead::Aad::from(header), &mut body);
            let len = opened.ok()?.len();
            body.truncate(len);
            return Some(Cow::Owned(body));
        }
        let (sealed, mac) = datagram.split_last_chunk::<DATAGRAM_MAC_BYTES>()?;
        let hash = blake3::keyed_hash(&self.mac, self.proven(sealed));
        // Takes equally long wherever they differ.
        let differs = hash
            .as_bytes()
            .iter()
            .zip(mac)
            .fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs));
        let body = (differs == 0).then(|| sealed.get(DATAGRAM_HEADER_BYTES..)).flatten()?;
        DataPieceHeader::is_undamaged(body).then_some(Cow::Borrowed(body))
    }

    /// What of a datagram of data, without its MAC, the MAC is taken of. Of what a relay gives out the bytes of the file
    /// are left out, which their checksum stands for: they are hashed once already, against the manifest, and a MAC of
    /// them all took each side as long again.
    fn proven<'a>(&self, sealed: &'a [u8]) -> &'a [u8] {
        match self.proves_bytes {
            true => sealed,
            false => &sealed[..DATA_PROVEN_BYTES.min(sealed.len())],
        }
    }
}

/// The number of a datagram, which is never used twice under one key, as the cipher takes it.
fn nonce_of(header: &[u8]) -> Option<aead::Nonce> {
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[4..].copy_from_slice(header.get(12..DATAGRAM_HEADER_BYTES)?);
    Some(aead::Nonce::assume_unique_for_key(nonce))
}

fn is_data(datagram: &[u8]) -> bool {
    datagram.get(1) == Some(&KIND_DATA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crc::frame_crc,
        datagram::{DatagramFrame, DatagramHeader, DatagramKind},
    };

    fn keys() -> DatagramKeys {
        DatagramKeys::derive(&[7; 32])
    }

    fn sealed(key: &DatagramKey) -> Vec<u8> {
        let kind = DatagramKind::Control;
        let header = DatagramHeader { shard: 3, kind, connection: 5, number: 9 };
        let mut bytes = header.encode().to_vec();
        DatagramFrame::Ping.encode(&mut bytes);
        key.seal(&mut bytes, 0);
        assert_eq!(DatagramHeader::peek(&bytes), Some(header));
        bytes
    }

    fn sealed_data(key: &DatagramKey) -> Vec<u8> {
        let header =
            DatagramHeader { shard: 3, kind: DatagramKind::Data, connection: 5, number: 9 };
        let mut bytes = header.encode().to_vec();
        let piece = [7; 100];
        bytes.extend_from_slice(
            &DataPieceHeader { chunk: 1, offset: 2, tag: 3 }.encode(frame_crc(&piece)),
        );
        bytes.extend_from_slice(&piece);
        key.seal(&mut bytes, 0);
        bytes
    }

    #[test]
    fn a_datagram_opens_with_its_key_only_and_not_in_the_other_direction() {
        let keys = keys();
        let bytes = sealed(&keys.to_relay);
        let mut body = Vec::new();
        DatagramFrame::Ping.encode(&mut body);
        assert_eq!(keys.to_relay.open(&bytes), Some(Cow::Borrowed(&body[..])));
        assert_eq!(keys.to_peer.open(&bytes), None);
        assert_eq!(DatagramKeys::derive(&[8; 32]).to_relay.open(&bytes), None);
    }

    #[test]
    fn a_datagram_with_any_other_bit_does_not_open() {
        let key = keys().to_peer;
        for bytes in [sealed(&key), sealed_data(&key)] {
            assert!(key.open(&bytes).is_some());
            for bit in 0..bytes.len() * 8 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open(&wrong), None);
            }
            for len in 0..bytes.len() {
                assert_eq!(key.open(&bytes[..len]), None);
            }
        }
    }
}
