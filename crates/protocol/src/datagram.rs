//! Datagrams: header, and the frames of control datagrams, as [`super`] specifies.
//!
//! Pure. Which datagrams are sent when, and which are new, is the transport's business; nothing
//! here keeps state.

use super::{
    crc::frame_crc,
    limits::{CONTROL_BODY_BYTES_MAX, DATAGRAM_BYTES_MAX},
};

/// Bytes before a datagram's body: shard, kind, reserved zeros, connection, packet number.
pub const DATAGRAM_HEADER_BYTES: usize = 20;

/// Bytes after the body: the proof that a holder of the key made the datagram. The tag of the cipher where
/// messages are sealed, a MAC where file bytes are.
pub const DATAGRAM_MAC_BYTES: usize = 16;

/// Bytes of a control datagram's frames, at most.
pub const DATAGRAM_BODY_BYTES_MAX: usize =
    DATAGRAM_BYTES_MAX - DATAGRAM_HEADER_BYTES - DATAGRAM_MAC_BYTES;

/// Bytes of a message's frame before its body: type, number, length.
pub const MESSAGE_FRAME_HEADER_BYTES: usize = 7;

/// Bytes of an acknowledgement: type, largest number, bitmap.
pub const ACK_FRAME_BYTES: usize = 25;

/// Bytes of a path challenge or its response: type, token.
pub const PATH_FRAME_BYTES: usize = 9;

/// Packets before the largest that an acknowledgement tells about.
pub const ACK_BITS: u32 = u128::BITS;

/// Bytes of a data datagram that are not the file's: header, what the piece is of, proof.
pub const DATA_DATAGRAM_OVERHEAD_BYTES: usize =
    DATAGRAM_HEADER_BYTES + DATA_PIECE_HEADER_BYTES + DATAGRAM_MAC_BYTES;

/// Bytes of a data datagram's body before the file's: chunk, offset, tag, checksum.
pub const DATA_PIECE_HEADER_BYTES: usize = 16;

/// The chunk of a data datagram that is only there to find out whether its length comes through.
const CHUNK_OF_PROBE: u32 = u32::MAX;

const KIND_CONTROL: u8 = 1;
pub(super) const KIND_DATA: u8 = 2;

const FRAME_PING: u8 = 1;
const FRAME_ACK: u8 = 2;
const FRAME_IN_ORDER: u8 = 3;
const FRAME_PROMPT: u8 = 4;
const FRAME_LATEST: u8 = 5;
const FRAME_CHALLENGE: u8 = 6;
const FRAME_RESPONSE: u8 = 7;

const _: () = {
    // The largest message and an acknowledgement share a datagram.
    assert!(
        MESSAGE_FRAME_HEADER_BYTES + CONTROL_BODY_BYTES_MAX + ACK_FRAME_BYTES
            <= DATAGRAM_BODY_BYTES_MAX
    );
};

/// What a datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatagramKind {
    /// [`DatagramFrame`]s.
    Control,
    /// A piece of a chunk, see [`DataPieceHeader`].
    Data,
}

/// Which bytes of the file a data datagram holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataPieceHeader {
    /// The chunk.
    pub chunk: u32,
    /// Where in the chunk.
    pub offset: u32,
    /// As in a data frame.
    pub tag: u32,
}

