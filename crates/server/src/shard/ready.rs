//! What has become ready in a shard and waits for its turn: connections to write for, to transmit for, with news,
//! whose datagrams are due, and requests to other shards.
//!
//! Whatever happens to a connection ends here: it is marked, once, and the bell of the task that goes on is rung.
//! Nothing is carried out here.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use shards::ShardId;

use super::{
    desk::{Desk, now},
    guests::Guests,
    outbox::{CLAIMS_PER_PEER_MAX, Outbox},
    shaping::{Shaping, end_hold},
};
use crate::{
    connection::{Connection, link::News},
    message::{HomeRequest, PeerNews},
};
use relay_protocol::time::Time;

/// Nothing is due twice within this, so that the timer can't spin.
const DUE_AGAIN_MIN: Duration = Duration::from_millis(1);

/// What is due of control is looked at in steps of this (nanoseconds), for all connections at once:
/// each waking of a shard takes the core from other work.
const DUE_STEP_NS: u64 = 5_000_000;

/// The queues of one shard. [`crate::connection::Marks`] say where a connection stands.
pub(crate) struct Ready {
    pub outbox: Outbox,
    pub shaping: Shaping,
    /// Connections with something to write, in the order of their turn.
    writes: VecDeque<Rc<Connection>>,
    /// Connections with datagrams to send.
    transmits: VecDeque<Rc<Connection>>,
    /// Connections with news, in the order of their turn.
    news: VecDeque<Rc<Connection>>,
    /// When connections have something to do in datagrams, by index and generation; one entry each.
    due: BTreeSet<(Time, u32, u32)>,
    /// For each datagram socket: connections whose data it had no room for.
    blocked: Vec<Vec<Rc<Connection>>>,
}

/// What is due in datagrams.
pub(crate) enum Due {
    /// That connection, by index and generation.
    Now(u32, u32),
    /// Nothing until then.
    At(Time),
    Never,
}

/// Whether something is left for the pump.
pub(crate) enum Rest {
    Some,
    Nothing,
    /// Limits hold it back until then.
    Until(Time),
}

