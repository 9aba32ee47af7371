//! The peers that have credit and lack everything that is cached, what they lose, and the pace: how fast
//! they are.
//!
//! Invariant: `peers[p.starving.at] = p` for every peer that starves, and for no other; `loses` is the sum of
//! theirs, `pace` has the sum of their known rates.

use relay_protocol::time::Time;

use crate::api::PeerSlot;

/// Rate of a peer that has not shown one yet, in millionths of a chunk a second: low, as it has
/// lost little that is known of, but enough that patience ends.
const RATE_UNKNOWN: u64 = 1_000_000;

/// No rate counts for more, in bytes a second: sums of them fit.
const RATE_MAX: f64 = (1u64 << 40) as f64;

/// The pace falls at once with those that starve, and rises over so long: one peer that was lucky and starves
/// alone makes no others slow.
const RISE_SECONDS: f64 = 0.05;

/// The starving peers.
#[derive(Debug, Default)]
pub(crate) struct Starving {
    pub(super) peers: Vec<PeerSlot>,
    /// Where the next round begins.
    pub(super) turn: usize,
    /// How many began to starve so far.
    pub(super) entered: u64,
    /// Of all together, in millionths of a chunk a second.
    pub(super) loses: u64,
    pub(super) pace: Pace,
}

impl Starving {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// In no order that means anything.
    #[inline]
    pub(crate) fn peers(&self) -> &[PeerSlot] {
        &self.peers
    }

    /// So many of them, from where the next round begins.
    pub(crate) fn next(&self, most: usize) -> impl Iterator<Item = PeerSlot> + '_ {
        let steps = 0..self.peers.len().min(most);
        steps.map(move |step| self.peers[(self.turn + step) % self.peers.len()])
    }

    /// All of them, each once round.
    pub(crate) fn round(&self) -> Vec<PeerSlot> {
        let mut round = self.peers.clone();
        if !round.is_empty() {
            let turn = self.turn % round.len();
            round.rotate_left(turn);
        }
        round
    }

    /// What all together lose, in millionths of a chunk a second.
    #[inline]
    pub(crate) fn loses(&self) -> u64 {
        self.loses
    }

    /// How fast they are.
    #[inline]
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }
}

/// The mean rate of those that starve: now or over the last moments, whichever is less.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Of the starving whose rate is known, in bytes a second.
    sum: u64,
    count: u32,
    /// The pace; zero before any peer starved.
    rate: f64,
    /// The mean over the last [`RISE_SECONDS`] in which a peer starved.
    risen: f64,
    counted_at: Time,
}

impl Pace {
    /// A starving peer's rate was this and is now that; zero stands for one that doesn't starve, or
    /// of unknown rate.
    pub(super) fn change(&mut self, now: Time, old: u64, new: u64) {
        self.sum = self.sum - old + new;
        self.count = self.count - u32::from(old > 0) + u32::from(new > 0);
        if self.count > 0 {
            let mean = self.sum as f64 / f64::from(self.count);
            let weight = match self.risen > 0.0 {
                true => (now.seconds_since(self.counted_at) / RISE_SECONDS).min(1.0),
                false => 1.0,
            };
            self.risen += weight * (mean - self.risen);
            self.counted_at = now;
            self.rate = mean.min(self.risen);
        }
    }

    /// In bytes a second; zero before any peer starved.
    #[inline]
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// Sum and number of known rates, for checks.
    pub(crate) fn totals(&self) -> (u64, u32) {
        (self.sum, self.count)
    }
}

/// A rate in whole bytes a second, so that sums of rates don't drift.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
pub(super) fn whole(bytes_per_second: f64) -> u64 {
    bytes_per_second.min(RATE_MAX) as u64
}

/// Millionths of a chunk a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
pub(super) fn chunk_rate(bytes_per_second: Option<f64>, chunk_size_bytes: u32) -> u64 {
    bytes_per_second.map_or(RATE_UNKNOWN, |rate| (rate / f64::from(chunk_size_bytes) * 1e6) as u64)
}
