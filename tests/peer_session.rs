//! The peer's session against a relay that is played by hand: no sockets, no clock.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "peer_session_suite/data.rs"]
mod data;
mod peer_support;

use std::{sync::Arc, time::Duration};

use peer_support::{
    FRAME, LOG2, accepted, config, content, deliver, downloading, events, frames, join,
    manifest_of, said, welcome,
};
use relay::{
    client::{
        ChunkOrder, FileState, Session, SessionConfig, SessionError, SessionEvent, Upload,
        session::Stage,
    },
    protocol::{
        Bitfield, ChunkRange, Claims, Digest, Failure, FailureCode, Hello, Message, Order, Seeding,
        Stats, SwarmKey, SwarmStatus, Token, TokenDemand, Welcome,
        limits::{CHUNK_SIZE_LOG2_MAX, FETCHES_PER_PEER_MAX, HANDSHAKE_TIMEOUT},
    },
    time::Time,
};

#[test]
fn a_peer_introduces_itself_with_what_it_has() {
    let manifest = manifest_of(&content(5 << LOG2));
    let key = *manifest.key();
    let mut some = FileState::lacking(key);
    some.add(3);
    for (file, claims) in [
        (FileState::lacking(key), Claims::Nothing),
        (FileState::whole(Arc::clone(&manifest)), Claims::Everything),
        (some, Claims::Some),
    ] {
        let seeding = Some(Seeding::Spread { peers: 4 });
        let (_, said) = join(SessionConfig { seeding, ..config() }, file.clone());
        let hello = Hello { key: Some(key), proof: None, claims, order: Order::Relay, seeding };
        assert_eq!(said[0], Message::Hello(hello));
        let parts: Vec<u8> = said[1..]
            .iter()
            .flat_map(|message| match message {
                Message::BitfieldPart { bytes, .. } => bytes.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        if claims == Claims::Some {
            assert_eq!(Bitfield::from_bytes(&parts, 5).as_ref(), Some(file.have()));
        } else {
            assert!(parts.is_empty());
        }
    }
}

#[test]
fn a_long_bitfield_travels_in_parts_that_follow_each_other() {
    let key = SwarmKey { id: Digest([7; 32]), size_bytes: 100_000 << LOG2, chunk_size_log2: LOG2 };
    let mut file = FileState::lacking(key);
    (0..100_000).step_by(3).for_each(|chunk| {
        file.add(chunk);
    });
    let (_, said) = join(config(), file.clone());
    let mut bytes = Vec::new();
    for message in &said[1..] {
        let Message::BitfieldPart { offset_bytes, bytes: part } = message else { panic!() };
        assert_eq!(*offset_bytes as usize, bytes.len());
        bytes.extend_from_slice(part);
    }
    assert_eq!(Bitfield::from_bytes(&bytes, 100_000).as_ref(), Some(file.have()));
}

#[test]
fn a_token_is_proven_where_it_is_wanted_and_missed_before_anything_is_said() {
    let token = Token::from_line("secret").unwrap();
    let file = FileState::lacking(*manifest_of(&content(10)).key());
    let start = |token_demand, token, seeding| {
        let config = SessionConfig { token, seeding, ..config() };
        let mut session = Session::new(config, file.clone(), Time::ZERO);
        assert_eq!(said(&mut session), []);
        session.handle_preamble().unwrap();
        session.handle_secured([7; _]);
        let welcome = Welcome { token_demand, chunk_size_log2_max: CHUNK_SIZE_LOG2_MAX };
        let result = session.handle_message(Time::ZERO, Message::Welcome(welcome));
        (result, said(&mut session))
    };
    for seeding in [None, Some(Seeding::Origin)] {
        for demand in [TokenDemand::None, TokenDemand::ToPublish, TokenDemand::Always] {
            let (result, said) = start(demand, Some(token.clone()), seeding);
            result.unwrap();
            let Message::Hello(hello) = &said[0] else { panic!() };
            assert_eq!(hello.proof.is_some(), demand != TokenDemand::None);
            assert!(hello.proof.is_none_or(|proof| token.verify(&[7; _], &proof)));
            let (result, said) = start(demand, None, seeding);
            let is_missed = match demand {
                TokenDemand::None => false,
                TokenDemand::ToPublish => seeding.is_some(),
                TokenDemand::Always => true,
            };
            assert_eq!(matches!(result, Err(SessionError::TokenWanted)), is_missed, "{demand:?}");
            assert_eq!((result.is_ok(), said.is_empty()), (!is_missed, is_missed));
        }
    }
}

#[test]
fn a_peer_says_nothing_before_it_is_greeted_and_hello_once() {
    let file = FileState::lacking(*manifest_of(&content(10)).key());
    let mut session = Session::new(config(), file, Time::ZERO);
    assert_eq!(said(&mut session), []);
    session.handle_preamble().unwrap();
    assert_eq!(said(&mut session), []);
    session.handle_message(Time::ZERO, welcome()).unwrap();
    assert!(matches!(said(&mut session)[..], [Message::Hello(_)]));
    assert_eq!(said(&mut session), []);
}

#[test]
fn the_manifest_is_asked_for_and_data_granted_in_one_breath_by_the_length_of_the_path() {
    let file = FileState::lacking(*manifest_of(&content(10)).key());
    let granted = |config: SessionConfig, round_trip_ms| {
        let mut session = Session::new(config, file.clone(), Time::ZERO);
        session.handle_preamble().unwrap();
        session.handle_message(Time::ZERO, welcome()).unwrap();
        said(&mut session);
        let now = Time::ZERO + Duration::from_millis(round_trip_ms);
        session.handle_message(now, accepted()).unwrap();
        match said(&mut session)[..] {
            [Message::ManifestRequest, Message::Progress { granted_bytes, .. }] => granted_bytes,
            [Message::ManifestRequest] => 0,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(granted(config(), 1), 4 << 20);
    assert_eq!(granted(config(), 300), 64 << 20);
    let only = SessionConfig { is_manifest_only: true, ..config() };
    assert_eq!(granted(only, 300), 0, "whoever wants nothing else grants nothing");
}

#[test]
fn chunks_too_large_for_the_relay_are_refused_with_advice() {
    let file = FileState::lacking(*manifest_of(&content(10)).key());
    let mut session = Session::new(config(), file, Time::ZERO);
    session.handle_preamble().unwrap();
    let small = Message::Welcome(Welcome {
        token_demand: TokenDemand::None,
        chunk_size_log2_max: LOG2 - 2,
    });
    let error = session.handle_message(Time::ZERO, small).unwrap_err();
    assert!(error.to_string().contains("--cache"), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn an_empty_file_is_complete_on_joining() {
    let manifest = manifest_of(&[]);
    let (mut session, _) = join(config(), FileState::lacking(*manifest.key()));
    assert_eq!(
        events(&mut session),
        [SessionEvent::Accepted { round_trip: Duration::ZERO }, SessionEvent::Complete]
    );
    assert_eq!(said(&mut session), []);
}

#[test]
fn a_wrong_manifest_is_refused() {
    let bytes = content(3 << LOG2);
    let key = *manifest_of(&bytes).key();
    let mut other = bytes.clone();
    other[0] ^= 1;
    let (mut session, _) = join(config(), FileState::lacking(key));
    let part = manifest_of(&other).part(0).unwrap();
    let error = session.handle_message(Time::ZERO, part).unwrap_err();
    assert!(matches!(error, SessionError::Manifest(_)), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn fetches_are_answered_refused_or_called_off() {
    let manifest = manifest_of(&content(3 << LOG2));
    let mut file = FileState::lacking(*manifest.key());
    file.set_manifest(Arc::clone(&manifest));
    file.add(1);
    let (mut session, _) = join(config(), file);
    said(&mut session);
    let fetch = |fetch_id, chunk| Message::Fetch { fetch_id, chunk };
    session.handle_message(Time::ZERO, fetch(1, 0)).unwrap();
    assert_eq!(said(&mut session), [Message::FetchRefused { fetch_id: 1 }], "it lacks that chunk");
    for fetch_id in 2..6 {
        session.handle_message(Time::ZERO, fetch(fetch_id, 1)).unwrap();
    }
    assert_eq!(session.poll_upload(), Some(Upload { fetch_id: 2, chunk: 1 }));
    assert_eq!(session.poll_upload(), Some(Upload { fetch_id: 3, chunk: 1 }));
    assert_eq!(session.poll_upload(), None, "two lie in the send queue");
    events(&mut session);
    session.handle_message(Time::ZERO, Message::CancelFetch { fetch_id: 4 }).unwrap();
    assert_eq!(events(&mut session), [], "it was not in the send queue yet");
    session.handle_message(Time::ZERO, Message::CancelFetch { fetch_id: 2 }).unwrap();
    assert_eq!(events(&mut session), [SessionEvent::CancelUpload { fetch_id: 2 }]);
    assert_eq!(session.poll_upload(), Some(Upload { fetch_id: 5, chunk: 1 }));
    assert_eq!(session.handle_uploaded(3), Some(1));
    session.handle_upload_failed(5);
    assert_eq!(said(&mut session), [Message::FetchRefused { fetch_id: 5 }]);
    let beyond = session.handle_message(Time::ZERO, fetch(9, 3)).unwrap_err();
    assert!(matches!(beyond, SessionError::Fetch(_)));
    // Some more than the relay may have outstanding: a fetch can overtake a cancellation.
    let flood = (100..).take(4 * FETCHES_PER_PEER_MAX + 1);
    let result =
        flood.map(|id| session.handle_message(Time::ZERO, fetch(id, 1))).find(Result::is_err);
    assert!(matches!(result, Some(Err(SessionError::Fetch(_)))));
}

#[test]
fn a_manifest_is_passed_on_in_parts_or_refused() {
    let manifest = manifest_of(&content(100 << LOG2));
    let (mut whole, _) = join(config(), FileState::whole(Arc::clone(&manifest)));
    whole.handle_message(Time::ZERO, Message::ManifestRequest).unwrap();
    assert_eq!(said(&mut whole), manifest.parts(0).collect::<Vec<_>>());
    let (mut lacking, _) = join(config(), FileState::lacking(*manifest.key()));
    said(&mut lacking);
    lacking.handle_message(Time::ZERO, Message::ManifestRequest).unwrap();
    assert_eq!(said(&mut lacking), [Message::ManifestRefused]);
}

#[test]
fn in_peer_order_chunks_are_wanted_in_order_and_again_when_lost() {
    let bytes = content(6 << LOG2);
    let order = ChunkOrder::Sequential;
    let (mut session, _) = downloading(SessionConfig { order, ..config() }, &bytes);
    let messages = said(&mut session);
    assert!(messages.contains(&Message::Want { chunks: (0..6).collect() }), "{messages:?}");
    deliver(&mut session, &frames(&bytes, 4, FRAME)).unwrap();
    let messages = said(&mut session);
    assert!(messages.contains(&Message::Lacking { chunk: 4 }));
    assert!(messages.contains(&Message::Want { chunks: vec![4] }), "{messages:?}");
}

#[test]
fn leave_is_asked_for_once_and_not_before_joining() {
    let manifest = manifest_of(&content(10));
    let mut session = Session::new(config(), FileState::whole(manifest), Time::ZERO);
    session.handle_leave();
    session.handle_preamble().unwrap();
    assert_eq!(said(&mut session), []);
    session.handle_message(Time::ZERO, welcome()).unwrap();
    assert!(matches!(said(&mut session)[..], [Message::Hello(_)]));
    session.handle_message(Time::ZERO, accepted()).unwrap();
    session.handle_leave();
    assert_eq!(said(&mut session), [Message::Leaving]);
    session.handle_message(Time::ZERO, Message::LeaveGranted).unwrap();
    assert!(events(&mut session).contains(&SessionEvent::LeaveGranted));
}

#[test]
fn a_relay_that_ends_at_the_label_is_told_from_one_that_ends_later() {
    let label = Message::Label { text: "x".into() };
    let joined = || {
        let file = FileState::whole(manifest_of(&content(10)));
        let session = Session::new(config(), file, Time::ZERO);
        let mut session = session.with_label(Some("x".into()));
        session.handle_preamble().unwrap();
        session.handle_message(Time::ZERO, welcome()).unwrap();
        assert!(matches!(said(&mut session)[..], [Message::Hello(_)]));
        session.handle_message(Time::ZERO, accepted()).unwrap();
        session.handle_status_wanted();
        assert_eq!(said(&mut session), [label.clone(), Message::SwarmStatusRequest]);
        session
    };
    let ends = |mut session: Session, code| {
        let failure = Message::Failure(Failure { code, text: "so".into() });
        session.handle_message(Time::ZERO, failure).unwrap_err()
    };
    let error = ends(joined(), FailureCode::Protocol);
    assert!(matches!(error, SessionError::LabelRefused(_)), "{error}");
    assert!(!error.is_transient() && error.to_string().contains("without --label"), "{error}");
    assert!(matches!(ends(joined(), FailureCode::ShuttingDown), SessionError::Relay(_)));
    let mut session = joined();
    session.handle_message(Time::ZERO, Message::SwarmStatus(SwarmStatus::default())).unwrap();
    assert!(matches!(ends(session, FailureCode::Protocol), SessionError::Relay(_)));
}

#[test]
fn a_relay_that_says_nothing_is_given_up() {
    let file = FileState::lacking(*manifest_of(&content(10)).key());
    let mut session = Session::new(config(), file, Time::ZERO);
    let due = session.poll_timeout().unwrap();
    assert_eq!(due, Time::ZERO + HANDSHAKE_TIMEOUT);
    session.handle_timeout(Time::ZERO + Duration::from_secs(1)).unwrap();
    let error = session.handle_timeout(due).unwrap_err();
    assert!(error.is_transient());
}

/// One of each; what they carry doesn't matter.
fn every_message() -> Vec<Message> {
    let failure = Failure { code: FailureCode::Internal, text: "so".into() };
    let hello = Hello {
        key: None,
        proof: None,
        claims: Claims::Nothing,
        order: Order::Relay,
        seeding: None,
    };
    vec![
        welcome(),
        Message::Hello(hello),
        Message::BitfieldPart { offset_bytes: 0, bytes: vec![1] },
        accepted(),
        Message::ManifestRequest,
        Message::ManifestPart { first_chunk: 0, digests: vec![Digest([0; 32])] },
        Message::ManifestRefused,
        Message::Progress { received_bytes: 1, granted_bytes: 1 },
        Message::Have { ranges: vec![ChunkRange { first: 0, count: 1 }] },
        Message::Want { chunks: vec![0] },
        Message::Lacking { chunk: 0 },
        Message::Fetch { fetch_id: 1, chunk: 0 },
        Message::CancelFetch { fetch_id: 1 },
        Message::FetchRefused { fetch_id: 1 },
        Message::Waiting { missing_count: 1, first_missing: 0, deadline_ms: 1 },
        Message::SeedingDone,
        Message::Leaving,
        Message::LeaveGranted,
        Message::StatsRequest,
        Message::Stats(Box::<Stats>::default()),
        Message::Ping { token: 1 },
        Message::Pong { token: 1 },
        Message::Failure(failure),
        Message::SwarmStatusRequest,
        Message::SwarmStatus(SwarmStatus::default()),
        Message::Label { text: "x".into() },
        Message::Uplink { below: vec![1] },
        Message::Available { ranges: Vec::new(), held: true },
        Message::Lost { ranges: Vec::new() },
    ]
}

fn at_stage(stage: Stage, bytes: &[u8]) -> Session {
    let file = FileState::lacking(*manifest_of(bytes).key());
    let mut session = Session::new(config(), file, Time::ZERO);
    if stage > Stage::Greeting {
        session.handle_preamble().unwrap();
    }
    if stage > Stage::Challenged {
        session.handle_message(Time::ZERO, welcome()).unwrap();
    }
    if stage > Stage::Introduced {
        session.handle_message(Time::ZERO, accepted()).unwrap();
    }
    session
}

#[test]
fn every_message_in_every_state_is_taken_or_refused_and_never_a_panic() {
    let bytes = content(2 << LOG2);
    let from_relay_when_joined = [4, 5, 11, 12, 14, 15, 17, 19, 20, 21, 24];
    for stage in [Stage::Greeting, Stage::Challenged, Stage::Introduced, Stage::Joined] {
        for (index, message) in every_message().into_iter().enumerate() {
            let mut session = at_stage(stage, &bytes);
            let expected = match stage {
                Stage::Greeting => false,
                Stage::Challenged => index == 0,
                Stage::Introduced => index == 3 || index == 20,
                Stage::Joined => from_relay_when_joined.contains(&index),
            };
            let result = session.handle_message(Time::ZERO, message.clone());
            match &result {
                Ok(()) => assert!(expected, "{stage:?} took {message:?}"),
                Err(SessionError::Relay(_)) => assert!(matches!(message, Message::Failure(_))),
                Err(SessionError::Unexpected { .. }) => {
                    assert!(!expected, "{stage:?} refused {message:?}");
                }
                Err(other) => panic!("{stage:?} {message:?}: {other}"),
            }
            session.handle_turn_end(Time::ZERO, true);
            said(&mut session);
            events(&mut session);
        }
    }
}
