//! The names of all metrics, and how they are filled from the shards' cells.
//!
//! With its parts (`metrics/`) the only place that spells a metric's name. Handles are made once; a flush copies the cells
//! into them, on the control thread, before every scrape and every few seconds.

mod memory;
mod uplinks;

use std::{sync::Arc, time::Duration};

use metrics::{
    Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use self::{memory::Memory, uplinks::Uplinks};
use super::cells::{Cell, DATAGRAM_DROPS, DROPS, Drop, REFUSALS, REJECTIONS, Seconds, ShardCells};
use crate::{
    limits::Limits,
    process::{Shared, cpu_us},
};

use relay_protocol::rate::Rate;
use relay_transport::Transport;

/// Buckets of latencies in seconds: from a loopback delivery to a stalled peer.
const SECONDS_BUCKETS: [f64; 15] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// The label of what control channels in datagrams count.
const UDP_CONTROL: &str = Transport::UdpControl.name();
/// The process's CPU time, of the processes' collector.
const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// A metric that sums one cell of every shard.
type OfShards = fn(&ShardCells) -> &Cell;

/// One gauge or counter per shard.
struct PerShard<H> {
    handles: Vec<H>,
    cell: OfShards,
}

/// Everything that a scrape shows.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    shared: Arc<Shared>,
    counters: Vec<PerShard<Counter>>,
    gauges: Vec<PerShard<Gauge>>,
    refused: Refused,
    dropped: Dropped,
    memory: Memory,
    /// Those that there are, and may be.
    peers: [Gauge; 2],
    signs: Signs,
    limits: RateLimits,
    uplinks: Uplinks,
    process: metrics_process::Collector,
}

/// What was turned away, in the order of its reasons.
struct Refused {
    connections: Vec<Counter>,
    descriptors: Counter,
    stalled: Counter,
    http_tokens: Counter,
}

/// What came in vain, in the order of its reasons.
struct Dropped {
    rejected: Vec<Counter>,
    datagrams: Vec<Counter>,
    bytes: Vec<Counter>,
    late_bytes: Counter,
}

/// How busy shards are, and whether they turn.
struct Signs {
    inbox_depth_max: Gauge,
    busy: Vec<Gauge>,
    heartbeat_age: Vec<Gauge>,
}

/// What the relay itself holds back.
struct RateLimits {
    in_force: Vec<(Gauge, OfLimits)>,
    held: [(Counter, OfShards); 2],
}

/// One of the relay's limits.
type OfLimits = fn(&Limits) -> Option<Rate>;

impl Refused {
    fn new() -> Self {
        const NAME: &str = "relay_connections_refused_total";
        Self {
            connections: by_reason(NAME, &REFUSALS),
            descriptors: counter!(NAME, "reason" => "descriptors"),
            stalled: counter!("relay_connections_stalled_total"),
            http_tokens: counter!("relay_http_tokens_refused_total"),
        }
    }

    fn flush(&self, shared: &Shared) {
        for (reason, handle) in self.connections.iter().enumerate() {
            handle.absolute(shared.sum(|c| &c.refused[reason]));
        }
        self.descriptors.absolute(shared.listener.descriptors.get());
        self.http_tokens.absolute(shared.guesses.total());
        self.stalled.absolute(shared.sum(|c| &c.stalled));
    }
}

impl Dropped {
    fn new() -> Self {
        Self {
            rejected: by_reason("relay_chunks_rejected_total", &REJECTIONS),
            datagrams: by_reason("relay_datagrams_dropped_total", &DATAGRAM_DROPS),
            bytes: by_reason("relay_data_dropped_bytes_total", &DROPS),
            late_bytes: counter!("relay_late_bytes_total"),
        }
    }

