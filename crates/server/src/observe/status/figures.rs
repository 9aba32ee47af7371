//! Figures of the process and of its shards, as the API and the page show them: read from the
//! cells, without asking any shard.

use std::time::Duration;

use serde::Serialize;

use crate::process::Shared;

/// Of the whole process.
#[derive(Serialize)]
pub(crate) struct Totals {
    version: &'static str,
    driver: String,
    congestion: String,
    is_draining: bool,
    connections: u64,
    peers: usize,
    peers_limit: usize,
    swarms: u64,
    data_in_bytes: u64,
    data_out_bytes: u64,
    chunk_bytes: usize,
    chunk_bytes_limit: usize,
    chunk_bytes_peak: usize,
    chunks_delivered: u64,
    chunks_fetched: u64,
    cache_hits: u64,
    cache_misses: u64,
    cache_evictions: u64,
    hedges: u64,
    connections_refused: u64,
    connections_stalled: u64,
    peers_banned: u64,
}

/// Of one shard.
#[derive(Serialize)]
pub(crate) struct ShardFigures {
    shard: usize,
    busy_ratio: f64,
    heartbeat_age_seconds: f64,
    connections: u64,
    peers: u64,
    swarms: u64,
    data_in_bytes: u64,
    data_out_bytes: u64,
    control_in_bytes: u64,
    control_out_bytes: u64,
    chunks_delivered: u64,
    chunks_fetched: u64,
    window_bytes: u64,
    outbox_depth: u64,
    inbox_depth_max: u64,
    doorbell_rings: u64,
}

impl Totals {
    pub(crate) fn of(shared: &Shared) -> Self {
        let refused = shared.sum_all(|cells| &cells.refused) + shared.listener.descriptors.get();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            driver: shared.about.driver.clone(),
            congestion: shared.about.congestion.clone(),
            is_draining: shared.is_draining(),
            connections: shared.sum(|c| &c.connections),
            peers: shared.peers(),
            peers_limit: shared.peers.max,
            swarms: shared.sum(|c| &c.swarms),
            data_in_bytes: shared.sum(|c| &c.data_in_bytes),
            data_out_bytes: shared.sum(|c| &c.data_out_bytes),
            chunk_bytes: shared.memory.budget.in_use_bytes(),
            chunk_bytes_limit: shared.memory.budget.limit_bytes(),
            chunk_bytes_peak: shared.memory.budget.peak_bytes(),
            chunks_delivered: shared.sum(|c| &c.chunks_delivered),
            chunks_fetched: shared.sum(|c| &c.chunks_fetched),
            cache_hits: shared.sum(|c| &c.cache_hits),
            cache_misses: shared.sum(|c| &c.cache_misses),
            cache_evictions: shared.sum(|c| &c.cache_evictions),
            hedges: shared.sum(|c| &c.hedges),
            connections_refused: refused,
            connections_stalled: shared.sum(|c| &c.stalled),
            peers_banned: shared.sum(|c| &c.peers_banned),
        }
    }
}

/// Of every shard; `ages` are those of their heartbeats.
#[expect(clippy::cast_precision_loss, reason = "a ratio in millionths")]
pub(crate) fn of_shards(shared: &Shared, ages: &[Duration]) -> Vec<ShardFigures> {
    let of_shard = |(shard, cells): (usize, &std::sync::Arc<crate::observe::cells::ShardCells>)| {
        ShardFigures {
            shard,
            busy_ratio: cells.busy_ppm.get() as f64 / 1e6,
            heartbeat_age_seconds: ages.get(shard).map_or(0.0, Duration::as_secs_f64),
            connections: cells.connections.get(),
            peers: cells.peers.get(),
            swarms: cells.swarms.get(),
            data_in_bytes: cells.data_in_bytes.get(),
            data_out_bytes: cells.data_out_bytes.get(),
            control_in_bytes: cells.control_in_bytes.get(),
            control_out_bytes: cells.control_out_bytes.get(),
            chunks_delivered: cells.chunks_delivered.get(),
            chunks_fetched: cells.chunks_fetched.get(),
            window_bytes: cells.window_bytes.get(),
            outbox_depth: cells.outbox_depth.get(),
            inbox_depth_max: cells.inbox_depth_max.get(),
            doorbell_rings: cells.doorbell_rings.get(),
        }
    };
    shared.cells.iter().enumerate().map(of_shard).collect()
}
