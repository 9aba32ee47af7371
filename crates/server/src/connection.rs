//! One connection of a shard: its socket, its session, what it has still to write.
//!
//! A reader task waits until the socket is readable; the shard's pump writes for all its
//! connections in turn and leaves those that would block to a task that waits until they are
//! writable. Neither keeps a buffer between calls.

mod data;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr},
    rc::Rc,
    time::Duration,
};

use shards::{bell::LocalBell, net::Socket};

pub(crate) use self::data::Sent;
use self::data::tell_sent;
use super::{
    fault::Fault,
    message::{ConnectionRef, NewsItem, SwarmRef},
    session::Session,
};
use relay_protocol::{DatagramHeader, DatagramKind, Event, Failure, Message, time::Time};
use relay_swarm::PeerSlot;
use relay_transport::{
    Channels, Datagrams, Payload, ReadError, ReadOutcome, Reader, ReceiveBuffer, Route, Written,
    data::DataOut,
    datagrams::{DatagramError, Received, Silence},
};

/// Control bytes that a peer may leave unread before the relay stops reading from it: a manifest
/// part and some answers fit many times over.
const CONTROL_QUEUE_BYTES_MAX: usize = 64 << 10;

/// Control bytes below which further manifest parts are queued.
const MANIFEST_QUEUE_BYTES: usize = 8 << 10;

/// One accepted connection, for life on one shard.
pub(crate) struct Connection {
    pub reference: ConnectionRef,
    pub remote: SocketAddr,
    /// Both its ends are on this machine.
    pub is_local: bool,
    pub socket: Socket,
    pub session: RefCell<Session>,
    pub queue: RefCell<Channels>,
    /// Its swarm, from joined to gone.
    pub member: Cell<Option<(SwarmRef, PeerSlot)>>,
    pub accepted_at: Time,
    /// Stands in the pump's round.
    pub is_pumped: Cell<bool>,
    /// The kernel takes no more for now: the writable task waits.
    pub is_blocked: Cell<bool>,
    /// Stands in the list of those with news.
    pub is_dirty: Cell<bool>,
    /// Stands among those with datagrams to send.
    pub is_transmitting: Cell<bool>,
    /// When the shard looks at its datagrams next.
    pub datagrams_due: Cell<Option<Time>>,
    /// Nothing more is read; ends when everything is written.
    pub is_closing: Cell<bool>,
    pub is_closed: Cell<bool>,
    /// It has its last words to say and to be heard, until then.
    pub linger_until: Cell<Option<Time>>,
    /// Both directions are shut down: nothing is waited for any more.
    pub is_cut: Cell<bool>,
    /// Its part in its swarm has ended.
    pub has_left: Cell<bool>,
    /// The join is under way at the home shard: gone must wait for its answer.
    pub is_joining: Cell<bool>,
    /// Rung when it may be read from again.
    pub read_bell: LocalBell,
    /// Rung when its socket would block.
    pub blocked_bell: LocalBell,
    is_write_shut: Cell<bool>,
    /// Its socket takes nothing any more: what has come is read, then it ends.
    is_deaf: Cell<bool>,
    last_progress: Cell<Time>,
    /// For so long data in datagrams had waited when all of it was recalled: that clock stands, and
    /// goes on with the next delivery, so that recalls don't keep a peer that stopped.
    waited: Cell<Duration>,
    /// Deliveries under way, by chunk: since when, for the latency metric.
    deliveries: RefCell<HashMap<u32, Time>>,
}

impl Connection {
    pub(crate) fn new(
        reference: ConnectionRef,
        remote: SocketAddr,
        socket: Socket,
        session: Session,
        now: Time,
    ) -> Rc<Self> {
        let mut queue = Channels::new();
        queue.push_preamble();
        // An end whose address is not known is not treated as near.
        let is_local = socket.local_addr().is_ok_and(|local| local.ip() == remote.ip());
        Rc::new(Self {
            reference,
            remote,
            is_local,
            socket,
            session: RefCell::new(session),
            queue: RefCell::new(queue),
            member: Cell::new(None),
            accepted_at: now,
            is_pumped: Cell::new(false),
            is_blocked: Cell::new(false),
            is_dirty: Cell::new(false),
            is_transmitting: Cell::new(false),
            datagrams_due: Cell::new(None),
            is_closing: Cell::new(false),
            is_closed: Cell::new(false),
            linger_until: Cell::new(None),
            is_cut: Cell::new(false),
            has_left: Cell::new(false),
            is_write_shut: Cell::new(false),
            is_deaf: Cell::new(false),
            is_joining: Cell::new(false),
            read_bell: LocalBell::new(),
            blocked_bell: LocalBell::new(),
            last_progress: Cell::new(now),
            waited: Cell::new(Duration::ZERO),
            deliveries: RefCell::default(),
        })
    }

