//! Bytes to messages and back: preamble, control frames, data frames, as [`super`] specifies.
//!
//! Pure and incremental: it reads no socket and holds no file byte. Payload is handed on as pieces
//! of the input; only a control frame that was split between two inputs is gathered, in a buffer
//! of at most [`BUFFERED_BYTES_MAX`]. What a message means in the state that a session is in, and
//! whether that side may send it, is the session's to judge.

use super::{
    check::{self, MessageError},
    limits::{
        CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, CONTROL_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX,
        MAGIC, VERSION,
    },
    message::Message,
    run::Run,
};

/// Bytes of the preamble: magic, version, six reserved zeros.
pub const PREAMBLE_BYTES: usize = 16;

/// Bytes before a control message's body: kind, reserved zero, body length.
pub const CONTROL_HEADER_BYTES: usize = 4;

/// Bytes before a data frame's payload: kind, reserved zero, payload length, then chunk, offset,
/// tag and CRC-32C.
pub const DATA_HEADER_BYTES: usize = 20;

/// What a decoder ever holds back of its input: never more than one control message.
pub const BUFFERED_BYTES_MAX: usize = CONTROL_HEADER_BYTES + CONTROL_BODY_BYTES_MAX;

const KIND_CONTROL: u8 = 1;
const KIND_DATA: u8 = 2;

const _: () = {
    assert!(MAGIC.len() + 8 == PREAMBLE_BYTES);
    assert!(CONTROL_BODY_BYTES_MAX <= u16::MAX as usize);
    // The scratch for headers holds a preamble and a whole data header.
    assert!(PREAMBLE_BYTES <= DATA_HEADER_BYTES && CONTROL_HEADER_BYTES <= DATA_HEADER_BYTES);
    assert!(DATA_HEADER_BYTES <= BUFFERED_BYTES_MAX);
    // A frame's end fits the offset's type.
    assert!(CHUNK_SIZE_LOG2_MAX < 32);
};

/// What either side sends first.
#[must_use]
pub fn encode_preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Appends the message's frame, header and body.
///
/// # Panics
/// If our own message breaks a limit, which is our bug, never a peer's doing.
pub fn encode_control(message: &Message, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + CONTROL_HEADER_BYTES, 0);
    let length = encode_body(message, out).to_le_bytes();
    out[start..start + CONTROL_HEADER_BYTES].copy_from_slice(&[
        KIND_CONTROL,
        0,
        length[0],
        length[1],
    ]);
}

