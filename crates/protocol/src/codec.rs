//! Bytes to frames and messages, and back, as [`super`] specifies.
//!
//! Pure and incremental: it reads no socket and holds no file byte. [`Decoder`] cuts a stream into frames, and
//! hands on what is in them as pieces of the input. What control frames carry is under TLS; of what is
//! inside of that [`MessageDecoder`] makes messages. What a message means in the state that a session is in,
//! and whether that side may send it, is the session's to judge.

use super::{
    check::{self, MessageError},
    frame::{
        CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, DataHeader, DecodeError, KIND_CONTROL, KIND_DATA,
        PREAMBLE_BYTES,
    },
    limits::{CONTROL_BODY_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, MAGIC, VERSION},
    message::Message,
    run::Run,
};

/// Bytes before a message's body, where messages follow one another: the length of the body.
pub const MESSAGE_HEADER_BYTES: usize = 2;

/// What a message decoder ever holds back of its input: never more than one message.
pub const BUFFERED_BYTES_MAX: usize = MESSAGE_HEADER_BYTES + CONTROL_BODY_BYTES_MAX;

const _: () = {
    assert!(MAGIC.len() + 8 == PREAMBLE_BYTES);
    // The scratch for headers holds a preamble and a whole data header.
    assert!(PREAMBLE_BYTES <= DATA_HEADER_BYTES && CONTROL_HEADER_BYTES <= DATA_HEADER_BYTES);
};

/// What either side sends first.
#[must_use]
pub fn encode_preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Appends control frames that carry these bytes: as many as it takes.
pub fn encode_control(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(CONTROL_FRAME_BYTES_MAX) {
        let length = u16::try_from(piece.len()).expect("CONTROL_FRAME_BYTES_MAX fits");
        let [low, high] = length.to_le_bytes();
        out.extend_from_slice(&[KIND_CONTROL, 0, low, high]);
        out.extend_from_slice(piece);
    }
}

/// Appends the message as it follows others: the length of its body, then the body.
///
/// # Panics
/// If our own message breaks a limit, which is our bug, never a peer's doing.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + MESSAGE_HEADER_BYTES, 0);
    let length = encode_body(message, out).to_le_bytes();
    out[start..start + MESSAGE_HEADER_BYTES].copy_from_slice(&length);
}

/// Appends the message's body alone; its length.
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

/// What comes out of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The other side's preamble: always the first event, once.
    Preamble {
        /// Its version, which is ours.
        version: u16,
    },
    /// A piece of what control frames carry, never empty. The pieces make one stream, whatever frames they
    /// came in.
    Control(&'a [u8]),
    /// A piece of a data frame's payload. The pieces of one frame follow each other without anything
    /// between them. A reader may join those that lie together: a decoder gives one at a time.
    Data(Run<'a>),
}

/// Cuts a stream into [`Event`]s, however it was split on its way.
///
/// Invariants: it holds back less than a header; a decoder that has failed gives the same error for ever.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The beginning of a header of which the rest is still to come.
    head: [u8; DATA_HEADER_BYTES],
    head_len: usize,
}

#[derive(Debug)]
enum State {
    Preamble,
    Header,
    /// Bytes of a control frame that are still to come.
    Control {
        left: usize,
    },
    Payload {
        header: DataHeader,
        done: u32,
    },
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
        Self { state: State::Preamble, head: [0; DATA_HEADER_BYTES], head_len: 0 }
    }

    /// The next event; consumes what it was made of. `None`: the input is used up, more is needed.
    ///
    /// # Errors
    /// The other side broke the protocol; what is left of the input is of no use.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, DecodeError> {
        let result = self.step(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
            self.head_len = 0;
        }
        result
    }

    /// Bytes held back of the input until the rest of their frame comes.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.head_len
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
        match &self.state {
            State::Preamble => assert!(self.head_len < PREAMBLE_BYTES),
            State::Header => assert!(self.head_len < DATA_HEADER_BYTES),
            State::Control { left } => assert!(self.head_len == 0 && *left > 0),
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
                State::Control { left } => {
                    let (piece, rest) = input.split_at(input.len().min(*left));
                    *input = rest;
                    *left -= piece.len();
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    return Ok((!piece.is_empty()).then_some(Event::Control(piece)));
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
    /// a side that speaks something else does not wait for eight bytes.
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
            if length == 0 || usize::from(length) > CONTROL_FRAME_BYTES_MAX {
                return Err(DecodeError::ControlLength(length));
            }
            self.head_len = 0;
            return Ok(Some(State::Control { left: usize::from(length) }));
        }
        self.fill_head(DATA_HEADER_BYTES, input);
        if self.head_len < DATA_HEADER_BYTES {
            return Ok(None);
        }
        self.head_len = 0;
        Ok(Some(State::Payload { header: DataHeader::decode(&self.head)?, done: 0 }))
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

/// Makes messages of what is inside of TLS, however that was split.
///
/// Invariants: `buffered_bytes() <= BUFFERED_BYTES_MAX`; a decoder that has failed gives the same error for ever.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    /// The beginning of a message of which the rest is still to come.
    begun: Vec<u8>,
    failed: Option<DecodeError>,
}

impl MessageDecoder {
    /// A decoder that expects a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next message; consumes what it was made of. `None`: the input is used up, more is needed.
    ///
    /// # Errors
    /// The other side broke the protocol; what is left of the input is of no use.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Message>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.step(input);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.begun = Vec::new();
        }
        result
    }

    /// Bytes held back of the input until the rest of their message comes.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.begun.len()
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Message>, DecodeError> {
        // Most messages lie whole in the input: nothing of them is copied.
        if self.begun.is_empty()
            && let Some((head, rest)) = input.split_first_chunk::<MESSAGE_HEADER_BYTES>()
            && let Some((body, rest)) = rest.split_at_checked(message_len(*head)?)
        {
            *input = rest;
            return Ok(Some(decode_body(body)?));
        }
        self.gather(MESSAGE_HEADER_BYTES, input);
        let Some(head) = self.begun.first_chunk() else { return Ok(None) };
        let length = MESSAGE_HEADER_BYTES + message_len(*head)?;
        self.gather(length, input);
        if self.begun.len() < length {
            return Ok(None);
        }
        // Split messages are rare: the memory is given back rather than kept per connection.
        let begun = std::mem::take(&mut self.begun);
        Ok(Some(decode_body(&begun[MESSAGE_HEADER_BYTES..])?))
    }

    /// Takes input until `wanted` bytes are gathered, or there is no more.
    fn gather(&mut self, wanted: usize, input: &mut &[u8]) {
        let missing = wanted.saturating_sub(self.begun.len());
        let (part, rest) = input.split_at(input.len().min(missing));
        self.begun.reserve_exact(part.len());
        self.begun.extend_from_slice(part);
        *input = rest;
    }
}

/// The length of a message's body, as it is stated.
fn message_len(head: [u8; MESSAGE_HEADER_BYTES]) -> Result<usize, DecodeError> {
    let length = u16::from_le_bytes(head);
    if length == 0 || usize::from(length) > CONTROL_BODY_BYTES_MAX {
        return Err(DecodeError::MessageLength(length));
    }
    Ok(usize::from(length))
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
