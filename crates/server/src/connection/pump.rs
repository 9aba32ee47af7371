//! Writing for all connections of a shard, in turn: one gathered write each, then the next.
//!
//! Round robin over connections is what makes a shard fair, and writing one chunk to many
//! peers in a row is what keeps it in the core's cache.
//!
//! Peers on this machine share its cores, and the listener gives each to the shard on its own
//! core. What is written to them is dearest when it lies about in the kernel until the scheduler
//! takes the core away from the shard: by then it has left the cache, and so have the pages that it
//! is copied to. So the shard cedes the core every now and then (`LOCAL_BYTES_MAX`).

use std::rc::Rc;

use shards::{clock, task};

use super::{Connection, udp_out};
use crate::shard::{
    Parts, ShardState,
    desk::{Desk, TIMER_LEAST, now},
    ready::{Ready, Rest},
};

/// Writes of one round before other tasks get their turn: about a millisecond.
const WRITES_PER_ROUND_MAX: usize = 16;

/// Bytes that peers on this machine are given before they may have the core: they fit into its
/// second-level cache, and so do the pages that they were copied to when those are used again.
/// Measured with the main job on 2 cores, origin, 16 rounds in alternation (relay's CPU seconds, wall
/// seconds): 128 KiB 1.23, 3.27; 256 KiB 1.20, 3.31; 512 KiB 1.35, 3.25; 1 MiB 1.69, 3.44; in an earlier
/// series 2 MiB 1.9, 4 MiB 2.7, never 2.5. Below 512 KiB the clients pay what the relay saves.
const LOCAL_BYTES_MAX: u64 = 512 << 10;

/// What is lent counts this part of its bytes there: pages that are referred to take no place in that cache, only
/// the one copy of the chunk does. With 512 KiB, 1, 2 and 4 MiB for lent bytes alone the main job's sum of CPU seconds
/// was 0.92, 0.96, 0.90 and 0.90 of that with copies, with 16 MiB 0.96 (5 rounds).
const LENT_PART: u64 = 4;

/// Writes as long as the shard lives.
pub(crate) async fn run(state: Rc<ShardState>) {
    let mut local_bytes = 0;
    loop {
        for _ in 0..WRITES_PER_ROUND_MAX {
            let written = write_next(&state.desk, &mut state.parts());
            let Some((is_local, written_bytes)) = written else { break };
            if is_local {
                local_bytes += written_bytes;
            }
            if local_bytes >= LOCAL_BYTES_MAX {
                local_bytes = 0;
                task::cede_core();
            }
        }
        let idle = state.parts().ready.rest(&state.desk);
        match idle {
            Rest::Some => task::yield_now().await,
            Rest::Nothing => state.desk.bells.pump.wait().await,
            Rest::Until(at) => {
                // Rung or due, all the same: it is looked at again.
                let wait = at.since(now()).max(TIMER_LEAST);
                clock::timeout(wait, state.desk.bells.pump.wait()).await;
            }
        }
    }
}

/// Writes for the connection whose turn it is: whether it is on this machine, and what it got.
fn write_next(desk: &Desk, parts: &mut Parts) -> Option<(bool, u64)> {
    let Parts { ready, scratch, .. } = parts;
    // What is small and urgent does not wait for a round of bulk data.
    udp_out::send_ready(desk, ready, scratch);
    let (connection, room_bytes) = ready.pop_write(desk)?;
    Some((connection.is_local, write_once(desk, ready, scratch, &connection, room_bytes)))
}

/// One write, with at most so many new file bytes as the relay's limits say; those that the kernel took, as they
/// count for [`LOCAL_BYTES_MAX`].
fn write_once(
    desk: &Desk,
    ready: &mut Ready,
    scratch: &mut Vec<u8>,
    connection: &Rc<Connection>,
    room_bytes: u64,
) -> u64 {
    if !connection.link().wants_write(room_bytes) {
        if room_bytes < u64::MAX && connection.link().wants_write(u64::MAX) {
            ready.shaping.hold_sending(desk, connection);
        }
        return 0;
    }
    match connection.write(now(), room_bytes) {
        Ok(written) => {
            desk.bells.activity.ring();
            let cells = &desk.cells;
            cells.data_out_bytes.add(written.data_bytes);
            cells.lent_bytes.add(written.lent_bytes);
            let control = (written.total_bytes as u64).saturating_sub(written.data_bytes);
            cells.control_out_bytes.add(control);
            ready.mark_news(desk, connection);
            let left = room_bytes.saturating_sub(written.data_bytes);
            let sent = udp_out::transmit_data(desk, ready, scratch, connection, left);
            ready.shaping.note_sent(desk, connection, written.data_bytes + sent);
            if written.blocked {
                connection.blocked_bell.ring();
            } else {
                ready.mark_write(desk, connection);
            }
            let link = connection.link();
            let may_read = link.may_read();
            let is_said = link.life.is_closing() && !link.queue.has_urgent();
            drop(link);
            if may_read {
                connection.read_bell.ring();
            }
            if is_said {
                // The last words are out: the reader lingers until they were heard.
                connection.shut_write();
            }
            written.data_bytes + sent - written.lent_bytes + written.lent_bytes / LENT_PART
        }
        Err(error) => {
            tracing::debug!(remote = %connection.remote, "failed to write: {error}");
            connection.write_failed();
            0
        }
    }
}

/// Waits for the socket whenever it would block, as long as the connection lives.
pub(crate) async fn wait_writable(state: Rc<ShardState>, connection: Rc<Connection>) {
    loop {
        connection.blocked_bell.wait().await;
        let (is_closed, is_blocked) = {
            let link = connection.link();
            (link.life.is_closed(), link.is_blocked)
        };
        if is_closed {
            return;
        }
        if !is_blocked {
            continue;
        }
        if connection.socket.writable().await.is_err() {
            connection.write_failed();
            return;
        }
        connection.link().is_blocked = false;
        state.parts().ready.mark_write(&state.desk, &connection);
    }
}
