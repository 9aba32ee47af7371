//! The relay's side of one connection: its protocol state. No sockets, no clock, no threads.
//!
//! Events and decisions go in (`handle_*`), effects come out ([`Session::poll_effect`]). What the
//! peer has to tell its swarm is collected as news, coalesced until it is taken. Architecture
//! invariant: before a hello was accepted nothing here grows beyond one bitfield.

pub(crate) mod admission;
mod effects;
mod fetching;
mod introduction;
mod manifest;
mod news;
pub(crate) mod window;

use std::sync::Arc;

pub(crate) use self::effects::{Effect, Fault};
#[cfg(feature = "exercise")]
pub(crate) use self::news::NEWS_ITEMS_MAX;
use self::{
    admission::TokenRules,
    effects::Effects,
    fetching::{Ended, Fetching},
    manifest::ManifestState,
    news::News,
    window::Window,
};
use crate::{
    message::{FetchOrder, NewsItem},
    observe::cells::Dropped,
};
use relay_protocol::{
    Accepted, Channel, ChunkRange, DataPieceHeader, Digest, FailureCode, Hello, Manifest, Message,
    Run, SwarmKey, UploadKey, Welcome,
    limits::{BINDING_BYTES, VERSION},
    time::Time,
};
use relay_swarm::{FetchFailure, FetchId};

/// How often a peer may claim a chunk, on average: once is what it takes, and claims are work. An end of an uplink
/// claims what others get and lose: it may as often again each second.
const CLAIMS_PER_CHUNK_MAX: u64 = 8;

#[derive(Debug)]
enum Phase {
    Preamble,
    Hello,
    Bitfield { hello: Box<Hello>, may_begin: bool, bytes: Vec<u8> },
    Joining(SwarmKey),
    Joined(SwarmKey),
    Observer,
}

/// What every session of a process shares.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    /// Which peers are taken.
    pub admission: TokenRules,
    /// Largest chunk that the cache is fit for.
    pub chunk_size_log2_max: u8,
    /// Of larger chunks the cache would hold fewer than four: they are refused.
    pub chunk_size_log2_limit: u8,
    /// Tells this relay apart from those that stand below it.
    pub relay_id: u64,
}

/// Protocol state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<SessionConfig>,
    /// What binds a token's proof to this connection; zeros before TLS has begun, when no proof can come.
    binding: [u8; BINDING_BYTES],
    phase: Phase,
    window: Window,
    /// When it was accepted; until it says something, which it does at once.
    accepted_at: Option<Time>,
    news: News,
    /// Chunks that the peer has claimed since it joined, repetitions included.
    claimed_chunks: u64,
    effects: Effects,
    fetching: Fetching,
    manifest: ManifestState,
    /// The channel that the peer wants in datagrams.
    datagrams: Option<Channel>,
    rights: Rights,
}

/// What the peer may do, beside being asked for chunks.
#[derive(Debug)]
struct Rights {
    labelling: Labelling,
    /// File bytes may be sent to it.
    may_get: bool,
    /// It is an end of an uplink, and stands for these relays.
    uplink: Option<Arc<[u64]>>,
    /// Since when it is in its swarm.
    joined_at: Time,
}

/// Whether the peer may say what the file is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Labelling {
    /// It publishes nothing.
    Forbidden,
    Possible,
    /// It has; it may say so again, to no effect.
    Done,
}

impl Session {
    /// Before the first byte.
    pub(crate) fn new(config: Arc<SessionConfig>, window: Window) -> Self {
        Self {
            config,
            binding: [0; BINDING_BYTES],
            phase: Phase::Preamble,
            window,
            accepted_at: None,
            news: News::default(),
            claimed_chunks: 0,
            effects: Effects::default(),
            fetching: Fetching::default(),
            manifest: ManifestState::default(),
            datagrams: None,
            rights: Rights {
                labelling: Labelling::Forbidden,
                may_get: false,
                uplink: None,
                joined_at: Time::ZERO,
            },
        }
    }

