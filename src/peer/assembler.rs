//! Puts data frames together into verified chunks.
//!
//! Pure. Where bytes are not kept they are hashed straight from the receive buffer and never
//! copied. Does not know what the peer does with a chunk, nor who asked for it.
//!
//! Invariants: at most [`PARTIAL_CHUNKS_MAX`] partials, of different chunks, oldest first; each
//! holds a prefix of its chunk, shorter than the chunk.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::{
    ChunkHasher, DataHeader, Manifest, frame_crc,
    limits::{FRAME_PAYLOAD_BYTES_MAX, PARTIAL_CHUNKS_MAX},
};

/// Chunks whose loss was told already, so that the rest of a delivery doesn't tell it again
/// frame by frame. Forgetting one only repeats an idempotent message.
const LOST_MAX: usize = PARTIAL_CHUNKS_MAX;

/// What a piece of a frame led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled {
    /// Nothing to report yet.
    Nothing,
    /// The chunk is whole and its digest is right. `bytes` are there if they are kept.
    Chunk {
        /// Which.
        chunk: u32,
        /// Its bytes, in keeping mode.
        bytes: Option<Bytes>,
    },
    /// The frame doesn't continue what is here of its chunk: the relay must begin it anew.
    Lost {
        /// Which.
        chunk: u32,
    },
}

/// Why data can't be accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssembleError {
    /// The frame lies outside of the file.
    #[error("a data frame of {len} bytes at {offset} of chunk {chunk} lies outside of the file")]
    OutOfRange {
        /// As received.
        chunk: u32,
        /// As received.
        offset: u32,
        /// As received.
        len: u32,
    },
    /// The chunk's digest is not the one of the manifest.
    #[error("chunk {chunk} arrived with a wrong digest ({cause})")]
    WrongDigest {
        /// Which.
        chunk: u32,
        /// Whose fault, as far as known.
        cause: WrongDigestCause,
    },
}

/// Who is to blame for a wrong digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongDigestCause {
    /// A frame's checksum is wrong too: it was damaged on the way.
    Link,
    /// Every frame's checksum is right: the relay sent wrong bytes.
    Sender,
    /// The bytes were not kept, so nobody can tell.
    Unknown,
}

impl std::fmt::Display for WrongDigestCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Link => "damaged on the way",
            Self::Sender => "the relay sent wrong bytes: use another relay",
            Self::Unknown => "bytes not kept, so the cause is unknown",
        })
    }
}

/// The chunks that one connection is receiving.
#[derive(Debug)]
pub struct Assembler {
    keeps_bytes: bool,
    partials: VecDeque<Partial>,
    /// Where the frame under way goes; `None` discards the rest of its pieces.
    frame: Option<usize>,
    lost: VecDeque<u32>,
}

struct Partial {
    chunk: u32,
    received: u32,
    len: u32,
    hasher: ChunkHasher,
    /// In keeping mode: the prefix, and the checksums of its frames.
    bytes: Vec<u8>,
    crcs: Vec<u32>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "chunk {}: {} of {} bytes", self.chunk, self.received, self.len)
    }
}

impl Assembler {
    /// With `keeps_bytes`, whole chunks come with their bytes; else they are only verified.
    #[must_use]
    pub fn new(keeps_bytes: bool) -> Self {
        Self { keeps_bytes, partials: VecDeque::new(), frame: None, lost: VecDeque::new() }
    }

    /// Number of chunks that are here in part.
    #[must_use]
    pub fn partials_len(&self) -> usize {
        self.partials.len()
    }

