//! The peer's session: a relay that says anything at any time. What the session calls verified is
//! the file's; what it grants only grows.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use crate::{ChunkOrder, FileState, Session, SessionConfig, SessionEvent};
use relay_protocol::{
    Bitfield, DataHeader, DataPieceHeader, Manifest, Message, Seeding, encode_control,
    encode_message, encode_preamble, frame_crc,
    limits::{CONTROL_BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX},
    time::Time,
};
use relay_transport::{
    Heard,
    exercise::{Ear, Script},
};

const CHUNK_SIZE_LOG2: u8 = 15;
const CHUNK_COUNT: u32 = 5;

struct Run {
    session: Session,
    ear: Ear,
    manifest: Arc<Manifest>,
    content: Vec<u8>,
    now: Time,
    granted: u64,
    manifest_sent: u32,
    is_uplink: bool,
}

/// First byte: how the peer begins. Then steps.
pub fn peer_session(script: &[u8]) {
    let mut script = Script(script);
    let how = script.byte();
    let content: Vec<u8> =
        (0..CHUNK_COUNT << CHUNK_SIZE_LOG2).map(|at| (at >> 13).to_le_bytes()[0]).collect();
    let manifest = Arc::new(Manifest::of(&content, CHUNK_SIZE_LOG2).expect("a small file"));
    let file = match how % 4 {
        0 => FileState::whole(Arc::clone(&manifest)),
        1 => {
            let mut some = FileState::lacking(*manifest.key());
            some.add(2);
            some
        }
        _ => FileState::lacking(*manifest.key()),
    };
    // An end of an uplink is none of those that the other bits tell apart.
    let is_uplink = how & 192 == 128;
    let config = SessionConfig {
        order: match (how & 4 == 0, is_uplink) {
            (_, true) => ChunkOrder::Named,
            (true, false) => ChunkOrder::Relay,
            (false, false) => ChunkOrder::Sequential,
        },
        seeding: (how & 8 == 0 && !is_uplink).then_some(Seeding::Origin),
        token: None,
        intake_bytes_per_second: NonZeroU64::new(u64::from(how & 16) << 12),
        upload_bytes_per_second: None,
        keeps_bytes: how & 32 == 0,
        is_manifest_only: false,
    };
    let now = Time::ZERO + Duration::from_secs(1);
    let mut run = Run {
        session: Session::new(config, file, now)
            .with_label((how & 64 != 0).then(|| "x".into()))
            .with_uplink(is_uplink.then(|| vec![7])),
        ear: Ear::default(),
        manifest,
        content,
        now,
        granted: 0,
        manifest_sent: 0,
        is_uplink,
    };
    if run.hear(&encode_preamble()) {
        while !script.is_over() && run.step(&mut script) {}
    }
}

