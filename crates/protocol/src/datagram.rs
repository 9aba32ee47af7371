//! What the streams of QUIC begin with, as [`super`] specifies.
//!
//! Pure. QUIC itself, and which stream carries what when, is the transport's business.

/// Bytes that a stream of file bytes begins with: its kind, chunk, offset, tag.
pub const DATA_STREAM_HEADER_BYTES: usize = 13;

/// Which bytes of the file came together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataPieceHeader {
    /// The chunk.
    pub chunk: u32,
    /// Where in the chunk.
    pub offset: u32,
    /// As in a data frame.
    pub tag: u32,
}

/// Which bytes of the file follow on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataStreamHeader {
    /// The chunk.
    pub chunk: u32,
    /// Where in the chunk it begins.
    pub offset: u32,
    /// As in a data frame.
    pub tag: u32,
}

/// Why a stream can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no such stream, or there is one already.
    #[error("{0} is no kind of stream that may begin here")]
    Kind(u8),
    /// A stream of messages ends.
    #[error("a stream of messages ended")]
    Ended,
    /// A stream is refused that this side sends.
    #[error("a stream was stopped that its receiver has asked for")]
    Stopped,
    /// A stream reaches beyond any chunk.
    #[error("a stream has more bytes than a chunk")]
    Length,
}

impl DataStreamHeader {
    /// The first byte: those of lanes are below.
    pub const KIND: u8 = 4;

    /// Its bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; DATA_STREAM_HEADER_BYTES] {
        let mut bytes = [Self::KIND; DATA_STREAM_HEADER_BYTES];
        bytes[1..5].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.offset.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.tag.to_le_bytes());
        bytes
    }

    /// From the bytes on the wire, whose first one was looked at.
    #[must_use]
    pub fn decode(bytes: &[u8; DATA_STREAM_HEADER_BYTES]) -> Self {
        let [chunk, offset, tag] = [1, 5, 9]
            .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        Self { chunk, offset, tag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_as_it_was_sent() {
        let header = DataStreamHeader { chunk: 0x0102_0304, offset: 0x0506_0708, tag: 0x090a_0b0c };
        assert_eq!(header.encode(), [4, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9]);
        assert_eq!(DataStreamHeader::decode(&header.encode()), header);
    }
}
