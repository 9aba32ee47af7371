//! A peer's side of one connection, as a state machine: messages and data in, messages and
//! events out.
//!
//! Pure: no sockets, no clock, no file. The shell ([`super::connection`]) feeds it, asks
//! [`Session::poll_event`] and [`Session::poll_transmit`] until they are empty, and keeps chunks.
//!
//! ```text
//!  Greeting ──preamble──► Challenged ──Welcome / Hello──► Introduced ──Accepted──► Joined
//! ```
//!
//! Round trips count on a long path. A peer that has no token to prove and wants no datagrams says hello
//! before it is greeted. In `Joined` a peer that lacks something asks for the manifest, and grants in the
//! same breath: on one stream the relay sends the whole manifest before any data. In datagrams data could
//! overtake it, and what can't be verified would have to be thrown away: there grants wait for it.
//!
//! Invariant: a chunk is in `file.have()` only if its digest was right and the shell kept it.

mod data;
mod datagrams;
mod label;
mod stage;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use self::label::Label;
pub use self::stage::Stage;
use super::{
    SessionError,
    assembler::Assembler,
    file::FileState,
    intake::{Intake, WINDOW_BYTES},
    outbox::Outbox,
    uploads::{Upload, Uploads},
    wants::{ChunkOrder, Wants},
};
use relay_protocol::{
    Channel, DatagramOffer, Manifest, ManifestBuilder, Message, Seeding, SwarmStatus, Token,
    Welcome,
    limits::{CHUNK_SIZE_LOG2_SLACK, HANDSHAKE_TIMEOUT, NONCE_BYTES},
    time::Time,
};

/// How a peer behaves on a connection.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Who chooses the order of chunks.
    pub order: ChunkOrder,
    /// A publisher's wish how to begin.
    pub seeding: Option<Seeding>,
    /// What the relay may ask for.
    pub token: Option<Token>,
    /// Fresh for every connection, where a token is used.
    pub nonce: [u8; NONCE_BYTES],
    /// Limit of the intake, in payload bytes a second.
    pub intake_bytes_per_second: Option<std::num::NonZeroU64>,
    /// Whether verified chunks come with their bytes.
    pub keeps_bytes: bool,
    /// Only the list of digests is wanted: nothing is granted.
    pub is_manifest_only: bool,
}

/// What the shell should know or do.
#[derive(Debug, PartialEq)]
pub enum SessionEvent {
    /// The relay took the peer in, and answered after this time.
    Accepted {
        /// From the hello to the relay's consent.
        round_trip: Duration,
    },
    /// The list of digests is here, and proven.
    ManifestVerified,
    /// A chunk is whole and verified: keep it, then call [`Session::handle_kept`].
    Verified {
        /// Which.
        chunk: u32,
        /// Its bytes, if the session keeps bytes.
        bytes: Option<Bytes>,
        /// Peer order: from the want; relay order: from its credit's becoming available.
        latency: Duration,
    },
    /// Take this fetch out of the send queue.
    CancelUpload {
        /// As in [`Upload`].
        fetch_id: u32,
    },
    /// The last chunk was kept.
    Complete,
    /// Peers hold all of the file that this one spreads: it may go.
    SeedingDone,
    /// Nobody depends on the peer: it may go.
    LeaveGranted,
    /// How far the swarm is, as was asked.
    Status(SwarmStatus),
    /// Nobody connected holds chunks that the peer lacks.
    Waiting {
        /// How many.
        missing_count: u32,
        /// The first.
        first_missing: u32,
        /// How long the relay still waits.
        deadline: Duration,
    },
    /// The channel that was asked for runs in datagrams from now on; told before
    /// [`Self::Accepted`].
    Datagrams {
        /// How they find the relay's end; see [`Session::datagram_keys`].
        offer: DatagramOffer,
    },
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    file: FileState,
    stage: Stage,
    handshake_deadline: Time,
    /// When the hello was ready to be sent.
    introduced_at: Option<Time>,
    builder: Option<ManifestBuilder>,
    intake: Intake,
    assembler: Assembler,
    /// Verified, and not kept yet; bounded by what a store takes before it is full.
    unkept: HashSet<u32>,
    wants: Option<Wants>,
    uploads: Uploads,
    outbox: Outbox,
    events: VecDeque<SessionEvent>,
    is_leaving: bool,
    /// The channel that is to run in datagrams.
    datagrams: Option<Channel>,
    relay_nonce: [u8; NONCE_BYTES],
    /// Of the largest chunk that the relay recommends; 0 until it has said so.
    chunk_size_log2_max: u8,
    offer: Option<DatagramOffer>,
    label: Label,
}

