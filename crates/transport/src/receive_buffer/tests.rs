//! Whatever comes, and however it was cut: the same events as from one piece, in longer runs.

use super::*;
use crate::Reader;
use relay_protocol::{encode_control, encode_preamble, frame_crc, rng::Rng};

const FRAMES: usize = 4;
const FRAME: usize = FRAME_PAYLOAD_BYTES_MAX;

/// Frames of a chunk from `offset` on, as a stream.
fn frames(chunk: u32, offset: usize, len: usize, out: &mut Vec<u8>) {
    let bytes: Vec<u8> = (0..len)
        .map(|at| u8::try_from((at / 7 + at + chunk as usize) % 251).expect("small"))
        .collect();
    for (index, payload) in bytes.chunks(FRAME).enumerate() {
        let header = DataHeader {
            chunk,
            offset: u32::try_from(offset + index * FRAME).expect("small"),
            payload_len: u32::try_from(payload.len()).expect("a frame"),
            tag: 0,
            checksum: frame_crc(payload),
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(payload);
    }
}

#[test]
fn a_limited_read_is_never_of_nothing_and_keeps_to_whole_frames() {
    let whole = |lead, frames| Layout { lead, frames };
    for (layout, most, expected) in [
        (whole(0, 16), usize::MAX, whole(0, 16)),
        (whole(0, 16), FRAME, whole(0, 1)),
        (whole(0, 16), 3 * FRAME + 1, whole(0, 3)),
        (whole(100, 16), FRAME, whole(100, 0)),
        (whole(100, 16), 2 * FRAME, whole(100, 1)),
        (whole(FRAME, 16), FRAME, whole(FRAME, 0)),
        (whole(17 * FRAME, 0), 2 * FRAME, whole(2 * FRAME, 0)),
    ] {
        assert_eq!(layout.at_most(most), expected, "{layout:?} of {most}");
        assert!(layout.at_most(most).len_bytes() > 0);
    }
}

/// What came: messages, and frames with their bytes.
#[derive(PartialEq, Debug)]
enum Seen {
    /// What control frames carried, until something else came.
    Control(Vec<u8>),
    Frame(DataHeader, Vec<u8>),
}

fn see(seen: &mut Vec<Seen>, event: &Event<'_>) {
    match event {
        Event::Preamble { .. } => {}
        Event::Control(piece) => match seen.last_mut() {
            Some(Seen::Control(carried)) => carried.extend_from_slice(piece),
            _ => seen.push(Seen::Control(piece.to_vec())),
        },
        Event::Data(run) => run.frames().for_each(|run| {
            if run.frame_offset == 0 {
                seen.push(Seen::Frame(run.header, Vec::new()));
            }
            let Some(Seen::Frame(header, bytes)) = seen.last_mut() else { panic!("no beginning") };
            assert_eq!((*header, bytes.len()), (run.header, run.frame_offset as usize));
            bytes.extend_from_slice(run.bytes);
            assert_eq!(run.is_last, bytes.len() == run.header.payload_len as usize);
        }),
    }
}

/// All that a stream says when each read brings at most what `most` says; the runs' lengths.
fn read(mut stream: &[u8], mut most: impl FnMut() -> usize) -> (Vec<Seen>, Vec<usize>) {
    let (mut buffer, mut reader) = (ReceiveBuffer::new(FRAMES), Reader::new());
    let (mut seen, mut runs) = (Vec::new(), Vec::new());
    while !stream.is_empty() {
        let (now, later) = stream.split_at(stream.len().min(most()));
        let mut handler = |event: Event<'_>| {
            if let Event::Data(run) = &event {
                runs.push(run.bytes.len());
            }
            see(&mut seen, &event);
            Ok::<(), ()>(())
        };
        reader.take(now, &mut buffer, &mut handler).expect("well-formed");
        stream = later;
    }
    (seen, runs)
}

#[test]
fn a_read_that_was_too_small_is_followed_by_one_of_twice_the_size() {
    const USUAL: usize = 24 * FRAME;
    let (mut buffer, mut reader) = (ReceiveBuffer::new(FRAMES_PER_READ_MAX), Reader::new());
    let mut stream = encode_preamble().to_vec();
    frames(0, 0, 200 * FRAME, &mut stream);
    let mut runs = Vec::new();
    let mut handler = |event: Event<'_>| {
        if let Event::Data(run) = &event {
            runs.push(run.bytes.len());
        }
        Ok::<(), ()>(())
    };
    // The first frame tells that more will come.
    let (first, rest) = stream.split_at(encode_preamble().len() + DATA_HEADER_BYTES + FRAME);
    reader.take(first, &mut buffer, &mut handler).expect("well-formed");
    let (many, rest) = rest.split_at(rest.len() - 2 * (DATA_HEADER_BYTES + FRAME));
    reader.take(many, &mut buffer, &mut handler).expect("well-formed");
    // What was left of `many` did not fill its read: the next is of the usual size again.
    reader.take(rest, &mut buffer, &mut handler).expect("well-formed");
    let most = FRAMES_PER_READ_MAX * FRAME;
    assert_eq!(runs, [FRAME, USUAL, 2 * USUAL, most, 197 * FRAME - 3 * USUAL - most, 2 * FRAME]);
}

