//! What the relay's limits mean on one shard: what may be sent and read now, and what waits for its turn.
//!
//! Two limits bound each direction, that of all connections and that of each. A connection waits for its own first: so
//! none stands in the queue of all that may not go when its turn comes. What comes by a stream is simply read later, where
//! it was asked for, and what comes in datagrams, too: QUIC holds its sender back. What comes unasked holds up its own
//! connection, and no other.
//!
//! While nothing is limited each question costs a branch.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use super::{
    desk::{Desk, now},
    shaper::{Limit, Shaper},
};
use crate::{connection::Connection, limits::Limits};
use relay_protocol::{
    rate::{Gcra, Rate},
    time::Time,
};

/// The limits of one shard.
#[derive(Default)]
pub(crate) struct Shaping {
    generation: u64,
    limits: Limits,
    sending: Shaper<Rc<Connection>>,
    reading: Shaper<Rc<Connection>>,
    /// Connections that wait for their own limit to be sent something, by its time, index and generation.
    paced: BTreeMap<(Time, u32, u32), Rc<Connection>>,
}

/// Whether a connection may be read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// So many bytes.
    Now(u64),
    /// Not before.
    At(Time),
    /// When its bell is rung.
    InTurn,
}

impl Shaping {
    /// Whether the limits were set anew: then nothing waits any longer.
    pub(super) fn refresh(&mut self, desk: &Desk) -> bool {
        let generation = desk.shared.policy.rates.generation();
        if generation == self.generation {
            return false;
        }
        (self.generation, self.limits) = (generation, desk.shared.policy.rates.limits());
        let paced = std::mem::take(&mut self.paced).into_values();
        for connection in self.sending.clear().chain(paced) {
            release_sending(desk, &connection, now());
        }
        for connection in self.reading.clear() {
            connection.pace.waits_to_read.set(false);
        }
        true
    }

    fn egress<'a>(&self, desk: &'a Desk) -> Option<Limit<'a>> {
        self.limits.egress.map(|rate| Limit { total: &desk.shared.policy.rates.egress, rate })
    }

    fn ingress<'a>(&self, desk: &'a Desk) -> Option<Limit<'a>> {
        self.limits.ingress.map(|rate| Limit { total: &desk.shared.policy.rates.ingress, rate })
    }
}

/// What goes out.
impl Shaping {
    fn limits_sending(&self) -> bool {
        self.limits.egress.is_some() || self.limits.peer.is_some()
    }

    /// New file bytes that the connection may be sent now.
    pub(super) fn sending_room(&mut self, desk: &Desk, connection: &Connection) -> u64 {
        if !self.limits_sending() {
            return u64::MAX;
        }
        if connection.pace.waits_to_send.get() {
            return 0;
        }
        let now = now();
        match peer_room(self.limits.peer, &connection.pace.sent, now) {
            0 => 0,
            own => self.egress(desk).map_or(own, |limit| self.sending.room(limit, now).min(own)),
        }
    }

    /// The connection would be sent something and may not be: it waits.
    pub(crate) fn hold_sending(&mut self, desk: &Desk, connection: &Rc<Connection>) {
        if connection.pace.waits_to_send.replace(true) {
            return;
        }
        let now = now();
        connection.link().hold_sending(now);
        let own = connection.pace.sent.get().next();
        match self.egress(desk) {
            Some(limit) if self.limits.peer.is_none() || own <= now => {
                self.sending.wait(limit, now, Rc::clone(connection));
                self.note_held_back(desk);
            }
            _ => {
                connection.pace.paced_until.set(Some(own));
                self.paced.insert(paced_key(own, connection), Rc::clone(connection));
                desk.shared.policy.rates.note_held_back(own);
            }
        }
    }

    /// Something waits for the limit of all to be sent.
    fn note_held_back(&self, desk: &Desk) {
        if let Some(until) = self.sending.waits_until() {
            desk.shared.policy.rates.note_held_back(until);
        }
    }

