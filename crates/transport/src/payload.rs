//! A chunk's bytes as all sends of one shard share them, withdrawable at any time.

use std::{
    cell::{OnceCell, Ref, RefCell},
    io,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;

use super::chunk_bytes::{ChunkBytes, LentChunk};
use relay_protocol::{frame_crc, joined_crc, limits::FRAME_PAYLOAD_BYTES_MAX};

/// One chunk on this shard. Sends hold it by `Rc` and look inside only while they write.
#[derive(Debug)]
pub struct Payload {
    chunk: u32,
    len_bytes: u32,
    is_lent: bool,
    bytes: RefCell<Option<ChunkBytes>>,
    /// Checksums of its frames on a stream.
    checksums: Arc<[u32]>,
    /// CRC-32C of its frames, for datagrams.
    crcs: OnceCell<Arc<[u32]>>,
}

impl Payload {
    /// Shares `bytes` of `chunk`; `checksums` are those of its frames on a stream, in order.
    ///
    /// # Panics
    /// If there is not one checksum per frame, or the chunk is empty.
    #[must_use]
    pub fn new(chunk: u32, bytes: impl Into<ChunkBytes>, checksums: Arc<[u32]>) -> Rc<Self> {
        let bytes = bytes.into();
        let len_bytes = bytes.len_bytes();
        assert!(len_bytes > 0, "chunks are never empty");
        assert_eq!(checksums.len(), (len_bytes as usize).div_ceil(FRAME_PAYLOAD_BYTES_MAX));
        let crcs = OnceCell::new();
        let is_lent = matches!(bytes, ChunkBytes::File(_));
        if is_lent {
            // The relay's checksums are these.
            crcs.get_or_init(|| Arc::clone(&checksums));
        }
        let bytes = RefCell::new(Some(bytes));
        Rc::new(Self { chunk, len_bytes, is_lent, bytes, checksums, crcs })
    }

    /// Shares `bytes` of `chunk`, with a CRC-32C for each frame.
    #[must_use]
    pub fn with_crcs_of(chunk: u32, bytes: Bytes) -> Rc<Self> {
        let crcs = frame_crcs(&bytes);
        let payload = Self::new(chunk, bytes, Arc::clone(&crcs));
        payload.crcs.get_or_init(|| crcs);
        payload
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

    /// Appends a part of the bytes.
    ///
    /// # Errors
    /// They are in a file that can't be read.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, part: &Range<u32>) -> io::Result<()> {
        let bytes = self.bytes.borrow();
        bytes.as_ref().expect("withdrawn sends were cut off").append_to(out, part)
    }

    /// Checksum of the frame that begins at `offset`.
    pub(super) fn checksum(&self, offset: u32) -> u32 {
        self.checksums[offset as usize / FRAME_PAYLOAD_BYTES_MAX]
    }

    /// CRC-32C of a part, which is given, too. That of whole frames is computed once for all sends of this shard.
    pub(super) fn part_crc(&self, bytes: &[u8], part: &Range<u32>) -> u32 {
        let (start, end) = (part.start as usize, part.end as usize);
        if !start.is_multiple_of(FRAME_PAYLOAD_BYTES_MAX)
            || !end.is_multiple_of(FRAME_PAYLOAD_BYTES_MAX)
        {
            return frame_crc(bytes);
        }
        let memory = self.memory();
        let crcs = self.crcs.get_or_init(|| frame_crcs(&memory.expect("others know their own")));
        joined_crc(&crcs[start / FRAME_PAYLOAD_BYTES_MAX..end / FRAME_PAYLOAD_BYTES_MAX])
    }
}

/// CRC-32C of each frame of a chunk, in order.
#[must_use]
pub fn frame_crcs(bytes: &[u8]) -> Arc<[u32]> {
    bytes.chunks(FRAME_PAYLOAD_BYTES_MAX).map(frame_crc).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_own_checksum_whatever_was_stated() {
        let len = 3 * FRAME_PAYLOAD_BYTES_MAX + 5;
        let content: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let payload = Payload::new(0, Bytes::from(content.clone()), vec![7; 4].into());
        let frame = u32::try_from(FRAME_PAYLOAD_BYTES_MAX).expect("a frame");
        for part in [0..frame, frame..3 * frame, 0..3 * frame, 1..frame, 3 * frame..3 * frame + 5] {
            let own = frame_crc(&content[part.start as usize..part.end as usize]);
            assert_eq!(
                payload.part_crc(&content[part.start as usize..part.end as usize], &part),
                own,
                "{part:?}"
            );
        }
        assert_eq!(payload.checksum(frame), 7, "on a stream it is passed on");
    }
}
