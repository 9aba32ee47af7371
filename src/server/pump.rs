//! Writing for all connections of a shard, in turn: one gathered write each, then the next.
//!
//! Round robin over connections is what makes a shard fair, and writing one chunk to many
//! peers in a row is what keeps it in the core's cache.

use std::rc::Rc;

use shards::task;

use super::{
    connection::Connection,
    shard::{ShardState, now},
};

/// Writes of one round before other tasks get their turn: about a millisecond.
const WRITES_PER_ROUND_MAX: usize = 16;

/// Writes as long as the shard lives.
pub(crate) async fn run(state: Rc<ShardState>) {
    loop {
        for _ in 0..WRITES_PER_ROUND_MAX {
            let Some(connection) = state.pumped.borrow_mut().pop_front() else { break };
            connection.is_pumped.set(false);
            write_once(&state, &connection);
        }
        if state.pumped.borrow().is_empty() {
            state.pump_bell.wait().await;
        } else {
            task::yield_now().await;
        }
    }
}

fn write_once(state: &Rc<ShardState>, connection: &Rc<Connection>) {
    if !connection.wants_write() {
        return;
    }
    match connection.write(now()) {
        Ok(written) => {
            let cells = &state.cells;
            cells.data_out_bytes.add(written.data_bytes);
            let control = (written.total_bytes as u64).saturating_sub(written.data_bytes);
            cells.control_out_bytes.add(control);
            state.mark_news(connection);
            if written.blocked {
                connection.blocked_bell.ring();
            } else {
                state.pump(connection);
            }
            if connection.may_read() {
                connection.read_bell.ring();
            }
            if connection.is_closing.get() && !connection.queue.borrow().has_urgent() {
                // The last words are out: the reader lingers until they were heard.
                connection.shut_write();
            }
        }
        Err(error) => {
            tracing::debug!(remote = %connection.remote, "failed to write: {error}");
            connection.close_now();
        }
    }
}

/// Waits for the socket whenever it would block, as long as the connection lives.
pub(crate) async fn wait_writable(state: Rc<ShardState>, connection: Rc<Connection>) {
    loop {
        connection.blocked_bell.wait().await;
        if connection.is_closed.get() {
            return;
        }
        if !connection.is_blocked.get() {
            continue;
        }
        if connection.socket.writable().await.is_err() {
            connection.close_now();
            return;
        }
        connection.is_blocked.set(false);
        state.pump(&connection);
    }
}
