//! What the tasks of one connection take turns at: its session, its channels, its store, its observer,
//! and how it is to end.
//!
//! Waits for nothing, and knows no task. A task that has changed something here has it pump.

use std::{io, rc::Rc};

use bytes::Bytes;
use shards::{clock, net::Socket};

use super::{
    datagram_socket::ConnectionDatagrams,
    keeping::{Keeping, Outcome},
    upload_limit::UploadLimit,
};
use crate::{
    error::{ConnectionError, SessionError},
    file_state::FileState,
    observer::{Notice, Observer, Reaction},
    session::{Session, SessionEvent},
    store::{ChunkStore, Nowhere},
};
use relay_protocol::{DatagramOffer, UploadKey, time::Time};
use relay_transport::{Channels, Datagrams, Payload, Secure, SecureError, SendEvent};

/// Control bytes that wait for the kernel, at most: beyond, the session says nothing more and the
/// relay is not read from until it takes them.
const CONTROL_BACKLOG_BYTES_MAX: usize = 64 << 10;

/// The present, for sessions.
pub(crate) fn now() -> Time {
    Time::from_start(clock::now())
}

/// How a connection ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The owner wanted it.
    Stopped,
    /// The owner wanted it, and the relay is told that what was shared is no longer what it was.
    GaveUp,
    /// The relay granted that the peer may go.
    Left,
}

/// What outlives a connection: where chunks are, and the observer.
pub(crate) struct Surroundings {
    pub(crate) store: Box<dyn ChunkStore>,
    pub(crate) observer: Box<dyn Observer>,
}

impl Default for Surroundings {
    /// Keeps nothing, and is not watched.
    fn default() -> Self {
        let go_on = |_: Time, _: &Notice<'_>, _: &FileState| Reaction::GoOn;
        Self { store: Box::new(Nowhere), observer: Box::new(go_on) }
    }
}

/// The state of one connection that its tasks take turns at.
pub(super) struct Core {
    pub(super) session: Session,
    pub(super) queue: Channels,
    /// Makes the checksums of what is supplied, from when TLS has begun.
    uploads: Option<UploadKey>,
    /// Datagrams were offered and are to be opened.
    pub(super) offer: Option<DatagramOffer>,
    /// The socket of the channel that runs in datagrams.
    pub(super) datagrams: Option<Rc<ConnectionDatagrams>>,
    pub(super) keeping: Keeping,
    /// How fast others are supplied.
    pub(super) limit: UploadLimit,
    observer: Box<dyn Observer>,
    /// How it is to end by its owner's or the relay's will.
    pub(super) end: Option<End>,
    /// What ends it otherwise; the reader returns it.
    pub(super) error: Option<ConnectionError>,
}

impl Core {
    /// Nothing was said yet but the preamble.
    pub(super) fn new(session: Session, secure: Secure, surroundings: Surroundings) -> Self {
        let session = session.with_opening(surroundings.store.opens().cloned());
        Self {
            limit: UploadLimit::new(session.upload_rate()),
            session,
            queue: Channels::new(secure),
            uploads: None,
            offer: None,
            datagrams: None,
            keeping: Keeping::new(surroundings.store),
            observer: surroundings.observer,
            end: None,
            error: None,
        }
    }

    /// Takes out what outlives the connection, which is at its end.
    pub(super) fn take_apart(&mut self) -> (FileState, Surroundings) {
        let Surroundings { store, observer } = Surroundings::default();
        let store = self.keeping.replace_store(store);
        let observer = std::mem::replace(&mut self.observer, observer);
        (self.session.take_file(), Surroundings { store, observer })
    }

    /// It is to end. A last word that is to be said stays so.
    pub(super) fn stop(&mut self) {
        if self.end != Some(End::GaveUp) {
            self.end = Some(End::Stopped);
        }
    }

    /// So much waits to be said that nothing more is to be heard.
    pub(super) fn is_backlogged(&self) -> bool {
        self.queue.control_bytes() >= CONTROL_BACKLOG_BYTES_MAX
    }

