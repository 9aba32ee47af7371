//! File bytes: frames and pieces in every order, twice, cut short, damaged, and out of place.

use relay::{
    client::{
        FileState, Seal, Session, SessionConfig, SessionError, SessionEvent, WrongDigestCause,
        assembler::AssembleError,
    },
    protocol::{
        ChunkRange, DataHeader, DataPieceHeader, FailureCode, Message, Run, Sealed, ShareSecret,
        frame_crc, limits::PARTIAL_CHUNKS_MAX,
    },
    time::Time,
};

use crate::peer_support::{
    FRAME, LOG2, config, content, deliver, downloading, events, frames, join, manifest_of, run,
    said, verified,
};

#[test]
fn a_file_is_put_together_from_deliveries_in_any_order() {
    for len in [1, FRAME, FRAME + 1, 1 << LOG2, (1 << LOG2) + 1, (5 << LOG2) - 1] {
        let bytes = content(len);
        let (mut session, manifest) = downloading(config(), &bytes);
        let key = *manifest.key();
        let first = said(&mut session);
        assert!(matches!(first[..], [Message::Progress { received_bytes: 0, .. }]), "{first:?}");
        let mut file = vec![0; len];
        for chunk in (0..key.chunk_count()).rev() {
            deliver(&mut session, &frames(&bytes, chunk, 0)).unwrap();
            let (got, chunk_bytes) = verified(&mut session).remove(0);
            assert_eq!(got, chunk);
            let start = (chunk as usize) << LOG2;
            file[start..start + chunk_bytes.len()].copy_from_slice(&chunk_bytes);
            let have = Message::Have { ranges: vec![ChunkRange { first: chunk, count: 1 }] };
            session.handle_turn_end(Time::ZERO, true);
            let said = said(&mut session);
            assert_eq!(said[0], have);
            assert!(matches!(said[1], Message::Progress { .. }), "a report goes with it");
        }
        assert_eq!(file, bytes);
        assert!(session.file().is_whole());
        assert!(events(&mut session).contains(&SessionEvent::Complete));
    }
}

#[test]
fn only_whole_frames_are_acknowledged() {
    let bytes = content(1 << LOG2);
    let (mut session, _) = downloading(config(), &bytes);
    said(&mut session);
    let frames = frames(&bytes, 0, 0);
    deliver(&mut session, &frames[..1]).unwrap();
    session.handle_data(Time::ZERO, &run(&frames[1].0, 0, &frames[1].1[..100], false)).unwrap();
    session.handle_turn_end(Time::ZERO, true);
    let said = said(&mut session);
    let [Message::Progress { received_bytes, .. }] = said[..] else { panic!("{said:?}") };
    assert_eq!(received_bytes, FRAME as u64);
}

#[test]
fn a_delivery_that_was_cut_off_is_continued_and_one_with_a_gap_is_lacking_once() {
    let bytes = content(3 << LOG2);
    let (mut session, _) = downloading(config(), &bytes);
    said(&mut session);
    deliver(&mut session, &frames(&bytes, 0, 0)[..2]).unwrap();
    deliver(&mut session, &frames(&bytes, 1, 0)).unwrap();
    deliver(&mut session, &frames(&bytes, 0, 2 * FRAME)).unwrap();
    let chunks: Vec<u32> = verified(&mut session).iter().map(|(chunk, _)| *chunk).collect();
    assert_eq!(chunks, [1, 0], "a recall leaves a partial that goes on later");

    deliver(&mut session, &frames(&bytes, 2, FRAME)).unwrap();
    let lacking = said(&mut session);
    let lacking = lacking.iter().filter(|message| matches!(message, Message::Lacking { chunk: 2 }));
    assert_eq!(lacking.count(), 1, "not once a frame");
    assert_eq!(verified(&mut session), []);
    deliver(&mut session, &frames(&bytes, 2, 0)).unwrap();
    assert_eq!(verified(&mut session).len(), 1, "from its first byte on it is accepted");
}

#[test]
fn the_oldest_of_too_many_partials_is_dropped() {
    let count = u32::try_from(PARTIAL_CHUNKS_MAX).unwrap() + 1;
    let bytes = content((count as usize) << LOG2);
    let (mut session, _) = downloading(config(), &bytes);
    said(&mut session);
    for chunk in 0..count {
        deliver(&mut session, &frames(&bytes, chunk, 0)[..1]).unwrap();
    }
    for chunk in (0..count).rev() {
        deliver(&mut session, &frames(&bytes, chunk, FRAME)).unwrap();
    }
    let chunks = verified(&mut session).len();
    assert_eq!(chunks, PARTIAL_CHUNKS_MAX);
    assert!(said(&mut session).contains(&Message::Lacking { chunk: 0 }));
}

