//! A chunk's bytes as all sends of one shard share them, withdrawable at any time.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use relay_protocol::{frame_crc, limits::FRAME_PAYLOAD_BYTES_MAX};

/// One chunk on this shard. Sends hold it by `Rc` and look inside only while they write.
#[derive(Debug)]
pub struct Payload {
    chunk: u32,
    len_bytes: u32,
    bytes: RefCell<Option<Bytes>>,
    /// Checksums of its frames on a stream.
    checksums: Arc<[u32]>,
}

impl Payload {
    /// Shares `bytes` of `chunk`; `checksums` are those of its frames on a stream, in order.
    ///
    /// # Panics
    /// If there is not one checksum per frame, or the chunk is empty.
    #[must_use]
    pub fn new(chunk: u32, bytes: Bytes, checksums: Arc<[u32]>) -> Rc<Self> {
        assert_eq!(checksums.len(), bytes.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX));
        Self::with(chunk, bytes, checksums)
    }

    fn with(chunk: u32, bytes: Bytes, checksums: Arc<[u32]>) -> Rc<Self> {
        assert!(!bytes.is_empty(), "chunks are never empty");
        let len_bytes = u32::try_from(bytes.len()).expect("a chunk is at most 16 MiB");
        Rc::new(Self { chunk, len_bytes, bytes: RefCell::new(Some(bytes)), checksums })
    }

    /// Shares `bytes` of `chunk` where only datagrams carry them: QUIC vouches for what they bring.
    ///
    /// # Panics
    /// If the chunk is empty.
    #[must_use]
    pub fn for_datagrams(chunk: u32, bytes: Bytes) -> Rc<Self> {
        Self::with(chunk, bytes, Arc::new([]))
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

    /// The bytes, for the length of one write call.
    pub(super) fn bytes(&self) -> Option<Ref<'_, Bytes>> {
        Ref::filter_map(self.bytes.borrow(), Option::as_ref).ok()
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
