//! When a fetch is late, and which ones wait for a word of that.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use relay_protocol::time::Time;

use crate::{api::FetchId, book::Book};

/// Age at which a fetch is hedged before enough fetches were measured.
const HEDGE_AFTER_UNMEASURED: Duration = Duration::from_secs(1);

/// No fetch is hedged before this age: a wake-up and a round trip on a busy machine.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(50);

/// Fetches in the order in which they may be late.
#[derive(Debug, Default)]
pub(crate) struct Late {
    due: VecDeque<(Time, FetchId)>,
    /// Those that are late and wait for a word whether there is room to ask another holder.
    hedges: BTreeSet<FetchId>,
    latencies: Latencies,
}

impl Late {
    /// Age at which a fetch is hedged.
    pub(crate) fn hedge_after(&self) -> Duration {
        let measured = self.latencies.p95;
        measured.map_or(HEDGE_AFTER_UNMEASURED, |p95| (2 * p95).max(HEDGE_AFTER_MIN))
    }

    /// The fetch is looked at when it is late: it has begun, or goes on.
    ///
    /// The queue stays in order of time: every entry is due `hedge_after` from its making, and
    /// where that shrinks an entry is merely looked at a little late.
    #[inline]
    pub(crate) fn watch(&mut self, now: Time, fetch_id: FetchId) {
        self.due.push_back((now + self.hedge_after(), fetch_id));
    }

    /// The next one that is due.
    pub(crate) fn next_due(&mut self, now: Time) -> Option<FetchId> {
        self.due.pop_front_if(|&mut (at, _)| at <= now).map(|(_, fetch_id)| fetch_id)
    }

    pub(crate) fn timeout(&self) -> Option<Time> {
        self.due.front().map(|&(at, _)| at)
    }

    /// It is late, and waits for a word.
    pub(crate) fn wait(&mut self, fetch_id: FetchId) {
        self.hedges.insert(fetch_id);
    }

    /// Whether any waits for a word.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        !self.hedges.is_empty()
    }

    /// The oldest that waits for a word.
    #[inline]
    pub(crate) fn first_waiting(&self) -> Option<FetchId> {
        self.hedges.first().copied()
    }

    /// It waits no more.
    #[inline]
    pub(crate) fn ended(&mut self, fetch_id: FetchId) {
        self.hedges.remove(&fetch_id);
    }

    /// A fetch has taken so long.
    pub(crate) fn sample(&mut self, latency: Duration) {
        self.latencies.sample(latency);
    }

    /// What waits is overdue and has no rival; whatever is under way comes due.
    pub(crate) fn invariants(&self, book: &Book) {
        let waits = |id: &FetchId| book.fetches().get(*id).expect("only what is under way waits");
        assert!(self.hedges.iter().map(waits).all(|it| it.overdue && it.rival.is_none()));
        for (id, _) in book.fetches().iter() {
            assert!(self.due.iter().any(|&(_, due)| due == id), "{id:?} never comes due");
        }
    }
}

/// Samples that the hedge's quantile looks at.
const LATENCY_SAMPLES: usize = 64;

/// Samples below which the quantile means nothing yet.
const LATENCY_SAMPLES_MIN: usize = 8;

/// How long the last fetches took.
#[derive(Debug, Default)]
struct Latencies {
    ring: Vec<Duration>,
    next: usize,
    /// What all but 5% of them stayed within; `None` before enough of them.
    p95: Option<Duration>,
}

impl Latencies {
    /// One more fetch is done.
    fn sample(&mut self, latency: Duration) {
        if self.ring.len() < LATENCY_SAMPLES {
            self.ring.push(latency);
        } else {
            self.ring[self.next] = latency;
        }
        self.next = (self.next + 1) % LATENCY_SAMPLES;
        if self.ring.len() >= LATENCY_SAMPLES_MIN {
            let mut sorted = self.ring.clone();
            sorted.sort_unstable();
            self.p95 = Some(sorted[(sorted.len() * 95).div_ceil(100) - 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_ignores_the_slowest_twentieth() {
        let mut latencies = Latencies::default();
        for _ in 0..61 {
            latencies.sample(Duration::from_millis(10));
        }
        for _ in 0..3 {
            latencies.sample(Duration::from_secs(10));
        }
        assert_eq!(latencies.p95, Some(Duration::from_millis(10)));
    }
}