    fn flush(&self, shared: &Shared) {
        for (reason, handle) in self.rejected.iter().enumerate() {
            handle.absolute(shared.sum(|c| &c.rejected[reason]));
        }
        for (reason, handle) in self.datagrams.iter().enumerate() {
            handle.absolute(shared.sum(|c| &c.datagrams_dropped[reason]));
        }
        for (reason, handle) in self.bytes.iter().enumerate() {
            handle.absolute(shared.sum(|c| &c.dropped_bytes[reason]));
        }
        self.late_bytes.absolute(shared.sum(|c| &c.dropped_bytes[Drop::Late as usize]));
    }
}

impl Signs {
    fn new(shared: &Shared) -> Self {
        let of_shards = |name| per_shard_gauge(shared, name, |c| &c.busy_ppm).handles;
        Self {
            inbox_depth_max: gauge!("relay_inbox_depth_max"),
            busy: of_shards("relay_shard_busy_ratio"),
            heartbeat_age: of_shards("relay_shard_heartbeat_age_seconds"),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    fn flush(&self, shared: &Shared, ages: &[Duration]) {
        let depth = shared.cells.iter().map(|c| c.inbox_depth_max.get()).max().unwrap_or(0);
        self.inbox_depth_max.set(depth as f64);
        for (handle, cells) in self.busy.iter().zip(&shared.cells) {
            handle.set(cells.busy_ppm.get() as f64 / 1e6);
        }
        for (handle, age) in self.heartbeat_age.iter().zip(ages) {
            handle.set(age.as_secs_f64());
        }
    }
}

impl RateLimits {
    fn new() -> Self {
        const LIMIT: &str = "relay_rate_limit_bytes_per_second";
        const HELD: &str = "relay_held_back_seconds_total";
        describe_gauge!(
            LIMIT,
            "File bytes a second that the relay's own limits allow; 0: no limit"
        );
        describe_counter!(HELD, "Whole seconds that connections waited for the relay's own limits");
        let limit = |direction, scope| gauge!(LIMIT, "direction" => direction, "scope" => scope);
        let held = |direction| counter!(HELD, "direction" => direction);
        Self {
            in_force: vec![
                (limit("out", "all"), |limits| limits.egress),
                (limit("in", "all"), |limits| limits.ingress),
                (limit("out", "peer"), |limits| limits.peer),
                (limit("in", "peer"), |limits| limits.peer),
            ],
            held: [(held("out"), |c| &c.held_sending_us), (held("in"), |c| &c.held_reading_us)],
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    fn flush(&self, shared: &Shared) {
        let limits = shared.policy.rates.limits();
        for (handle, limit) in &self.in_force {
            handle.set(limit(&limits).map_or(0, Rate::bytes_per_second) as f64);
        }
        for (handle, micros) in &self.held {
            handle.absolute(shared.sum(micros) / 1_000_000);
        }
    }
}

fn by_reason(name: &'static str, reasons: &[&'static str]) -> Vec<Counter> {
    reasons.iter().map(|&reason| counter!(name, "reason" => reason)).collect()
}

/// The process's recorder; made before the shards, which hold histogram handles.
///
/// # Errors
/// The buckets are refused, which would be a bug.
pub(crate) fn recorder() -> anyhow::Result<PrometheusRecorder> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?;
    Ok(builder.build_recorder())
}

/// The cells of all shards, with histogram handles of `recorder`.
pub(crate) fn cells(recorder: &PrometheusRecorder, shard_count: usize) -> Vec<Arc<ShardCells>> {
    (0..shard_count).map(|shard| shard_cells(recorder, shard)).collect()
}

fn shard_cells(recorder: &PrometheusRecorder, shard: usize) -> Arc<ShardCells> {
    metrics::with_local_recorder(recorder, || {
        describe_histogram!(
            "relay_fetch_seconds",
            metrics::Unit::Seconds,
            "From asking a peer for a chunk to having verified it"
        );
        describe_histogram!(
            "relay_delivery_seconds",
            metrics::Unit::Seconds,
            "From deciding on a delivery to its acknowledgement"
        );
        let label = shard.to_string();
        let fetch = histogram!("relay_fetch_seconds", "shard" => label.clone());
        let delivery = histogram!("relay_delivery_seconds", "shard" => label);
        Arc::new(ShardCells::new(Seconds::new(fetch), Seconds::new(delivery)))
    })
}

fn per_shard_counter(
    shared: &Shared,
    name: &'static str,
    labels: &[(&'static str, &'static str)],
    cell: OfShards,
) -> PerShard<Counter> {
    let handle = |shard: usize| {
        let mut all: Vec<metrics::Label> = labels
            .iter()
            .map(|&(key, value)| metrics::Label::from_static_parts(key, value))
            .collect();
        all.push(metrics::Label::new("shard", shard.to_string()));
        counter!(name, all)
    };
    PerShard { handles: (0..shared.cells.len()).map(handle).collect(), cell }
}

fn per_shard_gauge(shared: &Shared, name: &'static str, cell: OfShards) -> PerShard<Gauge> {
    let handle = |shard: usize| gauge!(name, "shard" => shard.to_string());
    PerShard { handles: (0..shared.cells.len()).map(handle).collect(), cell }
}

impl Metrics {
    /// All handles, made with `recorder`.
    pub(crate) fn new(recorder: &PrometheusRecorder, shared: &Arc<Shared>) -> Self {
        metrics::with_local_recorder(recorder, || {
            describe();
            let build = gauge!("relay_build_info", "version" => env!("CARGO_PKG_VERSION"), "driver" => shared.about.driver.clone());
            build.set(1.0);
            let process = metrics_process::Collector::default();
            process.describe();
            Self {
                handle: recorder.handle(),
                counters: counters(shared),
                gauges: gauges(shared),
                refused: Refused::new(),
                dropped: Dropped::new(),
                memory: Memory::new(),
                peers: [gauge!("relay_peers"), gauge!("relay_peers_limit")],
                signs: Signs::new(shared),
                limits: RateLimits::new(),
                uplinks: Uplinks::new(shared.policy.uplinks.as_ref()),
                shared: Arc::clone(shared),
                process,
            }
        })
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn render(&self, recorder: &PrometheusRecorder, ages: &[Duration]) -> String {
        self.flush(ages);
        metrics::with_local_recorder(recorder, || self.process.collect());
        with_fraction(&self.handle.render(), cpu_us())
    }

    /// Moves histogram samples into their buckets; without it they pile up.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    fn flush(&self, ages: &[Duration]) {
        let shared = &self.shared;
        for metric in &self.counters {
            for (handle, cells) in metric.handles.iter().zip(&shared.cells) {
                handle.absolute((metric.cell)(cells).get());
            }
        }
        for metric in &self.gauges {
            for (handle, cells) in metric.handles.iter().zip(&shared.cells) {
                handle.set((metric.cell)(cells).get() as f64);
            }
        }
        self.refused.flush(shared);
        self.dropped.flush(shared);
        self.memory.flush(&shared.memory);
        self.peers[0].set(shared.peers() as f64);
        self.peers[1].set(shared.peers_max() as f64);
        self.uplinks.flush();
        self.signs.flush(shared, ages);
        self.limits.flush(shared);
    }
}

/// Puts in the CPU time to the microsecond: the library's counters are whole numbers, and its
/// collector therefore counts whole seconds.
fn with_fraction(page: &str, cpu_us: u64) -> String {
    let mut out = String::with_capacity(page.len() + 8);
    for line in page.split_inclusive('\n') {
        if line.starts_with(CPU_SECONDS) && line[CPU_SECONDS.len()..].starts_with(' ') {
            out.push_str(&format!(
                "{CPU_SECONDS} {}.{:06}\n",
                cpu_us / 1_000_000,
                cpu_us % 1_000_000
            ));
        } else {
            out.push_str(line);
        }
    }
    out
}

fn counters(shared: &Shared) -> Vec<PerShard<Counter>> {
    let plain = |name, cell| per_shard_counter(shared, name, &[], cell);
    let bytes = |direction, kind, cell| {
        per_shard_counter(
            shared,
            "relay_bytes_total",
            &[("direction", direction), ("kind", kind)],
            cell,
        )
    };
    let datagrams = |name, direction, kind, cell| {
        let labels = [("direction", direction), ("kind", kind)];
        per_shard_counter(shared, name, &labels, cell)
    };
    let (count, size) = ("relay_datagrams_total", "relay_datagram_bytes_total");
    let (control, data) = ("control", "data");
    vec![
        datagrams(count, "in", control, |c| &c.datagrams_in),
        datagrams(count, "out", control, |c| &c.datagrams_out),
        datagrams(count, "in", data, |c| &c.data_datagrams_in),
        datagrams(count, "out", data, |c| &c.data_datagrams_out),
        datagrams(size, "in", control, |c| &c.datagrams_in_bytes),
        datagrams(size, "out", control, |c| &c.datagrams_out_bytes),
        datagrams(size, "in", data, |c| &c.data_datagrams_in_bytes),
        datagrams(size, "out", data, |c| &c.data_datagrams_out_bytes),
        plain("relay_data_lost_bytes_total", |c| &c.data_lost_bytes),
        plain("relay_data_resent_bytes_total", |c| &c.data_resent_bytes),
        plain("relay_datagrams_passed_on_total", |c| &c.datagrams_passed_on),
        per_shard_counter(
            shared,
            "relay_messages_resent_total",
            &[("transport", UDP_CONTROL)],
            |c| &c.messages_resent,
        ),
        plain("relay_connections_accepted_total", |c| &c.accepted),
        bytes("in", "data", |c| &c.data_in_bytes),
        bytes("out", "data", |c| &c.data_out_bytes),
        bytes("in", "control", |c| &c.control_in_bytes),
        bytes("out", "control", |c| &c.control_out_bytes),
        plain("relay_chunks_delivered_total", |c| &c.chunks_delivered),
        plain("relay_chunks_fetched_total", |c| &c.chunks_fetched),
        plain("relay_chunks_lent_total", |c| &c.chunks_lent),
        plain("relay_lent_bytes_total", |c| &c.lent_bytes),
        plain("relay_data_passed_on_bytes_total", |c| &c.passed_on_bytes),
        plain("relay_cache_hits_total", |c| &c.cache_hits),
        plain("relay_cache_misses_total", |c| &c.cache_misses),
        plain("relay_cache_evictions_total", |c| &c.cache_evictions),
        plain("relay_hedges_total", |c| &c.hedges),
        plain("relay_peers_banned_total", |c| &c.peers_banned),
        plain("relay_doorbell_rings_total", |c| &c.doorbell_rings),
        plain("relay_panics_total", |c| &c.panics),
    ]
}

fn gauges(shared: &Shared) -> Vec<PerShard<Gauge>> {
    vec![
        per_shard_gauge(shared, "relay_connections", |c| &c.connections),
        per_shard_gauge(shared, "relay_datagram_connections", |c| &c.datagram_connections),
        per_shard_gauge(shared, "relay_swarms", |c| &c.swarms),
        per_shard_gauge(shared, "relay_peers_starving", |c| &c.peers_starving),
        per_shard_gauge(shared, "relay_chunks_missing", |c| &c.chunks_missing),
        per_shard_gauge(shared, "relay_data_unsent_bytes", |c| &c.unsent_bytes),
        per_shard_gauge(shared, "relay_window_bytes", |c| &c.window_bytes),
        per_shard_gauge(shared, "relay_outbox_depth", |c| &c.outbox_depth),
    ]
}

fn describe() {
    describe_gauge!("relay_build_info", "Version and driver of this relay");
    describe_gauge!("relay_connections", "Open connections");
    describe_gauge!("relay_peers", "Introduced peers");
    describe_gauge!("relay_peers_limit", "Introduced peers, at most");
    describe_gauge!("relay_swarms", "Files that have peers");
    describe_gauge!("relay_chunk_bytes", metrics::Unit::Bytes, "Chunk bytes in the process");
    describe_gauge!("relay_chunk_bytes_limit", metrics::Unit::Bytes, "Bound on chunk bytes");
    describe_gauge!("relay_chunk_bytes_peak", metrics::Unit::Bytes, "Chunk bytes, the most so far");
    describe_gauge!("relay_window_bytes", metrics::Unit::Bytes, "Sum of the windows of peers");
    describe_gauge!("relay_outbox_depth", "Requests that wait for a credit");
    describe_gauge!("relay_inbox_depth_max", "Messages in one shard's inbox, the most so far");
    describe_gauge!("relay_shard_busy_ratio", "Part of a core that the shard uses");
    describe_gauge!("relay_shard_heartbeat_age_seconds", "Since the shard's last turn");
    describe_counter!("relay_connections_accepted_total", "Connections handed to shards");
    describe_counter!("relay_connections_refused_total", "Connections turned away, or at fault");
    describe_counter!("relay_http_tokens_refused_total", "HTTP requests with a wrong token");
    describe_counter!("relay_connections_stalled_total", "Peers cut off as they took no data");
    describe_counter!("relay_bytes_total", "Bytes read and written; data is chunk payload");
    describe_counter!("relay_chunks_delivered_total", "Chunks that peers have verified");
    describe_counter!("relay_chunks_fetched_total", "Chunks that came from peers, verified");
    describe_counter!("relay_chunks_lent_total", "Of them, laid out in files to be lent");
    describe_counter!("relay_lent_bytes_total", "File bytes that were sent without copying them");
    describe_gauge!(
        "relay_chunk_file_bytes",
        metrics::Unit::Bytes,
        "Of chunk bytes, those in files"
    );
    describe_gauge!("relay_pinned_bytes", metrics::Unit::Bytes, "Files that sockets may refer to");
    describe_counter!("relay_chunks_rejected_total", "Fetches that brought no good chunk");
    describe_counter!("relay_data_passed_on_bytes_total", "Bytes fetched that a peer was given");
    describe_counter!("relay_data_dropped_bytes_total", "Bytes from peers that no peer was given");
    describe_gauge!("relay_data_unsent_bytes", metrics::Unit::Bytes, "Cached, given to no peer");
    describe_gauge!("relay_peers_starving", "Peers that would take more than is cached");
    describe_gauge!("relay_chunks_missing", "Chunks that no connected peer holds");
    describe_gauge!("relay_homes_waiting", "Files that wait for memory");
    describe_counter!("relay_late_bytes_total", "Bytes that came for fetches no longer wanted");
    describe_counter!("relay_cache_hits_total", "Deliveries of chunks that were cached");
    describe_counter!("relay_cache_misses_total", "Chunks that had to be fetched");
    describe_counter!("relay_cache_evictions_total", "Chunks dropped to make room");
    describe_counter!("relay_hedges_total", "Fetches tried with another holder");
    describe_counter!("relay_peers_banned_total", "Peers cut off for wrong bytes");
    describe_counter!("relay_doorbell_rings_total", "System calls to wake a parked shard");
    describe_gauge!("relay_datagram_connections", "Connections with a channel in datagrams");
    describe_counter!("relay_datagrams_total", "Datagrams received, of whatever kind, and sent");
    describe_counter!("relay_datagram_bytes_total", "Their bytes, without UDP's headers");
    describe_counter!("relay_datagrams_dropped_total", "Datagrams that were not taken");
    describe_counter!("relay_datagrams_passed_on_total", "Datagrams that shards passed on");
    describe_counter!("relay_data_lost_bytes_total", "Bytes of datagrams with data taken for lost");
    describe_counter!("relay_data_resent_bytes_total", "The same: what was in them is sent again");
    describe_counter!("relay_messages_resent_total", "Datagrams of messages taken for lost");
    describe_counter!("relay_panics_total", "Connections that ended in a panic of the relay");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_has_its_fraction_and_nothing_else_changes() {
        let page = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 3\nx 1\n";
        let expected =
            "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 3.000250\nx 1\n";
        assert_eq!(with_fraction(page, 3_000_250), expected);
    }
}
