//! What was decided and the shell has not looked at yet, in its order.

use std::collections::VecDeque;

use crate::api::Action;

/// Decisions, the oldest first.
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
