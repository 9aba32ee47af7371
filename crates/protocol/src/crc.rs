//! Checksums of frames: a sum that tells a bad link from a lying sender, never the proof of a byte.

use crc_fast::{CrcAlgorithm, checksum};

use super::limits::FRAME_PAYLOAD_BYTES_MAX;

/// CRC-32C (Castagnoli) of a data frame's payload. It is computed once per frame per chunk, and
/// looked at only after a digest mismatch, to tell a bad link from a lying sender.
#[must_use]
pub fn frame_crc(payload: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, payload)).expect("32 bits")
}

/// [`frame_crc`] of whole frames one after another, from that of each.
#[must_use]
pub fn joined_crc(frames: &[u32]) -> u32 {
    let shifted = |crc: u32| {
        let bits = (0..u32::BITS).filter(|bit| crc >> bit & 1 == 1);
        bits.fold(0, |sum, bit| sum ^ FRAME_SHIFT[bit as usize])
    };
    frames.iter().copied().reduce(|before, crc| shifted(before) ^ crc).unwrap_or(0)
}

/// What a frame's length of zeros makes of each bit of a CRC before it: a CRC is linear.
const FRAME_SHIFT: [u32; 32] = {
    const { assert!(FRAME_PAYLOAD_BYTES_MAX.is_power_of_two()) };
    // One bit of zero, then twice as many at a time.
    let mut shift = [0x82f6_3b78; 32];
    let mut bit = 1;
    while bit < 32 {
        shift[bit] = 1 << (bit - 1);
        bit += 1;
    }
    let mut bits = 1;
    while bits < FRAME_PAYLOAD_BYTES_MAX * 8 {
        shift = squared(&shift);
        bits *= 2;
    }
    shift
};

const fn squared(matrix: &[u32; 32]) -> [u32; 32] {
    let mut square = [0; 32];
    let mut row = 0;
    while row < 32 {
        let mut bit = 0;
        while bit < 32 {
            if matrix[row] >> bit & 1 == 1 {
                square[row] ^= matrix[bit];
            }
            bit += 1;
        }
        row += 1;
    }
    square
}
