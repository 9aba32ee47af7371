//! The tasks of a connection beside its reader: each waits for one thing and does what follows.

use std::{
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use shards::{clock, task};

use super::{HANDSHAKE_TICK, Link, Stage, now};
use crate::intake::LIMITED_STEP;

/// Writes on when the socket has room again. It owns the link while it does: the socket must not
/// go while somebody waits for it.
pub(super) async fn write_when_full(link: Rc<Link>) {
    loop {
        link.full.wait().await;
        while !link.broken.get() && !link.core.borrow().queue.is_stream_empty() {
            if link.socket.writable().await.is_err() {
                link.shutdown();
                break;
            }
            link.pump();
            link.drained.set();
            // One write, then the others of the shard.
            task::yield_now().await;
        }
        link.drained.set();
        if link.closed.get() {
            return;
        }
    }
}

/// Hears what a store has done that takes its time.
pub(super) async fn watch_store(link: Rc<Link>) {
    while !link.closed.get() {
        link.stored.wait().await;
        let stored = link.core.borrow_mut().handle_stored();
        match stored {
            // What is in the socket already is acknowledged, too, by the reader's next turn.
            Ok(()) => link.pump(),
            Err(error) => link.fail(error),
        }
        link.drained.set();
    }
}

/// Watches the handshake's deadline, and doles out a limited peer's grants.
pub(super) async fn watch_time(link: Weak<Link>) {
    loop {
        let Some(wait) = link.upgrade().and_then(|link| link.next_tick()) else { return };
        clock::sleep(wait).await;
        let Some(link) = link.upgrade().filter(|link| !link.closed.get()) else { return };
        let timed_out = link.core.borrow_mut().session.handle_timeout(now());
        match timed_out {
            Ok(()) => link.pump(),
            Err(error) => link.fail(link.session_error(error)),
        }
    }
}

impl Link {
    /// How long the timer sleeps; `None` when there is nothing more to watch.
    fn next_tick(&self) -> Option<Duration> {
        let core = self.core.borrow();
        let is_limited = core.session.is_limited();
        if core.session.stage() == Stage::Joined && !is_limited {
            return None;
        }
        let tick_max = if is_limited { LIMITED_STEP } else { HANDSHAKE_TICK };
        let due = core.session.poll_timeout().map(|due| due.since(now()));
        Some(due.unwrap_or(tick_max).clamp(Duration::from_millis(1), tick_max))
    }
}

/// A task of the connection panicked: it ends.
pub(crate) fn fail(link: &Weak<Link>, text: &str) {
    if let Some(link) = link.upgrade() {
        let error = io::Error::other(format!("a task of this connection panicked: {text}"));
        link.fail(link.io_error(error));
    }
}
