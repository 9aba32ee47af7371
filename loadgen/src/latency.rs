//! Latencies and finishing times, as histograms: one for each shard, merged at the end.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart from longer ones.
const SECONDS_MAX: u64 = 3_600;

/// Digits that are kept of a value.
const DIGITS: u8 = 3;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, SECONDS_MAX * 1_000_000_000, DIGITS);
        Self(histogram.expect("the bounds are valid"))
    }

    /// One more. Costs a few nanoseconds.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos.max(1));
    }

    /// Adds those of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    fn seconds_at(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e9 }
    }

    fn seconds_max(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1e9 }
    }
}

/// How long chunks took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct ChunkSeconds {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// How long clients took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct ClientSeconds {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl From<&Latencies> for ChunkSeconds {
    fn from(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.seconds_at(0.5),
            p99: latencies.seconds_at(0.99),
            p999: latencies.seconds_at(0.999),
            max: latencies.seconds_max(),
        }
    }
}

impl From<&Latencies> for ClientSeconds {
    fn from(latencies: &Latencies) -> Self {
        Self {
            p50: latencies.seconds_at(0.5),
            p90: latencies.seconds_at(0.9),
            p99: latencies.seconds_at(0.99),
            max: latencies.seconds_max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_have_the_quantiles_of_all() {
        let (mut low, mut high) = (Latencies::new(), Latencies::new());
        (1..=50).for_each(|ms| low.record(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| high.record(Duration::from_millis(ms)));
        low.merge(&high);
        let seconds = ClientSeconds::from(&low);
        assert!((seconds.p50 - 0.050).abs() < 0.001, "{seconds:?}");
        assert!((seconds.p99 - 0.099).abs() < 0.001, "{seconds:?}");
        assert!((seconds.max - 0.1).abs() < 0.001, "{seconds:?}");
    }

    #[test]
    fn nothing_recorded_is_zero_and_far_too_long_is_the_longest() {
        assert_eq!(ChunkSeconds::from(&Latencies::new()), ChunkSeconds::default());
        let mut latencies = Latencies::new();
        latencies.record(Duration::MAX);
        assert!(ChunkSeconds::from(&latencies).max >= 3_600.0);
    }
}
