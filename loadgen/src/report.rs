//! What a run came to: figures for machines, prose for people. Measures nothing itself.

use std::fmt::{self, Display};

use serde::Serialize;

use crate::{
    latency::{ChunkSeconds, ClientSeconds},
    units,
};

/// Errors that the prose lists; the JSON has them all.
const ERRORS_SHOWN_MAX: usize = 10;

/// The whole report. The keys are a promise: see INTERFACE.md.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) clients: usize,
    pub(crate) clients_verified: usize,
    /// Clients that must end with the file: without those told to misbehave.
    pub(crate) clients_expected: usize,
    pub(crate) files: usize,
    pub(crate) file_size_bytes: u64,
    pub(crate) chunk_size_bytes: u32,
    pub(crate) chunk_count: u32,
    pub(crate) transport: String,
    pub(crate) order: String,
    pub(crate) seeding: String,
    pub(crate) seed: u64,
    /// Of the relay.
    pub(crate) driver: String,
    /// Of the relay.
    pub(crate) congestion: String,
    pub(crate) wall_seconds: f64,
    pub(crate) seeding_seconds: f64,
    pub(crate) exchange_seconds: f64,
    pub(crate) goodput_bytes_per_second: f64,
    pub(crate) client_seconds: ClientSeconds,
    pub(crate) chunk_latency_seconds: ChunkSeconds,
    pub(crate) relay: RelayFigures,
    pub(crate) loadgen: LoadgenFigures,
    pub(crate) bound_by: String,
    pub(crate) errors: Vec<String>,
}

/// The relay's part; differences over the run, peaks since its start.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct RelayFigures {
    pub(crate) ingress_bytes: u64,
    pub(crate) egress_bytes: u64,
    pub(crate) ingress_amplification: f64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    pub(crate) cache_evictions: u64,
    pub(crate) chunk_bytes_peak: u64,
    pub(crate) rss_bytes_peak: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) hedges: u64,
    pub(crate) peers_banned: u64,
    pub(crate) shards: u32,
}

/// The load generator's part.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct LoadgenFigures {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes_peak: u64,
    pub(crate) shards: usize,
    pub(crate) driver: String,
}

impl Report {
    /// Whether every client that was not told to misbehave ended with the file, verified.
    pub(crate) fn is_success(&self) -> bool {
        self.errors.is_empty() && self.clients_verified >= self.clients_expected
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain figures and texts");
        text.push('\n');
        text
    }
}

/// Above this share of the cores' time somebody is the bottleneck.
const BUSY_RATIO: f64 = 0.7;

/// Who held the run up: "loadgen", "relay", or "neither" when both had time to spare.
///
/// Ratios are CPU time per wall time and event loop. On one machine both share the cores, so it
/// is their sum that runs full, and who takes more of it is to blame.
pub(crate) fn bound_by(
    relay: &RelayFigures,
    loadgen: &LoadgenFigures,
    wall: f64,
    same_machine: bool,
) -> &'static str {
    let ratio = |cpu_seconds: f64, shards: usize| {
        if wall > 0.0 { cpu_seconds / (wall * shards.max(1) as f64) } else { 0.0 }
    };
    let relay = ratio(relay.cpu_seconds, relay.shards as usize);
    let loadgen = ratio(loadgen.cpu_seconds, loadgen.shards);
    let busy = if same_machine { relay + loadgen } else { relay.max(loadgen) };
    match () {
        () if busy < BUSY_RATIO => "neither",
        () if loadgen > relay => "loadgen",
        () => "relay",
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.is_success() { "every byte verified" } else { "the job FAILED" };
        let files =
            if self.files == 1 { String::new() } else { format!("{} files of ", self.files) };
        writeln!(
            f,
            "{} of {} clients have the file, {done}: {files}{} in {} {} of {}",
            self.clients_verified,
            self.clients,
            units::size(self.file_size_bytes),
            self.chunk_count,
            if self.chunk_count == 1 { "chunk" } else { "chunks" },
            units::size(self.chunk_size_bytes.into()),
        )?;
        self.fmt_times(f)?;
        self.fmt_parts(f)?;
        line(
            f,
            "run",
            &format!(
                "{} over {}, {} order, {} seeding, seed {}",
                self.transport, self.driver, self.order, self.seeding, self.seed
            ),
        )?;
        for error in self.errors.iter().take(ERRORS_SHOWN_MAX) {
            line(f, "error", error)?;
        }
        match self.errors.len().checked_sub(ERRORS_SHOWN_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => line(f, "error", &format!("and {more} more")),
        }
    }
}

