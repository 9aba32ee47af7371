//! The tasks of a connection beside its reader: each waits for one thing and does what follows.

use std::{
    rc::{Rc, Weak},
    time::Duration,
};

use shards::{clock, task};

use super::{core::now, link::Link};
use crate::intake::LIMITED_STEP;

/// How often the handshake's deadline is looked at.
const HANDSHAKE_TICK: Duration = Duration::from_secs(1);

/// Writes on when the socket has room again. It owns the link while it does: the socket must not
/// go while a task waits for it.
pub(super) async fn write_when_full(link: Rc<Link>) {
    loop {
        link.full.wait().await;
        while link.is_open() && link.core.borrow().wants_socket(now()) {
            if link.socket.writable().await.is_err() {
                link.shutdown();
                break;
            }
            link.pump();
            link.drained.ring();
            // One write, then the others of the shard.
            task::yield_now().await;
        }
        link.drained.ring();
        if link.is_closed() {
            return;
        }
    }
}

/// Goes on with what the limit of uploads held back, when its time has come.
pub(super) async fn pace_uploads(link: Rc<Link>) {
    while !link.is_closed() {
        link.paced.wait().await;
        loop {
            let wait = link.core.borrow().limit.due().since(now());
            if wait.is_zero() || link.is_closed() {
                break;
            }
            // Rung or due, all the same: it is looked at again.
            clock::timeout(wait.max(TIMER_LEAST), link.paced.wait()).await;
        }
        link.pump();
    }
}

/// Hears what a store has done that takes its time.
pub(super) async fn watch_store(link: Rc<Link>) {
    while !link.is_closed() {
        link.stored.wait().await;
        let stored = link.core.borrow_mut().handle_stored();
        match stored {
            // What is in the socket already is acknowledged, too, by the reader's next turn.
            Ok(()) => link.pump(),
            Err(error) => link.fail(error),
        }
        link.drained.ring();
    }
}

/// Watches the handshake's deadline, and doles out a limited peer's grants.
pub(super) async fn watch_time(link: Weak<Link>) {
    loop {
        let Some(wait) = link.upgrade().and_then(|link| link.next_tick()) else { return };
        clock::sleep(wait).await;
        let Some(link) = link.upgrade().filter(|link| !link.is_closed()) else { return };
        let timed_out = link.core.borrow_mut().session.handle_timeout(now());
        match timed_out {
            Ok(()) => link.pump(),
            Err(error) => link.fail(link.session_error(error)),
        }
    }
}

/// No timer of the event loop is finer than this.
const TIMER_LEAST: Duration = Duration::from_millis(1);

impl Link {
    /// How long the timer sleeps; `None` when there is nothing more to watch.
    fn next_tick(&self) -> Option<Duration> {
        let core = self.core.borrow();
        let is_limited = core.session.is_limited();
        if core.session.is_joined() && !is_limited {
            return None;
        }
        let tick_max = if is_limited { LIMITED_STEP } else { HANDSHAKE_TICK };
        let due = core.session.poll_timeout().map(|due| due.since(now()));
        Some(due.unwrap_or(tick_max).clamp(Duration::from_millis(1), tick_max))
    }
}
