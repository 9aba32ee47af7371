//! AES-256 in counter mode by VAES: two blocks in each instruction, on machines that have it for registers of
//! 256 bits.
//!
//! The crate `aes` has such code, and finds VAES only where the system also has registers of 512 bits. Without
//! them it takes AES-NI, at little more than half of the speed (docs/decisions/0015-a-kernel-of-our-own-for-aes.md).
//! What this file makes is compared with that crate's in the tests. It holds the only unsafe code of the
//! protocol: loads and stores, and calls of what the machine was asked for.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm_slli_si128, _mm_storeu_si128, _mm_xor_si128, _mm256_add_epi64, _mm256_aesenc_epi128,
    _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_set_epi64x,
    _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_xor_si256,
};

use zeroize::ZeroizeOnDrop;

use crate::limits::FILE_KEY_BYTES;

/// Keys of the rounds of AES-256, the first of which is only added.
const ROUND_KEYS: usize = 15;

/// Bytes of one block.
const BLOCK_BYTES: usize = 16;

/// Registers that are under way at once: an instruction takes some cycles, and one or two begin in each.
const REGISTERS: usize = 8;

/// Bytes of one register: two blocks.
const REGISTER_BYTES: usize = 2 * BLOCK_BYTES;

/// Bytes that go through at once; what is less, another must do.
pub(super) const STRIDE_BYTES: usize = REGISTERS * REGISTER_BYTES;

/// Blocks that go through at once.
const STRIDE_BLOCKS: u64 = (STRIDE_BYTES / BLOCK_BYTES) as u64;

/// An expanded key. There is one only on a machine that has all instructions of this file.
#[derive(Clone, ZeroizeOnDrop)]
pub(super) struct RoundKeys([[u8; BLOCK_BYTES]; ROUND_KEYS]);

impl RoundKeys {
    /// Expands a key, if this machine can use it.
    pub(super) fn new(key: &[u8; FILE_KEY_BYTES]) -> Option<Self> {
        let can = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("vaes");
        if !can {
            return None;
        }
        #[expect(unsafe_code, reason = "instructions that not every machine has")]
        // SAFETY: the machine has just been asked for them.
        Some(Self(unsafe { expand(key) }))
    }

    /// XORs whole strides of bytes with the key stream from this block on. The block's number and those that
    /// follow are below 2^64.
    ///
    /// # Panics
    /// The bytes are no whole strides.
    pub(super) fn apply(&self, first_block: u64, bytes: &mut [u8]) {
        let (strides, rest) = bytes.as_chunks_mut::<STRIDE_BYTES>();
        assert!(rest.is_empty(), "whole strides only");
        #[expect(unsafe_code, reason = "instructions that not every machine has")]
        // SAFETY: a machine that lacks one of them makes no round keys.
        unsafe {
            apply(&self.0, first_block, strides);
        }
    }
}

/// The key schedule of the standard (FIPS 197).
#[target_feature(enable = "aes,sse2")]
fn expand(key: &[u8; FILE_KEY_BYTES]) -> [[u8; BLOCK_BYTES]; ROUND_KEYS] {
    let (halves, _) = key.as_chunks::<BLOCK_BYTES>();
    let (mut even, mut odd) = (load(&halves[0]), load(&halves[1]));
    let mut keys = [[0; BLOCK_BYTES]; ROUND_KEYS];
    (keys[0], keys[1]) = (halves[0], halves[1]);
    for (round, pair) in keys[2..].chunks_mut(2).enumerate() {
        // The constant of the round must be part of the instruction.
        let assisted = match round {
            0 => _mm_aeskeygenassist_si128::<0x01>(odd),
            1 => _mm_aeskeygenassist_si128::<0x02>(odd),
            2 => _mm_aeskeygenassist_si128::<0x04>(odd),
            3 => _mm_aeskeygenassist_si128::<0x08>(odd),
            4 => _mm_aeskeygenassist_si128::<0x10>(odd),
            5 => _mm_aeskeygenassist_si128::<0x20>(odd),
            _ => _mm_aeskeygenassist_si128::<0x40>(odd),
        };
        even = _mm_xor_si128(running_xor(even), _mm_shuffle_epi32::<0xff>(assisted));
        store(even, &mut pair[0]);
        if let Some(last) = pair.get_mut(1) {
            let assisted = _mm_aeskeygenassist_si128::<0>(even);
            odd = _mm_xor_si128(running_xor(odd), _mm_shuffle_epi32::<0xaa>(assisted));
            store(odd, last);
        }
    }
    keys
}

