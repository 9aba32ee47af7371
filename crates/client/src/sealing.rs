//! What happens to the chunks of a sealed file between a disk and the swarm: sealed on their way out, opened on
//! their way in, and digested where that is wanted. Reads and writes nothing itself.
//!
//! A file that is not sealed has no [`Seal`], and goes the same ways.

use std::{cell::RefCell, io, rc::Rc, sync::Arc};

use relay_protocol::{ChunkHasher, Cipher, Digest, ManifestHasher, Sealed, SwarmKey};

/// Bytes that are sealed or opened before they are digested, and the next ones after that: they stay in the
/// fastest cache, and are enough for either to be at its best.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

/// How one file is sealed. Clones share one expanded key; any thread may use one.
#[derive(Clone, Debug)]
pub struct Seal {
    cipher: Arc<Cipher>,
    plain: Digest,
}

impl Seal {
    /// As a ticket says, of a file of so many bytes.
    #[must_use]
    pub fn new(sealed: &Sealed, size_bytes: u64) -> Self {
        Self { cipher: Arc::new(sealed.cipher(size_bytes)), plain: sealed.plain }
    }

    /// Seals bytes of the file, or opens them, in place. They are few: [`PIECE_BYTES`], and are used right after.
    pub(crate) fn apply(&self, offset_bytes: u64, piece: &mut [u8]) {
        self.cipher.apply(offset_bytes, piece);
    }

    /// The same from one place to another of the same length.
    pub(crate) fn apply_to(&self, offset_bytes: u64, from: &[u8], to: &mut [u8]) {
        self.cipher.apply_to(offset_bytes, from, to);
    }

    /// Seals a chunk in place, or opens it; its digest afterwards. Of the key only the file's size and that of
    /// its chunks count. `before` is fed with what the chunk was.
    pub(crate) fn turn(
        &self,
        key: &SwarmKey,
        chunk: u32,
        bytes: &mut [u8],
        mut before: Option<&mut ChunkHasher>,
    ) -> Digest {
        let mut after = ChunkHasher::new(key.chunk_count(), chunk, key.chunk_size_log2);
        let mut offset_bytes = key.chunk_offset_bytes(chunk);
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            if let Some(before) = &mut before {
                before.update(piece);
            }
            self.apply(offset_bytes, piece);
            after.update(piece);
            offset_bytes += piece.len() as u64;
        }
        after.finalize()
    }
}

/// Every chunk was what the swarm's id says, and what came out is not the file that the ticket speaks of: who
/// made the ticket is at fault, or altered it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the ticket contradicts itself: what it names opens to a file with the BLAKE3 {opened}, and it says {plain}: \
     ask for a new ticket"
)]
pub struct WrongPlain {
    /// Of what came out.
    pub opened: Digest,
    /// What the ticket says.
    pub plain: Digest,
}

/// What was opened of a file so far, by digests of its chunks as they lie on disk, from whichever connection or
/// disk they came. Clones are the same; they belong to one thread.
#[derive(Clone, Debug)]
pub struct Opening {
    seal: Seal,
    opened: Rc<RefCell<ManifestHasher>>,
}

impl Opening {
    /// Before the first chunk.
    ///
    /// # Panics
    /// The key is not valid, which a ticket's is.
    #[must_use]
    pub fn new(sealed: &Sealed, key: &SwarmKey) -> Self {
        Self::with(Seal::new(sealed, key.size_bytes), key)
    }

    /// The same with a seal that others of this file have, too.
    ///
    /// # Panics
    /// The key is not valid, which a ticket's is.
    #[must_use]
    pub fn with(seal: Seal, key: &SwarmKey) -> Self {
        let opened = ManifestHasher::new(key.size_bytes, key.chunk_size_log2);
        Self { seal, opened: Rc::new(RefCell::new(opened.expect("a ticket's key is valid"))) }
    }

    /// How the file is sealed.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Notes the digest of a chunk that was opened.
    ///
    /// # Errors
    /// It was the last, and the file is not the ticket's.
    pub fn note(&self, chunk: u32, digest: Digest) -> Result<(), WrongPlain> {
        self.opened.borrow_mut().set(chunk, digest);
        self.check()
    }

