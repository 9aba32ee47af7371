//! Puts data frames together into verified chunks.
//!
//! Pure. Where bytes are not kept they are hashed straight from the receive buffer and never
//! copied. Does not know what the peer does with a chunk, nor which peer asked for it.
//!
//! Invariants: at most [`PARTIAL_CHUNKS_MAX`] partials, of different chunks, oldest first; each
//! holds a prefix of its chunk, shorter than the chunk.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    prefix::{OpenedPrefix, Prefix},
    sealing::Seal,
};
use relay_protocol::{
    ChunkHasher, DataHeader, DataPieceHeader, Digest, Manifest, Run, limits::PARTIAL_CHUNKS_MAX,
};

/// Chunks whose loss was told already, so that the rest of a delivery doesn't tell it again
/// frame by frame. Forgetting one only repeats an idempotent message.
const LOST_MAX: usize = PARTIAL_CHUNKS_MAX;

/// Chunks that may be here in part when pieces come in any order: a window of the smallest ones.
const SCATTERED_CHUNKS_MAX: usize = 1024;

/// Bytes that may wait for those before them when pieces come in any order: twice what a relay has
/// under way at most. Beyond, the oldest chunk is given up, and asked for anew.
const AHEAD_BYTES_MAX: usize = 8 << 20;

/// What file bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled {
    /// Nothing to report yet.
    Nothing,
    /// The chunk is whole and its digest is right. `bytes` are there if they are kept.
    Chunk {
        /// The chunk's index.
        chunk: u32,
        /// Its bytes, in keeping mode.
        bytes: Option<Bytes>,
        /// Its digest when it is opened, if that is what it is for.
        plain: Option<Digest>,
    },
    /// The frame doesn't continue what is here of its chunk: the relay must begin it anew.
    Lost {
        /// The chunk's index.
        chunk: u32,
    },
}

/// Why data can't be accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssembleError {
    /// The frame lies outside of the file.
    #[error("a data frame of {len} bytes at {offset} of chunk {chunk} lies outside of the file")]
    OutOfRange {
        /// The chunk that it names.
        chunk: u32,
        /// The offset that it names.
        offset: u32,
        /// Its length.
        len: u32,
    },
    /// Data runs in datagrams or on the stream.
    #[error("data came on the stream and in datagrams")]
    Mixed,
    /// The chunk's digest is not the one of the manifest.
    #[error("chunk {chunk} arrived with a wrong digest ({cause})")]
    WrongDigest {
        /// The chunk's index.
        chunk: u32,
        /// Whose fault, as far as known.
        cause: WrongDigestCause,
    },
}

/// What is to blame for a wrong digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongDigestCause {
    /// A frame's checksum is wrong too: it was damaged on the way.
    Link,
    /// Every frame's checksum is right: the relay sent wrong bytes, or the path forged them.
    Sender,
    /// The bytes were not kept, so it can't be told.
    Unknown,
}

impl std::fmt::Display for WrongDigestCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Link => "damaged on the way",
            Self::Sender => "its checksums fit: the relay sent wrong bytes, or the path forged them: use another relay or path",
            Self::Unknown => "bytes not kept, so the cause is unknown",
        })
    }
}

/// The chunks that one connection is receiving.
#[derive(Debug)]
pub struct Assembler {
    keeps_bytes: bool,
    /// Opens what is not kept.
    opens: Option<Seal>,
    /// Whether data comes in sealed pieces, once some has come: all of it does, or none.
    is_sealed: Option<bool>,
    partials: VecDeque<Partial>,
    /// Where the frame under way goes; `None` discards the rest of its pieces.
    frame: Option<usize>,
    lost: VecDeque<u32>,
    /// Bytes in all partials' `ahead`.
    ahead_bytes: usize,
    /// Given up, and not told yet.
    dropped: VecDeque<u32>,
}