    /// One read and everything in it; effects are left in the session.
    pub(crate) fn read(
        &self,
        now: Time,
        reader: &mut Reader,
        buffer: &mut ReceiveBuffer,
        counts: &mut ReadCounts<'_>,
    ) -> Result<ReadOutcome, ReadError<Fault>> {
        let mut session = self.session.borrow_mut();
        let received_before = session.window().received_bytes();
        let outcome = reader.read(&self.socket, buffer, &mut |event| match event {
            Event::Preamble { version } => session.handle_preamble(version),
            Event::Control(message) => self.handle_streamed(now, &mut session, message, counts),
            Event::Data(run) => {
                counts.data_bytes += run.bytes.len() as u64;
                session.handle_data(&run)
            }
        })?;
        if let ReadOutcome::Read { bytes, .. } = outcome {
            counts.total_bytes += bytes as u64;
        }
        if session.window().received_bytes() > received_before {
            self.took(now);
        }
        Ok(outcome)
    }

    /// Whether it may be read from: its answers and news must not pile up.
    pub(crate) fn may_read(&self) -> bool {
        !self.is_closing.get()
            && self.queue.borrow().control_bytes() < CONTROL_QUEUE_BYTES_MAX
            && !self.session.borrow().is_news_full()
    }

    /// Something could be written now.
    pub(crate) fn wants_write(&self) -> bool {
        let (queue, session) = (self.queue.borrow(), self.session.borrow());
        let room_bytes = session.room_bytes();
        let window_is_open = queue.next_frame_len().is_some_and(|len| u64::from(len) <= room_bytes);
        !self.is_blocked.get()
            && !self.is_closed.get()
            && !self.is_deaf.get()
            && (queue.has_urgent()
                || self.feeds_manifest(&queue, &session)
                || window_is_open
                || queue.owes_data_ack()
                || self.wants_data(&queue, &session))
    }

    fn feeds_manifest(&self, queue: &Channels, session: &Session) -> bool {
        session.has_manifest_part()
            && queue.control_bytes() < MANIFEST_QUEUE_BYTES
            && !self.is_closing.get()
    }

    /// Queues parts of the manifest that the peer waits for, if there is room; whether it did.
    fn feed_manifest(&self, queue: &mut Channels, session: &mut Session) -> bool {
        let mut fed = false;
        while self.feeds_manifest(queue, session)
            && let Some(part) = session.poll_manifest_part()
        {
            queue.push_control(&part);
            fed = true;
        }
        fed
    }

    /// Something could be sent in datagrams now.
    pub(crate) fn wants_transmit(&self, now: Time) -> bool {
        let queue = self.queue.borrow();
        queue.datagrams().is_some_and(|datagrams| {
            datagrams.wants_transmit(now) || self.feeds_manifest(&queue, &self.session.borrow())
        })
    }

    /// Hands the datagrams that are to go now to `send`.
    pub(crate) fn transmit(&self, now: Time, scratch: &mut Vec<u8>, send: impl Fn(Route, &[u8])) {
        let mut queue = self.queue.borrow_mut();
        let mut session = self.session.borrow_mut();
        loop {
            let fed = self.feed_manifest(&mut queue, &mut session);
            let Some(datagrams) = queue.datagrams_mut() else { return };
            let mut sent = false;
            while let Some(route) = datagrams.poll_transmit(now, scratch) {
                send(route, scratch);
                scratch.clear();
                sent = true;
            }
            if !fed || !sent {
                return;
            }
        }
    }

