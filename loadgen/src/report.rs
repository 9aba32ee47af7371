//! What a run came to: figures for machines, prose for people. Measures nothing itself.

use std::fmt::{self, Display};

use serde::Serialize;

use crate::{
    latency::{ChunkSeconds, ClientSeconds},
    recorder::Recorder,
    sampler::Sample,
    units,
};

/// Errors that the prose lists; the JSON has them all.
const ERRORS_SHOWN_MAX: usize = 10;

/// What a relay that served before may count as well.
pub(crate) const IN_USE: &str = "it was in use before this run: what it counted since is told, of all its \
     files; peaks are since its start";

/// What is known of a run, for its page.
#[derive(Debug)]
pub(crate) struct Recorded<'a> {
    pub(crate) report: &'a Report,
    pub(crate) recorder: &'a Recorder,
    pub(crate) samples: &'a [Sample],
}

/// The whole report. The keys are a promise: none is renamed or missing.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
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
    /// Whether the origin sealed what it gave, and the clients opened it.
    pub(crate) sealed: bool,
    /// Of the relay.
    pub(crate) driver: String,
    /// Of the relay.
    pub(crate) congestion: String,
    pub(crate) wall_seconds: f64,
    /// From the first connect until the last client that joins at the start was accepted.
    pub(crate) connect_seconds: f64,
    pub(crate) seeding_seconds: f64,
    pub(crate) exchange_seconds: f64,
    pub(crate) goodput_bytes_per_second: f64,
    pub(crate) client_seconds: ClientSeconds,
    /// Of those clients that have no limit of their own.
    pub(crate) unlimited_client_seconds: ClientSeconds,
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
    /// Those peaks when the run began; 0 of a relay of the run's own.
    pub(crate) chunk_bytes_peak_before: u64,
    pub(crate) rss_bytes_peak_before: u64,
    /// It had served others before the run.
    pub(crate) was_in_use: bool,
    pub(crate) cpu_seconds: f64,
    pub(crate) hedges: u64,
    pub(crate) peers_banned: u64,
    pub(crate) shards: u32,
}

impl RelayFigures {
    /// The most chunk bytes, and whether they were reached in this run, in words.
    pub(crate) fn chunk_peak(&self) -> String {
        peak(self.chunk_bytes_peak, self.chunk_bytes_peak_before)
    }

    /// The most resident bytes, and whether they were reached in this run, in words.
    pub(crate) fn rss_peak(&self) -> String {
        peak(self.rss_bytes_peak, self.rss_bytes_peak_before)
    }
}

/// A peak is since the relay's start: one that did not grow in this run is of what was before it.
fn peak(bytes: u64, before: u64) -> String {
    let earlier = if bytes > 0 && bytes <= before { " (before this run)" } else { "" };
    format!("{}{earlier}", units::size(bytes))
}

/// The load generator's part.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct LoadgenFigures {
    pub(crate) cpu_seconds: f64,
    /// The largest share of the time that one event loop worked or waited for a core; 0 where the
    /// system doesn't tell.
    pub(crate) demand_ratio_max: f64,
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

/// From this share of the time on a loop had none to spare.
const BUSY_RATIO: f64 = 0.7;