impl Ready {
    pub(crate) fn new(desk: &Desk) -> Self {
        Self {
            outbox: Outbox::new(desk.id(), desk.shard_count()),
            shaping: Shaping::default(),
            writes: VecDeque::new(),
            transmits: VecDeque::new(),
            news: VecDeque::new(),
            due: BTreeSet::new(),
            blocked: desk.sockets.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Puts the connection into the pump's round, if it has something to write, and among those with datagrams to
    /// send, if it may have some.
    pub(crate) fn mark_write(&mut self, desk: &Desk, connection: &Rc<Connection>) {
        let mut link = connection.link();
        let bytes_max = if connection.pace.waits_to_send.get() { 0 } else { u64::MAX };
        let (wants_transmit, wants_write) = (link.wants_transmit(), link.wants_write(bytes_max));
        drop(link);
        if wants_transmit {
            self.mark_transmit(desk, connection);
        }
        if wants_write && !connection.marks.writes.replace(true) {
            self.writes.push_back(Rc::clone(connection));
            desk.bells.pump.ring();
        }
    }

    /// Puts the connection among those with datagrams to send.
    pub(crate) fn mark_transmit(&mut self, desk: &Desk, connection: &Rc<Connection>) {
        if !connection.marks.transmits.replace(true) {
            self.transmits.push_back(Rc::clone(connection));
            desk.bells.pump.ring();
        }
    }

    /// How many connections have datagrams to send.
    pub(crate) fn transmits(&self) -> usize {
        self.transmits.len()
    }

    /// The connection whose turn it is to write, and the new file bytes that it may be sent. Those that limits held back
    /// come when all others are through.
    pub(crate) fn pop_write(&mut self, desk: &Desk) -> Option<(Rc<Connection>, u64)> {
        let Some(connection) = self.writes.pop_front() else {
            return self.shaping.pop_sending(desk);
        };
        connection.marks.writes.set(false);
        let room = self.shaping.sending_room(desk, &connection);
        Some((connection, room))
    }

    /// A connection with datagrams to send.
    pub(crate) fn pop_transmit(&mut self) -> Option<Rc<Connection>> {
        let connection = self.transmits.pop_front()?;
        connection.marks.transmits.set(false);
        Some(connection)
    }

    /// What is left to write or to transmit.
    pub(crate) fn rest(&mut self, desk: &Desk) -> Rest {
        if !self.writes.is_empty() || !self.transmits.is_empty() {
            return Rest::Some;
        }
        match self.shaping.rest_sending(desk) {
            None => Rest::Nothing,
            Some(at) if at <= now() => Rest::Some,
            Some(at) => Rest::Until(at),
        }
    }

    /// Other limits may hold: nothing waits for the old ones.
    pub(crate) fn refresh_limits(&mut self, desk: &Desk, guests: &Guests) {
        if !self.shaping.refresh(desk) {
            return;
        }
        for connection in guests.iter() {
            connection.pace.begin_anew();
            end_hold(desk, connection, now());
            if let Some(datagrams) = connection.link().queue.datagrams_mut() {
                datagrams.hold_data(Time::ZERO);
            }
            self.schedule(desk, now(), connection);
            connection.read_bell.ring();
            self.mark_write(desk, connection);
        }
        desk.bells.pump.ring();
    }

    /// Puts the connection into the list of those with news, if it has any.
    pub(crate) fn mark_news(&mut self, desk: &Desk, connection: &Rc<Connection>) {
        if connection.link().has_news() && !connection.marks.has_news.replace(true) {
            self.news.push_back(Rc::clone(connection));
            desk.shard.port.nudge();
        }
    }

    /// Hands what peers have to tell to their homes, one message for each home shard; whether there is more
    /// of it that a home would take.
    pub(crate) fn collect_news(&mut self, desk: &Desk) -> bool {
        if self.news.is_empty() {
            return false;
        }
        let port = &desk.shard.port;
        let mut batches: Vec<Vec<PeerNews>> = (0..port.shard_count()).map(|_| Vec::new()).collect();
        let mut again = VecDeque::new();
        for _ in 0..self.news.len() {
            let Some(connection) = self.news.pop_front() else { break };
            let member = connection.link().membership.member();
            let Some((swarm, _)) = member else {
                connection.marks.has_news.set(false);
                continue;
            };
            let home = swarm.home;
            // Without a credit the news stays where it is: state, not a message.
            if home != desk.id() && port.credits(home) == 0 {
                self.news.push_back(connection);
                continue;
            }
            let may_claim = self.outbox.claims_left(home).min(CLAIMS_PER_PEER_MAX);
            let mut link = connection.link();
            let was_full = !link.may_read();
            let taken = link.take_news(may_claim);
            let is_due = link.has_news();
            drop(link);
            connection.marks.has_news.set(is_due);
            let Some(News { news, claims }) = taken else {
                // Its home has enough to do: it goes first when that takes more.
                self.news.push_back(connection);
                continue;
            };
            self.outbox.hand_over(home, claims);
            if was_full {
                connection.read_bell.ring();
                self.schedule(desk, now(), &connection);
            }
            if is_due {
                again.push_back(connection);
            }
            batches[home.index()].push(news);
        }
        for (index, batch) in batches.into_iter().enumerate().filter(|(_, b)| !b.is_empty()) {
            let home = ShardId(u16::try_from(index).expect("few shards"));
            self.outbox.push_home(home, HomeRequest::News(batch));
        }
        // A connection that got a part comes behind those that got none.
        let has_more = !again.is_empty();
        self.news.append(&mut again);
        has_more
    }

    /// Sees to it that the connection is looked at when it has something to do in datagrams.
    pub(crate) fn schedule(&mut self, desk: &Desk, now: Time, connection: &Connection) {
        let mut link = connection.link();
        if link.life.is_closed() {
            return;
        }
        let Some(due) = link.poll_datagrams_timeout(now) else { return };
        let has_data = link.queue.data().is_some();
        drop(link);
        let due = if has_data { due.max(now + DUE_AGAIN_MIN) } else { round_up(due.max(now)) };
        let planned = connection.marks.due.get();
        if planned.is_some_and(|planned| planned <= due) {
            // It is looked at earlier, and then again.
            return;
        }
        let reference = connection.reference;
        if let Some(planned) = planned {
            self.due.remove(&(planned, reference.index, reference.generation));
        }
        let entry = (due, reference.index, reference.generation);
        self.due.insert(entry);
        connection.marks.due.set(Some(due));
        if self.due.first() == Some(&entry) {
            desk.bells.due.ring();
        }
    }

    /// What is due in datagrams; that is then no longer planned.
    pub(crate) fn pop_due(&mut self, now: Time) -> Due {
        match self.due.first() {
            None => Due::Never,
            Some(&(at, ..)) if at > now => Due::At(at),
            Some(&(_, index, generation)) => {
                self.due.pop_first();
                Due::Now(index, generation)
            }
        }
    }

    /// A datagram socket had no room for what the connection has to send.
    pub(crate) fn mark_blocked(&mut self, desk: &Desk, socket: u8, connection: &Rc<Connection>) {
        if !connection.marks.is_blocked.replace(true) {
            let socket = usize::from(socket);
            self.blocked[socket].push(Rc::clone(connection));
            desk.bells.blocked[socket].ring();
        }
    }

    /// Whether a datagram socket has no room, as far as is known.
    pub(crate) fn is_blocked(&self, socket: u8) -> bool {
        !self.blocked[usize::from(socket)].is_empty()
    }

    /// The connections whose data a datagram socket had no room for.
    pub(crate) fn take_blocked(&mut self, socket: u8) -> Vec<Rc<Connection>> {
        std::mem::take(&mut self.blocked[usize::from(socket)])
    }

    /// The connection is gone. It waits for no limit; in the other queues its turn comes soon, and it has
    /// nothing to say then.
    pub(crate) fn forget(&mut self, desk: &Desk, connection: &Connection) {
        self.shaping.forget(desk, connection);
        if let Some(at) = connection.marks.due.take() {
            let reference = connection.reference;
            self.due.remove(&(at, reference.index, reference.generation));
        }
    }
}

/// The next whole step, never the time itself: what is due now could be due again at once.
fn round_up(time: Time) -> Time {
    Time(time.0 - time.0 % DUE_STEP_NS) + Duration::from_nanos(DUE_STEP_NS)
}