    /// A frame begins. `wanted` is false for a chunk that is here already: it is discarded.
    ///
    /// # Errors
    /// If it lies outside of the file.
    pub fn handle_frame(
        &mut self,
        manifest: &Manifest,
        header: &DataHeader,
        wanted: bool,
    ) -> Result<Assembled, AssembleError> {
        let DataHeader { chunk, offset, payload_len: len, .. } = *header;
        let key = manifest.key();
        let chunk_len = if chunk < key.chunk_count() { key.chunk_len_bytes(chunk) } else { 0 };
        self.frame = None;
        if u64::from(offset) + u64::from(len) > u64::from(chunk_len) {
            return Err(AssembleError::OutOfRange { chunk, offset, len });
        }
        if !wanted {
            return Ok(Assembled::Nothing);
        }
        let known = self.partials.iter().position(|partial| partial.chunk == chunk);
        if offset == 0 {
            self.lost.retain(|&lost| lost != chunk);
            self.frame = Some(self.begin(manifest, chunk, chunk_len, known));
        } else {
            self.frame = known.filter(|&index| self.partials[index].received == offset);
        }
        match self.frame {
            Some(index) if self.keeps_bytes => {
                self.partials[index].crcs.push(header.crc);
                Ok(Assembled::Nothing)
            }
            Some(_) => Ok(Assembled::Nothing),
            None => Ok(self.lose(chunk, known)),
        }
    }

    /// A piece of the frame that began last.
    ///
    /// # Errors
    /// If it completes a chunk whose digest is wrong.
    pub fn handle_piece(
        &mut self,
        manifest: &Manifest,
        piece: &[u8],
    ) -> Result<Assembled, AssembleError> {
        let Some(index) = self.frame else { return Ok(Assembled::Nothing) };
        let partial = &mut self.partials[index];
        partial.hasher.update(piece);
        if self.keeps_bytes {
            partial.bytes.extend_from_slice(piece);
        }
        partial.received += u32::try_from(piece.len()).expect("a frame is at most 16 KiB");
        debug_assert!(partial.received <= partial.len, "the frame was checked when it began");
        if partial.received < partial.len {
            return Ok(Assembled::Nothing);
        }
        self.frame = None;
        let partial = self.partials.remove(index).expect("just looked at");
        let (chunk, digest) = (partial.chunk, partial.hasher.finalize());
        if digest != manifest.digest(chunk) {
            let cause = partial.blame(self.keeps_bytes);
            return Err(AssembleError::WrongDigest { chunk, cause });
        }
        let bytes = self.keeps_bytes.then(|| Bytes::from(partial.bytes));
        Ok(Assembled::Chunk { chunk, bytes })
    }

    /// Starts the chunk from its first byte; its place among the partials.
    fn begin(&mut self, manifest: &Manifest, chunk: u32, len: u32, known: Option<usize>) -> usize {
        if let Some(index) = known {
            self.partials.remove(index);
        } else if self.partials.len() == PARTIAL_CHUNKS_MAX {
            self.partials.pop_front();
        }
        let key = manifest.key();
        let kept = if self.keeps_bytes { len as usize } else { 0 };
        self.partials.push_back(Partial {
            chunk,
            received: 0,
            len,
            hasher: ChunkHasher::new(key.chunk_count(), chunk, key.chunk_size_log2),
            bytes: Vec::with_capacity(kept),
            crcs: Vec::with_capacity(kept.div_ceil(FRAME_PAYLOAD_BYTES_MAX)),
        });
        self.invariants();
        self.partials.len() - 1
    }

    fn lose(&mut self, chunk: u32, known: Option<usize>) -> Assembled {
        if let Some(index) = known {
            self.partials.remove(index);
        }
        if self.lost.contains(&chunk) {
            return Assembled::Nothing;
        }
        if self.lost.len() == LOST_MAX {
            self.lost.pop_front();
        }
        self.lost.push_back(chunk);
        Assembled::Lost { chunk }
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        debug_assert!(self.partials.len() <= PARTIAL_CHUNKS_MAX);
        debug_assert!(self.lost.len() <= LOST_MAX);
        debug_assert!(self.partials.iter().all(|partial| partial.received < partial.len));
    }
}

impl Partial {
    fn blame(&self, kept: bool) -> WrongDigestCause {
        if !kept {
            return WrongDigestCause::Unknown;
        }
        let frames = self.bytes.chunks(FRAME_PAYLOAD_BYTES_MAX);
        if frames.zip(&self.crcs).all(|(frame, &crc)| frame_crc(frame) == crc) {
            WrongDigestCause::Sender
        } else {
            WrongDigestCause::Link
        }
    }
}
