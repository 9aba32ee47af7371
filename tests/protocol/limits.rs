//! Each limit of the wire format: what keeps it is decoded, what is one beyond it is the typed
//! error, and our own side refuses to send it.
//!
//! The bytes are made without the encoder's checks, as a hostile side would.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use relay::protocol::{
    ChunkRange, Claims, DecodeError, Decoder, Digest, Event, Failure, FailureCode, Hello, KeyError,
    LabelFault, Message, MessageDecoder, MessageError, Order, Stats, SwarmKey, TokenDemand,
    Welcome, encode_control, encode_message, encode_preamble, limits::CHUNK_COUNT_MAX,
};

/// What the decoder makes of these bytes after a preamble.
fn decode(bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
    let stream = [&encode_preamble()[..], bytes].concat();
    let (mut decoder, mut input) = (Decoder::new(), &stream[..]);
    decoder.decode(&mut input).unwrap();
    let event = decoder.decode(&mut input);
    decoder.invariants();
    match event? {
        Some(Event::Control(mut piece)) => MessageDecoder::new().decode(&mut piece),
        Some(event) => panic!("{event:?}"),
        None => Ok(None),
    }
}

/// The message's frame, whatever limits it breaks.
fn unchecked(message: &Message) -> Vec<u8> {
    frame(&postcard::to_stdvec(message).unwrap())
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_le_bytes();
    control(&[&length[..], body].concat())
}

/// A control frame that carries this.
fn control(said: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_control(said, &mut frame);
    frame
}

#[track_caller]
fn accepted(message: &Message) {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes);
    let bytes = control(&bytes);
    assert_eq!(bytes, unchecked(message));
    assert_eq!(decode(&bytes).as_ref(), Ok(&Some(message.clone())));
}

#[track_caller]
fn refused(message: &Message, error: MessageError) {
    assert_eq!(decode(&unchecked(message)), Err(DecodeError::Message(error)));
    let sent = std::panic::catch_unwind(|| encode_message(message, &mut Vec::new()));
    assert!(sent.is_err(), "our own side must not send it");
}

fn too_long(what: &'static str, length: usize, length_max: usize) -> MessageError {
    MessageError::TooLong { what, length, length_max }
}

fn hello(size_bytes: u64, chunk_size_log2: u8) -> Message {
    Message::Hello(Hello {
        key: Some(SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2 }),
        proof: None,
        claims: Claims::Nothing,
        order: Order::Relay,
        seeding: None,
    })
}

#[test]
fn lists_are_taken_up_to_their_limit() {
    let digests =
        |count| Message::ManifestPart { first_chunk: 0, digests: vec![Digest([9; 32]); count] };
    accepted(&digests(32));
    refused(&digests(33), too_long("a manifest part", 33, 32));

    let bytes = |count| Message::BitfieldPart { offset_bytes: 0, bytes: vec![0xff; count] };
    accepted(&bytes(1024));
    refused(&bytes(1025), too_long("a bitfield part", 1025, 1024));

    let range = ChunkRange { first: CHUNK_COUNT_MAX / 2, count: CHUNK_COUNT_MAX / 2 };
    accepted(&Message::Have { ranges: vec![range; 100] });
    let short = ChunkRange { first: 0, count: 1 };
    refused(&Message::Have { ranges: vec![short; 101] }, too_long("a list of ranges", 101, 100));

    accepted(&Message::Want { chunks: vec![CHUNK_COUNT_MAX - 1; 200] });
    refused(&Message::Want { chunks: vec![1; 201] }, too_long("a list of chunks", 201, 200));
}

#[test]
fn texts_are_taken_up_to_their_limit() {
    let failure = |length| {
        Message::Failure(Failure { code: FailureCode::Internal, text: "x".repeat(length) })
    };
    accepted(&failure(512));
    refused(&failure(513), too_long("a failure's text", 513, 512));

    let stats = |driver: usize, congestion: usize| {
        let (driver, congestion) = ("d".repeat(driver), "c".repeat(congestion));
        Message::Stats(Box::new(Stats { driver, congestion, ..Stats::default() }))
    };
    accepted(&stats(32, 32));
    refused(&stats(33, 0), too_long("a driver's name", 33, 32));
    refused(&stats(0, 33), too_long("a congestion control's name", 33, 32));
}

#[test]
fn labels_that_do_not_show_are_refused() {
    let label = |text: &str| Message::Label { text: text.into() };
    accepted(&label(&"x".repeat(64)));
    for (text, fault) in [
        ("", LabelFault::Empty),
        ("x\n", LabelFault::Invisible),
        ("\u{202e}x", LabelFault::Invisible),
        ("x ", LabelFault::Space),
        (&"x".repeat(65), LabelFault::TooLong),
    ] {
        refused(&label(text), MessageError::Label(fault));
    }
}

#[test]
fn chunks_beyond_any_file_are_refused_and_nothing_overflows() {
    let beyond = |end| MessageError::ChunkBeyond(end);
    let (last, end) = (CHUNK_COUNT_MAX - 1, u64::from(CHUNK_COUNT_MAX));
    accepted(&Message::Fetch { fetch_id: 0, chunk: last });
    refused(&Message::Fetch { fetch_id: 0, chunk: CHUNK_COUNT_MAX }, beyond(end + 1));
    refused(&Message::Lacking { chunk: u32::MAX }, beyond(1 << 32));
    refused(&Message::Want { chunks: vec![0, u32::MAX] }, beyond(1 << 32));

    let have = |first, count| Message::Have { ranges: vec![ChunkRange { first, count }] };
    accepted(&have(0, CHUNK_COUNT_MAX));
    refused(&have(1, CHUNK_COUNT_MAX), beyond(end + 1));
    refused(&have(u32::MAX, u32::MAX), beyond(2 * u64::from(u32::MAX)));
    refused(&have(5, 0), MessageError::EmptyRange(5));

    let part = |first_chunk| Message::ManifestPart { first_chunk, digests: vec![Digest([0; 32])] };
    accepted(&part(last));
    refused(&part(u32::MAX), beyond(1 << 32));
    let bits = |offset_bytes| Message::BitfieldPart { offset_bytes, bytes: vec![0] };
    accepted(&bits(last / 8));
    refused(&bits(CHUNK_COUNT_MAX / 8), beyond(end + 8));
    refused(&bits(u32::MAX), beyond(8 << 32));
}

