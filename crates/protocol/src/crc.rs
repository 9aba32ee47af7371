//! Checksums of frames: a sum that tells a bad link from a lying sender, never the proof of a byte.

use crc_fast::{CrcAlgorithm, checksum};

/// CRC-32C (Castagnoli) of a data frame's payload. It is computed once per frame per chunk, and
/// looked at only after a digest mismatch, to tell a bad link from a lying sender.
#[must_use]
pub fn frame_crc(payload: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, payload)).expect("32 bits")
}