impl DataPieceHeader {
    /// Its bytes on the wire, before bytes of the file that have this CRC-32C.
    #[must_use]
    pub fn encode(&self, crc: u32) -> [u8; DATA_PIECE_HEADER_BYTES] {
        let mut bytes = [0; DATA_PIECE_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tag.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether a data datagram's body has the checksum that it states.
    pub(super) fn is_undamaged(body: &[u8]) -> bool {
        let Some((header, piece)) = body.split_first_chunk::<DATA_PIECE_HEADER_BYTES>() else {
            // Too short, which is for the decoder to say.
            return true;
        };
        header[12..16] == frame_crc(piece).to_le_bytes()
    }

    /// What comes first in a datagram that is only as long as it is.
    #[must_use]
    pub fn of_probe() -> Self {
        Self { chunk: CHUNK_OF_PROBE, offset: 0, tag: 0 }
    }

    /// Header and file bytes of an opened data datagram's body; `None` for a probe.
    ///
    /// # Errors
    /// It is too short to hold a byte of the file.
    pub fn decode(body: &[u8]) -> Result<Option<(Self, &[u8])>, FrameError> {
        let (bytes, piece) =
            body.split_first_chunk::<DATA_PIECE_HEADER_BYTES>().ok_or(FrameError::Length)?;
        let [chunk, offset, tag] = [0, 4, 8]
            .map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        if piece.is_empty() {
            return Err(FrameError::Length);
        }
        Ok((chunk != CHUNK_OF_PROBE).then_some((Self { chunk, offset, tag }, piece)))
    }
}

/// What every datagram begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramHeader {
    /// The shard of the relay that serves the connection, in both directions.
    pub shard: u8,
    /// What follows.
    pub kind: DatagramKind,
    /// The connection, as the offer named it.
    pub connection: u64,
    /// Counts the datagrams of one direction, from 0; never used twice.
    pub number: u64,
}

impl DatagramHeader {
    /// The header's bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; DATAGRAM_HEADER_BYTES] {
        let mut bytes = [0; DATAGRAM_HEADER_BYTES];
        bytes[0] = self.shard;
        bytes[1] = match self.kind {
            DatagramKind::Control => KIND_CONTROL,
            DatagramKind::Data => KIND_DATA,
        };
        bytes[4..12].copy_from_slice(&self.connection.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// The header of something that came, if it could be a datagram of ours. It proves nothing.
    #[must_use]
    pub fn peek(datagram: &[u8]) -> Option<Self> {
        if datagram.len() <= DATAGRAM_HEADER_BYTES + DATAGRAM_MAC_BYTES {
            return None;
        }
        let kind = match datagram[1..4] {
            [KIND_CONTROL, 0, 0] => DatagramKind::Control,
            [KIND_DATA, 0, 0] => DatagramKind::Data,
            _ => return None,
        };
        let connection = u64_at(datagram, 4)?;
        Some(Self { shard: datagram[0], kind, connection, number: u64_at(datagram, 12)? })
    }
}

/// Which datagrams have come: the largest number, and which of those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The largest number that came.
    pub largest: u64,
    /// Bit `i`, from the lowest: number `largest - 1 - i` has come.
    pub before: u128,
}

impl Ack {
    /// Whether it tells that this packet has come.
    #[must_use]
    pub fn covers(&self, number: u64) -> bool {
        match self.largest.checked_sub(number) {
            Some(0) => true,
            Some(back) if back <= u64::from(ACK_BITS) => self.before >> (back - 1) & 1 == 1,
            _ => false,
        }
    }
}

/// One thing in a control datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatagramFrame<'a> {
    /// Wants nothing but to be acknowledged.
    Ping,
    /// What has come.
    Ack(Ack),
    /// A message of the lane in order.
    InOrder {
        /// Counts the messages of the lane.
        number: u32,
        /// The message.
        body: &'a [u8],
    },
    /// A message of the prompt lane.
    Prompt {
        /// Counts the messages of the lane.
        number: u32,
        /// The message.
        body: &'a [u8],
    },
    /// A message that replaces those of the lane before it.
    Latest {
        /// Counts the messages of the lane.
        number: u32,
        /// The message.
        body: &'a [u8],
    },
    /// Prove that you receive where this was sent to.
    Challenge {
        /// To be returned.
        token: u64,
    },
    /// The proof.
    Response {
        /// From the challenge.
        token: u64,
    },
}

/// A datagram whose proof is right, but which makes no sense: the other side breaks the protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no such frame.
    #[error("{0} is no kind of frame in a datagram")]
    Kind(u8),
    /// A frame reaches beyond the datagram's end, or is longer than it may be.
    #[error("a frame of a datagram has a wrong length")]
    Length,
}