#[test]
fn what_is_here_already_is_discarded_and_still_acknowledged() {
    let bytes = content(2 << LOG2);
    let (mut session, _) = downloading(config(), &bytes);
    for _ in 0..2 {
        deliver(&mut session, &frames(&bytes, 0, 0)).unwrap();
    }
    let first = events(&mut session);
    let count = first.iter().filter(|event| matches!(event, SessionEvent::Verified { .. })).count();
    assert_eq!(count, 1, "the second came before the first was kept");
    session.handle_kept(0);
    deliver(&mut session, &frames(&bytes, 0, 0)).unwrap();
    assert_eq!(verified(&mut session), []);
    let received = said(&mut session).iter().find_map(|message| match message {
        Message::Progress { received_bytes, .. } => Some(*received_bytes),
        _ => None,
    });
    assert_eq!(received, Some(3 << LOG2));
}

#[test]
fn a_piece_that_comes_again_before_its_chunk_is_kept_begins_nothing() {
    let bytes = content(2 << LOG2);
    let (mut session, _) = downloading(config(), &bytes);
    let piece = |session: &mut Session, offset: usize, len: usize| {
        let header = DataPieceHeader { chunk: 0, offset: u32::try_from(offset).unwrap(), tag: 0 };
        session.handle_piece(Time::ZERO, &header, &bytes[offset..offset + len]).unwrap();
    };
    let half = 1 << (LOG2 - 1);
    for offset in [half, 0, half, 0] {
        piece(&mut session, offset, half);
    }
    assert_eq!(verified(&mut session).len(), 1, "what lies about unfinished would be finished");
}

#[test]
fn a_wrong_byte_ends_the_connection_and_tells_whose_fault_it_is() {
    let bytes = content(1 << LOG2);
    for (keeps_bytes, mends_crc, expected) in [
        (true, false, WrongDigestCause::Link),
        (true, true, WrongDigestCause::Sender),
        (false, true, WrongDigestCause::Unknown),
    ] {
        let (mut session, _) = downloading(SessionConfig { keeps_bytes, ..config() }, &bytes);
        let mut wrong = frames(&bytes, 0, 0);
        wrong[2].1[77] ^= 1;
        if mends_crc {
            wrong[2].0.checksum = frame_crc(&wrong[2].1);
        }
        let error = deliver(&mut session, &wrong).unwrap_err();
        let cause = AssembleError::WrongDigest { chunk: 0, cause: expected };
        assert!(matches!(error, SessionError::Data(ref found) if *found == cause));
        let is_the_relays = expected == WrongDigestCause::Sender;
        // Otherwise another connection may bring the right bytes.
        assert_eq!(error.is_transient(), !is_the_relays);
        assert!(!session.file().have().contains(0));
        let code = if is_the_relays { FailureCode::Protocol } else { FailureCode::LinkCorrupt };
        assert_eq!(error.to_failure().unwrap().code, code);
    }
}

#[test]
fn what_is_opened_as_it_comes_is_told_by_its_digest_and_only_once_it_is_verified() {
    let bytes = content((1 << LOG2) + 5);
    let plain = manifest_of(&bytes);
    let sealed = Sealed { secret: ShareSecret([4; 16]), plain: plain.key().id };
    let mut moved = bytes.clone();
    sealed.cipher(bytes.len() as u64).apply(0, &mut moved);
    let opening = || {
        let (session, _) = downloading(SessionConfig { keeps_bytes: false, ..config() }, &moved);
        session.with_opening(Some(Seal::new(&sealed, moved.len() as u64)))
    };
    let mut session = opening();
    let mut sent = frames(&moved, 1, 0);
    sent.extend(frames(&moved, 0, 0));
    deliver(&mut session, &sent).unwrap();
    let told: Vec<_> = events(&mut session)
        .into_iter()
        .filter_map(|event| match event {
            SessionEvent::Verified { chunk, bytes, plain, .. } => Some((chunk, bytes, plain)),
            _ => None,
        })
        .collect();
    let expected = [1, 0].map(|chunk| (chunk, None, Some(plain.digest(chunk))));
    assert_eq!(told, expected);
    let mut session = opening();
    sent.last_mut().unwrap().1[5] ^= 1;
    assert!(deliver(&mut session, &sent).is_err());
    let opened = |event: &SessionEvent| matches!(event, SessionEvent::Verified { chunk: 0, .. });
    assert!(!events(&mut session).iter().any(opened), "it opens to what was never verified");
}

