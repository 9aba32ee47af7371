//! Sealed files: what the swarm moves of a file is its ciphertext, and only a ticket opens it.
//!
//! - secret of a share: the first 16 bytes of what BLAKE3's `derive_key` makes with the context
//!   `psp-relay v2 secret of a share`, over the user's secret, `plain`, and the size (8 bytes, little-endian);
//! - key of a file: `derive_key` with the context `psp-relay v2 key of a sealed file`, over the share's secret,
//!   `plain` and the size;
//! - ciphertext: the file, each byte combined by XOR with the key stream of AES-256 in counter mode. The counter is one
//!   big-endian number of 128 bits and begins with 0 at the file's first byte.
//!
//! `plain` is the BLAKE3 of the file itself. It is part of every key, so two contents never share a key stream,
//! even if the user's secret never changes. There is no MAC: the swarm's id is the root of the ciphertext's tree,
//! in which each byte's position counts. Bytes are verified first, and opened then.
//!
//! Pure. Secrets wipe themselves, and are never printed by `Debug`. Where secrets are kept is not known here.

#[cfg(target_arch = "x86_64")]
mod vaes;

use std::fmt;

use aes::{
    Aes256,
    cipher::{
        InnerIvInit as _, KeyInit as _, StreamCipher as _, StreamCipherCoreWrapper,
        StreamCipherSeek as _,
    },
};
use ctr::{CtrCore, flavors};
use zeroize::{Zeroize as _, ZeroizeOnDrop};

use super::{
    key::Digest,
    limits::{FILE_KEY_BYTES, SHARE_SECRET_BYTES, USER_SECRET_BYTES},
};

/// Separates the secrets of shares from any other use of BLAKE3.
const SECRET_CONTEXT: &str = "psp-relay v2 secret of a share";

/// Separates the keys of files from any other use of BLAKE3.
const KEY_CONTEXT: &str = "psp-relay v2 key of a sealed file";

/// Bytes of one block of AES.
const BLOCK_BYTES: u64 = 16;

/// What all shares of one user are sealed by: 32 bytes that only this user has.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct UserSecret(pub [u8; USER_SECRET_BYTES]);

/// What one share is sealed by, 16 bytes: the part of a ticket that makes it a key.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct ShareSecret(pub [u8; SHARE_SECRET_BYTES]);

/// The key of one file, 32 bytes.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct FileKey(pub [u8; FILE_KEY_BYTES]);

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSecret(..)")
    }
}

impl fmt::Debug for ShareSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareSecret(..)")
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

impl ShareSecret {
    /// Of the share of a file by this user: the same each time, so that a file that is shared again is
    /// the same swarm.
    #[must_use]
    pub fn derive(user: &UserSecret, plain: Digest, size_bytes: u64) -> Self {
        let mut derived = derive(SECRET_CONTEXT, &user.0, plain, size_bytes);
        let secret = Self(*derived.first_chunk().expect("a hash is longer"));
        derived.zeroize();
        secret
    }
}

impl FileKey {
    /// Of a file that was shared under this secret.
    #[must_use]
    pub fn derive(secret: &ShareSecret, plain: Digest, size_bytes: u64) -> Self {
        Self(derive(KEY_CONTEXT, &secret.0, plain, size_bytes))
    }
}

fn derive(context: &str, secret: &[u8], plain: Digest, size_bytes: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret).update(&plain.0).update(&size_bytes.to_le_bytes());
    let derived = *hasher.finalize().as_bytes();
    // It holds the secret, as the block that it has not hashed yet.
    hasher.zeroize();
    derived
}

/// What a ticket says of a sealed file.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Opens it.
    pub secret: ShareSecret,
    /// BLAKE3 of the file itself, what `b3sum` prints.
    pub plain: Digest,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Of a user's own file.
    #[must_use]
    pub fn by(user: &UserSecret, plain: Digest, size_bytes: u64) -> Self {
        Self { secret: ShareSecret::derive(user, plain, size_bytes), plain }
    }

    /// The cipher of the file, which has so many bytes.
    #[must_use]
    pub fn cipher(&self, size_bytes: u64) -> Cipher {
        Cipher::new(&FileKey::derive(&self.secret, self.plain, size_bytes))
    }
}

