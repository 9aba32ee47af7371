//! The end of a shard: chunks in flight are finished, nothing new is begun.

use std::{rc::Rc, time::Duration};

use shards::clock;

use super::shard::{ShardState, now, shutting_down};

/// How often a draining shard looks whether it is done.
const POLL: Duration = Duration::from_millis(10);

/// Connections that are told that the relay shuts down get so long to take it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Everything that was given to connections is written and acknowledged, or the time is over.
pub(crate) fn is_done(state: &ShardState) -> bool {
    if now() >= state.shared.drain_deadline() {
        return true;
    }
    let connections = state.connections.borrow();
    connections.iter().all(|connection| {
        let link = connection.link();
        if link.life.is_closing() {
            return !link.queue.has_urgent();
        }
        let window_is_clear = link.session.window().unacknowledged_bytes() == 0;
        link.queue.is_empty() && window_is_clear
    })
}

/// Tells every peer and waits until the connections have ended.
pub(crate) async fn close_all(state: &Rc<ShardState>) {
    let connections: Vec<_> = state.connections.borrow().iter().cloned().collect();
    for connection in &connections {
        connection.close_with(now() + LAST_WORDS, shutting_down());
        state.pump(connection);
    }
    let deadline = now() + LAST_WORDS;
    while state.connections.borrow().len() > 0 && now() < deadline {
        clock::sleep(POLL).await;
    }
    for connection in state.connections.borrow().iter() {
        connection.close_now();
    }
    // The last system calls in flight end before the runtime does.
    while state.connections.borrow().len() > 0 && now() < deadline + LAST_WORDS {
        clock::sleep(POLL).await;
    }
}