    /// Whether the file is the ticket's, as soon as all of its chunks were opened.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), WrongPlain> {
        let opened = self.opened.borrow();
        if opened.missing() > 0 {
            return Ok(());
        }
        let plain = self.seal.plain;
        match opened.finish() {
            Some((key, _)) if key.id != plain => Err(WrongPlain { opened: key.id, plain }),
            _ => Ok(()),
        }
    }

    /// The same for a store, whose errors are the system's otherwise.
    pub(crate) fn note_kept(&self, chunk: u32, digest: Digest) -> io::Result<()> {
        self.note(chunk, digest).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// What a store's error was, if a ticket that contradicts itself is to blame.
#[must_use]
pub fn wrong_plain(error: &io::Error) -> Option<&WrongPlain> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use relay_protocol::{Manifest, ShareSecret, digest_file};

    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * i + i / 7) % 251).unwrap()).collect()
    }

    /// A file, how it is sealed, and what the swarm moves of it.
    fn sealed(len: usize, log2: u8) -> (Vec<u8>, Sealed, Vec<u8>, Manifest) {
        let bytes = content(len);
        let sealed = Sealed { secret: ShareSecret([5; 16]), plain: digest_file(&bytes) };
        let mut moved = bytes.clone();
        sealed.cipher(len as u64).apply(0, &mut moved);
        let manifest = Manifest::of(&moved, log2).unwrap();
        (bytes, sealed, moved, manifest)
    }

    #[test]
    fn chunks_are_sealed_and_opened_each_for_itself() {
        for (len, log2) in [(1, 10), (1024, 10), (5000, 10), (100_000, 14), (200_001, 17)] {
            let (bytes, sealed, moved, manifest) = sealed(len, log2);
            let key = *manifest.key();
            let plain = Manifest::of(&bytes, log2).unwrap();
            let seal = Seal::new(&sealed, key.size_bytes);
            for (chunk, (own, others)) in
                (0..).zip(bytes.chunks(1 << log2).zip(moved.chunks(1 << log2)))
            {
                let mut chunk_bytes = own.to_vec();
                let mut before = ChunkHasher::new(key.chunk_count(), chunk, log2);
                let digest = seal.turn(&key, chunk, &mut chunk_bytes, Some(&mut before));
                assert_eq!(digest, manifest.digest(chunk));
                assert_eq!(before.finalize(), plain.digest(chunk));
                assert!(chunk_bytes == others);
                assert_eq!(seal.turn(&key, chunk, &mut chunk_bytes, None), plain.digest(chunk));
                assert!(chunk_bytes == own);
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_chunk_is_noticed() {
        let (_, _, moved, manifest) = sealed(1024 + 300, 10);
        for (chunk, part) in (0..).zip(moved.chunks(1024)) {
            assert!(manifest.matches(chunk, part));
            let mut flipped = part.to_vec();
            for bit in 0..part.len() * 8 {
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!manifest.matches(chunk, &flipped), "bit {bit} of chunk {chunk}");
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_file_is_judged_when_its_last_chunk_was_opened_in_any_order() {
        let (_, right, moved, manifest) = sealed(5 * 1024 + 1, 10);
        let key = *manifest.key();
        let wrong_plain = Sealed { plain: Digest([9; 32]), ..right.clone() };
        let wrong_secret = Sealed { secret: ShareSecret([6; 16]), ..right.clone() };
        for (sealed, is_right) in [(&right, true), (&wrong_plain, false), (&wrong_secret, false)] {
            let opening = Opening::new(sealed, &key);
            for chunk in [3, 0, 5, 1, 4, 2] {
                assert!(opening.check().is_ok(), "not all of it is here");
                let start = chunk as usize * 1024;
                let mut bytes = moved[start..moved.len().min(start + 1024)].to_vec();
                let digest = opening.seal().turn(&key, chunk, &mut bytes, None);
                let noted = opening.note(chunk, digest);
                assert_eq!(noted.is_ok(), is_right || chunk != 2, "chunk {chunk}");
            }
            assert_eq!(opening.check().is_ok(), is_right);
        }
        let empty = Sealed { plain: digest_file(&[]), ..right };
        let key = SwarmKey { id: digest_file(&[]), size_bytes: 0, chunk_size_log2: 10 };
        assert!(Opening::new(&empty, &key).check().is_ok());
        let wrong = Sealed { plain: Digest([9; 32]), ..empty };
        assert!(Opening::new(&wrong, &key).check().is_err());
    }
}
