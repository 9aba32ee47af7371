//! The relay's session: a peer that says anything at any time, and a home shard that goes on asking
//! meanwhile. A chunk that the session passes on is right, memory stays leased within the budget.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use shards::{Budget, ShardId, Shards, Waiter};

use crate::{
    message::FetchOrder,
    one_shard,
    session::{
        Effect, NEWS_ITEMS_MAX, Session, SessionConfig, admission::TokenRules, window::Window,
    },
};
use relay_protocol::{
    DataHeader, Grant, Manifest, UploadKey, encode_preamble,
    limits::{BINDING_BYTES, FETCHES_PER_PEER_MAX, FRAME_PAYLOAD_BYTES_MAX},
    time::Time,
};
use relay_swarm::FetchId;
use relay_transport::{
    Heard,
    exercise::{Ear, Script},
};

const CHUNK_SIZE_LOG2: u8 = 15;
const CHUNK_COUNT: u32 = 5;
const CACHE_BYTES: usize = 4 << CHUNK_SIZE_LOG2;

/// News that one message can add.
const NEWS_PER_MESSAGE_MAX: usize = 100;

/// What the file holds: all chunks are different.
fn content() -> Vec<u8> {
    (0..CHUNK_COUNT << CHUNK_SIZE_LOG2).map(|at| (at >> 13).to_le_bytes()[0]).collect()
}

/// The file, and a shard whose budget leases; they are made once.
fn stage() -> &'static (Arc<Manifest>, Vec<u8>, Shards) {
    static STAGE: OnceLock<(Arc<Manifest>, Vec<u8>, Shards)> = OnceLock::new();
    STAGE.get_or_init(|| {
        let bytes = content();
        let manifest = Manifest::of(&bytes, CHUNK_SIZE_LOG2).expect("a small file");
        (Arc::new(manifest), bytes, one_shard::idle())
    })
}

struct Run {
    session: Session,
    ear: Ear,
    budget: Budget,
    waiter: Waiter,
    now: Time,
    next_fetch: u32,
    /// Asked for and not answered: (id, chunk).
    open: Vec<(u32, u32)>,
    news: usize,
}

/// What the peer's checksums are made by.
fn key() -> UploadKey {
    UploadKey::new([0; _])
}

/// First byte: whether a token is asked for. Then steps.
pub fn server_session(script: &[u8]) {
    let mut script = Script(script);
    let (_, _, shards) = stage();
    let tokens = match script.byte() % 8 {
        0 => vec![Grant::from_line("secret").expect("a token")],
        _ => Vec::new(),
    };
    let admission = TokenRules { tokens, open_get: false };
    let config = SessionConfig {
        admission,
        chunk_size_log2_max: 24,
        chunk_size_log2_limit: 24,
        relay_id: 7,
    };
    let budget = Budget::new(CACHE_BYTES, 1);
    let waiter = budget.waiter(shards.ringer(ShardId(0))).expect("a place");
    let mut run = Run {
        session: Session::new(Arc::new(config), Window::new(1 << 18)),
        ear: Ear::default(),
        budget,
        waiter,
        now: Time::ZERO + Duration::from_secs(1),
        next_fetch: 1,
        open: Vec::new(),
        news: 0,
    };
    run.session.handle_secured([0; BINDING_BYTES], key());
    if run.hear(&encode_preamble()) {
        while !script.is_over() && run.step(&mut script) {
            run.check();
        }
    }
    run.session.handle_closing();
    drop(run.session);
    assert_eq!(run.budget.in_use_bytes(), 0, "what it leased came back");
}