/// To each of the four words all before it are added, by XOR.
#[target_feature(enable = "sse2")]
fn running_xor(words: __m128i) -> __m128i {
    let twice = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
    _mm_xor_si128(twice, _mm_slli_si128::<8>(twice))
}

#[target_feature(enable = "sse2")]
fn load(block: &[u8; BLOCK_BYTES]) -> __m128i {
    #[expect(unsafe_code, reason = "a load by address")]
    // SAFETY: there are as many bytes, and the instruction needs no alignment.
    unsafe {
        _mm_loadu_si128(block.as_ptr().cast())
    }
}

#[target_feature(enable = "sse2")]
fn store(value: __m128i, block: &mut [u8; BLOCK_BYTES]) {
    #[expect(unsafe_code, reason = "a store by address")]
    // SAFETY: there are as many bytes, and the instruction needs no alignment.
    unsafe {
        _mm_storeu_si128(block.as_mut_ptr().cast(), value);
    }
}

#[target_feature(enable = "aes,avx2,vaes")]
fn apply(
    round_keys: &[[u8; BLOCK_BYTES]; ROUND_KEYS],
    first_block: u64,
    strides: &mut [[u8; STRIDE_BYTES]],
) {
    let mut keys = [_mm256_set_epi64x(0, 0, 0, 0); ROUND_KEYS];
    for (key, bytes) in keys.iter_mut().zip(round_keys) {
        *key = _mm256_broadcastsi128_si256(load(bytes));
    }
    let mut counter = first_block;
    for stride in strides {
        let mut blocks = counters(counter);
        for block in &mut blocks {
            *block = _mm256_xor_si256(*block, keys[0]);
        }
        for key in &keys[1..ROUND_KEYS - 1] {
            for block in &mut blocks {
                *block = _mm256_aesenc_epi128(*block, *key);
            }
        }
        let (registers, _) = stride.as_chunks_mut::<REGISTER_BYTES>();
        for (bytes, block) in registers.iter_mut().zip(blocks) {
            #[expect(unsafe_code, reason = "a load and a store by address")]
            // SAFETY: there are as many bytes, and the instructions need no alignment.
            unsafe {
                let there: *mut __m256i = bytes.as_mut_ptr().cast();
                // The last step of the cipher is to add a key: the text is added with it.
                let key = _mm256_xor_si256(keys[ROUND_KEYS - 1], _mm256_loadu_si256(there));
                _mm256_storeu_si256(there, _mm256_aesenclast_epi128(block, key));
            }
        }
        counter = counter.wrapping_add(STRIDE_BLOCKS);
    }
}

/// The counters of a stride, as the cipher takes them: numbers of 128 bits, big-endian. Their upper half is 0,
/// as a file has fewer than 2^64 blocks.
#[target_feature(enable = "avx2")]
fn counters(first: u64) -> [__m256i; REGISTERS] {
    let swap = _mm256_setr_epi8(
        7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, //
        7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8,
    );
    let two = _mm256_set_epi64x(2, 0, 2, 0);
    let first = first.cast_signed();
    let mut next = _mm256_set_epi64x(first.wrapping_add(1), 0, first, 0);
    let mut counters = [next; REGISTERS];
    for counter in &mut counters {
        *counter = _mm256_shuffle_epi8(next, swap);
        next = _mm256_add_epi64(next, two);
    }
    counters
}
