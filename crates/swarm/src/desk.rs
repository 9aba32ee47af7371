//! What every decider is handed: the book, the time, and a place for decisions.

use std::collections::VecDeque;

use relay_protocol::time::Time;

use crate::{api::Action, book::Book};

/// One for the swarm; what comes in and what is decided passes over it.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) book: Book,
    pub(crate) actions: Actions,
    /// When the latest input came.
    pub(crate) now: Time,
}

impl Desk {
    pub(crate) fn new(book: Book) -> Self {
        Self { book, actions: Actions::default(), now: Time::ZERO }
    }
}

/// What was decided and the shell has not looked at yet, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Actions(VecDeque<Action>);

impl Actions {
    /// Something was decided.
    #[inline]
    pub(crate) fn push(&mut self, action: Action) {
        self.0.push_back(action);
    }

    /// The shell looks at the next one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Action> {
        self.0.pop_front()
    }

    /// A decision is void before the shell has looked at it.
    pub(crate) fn take_back(&mut self, void: &Action) {
        let before = self.0.len();
        self.0.retain(|action| action != void);
        debug_assert_eq!(self.0.len() + 1, before, "decided once and not told");
    }
}