    /// What to do next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop()
    }

    /// TLS has begun: what binds a token's proof to it, and what the peer's checksums are made by.
    pub(crate) fn handle_secured(&mut self, binding: [u8; BINDING_BYTES], uploads: UploadKey) {
        self.binding = binding;
        self.fetching.set_key(uploads);
    }

    /// Whether the peer has introduced itself.
    pub(crate) fn is_introduced(&self) -> bool {
        matches!(self.phase, Phase::Joining(_) | Phase::Joined(_) | Phase::Observer)
    }

    /// The peer's window.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// The peer's window, to book what was sent.
    pub(crate) fn window_mut(&mut self) -> &mut Window {
        &mut self.window
    }

    /// File bytes that may be written now: what comes before the manifest the peer can't verify.
    pub(crate) fn room_bytes(&self) -> u64 {
        if self.has_manifest_part() { 0 } else { self.window.room_bytes() }
    }

    /// Bytes that came in vain since the last call.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        self.fetching.take_dropped()
    }

    /// Of them, those that no open fetch asked for.
    pub(crate) fn late_bytes(&self) -> u64 {
        self.fetching.late_bytes()
    }

    /// The peer's preamble was read.
    pub(crate) fn handle_preamble(&mut self, version: u16) -> Result<(), Fault> {
        if version != VERSION {
            return Err(Fault::new(
                FailureCode::Protocol,
                "version",
                format!("this relay speaks version {VERSION}, not {version}: use the same release"),
            ));
        }
        self.phase = Phase::Hello;
        self.send(Message::Welcome(Welcome {
            token_demand: self.config.admission.demand(),
            chunk_size_log2_max: self.config.chunk_size_log2_max,
        }));
        Ok(())
    }

    /// A control message was read.
    pub(crate) fn handle_control(&mut self, now: Time, message: Message) -> Result<(), Fault> {
        match message {
            Message::Ping { token } => self.send(Message::Pong { token }),
            Message::Pong { .. } => {}
            Message::Failure(failure) => {
                if failure.code == FailureCode::Internal {
                    self.tell(NewsItem::GaveUp);
                }
                return Err(Fault::of_peer(&failure));
            }
            Message::DatagramRequest { channel } => return self.handle_datagram_request(channel),
            Message::Uplink { below } => return self.handle_uplink(below),
            Message::Hello(hello) => return self.handle_hello(hello),
            Message::BitfieldPart { offset_bytes, bytes } => {
                return self.handle_bitfield_part(offset_bytes, &bytes);
            }
            Message::StatsRequest if self.is_introduced() => self.effects.push_stats(),
            other => {
                let Phase::Joined(key) = self.phase else {
                    return Err(Fault::protocol("a message of a swarm before it was joined"));
                };
                return self.handle_joined(now, key, other);
            }
        }
        Ok(())
    }

    fn handle_datagram_request(&mut self, channel: Channel) -> Result<(), Fault> {
        if !matches!(self.phase, Phase::Hello) || self.datagrams.is_some() {
            return Err(Fault::protocol("a request for datagrams out of place"));
        }
        self.datagrams = Some(channel);
        Ok(())
    }

    /// The home shard took the peer in.
    pub(crate) fn handle_joined_swarm(
        &mut self,
        now: Time,
        connection: u64,
        manifest: Option<Arc<Manifest>>,
    ) {
        if let Phase::Joining(key) = self.phase {
            self.phase = Phase::Joined(key);
            (self.accepted_at, self.rights.joined_at) = (Some(now), now);
            let accepted = Accepted { connection };
            if let Some(channel) = self.datagrams {
                self.effects.push(Effect::AcceptInDatagrams(accepted, channel));
            } else {
                self.send(Message::Accepted(accepted));
            }
            self.manifest.know_anew(manifest);
            self.news.set_due();
        }
    }

    fn handle_joined(&mut self, now: Time, key: SwarmKey, message: Message) -> Result<(), Fault> {
        if let Some(at) = self.accepted_at.take()
            && matches!(message, Message::ManifestRequest | Message::Progress { .. })
        {
            // A holder that lacks nothing has nothing to say at once.
            self.window.handle_round_trip(now.since(at));
        }
        let chunk_count = key.chunk_count();
        let in_range = |chunk: u32| {
            if chunk < chunk_count {
                return Ok(chunk);
            }
            Err(Fault::protocol(format!("chunk {chunk} of a file of {chunk_count}")))
        };
        match message {
            Message::Progress { received_bytes, granted_bytes } => {
                // One that may only publish is sent nothing, whatever it says that it lacks.
                let granted_bytes = if self.rights.may_get { granted_bytes } else { 0 };
                self.window
                    .handle_progress(now, received_bytes, granted_bytes)
                    .map_err(|error| Fault::protocol(error.to_string()))?;
                self.news.set_due();
            }
            Message::Have { ranges } => {
                for range in ranges {
                    in_range(range.first.saturating_add(range.count - 1))?;
                    self.count_claims(now, range, chunk_count)?;
                    self.tell(NewsItem::Have(range));
                }
            }
            Message::Lost { ranges } if self.rights.uplink.is_some() => {
                for range in ranges {
                    in_range(range.first.saturating_add(range.count - 1))?;
                    self.count_claims(now, range, chunk_count)?;
                    self.tell(NewsItem::Lost(range));
                }
            }
            Message::Lost { .. } => {
                return Err(Fault::protocol("it has lost chunks, and is no end of an uplink"));
            }
            Message::Want { chunks } => {
                for &chunk in &chunks {
                    in_range(chunk)?;
                }
                self.tell(NewsItem::Want(chunks));
            }
            Message::Lacking { chunk } => {
                let chunk = in_range(chunk)?;
                self.tell(NewsItem::Lacking(chunk));
            }
            Message::Leaving => self.tell(NewsItem::Leaving),
            Message::SwarmStatusRequest => self.tell(NewsItem::StatusRequest),
            Message::Label { text } => return self.handle_label(&text),
            Message::FetchRefused { fetch_id } => {
                if self.fetching.remove(FetchId(fetch_id)).is_some() {
                    let refused = Err(FetchFailure::Refused);
                    self.effects.push(Effect::Fetched(FetchId(fetch_id), refused));
                }
            }
            Message::ManifestRequest => self.manifest.want(),
            Message::ManifestPart { first_chunk, digests } => {
                return self.handle_manifest_part(first_chunk, &digests);
            }
            Message::ManifestRefused => {
                if self.manifest.handle_refused() {
                    self.effects.push(Effect::Manifest(Err(FetchFailure::Refused)));
                }
            }
            _ => return Err(Fault::protocol("a message that only a relay sends")),
        }
        Ok(())
    }

    /// Claims are work, so there is a bound on them.
    fn count_claims(
        &mut self,
        now: Time,
        range: ChunkRange,
        chunk_count: u32,
    ) -> Result<(), Fault> {
        let mut rounds = CLAIMS_PER_CHUNK_MAX;
        if self.rights.uplink.is_some() {
            rounds += rounds * now.since(self.rights.joined_at).as_secs();
        }
        self.claimed_chunks += u64::from(range.count);
        if self.claimed_chunks > rounds.saturating_mul(chunk_count.into()) {
            return Err(Fault::protocol("it claims the same chunks time and again"));
        }
        Ok(())
    }

    fn handle_label(&mut self, text: &str) -> Result<(), Fault> {
        match std::mem::replace(&mut self.rights.labelling, Labelling::Done) {
            Labelling::Forbidden => {
                return Err(Fault::protocol("a label from a peer that states no seeding"));
            }
            Labelling::Possible => self.tell(NewsItem::Label(text.into())),
            Labelling::Done => {}
        }
        Ok(())
    }

    /// File bytes were read.
    pub(crate) fn handle_data(&mut self, run: &Run<'_>) -> Result<(), Fault> {
        let ended = self.fetching.handle_data(run)?;
        self.note_ended(ended);
        Ok(())
    }

    /// A piece of a chunk was received in datagrams.
    pub(crate) fn handle_piece(
        &mut self,
        header: &DataPieceHeader,
        piece: &[u8],
    ) -> Result<(), Fault> {
        let ended = self.fetching.handle_piece(header, piece)?;
        self.note_ended(ended);
        Ok(())
    }

    fn note_ended(&mut self, ended: Option<Ended>) {
        if let Some(Ended { fetch_id, result }) = ended {
            self.effects.push(Effect::Fetched(fetch_id, result));
        }
    }

    fn handle_manifest_part(&mut self, first_chunk: u32, digests: &[Digest]) -> Result<(), Fault> {
        if let Some(result) = self.manifest.handle_part(first_chunk, digests)? {
            let told = result.as_ref().map(Arc::clone).map_err(|_| FetchFailure::Lied);
            self.effects.push(Effect::Manifest(told));
            result?;
        }
        Ok(())
    }

    /// Ask the peer for the manifest, unless it is at it.
    pub(crate) fn handle_fetch_manifest(&mut self) {
        if let Phase::Joined(key) = self.phase
            && self.manifest.ask(key)
        {
            self.send(Message::ManifestRequest);
        }
    }

    /// The swarm's manifest is known.
    pub(crate) fn handle_manifest_known(&mut self, manifest: Option<Arc<Manifest>>) {
        self.manifest.know(manifest);
    }

    /// Whether the peer waits for parts of the manifest that could be sent.
    pub(crate) fn has_manifest_part(&self) -> bool {
        self.manifest.has_part()
    }

    /// The next part of the manifest that the peer waits for; the shell asks when there is room.
    pub(crate) fn poll_manifest_part(&mut self) -> Option<Message> {
        self.manifest.poll_part()
    }

    /// Whether the peer was asked for chunks that have not come.
    pub(crate) fn fetching(&self) -> &Fetching {
        &self.fetching
    }

    /// Ask the peer for a chunk.
    pub(crate) fn handle_fetch(&mut self, fetch: FetchOrder) {
        self.send(Message::Fetch { fetch_id: fetch.fetch_id.0, chunk: fetch.chunk });
        self.fetching.begin(fetch);
    }

    /// The connection ends: what it held for others is free, and nothing follows any more.
    pub(crate) fn handle_closing(&mut self) {
        self.fetching.abandon();
        self.manifest = ManifestState::default();
        for effect in self.effects.drain() {
            if let Effect::Fetched(_, Ok(chunk)) = effect {
                self.fetching.drop_whole(&chunk);
            }
        }
    }

    /// Forget a fetch; its lease, if it was still open.
    pub(crate) fn handle_cancel(&mut self, fetch_id: FetchId) -> Option<shards::budget::Lease> {
        let lease = self.fetching.cancel(fetch_id)?;
        self.send(Message::CancelFetch { fetch_id: fetch_id.0 });
        Some(lease)
    }

    /// Adds to the news.
    pub(crate) fn tell(&mut self, item: NewsItem) {
        self.news.push(item);
    }

    /// Whether the home shard must hear something.
    pub(crate) fn has_news(&self) -> bool {
        self.news.is_due()
    }

    /// So much news waits that the peer must wait, too.
    pub(crate) fn is_news_full(&self) -> bool {
        self.news.is_full()
    }

    /// Takes news, but no more claims than `claims_left`, which it lessens; the allowance goes with it.
    pub(crate) fn take_news(&mut self, claims_left: &mut u32) -> Vec<NewsItem> {
        self.news.take(claims_left)
    }

    fn send(&mut self, message: Message) {
        self.effects.push(Effect::Send(message));
    }
}
