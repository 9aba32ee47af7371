//! Pieces of chunks in any order, and whom they are blamed on.

use shards::{Budget, Ringer, ShardId};

use super::*;
use crate::one_shard;

const LEN: usize = 5 * FRAME_PAYLOAD_BYTES_MAX + 77;

fn content() -> Vec<u8> {
    (0..LEN).map(|at| u8::try_from(at % 251).expect("small")).collect()
}

/// Of a shard that has nothing to do.
fn ringer() -> Ringer {
    let shards = one_shard::idle();
    let ringer = shards.ringer(ShardId(0));
    shards.drain();
    shards.join().expect("it had nothing to do");
    ringer
}

/// A fetch of the only chunk of a file, and the budget that it was leased from.
fn fetching() -> (Fetching, Budget) {
    fetching_of(&content())
}

fn fetching_of(bytes: &[u8]) -> (Fetching, Budget) {
    let manifest = Arc::new(Manifest::of(bytes, 17).expect("one chunk"));
    let budget = Budget::new(1 << 17, 1);
    let lease = budget.waiter(ringer()).expect("one").try_lease(1 << 17).expect("all is free");
    let mut fetching = Fetching::default();
    fetching.set_key(key());
    fetching.begin(FetchOrder {
        fetch_id: FetchId(7),
        chunk: 0,
        manifest,
        lease,
        is_to_be_lent: false,
    });
    (fetching, budget)
}

fn header(offset: usize) -> DataPieceHeader {
    DataPieceHeader { chunk: 0, offset: u32::try_from(offset).expect("small"), tag: 7 }
}

#[test]
fn pieces_in_any_order_make_the_chunk_in_its_own_buffer() {
    let (mut fetching, budget) = fetching();
    let bytes = content();
    let pieces: Vec<usize> = (0..LEN).step_by(1136).collect();
    let (even, odd): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|at| at / 1136 % 2 == 0);
    let mut ended = None;
    for at in odd.into_iter().rev().chain(even) {
        let piece = &bytes[at..LEN.min(at + 1136)];
        assert!(ended.is_none(), "not before the last piece");
        ended = fetching.handle_piece(&header(at), piece).expect("as was asked for");
    }
    let chunk = ended.expect("whole").result.expect("right");
    assert!(chunk.buffer[..] == bytes);
    assert_eq!(budget.in_use_bytes(), 1 << 17, "no memory but what was leased");
    drop(chunk);
    assert_eq!(budget.in_use_bytes(), 0);
    assert!(matches!(fetching.handle_piece(&header(0), &bytes[..9]), Ok(None)), "late");
    assert_eq!(fetching.take_dropped()[Drop::Late as usize], 9);
}

#[test]
fn a_sealed_chunk_with_a_wrong_byte_is_a_lie() {
    let (mut fetching, _budget) = fetching();
    let mut bytes = content();
    bytes[4711] ^= 1;
    let ended = fetching.handle_piece(&header(0), &bytes).expect("as was asked for");
    assert!(matches!(ended.expect("whole").result, Err(FetchFailure::Lied)));
}

fn key() -> UploadKey {
    UploadKey::new([6; 32])
}

/// The chunk's frames, whose checksums are stated as `state` makes them of the right ones.
fn headers(bytes: &[u8], state: impl Fn(u32) -> u32) -> Vec<DataHeader> {
    let frames = bytes.chunks(FRAME_PAYLOAD_BYTES_MAX).zip(0..);
    let header = |(frame, number): (&[u8], u32)| DataHeader {
        chunk: 0,
        offset: number * FRAME_PAYLOAD_LEN_MAX,
        payload_len: u32::try_from(frame.len()).expect("a frame"),
        tag: 7,
        checksum: state(key().checksum(7, number * FRAME_PAYLOAD_LEN_MAX, frame)),
    };
    frames.map(header).collect()
}

