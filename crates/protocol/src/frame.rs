//! The frames of a stream: the bytes before what they carry, and what is wrong with a stream that has none.
//!
//! Pure. Cutting a stream into frames is [`super::codec`]'s business.

use super::{
    check::MessageError,
    limits::{
        CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, CONTROL_BODY_BYTES_MAX, CONTROL_FRAME_BYTES_MAX,
        FRAME_PAYLOAD_BYTES_MAX,
    },
};

/// Bytes of the preamble: magic, version, six reserved zeros.
pub const PREAMBLE_BYTES: usize = 16;

/// Bytes before what a control frame carries: kind, reserved zero, length.
pub const CONTROL_HEADER_BYTES: usize = 4;

/// Bytes before a data frame's payload: kind, reserved zero, payload length, then chunk, offset,
/// tag and CRC-32C.
pub const DATA_HEADER_BYTES: usize = 20;

/// The kind of a control frame.
pub(super) const KIND_CONTROL: u8 = 1;

/// The kind of a data frame.
pub(super) const KIND_DATA: u8 = 2;

const _: () = {
    assert!(CONTROL_BODY_BYTES_MAX <= u16::MAX as usize);
    assert!(CONTROL_FRAME_BYTES_MAX <= u16::MAX as usize);
    // A frame's end fits the offset's type.
    assert!(CHUNK_SIZE_LOG2_MAX < 32);
};

/// What precedes the payload of a data frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHeader {
    /// The chunk that the payload is part of.
    pub chunk: u32,
    /// Where in the chunk the payload begins, in bytes; a multiple of
    /// [`FRAME_PAYLOAD_BYTES_MAX`].
    pub offset: u32,
    /// Bytes of payload, from 1 to [`FRAME_PAYLOAD_BYTES_MAX`].
    pub payload_len: u32,
    /// From a peer to the relay the id of the fetch that it answers; 0 from relay to peer.
    pub tag: u32,
    /// From a relay [`frame_crc`](crate::crc::frame_crc) of the payload, from a peer what its
    /// [`UploadKey`](crate::upload::UploadKey) makes of it.
    pub checksum: u32,
}

impl DataHeader {
    /// The header's bytes on the wire.
    ///
    /// # Panics
    /// If our own header breaks a limit, which is our bug.
    #[must_use]
    pub fn encode(&self) -> [u8; DATA_HEADER_BYTES] {
        debug_assert_eq!(self.check(), Ok(()), "our own data header breaks a limit");
        let length = u16::try_from(self.payload_len).expect("a payload's length fits 16 bits");
        let mut bytes = [0; DATA_HEADER_BYTES];
        bytes[0] = KIND_DATA;
        bytes[2..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// From the wire; kind and reserved byte were checked.
    pub(super) fn decode(bytes: &[u8; DATA_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let header = Self {
            chunk: word(4),
            offset: word(8),
            payload_len: u32::from(u16::from_le_bytes([bytes[2], bytes[3]])),
            tag: word(12),
            checksum: word(16),
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let Self { chunk, offset, payload_len, .. } = *self;
        if payload_len == 0 || payload_len as usize > FRAME_PAYLOAD_BYTES_MAX {
            return Err(DecodeError::PayloadLength(payload_len));
        }
        let end = u64::from(offset) + u64::from(payload_len);
        if !(offset as usize).is_multiple_of(FRAME_PAYLOAD_BYTES_MAX)
            || end > 1 << CHUNK_SIZE_LOG2_MAX
        {
            return Err(DecodeError::PayloadOffset(offset));
        }
        if chunk >= CHUNK_COUNT_MAX {
            return Err(DecodeError::ChunkIndex(chunk));
        }
        Ok(())
    }
}

/// How the other side broke the stream. There is no way to go on after one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stream does not begin with the magic.
    #[error("the other side does not speak this protocol (byte {at} of its stream is {byte:#04x})")]
    Magic {
        /// Index of the first wrong byte.
        at: usize,
        /// The byte that came there.
        byte: u8,
    },
    /// The other side speaks another version.
    #[error("the other side speaks version {theirs} of the protocol, this one speaks {ours}")]
    Version {
        /// The version of this program.
        ours: u16,
        /// The version of the other.
        theirs: u16,
    },
    /// A byte that must be zero is not.
    #[error("a reserved byte is {0:#04x} instead of zero")]
    Reserved(u8),
    /// A frame is neither control nor data.
    #[error("{0} is no kind of frame")]
    Kind(u8),
    /// A control frame of no or too many bytes.
    #[error("a control frame of {0} bytes is not between 1 and {CONTROL_FRAME_BYTES_MAX}")]
    ControlLength(u16),
    /// A control message of no or too many bytes.
    #[error("a control message of {0} bytes is not between 1 and {CONTROL_BODY_BYTES_MAX}")]
    MessageLength(u16),
    /// A data payload of no or too many bytes.
    #[error("a data payload of {0} bytes is not between 1 and {FRAME_PAYLOAD_BYTES_MAX}")]
    PayloadLength(u32),
    /// A data payload that begins off a frame boundary, or ends beyond the largest chunk.
    #[error("a data payload can't begin at byte {0} of a chunk")]
    PayloadOffset(u32),
    /// A chunk that no file has.
    #[error("chunk {0} is beyond the {CHUNK_COUNT_MAX} that a file may have")]
    ChunkIndex(u32),
    /// A control message that can't be read or breaks a limit.
    #[error(transparent)]
    Message(#[from] MessageError),
}
