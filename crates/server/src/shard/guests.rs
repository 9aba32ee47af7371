//! The connections of one shard, and how many there may be of those that belong to no swarm.
//!
//! Those have not introduced themselves, or only ask for counters: both are bounded in number, the first in
//! time as well.

use std::{collections::VecDeque, rc::Rc};

use super::{
    slots::Slots,
    window_pool::{WindowPool, newcomers_part},
};
use crate::{
    connection::Connection,
    message::{ConnectionRef, SwarmRef},
    session::window::Window,
};
use relay_protocol::{limits::HANDSHAKE_TIMEOUT, path, time::Time};

/// Connections of the process that may be un-introduced at once: what a burst of honest peers
/// needs, at a few KiB each.
const UNINTRODUCED_MAX: usize = 2048;

/// A shard has room for so many observers, however many shards there are: they don't spread evenly.
const OBSERVERS_PER_SHARD_MIN: usize = 16;

/// Everything that is connected to one shard.
pub(crate) struct Guests {
    all: Slots<Rc<Connection>>,
    pub handshakes: Unjoined,
    pub observers: Unjoined,
    pub windows: WindowRoom,
}

/// What the last sweep left to windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowRoom {
    /// No window of this shard is larger for now.
    pub ceiling_bytes: u64,
    /// Of this shard's part of their sum, what the windows of those leave that were there at the last sweep.
    pub room_bytes: u64,
}

impl Guests {
    /// Of a relay with so many shards and places for observers.
    pub(crate) fn new(shard_count: usize, observers_max: usize) -> Self {
        Self {
            all: Slots::new(),
            handshakes: Unjoined::handshakes(shard_count),
            observers: Unjoined::observers(observers_max, shard_count),
            windows: WindowRoom {
                ceiling_bytes: path::BYTES_NEAR,
                room_bytes: WindowPool::own_part(shard_count as u64),
            },
        }
    }

    /// Index and generation of the connection that comes next.
    pub(crate) fn next(&mut self) -> (u32, u32) {
        self.all.next()
    }

    /// The connection comes, with the index that it was given. If too many have not introduced themselves, the
    /// oldest of them has to go.
    pub(crate) fn insert(&mut self, connection: &Rc<Connection>) -> Option<Rc<Connection>> {
        self.all.insert(Rc::clone(connection));
        self.handshakes.push(connection)
    }

    /// The connection has gone.
    pub(crate) fn forget(&mut self, connection: &Rc<Connection>) {
        let ConnectionRef { index, generation, .. } = connection.reference;
        self.all.remove(index, generation);
        self.handshakes.forget(connection);
        self.observers.forget(connection);
    }

    /// The connection, if it is still the one that is meant.
    pub(crate) fn get(&self, index: u32, generation: u32) -> Option<&Rc<Connection>> {
        self.all.get(index, generation)
    }

    pub(crate) fn of(&self, to: ConnectionRef) -> Option<Rc<Connection>> {
        self.get(to.index, to.generation).cloned()
    }

    /// The connection, unless its part in its swarm has ended.
    pub(crate) fn present(&self, to: ConnectionRef) -> Option<Rc<Connection>> {
        self.of(to).filter(|connection| !connection.link().membership.has_left())
    }

    /// The connections of a swarm.
    pub(crate) fn members(&self, swarm: SwarmRef) -> Vec<Rc<Connection>> {
        let is_member = |connection: &&Rc<Connection>| {
            connection.link().membership.member().is_some_and(|(other, _)| other == swarm)
        };
        self.all.iter().filter(is_member).cloned().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.all.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The window of the next newcomer, which begins with so many bytes. Until the next sweep it grows into what
    /// others leave: a part of that for each that comes meanwhile.
    pub(crate) fn first_window(&mut self, first_bytes: u64) -> Window {
        let WindowRoom { ceiling_bytes, room_bytes } = self.windows;
        let most = newcomers_part(room_bytes, ceiling_bytes, first_bytes);
        self.windows.room_bytes = room_bytes.saturating_sub(most);
        let mut window = Window::new(first_bytes);
        window.set_ceiling(most);
        window
    }
}

/// Some of a shard's connections, the one that goes first in front.
pub(crate) struct Unjoined {
    waiting: VecDeque<Rc<Connection>>,
    max: usize,
}

impl Unjoined {
    /// Of those that have not introduced themselves, the oldest goes first.
    fn handshakes(shard_count: usize) -> Self {
        Self::new((UNINTRODUCED_MAX / shard_count).max(1))
    }

    /// Of those that only ask for counters, the one that has asked for none for the longest time goes first.
    fn observers(max: usize, shard_count: usize) -> Self {
        Self::new((max / shard_count).max(OBSERVERS_PER_SHARD_MIN.min(max)))
    }

    fn new(max: usize) -> Self {
        Self { waiting: VecDeque::new(), max }
    }

    /// One more; the first, if that is one too many.
    pub(crate) fn push(&mut self, connection: &Rc<Connection>) -> Option<Rc<Connection>> {
        self.waiting.push_back(Rc::clone(connection));
        if self.waiting.len() <= self.max {
            return None;
        }
        self.waiting.pop_front()
    }

    /// It goes last from now on, if it is one of these.
    pub(crate) fn refresh(&mut self, connection: &Rc<Connection>) {
        if let Some(connection) = self.take(connection) {
            self.waiting.push_back(connection);
        }
    }

    /// It is none of these any more, or gone.
    pub(crate) fn forget(&mut self, connection: &Rc<Connection>) {
        self.take(connection);
    }

    fn take(&mut self, connection: &Rc<Connection>) -> Option<Rc<Connection>> {
        let at = self.waiting.iter().position(|other| Rc::ptr_eq(other, connection))?;
        self.waiting.remove(at)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One that has had the time of a handshake.
    pub(crate) fn pop_overdue(&mut self, now: Time) -> Option<Rc<Connection>> {
        let oldest = self.waiting.front()?;
        if now.since(oldest.accepted_at) < HANDSHAKE_TIMEOUT {
            return None;
        }
        self.waiting.pop_front()
    }
}
