//! AES-256 in counter mode by VAES: four blocks in each instruction where the machine has it for registers of 512 bits,
//! and two where it has 256.
//!
//! The crate `aes` takes AES-NI, which does one (docs/decisions/0015-a-kernel-of-our-own-for-aes.md).
//! What this file makes is compared with that crate's in the tests. It holds the only unsafe code of the
//! protocol: loads and stores, and calls of what the machine was asked for.

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_setr_epi8,
    _mm_shuffle_epi32, _mm_slli_si128, _mm_storeu_si128, _mm_xor_si128, _mm256_add_epi64,
    _mm256_aesenc_epi128, _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256,
    _mm256_loadu_si256, _mm256_set_epi64x, _mm256_shuffle_epi8, _mm256_storeu_si256,
    _mm256_xor_si256, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_set_epi64, _mm512_shuffle_epi8,
    _mm512_storeu_si512, _mm512_xor_si512,
};

use zeroize::ZeroizeOnDrop;

use crate::limits::FILE_KEY_BYTES;

/// Keys of the rounds of AES-256, the first of which is only added.
const ROUND_KEYS: usize = 15;

/// Bytes of one block.
const BLOCK_BYTES: usize = 16;

/// Registers that are under way at once: an instruction takes some cycles, and one or two begin in each.
const REGISTERS: usize = 8;

/// Bytes of a register of 512 bits: four blocks.
const WIDE_BYTES: usize = 4 * BLOCK_BYTES;

/// Bytes of a register of 256 bits: two blocks.
const HALF_BYTES: usize = 2 * BLOCK_BYTES;

/// Bytes that go through at once; what is less, another must do.
pub(super) const STRIDE_BYTES: usize = REGISTERS * WIDE_BYTES;

const _: () = assert!(STRIDE_BYTES.is_multiple_of(REGISTERS * HALF_BYTES));

/// An expanded key. There is one only on a machine that has all instructions of its width.
#[derive(Clone, ZeroizeOnDrop)]
pub(super) struct RoundKeys {
    keys: [[u8; BLOCK_BYTES]; ROUND_KEYS],
    /// Whether the machine has them for registers of 512 bits.
    #[zeroize(skip)]
    has_wide: bool,
}

/// Whole strides, and where what becomes of them goes: there, or to the same place.
struct Text {
    from: *const u8,
    to: *mut u8,
    len: usize,
}

impl RoundKeys {
    /// Expands a key, if this machine can use it.
    pub(super) fn new(key: &[u8; FILE_KEY_BYTES]) -> Option<Self> {
        let can = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("vaes");
        if !can {
            return None;
        }
        let has_wide = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw");
        #[expect(unsafe_code, reason = "instructions that not every machine has")]
        // SAFETY: the machine has just been asked for them.
        let keys = unsafe { expand(key) };
        Some(Self { keys, has_wide })
    }

    /// The same key for registers of 256 bits, whatever the machine has.
    #[cfg(test)]
    pub(super) fn narrowed(self) -> Self {
        Self { keys: self.keys, has_wide: false }
    }

    /// XORs whole strides of bytes with the key stream from this block on. The block's number and those that
    /// follow are below 2^64.
    ///
    /// # Panics
    /// The bytes are no whole strides.
    pub(super) fn apply(&self, first_block: u64, bytes: &mut [u8]) {
        let (from, to) = (bytes.as_ptr(), bytes.as_mut_ptr());
        self.apply_text(first_block, Text { from, to, len: bytes.len() });
    }

    /// The same from one place to another.
    ///
    /// # Panics
    /// The bytes are no whole strides, or there is not as much room for them.
    pub(super) fn apply_to(&self, first_block: u64, from: &[u8], to: &mut [u8]) {
        assert_eq!(from.len(), to.len(), "as many bytes come out as go in");
        let text = Text { from: from.as_ptr(), to: to.as_mut_ptr(), len: to.len() };
        self.apply_text(first_block, text);
    }

