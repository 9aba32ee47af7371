//! The shell of one connection: moves what a session says and hears through a socket, keeps
//! chunks in a store, and tells an observer.
//!
//! Four tasks share a `Link`: a reader (the connection's life), a writer that acts only when the
//! socket was full, one that hears what a store has done where that takes time, and a timer that
//! ends once it has nothing to watch. No reference to the
//! core is held across an await. Connecting again is [`super::peer`]'s business.

mod linger;
mod tasks;

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use shards::{bell::LocalBell, clock, net::Socket, task};

pub(super) use self::tasks::fail;
use self::tasks::{watch_store, watch_time, write_when_full};

use super::{
    ConnectionError, FileState, Session, SessionError, SessionEvent,
    datagrams::DatagramEnd,
    keeping::{Keeping, Outcome},
    peer::{Notice, Observer, Reaction},
    scratch::Scratch,
    session::Stage,
    signal::Signal,
    store::ChunkStore,
};
use relay_protocol::{DatagramOffer, Event, Failure, time::Time};
use relay_transport::{Channels, Datagrams, Payload, ReadError, ReadOutcome, Reader, SendEvent};

/// Control bytes that wait for the kernel, at most: beyond, the session says nothing more and the
/// relay is not read from until it takes them.
const CONTROL_BACKLOG_BYTES_MAX: usize = 64 << 10;

/// How often the handshake's deadline is looked at.
const HANDSHAKE_TICK: Duration = Duration::from_secs(1);

/// The present, for sessions.
pub(super) fn now() -> Time {
    Time::from_start(clock::now())
}

/// How a connection ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The owner wanted it.
    Stopped,
    /// The relay granted that the peer may go.
    Left,
}

/// What outlives a connection: where chunks are, and who watches.
pub(super) struct Surroundings {
    pub(super) store: Box<dyn ChunkStore>,
    pub(super) observer: Box<dyn Observer>,
}

/// One connection. `core` is the part that tasks take turns at.
pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) remote: SocketAddr,
    pub(super) core: RefCell<Core>,
    /// The socket was full: the writer is to go on when it no longer is.
    full: Signal,
    /// The writer made room.
    pub(super) drained: Signal,
    /// The store has done something.
    stored: Rc<LocalBell>,
    /// When something came by the stream last.
    pub(super) heard_at: Cell<Time>,
    /// The kernel takes nothing more; what it has received may still be read.
    pub(super) broken: Cell<bool>,
    pub(super) closed: Cell<bool>,
}

pub(super) struct Core {
    pub(super) session: Session,
    pub(super) queue: Channels,
    /// Datagrams were offered and are to be opened.
    pub(super) offer: Option<DatagramOffer>,
    /// The socket of the channel that runs in datagrams.
    pub(super) datagrams: Option<Rc<DatagramEnd>>,
    surroundings: Rc<RefCell<Surroundings>>,
    keeping: Keeping,
    end: Option<End>,
    /// What is said when it ends by its owner's will.
    last_word: Option<Failure>,
    pub(super) error: Option<ConnectionError>,
}

impl Link {
    pub(super) fn new(
        socket: Socket,
        remote: SocketAddr,
        session: Session,
        surroundings: Rc<RefCell<Surroundings>>,
    ) -> Rc<Self> {
        let mut queue = Channels::new();
        queue.push_preamble();
        Rc::new(Self {
            socket,
            remote,
            core: RefCell::new(Core {
                session,
                queue,
                offer: None,
                datagrams: None,
                keeping: Keeping::new(Rc::clone(&surroundings)),
                surroundings,
                end: None,
                last_word: None,
                error: None,
            }),
            full: Signal::default(),
            drained: Signal::default(),
            stored: Rc::default(),
            heard_at: Cell::new(now()),
            broken: Cell::new(false),
            closed: Cell::new(false),
        })
    }

