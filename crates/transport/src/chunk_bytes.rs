//! A chunk's bytes where the relay keeps them: in memory, or laid out in a file as they go on a stream.
//!
//! A chunk in a file is *lent*: the kernel sends its pages instead of copies. It lies there as its frames, each
//! behind its header, so one `sendfile` sends many. The headers are the same for all peers, and so are their
//! checksums: they are computed once.

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use shards::{
    budget::{ChunkBuffer, Lease},
    chunk_files::{ChunkFile, ChunkFiles, Pin, taken_bytes},
};

use relay_protocol::{
    DATA_HEADER_BYTES, DataHeader,
    limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
};

/// Longest chunk that is lent: laying it out takes about 200 µs, and no connection of the shard is served meanwhile.
pub const LENT_BYTES_MAX: usize = 1 << 20;

/// Shortest chunk that is lent. Of a smaller one the rest of the last page is a larger part, and the call costs more
/// than the copy.
pub const LENT_BYTES_MIN: usize = 64 << 10;

/// The tag of frames from a relay.
const RELAY_TAG: u32 = 0;

/// A whole frame in a file.
pub(crate) const FRAME_BYTES: usize = DATA_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX;

/// The bytes of one chunk, and the lease that they are within.
#[derive(Clone, Debug)]
pub enum ChunkBytes {
    /// In memory, to be copied.
    Memory(Bytes),
    /// In a file, to be lent.
    File(Arc<LentChunk>),
}

impl From<Bytes> for ChunkBytes {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl ChunkBytes {
    /// Bytes of the chunk.
    #[must_use]
    pub fn len_bytes(&self) -> u32 {
        let len = match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(lent) => lent.len_bytes,
        };
        u32::try_from(len).expect("a chunk is at most 16 MiB")
    }

    /// A part of the chunk: by reference, or read from the file.
    pub(crate) fn part(&self, part: &Range<u32>) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(part.start as usize..part.end as usize)),
            Self::File(lent) => {
                let mut read = Vec::with_capacity((part.end - part.start) as usize);
                lent.append_to(&mut read, part)?;
                Ok(read.into())
            }
        }
    }
}

/// A chunk in a file. The lease covers what the file takes.
#[derive(Debug)]
pub struct LentChunk {
    file: ChunkFile,
    len_bytes: usize,
    /// Given back after the file is closed.
    _lease: Lease,
}

impl LentChunk {
    /// What must be leased for a chunk of so many bytes that is to lie in a file.
    #[must_use]
    pub fn leased_bytes(len_bytes: usize) -> usize {
        taken_bytes(position(len_bytes))
    }

    /// Moves a chunk from memory to a file, with a header and its checksum before each frame. `Err`: it stays in
    /// memory, as it was, and why, if that is worth a word.
    ///
    /// # Errors
    /// There are too many files, the lease is less than the file takes ([`Self::leased_bytes`]), or the system refuses.
    pub fn lay_out(
        files: &ChunkFiles,
        chunk: u32,
        buffer: ChunkBuffer,
        checksums: &[u32],
    ) -> Result<Self, (ChunkBuffer, Option<io::Error>)> {
        let len_bytes = buffer.len();
        if Self::leased_bytes(len_bytes) > buffer.leased_bytes() {
            return Err((buffer, None));
        }
        match write(files, chunk, &buffer, checksums) {
            Ok(Some(file)) if file.taken_bytes() <= buffer.leased_bytes() => {
                Ok(Self { file, len_bytes, _lease: buffer.into_lease() })
            }
            Ok(Some(file)) => {
                let text = format!(
                    "a file for {len_bytes} bytes takes {}: is its tmpfs mounted with huge=within_size?",
                    file.taken_bytes()
                );
                Err((buffer, Some(io::Error::other(text))))
            }
            Ok(None) => Err((buffer, None)),
            Err(error) => Err((buffer, Some(error))),
        }
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> usize {
        position(self.len_bytes)
    }

    /// The file.
    pub(crate) fn file(&self) -> &ChunkFile {
        &self.file
    }

    /// The right to send from the file, see [`ChunkFile::pin`].
    pub(crate) fn pin(&self) -> Option<Pin> {
        self.file.pin()
    }

    /// Appends a part of the chunk, without the headers within.
    fn append_to(&self, out: &mut Vec<u8>, part: &Range<u32>) -> io::Result<()> {
        let (mut at, end) = (part.start as usize, part.end as usize);
        while at < end {
            let len = (FRAME_PAYLOAD_BYTES_MAX - at % FRAME_PAYLOAD_BYTES_MAX).min(end - at);
            let within = at % FRAME_PAYLOAD_BYTES_MAX;
            let position = position(at - within) + DATA_HEADER_BYTES + within;
            self.file.append_to(out, position, len)?;
            at += len;
        }
        Ok(())
    }
}

/// Where in the file a frame begins, from where it begins in the chunk; or the file's end, from the chunk's.
pub(crate) fn position(offset: usize) -> usize {
    offset + offset.div_ceil(FRAME_PAYLOAD_BYTES_MAX) * DATA_HEADER_BYTES
}

/// The frame at a position of the file: its place in the chunk, and how many of its bytes lie before the position.
pub(crate) fn frame_at(position: usize) -> (usize, usize) {
    (position / FRAME_BYTES * FRAME_PAYLOAD_BYTES_MAX, position % FRAME_BYTES)
}

fn write(
    files: &ChunkFiles,
    chunk: u32,
    bytes: &[u8],
    checksums: &[u32],
) -> io::Result<Option<ChunkFile>> {
    let mut headers = [[0; DATA_HEADER_BYTES]; LENT_BYTES_MAX / FRAME_PAYLOAD_BYTES_MAX];
    let mut slices = Vec::with_capacity(2 * headers.len());
    let mut offset = 0;
    debug_assert_eq!(checksums.len(), bytes.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX));
    let frames = bytes.chunks(FRAME_PAYLOAD_BYTES_MAX).zip(checksums);
    for (header, (payload, &checksum)) in headers.iter_mut().zip(frames) {
        let payload_len = u32::try_from(payload.len()).expect("a frame");
        *header = DataHeader { chunk, offset, payload_len, tag: RELAY_TAG, checksum }.encode();
        offset += FRAME_PAYLOAD_LEN_MAX;
        slices.push(IoSlice::new(header));
        slices.push(IoSlice::new(payload));
    }
    files.create(&slices)
}
