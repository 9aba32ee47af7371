//! What one shard counts: cells that only their shard writes and anyone may read.
//!
//! Nothing is looked up and nothing is contended on the hot path: a count is one relaxed load
//! and store of a cell in the shard's own cache lines. Names and units of the metrics that are
//! made of these are in [`super::metrics`].

use std::sync::atomic::{AtomicU64, Ordering};

use relay_swarm::FetchFailure;

/// A number that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, by: u64) {
        self.0.store(self.get().wrapping_add(by), Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, by: u64) {
        self.0.store(self.get().wrapping_sub(by), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of seconds whose handle is held, not looked up.
pub(crate) struct Seconds(metrics::Histogram);

impl Seconds {
    pub(crate) fn new(histogram: metrics::Histogram) -> Self {
        Self(histogram)
    }

    pub(crate) fn record(&self, seconds: f64) {
        self.0.record(seconds);
    }
}

/// Why connections and bytes are turned away; the labels of the metrics.
pub(crate) const REFUSALS: [&str; 17] = [
    "protocol",
    "version",
    "magic",
    "token",
    "not_published",
    "swarm",
    "manifest",
    "too_many_peers",
    "too_many_files",
    "handshake_timeout",
    "handshake_flood",
    "observer_flood",
    "peer_failed",
    "panic",
    "transport",
    "datagrams_silent",
    "uplink",
];

/// Why datagrams are thrown away; the labels of the metric.
pub(crate) const DATAGRAM_DROPS: [&str; 5] =
    ["malformed", "unknown_connection", "ignored", "refused", "not_passed_on"];

/// Why fetched chunks are thrown away.
pub(crate) const REJECTIONS: [&str; 3] = ["wrong_digest", "link_corrupt", "refused"];

/// Why bytes that came from peers were not passed on.
pub(crate) const DROPS: [&str; 7] =
    ["late", "unfinished", "protocol", "wrong_digest", "link_corrupt", "cancelled", "unused"];

/// The places of [`DROPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drop {
    /// For a fetch that was cancelled before they came.
    Late,
    /// Of a chunk whose rest never came.
    Unfinished,
    /// Not what was asked for.
    Protocol,
    /// Of a chunk with another digest than the file's.
    WrongDigest,
    /// Damaged by the link.
    LinkCorrupt,
    /// Of a good chunk that was no longer wanted when it was whole.
    Cancelled,
    /// Of a cached chunk that had to go, or whose swarm ended, before any peer was sent it.
    Unused,
}

/// Bytes dropped so far, by the places of [`DROPS`].
pub(crate) type Dropped = [u64; DROPS.len()];

/// One shard's cells.
#[repr(align(128))]
pub(crate) struct ShardCells {
    pub connections: Cell,
    pub peers: Cell,
    pub swarms: Cell,
    pub accepted: Cell,
    pub refused: [Cell; REFUSALS.len()],
    pub stalled: Cell,
    pub panics: Cell,
    pub data_in_bytes: Cell,
    pub data_out_bytes: Cell,
    pub control_in_bytes: Cell,
    pub control_out_bytes: Cell,
    pub datagram_connections: Cell,
    pub datagrams_in: Cell,
    pub datagrams_out: Cell,
    pub datagrams_in_bytes: Cell,
    pub datagrams_out_bytes: Cell,
    pub data_datagrams_in: Cell,
    pub data_datagrams_out: Cell,
    pub data_datagrams_in_bytes: Cell,
    pub data_datagrams_out_bytes: Cell,
    pub data_lost_bytes: Cell,
    pub data_resent_bytes: Cell,
    pub datagrams_passed_on: Cell,
    pub datagrams_dropped: [Cell; DATAGRAM_DROPS.len()],
    pub messages_resent: Cell,
    pub chunks_delivered: Cell,
    pub chunks_fetched: Cell,
    /// Of these, laid out in files, to be sent without copying.
    pub chunks_lent: Cell,
    /// Of `data_out_bytes`, what was sent from files.
    pub lent_bytes: Cell,
    pub cache_hits: Cell,
    pub cache_misses: Cell,
    pub cache_evictions: Cell,
    pub hedges: Cell,
    pub rejected: [Cell; REJECTIONS.len()],
    pub dropped_bytes: [Cell; DROPS.len()],
    pub passed_on_bytes: Cell,
    pub unsent_bytes: Cell,
    pub peers_starving: Cell,
    pub chunks_missing: Cell,
    pub peers_banned: Cell,
    pub inbox_depth_max: Cell,
    pub outbox_depth: Cell,
    pub doorbell_rings: Cell,
    pub busy_ppm: Cell,
    pub window_bytes: Cell,
    pub fetching_bytes: Cell,
    pub fetching_swarms: Cell,
    pub held_sending_us: Cell,
    pub held_reading_us: Cell,
    pub fetch_seconds: Seconds,
    pub delivery_seconds: Seconds,
}

impl ShardCells {
    pub(crate) fn new(fetch_seconds: Seconds, delivery_seconds: Seconds) -> Self {
        Self {
            connections: Cell::default(),
            peers: Cell::default(),
            swarms: Cell::default(),
            accepted: Cell::default(),
            refused: Default::default(),
            stalled: Cell::default(),
            panics: Cell::default(),
            data_in_bytes: Cell::default(),
            data_out_bytes: Cell::default(),
            control_in_bytes: Cell::default(),
            control_out_bytes: Cell::default(),
            datagram_connections: Cell::default(),
            datagrams_in: Cell::default(),
            datagrams_out: Cell::default(),
            datagrams_in_bytes: Cell::default(),
            datagrams_out_bytes: Cell::default(),
            data_datagrams_in: Cell::default(),
            data_datagrams_out: Cell::default(),
            data_datagrams_in_bytes: Cell::default(),
            data_datagrams_out_bytes: Cell::default(),
            data_lost_bytes: Cell::default(),
            data_resent_bytes: Cell::default(),
            datagrams_passed_on: Cell::default(),
            datagrams_dropped: Default::default(),
            messages_resent: Cell::default(),
            chunks_delivered: Cell::default(),
            chunks_fetched: Cell::default(),
            chunks_lent: Cell::default(),
            lent_bytes: Cell::default(),
            cache_hits: Cell::default(),
            cache_misses: Cell::default(),
            cache_evictions: Cell::default(),
            hedges: Cell::default(),
            rejected: Default::default(),
            dropped_bytes: Default::default(),
            passed_on_bytes: Cell::default(),
            unsent_bytes: Cell::default(),
            peers_starving: Cell::default(),
            chunks_missing: Cell::default(),
            peers_banned: Cell::default(),
            inbox_depth_max: Cell::default(),
            outbox_depth: Cell::default(),
            doorbell_rings: Cell::default(),
            busy_ppm: Cell::default(),
            window_bytes: Cell::default(),
            fetching_bytes: Cell::default(),
            fetching_swarms: Cell::default(),
            held_sending_us: Cell::default(),
            held_reading_us: Cell::default(),
            fetch_seconds,
            delivery_seconds,
        }
    }

    /// One more connection turned away, or ended through its own fault.
    ///
    /// # Panics
    /// If the reason is not one of [`REFUSALS`]: labels are a closed set.
    pub(crate) fn count_refused(&self, reason: &str) {
        let at = REFUSALS.iter().position(|&known| known == reason);
        self.refused[at.expect("every reason is in REFUSALS")].add(1);
    }

    /// One more datagram thrown away.
    ///
    /// # Panics
    /// If the reason is not one of [`DATAGRAM_DROPS`].
    pub(crate) fn count_datagram_dropped(&self, reason: &str) {
        let at = DATAGRAM_DROPS.iter().position(|&known| known == reason);
        self.datagrams_dropped[at.expect("every reason is in DATAGRAM_DROPS")].add(1);
    }

    /// Bytes that came from a peer and go to no other.
    pub(crate) fn count_dropped(&self, why: Drop, bytes: u64) {
        self.dropped_bytes[why as usize].add(bytes);
    }

    pub(crate) fn count_all_dropped(&self, dropped: &Dropped) {
        for (cell, &bytes) in self.dropped_bytes.iter().zip(dropped) {
            if bytes > 0 {
                cell.add(bytes);
            }
        }
    }

    pub(crate) fn count_rejected(&self, failure: FetchFailure) {
        let at = match failure {
            FetchFailure::Lied => 0,
            FetchFailure::Damaged => 1,
            FetchFailure::Refused => 2,
        };
        self.rejected[at].add(1);
    }
}