    /// Runs until the connection ends; what is here of the file is for the next one. Also
    /// whether the relay had accepted the peer.
    pub(super) async fn run(
        self: Rc<Self>,
        scratch: &Scratch,
    ) -> (Result<End, ConnectionError>, FileState, bool) {
        let (writer, timer) = (Rc::downgrade(&self), Rc::downgrade(&self));
        task::spawn_isolated(write_when_full(Rc::clone(&self)), move |text| fail(&writer, &text));
        task::spawn_isolated(watch_time(Rc::downgrade(&self)), move |text| fail(&timer, &text));
        if self.core.borrow().keeping.watch(&self.stored) {
            let keeper = Rc::downgrade(&self);
            let watching = watch_store(Rc::clone(&self));
            task::spawn_isolated(watching, move |text| fail(&keeper, &text));
        }
        let result = self.read(scratch).await;
        if let Some(failure) = self.last_word(&result) {
            self.say_last(failure, scratch).await;
        }
        // What the kernel has taken still goes out; a writer that waits for room must not go on.
        self.shutdown();
        // What was verified is kept before anybody asks what there is.
        self.core.borrow().keeping.handle_disconnected();
        while !self.core.borrow().keeping.is_at_rest() {
            self.drained.wait().await;
        }
        self.closed.set(true);
        self.full.set();
        self.end_datagrams();
        self.stored.ring();
        let mut core = self.core.borrow_mut();
        let was_accepted = core.session.stage() == Stage::Joined;
        let result = match (result, core.error.take()) {
            // The store failed while the connection ended: no other connection would help.
            (Err(_) | Ok(End::Left), Some(failed @ ConnectionError::Store { .. })) => Err(failed),
            (result, _) => result,
        };
        (result, core.session.take_file(), was_accepted)
    }

    /// Ends the connection without a word.
    pub(super) fn stop(&self) {
        self.core.borrow_mut().end = Some(End::Stopped);
        self.shutdown();
    }

    /// Asks to leave.
    pub(super) fn leave(&self) {
        self.core.borrow_mut().session.handle_leave();
        self.pump();
    }

    /// Asks how far the swarm is.
    pub(super) fn ask_status(&self) {
        self.core.borrow_mut().session.handle_status_wanted();
        self.pump();
    }

    async fn read(self: &Rc<Self>, scratch: &Scratch) -> Result<End, ConnectionError> {
        let mut reader = Reader::new();
        self.pump();
        let mut is_drained = true;
        loop {
            if is_drained {
                let readable = self.socket.readable().await;
                readable.map_err(|error| self.io_error(error))?;
            }
            let (outcome, is_full) = self.read_turn(&mut reader, scratch)?;
            self.start_datagrams(scratch)?;
            self.pump();
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            if outcome == ReadOutcome::Closed {
                return Err(ConnectionError::Closed(self.remote));
            }
            is_drained = !is_full;
            if is_full {
                // Others of the shard have waited while all that there was room for was worked on. Then it
                // is read again at once: acknowledgements wait until nothing more is there.
                task::yield_now().await;
            }
            while self.is_backlogged() && !self.broken.get() {
                self.drained.wait().await;
            }
            while self.core.borrow().keeping.is_full() && !self.broken.get() {
                self.drained.wait().await;
            }
        }
    }

