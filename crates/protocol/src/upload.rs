//! Checksums of what a peer supplies, under a key of its session: who can't make them can get no peer blamed.
//!
//! A receiver looks at them only when a chunk is wrong, so they cost the relay nothing where all is well.

use super::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX, UPLOAD_SECRET_BYTES};

/// Makes the checksums of the frames that a peer sends in one session. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadKey([u8; UPLOAD_SECRET_BYTES]);

impl std::fmt::Debug for UploadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadKey(..)")
    }
}

impl UploadKey {
    /// Of what both sides export of their TLS session.
    #[must_use]
    pub fn new(secret: [u8; UPLOAD_SECRET_BYTES]) -> Self {
        Self(secret)
    }

    /// Of the frame that answers this fetch and begins at this offset of the chunk: the first four bytes of the keyed
    /// BLAKE3 of its payload, the fetch and the offset. So short a code is forged once in 2^32 attempts, and each
    /// attempt costs a connection.
    #[must_use]
    pub fn checksum(&self, fetch_id: u32, offset: u32, payload: &[u8]) -> u32 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The payload first: whole blocks of it are hashed at once, where they lie.
        hasher.update(payload).update(&fetch_id.to_le_bytes()).update(&offset.to_le_bytes());
        let hash = hasher.finalize();
        u32::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
    }

    /// Of all frames of a chunk, in order.
    pub fn checksums(&self, fetch_id: u32, chunk: &[u8]) -> impl Iterator<Item = u32> {
        let frames = chunk.chunks(FRAME_PAYLOAD_BYTES_MAX).zip(0..);
        frames.map(move |(frame, number)| {
            self.checksum(fetch_id, number * FRAME_PAYLOAD_LEN_MAX, frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_of_one_key_one_fetch_one_place_and_all_bytes() {
        let (key, other) = (UploadKey::new([1; 32]), UploadKey::new([2; 32]));
        let payload = [7; 1000];
        let right = key.checksum(3, 16_384, &payload);
        let mut wrong = vec![
            other.checksum(3, 16_384, &payload),
            key.checksum(4, 16_384, &payload),
            key.checksum(3, 0, &payload),
            key.checksum(3, 16_384, &payload[1..]),
        ];
        for bit in [0, 4711, 7999] {
            let mut payload = payload;
            payload[bit / 8] ^= 1 << (bit % 8);
            wrong.push(key.checksum(3, 16_384, &payload));
        }
        assert!(!wrong.contains(&right));
        let chunk = [5; FRAME_PAYLOAD_BYTES_MAX + 9];
        let (first, last) = chunk.split_at(FRAME_PAYLOAD_BYTES_MAX);
        let all: Vec<u32> = key.checksums(9, &chunk).collect();
        assert_eq!(all, [key.checksum(9, 0, first), key.checksum(9, FRAME_PAYLOAD_LEN_MAX, last)]);
    }
}