    /// The next connection whose turn has come, and the new file bytes that it may be sent.
    pub(super) fn pop_sending(&mut self, desk: &Desk) -> Option<(Rc<Connection>, u64)> {
        if !self.limits_sending() {
            return None;
        }
        let now = now();
        if self.paced.first_key_value().is_some_and(|((at, ..), _)| *at <= now) {
            let (_, connection) = self.paced.pop_first()?;
            release_sending(desk, &connection, now);
            let room = self.sending_room(desk, &connection);
            return Some((connection, room));
        }
        let limit = self.egress(desk)?;
        let (connection, room) = self.sending.pop(limit, now)?;
        self.note_held_back(desk);
        release_sending(desk, &connection, now);
        let own = peer_room(self.limits.peer, &connection.pace.sent, now);
        Some((connection, room.min(own)))
    }

    /// So many file bytes of the connection are on their way.
    pub(crate) fn note_sent(&mut self, desk: &Desk, connection: &Connection, bytes: u64) {
        if !self.limits_sending() {
            return;
        }
        let now = now();
        charge(self.limits.peer, &connection.pace.sent, now, bytes);
        if let Some(limit) = self.egress(desk) {
            let beyond = self.sending.take(bytes);
            if beyond > 0 {
                // The rest of a frame that had begun: it goes, whatever room there is.
                limit.total.charge(limit.rate, now, beyond);
            }
        }
    }

    /// Nothing is left to send but what waits: when that may go.
    pub(super) fn rest_sending(&mut self, desk: &Desk) -> Option<Time> {
        if !self.limits_sending() {
            return None;
        }
        if let Some(limit) = self.egress(desk) {
            self.sending.settle(limit);
        }
        let paced = self.paced.keys().next().map(|&(at, ..)| at);
        self.sending.due().into_iter().chain(paced).min()
    }
}

/// What comes in.
impl Shaping {
    fn limits_reading(&self) -> bool {
        self.least().is_some()
    }

    /// What a single connection may supply.
    fn least(&self) -> Option<Rate> {
        self.limits.ingress.into_iter().chain(self.limits.peer).min()
    }

    /// Whether the connection's stream may be read.
    pub(crate) fn reading_room(&mut self, desk: &Desk, connection: &Rc<Connection>) -> Reading {
        if !self.limits_reading() {
            return Reading::Now(u64::MAX);
        }
        let (pace, now) = (&connection.pace, now());
        if !is_read_in_turn(connection, now) {
            // Messages, unless it breaks the rules.
            return Reading::Now(self.least().map_or(u64::MAX, Rate::quantum_bytes));
        }
        if pace.waits_to_read.get() {
            return Reading::InTurn;
        }
        if pace.unasked_until() > now {
            return Reading::At(pace.unasked_until());
        }
        let own = peer_room(self.limits.peer, &pace.received, now);
        if own == 0 {
            return Reading::At(pace.received.get().next());
        }
        let Some(limit) = self.ingress(desk) else {
            pace.granted_bytes.set(own);
            return Reading::Now(own);
        };
        if pace.granted_bytes.get() == 0 {
            let room = self.reading.room(limit, now);
            if room == 0 {
                pace.waits_to_read.set(true);
                self.reading.wait(limit, now, Rc::clone(connection));
                desk.bells.intake.ring();
                return Reading::InTurn;
            }
            self.reading.take(room);
            pace.granted_bytes.set(room);
        }
        Reading::Now(own.min(pace.granted_bytes.get()))
    }

    /// So many file bytes came by the connection's stream.
    pub(crate) fn note_read(&mut self, desk: &Desk, connection: &Connection, bytes: u64) {
        if !self.limits_reading() {
            return;
        }
        let (pace, now) = (&connection.pace, now());
        charge(self.limits.peer, &pace.received, now, bytes);
        self.note_unasked(desk, connection, now, bytes.saturating_sub(pace.granted_bytes.get()));
        self.give_back(desk, connection, bytes);
    }

    /// So many bytes came that were late, or that the peer was not asked for. They hold up none but itself.
    fn note_unasked(&self, desk: &Desk, connection: &Connection, now: Time, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if let Some(limit) = self.ingress(desk) {
            limit.total.charge_unasked(limit.rate, now, bytes);
        }
        if let Some(rate) = self.least() {
            connection.pace.charge_unasked(rate, now, bytes);
        }
    }

    /// Of what was granted so much was used.
    pub(crate) fn give_back(&mut self, desk: &Desk, connection: &Connection, used_bytes: u64) {
        let granted = connection.pace.granted_bytes.take();
        let Some(limit) = self.ingress(desk) else { return };
        self.reading.give_back(granted.saturating_sub(used_bytes));
        if self.reading.due() == Some(Time::ZERO) {
            desk.bells.intake.ring();
        }
        self.reading.settle(limit);
    }