    /// A datagram came; effects are left in the session.
    pub(crate) fn handle_datagram(
        &self,
        now: Time,
        route: Route,
        datagram: &[u8],
        counts: &mut ReadCounts<'_>,
    ) -> Result<Received, DatagramError<Fault>> {
        let takes_messages = self.may_read();
        let mut session = self.session.borrow_mut();
        let received_before = session.window().received_bytes();
        let mut queue = self.queue.borrow_mut();
        let Some(datagrams) = queue.datagrams_mut() else { return Ok(Received::Forged) };
        let kind = DatagramHeader::peek(datagram).map(|header| header.kind);
        if kind == Some(DatagramKind::Data) {
            // Not what is only there to try a length.
            return datagrams.handle_data(now, route, datagram, &mut |header, piece| {
                counts.data_bytes += piece.len() as u64;
                session.handle_piece(&header, piece)
            });
        }
        let mut handle = |message| self.handle_message(&mut session, message, counts);
        let received =
            datagrams.handle_datagram(now, route, datagram, takes_messages, &mut handle)?;
        if session.window().received_bytes() > received_before {
            self.took(now);
        }
        Ok(received)
    }

    /// Time has passed for the datagrams.
    pub(crate) fn handle_datagrams_timeout(&self, now: Time) -> Result<(), Silence> {
        let mut queue = self.queue.borrow_mut();
        let result = queue.datagrams_mut().map_or(Ok(()), |all| all.handle_timeout(now));
        // Nothing is said behind the last word.
        if !self.is_closing.get() && queue.datagrams_mut().is_some_and(|all| all.poll_poke(now)) {
            queue.poke();
        }
        self.after_data(&mut queue, &mut self.session.borrow_mut());
        result
    }

    /// Messages that were said again since the last time.
    pub(crate) fn take_resent(&self) -> u64 {
        self.queue.borrow_mut().datagrams_mut().map_or(0, Datagrams::take_resent)
    }

    /// When the datagrams have something to do though nothing happens.
    pub(crate) fn poll_datagrams_timeout(&self) -> Option<Time> {
        self.queue.borrow().datagrams().map(Datagrams::poll_timeout)
    }

    fn handle_message(
        &self,
        session: &mut Session,
        message: Message,
        counts: &ReadCounts<'_>,
    ) -> Result<(), Fault> {
        let spoken_of = match &message {
            Message::Have { ranges } => Some(ranges.clone()),
            Message::Lacking { chunk } => {
                self.deliveries.borrow_mut().remove(chunk);
                None
            }
            _ => None,
        };
        // The session bounds how much is claimed: what it refuses is not looked at.
        session.handle_control(counts.now, message)?;
        for range in spoken_of.into_iter().flatten() {
            counts.acknowledged(self, range.first, range.count);
        }
        Ok(())
    }

    /// One write, as the window allows; what happened to deliveries becomes news.
    pub(crate) fn write(&self, now: Time) -> io::Result<Written> {
        let mut session = self.session.borrow_mut();
        let mut queue = self.queue.borrow_mut();
        self.feed_manifest(&mut queue, &mut session);
        queue.acknowledge_data();
        let written = queue.write(&self.socket, session.room_bytes())?;
        // A socket that is full says little about the path: mostly its reader is busy.
        session.window_mut().handle_sent(now, written.data_bytes, false);
        if written.total_bytes > 0 && queue.data().is_none_or(DataOut::is_empty) {
            // While data waits in datagrams, what the kernel takes for the stream tells nothing of it.
            self.took(now);
        }
        self.is_blocked.set(written.blocked);
        tell_sent(&mut queue, &mut session);
        Ok(written)
    }

    /// Queues a delivery.
    pub(crate) fn deliver(&self, now: Time, payload: Rc<Payload>, offset: u32) {
        self.deliveries.borrow_mut().insert(payload.chunk(), now);
        let mut queue = self.queue.borrow_mut();
        if queue.data().is_some_and(DataOut::is_empty) {
            // Nothing was waited for until now.
            self.last_progress.set(now - self.waited.take());
        }
        queue.push_data(payload, 0, offset);
    }

    /// Queues a message.
    pub(crate) fn send(&self, message: &Message) {
        self.queue.borrow_mut().push_control(message);
    }

    /// Says why; nothing else is said or heard any more. [`super::closing`] ends it.
    pub(crate) fn close_with(&self, linger_until: Time, failure: Failure) {
        if !self.is_closing.replace(true) {
            self.linger_until.set(Some(linger_until));
            let mut queue = self.queue.borrow_mut();
            queue.drop_data();
            queue.push_control(&Message::Failure(failure));
            drop(queue);
            // A reader that waits for leave to read lingers from now on.
            self.read_bell.ring();
        }
    }