#[test]
fn a_chunk_in_one_run_is_the_same_as_frame_by_frame() {
    let bytes = content((1 << LOG2) + 5);
    let (mut session, _) = downloading(config(), &bytes);
    said(&mut session);
    let frames = frames(&bytes, 0, 0);
    let headers: Vec<DataHeader> = frames.iter().map(|&(header, _)| header).collect();
    let chunk = &bytes[..1 << LOG2];
    // It begins in the midst of the first frame and ends in the midst of the last, then the rest.
    let (first, rest) = chunk.split_at(100);
    let (most, end) = rest.split_at(rest.len() - 100);
    session.handle_data(Time::ZERO, &run(&headers[0], 0, first, false)).unwrap();
    let followers = &headers[1..];
    let middle = Run { followers, ..run(&headers[0], 100, most, false) };
    session.handle_data(Time::ZERO, &middle).unwrap();
    session.handle_turn_end(Time::ZERO, true);
    let last = *headers.last().unwrap();
    let [Message::Progress { received_bytes, .. }] = said(&mut session)[..] else { panic!() };
    assert_eq!(received_bytes, u64::from(last.offset), "only whole frames");
    session.handle_data(Time::ZERO, &run(&last, last.payload_len - 100, end, true)).unwrap();
    assert_eq!(verified(&mut session), [(0, chunk.to_vec())]);
    // What goes on behind a chunk's end is an error, and what came before it counts all the same.
    let (mut session, _) = downloading(config(), &bytes);
    let beyond = [&headers[1..], &[DataHeader { offset: 1 << LOG2, ..last }]].concat();
    let more = [chunk, &chunk[..FRAME]].concat();
    let all = Run { followers: &beyond, ..run(&headers[0], 0, &more, true) };
    let error = session.handle_data(Time::ZERO, &all).unwrap_err();
    assert!(matches!(error, SessionError::Data(AssembleError::OutOfRange { .. })), "{error}");
    assert_eq!(verified(&mut session), [(0, chunk.to_vec())]);
}

#[test]
fn data_beyond_the_file_or_before_the_manifest_is_an_error() {
    let bytes = content((1 << LOG2) + 5);
    let (mut session, manifest) = downloading(config(), &bytes);
    let beyond =
        |chunk, offset, payload_len| DataHeader { chunk, offset, payload_len, tag: 0, checksum: 0 };
    for header in [beyond(2, 0, 1), beyond(1, 0, 6), beyond(0, 1 << LOG2, 1)] {
        let piece = vec![0; header.payload_len as usize];
        let error = session.handle_data(Time::ZERO, &run(&header, 0, &piece, true)).unwrap_err();
        assert!(matches!(error, SessionError::Data(AssembleError::OutOfRange { .. })), "{error}");
    }
    let (mut early, _) = join(config(), FileState::lacking(*manifest.key()));
    let error = early.handle_data(Time::ZERO, &run(&beyond(0, 0, 1), 0, &[0], true)).unwrap_err();
    assert!(matches!(error, SessionError::Unexpected { message: "data before the manifest", .. }));
}

#[test]
fn a_chunk_ends_with_its_last_frame_and_what_lies_outside_ends_none() {
    let bytes = content((1 << LOG2) + 5);
    let (session, _) = downloading(config(), &bytes);
    for chunk in 0..2 {
        let frames = frames(&bytes, chunk, 0);
        let ends: Vec<bool> = frames.iter().map(|(header, _)| session.ends_chunk(header)).collect();
        let last = frames.len() - 1;
        assert!(ends.iter().enumerate().all(|(at, &ends)| ends == (at == last)), "{ends:?}");
    }
    let outside = |chunk, offset, payload_len| {
        session.ends_chunk(&DataHeader { chunk, offset, payload_len, tag: 0, checksum: 0 })
    };
    assert!(!outside(2, 0, 5) && !outside(1, 0, 6) && !outside(0, u32::MAX, u32::MAX));
}