struct Partial {
    chunk: u32,
    received: u32,
    len: u32,
    prefix: Prefix,
    /// Sealed pieces that came before those in front of them, by offset.
    ahead: BTreeMap<u32, Vec<u8>>,
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
        Self {
            keeps_bytes,
            opens: None,
            is_sealed: None,
            partials: VecDeque::new(),
            frame: None,
            lost: VecDeque::new(),
            ahead_bytes: 0,
            dropped: VecDeque::new(),
        }
    }

    /// Opens what comes and is not kept: whole chunks come with the digest of what came out.
    #[must_use]
    pub fn with_opening(self, opens: Option<Seal>) -> Self {
        Self { opens, ..self }
    }

    /// Number of chunks that are here in part.
    #[must_use]
    pub fn partials_len(&self) -> usize {
        self.partials.len()
    }

    /// File bytes came. `wanted` is false for a chunk that is here already: they are discarded.
    ///
    /// # Errors
    /// If they lie outside of the file, complete a chunk whose digest is wrong, or should come in sealed
    /// pieces.
    pub fn handle_data(
        &mut self,
        manifest: &Manifest,
        run: &Run<'_>,
        wanted: bool,
    ) -> Result<Assembled, AssembleError> {
        if *self.is_sealed.get_or_insert(false) {
            return Err(AssembleError::Mixed);
        }
        let DataHeader { chunk, offset, .. } = run.header;
        let key = manifest.key();
        let chunk_len = if chunk < key.chunk_count() { key.chunk_len_bytes(chunk) } else { 0 };
        if run.frame_offset == 0 {
            self.frame = None;
        }
        let last = run.last_header();
        if u64::from(last.offset) + u64::from(last.payload_len) > u64::from(chunk_len) {
            let DataHeader { offset, payload_len: len, .. } = *last;
            return Err(AssembleError::OutOfRange { chunk, offset, len });
        }
        if run.frame_offset == 0 && wanted {
            let known = self.partials.iter().position(|partial| partial.chunk == chunk);
            if offset == 0 {
                self.lost.retain(|&lost| lost != chunk);
                self.frame = Some(self.begin(manifest, chunk, chunk_len, known));
            } else {
                self.frame = known.filter(|&index| self.partials[index].received == offset);
            }
            let Some(index) = self.frame else { return Ok(self.lose(chunk, known)) };
            self.partials[index].prefix.begin_frame(run.header.checksum);
        }
        let Some(index) = self.frame else { return Ok(Assembled::Nothing) };
        let partial = &mut self.partials[index];
        run.followers.iter().for_each(|header| partial.prefix.begin_frame(header.checksum));
        partial.append(run.bytes);
        debug_assert!(partial.received <= partial.len, "frames were checked when they began");
        if partial.received < partial.len {
            return Ok(Assembled::Nothing);
        }
        self.frame = None;
        self.finish(manifest, index)
    }

    /// The chunk is whole: is it right?
    fn finish(&mut self, manifest: &Manifest, index: usize) -> Result<Assembled, AssembleError> {
        let mut partial = self.partials.remove(index).expect("just looked at");
        let chunk = partial.chunk;
        if partial.prefix.finalize() != manifest.digest(chunk) {
            let cause = partial.blame(self.is_sealed == Some(true));
            return Err(AssembleError::WrongDigest { chunk, cause });
        }
        let plain = partial.prefix.finalize_opened();
        Ok(Assembled::Chunk { chunk, bytes: partial.prefix.into_bytes(), plain })
    }

    /// A piece that came in datagrams, by one of several streams. `wanted` is false for a chunk that is here
    /// already: it is discarded.
    ///
    /// # Errors
    /// If it lies outside of the file, completes a chunk whose digest is wrong, or should come in frames.
    pub fn handle_sealed(
        &mut self,
        manifest: &Manifest,
        header: &DataPieceHeader,
        piece: &[u8],
        wanted: bool,
    ) -> Result<Assembled, AssembleError> {
        if !*self.is_sealed.get_or_insert(true) {
            return Err(AssembleError::Mixed);
        }
        let DataPieceHeader { chunk, offset, .. } = *header;
        let key = manifest.key();
        let chunk_len = if chunk < key.chunk_count() { key.chunk_len_bytes(chunk) } else { 0 };
        let len = u32::try_from(piece.len()).expect("a piece is part of a chunk");
        if u64::from(offset) + u64::from(len) > u64::from(chunk_len) {
            return Err(AssembleError::OutOfRange { chunk, offset, len });
        }
        if !wanted {
            return Ok(Assembled::Nothing);
        }
        let known = self.partials.iter().position(|partial| partial.chunk == chunk);
        let index = known.unwrap_or_else(|| {
            if self.partials.len() == SCATTERED_CHUNKS_MAX {
                self.drop_oldest();
            }
            self.push_partial(manifest, chunk, chunk_len);
            self.partials.len() - 1
        });
        let partial = &mut self.partials[index];
        if offset > partial.received {
            self.ahead_bytes += piece.len();
            if let Some(replaced) = partial.ahead.insert(offset, piece.to_vec()) {
                self.ahead_bytes -= replaced.len();
            }
            while self.ahead_bytes > AHEAD_BYTES_MAX {
                self.drop_oldest();
            }
            return Ok(Assembled::Nothing);
        }
        partial.feed(offset, piece);
        while let Some(next) = partial.ahead.first_entry()
            && *next.key() <= partial.received
        {
            let (offset, piece) = next.remove_entry();
            self.ahead_bytes -= piece.len();
            partial.feed(offset, &piece);
        }
        if partial.received < partial.len {
            return Ok(Assembled::Nothing);
        }
        self.finish(manifest, index)
    }

    /// A chunk of which all that had come was given up: the relay must begin it anew.
    pub fn poll_dropped(&mut self) -> Option<u32> {
        self.dropped.pop_front()
    }

    fn drop_oldest(&mut self) {
        let Some(partial) = self.partials.pop_front() else { return };
        self.ahead_bytes -= partial.ahead.values().map(Vec::len).sum::<usize>();
        self.dropped.push_back(partial.chunk);
    }

    /// Starts the chunk from its first byte; its place among the partials.
    fn begin(&mut self, manifest: &Manifest, chunk: u32, len: u32, known: Option<usize>) -> usize {
        if let Some(index) = known {
            self.partials.remove(index);
        } else if self.partials.len() == PARTIAL_CHUNKS_MAX {
            self.partials.pop_front();
        }
        self.push_partial(manifest, chunk, len);
        self.invariants();
        self.partials.len() - 1
    }

    fn push_partial(&mut self, manifest: &Manifest, chunk: u32, len: u32) {
        let key = manifest.key();
        let hasher = ChunkHasher::new(key.chunk_count(), chunk, key.chunk_size_log2);
        let opened = self.opens.as_ref().map(|seal| {
            OpenedPrefix::new(seal.clone(), hasher.clone(), key.chunk_offset_bytes(chunk))
        });
        self.partials.push_back(Partial {
            chunk,
            received: 0,
            len,
            prefix: Prefix::new(hasher, self.keeps_bytes, len).with_opened(opened),
            ahead: BTreeMap::new(),
        });
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
        debug_assert!(self.partials.len() <= SCATTERED_CHUNKS_MAX);
        debug_assert!(self.ahead_bytes <= AHEAD_BYTES_MAX);
        debug_assert!(self.lost.len() <= LOST_MAX);
        debug_assert!(self.partials.iter().all(|partial| partial.received < partial.len));
    }
}