#[test]
fn a_swarm_key_is_valid_or_refused() {
    accepted(&hello(0, 10));
    accepted(&hello(1 << 42, 24));
    refused(&hello(1, 9), MessageError::Key(KeyError::ChunkSize(9)));
    refused(&hello(1, 255), MessageError::Key(KeyError::ChunkSize(255)));
    refused(&hello((1 << 42) + 1, 24), MessageError::Key(KeyError::ChunkCount((1 << 42) + 1, 24)));
    // A length of 2^63 and more.
    refused(&hello(1 << 63, 24), MessageError::Key(KeyError::ChunkCount(1 << 63, 24)));
    refused(&hello(u64::MAX, 10), MessageError::Key(KeyError::ChunkCount(u64::MAX, 10)));
}

#[test]
fn a_welcome_names_a_chunk_size_that_there_is() {
    let welcome = |chunk_size_log2_max| {
        let token_demand = TokenDemand::None;
        Message::Welcome(Welcome { token_demand, chunk_size_log2_max })
    };
    accepted(&welcome(24));
    refused(&welcome(25), MessageError::ChunkSizeMax(25));
}

#[test]
fn a_list_that_announces_more_than_its_frame_holds_is_refused_at_once() {
    let malformed = |body: &[u8]| match decode(&frame(body)) {
        Err(DecodeError::Message(MessageError::Malformed(_))) => {}
        other => panic!("{body:?} gave {other:?}"),
    };
    // Manifest part, bitfield part, ranges, chunks of 2^32 - 1 and more; a text of 2^63.
    malformed(&[5, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    malformed(&[2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    malformed(&[8, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1]);
    malformed(&[9, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1]);
    malformed(&[22, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    // No such message, no such demand, an option that is neither, a text that is not UTF-8.
    malformed(&[100]);
    malformed(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    malformed(&[0, 3, 24]);
    malformed(&[1, 2]);
    malformed(&[22, 0, 1, 0xff]);
}

#[test]
fn a_message_fills_its_frame_exactly() {
    assert_eq!(decode(&frame(&[4, 0])), Err(DecodeError::Message(MessageError::TrailingBytes(1))));
    assert_eq!(decode(&control(&[0, 0])), Err(DecodeError::MessageLength(0)));
    assert_eq!(decode(&control(&[0x4d, 0x04])), Err(DecodeError::MessageLength(1101)));
    assert_eq!(decode(&control(&[0x4c, 0x04])), Ok(None), "1,100 bytes are waited for");
}

#[test]
fn a_control_frame_carries_something_and_not_too_much() {
    assert_eq!(decode(&[1, 0, 0, 0]), Err(DecodeError::ControlLength(0)));
    assert_eq!(decode(&[1, 0, 0x01, 0x40]), Err(DecodeError::ControlLength(16_385)));
    assert_eq!(decode(&[1, 0, 0x00, 0x40]), Ok(None), "16 KiB are waited for");
    let (mut frames, long) = (Vec::new(), vec![7; (16 << 10) + 1]);
    encode_control(&long, &mut frames);
    assert_eq!(frames.len(), long.len() + 2 * 4, "what is longer takes two");
}

#[test]
fn a_header_is_refused_at_its_first_wrong_byte() {
    assert_eq!(decode(&[0]), Err(DecodeError::Kind(0)));
    assert_eq!(decode(&[3]), Err(DecodeError::Kind(3)));
    assert_eq!(decode(&[1, 1]), Err(DecodeError::Reserved(1)));
    assert_eq!(decode(&[2, 0x80]), Err(DecodeError::Reserved(0x80)));
    assert_eq!(decode(&[]), Ok(None));
}

#[test]
fn data_headers_keep_their_limits() {
    let header = |length: u16, chunk: u32, offset: u32| {
        let mut bytes = [0; 20];
        bytes[0] = 2;
        bytes[2..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..8].copy_from_slice(&chunk.to_le_bytes());
        bytes[8..12].copy_from_slice(&offset.to_le_bytes());
        decode(&bytes)
    };
    assert_eq!(header(16_384, CHUNK_COUNT_MAX - 1, (1 << 24) - 16_384), Ok(None));
    assert_eq!(header(0, 0, 0), Err(DecodeError::PayloadLength(0)));
    assert_eq!(header(16_385, 0, 0), Err(DecodeError::PayloadLength(16_385)));
    assert_eq!(header(1, CHUNK_COUNT_MAX, 0), Err(DecodeError::ChunkIndex(CHUNK_COUNT_MAX)));
    assert_eq!(header(1, 0, 1), Err(DecodeError::PayloadOffset(1)));
    assert_eq!(header(1, 0, 1 << 24), Err(DecodeError::PayloadOffset(1 << 24)));
    assert_eq!(header(1, 0, u32::MAX - 16_383), Err(DecodeError::PayloadOffset(u32::MAX - 16_383)));
}