impl Session {
    /// Goes on with `file` where an earlier connection left it.
    #[must_use]
    pub fn new(config: SessionConfig, file: FileState, now: Time) -> Self {
        Self {
            intake: Intake::new(config.intake_bytes_per_second, now),
            assembler: Assembler::new(config.keeps_bytes),
            unkept: HashSet::new(),
            config,
            file,
            stage: Stage::Greeting,
            handshake_deadline: now + HANDSHAKE_TIMEOUT,
            introduced_at: None,
            builder: None,
            wants: None,
            uploads: Uploads::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            is_leaving: false,
            datagrams: None,
            relay_nonce: [0; NONCE_BYTES],
            chunk_size_log2_max: 0,
            offer: None,
            label: Label::default(),
        }
    }

    /// What is here of the file.
    #[must_use]
    pub fn file(&self) -> &FileState {
        &self.file
    }

    /// Binary logarithm of the largest chunk that the relay recommends, once it has let the peer in.
    #[must_use]
    pub fn chunk_size_log2_max(&self) -> u8 {
        self.chunk_size_log2_max
    }

    /// How far the handshake is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes what is here of the file out, for the next session; this one is at its end.
    pub fn take_file(&mut self) -> FileState {
        let key = *self.file.key();
        std::mem::replace(&mut self.file, FileState::lacking(key))
    }

