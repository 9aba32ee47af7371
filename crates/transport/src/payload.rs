//! A chunk's bytes as all sends of one shard share them, withdrawable at any time.

use std::{
    cell::{Ref, RefCell},
    io,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use super::chunk_bytes::{ChunkBytes, LentChunk};
use relay_protocol::{frame_crc, limits::FRAME_PAYLOAD_BYTES_MAX};

/// One chunk on this shard. Sends hold it by `Rc` and look inside only while they write.
#[derive(Debug)]
pub struct Payload {
    chunk: u32,
    len_bytes: u32,
    is_lent: bool,
    bytes: RefCell<Option<ChunkBytes>>,
    /// Checksums of its frames on a stream.
    checksums: Arc<[u32]>,
}

impl Payload {
    /// Shares `bytes` of `chunk`; `checksums` are those of its frames on a stream, in order.
    ///
    /// # Panics
    /// If there is not one checksum per frame, or the chunk is empty.
    #[must_use]
    pub fn new(chunk: u32, bytes: impl Into<ChunkBytes>, checksums: Arc<[u32]>) -> Rc<Self> {
        let bytes = bytes.into();
        assert_eq!(checksums.len(), (bytes.len_bytes() as usize).div_ceil(FRAME_PAYLOAD_BYTES_MAX));
        Self::with(chunk, bytes, checksums)
    }

    fn with(chunk: u32, bytes: ChunkBytes, checksums: Arc<[u32]>) -> Rc<Self> {
        let len_bytes = bytes.len_bytes();
        assert!(len_bytes > 0, "chunks are never empty");
        let is_lent = matches!(bytes, ChunkBytes::File(_));
        Rc::new(Self { chunk, len_bytes, is_lent, bytes: RefCell::new(Some(bytes)), checksums })
    }

    /// Shares `bytes` of `chunk` where only datagrams carry them: QUIC vouches for what they bring.
    ///
    /// # Panics
    /// If the chunk is empty.
    #[must_use]
    pub fn for_datagrams(chunk: u32, bytes: Bytes) -> Rc<Self> {
        Self::with(chunk, bytes.into(), Arc::new([]))
    }

    /// Shares `bytes` of `chunk`, with a CRC-32C for each frame.
    #[must_use]
    pub fn with_crcs_of(chunk: u32, bytes: Bytes) -> Rc<Self> {
        let crcs = frame_crcs(&bytes);
        Self::new(chunk, bytes, crcs)
    }

    /// Which chunk.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Bytes of the chunk.
    #[must_use]
    pub fn len_bytes(&self) -> u32 {
        self.len_bytes
    }

    /// Takes the bytes away from every send on this shard; whether they were there.
    pub fn withdraw(&self) -> bool {
        self.bytes.borrow_mut().take().is_some()
    }

    /// Whether [`Self::withdraw`] was called.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.bytes.borrow().is_none()
    }

    /// Whether it lies in a file.
    pub(super) fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// The bytes, for the length of one write call, if they are in memory and were not withdrawn.
    pub(super) fn memory(&self) -> Option<Ref<'_, Bytes>> {
        Ref::filter_map(self.bytes.borrow(), |bytes| match bytes {
            Some(ChunkBytes::Memory(bytes)) => Some(bytes),
            _ => None,
        })
        .ok()
    }

    /// The file, for the length of one write call, if they are in one and were not withdrawn.
    pub(super) fn lent(&self) -> Option<Ref<'_, LentChunk>> {
        Ref::filter_map(self.bytes.borrow(), |bytes| match bytes {
            Some(ChunkBytes::File(lent)) => Some(&**lent),
            _ => None,
        })
        .ok()
    }

    /// A part of the bytes: by reference, or read from their file into memory of its own.
    ///
    /// # Errors
    /// They are in a file that can't be read.
    ///
    /// # Panics
    /// If they were withdrawn.
    pub(super) fn part(&self, part: &Range<u32>) -> io::Result<Bytes> {
        let bytes = self.bytes.borrow();
        bytes.as_ref().expect("withdrawn sends were cut off").part(part)
    }

    /// Checksum of the frame that begins at `offset`.
    pub(super) fn checksum(&self, offset: u32) -> u32 {
        self.checksums[offset as usize / FRAME_PAYLOAD_BYTES_MAX]
    }
}

/// CRC-32C of each frame of a chunk, in order.
#[must_use]
pub fn frame_crcs(bytes: &[u8]) -> Arc<[u32]> {
    bytes.chunks(FRAME_PAYLOAD_BYTES_MAX).map(frame_crc).collect()
}
