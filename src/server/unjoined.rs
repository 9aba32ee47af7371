//! Connections that belong to no swarm, because they have not introduced themselves or only ask for
//! counters: how many there may be, and for how long.

use std::{collections::VecDeque, rc::Rc};

use super::connection::Connection;
use crate::{protocol::limits::HANDSHAKE_TIMEOUT, time::Time};

/// Connections of the process that may be un-introduced at once: what a burst of honest peers
/// needs, at a few KiB each.
pub(crate) const UNINTRODUCED_MAX: usize = 2048;

/// Connections of the process that only ask for counters, at once: scripts and load generators, one or
/// two of each. They have a descriptor each, beyond what `--max-peers` counts.
pub(crate) const OBSERVERS_MAX: usize = 256;

/// A shard has room for so many of either kind, however many shards there are: connections don't spread
/// evenly.
const PER_SHARD_MIN: usize = 16;

/// Some of this shard's connections, the one that goes first in front.
pub(crate) struct Unjoined {
    waiting: VecDeque<Rc<Connection>>,
    max: usize,
}

impl Unjoined {
    /// This shard's part of as many as the process may have.
    pub(crate) fn new(max_of_process: usize, shard_count: usize) -> Self {
        Self { waiting: VecDeque::new(), max: (max_of_process / shard_count).max(PER_SHARD_MIN) }
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