    /// Of bytes that the caller has borrowed.
    #[expect(clippy::needless_pass_by_value, reason = "a borrow must not outlive the call")]
    fn apply_text(&self, first_block: u64, text: Text) {
        assert!(text.len.is_multiple_of(STRIDE_BYTES), "whole strides only");
        #[expect(unsafe_code, reason = "instructions that not every machine has")]
        // SAFETY: a machine that lacks one of them makes no round keys, or none that are so wide. The text was made of
        // slices of its length, which are borrowed, and are the same or have nothing in common.
        unsafe {
            if self.has_wide {
                apply_wide(&self.keys, first_block, &text);
            } else {
                apply_half(&self.keys, first_block, &text);
            }
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

/// Four blocks in each register.
///
/// # Safety
/// The text's places have so many bytes, which is a multiple of [`STRIDE_BYTES`], to be read and written, and the machine
/// has the instructions.
#[expect(unsafe_code, reason = "instructions that not every machine has")]
#[target_feature(enable = "aes,avx2,vaes,avx512f,avx512bw")]
unsafe fn apply_wide(round_keys: &[[u8; BLOCK_BYTES]; ROUND_KEYS], first_block: u64, text: &Text) {
    let mut keys = [_mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, 0); ROUND_KEYS];
    for (key, bytes) in keys.iter_mut().zip(round_keys) {
        *key = _mm512_broadcast_i32x4(load(bytes));
    }
    let swap = _mm512_broadcast_i32x4(swapping());
    let first = |ahead: u64| first_block.wrapping_add(ahead).cast_signed();
    let mut next = _mm512_set_epi64(first(3), 0, first(2), 0, first(1), 0, first(0), 0);
    let four = _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0);
    for at in (0..text.len).step_by(REGISTERS * WIDE_BYTES) {
        let mut blocks = [next; REGISTERS];
        for block in &mut blocks {
            *block = _mm512_xor_si512(_mm512_shuffle_epi8(next, swap), keys[0]);
            next = _mm512_add_epi64(next, four);
        }
        for key in &keys[1..ROUND_KEYS - 1] {
            for block in &mut blocks {
                *block = _mm512_aesenc_epi128(*block, *key);
            }
        }
        for (index, block) in blocks.into_iter().enumerate() {
            let at = at + index * WIDE_BYTES;
            // SAFETY: the caller vouches for that many bytes, and the instructions need no alignment.
            unsafe {
                let from: *const __m512i = text.from.add(at).cast();
                // The last step of the cipher is to add a key: the text is added with it.
                let key = _mm512_xor_si512(keys[ROUND_KEYS - 1], _mm512_loadu_si512(from));
                _mm512_storeu_si512(text.to.add(at).cast(), _mm512_aesenclast_epi128(block, key));
            }
        }
    }
}

/// Two blocks in each register.
///
/// # Safety
/// As [`apply_wide`].
#[expect(unsafe_code, reason = "instructions that not every machine has")]
#[target_feature(enable = "aes,avx2,vaes")]
unsafe fn apply_half(round_keys: &[[u8; BLOCK_BYTES]; ROUND_KEYS], first_block: u64, text: &Text) {
    let mut keys = [_mm256_set_epi64x(0, 0, 0, 0); ROUND_KEYS];
    for (key, bytes) in keys.iter_mut().zip(round_keys) {
        *key = _mm256_broadcastsi128_si256(load(bytes));
    }
    let swap = _mm256_broadcastsi128_si256(swapping());
    let first = |ahead: u64| first_block.wrapping_add(ahead).cast_signed();
    let mut next = _mm256_set_epi64x(first(1), 0, first(0), 0);
    let two = _mm256_set_epi64x(2, 0, 2, 0);
    for at in (0..text.len).step_by(REGISTERS * HALF_BYTES) {
        let mut blocks = [next; REGISTERS];
        for block in &mut blocks {
            *block = _mm256_xor_si256(_mm256_shuffle_epi8(next, swap), keys[0]);
            next = _mm256_add_epi64(next, two);
        }
        for key in &keys[1..ROUND_KEYS - 1] {
            for block in &mut blocks {
                *block = _mm256_aesenc_epi128(*block, *key);
            }
        }
        for (index, block) in blocks.into_iter().enumerate() {
            let at = at + index * HALF_BYTES;
            // SAFETY: the caller vouches for that many bytes, and the instructions need no alignment.
            unsafe {
                let from: *const __m256i = text.from.add(at).cast();
                // The last step of the cipher is to add a key: the text is added with it.
                let key = _mm256_xor_si256(keys[ROUND_KEYS - 1], _mm256_loadu_si256(from));
                _mm256_storeu_si256(text.to.add(at).cast(), _mm256_aesenclast_epi128(block, key));
            }
        }
    }
}

/// How a counter becomes a number of 128 bits, big-endian, as the cipher takes it. The upper half of the counter is 0,
/// as a file has fewer than 2^64 blocks, and lies first.
#[target_feature(enable = "sse2")]
fn swapping() -> __m128i {
    _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8)
}