    /// A piece of what is under TLS came: whatever it completes is handled.
    pub(super) fn handle_sealed(
        &mut self,
        now: Time,
        mut piece: &[u8],
    ) -> Result<(), SessionError> {
        let (session, queue) = (&mut self.session, &mut self.queue);
        while queue.open(&mut piece)? {
            if let Some(binding) = queue.poll_secured() {
                session.handle_secured(binding);
                self.uploads = queue.upload_key();
            }
            while let Some(message) = queue.poll_message().map_err(SecureError::from)? {
                queue.handle_streamed(&message);
                session.handle_message(now, message)?;
            }
        }
        Ok(())
    }

    /// Acts on what the session reports.
    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            let notice = match event {
                SessionEvent::Verified { chunk, bytes: Some(bytes), latency, .. } => {
                    self.keeping.put(chunk, bytes, latency);
                    continue;
                }
                SessionEvent::Verified { chunk, bytes: None, plain, latency } => {
                    if let Some(plain) = plain
                        && let Err(error) = self.keeping.note_opened(chunk, plain)
                    {
                        self.error.get_or_insert(error);
                        continue;
                    }
                    self.session.handle_kept(chunk);
                    Notice::Verified { chunk, latency }
                }
                SessionEvent::CancelUpload { fetch_id } => {
                    self.queue.cancel(fetch_id);
                    continue;
                }
                SessionEvent::Datagrams { offer } => {
                    self.offer = Some(offer);
                    continue;
                }
                SessionEvent::Accepted { round_trip } => {
                    let chunk_size_log2_max = self.session.chunk_size_log2_max();
                    self.tell(now(), &Notice::Recommended { chunk_size_log2_max });
                    Notice::Accepted { round_trip }
                }
                SessionEvent::ManifestVerified => {
                    if let Some(shared) = self.observer.shared_manifest() {
                        self.session.share_manifest(shared);
                    }
                    Notice::ManifestVerified
                }
                SessionEvent::Complete => Notice::Complete,
                SessionEvent::SeedingDone => Notice::SeedingDone,
                SessionEvent::Status(status) => Notice::Status(status),
                SessionEvent::LeaveGranted => {
                    self.end.get_or_insert(End::Left);
                    Notice::LeaveGranted
                }
                SessionEvent::Available { ranges, held } => {
                    self.tell(now(), &Notice::Available { ranges: &ranges, held });
                    continue;
                }
                SessionEvent::Waiting { missing_count, first_missing, deadline } => {
                    Notice::Waiting { missing_count, first_missing, deadline }
                }
            };
            self.tell(now(), &notice);
        }
    }

    /// Acts on all that the store has done. An error comes after the rest: the store rings once.
    pub(super) fn handle_stored(&mut self) -> Result<(), ConnectionError> {
        let mut failed = None;
        loop {
            match self.keeping.poll() {
                Ok(None) => break,
                Ok(Some(Outcome::Kept { chunk, latency })) => {
                    self.session.handle_kept(chunk);
                    self.tell(now(), &Notice::Verified { chunk, latency });
                }
                // A fetch that was called off meanwhile.
                Ok(Some(Outcome::Read { fetch_id, .. }))
                    if !self.session.is_uploading(fetch_id) => {}
                Ok(Some(Outcome::Read { fetch_id, chunk, result })) => {
                    self.upload(fetch_id, chunk, result);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        self.handle_events();
        // Acknowledgements go out when nothing more is being written.
        self.session.handle_turn_end(now(), !self.keeping.is_writing());
        failed.map_or(Ok(()), Err)
    }

    /// Fills and writes until there is nothing, the socket is full, or data was written; true if
    /// something is left that waits for nothing but the socket.
    pub(super) fn pump(&mut self, socket: &Socket, now: Time) -> io::Result<bool> {
        loop {
            self.handle_all_sent(now);
            self.fill(now);
            self.transmit(now);
            self.handle_all_sent(now);
            if !self.wants_socket(now) {
                return Ok(false);
            }
            let written = self.queue.write(socket, self.limit.room_bytes(now))?;
            self.limit.note_sent(now, written.data_bytes);
            self.handle_all_sent(now);
            if written.blocked || written.data_bytes > 0 {
                self.fill(now);
                self.transmit(now);
                return Ok(self.wants_socket(now));
            }
        }
    }

    /// Something is to be written to the stream that the limit of uploads lets through.
    pub(super) fn wants_socket(&self, now: Time) -> bool {
        let is_let_through = |len: u32| u64::from(len) <= self.limit.room_bytes(now);
        let queue = &self.queue;
        !queue.is_stream_empty()
            && (!self.limit.is_some()
                || queue.has_urgent()
                || queue.next_frame_len().is_some_and(is_let_through))
    }

    /// Something is to be sent that the limit of uploads held back at this time.
    pub(super) fn is_held(&self, now: Time) -> bool {
        let next_piece = || self.queue.data().and_then(Datagrams::next_piece_len);
        self.limit.room_bytes(now) == 0 && self.queue.next_frame_len().or_else(next_piece).is_some()
    }

    fn handle_all_sent(&mut self, now: Time) {
        while let Some(event) = self.queue.poll_event() {
            self.handle_sent(event, now);
        }
    }

    fn fill(&mut self, now: Time) {
        while self.queue.control_bytes() < CONTROL_BACKLOG_BYTES_MAX {
            let Some(message) = self.session.poll_transmit(now) else { break };
            self.queue.push_control(&message);
        }
        while let Some(upload) = self.session.poll_upload() {
            let (fetch_id, chunk) = (upload.fetch_id, upload.chunk);
            let manifest = self.session.file().manifest();
            let digest = manifest.expect("who has a chunk has verified it").digest(chunk);
            if let Some(result) = self.keeping.get(fetch_id, chunk, digest).transpose() {
                self.upload(fetch_id, chunk, result);
            }
        }
    }

    fn upload(&mut self, fetch_id: u32, chunk: u32, read: io::Result<Bytes>) {
        match read {
            Ok(bytes) if self.queue.data().is_some() => {
                self.queue.push_data(Payload::for_datagrams(chunk, bytes), fetch_id, 0);
            }
            Ok(bytes) => {
                let key = self.uploads.as_ref().expect("fetches come when TLS has begun");
                let checksums = key.checksums(fetch_id, &bytes).collect();
                self.queue.push_data(Payload::new(chunk, bytes, checksums), fetch_id, 0);
            }
            Err(error) => self.refuse(fetch_id, chunk, &error),
        }
    }

    fn refuse(&mut self, fetch_id: u32, chunk: u32, error: &io::Error) {
        self.session.handle_upload_failed(fetch_id);
        self.tell(now(), &Notice::Unreadable { chunk, error });
    }

    fn handle_sent(&mut self, event: SendEvent, now: Time) {
        let SendEvent::Finished { tag, .. } = event else { return };
        if let Some(chunk) = self.session.handle_uploaded(tag) {
            self.tell(now, &Notice::Served { chunk });
        }
    }

    fn tell(&mut self, now: Time, notice: &Notice<'_>) {
        match self.observer.notice(now, notice, self.session.file()) {
            Reaction::GoOn => {}
            Reaction::Leave => self.session.handle_leave(),
            Reaction::Vanish => self.stop(),
            Reaction::GiveUp => self.end = Some(End::GaveUp),
        }
    }

    /// Sends the datagrams that are to go now.
    fn transmit(&mut self, now: Time) {
        let Some(socket) = &self.datagrams else { return };
        let Some(datagrams) = self.queue.datagrams_mut() else { return };
        let given = datagrams.give_data(self.limit.room_bytes(now));
        self.limit.note_sent(now, given.bytes);
        while socket.transmit(now, datagrams) {}
    }
}