    /// One read and everything that follows from it; also whether it filled its room.
    fn read_turn(
        &self,
        reader: &mut Reader,
        scratch: &Scratch,
    ) -> Result<(ReadOutcome, bool), ConnectionError> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let (session, queue) = (&mut core.session, &mut core.queue);
        let started = now();
        let buffer = &mut scratch.borrow_mut();
        let outcome = reader.read(&self.socket, buffer, &mut |event: Event<'_>| match event {
            Event::Data(run) => {
                // Latency counts to the moment of verification, so chunks' ends ask the clock.
                let ends_chunk = run.is_last && session.ends_chunk(run.last_header());
                session.handle_data(if ends_chunk { now() } else { started }, &run)
            }
            Event::Control(message) => match queue.handle_control(started, message) {
                Some(message) => session.handle_message(started, message),
                None => Ok(()),
            },
            Event::Preamble { .. } => session.handle_preamble(),
        });
        // What was verified before an error counts all the same.
        core.handle_events();
        let outcome = outcome.map_err(|error| self.read_error(error))?;
        if matches!(outcome, ReadOutcome::Read { .. }) {
            self.heard_at.set(started);
        }
        let is_full = matches!(outcome, ReadOutcome::Read { is_full: true, .. });
        core.session.handle_turn_end(now(), !is_full);
        Ok((outcome, is_full))
    }

    /// Gives the kernel what there is to send, at most one write with data; the writer goes on.
    pub(super) fn pump(&self) {
        if self.broken.get() {
            return;
        }
        let mut core = self.core.borrow_mut();
        if core.end.is_some() {
            // The reader sees the end of the stream, and then the reason. Nothing more is said: a
            // last grant would bring data that nobody takes.
            drop(core);
            self.close();
            return;
        }
        let pumped = core.pump(&self.socket, now());
        let has_ended = core.end.is_some();
        drop(core);
        match pumped {
            Ok(true) => self.full.set(),
            Ok(false) => {}
            // The relay may have said why before it closed: the reader finds out.
            Err(_) => self.shutdown(),
        }
        if has_ended {
            self.close();
        }
    }

    fn end(&self) -> Result<Option<End>, ConnectionError> {
        let mut core = self.core.borrow_mut();
        match core.error.take() {
            Some(error) => Err(error),
            None => Ok(core.end),
        }
    }

    fn is_backlogged(&self) -> bool {
        self.core.borrow().is_backlogged()
    }

    /// Whether datagrams of the relay ever came.
    pub(super) fn has_heard_datagrams(&self) -> bool {
        self.core.borrow().queue.datagrams().is_some_and(Datagrams::has_heard)
    }

    fn shutdown(&self) {
        self.broken.set(true);
        self.full.set();
        // It may be closed already, which is as good.
        drop(self.socket.shutdown(std::net::Shutdown::Both));
    }

    pub(super) fn fail(&self, error: ConnectionError) {
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.error.get_or_insert(error);
        }
        self.shutdown();
    }

    pub(super) fn io_error(&self, error: io::Error) -> ConnectionError {
        ConnectionError::Io { remote: self.remote, error }
    }

    pub(super) fn session_error(&self, error: SessionError) -> ConnectionError {
        ConnectionError::Session { remote: self.remote, error }
    }

    fn read_error(&self, error: ReadError<SessionError>) -> ConnectionError {
        match error {
            ReadError::Io(error) => self.io_error(error),
            ReadError::Decode(error) => ConnectionError::Decode { remote: self.remote, error },
            ReadError::Handler(error) => self.session_error(error),
        }
    }
}

impl Core {
    /// So much waits to be said that nothing more is to be heard.
    pub(super) fn is_backlogged(&self) -> bool {
        self.queue.control_bytes() >= CONTROL_BACKLOG_BYTES_MAX
    }

    /// Acts on what the session reports.
    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            let notice = match event {
                SessionEvent::Verified { chunk, bytes: Some(bytes), latency } => {
                    self.keeping.put(chunk, bytes, latency);
                    continue;
                }
                SessionEvent::Verified { chunk, bytes: None, latency } => {
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
                    if let Some(shared) = self.surroundings.borrow().observer.shared_manifest() {
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
                SessionEvent::Waiting { missing_count, first_missing, deadline } => {
                    Notice::Waiting { missing_count, first_missing, deadline }
                }
            };
            self.tell(now(), &notice);
        }
    }

    /// Acts on all that the store has done. An error comes after the rest: the store rings once.
    fn handle_stored(&mut self) -> Result<(), ConnectionError> {
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
    /// something is left.
    fn pump(&mut self, socket: &Socket, now: Time) -> io::Result<bool> {
        loop {
            self.handle_all_sent(now);
            self.fill(now);
            self.transmit(now);
            if self.queue.is_stream_empty() {
                return Ok(false);
            }
            let written = self.queue.write(socket, u64::MAX)?;
            self.handle_all_sent(now);
            if written.blocked || written.data_bytes > 0 {
                self.fill(now);
                self.transmit(now);
                return Ok(!self.queue.is_stream_empty());
            }
        }
    }

    fn handle_all_sent(&mut self, now: Time) {
        while let Some(event) = self.queue.poll_event() {
            self.handle_sent(event, now);
        }
    }

    fn fill(&mut self, now: Time) {
        // First of all: what is acknowledged after it has come for sure.
        self.queue.acknowledge_data();
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
            Ok(bytes) => self.queue.push_data(Payload::with_crcs_of(chunk, bytes), fetch_id, 0),
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
        let surroundings = Rc::clone(&self.surroundings);
        let reaction = surroundings.borrow_mut().observer.notice(now, notice, self.session.file());
        self.react(reaction);
    }

    fn react(&mut self, reaction: Reaction) {
        match reaction {
            Reaction::GoOn => {}
            Reaction::Leave => self.session.handle_leave(),
            Reaction::Vanish => self.end = Some(End::Stopped),
            Reaction::GiveUp => self.give_up(),
        }
    }
}