impl Partial {
    /// A piece that begins within what is here, or right behind it.
    fn feed(&mut self, offset: u32, piece: &[u8]) {
        if let Some(fresh) = piece.get((self.received - offset) as usize..) {
            self.append(fresh);
        }
    }

    fn append(&mut self, piece: &[u8]) {
        self.prefix.append(piece);
        self.received += u32::try_from(piece.len()).expect("within a chunk");
    }

    fn blame(&self, is_sealed: bool) -> WrongDigestCause {
        match self.prefix.are_frames_intact() {
            _ if is_sealed => WrongDigestCause::Sender,
            None => WrongDigestCause::Unknown,
            Some(true) => WrongDigestCause::Sender,
            Some(false) => WrongDigestCause::Link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_protocol::rng::Rng;

    const LEN: usize = 300_000;

    fn content() -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn manifest() -> Manifest {
        Manifest::of(&content(), 18).expect("two chunks")
    }

    /// Pieces of chunk 0 that cover it, some of them twice and across others, in any order.
    fn pieces(rng: &mut Rng) -> Vec<(u32, u32)> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < 1 << 18 {
            let len = 1 + u32::try_from(rng.below(20_000)).expect("small");
            let end = (at + len).min(1 << 18);
            pieces.push((at.saturating_sub(u32::from(at % 7 == 0) * 50), end));
            at = end;
        }
        pieces.extend_from_within(..pieces.len() / 3);
        rng.shuffle(&mut pieces);
        pieces
    }

    fn header(chunk: u32, offset: u32) -> DataPieceHeader {
        DataPieceHeader { chunk, offset, tag: 0 }
    }

    #[test]
    fn sealed_pieces_make_a_chunk_whatever_their_order() {
        let (bytes, manifest) = (content(), manifest());
        for seed in 0..50 {
            let mut rng = Rng::new(seed, 0);
            let mut assembler = Assembler::new(true);
            let mut wholes = Vec::new();
            for (start, end) in pieces(&mut rng) {
                let piece = &bytes[start as usize..end as usize];
                let wanted = wholes.is_empty();
                match assembler.handle_sealed(&manifest, &header(0, start), piece, wanted) {
                    Ok(Assembled::Nothing) => {}
                    Ok(Assembled::Chunk { chunk: 0, bytes, .. }) => wholes.extend(bytes),
                    other => panic!("seed {seed}: {other:?}"),
                }
                assembler.invariants();
            }
            assert_eq!(wholes.len(), 1, "seed {seed}");
            assert!(wholes[0] == bytes[..1 << 18], "seed {seed}");
            assert_eq!((assembler.partials_len(), assembler.ahead_bytes), (0, 0));
        }
    }

    #[test]
    fn who_sealed_a_wrong_byte_lied_and_what_lies_outside_is_refused() {
        let (mut bytes, manifest) = (content(), manifest());
        let end = u32::try_from(LEN - (1 << 18)).expect("small");
        let mut assembler = Assembler::new(true);
        let outside = assembler.handle_sealed(&manifest, &header(1, end), &[0], true);
        assert!(matches!(outside, Err(AssembleError::OutOfRange { chunk: 1, .. })));
        let outside = assembler.handle_sealed(&manifest, &header(2, 0), &[0], true);
        assert!(matches!(outside, Err(AssembleError::OutOfRange { chunk: 2, .. })));
        bytes[LEN - 1] ^= 1;
        let wrong = assembler.handle_sealed(&manifest, &header(1, 0), &bytes[1 << 18..], true);
        let cause = WrongDigestCause::Sender;
        assert_eq!(wrong, Err(AssembleError::WrongDigest { chunk: 1, cause }));
    }

    #[test]
    fn what_waits_for_a_hole_is_bounded_and_what_is_given_up_is_told() {
        let bytes = vec![7; 64 << 20];
        let manifest = Manifest::of(&bytes, 20).expect("64 chunks");
        let mut assembler = Assembler::new(false);
        let mut dropped = Vec::new();
        for chunk in 0..64 {
            for at in 1..32 {
                let piece = &bytes[..32 << 10];
                let header = header(chunk, at * (32 << 10));
                let assembled = assembler.handle_sealed(&manifest, &header, piece, true);
                assert_eq!(assembled, Ok(Assembled::Nothing));
                assembler.invariants();
                dropped.extend(std::iter::from_fn(|| assembler.poll_dropped()));
            }
        }
        assert!(dropped.iter().copied().eq(0..64 - 8), "the oldest first: {dropped:?}");
    }

    #[test]
    fn who_sends_on_the_stream_and_in_datagrams_is_refused() {
        let (bytes, manifest) = (content(), manifest());
        let header = DataHeader { chunk: 0, offset: 0, payload_len: 16 << 10, tag: 0, checksum: 0 };
        let bytes = &bytes[..16 << 10];
        let run = Run { header, frame_offset: 0, followers: &[], bytes, is_last: true };
        let (nothing, mixed) = (Ok(Assembled::Nothing), Err(AssembleError::Mixed));
        let mut assembler = Assembler::new(true);
        assert_eq!(assembler.handle_data(&manifest, &run, true), nothing);
        assert_eq!(assembler.handle_sealed(&manifest, &self::header(0, 9), bytes, true), mixed);
        let mut assembler = Assembler::new(true);
        assert_eq!(assembler.handle_sealed(&manifest, &self::header(0, 9), bytes, true), nothing);
        assert_eq!(assembler.handle_data(&manifest, &run, true), mixed);
    }
}
