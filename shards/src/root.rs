//! The future that a loop is given: ends its turns, and after its shard's own future cancels what is left.
//!
//! What happens in a turn is in [`crate::turn`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    clock::running::{Looking, now},
    task,
    turn::{self, Turn},
};

/// Turns given to cancelled tasks to drop what they own. A task is dropped at its first poll after
/// the cancellation; what its destructors spawn is never started, so two would do.
const CLOSING_TURNS_MAX: u32 = 64;

/// Turns after that for the kernel to confirm that cancelled operations have ended.
const CONFIRMING_TURNS: u32 = 3;

/// The future of `block_on`: ends turns until `root` has ended and every task is gone.
pub(crate) struct Main {
    root: Option<Pin<Box<dyn Future<Output = ()>>>>,
    alarm: Option<Pin<Box<monoio::time::Sleep>>>,
    /// Deadline that `alarm` is set to; None: it has rung or was never set.
    alarm_deadline: Option<Duration>,
    _looking: Looking,
}

impl Main {
    pub(crate) fn new(root: impl Future<Output = ()> + 'static) -> Self {
        turn::with(Turn::reset);
        task::reset();
        let _looking = Looking::begin();
        Self { root: Some(Box::pin(root)), alarm: None, alarm_deadline: None, _looking }
    }

    /// Sees to it that the loop wakes for the earliest timer.
    fn arm(&mut self, turn: &Turn, context: &mut Context<'_>) {
        let Some(earliest) = turn.earliest() else { return };
        if self.alarm_deadline.is_none_or(|deadline| earliest < deadline) {
            let ahead = earliest.saturating_sub(now());
            if ahead.is_zero() {
                turn.request();
                return;
            }
            self.alarm = Some(Box::pin(monoio::time::sleep(ahead)));
            self.alarm_deadline = Some(earliest);
        }
        let rung = self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(context).is_ready());
        if rung {
            // The timer that it was set for may be gone: look again.
            self.alarm_deadline = None;
            turn.request();
        }
    }
}

impl Future for Main {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        turn::with(|turn| {
            turn.begin(context.waker());
            if let Some(root) = self.root.take() {
                drop(monoio::spawn(live(root)));
            }
            turn.end();
            if turn.is_over() {
                turn.leave();
                return Poll::Ready(());
            }
            self.arm(turn, context);
            Poll::Pending
        })
    }
}

/// Runs `root`, then cancels what it left behind, so that sockets close and operations end before
/// the event loop is dropped.
async fn live(root: Pin<Box<dyn Future<Output = ()>>>) {
    root.await;
    task::cancel_all();
    for _ in 0..CLOSING_TURNS_MAX {
        if task::count() == 0 {
            break;
        }
        task::yield_now().await;
    }
    for _ in 0..CONFIRMING_TURNS {
        task::yield_now().await;
    }
    turn::with(Turn::finish);
}
