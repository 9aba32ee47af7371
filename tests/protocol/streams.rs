//! The decoder against arbitrary streams: what was encoded comes back however it was split, and
//! whatever else comes is an error or asks for more, never a panic, within its bound of memory.
//!
//! Failing cases print their seed and are replayed from `*.proptest-regressions`. Single limits
//! are tested in `protocol_limits`, exact bytes in `protocol_golden`.

use proptest::{collection::vec, prelude::*, sample::Index};
use relay::protocol::{DecodeError, Event, Run, encode_preamble, frame_crc};

use crate::protocol_support::{Item, Seen, encode, expected, items, run};

/// Sizes of the inputs that a stream is split into, used in turn.
fn splits() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), vec(1..32usize, 1..8), vec(1..40_000usize, 1..8)]
}

/// Bytes that look enough like frames to get past the first checks.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let header =
        (1..=2u8, 0..=1_200u16, vec(any::<u8>(), 0..64)).prop_map(|(kind, length, rest)| {
            let length = length.to_le_bytes();
            [&[kind, 0, length[0], length[1]][..], &rest].concat()
        });
    let body = (0..25u8, vec(any::<u8>(), 0..80)).prop_map(|(variant, rest)| {
        let length = u8::try_from(rest.len() + 1).expect("below 256");
        [&[1, 0, length + 2, 0, length, 0, variant][..], &rest].concat()
    });
    vec(prop_oneof![header, body], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_encoded_is_decoded(items in items()) {
        prop_assert_eq!(run(&encode(&items), &[usize::MAX]), expected(&items));
    }

    #[test]
    fn any_split_decodes_to_the_same(items in items(), splits in splits()) {
        prop_assert_eq!(run(&encode(&items), &splits), expected(&items));
    }

    #[test]
    fn a_stream_that_ends_early_gives_what_was_complete(items in items(), end in any::<Index>()) {
        let stream = encode(&items);
        let seen = run(&stream[..end.index(stream.len())], &[usize::MAX]);
        let mut all = expected(&items).into_iter();
        for (index, event) in seen.iter().enumerate() {
            match (event, all.next()) {
                (Seen::Unfinished { header, payload }, Some(Seen::Frame { header: whole, payload: bytes })) => {
                    prop_assert_eq!(*header, whole);
                    prop_assert!(bytes.starts_with(payload));
                    prop_assert_eq!(index + 1, seen.len());
                }
                (event, whole) => prop_assert_eq!(Some(event), whole.as_ref()),
            }
        }
    }

    #[test]
    fn garbage_is_an_error_or_wants_more(bytes in vec(any::<u8>(), 0..2_000), splits in splits()) {
        let seen = run(&bytes, &splits);
        if bytes.len() >= 8 {
            let is_refused = matches!(seen[..], [Seen::Error(DecodeError::Magic { .. })]);
            prop_assert!(is_refused, "{:?}", seen);
        }
    }

    #[test]
    fn garbage_after_the_preamble_fails_alike_however_split(
        bytes in prop_oneof![near_frames(), vec(any::<u8>(), 0..2_000)],
        splits in splits(),
    ) {
        let stream = [&encode_preamble()[..], &bytes].concat();
        prop_assert_eq!(run(&stream, &splits), run(&stream, &[usize::MAX]));
    }

    #[test]
    fn a_flipped_byte_never_panics_and_in_a_payload_the_crc_tells(
        items in items(), at in any::<Index>(), mask in 1..=255u8, splits in splits(),
    ) {
        let mut stream = encode(&items);
        let at = at.index(stream.len());
        stream[at] ^= mask;
        let seen = run(&stream, &splits);
        prop_assert_eq!(&seen, &run(&stream, &[usize::MAX]));
        let Some((index, is_payload)) = locate(&items, at) else { return Ok(()) };
        if is_payload {
            // The preamble is the first event.
            let Seen::Frame { header, payload } = &seen[index + 1] else { panic!("{seen:?}") };
            prop_assert_ne!(frame_crc(payload), header.checksum);
        }
    }

    #[test]
    fn a_decoder_that_failed_stays_so(bytes in near_frames(), after in items()) {
        let stream = [&encode_preamble()[..], &bytes, &[9]].concat();
        let (mut decoder, mut input) = (relay::protocol::Decoder::new(), &stream[..]);
        let error = loop {
            match decoder.decode(&mut input) {
                Err(error) => break error,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
            }
        };
        let valid = encode(&after);
        prop_assert_eq!(decoder.decode(&mut &valid[..]), Err(error));
        prop_assert_eq!(decoder.buffered_bytes(), 0);
    }
}

/// Which item the stream's byte belongs to, and whether to the payload of a data frame.
fn locate(items: &[Item], at: usize) -> Option<(usize, bool)> {
    let mut start = encode(&[]).len();
    for (index, item) in items.iter().enumerate() {
        let end = start + item.encode().len();
        if (start..end).contains(&at) {
            return Some((index, item.payload_len().is_some_and(|payload| at >= end - payload)));
        }
        start = end;
    }
    None
}

#[test]
fn payload_pieces_point_into_the_input() {
    let payload = [7; 16_384];
    let stream = encode(&[Item::frame(1, 0, 0, &payload)]);
    let mut decoder = relay::protocol::Decoder::new();
    let mut input = &stream[..];
    decoder.decode(&mut input).unwrap();
    let Ok(Some(Event::Data(Run { bytes: piece, is_last: true, .. }))) = decoder.decode(&mut input)
    else {
        panic!("one whole frame");
    };
    assert_eq!(piece.as_ptr_range().end, stream.as_ptr_range().end);
    assert_eq!(piece, payload);
}

#[test]
fn who_speaks_http_is_told_at_the_first_byte() {
    let seen = run(b"GET / HTTP/1.1\r\n\r\n", &[1]);
    assert_eq!(seen, [Seen::Error(DecodeError::Magic { at: 0, byte: b'G' })]);
    // "POST" shares a letter with the magic.
    let seen = run(b"PO", &[1]);
    assert_eq!(seen, [Seen::Error(DecodeError::Magic { at: 1, byte: b'O' })]);
}

#[test]
fn another_version_is_named_before_its_reserved_bytes_are_judged() {
    let mut preamble = encode_preamble();
    preamble[8..].copy_from_slice(&[0x04, 0x01, 1, 2, 3, 4, 5, 6]);
    let seen = run(&preamble, &[3]);
    assert_eq!(seen, [Seen::Error(DecodeError::Version { ours: 3, theirs: 0x0104 })]);
    let mut preamble = encode_preamble();
    preamble[15] = 1;
    assert_eq!(run(&preamble, &[16]), [Seen::Error(DecodeError::Reserved(1))]);
}