impl Report {
    fn fmt_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = units::seconds;
        let (client, chunk) = (&self.client_seconds, &self.chunk_latency_seconds);
        let phases = match self.seeding_seconds {
            0.0 => String::new(),
            seeding => {
                let exchange = seconds(self.exchange_seconds);
                format!(" (seeding {}, exchange {exchange})", seconds(seeding))
            }
        };
        line(f, "wall", &format!("{}{phases}", seconds(self.wall_seconds)))?;
        let goodput = self.goodput_bytes_per_second;
        let each = units::rate(goodput / self.clients.max(1) as f64);
        line(f, "goodput", &format!("{} to all, {each} to each", units::rate(goodput)))?;
        let text = format!(
            "p50 {}, p90 {}, p99 {}, last {}",
            seconds(client.p50),
            seconds(client.p90),
            seconds(client.p99),
            seconds(client.max)
        );
        line(f, "clients", &text)?;
        let text = format!(
            "p50 {}, p99 {}, p99.9 {}, max {}",
            seconds(chunk.p50),
            seconds(chunk.p99),
            seconds(chunk.p999),
            seconds(chunk.max)
        );
        line(f, "chunks", &text)
    }

    fn fmt_parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = &self.relay;
        let text = format!(
            "took in {:.2} times the content, gave out {}; {} cache hits, {} misses, {} evictions",
            relay.ingress_amplification,
            units::size(relay.egress_bytes),
            relay.cache_hits,
            relay.cache_misses,
            relay.cache_evictions
        );
        line(f, "relay", &text)?;
        let text = format!(
            "{:.2} s CPU, at most {} of chunks and {} resident, {} hedges, {} banned",
            relay.cpu_seconds,
            units::size(relay.chunk_bytes_peak),
            units::size(relay.rss_bytes_peak),
            relay.hedges,
            relay.peers_banned
        );
        line(f, "", &text)?;
        let text = format!(
            "{:.2} s CPU, at most {} resident; bound by: {}",
            self.loadgen.cpu_seconds,
            units::size(self.loadgen.rss_bytes_peak),
            self.bound_by
        );
        line(f, "loadgen", &text)
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {what:<8} {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            clients: 2,
            clients_verified: 2,
            clients_expected: 2,
            files: 1,
            file_size_bytes: 100 << 20,
            chunk_size_bytes: 1 << 18,
            chunk_count: 400,
            transport: "tcp".into(),
            order: "relay".into(),
            seeding: "spread".into(),
            seed: 7,
            driver: "epoll".into(),
            congestion: "cubic".into(),
            wall_seconds: 2.0,
            seeding_seconds: 0.5,
            exchange_seconds: 1.5,
            goodput_bytes_per_second: 1e8,
            client_seconds: ClientSeconds::default(),
            chunk_latency_seconds: ChunkSeconds::default(),
            relay: RelayFigures::default(),
            loadgen: LoadgenFigures::default(),
            bound_by: "relay".into(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn the_json_has_every_promised_key() {
        let value: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        for key in
            "clients clients_verified file_size_bytes chunk_size_bytes chunk_count transport \
                    order seeding seed driver congestion wall_seconds seeding_seconds \
                    exchange_seconds goodput_bytes_per_second client_seconds chunk_latency_seconds \
                    relay loadgen bound_by errors"
                .split_whitespace()
        {
            assert!(value.get(key).is_some_and(|value| !value.is_null()), "{key}");
        }
        for (part, keys) in [
            ("client_seconds", "p50 p90 p99 max"),
            ("chunk_latency_seconds", "p50 p99 p999 max"),
            ("loadgen", "cpu_seconds rss_bytes_peak"),
            (
                "relay",
                "ingress_bytes egress_bytes ingress_amplification cache_hits cache_misses \
                 cache_evictions chunk_bytes_peak rss_bytes_peak cpu_seconds hedges peers_banned",
            ),
        ] {
            for key in keys.split_whitespace() {
                assert!(value[part].get(key).is_some_and(|v| v.is_number()), "{part}.{key}");
            }
        }
    }

    #[test]
    fn a_run_with_errors_or_too_few_clients_is_no_success() {
        assert!(report().is_success());
        assert!(!Report { errors: vec!["client-1: so".into()], ..report() }.is_success());
        let short = Report { clients_verified: 1, ..report() };
        assert!(!short.is_success());
        assert!(short.to_string().contains("FAILED"));
    }

    #[test]
    fn the_busier_of_both_holds_the_run_up() {
        let relay = |cpu_seconds| RelayFigures { cpu_seconds, shards: 2, ..Default::default() };
        let loadgen = |cpu_seconds| LoadgenFigures { cpu_seconds, shards: 2, ..Default::default() };
        assert_eq!(bound_by(&relay(1.0), &loadgen(2.5), 2.0, true), "loadgen");
        assert_eq!(bound_by(&relay(2.5), &loadgen(1.0), 2.0, true), "relay");
        assert_eq!(bound_by(&relay(0.1), &loadgen(0.2), 2.0, true), "neither");
        assert_eq!(bound_by(&relay(1.0), &loadgen(2.0), 2.0, false), "neither");
        assert_eq!(bound_by(&relay(1.0), &loadgen(3.9), 2.0, false), "loadgen");
    }
}
