//! The decoder: however a stream is cut, the same comes out of it, and little is held back; and so
//! does what a reader makes of it.

use std::convert::Infallible;

use crate::{receive_buffer::ReceiveBuffer, tcp::Reader};
use relay_protocol::{
    DATA_HEADER_BYTES, DataHeader, Decoder, Event, Message, MessageDecoder, Run,
    codec::BUFFERED_BYTES_MAX, encode_control, encode_message, encode_preamble,
};

/// Frames of one read, at most.
pub(super) const FRAMES_PER_READ: usize = 4;

/// What came out, with the pieces of a frame counted together.
#[derive(PartialEq, Debug)]
enum Seen {
    Preamble(u16),
    /// What control frames carry, until something else comes.
    Control(Vec<u8>),
    Data(DataHeader, Vec<u8>, bool),
}

/// First byte: whether a right preamble goes before, and how the rest is cut.
pub fn decoder(script: &[u8]) {
    let Some((&cut, rest)) = script.split_first() else { return };
    let mut stream = Vec::new();
    if cut & 1 == 0 {
        stream.extend_from_slice(&encode_preamble());
    }
    stream.extend_from_slice(rest);
    let whole = decode(&stream, stream.len());
    let pieces = decode(&stream, usize::from(cut >> 1) + 1);
    assert_eq!(whole, pieces, "the same stream, cut otherwise");
    assert_eq!(whole, read(&stream, usize::from(cut >> 1) << 9 | 1), "the same stream, read");
    for seen in &whole.0 {
        if let Seen::Control(carried) = seen {
            let mut bytes = encode_preamble().to_vec();
            encode_control(carried, &mut bytes);
            let again = decode(&bytes, bytes.len());
            assert_eq!(again.0.get(1), Some(seen), "what was understood can be said");
            assert_eq!(again.1, None);
            messages(carried, usize::from(cut >> 1) + 1);
        }
    }
}

/// All that comes out of a stream in pieces, and the error that ended it.
fn decode(stream: &[u8], piece_len: usize) -> (Vec<Seen>, Option<String>) {
    let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
    for mut input in stream.chunks(piece_len.max(1)) {
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(event)) => add(&mut seen, &event),
                Ok(None) => break,
                Err(error) => {
                    let mut more: &[u8] = &[0; 4];
                    assert_eq!(decoder.decode(&mut more), Err(error.clone()), "it stays failed");
                    return (seen, Some(error.to_string()));
                }
            }
        }
        assert!(input.is_empty(), "everything was looked at");
        assert!(decoder.buffered_bytes() < DATA_HEADER_BYTES);
    }
    (seen, None)
}

/// However what is said is cut, the same messages come out of it, and what was understood can be said.
fn messages(said: &[u8], piece_len: usize) {
    let whole = understand(said, said.len());
    assert_eq!(whole, understand(said, piece_len), "the same messages, cut otherwise");
    let mut again = Vec::new();
    whole.0.iter().for_each(|message| encode_message(message, &mut again));
    assert_eq!(understand(&again, again.len()), (whole.0, None), "what was understood can be said");
}

/// All messages of what was said in pieces, and the error that ended it.
fn understand(said: &[u8], piece_len: usize) -> (Vec<Message>, Option<String>) {
    let (mut decoder, mut messages) = (MessageDecoder::new(), Vec::new());
    for mut input in said.chunks(piece_len.max(1)) {
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error.to_string())),
            }
        }
        assert!(input.is_empty(), "everything was looked at");
        assert!(decoder.buffered_bytes() <= BUFFERED_BYTES_MAX);
    }
    (messages, None)
}

/// As [`decode`], by reads of at most so many bytes.
fn read(stream: &[u8], read_len: usize) -> (Vec<Seen>, Option<String>) {
    let (mut reader, mut buffer) = (Reader::new(), ReceiveBuffer::new(FRAMES_PER_READ));
    let mut seen = Vec::new();
    for bytes in stream.chunks(read_len) {
        let mut take = |event: Event<'_>| {
            add(&mut seen, &event);
            Ok::<(), Infallible>(())
        };
        if let Err(error) = reader.take(bytes, &mut buffer, &mut take) {
            return (seen, Some(error.to_string()));
        }
    }
    (seen, None)
}

fn add(seen: &mut Vec<Seen>, event: &Event<'_>) {
    match event {
        Event::Preamble { version } => seen.push(Seen::Preamble(*version)),
        Event::Control(piece) => match seen.last_mut() {
            Some(Seen::Control(carried)) => carried.extend_from_slice(piece),
            _ => seen.push(Seen::Control(piece.to_vec())),
        },
        Event::Data(run) => run.frames().for_each(|run| add_frame(seen, &run)),
    }
}

fn add_frame(seen: &mut Vec<Seen>, run: &Run<'_>) {
    let Run { header, frame_offset, bytes: piece, is_last, .. } = *run;
    assert!(!piece.is_empty());
    if let Some(Seen::Data(other, bytes, ended)) = seen.last_mut()
        && *other == header
        && !*ended
    {
        assert_eq!(bytes.len(), frame_offset as usize);
        bytes.extend_from_slice(piece);
        *ended = is_last;
    } else {
        assert_eq!(frame_offset, 0);
        seen.push(Seen::Data(header, piece.to_vec(), is_last));
    }
    if let Some(Seen::Data(_, bytes, true)) = seen.last() {
        assert_eq!(bytes.len(), header.payload_len as usize);
    }
}
