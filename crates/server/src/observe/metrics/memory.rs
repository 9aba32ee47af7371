//! The metrics of chunk memory.

use metrics::{Gauge, gauge};
use shards::ChunkFiles;

use crate::process::ChunkMemory;

/// How the budget stands.
pub(super) struct Memory {
    homes_waiting: Gauge,
    chunk_bytes: Gauge,
    chunk_bytes_limit: Gauge,
    chunk_bytes_peak: Gauge,
    file_bytes: Gauge,
    pinned_bytes: Gauge,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            homes_waiting: gauge!("relay_homes_waiting"),
            chunk_bytes: gauge!("relay_chunk_bytes"),
            chunk_bytes_limit: gauge!("relay_chunk_bytes_limit"),
            chunk_bytes_peak: gauge!("relay_chunk_bytes_peak"),
            file_bytes: gauge!("relay_chunk_file_bytes"),
            pinned_bytes: gauge!("relay_pinned_bytes"),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    pub(super) fn flush(&self, ChunkMemory { budget, files }: &ChunkMemory) {
        self.homes_waiting.set(budget.waiting() as f64);
        self.chunk_bytes.set(budget.in_use_bytes() as f64);
        self.chunk_bytes_limit.set(budget.limit_bytes() as f64);
        self.chunk_bytes_peak.set(budget.peak_bytes() as f64);
        let of_files = |count: fn(&ChunkFiles) -> usize| files.as_ref().map_or(0, count) as f64;
        self.file_bytes.set(of_files(ChunkFiles::bytes));
        self.pinned_bytes.set(of_files(ChunkFiles::pinned_bytes));
    }
}
