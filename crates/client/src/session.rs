//! A peer's side of one connection, as a state machine: messages and data in, messages and
//! events out.
//!
//! Pure: no sockets, no clock, no file. The shell (`connection.rs`) feeds it, asks
//! [`Session::poll_event`] and [`Session::poll_transmit`] until they are empty, and keeps chunks.
//!
//! ```text
//!  Greeting ──preamble──► Challenged ──Welcome / Hello──► Introduced ──Accepted──► Joined
//! ```
//!
//! Round trips count on a long path. The welcome comes with the relay's part of the TLS handshake, and the hello
//! goes with the peer's last. In `Joined` a peer that lacks something asks for the manifest, and grants in the
//! same breath: on one stream the relay sends the whole manifest before any data. In datagrams data could
//! overtake it, and what can't be verified would have to be thrown away: there grants wait for it.
//!
//! Invariant: a chunk is in `file.have()` only if its digest was right and the shell kept it.

mod handshake;
mod interface;
mod receiving;
mod uplink;

use std::{collections::VecDeque, sync::Arc, time::Duration};

pub use self::{
    handshake::Stage,
    interface::{SessionConfig, SessionEvent},
};
use self::{
    handshake::{Consent, Handshake, Label},
    receiving::Receiving,
};
use super::{
    assembler::Assembled,
    error::SessionError,
    file_state::FileState,
    outbox::Outbox,
    sealing::Seal,
    uploads::{UPLOADS_QUEUED_MAX, UPLOADS_WAITING_MAX, Upload, Uploads},
    wants::ChunkOrder,
};
use relay_protocol::{
    Bitfield, Channel, Claims, DataHeader, DataPieceHeader, Digest, Hello, Manifest,
    ManifestBuilder, Message, Order, Run, Welcome, limits::BINDING_BYTES, rate::Rate, time::Time,
};

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    file: FileState,
    handshake: Handshake,
    label: Label,
    builder: Option<ManifestBuilder>,
    receiving: Receiving,
    uploads: Uploads,
    outbox: Outbox,
    events: VecDeque<SessionEvent>,
    is_leaving: bool,
    /// It is an end of an uplink, and stands for these relays.
    below: Option<Vec<u64>>,
}

impl Session {
    /// Goes on with `file` where an earlier connection left it.
    #[must_use]
    pub fn new(config: SessionConfig, file: FileState, now: Time) -> Self {
        let at_once = match config.order {
            ChunkOrder::Named => UPLOADS_WAITING_MAX,
            _ => UPLOADS_QUEUED_MAX,
        };
        Self {
            receiving: Receiving::new(config.intake_bytes_per_second, config.keeps_bytes, now),
            config,
            file,
            handshake: Handshake::new(now),
            label: Label::default(),
            builder: None,
            uploads: Uploads::new(at_once),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            is_leaving: false,
            below: None,
        }
    }

    /// Asks for this channel in datagrams. Before the first message is handled.
    #[must_use]
    pub fn with_datagrams(mut self, channel: Option<Channel>) -> Self {
        self.handshake.ask_for_datagrams(channel);
        self
    }

    /// Opens what comes, of a peer that keeps no bytes: verified chunks come with the digest of what came out. Before
    /// the first message is handled.
    #[must_use]
    pub fn with_opening(mut self, seal: Option<Seal>) -> Self {
        self.receiving.open_with(seal);
        self
    }

    /// Has the file called so where people watch the relay; for a publisher. Before the first message is
    /// handled.
    #[must_use]
    pub fn with_label(mut self, text: Option<String>) -> Self {
        self.label = Label::new(text);
        self
    }

    /// The channel that runs in datagrams, or is to.
    #[must_use]
    pub fn datagram_channel(&self) -> Option<Channel> {
        self.handshake.channel()
    }

    /// TLS has begun: what binds a token's proof to it.
    pub fn handle_secured(&mut self, binding: [u8; BINDING_BYTES]) {
        self.handshake.handle_secured(binding);
    }

    /// What is here of the file.
    #[must_use]
    pub fn file(&self) -> &FileState {
        &self.file
    }

    /// Binary logarithm of the largest chunk that the relay recommends, once it has let the peer in.
    #[must_use]
    pub fn chunk_size_log2_max(&self) -> u8 {
        self.handshake.chunk_size_log2_max()
    }