    /// Has those read whose turn has come; when the next one's comes.
    pub(crate) fn grant_reading(&mut self, desk: &Desk) -> Option<Time> {
        let limit = self.ingress(desk)?;
        while let Some((connection, room)) = self.reading.pop(limit, now()) {
            connection.pace.waits_to_read.set(false);
            let is_closing = connection.link().life.is_closing();
            if !is_closing && is_read_in_turn(&connection, now()) {
                self.reading.take(room);
                connection.pace.granted_bytes.set(room);
            }
            connection.read_bell.ring();
        }
        self.reading.settle(limit);
        self.reading.due()
    }

    /// File bytes of datagrams that are read at a time.
    pub(crate) fn datagrams_room(&self) -> u64 {
        self.least().map_or(u64::MAX, Rate::quantum_bytes)
    }

    /// So many file bytes were read of datagrams, some of them unasked: the next are read when they are over at the
    /// rate.
    pub(crate) fn note_datagrams(
        &mut self,
        desk: &Desk,
        connection: &Connection,
        bytes: u64,
        unasked_bytes: u64,
    ) {
        if bytes == 0 || !self.limits_reading() {
            return;
        }
        let now = now();
        let asked_bytes = bytes.saturating_sub(unasked_bytes);
        let all = self.ingress(desk).map(|limit| limit.total.charge(limit.rate, now, asked_bytes));
        let own = charge(self.limits.peer, &connection.pace.received, now, asked_bytes);
        self.note_unasked(desk, connection, now, unasked_bytes);
        let unasked = Some(connection.pace.unasked_until());
        let until = all.into_iter().chain(own).chain(unasked).max().unwrap_or(now);
        if let Some(datagrams) = connection.link().queue.datagrams_mut() {
            datagrams.hold_data(until);
        }
        count_held_data(desk, connection, now);
        connection.pace.hold_data(now, until);
    }

    /// The connection is gone: nothing keeps it, and nothing was granted to it.
    pub(super) fn forget(&mut self, desk: &Desk, connection: &Connection) {
        let pace = &connection.pace;
        if let Some(until) = pace.paced_until.take() {
            self.paced.remove(&paced_key(until, connection));
        } else if pace.waits_to_send.get() {
            self.sending.forget(|other| std::ptr::eq(Rc::as_ptr(other), connection));
        }
        if pace.waits_to_read.get() {
            self.reading.forget(|other| std::ptr::eq(Rc::as_ptr(other), connection));
        }
        self.give_back(desk, connection, 0);
        end_hold(desk, connection, now());
    }
}

/// Whether file bytes may come by the connection's stream.
fn is_read_in_turn(connection: &Connection, now: Time) -> bool {
    connection.link().expects_stream_data() || connection.pace.brings_unasked(now)
}

/// What came in datagrams waits no longer to be read.
pub(super) fn end_hold(desk: &Desk, connection: &Connection, now: Time) {
    connection.pace.end_hold(now);
    count_held_data(desk, connection, now);
}

/// The same, if its time is over.
pub(crate) fn count_held_data(desk: &Desk, connection: &Connection, now: Time) {
    let held = connection.pace.take_held_data(now);
    desk.cells.held_reading_us.add(micros(held));
}

fn paced_key(until: Time, connection: &Connection) -> (Time, u32, u32) {
    (until, connection.reference.index, connection.reference.generation)
}

/// The connection's turn has come.
fn release_sending(desk: &Desk, connection: &Connection, now: Time) {
    connection.pace.waits_to_send.set(false);
    connection.pace.paced_until.set(None);
    let held = connection.link().release_sending(now);
    desk.cells.held_sending_us.add(micros(held));
}

fn peer_room(limit: Option<Rate>, moved: &std::cell::Cell<Gcra>, now: Time) -> u64 {
    limit.map_or(u64::MAX, |rate| moved.get().room_bytes(rate, now))
}

fn charge(
    limit: Option<Rate>,
    moved: &std::cell::Cell<Gcra>,
    now: Time,
    bytes: u64,
) -> Option<Time> {
    let mut slots = moved.get();
    let end = slots.charge(limit?, now, bytes);
    moved.set(slots);
    Some(end)
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
