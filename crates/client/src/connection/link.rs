//! One connection: its socket, the part that tasks take turns at, and how it comes to an end.
//!
//! Waits for nothing itself. The tasks that do are in the files beside it.

use std::{
    cell::{Cell, RefCell},
    io,
    net::Shutdown,
    rc::{Rc, Weak},
};

use shards::{bell::LocalBell, net::Socket};

use super::core::{Core, End, Surroundings, now};
use crate::{
    endpoint::Endpoint,
    error::{ConnectionError, SessionError},
    session::Session,
};
use relay_protocol::time::Time;
use relay_transport::{Datagrams, FRAMES_PER_READ_MAX, ReceiveBuffer, Trust};

/// The receive buffer that all connections of a shard share. Read from, by one at a time; owned by none.
pub type Scratch = Rc<RefCell<ReceiveBuffer>>;

/// A receive buffer for one shard.
#[must_use]
pub fn new_scratch() -> Scratch {
    Rc::new(RefCell::new(ReceiveBuffer::new(FRAMES_PER_READ_MAX)))
}

/// How far the life of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Open,
    /// The kernel takes nothing more; what it has received may still be read.
    Ending,
    /// Every task ends that still runs.
    Closed,
}

/// One connection. `core` is the part that tasks take turns at.
pub(crate) struct Link {
    pub(super) socket: Socket,
    pub(super) remote: Endpoint,
    /// Which relay is believed, and what it is called: also in datagrams.
    pub(super) trust: Trust,
    pub(super) host: String,
    pub(super) core: RefCell<Core>,
    /// The socket was full: the writer is to go on when it no longer is.
    pub(super) full: LocalBell,
    /// The writer made room.
    pub(super) drained: LocalBell,
    /// The limit of uploads holds something back.
    pub(super) paced: LocalBell,
    /// The store has done something.
    pub(super) stored: Rc<LocalBell>,
    /// When something came by the stream last.
    pub(super) heard_at: Cell<Time>,
    phase: Cell<Phase>,
}

impl Link {
    /// To the relay of this host that is believed. Nothing was said yet but the preamble.
    pub(crate) fn new(
        (socket, remote): (Socket, Endpoint),
        session: Session,
        (trust, host): (&Trust, String),
        surroundings: Surroundings,
    ) -> Rc<Self> {
        let secure = trust.connect(&host);
        Rc::new(Self {
            socket,
            remote,
            trust: trust.clone(),
            host,
            core: RefCell::new(Core::new(session, secure, surroundings)),
            full: LocalBell::new(),
            drained: LocalBell::new(),
            paced: LocalBell::new(),
            stored: Rc::default(),
            heard_at: Cell::new(now()),
            phase: Cell::new(Phase::Open),
        })
    }

    /// Ends the connection without a word.
    pub(crate) fn stop(&self) {
        self.core.borrow_mut().stop();
        self.shutdown();
    }

    /// Ends the connection with a word: what is shared here is no longer what it was.
    pub(crate) fn give_up(&self) {
        self.core.borrow_mut().end = Some(End::GaveUp);
        self.close();
    }

    /// Asks to leave.
    pub(crate) fn leave(&self) {
        self.core.borrow_mut().session.handle_leave();
        self.pump();
    }

    /// Asks how far the swarm is.
    pub(crate) fn ask_status(&self) {
        self.core.borrow_mut().session.handle_status_wanted();
        self.pump();
    }

    /// The session is told something by its owner.
    pub(crate) fn tell(&self, tell: impl FnOnce(&mut Session)) {
        let mut core = self.core.borrow_mut();
        tell(&mut core.session);
        core.session.handle_said(now());
        drop(core);
        self.pump();
    }

    /// Whether datagrams of the relay ever came.
    pub(crate) fn has_heard_datagrams(&self) -> bool {
        self.core.borrow().queue.datagrams().is_some_and(Datagrams::has_heard)
    }

    /// Gives the kernel what there is to send, at most one write with data; the writer goes on.
    pub(super) fn pump(&self) {
        if !self.is_open() {
            return;
        }
        let mut core = self.core.borrow_mut();
        if core.end.is_some() {
            // The reader sees the end of the stream, and then the reason. Nothing more is said: a
            // last grant would bring data that this side does not take.
            drop(core);
            self.close();
            return;
        }
        let now = now();
        let pumped = core.pump(&self.socket, now);
        let has_ended = core.end.is_some();
        if core.is_held(now) {
            self.paced.ring();
        }
        drop(core);
        match pumped {
            Ok(true) => self.full.ring(),
            Ok(false) => {}
            // The relay may have said why before it closed: the reader finds out.
            Err(_) => self.shutdown(),
        }
        if has_ended {
            self.close();
        }
    }

    /// Whether the kernel still takes something.
    pub(super) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// Whether every task is to end.
    pub(super) fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    /// From now on nothing is written but last words.
    pub(super) fn end_writing(&self) {
        self.phase.set(self.phase.get().max(Phase::Ending));
    }

    /// The owner wants an end: the reader sees it. The way out stays open for a last word.
    fn close(&self) {
        let has_word = self.core.borrow().end == Some(End::GaveUp);
        if has_word {
            self.close_reading();
        } else {
            self.shutdown();
        }
    }

    /// The reader sees the end; the way out stays open for a last word.
    pub(super) fn close_reading(&self) {
        self.end_writing();
        self.full.ring();
        self.drained.ring();
        // It may be closed already, which is as good.
        drop(self.socket.shutdown(Shutdown::Read));
    }

    /// Closes both directions.
    pub(super) fn shutdown(&self) {
        self.end_writing();
        self.full.ring();
        // It may be closed already, which is as good.
        drop(self.socket.shutdown(Shutdown::Both));
    }

    /// The reader is through: every other task ends.
    pub(super) fn close_for_good(&self) {
        self.phase.set(Phase::Closed);
        self.full.ring();
        self.paced.ring();
        if let Some(socket) = &self.core.borrow().datagrams {
            socket.end();
        }
        self.stored.ring();
    }

    /// The reader returns this error.
    pub(super) fn fail(&self, error: ConnectionError) {
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.error.get_or_insert(error);
        }
        self.shutdown();
    }

    pub(super) fn io_error(&self, error: io::Error) -> ConnectionError {
        ConnectionError::Io { remote: self.remote.clone(), error }
    }

    pub(super) fn session_error(&self, error: SessionError) -> ConnectionError {
        ConnectionError::Session { remote: self.remote.clone(), error }
    }
}

/// A task of the connection panicked: it ends.
pub(super) fn fail(link: &Weak<Link>, text: &str) {
    if let Some(link) = link.upgrade() {
        let error = io::Error::other(format!("a task of this connection panicked: {text}"));
        link.fail(link.io_error(error));
    }
}