    /// How far the handshake is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.handshake.stage()
    }

    /// Whether the relay has accepted the peer.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.handshake.is_over()
    }

    /// Takes what is here of the file out, for the next session; this one is at its end.
    pub fn take_file(&mut self) -> FileState {
        let key = *self.file.key();
        std::mem::replace(&mut self.file, FileState::lacking(key))
    }

    /// How fast others may be supplied.
    pub(crate) fn upload_rate(&self) -> Option<Rate> {
        self.config.upload_bytes_per_second.and_then(|rate| Rate::new(rate.get()))
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
        self.handshake.handle_preamble()
    }

    /// A control message from the relay.
    ///
    /// # Errors
    /// The message has no place in this state, or says why the relay closes.
    pub fn handle_message(&mut self, now: Time, message: Message) -> Result<(), SessionError> {
        match (self.handshake.stage(), message) {
            (_, Message::Failure(failure)) => Err(self.label.error(failure)),
            (Stage::Challenged, Message::Welcome(welcome)) => self.handle_welcome(now, &welcome),
            (Stage::Introduced, Message::DatagramOffer(offer)) => {
                self.handshake.handle_offer(offer)
            }
            (Stage::Introduced, Message::Accepted(_)) => self.handle_accepted(now),
            (Stage::Introduced | Stage::Joined, Message::Ping { token }) => {
                self.outbox.push(Message::Pong { token });
                Ok(())
            }
            (Stage::Joined, message) => self.handle_joined(now, message),
            (_, message) => Err(self.handshake.unexpected(message.name())),
        }
    }

    fn handle_welcome(&mut self, now: Time, welcome: &Welcome) -> Result<(), SessionError> {
        let (chunk_size_log2, config) = (self.file.key().chunk_size_log2, &self.config);
        let (token, publishes) = (config.token.as_ref(), config.seeding.is_some());
        let proof = self.handshake.handle_welcome(welcome, chunk_size_log2, token, publishes)?;
        if let Some(channel) = self.handshake.channel() {
            self.outbox.push(Message::DatagramRequest { channel });
        }
        self.introduce(now, proof);
        Ok(())
    }

    fn introduce(&mut self, now: Time, proof: Option<[u8; 32]>) {
        self.handshake.handle_introduced(now);
        let SessionConfig { order, seeding, .. } = self.config;
        let order = match order {
            ChunkOrder::Relay => Order::Relay,
            ChunkOrder::Sequential | ChunkOrder::Random { .. } | ChunkOrder::Named => Order::Peer,
        };
        self.introduce_uplink();
        let (key, have) = (Some(*self.file.key()), self.file.have());
        let claims = claims(have);
        self.outbox.introduce(Hello { key, proof, claims, order, seeding }, have);
    }

    fn handle_accepted(&mut self, now: Time) -> Result<(), SessionError> {
        let Consent { round_trip, offer } = self.handshake.handle_accepted(now)?;
        if let Some(offer) = offer {
            self.events.push_back(SessionEvent::Datagrams { offer });
        }
        self.receiving.intake.handle_round_trip(round_trip);
        self.events.push_back(SessionEvent::Accepted { round_trip });
        if let Some(text) = self.label.take() {
            self.outbox.push(Message::Label { text });
        }
        if self.is_leaving {
            self.outbox.push(Message::Leaving);
        }
        if self.file.is_complete() && !self.is_uplink() {
            self.events.push_back(SessionEvent::Complete);
        } else if self.file.manifest().is_none() {
            self.builder = Some(ManifestBuilder::new(*self.file.key()));
            self.outbox.push(Message::ManifestRequest);
            if self.handshake.channel().is_none() {
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
            Message::Available { .. } if self.is_uplink() => self.handle_available(message),
            Message::SeedingDone => self.events.push_back(SessionEvent::SeedingDone),
            Message::LeaveGranted => self.events.push_back(SessionEvent::LeaveGranted),
            Message::SwarmStatus(status) => {
                self.label.handle_answer();
                self.events.push_back(SessionEvent::Status(status));
            }
            // Nothing depends on an answer to our own pings and questions: this session asks none.
            Message::Pong { .. } | Message::Stats(_) => {}
            message => return Err(self.handshake.unexpected(message.name())),
        }
        Ok(())
    }

    fn handle_manifest_part(
        &mut self,
        now: Time,
        first_chunk: u32,
        digests: &[Digest],
    ) -> Result<(), SessionError> {
        let Some(builder) = self.builder.as_mut() else {
            return Err(self.handshake.unexpected("a manifest part that was not asked for"));
        };
        if !builder.push(first_chunk, digests)? {
            return Ok(());
        }
        let builder = self.builder.take().expect("just used");
        self.file.set_manifest(Arc::new(builder.finish()?));
        self.events.push_back(SessionEvent::ManifestVerified);
        if self.handshake.channel().is_some() {
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
        if !self.config.is_manifest_only {
            self.receiving.begin(now, self.config.order, &self.file);
        }
    }

    /// File bytes came.
    ///
    /// # Errors
    /// Data has no place in this state, lies outside of the file, or its chunk's digest is wrong.
    pub fn handle_data(&mut self, now: Time, run: &Run<'_>) -> Result<(), SessionError> {
        let Some(manifest) = self.file.manifest().filter(|_| self.handshake.is_over()) else {
            return Err(self.handshake.unexpected("data before the manifest"));
        };
        // What goes on behind the chunk's end is an error, and what came before it counts all the same.
        let key = manifest.key();
        let chunk = run.header.chunk;
        let chunk_len = if chunk < key.chunk_count() { key.chunk_len_bytes(chunk) } else { 0 };
        let (run, beyond) = run.split_at(chunk_len);
        let assembled = self.receiving.handle_run(&self.file, manifest, &run)?;
        self.handle_assembled(now, assembled);
        beyond.map_or(Ok(()), |run| self.handle_data(now, &run))
    }

    /// Whether a chunk ends with this frame.
    #[must_use]
    pub fn ends_chunk(&self, header: &DataHeader) -> bool {
        let DataHeader { chunk, offset, payload_len, .. } = *header;
        let key = self.file.key();
        chunk < key.chunk_count()
            && offset.checked_add(payload_len) == Some(key.chunk_len_bytes(chunk))
    }

    /// A piece of a chunk came in datagrams.
    ///
    /// # Errors
    /// As for [`Self::handle_data`].
    pub fn handle_piece(
        &mut self,
        now: Time,
        header: &DataPieceHeader,
        piece: &[u8],
    ) -> Result<(), SessionError> {
        let Some(manifest) = self.file.manifest().filter(|_| self.handshake.is_over()) else {
            return Err(self.handshake.unexpected("data before the manifest"));
        };
        let assembled = self.receiving.handle_piece(&self.file, manifest, header, piece)?;
        while let Some(chunk) = self.receiving.poll_dropped() {
            self.handle_lost(chunk);
        }
        self.handle_assembled(now, assembled);
        Ok(())
    }

    fn handle_assembled(&mut self, now: Time, assembled: Assembled) {
        match assembled {
            Assembled::Nothing => {}
            Assembled::Lost { chunk } => self.handle_lost(chunk),
            Assembled::Chunk { chunk, bytes, plain } => {
                let len = self.file.key().chunk_len_bytes(chunk);
                let latency = self.receiving.handle_verified(now, chunk, len, bytes.is_some());
                self.events.push_back(SessionEvent::Verified { chunk, bytes, plain, latency });
            }
        }
    }

    /// What had come of a chunk is gone.
    fn handle_lost(&mut self, chunk: u32) {
        self.outbox.push(Message::Lacking { chunk });
        self.receiving.handle_lost(chunk);
    }

    /// A verified chunk was kept: from now on the peer has it, and says so. Once for each
    /// [`SessionEvent::Verified`], at any later time.
    pub fn handle_kept(&mut self, chunk: u32) {
        self.receiving.handle_kept(chunk, self.file.key().chunk_len_bytes(chunk));
        if self.file.add(chunk) {
            self.outbox.have(chunk);
            if self.file.is_complete() {
                self.events.push_back(SessionEvent::Complete);
            }
        }
    }

    /// The end of a read turn; `idle` if nothing more was there to read.
    pub fn handle_turn_end(&mut self, now: Time, idle: bool) {
        // Acknowledgements go out when nothing more comes: then a report goes with them.
        let sends_anyway = self.outbox.is_urgent() || idle && !self.outbox.is_empty();
        self.receiving.intake.handle_turn_end(now, idle, sends_anyway);
    }

    /// File bytes that the relay had sent and took back: they count as received, as it counted them.
    pub fn handle_discarded(&mut self, bytes: u64) {
        self.receiving.intake.handle_received(bytes);
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
        if let Some(Upload { chunk, .. }) = self.uploads.finish(fetch_id) {
            self.unclaim_refused(chunk);
        }
        self.outbox.push(Message::FetchRefused { fetch_id });
    }

    /// Would like to go: see [`SessionEvent::LeaveGranted`].
    pub fn handle_leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) && self.handshake.is_over() {
            self.outbox.push(Message::Leaving);
        }
    }

    /// Asks how far the swarm is; no effect before it was joined.
    pub fn handle_status_wanted(&mut self) {
        if self.handshake.is_over() {
            self.outbox.push(Message::SwarmStatusRequest);
        }
    }

    /// The next message to send. Ask until there is none, or there is no room for more.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Message> {
        self.outbox
            .poll(self.receiving.intake.may_hold_back())
            .or_else(|| self.receiving.poll_transmit(now, &self.file))
    }

    /// The next thing that the shell should know or do.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.handshake.deadline().or_else(|| self.receiving.intake.poll_timeout())
    }

    /// Time has passed; something may be ready to transmit.
    ///
    /// # Errors
    /// The relay didn't complete the handshake in time.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), SessionError> {
        self.handshake.handle_timeout(now)
    }
}

fn claims(have: &Bitfield) -> Claims {
    match have.count() {
        0 => Claims::Nothing,
        count if count == have.len() => Claims::Everything,
        _ => Claims::Some,
    }
}
