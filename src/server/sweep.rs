//! What a shard looks after ten times a second: stalls, handshakes, windows, published figures.

use std::{rc::Rc, time::Duration};

use super::{shard::ShardState, shared::WINDOW_POOL_BYTES, usage, window::WINDOW_BYTES_MIN};
use crate::{
    protocol::{Failure, FailureCode},
    time::Time,
};

/// A peer that takes no byte for so long while data waits is disconnected; it can resume.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often every connection is looked at.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// What the sweep remembers from one time to the next.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    scanned_at: Time,
    published_at: Time,
    thread_cpu: Duration,
}

pub(crate) fn run(state: &Rc<ShardState>, now: Time) {
    loop {
        let overdue = state.handshakes.borrow_mut().pop_overdue(now);
        let Some(connection) = overdue else { break };
        state.cells.count_refused("handshake_timeout");
        tracing::info!(remote = %connection.remote, "refused: silent for too long");
        connection.close_now();
    }
    state.prune_payloads();
    let mut sweep = state.sweep.borrow_mut();
    publish(state, &mut sweep, now);
    if now.since(sweep.scanned_at) >= SCAN_INTERVAL {
        sweep.scanned_at = now;
        drop(sweep);
        scan(state, now);
    }
}

fn publish(state: &ShardState, sweep: &mut Sweep, now: Time) {
    let cells = &state.cells;
    let thread_cpu = usage::thread_cpu();
    let wall = now.since(sweep.published_at).as_secs_f64();
    let busy = thread_cpu.saturating_sub(sweep.thread_cpu).as_secs_f64() / wall.max(1e-6);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a ratio between 0 and 1, in millionths"
    )]
    cells.busy_ppm.set((busy.clamp(0.0, 1.0) * 1e6) as u64);
    sweep.thread_cpu = thread_cpu;
    sweep.published_at = now;
    cells.inbox_depth_max.set(state.shard.port.inbox_depth_max() as u64);
    cells.doorbell_rings.set(state.shard.port.doorbell_rings());
}

/// Ends those that take nothing, and keeps the sum of windows within its bound: what is too much
/// is taken from the slowest first, down to the least window.
fn scan(state: &Rc<ShardState>, now: Time) {
    let connections: Vec<_> = state.connections.borrow().iter().cloned().collect();
    let mut windows = Vec::with_capacity(connections.len());
    for connection in &connections {
        if connection.stalled_for(now) >= STALL_TIMEOUT {
            state.cells.stalled.add(1);
            tracing::info!(remote = %connection.remote, "disconnected: it takes no data");
            connection.close_with(Failure {
                code: FailureCode::Stalled,
                text: "no data was taken for 10 s: connect again to resume".into(),
            });
            connection.close_now();
            continue;
        }
        windows.push((connection.session.borrow().window().wished_bytes(), connection));
    }
    let pool = WINDOW_POOL_BYTES / state.shard.port.shard_count() as u64;
    let mut spare = pool.saturating_sub(WINDOW_BYTES_MIN * windows.len() as u64);
    windows.sort_by_key(|&(wished, _)| std::cmp::Reverse(wished));
    let mut sum = 0;
    for (wished, connection) in windows {
        let more = (wished - WINDOW_BYTES_MIN.min(wished)).min(spare);
        // A window that got all it wished for may grow; the next scan sees to the sum.
        let is_short = WINDOW_BYTES_MIN + more < wished;
        let ceiling = if is_short { WINDOW_BYTES_MIN + more } else { u64::MAX };
        spare -= more;
        sum += WINDOW_BYTES_MIN + more;
        connection.session.borrow_mut().window_mut().set_ceiling(ceiling);
    }
    state.cells.window_bytes.set(sum);
}