impl Run {
    /// The relay says something; false if that ends the connection.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let (now, session) = (self.now, &mut self.session);
        let goes_on = self.ear.hear(bytes, &mut |event| match event {
            Heard::Preamble { .. } => session.handle_preamble(),
            Heard::Message(message) => session.handle_message(now, message),
            Heard::Secured => Ok(()),
            Heard::Data(run) => session.handle_data(now, &run),
        });
        self.take_events();
        goes_on
    }

    fn say(&mut self, message: &Message) -> bool {
        let (mut said, mut frame) = (Vec::new(), Vec::new());
        encode_message(message, &mut said);
        encode_control(&said, &mut frame);
        self.hear(&frame)
    }

    fn step(&mut self, script: &mut Script<'_>) -> bool {
        match script.byte() % 16 {
            0..5 => {
                let frame = script.control();
                return self.hear(&frame);
            }
            5 => {
                let count = usize::from(script.byte());
                return self.hear(script.bytes(count));
            }
            6 => {
                let part = self.manifest.part(self.manifest_sent);
                self.manifest_sent = CHUNK_COUNT;
                return part.is_none_or(|part| self.say(&part));
            }
            7..10 => return self.deliver(script),
            10 => return self.deliver_sealed(script),
            11 => {
                let (fetch_id, chunk) = (script.number(), script.number() % CHUNK_COUNT);
                return self.say(&Message::Fetch { fetch_id, chunk });
            }
            12 if self.is_uplink => self.cross(script),
            12 => self.session.handle_leave(),
            13 => {
                if let Some(upload) = self.session.poll_upload() {
                    if script.byte().is_multiple_of(4) {
                        self.session.handle_upload_failed(upload.fetch_id);
                    } else {
                        self.session.handle_uploaded(upload.fetch_id);
                    }
                }
            }
            14 => {
                self.now = self.now + Duration::from_millis(script.byte().into());
                return self.session.handle_timeout(self.now).is_ok();
            }
            _ => {
                self.session.handle_turn_end(self.now, script.byte().is_multiple_of(2));
                self.transmit();
            }
        }
        self.take_events();
        true
    }

    /// The other end of the uplink wants something of this one.
    fn cross(&mut self, script: &mut Script<'_>) {
        let (how, chunk) = (script.byte(), u32::from(script.byte()) % CHUNK_COUNT);
        match how % 5 {
            0 => self.session.handle_named(chunk),
            1 => self.session.handle_forgotten(chunk),
            2 => self.session.handle_below(&[7, u64::from(how)]),
            3 => self.session.handle_manifest(&self.manifest),
            _ => {
                let mut claims = Bitfield::empty(CHUNK_COUNT);
                let claimed = (0..CHUNK_COUNT).filter(|chunk| how >> (3 + chunk % 5) & 1 == 1);
                for chunk in claimed {
                    claims.insert(chunk);
                }
                self.session.handle_claims(&claims);
            }
        }
        self.session.handle_said(self.now);
    }

    /// Some frames of some chunk, right or not.
    fn deliver(&mut self, script: &mut Script<'_>) -> bool {
        let (how, place) = (script.byte(), script.byte());
        let chunk = u32::from(place >> 4) % CHUNK_COUNT;
        let frames = (1u32 << CHUNK_SIZE_LOG2) / (1 << 14);
        let (first, count) = (u32::from(place & 3) % frames, u32::from(how >> 4) % frames + 1);
        let mut stream = Vec::new();
        for index in (first..frames).take(count as usize) {
            let offset = index << 14;
            let start = (chunk as usize) << CHUNK_SIZE_LOG2 | offset as usize;
            let mut payload = self.content[start..start + FRAME_PAYLOAD_BYTES_MAX].to_vec();
            if how & 7 == 1 {
                payload[usize::from(place)] ^= 1;
            }
            let crc = frame_crc(&payload) ^ u32::from(how & 7 == 2);
            let payload_len = u32::try_from(payload.len()).expect("a frame is short");
            let header = DataHeader { chunk, offset, payload_len, tag: 0, checksum: crc };
            stream.extend_from_slice(&header.encode());
            stream.extend_from_slice(&payload);
        }
        self.hear(&stream)
    }

    /// Some piece of some chunk, right or not, as in a datagram.
    fn deliver_sealed(&mut self, script: &mut Script<'_>) -> bool {
        let (how, place) = (script.byte(), script.number());
        let chunk = u32::from(how >> 4) % (CHUNK_COUNT + 1);
        let (offset, len) = (place % (1 << CHUNK_SIZE_LOG2), place >> 16);
        let start = (chunk << CHUNK_SIZE_LOG2 | offset) as usize;
        let mut piece = vec![0; len as usize + 1];
        let right = self.content.get(start..).unwrap_or_default();
        let len = right.len().min(piece.len());
        piece[..len].copy_from_slice(&right[..len]);
        piece[0] ^= u8::from(how & 7 == 1);
        let header = DataPieceHeader { chunk, offset, tag: 0 };
        let goes_on = self.session.handle_piece(self.now, &header, &piece).is_ok();
        self.take_events();
        goes_on
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if let SessionEvent::Verified { chunk, bytes, .. } = event {
                let start = (chunk as usize) << CHUNK_SIZE_LOG2;
                let right = &self.content[start..start + (1 << CHUNK_SIZE_LOG2)];
                assert!(bytes.is_none_or(|bytes| *bytes == *right), "a wrong chunk was verified");
                self.session.handle_kept(chunk);
            }
        }
        self.session.file().invariants();
    }

    /// What the peer says keeps its limits, and it never takes a grant back.
    fn transmit(&mut self) {
        for _ in 0..1000 {
            let Some(message) = self.session.poll_transmit(self.now) else { return };
            if let Message::Progress { granted_bytes, received_bytes } = message {
                assert!(granted_bytes >= self.granted && granted_bytes >= received_bytes);
                self.granted = granted_bytes;
            }
            let mut frame = Vec::new();
            encode_message(&message, &mut frame);
            assert!(frame.len() <= CONTROL_BODY_BYTES_MAX + 2);
        }
        panic!("it never ends speaking");
    }
}