/// The chunk, frame by frame and in one run, which must come to the same.
fn in_frames(bytes: &[u8], state: impl Fn(u32) -> u32) -> Result<VerifiedChunk, FetchFailure> {
    let (mut fetching, _budget) = fetching();
    let headers = headers(bytes, state);
    let (header, followers) = (headers[0], &headers[1..]);
    let run = Run { header, frame_offset: 0, followers, bytes, is_last: true };
    let mut ended = None;
    for frame in run.frames() {
        assert!(ended.is_none(), "not before the last frame");
        ended = fetching.handle_data(&frame).expect("as was asked for");
    }
    let result = ended.expect("whole").result;
    let (mut at_once, _budget) = self::fetching();
    let again = at_once.handle_data(&run).expect("as was asked for").expect("whole").result;
    match (&result, &again) {
        (Ok(one), Ok(other)) => {
            assert!(one.buffer[..] == other.buffer[..] && one.crcs == other.crcs)
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => panic!("{result:?} in frames, {again:?} in one run"),
    }
    result
}

#[test]
fn a_run_in_which_a_frame_is_out_of_place_breaks_the_protocol() {
    let bytes = content();
    let misplaced = |change: fn(&mut DataHeader)| {
        let (mut fetching, budget) = fetching();
        let mut headers = headers(&bytes, |crc| crc);
        change(&mut headers[3]);
        let (header, followers) = (headers[0], &headers[1..]);
        let run = Run { header, frame_offset: 0, followers, bytes: &bytes, is_last: true };
        assert!(fetching.handle_data(&run).is_err());
        assert_eq!(fetching.take_dropped()[Drop::Protocol as usize], LEN as u64);
        drop(fetching);
        assert_eq!(budget.in_use_bytes(), 0);
    };
    misplaced(|header| header.chunk = 1);
    misplaced(|header| header.offset += FRAME_PAYLOAD_LEN_MAX);
    misplaced(|header| header.payload_len -= 1);
}

#[test]
fn frames_behind_the_end_of_a_chunk_are_late_and_harm_it_not() {
    let bytes = vec![5; 4 * FRAME_PAYLOAD_BYTES_MAX];
    let headers = headers(&bytes, |crc| crc);
    let (chunk, _) = bytes.split_at(3 * FRAME_PAYLOAD_BYTES_MAX);
    let (mut fetching, _budget) = fetching_of(chunk);
    let (header, followers) = (headers[0], &headers[1..]);
    let run = Run { header, frame_offset: 0, followers, bytes: &bytes, is_last: true };
    let ended = fetching.handle_data(&run).expect("as was asked for").expect("whole");
    assert!(ended.result.expect("right").buffer[..] == *chunk);
    assert_eq!(fetching.take_dropped()[Drop::Late as usize], FRAME_PAYLOAD_BYTES_MAX as u64);
}

#[test]
fn checksums_decide_about_blame_and_about_nothing_else() {
    let bytes = content();
    let right = in_frames(&bytes, |crc| crc).expect("right");
    assert_eq!(right.crcs, frame_crcs(&bytes));
    let misstated = in_frames(&bytes, |crc| !crc).expect("the digest is right");
    assert!(misstated.buffer[..] == bytes);
    assert_eq!(misstated.crcs, frame_crcs(&bytes), "what is passed on is right");
    let mut wrong = bytes;
    wrong[4711] ^= 1;
    assert!(matches!(in_frames(&wrong, |crc| crc), Err(FetchFailure::Lied)));
    assert!(matches!(in_frames(&wrong, |crc| !crc), Err(FetchFailure::Damaged)));
}

#[test]
fn pieces_beyond_the_chunk_or_too_many_to_remember_break_the_protocol() {
    let (mut beyond, _budget) = fetching();
    assert!(beyond.handle_piece(&header(LEN - 1), &[0; 2]).is_err());
    assert!(beyond.handle_piece(&header(u32::MAX as usize), &[0; 2]).is_err());
    let (mut many, _budget) = fetching();
    let refused = (0..LEN).step_by(2).position(|at| many.handle_piece(&header(at), &[0]).is_err());
    let refused = refused.expect("bounded");
    assert!(refused <= LEN / 1024 + 3);
    many.abandon();
    let dropped: u64 = many.take_dropped().iter().sum();
    assert_eq!(dropped, refused as u64 + 1, "each byte counts once");
}
