//! One connection of a shard: its socket, and its state behind it.
//!
//! A reader task waits until the socket is readable; the shard's pump writes for all its
//! connections in turn and leaves those that would block to a task that waits until they are
//! writable. Neither keeps a buffer between calls.

pub(crate) mod accept;
pub(crate) mod admit;
pub(crate) mod closing;
pub(crate) mod follow_up;
pub(crate) mod life;
pub(crate) mod link;
pub(crate) mod pace;
pub(crate) mod packets;
pub(crate) mod pump;
pub(crate) mod udp_in;
pub(crate) mod udp_out;

use std::{
    cell::{Cell, RefCell, RefMut},
    io,
    net::{Shutdown, SocketAddr},
    rc::Rc,
};

use shards::{bell::LocalBell, net::Socket};

use self::{
    link::{Link, ReadCounts},
    pace::Pace,
};
use crate::{message::ConnectionRef, session::Fault};
use relay_protocol::{Failure, time::Time};
use relay_transport::{ReadError, ReadOutcome, Reader, ReceiveBuffer, Written};

/// One accepted connection, for life on one shard.
pub(crate) struct Connection {
    pub reference: ConnectionRef,
    pub remote: SocketAddr,
    /// Both its ends are on this machine.
    pub is_local: bool,
    pub accepted_at: Time,
    pub socket: Socket,
    /// Rung when it may be read from again.
    pub read_bell: LocalBell,
    /// Rung when its socket would block.
    pub blocked_bell: LocalBell,
    pub marks: Marks,
    pub pace: Pace,
    link: RefCell<Link>,
}

/// Where a connection stands in its shard's queues.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// In the pump's round.
    pub writes: Cell<bool>,
    /// Among those with datagrams to send.
    pub transmits: Cell<bool>,
    /// Among those with news.
    pub has_news: Cell<bool>,
    /// Among those whose datagrams a socket had no room for.
    pub is_blocked: Cell<bool>,
    /// When the shard looks at its datagrams next.
    pub due: Cell<Option<Time>>,
}

impl Connection {
    pub(crate) fn new(
        reference: ConnectionRef,
        remote: SocketAddr,
        socket: Socket,
        link: Link,
        now: Time,
    ) -> Rc<Self> {
        // An end whose address is not known is not treated as near.
        let is_local = socket.local_addr().is_ok_and(|local| local.ip() == remote.ip());
        Rc::new(Self {
            reference,
            remote,
            is_local,
            accepted_at: now,
            socket,
            read_bell: LocalBell::new(),
            blocked_bell: LocalBell::new(),
            marks: Marks::default(),
            pace: Pace::default(),
            link: RefCell::new(link),
        })
    }

    /// Its state. A caller that holds it asks nothing of the connection meanwhile.
    pub(crate) fn link(&self) -> RefMut<'_, Link> {
        self.link.borrow_mut()
    }

    /// One read of at most so many file bytes, and everything in it; effects are left in the session.
    pub(crate) fn read(
        &self,
        reader: &mut Reader,
        buffer: &mut ReceiveBuffer,
        bytes_max: usize,
        counts: &mut ReadCounts<'_>,
    ) -> Result<ReadOutcome, ReadError<Fault>> {
        let link = &mut *self.link();
        let received_before = link.received_bytes();
        let outcome = reader.read_at_most(&self.socket, buffer, bytes_max, &mut |event| {
            link.handle_event(&event, counts)
        })?;
        if let ReadOutcome::Read { bytes, .. } = outcome {
            counts.total_bytes += bytes as u64;
        }
        link.note_received(counts.now, received_before);
        self.release(link);
        Ok(outcome)
    }

    /// One write with at most so many new file bytes, as the window allows; what happened to deliveries becomes news.
    pub(crate) fn write(&self, now: Time, bytes_max: u64) -> io::Result<Written> {
        let mut link = self.link();
        self.release(&mut link);
        let room_bytes = link.prepare_write().min(bytes_max);
        let written = link.queue.write(&self.socket, room_bytes)?;
        link.handle_written(now, &written);
        Ok(written)
    }

    /// What its peer said came in datagrams: files of the stream may be let go of.
    pub(crate) fn note_datagrams(&self) {
        self.release(&mut self.link());
    }

    /// Lets go of files that its socket does not refer to any more.
    fn release(&self, link: &mut Link) {
        let received_bytes = link.received_bytes();
        link.queue.release(&self.socket, received_bytes);
    }

    /// Its socket is about to be closed. If the kernel would go on sending from files, it has it forget them:
    /// otherwise they would be in use for as long as the other side likes.
    pub(crate) fn forget_lent(&self) {
        if self.link().queue.is_lending() && self.socket.unacknowledged_bytes().is_ok_and(|b| b > 0)
        {
            // What it would be of use for is over.
            self.socket.reset_when_closed().ok();
        }
    }

    /// Says why; nothing else is said or heard any more. [`closing`] ends it.
    pub(crate) fn close_with(&self, linger_until: Time, failure: Failure) {
        if self.link().say_last(linger_until, failure) {
            // A reader that waits for leave to read lingers from now on.
            self.read_bell.ring();
        }
    }

    /// Nothing more is heard. If there is something left to say or to be heard: until when, where that was said.
    pub(crate) fn stop_hearing(&self) -> Option<Option<Time>> {
        let mut link = self.link();
        let words_until = link.life.words_until();
        link.stop_hearing().then_some(words_until)
    }

    /// The reader has nothing left to wait for.
    pub(crate) fn has_ended(&self) -> bool {
        let link = self.link();
        link.life.is_closing() || link.ends_when_read()
    }

    /// Nothing more will be written: the other side sees the end after what was.
    pub(crate) fn shut_write(&self) {
        if self.link().life.shut_writing() {
            // The peer may be gone already, which is as good.
            self.socket.shutdown(Shutdown::Write).ok();
        }
    }

    /// Ends both directions at once: the reader task sees the end and cleans up.
    pub(crate) fn close_now(&self) {
        if self.link().life.cut() {
            // The peer may be gone already, which is what was wanted.
            self.socket.shutdown(Shutdown::Both).ok();
            // A reader that waits for leave to read sees no end of a stream.
            self.read_bell.ring();
        }
    }

    /// A write failed. What the peer said before it went lies in the socket's buffer, perhaps that it has
    /// the whole file: the reader takes that, then ends the connection.
    pub(crate) fn write_failed(&self) {
        self.link().life.fail_to_write();
        // The peer may be gone already, which is what was wanted. What has come can still be read.
        self.socket.shutdown(Shutdown::Both).ok();
        self.read_bell.ring();
    }
}
