//! Time as shards see it: a monotonic duration since the process began to ask, and sleeping.
//!
//! No calendar time, and nothing finer than what the event loop can wake for (about 1 ms).
//!
//! Time that the process did not run is no time here: what is waited for had no chance to come. A lid
//! was closed, a machine was paused, a user pressed Ctrl-Z: every event loop looks at this clock twice
//! a second, so when none has for longer, none was running.

mod lapses;
pub(crate) mod running;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use self::running::BEAT_INTERVAL;
pub use self::running::{lapsed, now};
use crate::turn::{self, TimerKey};

/// Looks at the clock for as long as the loop turns.
pub(crate) async fn look() {
    loop {
        sleep(BEAT_INTERVAL).await;
    }
}

/// Waits for `duration`, on a shard only. Later than asked by about a millisecond, and on a
/// shard whose tasks don't return to the loop by as much as they take.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now().saturating_add(duration))
}

/// Waits until [`now`] is at least `deadline`. A deadline in the past lets the loop make one turn.
pub fn sleep_until(deadline: Duration) -> Sleep {
    Sleep { deadline, key: None }
}

/// Runs `future` for at most `duration`. None: the time was up, and `future` is dropped, so it must
/// bear that. Readiness of sockets, sleeping, `Port::wait` and a task's end do.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        Pin::new(&mut sleep).poll(context).map(|()| None)
    })
    .await
}

/// What [`sleep`] returns. Dropping it costs nothing and loses nothing.
#[derive(Debug)]
#[must_use = "a future does nothing unless awaited"]
pub struct Sleep {
    deadline: Duration,
    key: Option<TimerKey>,
}

impl Sleep {
    /// When it ends, on the scale of [`now`].
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.key {
            None => self.key = Some(turn::timer_add(self.deadline, context.waker())),
            Some(key) if turn::timer_pending(key, context.waker()) => {}
            Some(_) => {
                self.key = None;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            turn::timer_remove(key);
        }
    }
}
