//! A relay that is played by hand, message by message, for tests of the peer's session. It contains
//! no test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use relay::{
    client::{ChunkOrder, FileState, Session, SessionConfig, SessionError, SessionEvent},
    protocol::{
        Accepted, DataHeader, Manifest, Message, Run, TokenDemand, Welcome, frame_crc,
        limits::{CHUNK_SIZE_LOG2_MAX, FRAME_PAYLOAD_BYTES_MAX},
    },
    time::Time,
};

/// 64 KiB: four frames a chunk.
pub(crate) const LOG2: u8 = 16;
pub(crate) const FRAME: usize = FRAME_PAYLOAD_BYTES_MAX;

pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

pub(crate) fn manifest_of(bytes: &[u8]) -> Arc<Manifest> {
    Arc::new(Manifest::of(bytes, LOG2).unwrap())
}

pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        order: ChunkOrder::Relay,
        seeding: None,
        token: None,
        intake_bytes_per_second: None,
        upload_bytes_per_second: None,
        keeps_bytes: true,
        is_manifest_only: false,
    }
}

pub(crate) fn welcome() -> Message {
    let chunk_size_log2_max = CHUNK_SIZE_LOG2_MAX;
    Message::Welcome(Welcome { token_demand: TokenDemand::None, chunk_size_log2_max })
}

pub(crate) fn accepted() -> Message {
    Message::Accepted(Accepted { connection: 1 })
}

pub(crate) fn said(session: &mut Session) -> Vec<Message> {
    std::iter::from_fn(|| session.poll_transmit(Time::ZERO)).collect()
}

pub(crate) fn events(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

pub(crate) fn join(config: SessionConfig, file: FileState) -> (Session, Vec<Message>) {
    let mut session = Session::new(config, file, Time::ZERO);
    session.handle_preamble().unwrap();
    session.handle_message(Time::ZERO, welcome()).unwrap();
    let introduction = said(&mut session);
    session.handle_message(Time::ZERO, accepted()).unwrap();
    (session, introduction)
}

/// Joined, with the manifest, and with everything still to say but that it asked for that.
pub(crate) fn downloading(config: SessionConfig, bytes: &[u8]) -> (Session, Arc<Manifest>) {
    let manifest = manifest_of(bytes);
    let (mut session, _) = join(config, FileState::lacking(*manifest.key()));
    assert_eq!(session.poll_transmit(Time::ZERO), Some(Message::ManifestRequest));
    for part in manifest.parts(0) {
        session.handle_message(Time::ZERO, part).unwrap();
    }
    assert!(events(&mut session).contains(&SessionEvent::ManifestVerified));
    (session, manifest)
}

/// Frames of a chunk from `offset` on, as a relay sends them.
pub(crate) fn frames(bytes: &[u8], chunk: u32, from: usize) -> Vec<(DataHeader, Vec<u8>)> {
    let start = (chunk as usize) << LOG2;
    let chunk_bytes = &bytes[start..bytes.len().min(start + (1 << LOG2))];
    let frame = |(index, payload): (usize, &[u8])| {
        let header = DataHeader {
            chunk,
            offset: u32::try_from(index * FRAME).unwrap(),
            payload_len: u32::try_from(payload.len()).unwrap(),
            tag: 0,
            checksum: frame_crc(payload),
        };
        (header, payload.to_vec())
    };
    let all = chunk_bytes.chunks(FRAME).enumerate().map(frame);
    all.filter(|(header, _)| header.offset as usize >= from).collect()
}

/// A piece of one frame.
pub(crate) fn run<'a>(
    header: &DataHeader,
    frame_offset: u32,
    bytes: &'a [u8],
    is_last: bool,
) -> Run<'a> {
    Run { header: *header, frame_offset, followers: &[], bytes, is_last }
}

/// Delivers frames in pieces of two.
pub(crate) fn deliver(
    session: &mut Session,
    frames: &[(DataHeader, Vec<u8>)],
) -> Result<(), SessionError> {
    for (header, payload) in frames {
        let (first, second) = payload.split_at(payload.len() / 2);
        let at = u32::try_from(first.len()).unwrap();
        if !first.is_empty() {
            session.handle_data(Time::ZERO, &run(header, 0, first, false))?;
        }
        session.handle_data(Time::ZERO, &run(header, at, second, true))?;
    }
    session.handle_turn_end(Time::ZERO, true);
    Ok(())
}

pub(crate) fn verified(session: &mut Session) -> Vec<(u32, Vec<u8>)> {
    let chunks: Vec<_> = events(session)
        .into_iter()
        .filter_map(|event| match event {
            SessionEvent::Verified { chunk, bytes, .. } => Some((chunk, bytes.unwrap().to_vec())),
            _ => None,
        })
        .collect();
    chunks.iter().for_each(|&(chunk, _)| session.handle_kept(chunk));
    chunks
}