impl Run {
    /// The peer says something; false if that ends the connection.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let (now, session) = (self.now, &mut self.session);
        let goes_on = self.ear.hear(bytes, &mut |event| match event {
            Heard::Preamble { version } => session.handle_preamble(version),
            Heard::Message(message) => session.handle_control(now, message),
            Heard::Secured => Ok(()),
            Heard::Data(run) => session.handle_data(&run),
        });
        self.drain();
        goes_on
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
            6 => self.session.handle_joined_swarm(self.now, 1, Some(Arc::clone(&stage().0))),
            7 => self.session.handle_joined_swarm(self.now, 1, None),
            8 => self.ask(u32::from(script.byte()) % CHUNK_COUNT),
            9 | 10 => return self.answer(script),
            11 => {
                let fetch_id = FetchId(script.number() % (self.next_fetch + 1));
                drop(self.session.handle_cancel(fetch_id));
                self.open.retain(|&(id, _)| id != fetch_id.0);
            }
            12 => self.session.handle_fetch_manifest(),
            13 => self.session.handle_manifest_known(Some(Arc::clone(&stage().0))),
            14 => {
                let room = self.session.window().room_bytes();
                let bytes = script.count().min(room);
                self.session.window_mut().handle_sent(self.now, bytes, false);
            }
            _ => {
                self.now = self.now + Duration::from_millis(script.byte().into());
                self.session.window_mut().set_ceiling(script.count());
                while self.session.poll_manifest_part().is_some() {}
                drop(self.session.take_news(&mut u32::from(script.byte())));
                self.news = 0;
            }
        }
        self.drain();
        true
    }

    /// The home asks the peer for a chunk, as far as there is memory.
    fn ask(&mut self, chunk: u32) {
        if self.open.len() == FETCHES_PER_PEER_MAX {
            return;
        }
        let Some(lease) = self.waiter.try_lease(1 << CHUNK_SIZE_LOG2) else {
            self.waiter.cancel();
            return;
        };
        let (fetch_id, manifest) = (FetchId(self.next_fetch), Arc::clone(&stage().0));
        self.open.push((self.next_fetch, chunk));
        self.next_fetch += 1;
        self.session.handle_fetch(FetchOrder {
            fetch_id,
            chunk,
            manifest,
            lease,
            is_to_be_lent: false,
        });
    }

    /// The peer answers some fetch, rightly, wrongly, in part, or over a bad link.
    fn answer(&mut self, script: &mut Script<'_>) -> bool {
        if self.open.is_empty() {
            return true;
        }
        let how = script.byte();
        let (tag, chunk) = self.open.swap_remove(usize::from(how >> 4) % self.open.len());
        let start = (chunk as usize) << CHUNK_SIZE_LOG2;
        let mut bytes = stage().1[start..start + (1 << CHUNK_SIZE_LOG2)].to_vec();
        if how & 3 == 1 {
            bytes[usize::from(script.byte())] ^= 1;
        }
        let key = key();
        let mut stream = Vec::new();
        for (index, payload) in (0u32..).zip(bytes.chunks(FRAME_PAYLOAD_BYTES_MAX)) {
            let payload_len = u32::try_from(payload.len()).expect("a frame is short");
            let offset = index * (1 << 14);
            let checksum = key.checksum(tag, offset, payload) ^ u32::from(how & 3 == 2);
            let header = DataHeader { chunk, offset, payload_len, tag, checksum };
            stream.extend_from_slice(&header.encode());
            stream.extend_from_slice(payload);
        }
        if how & 3 == 3 {
            stream.truncate(usize::from(script.byte()) << 7);
        }
        self.hear(&stream)
    }

    /// Carries out what the session wants, as a shell would.
    fn drain(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            if let Effect::Fetched(fetch_id, result) = effect {
                self.open.retain(|&(id, _)| id != fetch_id.0);
                if let Ok(chunk) = result {
                    let content = &stage().1;
                    let place = content.chunks(1 << CHUNK_SIZE_LOG2);
                    assert!(
                        place.into_iter().any(|right| *right == *chunk.buffer),
                        "a wrong chunk"
                    );
                }
            }
        }
    }

    fn check(&mut self) {
        let window = self.session.window();
        assert!(window.allowance_bytes() >= window.received_bytes() || window.room_bytes() == 0);
        assert!(self.budget.in_use_bytes() <= CACHE_BYTES);
        if self.session.is_news_full() {
            // The shell stops reading until the home has taken it.
            let news = self.session.take_news(&mut { u32::MAX }).len();
            assert!(news <= NEWS_ITEMS_MAX + 64 * NEWS_PER_MESSAGE_MAX, "{news} items");
        }
    }
}