    /// Whether the intake is limited, so that grants need a timer.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.config.intake_bytes_per_second.is_some()
    }

    /// Exchanges the manifest for an equal one that others share, to save memory.
    pub fn share_manifest(&mut self, shared: &Arc<Manifest>) {
        if self.file.manifest().is_some_and(|own| own.key() == shared.key()) {
            self.file.set_manifest(Arc::clone(shared));
        }
    }

    /// The relay's preamble was right.
    ///
    /// # Errors
    /// It came twice.
    pub fn handle_preamble(&mut self) -> Result<(), SessionError> {
        if self.stage != Stage::Greeting {
            return Err(self.unexpected("a preamble"));
        }
        self.stage = Stage::Challenged;
        Ok(())
    }

    /// A control message from the relay.
    ///
    /// # Errors
    /// The message has no place in this state, or says why the relay closes.
    pub fn handle_message(&mut self, now: Time, message: Message) -> Result<(), SessionError> {
        match (self.stage, message) {
            (_, Message::Failure(failure)) => Err(self.label.error(failure)),
            (Stage::Challenged, Message::Welcome(welcome)) => self.handle_welcome(now, &welcome),
            (Stage::Introduced, Message::DatagramOffer(offer)) => self.handle_offer(offer),
            (Stage::Introduced, Message::Accepted(_)) => self.handle_accepted(now),
            (Stage::Introduced | Stage::Joined, Message::Ping { token }) => {
                self.outbox.push(Message::Pong { token });
                Ok(())
            }
            (Stage::Joined, message) => self.handle_joined(now, message),
            (_, message) => Err(self.unexpected(message.name())),
        }
    }

    fn handle_welcome(&mut self, now: Time, welcome: &Welcome) -> Result<(), SessionError> {
        let chunk_size_log2 = self.file.key().chunk_size_log2;
        let chunk_size_log2_max = welcome.chunk_size_log2_max;
        if chunk_size_log2 > chunk_size_log2_max + CHUNK_SIZE_LOG2_SLACK {
            return Err(SessionError::ChunkTooLarge { chunk_size_log2, chunk_size_log2_max });
        }
        self.chunk_size_log2_max = chunk_size_log2_max;
        let proof = match (welcome.token_required, &self.config.token) {
            (false, _) => None,
            (true, Some(token)) => Some(token.proof(&welcome.nonce, &self.config.nonce)),
            (true, None) => return Err(SessionError::TokenWanted),
        };
        self.stage = Stage::Introduced;
        if self.introduced_at.is_none() {
            self.ask_for_datagrams(welcome.nonce);
            self.introduce(now, proof);
        }
        Ok(())
    }

    fn introduce(&mut self, now: Time, proof: Option<[u8; 32]>) {
        self.introduced_at = Some(now);
        self.outbox.introduce(&self.config, &self.file, proof);
    }

    fn handle_accepted(&mut self, now: Time) -> Result<(), SessionError> {
        self.take_offer()?;
        self.stage = Stage::Joined;
        let round_trip = self.introduced_at.map_or(Duration::ZERO, |at| now.since(at));
        self.intake.handle_round_trip(round_trip);
        self.events.push_back(SessionEvent::Accepted { round_trip });
        self.say_label();
        if self.is_leaving {
            self.outbox.push(Message::Leaving);
        }
        if self.file.is_whole() {
            self.events.push_back(SessionEvent::Complete);
        } else if self.file.manifest().is_none() {
            self.builder = Some(ManifestBuilder::new(*self.file.key()));
            self.outbox.push(Message::ManifestRequest);
            if self.datagrams.is_none() {
                self.begin_intake(now);
            }
        } else {
            self.begin_intake(now);
        }
        Ok(())
    }

    fn handle_joined(&mut self, now: Time, message: Message) -> Result<(), SessionError> {
        match message {
            Message::ManifestPart { first_chunk, digests } => {
                self.handle_manifest_part(now, first_chunk, &digests)?;
            }
            Message::ManifestRequest => match self.file.manifest() {
                Some(manifest) => self.outbox.begin_manifest(Arc::clone(manifest)),
                None => self.outbox.push(Message::ManifestRefused),
            },
            Message::Fetch { fetch_id, chunk } => self.handle_fetch(Upload { fetch_id, chunk })?,
            Message::CancelFetch { fetch_id } => {
                if self.uploads.cancel(fetch_id) {
                    self.events.push_back(SessionEvent::CancelUpload { fetch_id });
                }
            }
            Message::Waiting { missing_count, first_missing, deadline_ms } => {
                let deadline = Duration::from_millis(u64::from(deadline_ms));
                let event = SessionEvent::Waiting { missing_count, first_missing, deadline };
                self.events.push_back(event);
            }
            Message::SeedingDone => self.events.push_back(SessionEvent::SeedingDone),
            Message::LeaveGranted => self.events.push_back(SessionEvent::LeaveGranted),
            Message::SwarmStatus(status) => {
                self.label.handle_answer();
                self.events.push_back(SessionEvent::Status(status));
            }
            // Nothing depends on an answer to our own pings and questions: this session asks none.
            Message::Pong { .. } | Message::Stats(_) => {}
            message => return Err(self.unexpected(message.name())),
        }
        Ok(())
    }

    fn handle_manifest_part(
        &mut self,
        now: Time,
        first_chunk: u32,
        digests: &[relay_protocol::Digest],
    ) -> Result<(), SessionError> {
        let Some(builder) = self.builder.as_mut() else {
            return Err(self.unexpected("a manifest part that was not asked for"));
        };
        if !builder.push(first_chunk, digests)? {
            return Ok(());
        }
        let builder = self.builder.take().expect("just used");
        self.file.set_manifest(Arc::new(builder.finish()?));
        self.events.push_back(SessionEvent::ManifestVerified);
        if self.datagrams.is_some() {
            self.begin_intake(now);
        }
        Ok(())
    }

    fn handle_fetch(&mut self, upload: Upload) -> Result<(), SessionError> {
        if upload.chunk >= self.file.key().chunk_count() {
            return Err(SessionError::Fetch("a chunk beyond the end of the file"));
        }
        if !self.file.have().contains(upload.chunk) {
            self.outbox.push(Message::FetchRefused { fetch_id: upload.fetch_id });
        } else if !self.uploads.push(upload) {
            return Err(SessionError::Fetch("more at once than the protocol allows"));
        }
        Ok(())
    }

    fn begin_intake(&mut self, now: Time) {
        if self.config.is_manifest_only {
            return;
        }
        let chunk_size_bytes = self.file.key().chunk_size_bytes();
        // Two windows, near by; what is not in its turn yet of a stream lies in memory.
        let ahead_bytes = match self.config.keeps_bytes {
            true => self.intake.window_bytes().max(2 * WINDOW_BYTES),
            false => 2 * WINDOW_BYTES,
        };
        self.wants = match self.config.order {
            ChunkOrder::Relay => None,
            order => Some(Wants::new(order, self.file.have(), chunk_size_bytes, ahead_bytes)),
        };
        self.intake.open(now);
    }

    /// A verified chunk was kept: from now on the peer has it, and says so. Once for each
    /// [`SessionEvent::Verified`], at any later time.
    pub fn handle_kept(&mut self, chunk: u32) {
        self.unkept.remove(&chunk);
        match &mut self.wants {
            Some(wants) => {
                wants.handle_kept(chunk);
            }
            None if self.config.keeps_bytes => {
                self.intake.release(self.file.key().chunk_len_bytes(chunk));
            }
            None => {}
        }
        if self.file.add(chunk) {
            self.outbox.have(chunk);
            if self.file.is_whole() {
                self.events.push_back(SessionEvent::Complete);
            }
        }
    }

    /// The end of a read turn; `idle` if nothing more was there to read.
    pub fn handle_turn_end(&mut self, now: Time, idle: bool) {
        // Acknowledgements go out when nothing more comes: then a report goes with them.
        let sends_anyway = self.outbox.is_urgent() || idle && !self.outbox.is_empty();
        self.intake.handle_turn_end(now, idle, sends_anyway);
    }

    /// Datagrams of data have come, and are acknowledged now: a report goes with that.
    pub fn handle_datagrams_end(&mut self, now: Time) {
        self.intake.handle_turn_end(now, true, true);
    }

    /// The next fetch to answer: read the chunk and put it into the send queue under its id.
    pub fn poll_upload(&mut self) -> Option<Upload> {
        self.uploads.poll()
    }

    /// Whether a fetch that [`Self::poll_upload`] gave out is still to be answered.
    #[must_use]
    pub fn is_uploading(&self, fetch_id: u32) -> bool {
        self.uploads.is_queued(fetch_id)
    }

    /// The fetch was answered: all of it is with the kernel.
    pub fn handle_uploaded(&mut self, fetch_id: u32) -> Option<u32> {
        self.uploads.finish(fetch_id).map(|upload| upload.chunk)
    }

    /// The fetch can't be answered: its chunk could not be read.
    pub fn handle_upload_failed(&mut self, fetch_id: u32) {
        self.uploads.finish(fetch_id);
        self.outbox.push(Message::FetchRefused { fetch_id });
    }

    /// Would like to go: see [`SessionEvent::LeaveGranted`].
    pub fn handle_leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) && self.stage == Stage::Joined {
            self.outbox.push(Message::Leaving);
        }
    }

    /// Asks how far the swarm is; no effect before it was joined.
    pub fn handle_status_wanted(&mut self) {
        if self.stage == Stage::Joined {
            self.outbox.push(Message::SwarmStatusRequest);
        }
    }

    /// The next message to send. Ask until there is none, or there is no room for more.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Message> {
        if self.introduced_at.is_none() {
            if self.stage > Stage::Greeting
                || self.config.token.is_some()
                || self.datagrams.is_some()
            {
                return None;
            }
            self.introduce(now, None);
        }
        if let Some(message) = self.outbox.poll(self.intake.may_hold_back()) {
            return Some(message);
        }
        let have = self.file.have();
        if let Some(chunks) = self.wants.as_mut().and_then(|wants| wants.poll(now, have)) {
            return Some(Message::Want { chunks });
        }
        let report = self.intake.poll_report(now)?;
        Some(Message::Progress {
            received_bytes: report.received_bytes,
            granted_bytes: report.granted_bytes,
        })
    }

    /// The next thing that the shell should know or do.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.stage {
            Stage::Joined => self.intake.poll_timeout(),
            _ => Some(self.handshake_deadline),
        }
    }

    /// Time has passed; something may be ready to transmit.
    ///
    /// # Errors
    /// The relay didn't complete the handshake in time.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), SessionError> {
        if self.stage != Stage::Joined && now >= self.handshake_deadline {
            return Err(SessionError::Silent(HANDSHAKE_TIMEOUT));
        }
        Ok(())
    }

    fn unexpected(&self, message: &'static str) -> SessionError {
        SessionError::Unexpected { message, stage: self.stage.name() }
    }
}
