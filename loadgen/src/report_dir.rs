//! What `--report DIR` leaves in its directory: a page to look at, and the same figures as CSV and
//! JSON. Draws nothing itself: see [`crate::run_page`].

use std::path::Path;

use anyhow::Context;

use crate::{
    recorder::{COLUMNS_MAX, Recorder, SHARES, band_start, quantile},
    report::Recorded,
    run_page,
    sampler::Sample,
    table::{Table, to_json},
};

/// The page.
pub(crate) const PAGE: &str = "index.html";

/// What `--json` writes.
const REPORT: &str = "report.json";

/// All tables in one.
const FIGURES: &str = "figures.json";

/// Makes the directory, before anything runs: a report that can't be written is found out now.
///
/// # Errors
/// The system's.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("could not make the directory {} of --report", dir.display()))?;
    write(dir, PAGE, "the run whose page this will be has not ended\n")
}

/// Writes everything.
///
/// # Errors
/// The system's.
pub(crate) fn fill(dir: &Path, recorded: &Recorded<'_>) -> anyhow::Result<()> {
    let tables = tables(recorded);
    let mut names = vec![REPORT.to_owned(), FIGURES.to_owned()];
    write(dir, REPORT, &recorded.report.to_json())?;
    write(dir, FIGURES, &to_json(&tables))?;
    for table in &tables {
        let name = format!("{}.csv", table.name);
        write(dir, &name, &table.to_csv())?;
        names.push(name);
    }
    write(dir, PAGE, &run_page::draw(recorded, &names))
}

/// Writes one file of a report.
///
/// # Errors
/// The system's.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

fn tables(recorded: &Recorded<'_>) -> Vec<Table> {
    let recorder = recorded.recorder;
    vec![
        clients(recorder),
        timeline(recorder),
        latencies(recorder),
        chunks(recorder),
        arrivals(recorder),
        processes(recorded.samples),
    ]
}

/// By client: seconds at which it had each part of its file.
fn clients(recorder: &Recorder) -> Table {
    let mut table = Table::new("clients", "client");
    table.head.extend((1..=SHARES).map(|share| format!("seconds_at_{share}_of_{SHARES}")));
    for (client, curve) in recorder.curves() {
        let mut row = vec![client as f64];
        row.extend(curve.iter().map(|&seconds| f64::from(seconds)));
        table.push(row);
    }
    table
}

/// By time: bytes, and how long chunks took.
fn timeline(recorder: &Recorder) -> Table {
    let head = "seconds slot_seconds verified_bytes origin_bytes peer_bytes chunks \
                latency_p50_seconds latency_p99_seconds";
    let mut table = Table::new("timeline", head);
    let (length, slots) = recorder.slots();
    for (n, slot) in slots.iter().enumerate() {
        table.push(vec![
            n as f64 * length,
            length,
            slot.verified_bytes as f64,
            slot.origin_bytes as f64,
            slot.peer_bytes as f64,
            slot.bands.iter().map(|&count| f64::from(count)).sum(),
            quantile(&slot.bands, 0.5),
            quantile(&slot.bands, 0.99),
        ]);
    }
    table
}

/// Chunks by how long they took.
fn latencies(recorder: &Recorder) -> Table {
    let mut table = Table::new("latencies", "from_seconds to_seconds chunks");
    for (band, count) in recorder.band_counts().into_iter().enumerate() {
        if count > 0 {
            table.push(vec![band_start(band), band_start(band + 1), count as f64]);
        }
    }
    table
}

/// By part of the file: how long its chunks took.
fn chunks(recorder: &Recorder) -> Table {
    let mut table = Table::new("chunks", "first_chunk latency_mean_seconds latency_max_seconds");
    for (n, column) in recorder.columns().iter().enumerate() {
        let first = recorder.first_chunk(n) as f64;
        table.push(vec![first, column.mean_seconds(), column.max_seconds()]);
    }
    table
}

/// By group of clients and part of the file: when it was there.
fn arrivals(recorder: &Recorder) -> Table {
    let mut table = Table::new("arrivals", "group");
    let columns = recorder.columns().len();
    debug_assert!(columns <= COLUMNS_MAX);
    table.head.extend((0..columns).map(|n| format!("chunk_{}", recorder.first_chunk(n))));
    for (group, cells) in recorder.cells().chunks(columns.max(1)).enumerate() {
        table.push(std::iter::once(group as f64).chain(cells.iter().copied()).collect());
    }
    table
}

/// By time: both processes.
fn processes(samples: &[Sample]) -> Table {
    let head = "seconds clients_done verified_bytes loadgen_cpu_seconds loadgen_rss_bytes \
                relay_cpu_seconds relay_rss_bytes relay_chunk_bytes_peak relay_ingress_bytes \
                relay_egress_bytes relay_cache_hits relay_cache_misses relay_cache_evictions";
    let mut table = Table::new("processes", head);
    for sample in samples {
        let relay = |pick: fn(&crate::sampler::RelaySample) -> f64| {
            sample.relay.as_ref().map_or(f64::NAN, pick)
        };
        table.push(vec![
            sample.seconds,
            f64::from(sample.clients_done),
            sample.verified_bytes as f64,
            sample.loadgen_cpu_seconds,
            sample.loadgen_rss_bytes as f64,
            relay(|relay| relay.cpu_seconds),
            relay(|relay| relay.rss_bytes as f64),
            relay(|relay| relay.chunk_bytes_peak as f64),
            relay(|relay| relay.ingress_bytes as f64),
            relay(|relay| relay.egress_bytes as f64),
            relay(|relay| relay.cache_hits as f64),
            relay(|relay| relay.cache_misses as f64),
            relay(|relay| relay.cache_evictions as f64),
        ]);
    }
    table
}