impl DatagramFrame<'_> {
    /// Appends the frame.
    ///
    /// # Panics
    /// If a body breaks its limit, which is our bug.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut message = |kind: u8, number: u32, body: &[u8]| {
            let length = u16::try_from(body.len()).expect("CONTROL_BODY_BYTES_MAX fits");
            out.push(kind);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(body);
        };
        match *self {
            Self::InOrder { number, body } => message(FRAME_IN_ORDER, number, body),
            Self::Prompt { number, body } => message(FRAME_PROMPT, number, body),
            Self::Latest { number, body } => message(FRAME_LATEST, number, body),
            Self::Ping => out.push(FRAME_PING),
            Self::Ack(Ack { largest, before }) => {
                out.push(FRAME_ACK);
                out.extend_from_slice(&largest.to_le_bytes());
                out.extend_from_slice(&before.to_le_bytes());
            }
            Self::Challenge { token } | Self::Response { token } => {
                let is_challenge = matches!(self, Self::Challenge { .. });
                out.push(if is_challenge { FRAME_CHALLENGE } else { FRAME_RESPONSE });
                out.extend_from_slice(&token.to_le_bytes());
            }
        }
    }
}

/// The next frame of a body; `None` at its end.
///
/// # Errors
/// The body makes no sense; what is left of it is of no use.
pub fn next_frame<'a>(body: &mut &'a [u8]) -> Result<Option<DatagramFrame<'a>>, FrameError> {
    let Some((&kind, rest)) = body.split_first() else { return Ok(None) };
    let mut rest = rest;
    let frame = match kind {
        FRAME_PING => DatagramFrame::Ping,
        FRAME_ACK => {
            let largest = u64::from_le_bytes(take(&mut rest)?);
            DatagramFrame::Ack(Ack { largest, before: u128::from_le_bytes(take(&mut rest)?) })
        }
        FRAME_IN_ORDER | FRAME_PROMPT | FRAME_LATEST => {
            let number = u32::from_le_bytes(take(&mut rest)?);
            let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
            if length == 0 || length > CONTROL_BODY_BYTES_MAX || length > rest.len() {
                return Err(FrameError::Length);
            }
            let (body, after) = rest.split_at(length);
            rest = after;
            match kind {
                FRAME_IN_ORDER => DatagramFrame::InOrder { number, body },
                FRAME_PROMPT => DatagramFrame::Prompt { number, body },
                _ => DatagramFrame::Latest { number, body },
            }
        }
        FRAME_CHALLENGE => DatagramFrame::Challenge { token: u64::from_le_bytes(take(&mut rest)?) },
        FRAME_RESPONSE => DatagramFrame::Response { token: u64::from_le_bytes(take(&mut rest)?) },
        other => return Err(FrameError::Kind(other)),
    };
    *body = rest;
    Ok(Some(frame))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(FrameError::Length)?;
    *rest = after;
    Ok(*bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_covers_what_it_says_and_nothing_beyond() {
        let ack = Ack { largest: 200, before: 0b101 | 1 << 127 };
        let covered: Vec<u64> = (0..300).filter(|&number| ack.covers(number)).collect();
        assert_eq!(covered, [72, 197, 199, 200]);
    }

    #[test]
    fn no_body_makes_the_decoder_panic_or_run_on() {
        let mut body = Vec::new();
        for frame in [
            DatagramFrame::Ack(Ack { largest: 1, before: 2 }),
            DatagramFrame::InOrder { number: 3, body: &[1, 2, 3] },
            DatagramFrame::Challenge { token: 4 },
        ] {
            frame.encode(&mut body);
        }
        for cut in 0..body.len() {
            for byte in 0..=u8::MAX {
                let mut wrong = body[..cut].to_vec();
                wrong.push(byte);
                let mut rest = &wrong[..];
                while let Ok(Some(_)) = next_frame(&mut rest) {}
            }
        }
        let mut endless = &[FRAME_IN_ORDER, 0, 0, 0, 0, 0, 0][..];
        assert_eq!(next_frame(&mut endless), Err(FrameError::Length), "no empty message");
    }
}