#[test]
fn frames_that_follow_each_other_come_in_one_run() {
    let mut stream = encode_preamble().to_vec();
    frames(0, 0, FRAME, &mut stream);
    let first = stream.len();
    frames(1, 0, 3 * FRAME, &mut stream);
    frames(2, 0, 4 * FRAME, &mut stream);
    let (seen, runs) = read(&stream, || usize::MAX);
    assert_eq!(seen.len(), 8);
    // The first read doesn't know what comes and ends within a frame; the next goes on from there.
    assert_eq!(runs[..4], [FRAME; 4], "as in a stream");
    assert!(runs.len() == 6 && runs[5] > 3 * FRAME, "{runs:?}");
    let mut reads = [first, usize::MAX, usize::MAX].into_iter();
    let (again, runs) = read(&stream, || reads.next().expect("three reads"));
    assert_eq!(again, seen);
    assert_eq!(runs, [FRAME, 3 * FRAME, FRAME, 3 * FRAME], "a run is of one chunk");
}

#[test]
fn the_same_comes_out_however_the_stream_is_cut_and_whatever_was_expected() {
    let mut joined = 0;
    for seed in 0..300 {
        let mut rng = Rng::new(seed, 0);
        let mut small = |below: u64| usize::try_from(rng.below(below)).expect("small");
        let mut stream = encode_preamble().to_vec();
        for chunk in 0..6 {
            if small(2) == 0 {
                let carried = vec![7; 1 + small(5000)];
                encode_control(&carried, &mut stream);
            }
            let len = [FRAME, 4 * FRAME, 3 * FRAME + 1, 1, FRAME - 1][small(5)];
            frames(chunk, small(3) * FRAME, len, &mut stream);
        }
        let (mut decoder, mut input, mut whole) = (Decoder::new(), &stream[..], Vec::new());
        while let Some(event) = decoder.decode(&mut input).expect("well-formed") {
            see(&mut whole, &event);
        }
        let limits = [1, 30, FRAME, FRAME + DATA_HEADER_BYTES, 5 * FRAME];
        let (seen, runs) = read(&stream, || {
            let limit = limits[small(5)] as u64;
            1 + small(limit)
        });
        assert!(seen == whole, "seed {seed}");
        joined += runs.iter().filter(|&&len| len > FRAME).count();
    }
    assert!(joined > 100, "{joined} runs were longer than a frame");
}

#[test]
fn what_came_before_an_error_is_handed_on_before_it() {
    let mut stream = encode_preamble().to_vec();
    frames(0, 0, FRAME, &mut stream);
    let first = stream.len();
    frames(1, 0, 2 * FRAME, &mut stream);
    stream.extend_from_slice(&[9; DATA_HEADER_BYTES]);
    let (mut buffer, mut reader) = (ReceiveBuffer::new(FRAMES), Reader::new());
    let mut seen = Vec::new();
    let mut handler = |event: Event<'_>| {
        see(&mut seen, &event);
        Ok::<(), ()>(())
    };
    reader.take(&stream[..first], &mut buffer, &mut handler).expect("well-formed");
    let error = reader.take(&stream[first..], &mut buffer, &mut handler);
    assert!(matches!(error, Err(ReadError::Decode(DecodeError::Kind(9)))));
    assert_eq!(seen.len(), 3, "all frames, though the stream breaks off behind them");
}

#[test]
fn a_handler_that_panics_leaves_nothing_to_the_next_connection() {
    let mut stream = encode_preamble().to_vec();
    frames(0, 0, FRAME, &mut stream);
    let first = stream.len();
    frames(1, 0, 3 * FRAME, &mut stream);
    let mut buffer = ReceiveBuffer::new(FRAMES);
    let mut nothing = |_: Event<'_>| Ok::<(), ()>(());
    let mut reader = Reader::new();
    reader.take(&stream[..first], &mut buffer, &mut nothing).expect("well-formed");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reader.take(&stream[first..], &mut buffer, &mut |_| -> Result<(), ()> { panic!("a bug") })
    }));
    assert!(panicked.is_err());
    let (mut other, mut runs) = (Reader::new(), Vec::new());
    let mut handler = |event: Event<'_>| {
        if let Event::Data(run) = event {
            runs.push(run.followers.len());
        }
        Ok::<(), ()>(())
    };
    other.take(&stream[..first], &mut buffer, &mut handler).expect("well-formed");
    other.take(&stream[first..], &mut buffer, &mut handler).expect("well-formed");
    assert_eq!(runs, [0, 2], "its own followers alone");
}