/// Appends the message's body alone, as datagrams carry it; its length.
///
/// # Panics
/// If our own message breaks a limit, which is our bug, never a peer's doing.
pub fn encode_body(message: &Message, out: &mut Vec<u8>) -> u16 {
    if let Err(error) = check::message(message) {
        panic!("our own message breaks a limit: {error}");
    }
    let start = out.len();
    out.resize(start + CONTROL_BODY_BYTES_MAX, 0);
    let length = postcard::to_slice(message, &mut out[start..])
        .expect("a message within its limits fits a control frame")
        .len();
    out.truncate(start + length);
    u16::try_from(length).expect("CONTROL_BODY_BYTES_MAX fits")
}

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
    /// [`super::frame_crc`] of the payload.
    pub crc: u32,
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
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// From the wire; kind and reserved byte were checked.
    fn decode(bytes: &[u8; DATA_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let header = Self {
            chunk: word(4),
            offset: word(8),
            payload_len: u32::from(u16::from_le_bytes([bytes[2], bytes[3]])),
            tag: word(12),
            crc: word(16),
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

/// What comes out of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The other side's preamble: always the first event, once.
    Preamble {
        /// Its version, which is ours.
        version: u16,
    },
    /// A control message, within all limits.
    Control(Message),
    /// A piece of a data frame's payload. The pieces of one frame follow each other without anything
    /// between them. Whoever reads may join those that lie together: a decoder gives one at a time.
    Data(Run<'a>),
}

/// How the other side broke the stream. There is no way to go on after one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stream does not begin with the magic.
    #[error("the other side does not speak this protocol (byte {at} of its stream is {byte:#04x})")]
    Magic {
        /// Index of the first wrong byte.
        at: usize,
        /// That byte.
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
    /// A control body of no or too many bytes.
    #[error("a control message of {0} bytes is not between 1 and {CONTROL_BODY_BYTES_MAX}")]
    ControlLength(u16),
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

/// Cuts a stream into [`Event`]s, however it was split on its way.
///
/// Invariants: `buffered_bytes() <= BUFFERED_BYTES_MAX`; a decoder that has failed gives the same
/// error for ever.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The beginning of a header of which the rest is still to come.
    head: [u8; DATA_HEADER_BYTES],
    head_len: usize,
    /// The beginning of a control body; empty between frames.
    body: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Preamble,
    Header,
    Body { length: usize },
    Payload { header: DataHeader, done: u32 },
    Failed(DecodeError),
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder that expects the preamble.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Preamble, head: [0; DATA_HEADER_BYTES], head_len: 0, body: Vec::new() }
    }

    /// The next event; consumes what it was made of. `None`: the input is used up, more is needed.
    ///
    /// # Errors
    /// The other side broke the protocol; what is left of the input is of no use.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, DecodeError> {
        let result = self.step(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
            (self.head_len, self.body) = (0, Vec::new());
        }
        result
    }

    /// Bytes held back of the input until the rest of their frame comes.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.head_len + self.body.len()
    }

    /// Payload bytes of the frame under way that are still to come.
    #[must_use]
    pub fn payload_left(&self) -> usize {
        match &self.state {
            State::Payload { header, done } => (header.payload_len - done) as usize,
            _ => 0,
        }
    }

    /// Checks what must hold between two calls; for tests.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn invariants(&self) {
        assert!(self.buffered_bytes() <= BUFFERED_BYTES_MAX);
        assert!(self.body.capacity() <= CONTROL_BODY_BYTES_MAX);
        match &self.state {
            State::Preamble => assert!(self.head_len < PREAMBLE_BYTES && self.body.is_empty()),
            State::Header => assert!(self.head_len < DATA_HEADER_BYTES && self.body.is_empty()),
            State::Body { length } => assert!(self.head_len == 0 && self.body.len() < *length),
            State::Payload { header, done } => {
                assert!(*done < header.payload_len && self.buffered_bytes() == 0);
            }
            State::Failed(_) => assert_eq!(self.buffered_bytes(), 0),
        }
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, DecodeError> {
        loop {
            match &mut self.state {
                State::Payload { header, done } => {
                    let (event, is_last) = take_piece(header, done, input);
                    if is_last {
                        self.state = State::Header;
                    }
                    return Ok(event);
                }
                State::Header => {
                    let Some(state) = self.take_header(input)? else { return Ok(None) };
                    self.state = state;
                }
                &mut State::Body { length } => {
                    let Some(message) = self.take_body(length, input)? else { return Ok(None) };
                    self.state = State::Header;
                    return Ok(Some(Event::Control(message)));
                }
                State::Preamble => {
                    if !self.take_preamble(input)? {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return Ok(Some(Event::Preamble { version: VERSION }));
                }
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    /// Whether the preamble is complete and right. A wrong first byte is an error at once, so that
    /// who speaks something else is not kept waiting for eight bytes.
    fn take_preamble(&mut self, input: &mut &[u8]) -> Result<bool, DecodeError> {
        self.fill_head(PREAMBLE_BYTES, input);
        let head = &self.head[..self.head_len];
        if let Some(at) = head.iter().zip(MAGIC).position(|(&byte, magic)| byte != magic) {
            return Err(DecodeError::Magic { at, byte: head[at] });
        }
        if head.len() < PREAMBLE_BYTES {
            return Ok(false);
        }
        let theirs = u16::from_le_bytes([head[8], head[9]]);
        if theirs != VERSION {
            return Err(DecodeError::Version { ours: VERSION, theirs });
        }
        if let Some(&byte) = head[10..].iter().find(|&&byte| byte != 0) {
            return Err(DecodeError::Reserved(byte));
        }
        self.head_len = 0;
        Ok(true)
    }

    /// What follows the next header, if that is complete.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<State>, DecodeError> {
        // Between two frames nothing is copied: most headers lie whole in the input.
        if self.head_len == 0
            && let Some((head, rest)) = input.split_first_chunk::<DATA_HEADER_BYTES>()
            && head[0] == KIND_DATA
            && head[1] == 0
        {
            *input = rest;
            return Ok(Some(State::Payload { header: DataHeader::decode(head)?, done: 0 }));
        }
        self.fill_head(CONTROL_HEADER_BYTES, input);
        let head = &self.head[..self.head_len];
        match head {
            [] => return Ok(None),
            [kind, ..] if ![KIND_CONTROL, KIND_DATA].contains(kind) => {
                return Err(DecodeError::Kind(*kind));
            }
            [_, reserved, ..] if *reserved != 0 => return Err(DecodeError::Reserved(*reserved)),
            _ if head.len() < CONTROL_HEADER_BYTES => return Ok(None),
            _ => {}
        }
        if head[0] == KIND_CONTROL {
            let length = u16::from_le_bytes([head[2], head[3]]);
            if length == 0 || usize::from(length) > CONTROL_BODY_BYTES_MAX {
                return Err(DecodeError::ControlLength(length));
            }
            self.head_len = 0;
            return Ok(Some(State::Body { length: usize::from(length) }));
        }
        self.fill_head(DATA_HEADER_BYTES, input);
        if self.head_len < DATA_HEADER_BYTES {
            return Ok(None);
        }
        self.head_len = 0;
        Ok(Some(State::Payload { header: DataHeader::decode(&self.head)?, done: 0 }))
    }

    /// The control message of `length` bytes, if it is complete.
    fn take_body(
        &mut self,
        length: usize,
        input: &mut &[u8],
    ) -> Result<Option<Message>, DecodeError> {
        if self.body.is_empty()
            && let Some((body, rest)) = input.split_at_checked(length)
        {
            *input = rest;
            return Ok(Some(decode_body(body)?));
        }
        let (part, rest) = input.split_at(input.len().min(length - self.body.len()));
        *input = rest;
        if self.body.is_empty() {
            self.body.reserve_exact(length);
        }
        self.body.extend_from_slice(part);
        if self.body.len() < length {
            return Ok(None);
        }
        // Split messages are rare: the memory is given back rather than kept per connection.
        let body = std::mem::take(&mut self.body);
        Ok(Some(decode_body(&body)?))
    }

    /// Takes input until `wanted` bytes of a header are gathered, or there is no more.
    fn fill_head(&mut self, wanted: usize, input: &mut &[u8]) {
        let (part, rest) = input.split_at(input.len().min(wanted.saturating_sub(self.head_len)));
        self.head[self.head_len..self.head_len + part.len()].copy_from_slice(part);
        self.head_len += part.len();
        *input = rest;
    }
}

/// What there is of the payload, and whether the frame ends with it.
fn take_piece<'a>(
    header: &DataHeader,
    done: &mut u32,
    input: &mut &'a [u8],
) -> (Option<Event<'a>>, bool) {
    let left = header.payload_len - *done;
    let (piece, rest) = input.split_at(input.len().min(left as usize));
    if piece.is_empty() {
        return (None, false);
    }
    *input = rest;
    let frame_offset = *done;
    *done += u32::try_from(piece.len()).expect("a piece is within its frame");
    let is_last = *done == header.payload_len;
    let run = Run { header: *header, frame_offset, followers: &[], bytes: piece, is_last };
    (Some(Event::Data(run)), is_last)
}

/// The message that a whole body holds, no byte more.
///
/// # Errors
/// It can't be read, or breaks a limit.
pub fn decode_body(body: &[u8]) -> Result<Message, MessageError> {
    let (message, rest) = postcard::take_from_bytes(body)?;
    if !rest.is_empty() {
        return Err(MessageError::TrailingBytes(rest.len()));
    }
    check::message(&message)?;
    Ok(message)
}
