//! Looks at both processes now and then while a run with `--report` goes on.
//!
//! On the main thread, between its looks at the board; waits for nothing. Keeps at most
//! [`SAMPLES_MAX`]: then every second one goes, and half as many are taken from there on.

use std::{path::PathBuf, time::Duration};

use relay::{protocol::Stats, time::Time};
use serde::Serialize;

use crate::{board::Board, stats::Watch, usage};

/// Samples that are kept, at most.
const SAMPLES_MAX: usize = 1024;

/// Between the first samples.
pub(crate) const INTERVAL_FIRST: Duration = Duration::from_millis(20);

/// Both processes at one moment. What isn't known is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) clients_done: u32,
    pub(crate) verified_bytes: u64,
    pub(crate) loadgen_cpu_seconds: f64,
    pub(crate) loadgen_rss_bytes: u64,
    pub(crate) relay: Option<RelaySample>,
}

/// The relay at one moment; counters since the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RelaySample {
    pub(crate) cpu_seconds: f64,
    /// Of a relay on another machine the most so far.
    pub(crate) rss_bytes: u64,
    pub(crate) chunk_bytes_peak: u64,
    pub(crate) ingress_bytes: u64,
    pub(crate) egress_bytes: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    pub(crate) cache_evictions: u64,
}

/// Takes samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    started_at: Time,
    interval: Duration,
    next_at: Time,
    before: Stats,
    cpu_before: Duration,
    /// The relay's counters, while they can be asked for.
    watch: Option<Watch>,
    /// Where the system tells of our own relay's process.
    relay_status: Option<PathBuf>,
    samples: Vec<Sample>,
}

impl Sampler {
    /// From now on; `before` is what the relay had counted already.
    pub(crate) fn new(
        now: Time,
        before: Stats,
        watch: Option<Watch>,
        relay_process: Option<u32>,
    ) -> Self {
        let relay_status = relay_process.map(|id| PathBuf::from(format!("/proc/{id}/status")));
        Self {
            started_at: now,
            interval: INTERVAL_FIRST,
            next_at: now,
            before,
            cpu_before: usage::cpu_time(),
            watch,
            relay_status,
            samples: Vec::new(),
        }
    }

    /// Takes a sample if it is time for one.
    pub(crate) fn poll(&mut self, now: Time, board: &Board) {
        if now < self.next_at {
            return;
        }
        self.next_at = now + self.interval;
        let stats = self.watch.as_mut().map(Watch::poll);
        let stats = match stats {
            Some(Ok(stats)) => stats,
            Some(Err(error)) => {
                tracing::warn!("the relay's counters are no longer sampled: {error}");
                self.watch = None;
                None
            }
            None => None,
        };
        self.take(now, board, stats.as_ref());
    }

    /// The last sample, with the relay's counters after the run; and all of them, from the first
    /// connect on.
    pub(crate) fn finish(mut self, now: Time, board: &Board, after: &Stats) -> Vec<Sample> {
        self.take(now, board, Some(after));
        let waited = board.first_connect().map_or(0.0, |at| at.seconds_since(self.started_at));
        self.samples.iter_mut().for_each(|sample| sample.seconds -= waited);
        self.samples.retain(|sample| sample.seconds >= 0.0);
        self.samples
    }

    fn take(&mut self, now: Time, board: &Board, stats: Option<&Stats>) {
        if self.samples.len() >= SAMPLES_MAX {
            let mut n = 0usize;
            self.samples.retain(|_| {
                n += 1;
                !n.is_multiple_of(2)
            });
            self.interval *= 2;
        }
        let loadgen_cpu = usage::cpu_time().saturating_sub(self.cpu_before);
        self.samples.push(Sample {
            seconds: now.seconds_since(self.started_at),
            clients_done: board.whole_count(),
            verified_bytes: board.verified_bytes(),
            loadgen_cpu_seconds: loadgen_cpu.as_secs_f64(),
            loadgen_rss_bytes: usage::rss_bytes("/proc/self/status".as_ref()).unwrap_or(0),
            relay: stats.map(|stats| self.relay_sample(stats)),
        });
    }

    fn relay_sample(&self, stats: &Stats) -> RelaySample {
        let rss = self.relay_status.as_ref().and_then(|path| usage::rss_bytes(path));
        let before = &self.before;
        RelaySample {
            cpu_seconds: stats.cpu_us.saturating_sub(before.cpu_us) as f64 / 1e6,
            rss_bytes: rss.unwrap_or(stats.rss_bytes_peak),
            chunk_bytes_peak: stats.chunk_bytes_peak,
            ingress_bytes: stats.ingress_bytes.saturating_sub(before.ingress_bytes),
            egress_bytes: stats.egress_bytes.saturating_sub(before.egress_bytes),
            cache_hits: stats.cache_hits.saturating_sub(before.cache_hits),
            cache_misses: stats.cache_misses.saturating_sub(before.cache_misses),
            cache_evictions: stats.cache_evictions.saturating_sub(before.cache_evictions),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{args::Args, plan::Plan};

    #[test]
    fn samples_thin_out_instead_of_growing_without_bound() {
        let config = Args::try_parse_from(["loadgen"]).unwrap().check().unwrap();
        let board = Board::new(&Plan::draw(&config), &[(1, 1)], 0, std::thread::current());
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        let mut sampler = Sampler::new(at(0), Stats::default(), None, None);
        for ms in 0..100_000 {
            sampler.poll(at(ms), &board);
            assert!(sampler.samples.len() <= SAMPLES_MAX);
        }
        let after = Stats { cache_hits: 9, ..Stats::default() };
        let samples = sampler.finish(at(100_000), &board, &after);
        assert!(samples.len() > SAMPLES_MAX / 4, "{}", samples.len());
        assert!(samples.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
        let last = samples.last().unwrap();
        assert_eq!((last.seconds, last.relay.as_ref().unwrap().cache_hits), (100.0, 9));
    }
}