    /// Nothing more will be written: the other side sees the end after what was.
    pub(crate) fn shut_write(&self) {
        if !self.is_write_shut.replace(true) {
            // The peer may be gone already, which is as good.
            self.socket.shutdown(Shutdown::Write).ok();
        }
    }

    /// Ends both directions at once: the reader task sees the end and cleans up.
    pub(crate) fn close_now(&self) {
        self.is_closing.set(true);
        self.is_cut.set(true);
        // The peer may be gone already, which is what was wanted.
        self.socket.shutdown(Shutdown::Both).ok();
        // A reader that waits for leave to read sees no end of a stream.
        self.read_bell.ring();
    }

    /// A write failed. What the peer said before it went lies in the socket's buffer, perhaps that it has
    /// the whole file: the reader takes that, then ends the connection.
    pub(crate) fn write_failed(&self) {
        self.is_deaf.set(true);
        // The peer may be gone already, which is what was wanted. What has come can still be read.
        self.socket.shutdown(Shutdown::Both).ok();
        self.read_bell.ring();
    }

    /// Whether the reader has nothing left to wait for.
    pub(crate) fn ends_when_read(&self) -> bool {
        self.is_deaf.get() && !self.session.borrow().is_news_full()
    }

    /// Takes the chunk back; bytes reached by each send of it that was under way here, the newest first:
    /// a chunk that the peer spoke of is queued anew while an old send is still there.
    pub(crate) fn recall(&self, now: Time, chunk: u32) -> Vec<u32> {
        let waited = self.stalled_for(now).unwrap_or_default();
        let mut queue = self.queue.borrow_mut();
        let cut_offs = std::iter::from_fn(|| queue.recall(chunk));
        let mut reached: Vec<u32> = cut_offs.map(|cut_off| cut_off.reached_bytes).collect();
        reached.reverse();
        if !reached.is_empty() && queue.data().is_some_and(DataOut::is_empty) {
            self.waited.set(waited);
        }
        // It may have held those behind it back.
        self.after_data(&mut queue, &mut self.session.borrow_mut());
        drop(queue);
        self.deliveries.borrow_mut().remove(&chunk);
        reached
    }

    /// Sends no more of a chunk; what won't come becomes news. If the peer has it, what is under way in
    /// datagrams has come; if it has lost it, nobody knows.
    pub(crate) fn cut_off(&self, chunk: u32, has_it: bool) {
        let mut queue = self.queue.borrow_mut();
        let mut session = self.session.borrow_mut();
        while let Some(cut_off) = if has_it { queue.drop_rest(chunk) } else { queue.recall(chunk) }
        {
            session.tell(NewsItem::CutOff(chunk, cut_off.reached_bytes));
        }
        // It may have held those behind it back.
        self.after_data(&mut queue, &mut session);
    }

    /// The peer takes what it is given.
    fn took(&self, now: Time) {
        self.last_progress.set(now);
        self.waited.set(Duration::ZERO);
    }

    /// How long ago the peer last took or acknowledged a byte, or was first sent one.
    pub(crate) fn quiet_for(&self, now: Time) -> Duration {
        now.since(self.last_progress.get())
    }

    /// How long data has been waiting for the peer to take a byte; none if no data waits.
    pub(crate) fn stalled_for(&self, now: Time) -> Option<Duration> {
        let (queue, session) = (self.queue.borrow(), self.session.borrow());
        let room_bytes = session.room_bytes();
        let next_piece = queue.data().and_then(DataOut::next_piece_len);
        let waits = self.is_blocked.get() && !queue.is_empty()
            || session.window().unacknowledged_bytes() > 0
            || next_piece.is_some_and(|len| u64::from(len) <= room_bytes);
        waits.then(|| now.since(self.last_progress.get()))
    }
}

/// What one read brought, for the shard's cells.
pub(crate) struct ReadCounts<'a> {
    pub now: Time,
    pub total_bytes: u64,
    pub data_bytes: u64,
    pub delivery_seconds: &'a super::cells::Seconds,
}

impl ReadCounts<'_> {
    fn acknowledged(&self, connection: &Connection, first: u32, count: u32) {
        // Claims of many chunks at once are no acknowledgements of deliveries under way.
        let mut deliveries = connection.deliveries.borrow_mut();
        if count as usize > deliveries.len() {
            return;
        }
        for chunk in first..first.saturating_add(count) {
            if let Some(since) = deliveries.remove(&chunk) {
                self.delivery_seconds.record(self.now.seconds_since(since));
            }
        }
    }
}
