//! A bell between tasks of one shard: no system call, no other thread.
//!
//! Rings are not counted: one that no task has waited for yet is remembered, once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Wakes the one task that waits for it.
#[derive(Debug, Default)]
pub struct LocalBell {
    rung: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl LocalBell {
    /// Silent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the waiter, or the next that comes.
    pub fn ring(&self) {
        self.rung.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waker) = waiter {
            waker.wake();
        }
    }

    /// Whether it was rung since the last wait, which is then forgotten.
    pub fn take(&self) -> bool {
        self.rung.replace(false)
    }

    /// Until it is rung, or at once if it was since the last wait. One task at a time may wait.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
