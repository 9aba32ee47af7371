//! Connections that have not introduced themselves: how many, for how long.

use std::{collections::VecDeque, rc::Rc};

use super::connection::Connection;
use crate::{protocol::limits::HANDSHAKE_TIMEOUT, time::Time};

/// Connections of the process that may be un-introduced at once: what a burst of honest peers
/// needs, at a few KiB each.
pub(crate) const UNINTRODUCED_MAX: usize = 2048;

/// This shard's un-introduced connections, oldest first.
#[derive(Default)]
pub(crate) struct Handshakes {
    waiting: VecDeque<Rc<Connection>>,
    max: usize,
}

impl Handshakes {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self { waiting: VecDeque::new(), max: (UNINTRODUCED_MAX / shard_count).max(1) }
    }

    /// One more; the oldest, if that is one too many.
    pub(crate) fn push(&mut self, connection: &Rc<Connection>) -> Option<Rc<Connection>> {
        self.waiting.push_back(Rc::clone(connection));
        if self.waiting.len() <= self.max {
            return None;
        }
        self.waiting.pop_front()
    }

    /// It has introduced itself, or is gone.
    pub(crate) fn forget(&mut self, connection: &Rc<Connection>) {
        if let Some(at) = self.waiting.iter().position(|other| Rc::ptr_eq(other, connection)) {
            self.waiting.remove(at);
        }
    }

    /// Whether all have introduced themselves.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One that has had its time.
    pub(crate) fn pop_overdue(&mut self, now: Time) -> Option<Rc<Connection>> {
        let oldest = self.waiting.front()?;
        if now.since(oldest.accepted_at) < HANDSHAKE_TIMEOUT {
            return None;
        }
        self.waiting.pop_front()
    }
}