/// What held the run up: "loadgen", "relay", or "neither" when both had time to spare.
///
/// A load generator with an event loop that (almost) never slept could not have taken more; that it
/// worked little tells nothing, since it may have waited for a core that the relay had. So its
/// demand decides, and where both want the cores of one machine, the one that takes more of them is to
/// blame. Of the relay there is only CPU time, per event loop and wall time.
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
    let worked = ratio(loadgen.cpu_seconds, loadgen.shards);
    let demand = worked.max(loadgen.demand_ratio_max);
    let relay_is_ahead = relay > if same_machine { worked } else { demand };
    let cores_are_full = same_machine && relay + worked >= BUSY_RATIO;
    match () {
        () if demand >= BUSY_RATIO && !relay_is_ahead => "loadgen",
        () if relay >= BUSY_RATIO || cores_are_full => "relay",
        () => "neither",
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
                "{} over {}, {} order, {} seeding, {}, seed {}",
                self.transport,
                self.driver,
                self.order,
                self.seeding,
                if self.sealed { "sealed" } else { "not sealed" },
                self.seed
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
            "p50 {}, p90 {}, p99 {}, last {}, each from its own connect",
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
            relay.chunk_peak(),
            relay.rss_peak(),
            relay.hedges,
            relay.peers_banned
        );
        line(f, "", &text)?;
        if relay.was_in_use {
            line(f, "", IN_USE)?;
        }
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
            sealed: false,
            driver: "epoll".into(),
            congestion: "cubic".into(),
            wall_seconds: 2.0,
            connect_seconds: 0.1,
            seeding_seconds: 0.5,
            exchange_seconds: 1.5,
            goodput_bytes_per_second: 1e8,
            client_seconds: ClientSeconds::default(),
            unlimited_client_seconds: ClientSeconds::default(),
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
                    order seeding seed sealed driver congestion wall_seconds seeding_seconds \
                    exchange_seconds goodput_bytes_per_second client_seconds chunk_latency_seconds \
                    relay loadgen bound_by errors"
                .split_whitespace()
        {
            assert!(value.get(key).is_some_and(|value| !value.is_null()), "{key}");
        }
        for (part, keys) in [
            ("client_seconds", "p50 p90 p99 max"),
            ("chunk_latency_seconds", "mean p50 p99 p999 max"),
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
    fn a_peak_that_was_there_before_the_run_is_told_as_one() {
        let relay = RelayFigures {
            chunk_bytes_peak: 60 << 20,
            chunk_bytes_peak_before: 60 << 20,
            rss_bytes_peak: 81 << 20,
            rss_bytes_peak_before: 80 << 20,
            was_in_use: true,
            ..RelayFigures::default()
        };
        let text = Report { relay: relay.clone(), ..report() }.to_string();
        let peaks = "at most 60 MiB (before this run) of chunks and 81 MiB resident";
        assert!(text.contains(peaks) && text.contains("in use before this run"), "{text}");
        let own = RelayFigures { chunk_bytes_peak_before: 0, was_in_use: false, ..relay };
        let text = Report { relay: own, ..report() }.to_string();
        assert!(!text.contains("before this run"), "{text}");
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
    fn a_generator_that_never_slept_held_the_run_up_unless_the_relay_took_the_cores() {
        let of = |relay, loadgen, demand_ratio_max, same_machine| {
            let relay = RelayFigures { cpu_seconds: relay, shards: 2, ..Default::default() };
            let loadgen = LoadgenFigures {
                cpu_seconds: loadgen,
                shards: 2,
                demand_ratio_max,
                ..Default::default()
            };
            bound_by(&relay, &loadgen, 2.0, same_machine)
        };
        // Both on the two cores of one machine, for two seconds.
        assert_eq!(of(1.0, 2.5, 0.95, true), "loadgen");
        assert_eq!(of(2.5, 1.0, 0.95, true), "relay", "it only waited for a core");
        assert_eq!(of(2.5, 1.0, 0.4, true), "relay", "it slept");
        assert_eq!(of(0.9, 2.0, 0.5, true), "relay", "it slept, though it took more");
        assert_eq!(of(0.1, 0.2, 0.1, true), "neither");
        // Machines of their own.
        assert_eq!(of(1.0, 2.0, 0.5, false), "neither");
        assert_eq!(of(1.0, 2.0, 0.98, false), "loadgen", "one loop of two was full");
        assert_eq!(of(3.9, 2.0, 0.5, false), "relay");
        assert_eq!(of(1.0, 3.9, 0.0, false), "loadgen", "a system that tells no demand");
        assert_eq!(
            bound_by(&RelayFigures::default(), &LoadgenFigures::default(), 0.0, true),
            "neither"
        );
    }
}
