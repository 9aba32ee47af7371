//! Connections that belong to no swarm, because they have not introduced themselves or only ask for
//! counters: how many there may be, and for how long.

use std::{collections::VecDeque, rc::Rc};

use super::connection::Connection;
use relay_protocol::{limits::HANDSHAKE_TIMEOUT, time::Time};

/// Connections of the process that may be un-introduced at once: what a burst of honest peers
/// needs, at a few KiB each.
const UNINTRODUCED_MAX: usize = 2048;

/// Connections of the process that only ask for counters, at once: scripts and load generators, one or
/// two of each. Few descriptors allow fewer.
pub(super) const OBSERVERS_MAX: usize = 256;

/// A shard has room for so many observers, however many shards there are: they don't spread evenly.
const OBSERVERS_PER_SHARD_MIN: usize = 16;

/// Some of this shard's connections, the one that goes first in front.
pub(crate) struct Unjoined {
    waiting: VecDeque<Rc<Connection>>,
    max: usize,
}

impl Unjoined {
    /// Of those that have not introduced themselves, the oldest goes first.
    pub(crate) fn handshakes(shard_count: usize) -> Self {
        Self::new((UNINTRODUCED_MAX / shard_count).max(1))
    }

    /// Of those that only ask for counters, who has asked for none for the longest time goes first.
    pub(crate) fn observers(max: usize, shard_count: usize) -> Self {
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