/// Seals and opens a file, in whatever pieces: either is the other's inverse. Holds the expanded key; made once
/// for a file, and shared by all threads.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Cipher {
    aes: Aes256,
    #[cfg(target_arch = "x86_64")]
    wide: Option<vaes::RoundKeys>,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// Expands a file's key.
    #[must_use]
    pub fn new(key: &FileKey) -> Self {
        Self {
            aes: Aes256::new(&key.0.into()),
            #[cfg(target_arch = "x86_64")]
            wide: vaes::RoundKeys::new(&key.0),
        }
    }

    /// Seals the bytes that lie at this offset of the file, or opens them, in place. Pieces of a few KiB and
    /// more are fastest.
    pub fn apply(&self, offset_bytes: u64, bytes: &mut [u8]) {
        let (head, wide) = self.parts(offset_bytes, bytes.len());
        let (first, rest) = bytes.split_at_mut(head);
        self.apply_narrow(offset_bytes, first);
        let offset_bytes = offset_bytes + head as u64;
        let (strides, last) = rest.split_at_mut(wide);
        self.apply_wide(offset_bytes, strides);
        self.apply_narrow(offset_bytes + wide as u64, last);
    }

    /// The same from one place to another: what is there is replaced.
    ///
    /// # Panics
    /// The two are of different lengths.
    pub fn apply_to(&self, offset_bytes: u64, from: &[u8], to: &mut [u8]) {
        assert_eq!(from.len(), to.len(), "as many bytes come out as go in");
        let (head, wide) = self.parts(offset_bytes, to.len());
        let (from_first, from) = from.split_at(head);
        let (to_first, to) = to.split_at_mut(head);
        to_first.copy_from_slice(from_first);
        self.apply_narrow(offset_bytes, to_first);
        let offset_bytes = offset_bytes + head as u64;
        let (from_strides, from_last) = from.split_at(wide);
        let (to_strides, to_last) = to.split_at_mut(wide);
        self.apply_wide_to(offset_bytes, from_strides, to_strides);
        to_last.copy_from_slice(from_last);
        self.apply_narrow(offset_bytes + wide as u64, to_last);
    }

    /// By the crate, which all machines can.
    fn apply_narrow(&self, offset_bytes: u64, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let block = u128::from(offset_bytes / BLOCK_BYTES);
            self.apply_from(block, offset_bytes % BLOCK_BYTES, bytes);
        }
    }

    /// From this byte of this block on.
    fn apply_from(&self, block: u128, byte: u64, bytes: &mut [u8]) {
        let counter = block.to_be_bytes().into();
        let core = CtrCore::<_, flavors::Ctr128BE>::inner_iv_init(&self.aes, &counter);
        let mut stream = StreamCipherCoreWrapper::from_core(core);
        stream.seek(byte);
        stream.apply_keystream(bytes);
    }

    /// Of so many bytes at this offset, how many come before what wider instructions can do, and how many they do.
    #[cfg(target_arch = "x86_64")]
    fn parts(&self, offset_bytes: u64, len: usize) -> (usize, usize) {
        if self.wide.is_none() {
            return (len, 0);
        }
        let to_block = offset_bytes.wrapping_neg() % BLOCK_BYTES;
        let head = usize::try_from(to_block).expect("less than a block").min(len);
        (head, (len - head) / vaes::STRIDE_BYTES * vaes::STRIDE_BYTES)
    }

    /// There are no wider ones.
    #[cfg(not(target_arch = "x86_64"))]
    fn parts(&self, _: u64, len: usize) -> (usize, usize) {
        (len, 0)
    }

    /// What [`Self::parts`] leaves to wider instructions, at a whole block.
    #[cfg(target_arch = "x86_64")]
    fn apply_wide(&self, offset_bytes: u64, bytes: &mut [u8]) {
        if let Some(wide) = &self.wide {
            wide.apply(offset_bytes / BLOCK_BYTES, bytes);
        }
    }

    /// As [`Self::apply_wide`], from one place to another.
    #[cfg(target_arch = "x86_64")]
    fn apply_wide_to(&self, offset_bytes: u64, from: &[u8], to: &mut [u8]) {
        if let Some(wide) = &self.wide {
            wide.apply_to(offset_bytes / BLOCK_BYTES, from, to);
        }
    }

    /// Nothing is left to them.
    #[cfg(not(target_arch = "x86_64"))]
    fn apply_wide(&self, _: u64, _: &mut [u8]) {}

    /// Nothing is left to them.
    #[cfg(not(target_arch = "x86_64"))]
    fn apply_wide_to(&self, _: u64, _: &[u8], _: &mut [u8]) {}
}

#[cfg(test)]
mod tests;
