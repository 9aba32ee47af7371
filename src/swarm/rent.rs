//! Rent or buy: how long starving peers wait before a chunk that is still wanted is evicted.
//!
//! While room is wanted in vain, starving peers lose deliveries: time starving x own recent rate.
//! When together they have lost the price of the cheapest wanted chunk, it goes, and the count
//! starts again; it also starts again when a chunk comes free by itself, as then the wait was
//! worth it.
//!
//! `price = lambda x (1 + KEEN x keen) / sqrt(chunks in a full cache)`, where `keen` is the part
//! of those who still need the chunk that keep up with the pace of the starving. A chunk that only
//! slow peers need is hopeless: it will not come free soon, and they have others to go on with. One
//! that peers of the same pace need is about to come free: that is mere jitter, and evicting it
//! makes equal peers thrash. In a deep cache jitter averages out, and less patience is needed. And
//! what peers in peer order lack but have not named is not about to come free either: where the
//! order is random, hardly anybody is about to take any chunk, and patience would only cost time.
//!
//! Who starves beside a cached chunk that he lacks (in peer order, he wants another one first) won't
//! set it free by waiting: he is not keen on it. A chunk that only such peers need costs nothing, as
//! nothing that happens by itself makes room.

use std::time::Duration;

use super::{PeerSlot, Swarm};
use crate::{protocol::Order, time::Time};

/// Lost deliveries, in chunks, that buy one eviction: see `price` above. Chosen by the trade-off in
/// docs/tradeoff (a hundred peers, jitter): with a cache of 2% and rates that differ by a factor of
/// 10 each chunk is fetched 2.9 times, the median peer takes 1.5 times its ideal and no peer more
/// than 2.4 times; equal peers fetch each chunk 1.02 times. Half of it makes equal peers fetch more
/// than 1.05 times, four times of it holds fast peers up for more than 2.5 times their ideal.
pub const LAMBDA_DEFAULT: f64 = 8.0;

/// How much dearer a chunk is that only peers of the same pace need.
const KEEN: f64 = 20.0;

/// A peer at this part of the pace keeps up with it.
const KEEN_RATE: f64 = 0.5;

/// How much of the pace one look at the starving replaces.
const PACE_STEP: f64 = 0.1;

/// Starving peers, and needers of a chunk, that one look takes in: a bound on its cost.
const PEERS_LOOKED_AT: u32 = 256;

/// Least needed chunks that are compared.
const CHUNKS_COMPARED: usize = 8;

/// What has been lost since the last purchase.
#[derive(Debug)]
pub(super) struct Rent {
    /// The price of a chunk that only slow peers need.
    price_min: f64,
    lost_chunks: f64,
    /// Of all starving peers together, in millionths of a chunk a second.
    rate: u64,
    blocked: bool,
    counted_to: Time,
    /// The mean rate of starving peers, in bytes a second.
    pace: f64,
    /// When so much was lost, prices are looked at (again).
    look_at: f64,
    /// Prices were not looked at since the count started.
    is_fresh: bool,
}

impl Rent {
    pub(super) fn new(lambda: f64, cache_chunks: u32) -> Self {
        let price_min = lambda / f64::from(cache_chunks.max(1)).sqrt();
        Self {
            price_min,
            lost_chunks: 0.0,
            rate: 0,
            blocked: false,
            counted_to: Time::ZERO,
            pace: 0.0,
            look_at: price_min,
            is_fresh: true,
        }
    }

    /// The mean rate of starving peers, in bytes a second; zero before the first look.
    pub(super) fn pace(&self) -> f64 {
        self.pace
    }

    /// Counts what was lost up to now.
    pub(super) fn advance(&mut self, now: Time) {
        if self.blocked {
            self.lost_chunks += now.seconds_since(self.counted_to) * self.chunks_per_second();
        }
        self.counted_to = self.counted_to.max(now);
    }

    /// From now on memory is what starving peers wait for, or it is not.
    pub(super) fn set_blocked(&mut self, now: Time, blocked: bool) {
        self.advance(now);
        self.blocked = blocked;
    }

    /// One peer's part of the rate changes.
    pub(super) fn change_rate(&mut self, old: u64, new: u64) {
        self.rate = self.rate - old + new;
    }

    /// The summed rate, for checks.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn chunks_per_second(&self) -> f64 {
        self.rate as f64 / 1e6
    }

    /// When enough will have been lost for a look at prices; `None` while nothing is lost.
    pub(super) fn look_at(&self) -> Option<Time> {
        let seconds = (self.look_at - self.lost_chunks).max(0.0) / self.chunks_per_second();
        let wait = Duration::try_from_secs_f64(seconds).ok()?;
        (self.rate > 0).then(|| self.counted_to + wait + Duration::from_micros(1))
    }

    /// A purchase, or a chunk that came free by itself: the count starts again.
    pub(super) fn reset(&mut self) {
        self.lost_chunks = 0.0;
        self.look_at = self.price_min;
        self.is_fresh = true;
    }
}

impl Swarm {
    /// The wanted chunk whose price has been lost, if any. Looks seldom: not again before as much
    /// was lost as the cheapest chunk costs, but once at first where it may cost nothing.
    pub(super) fn affordable(&mut self) -> Option<u32> {
        let first = self.starving.peers.first().map(|&slot| self.peers[slot].order);
        let may_cost_nothing = self.rent.is_fresh && first == Some(Order::Peer);
        if self.rent.lost_chunks < self.rent.look_at && !may_cost_nothing {
            return None;
        }
        self.rent.is_fresh = false;
        self.look_at_pace();
        self.chunks.cached.tidy();
        let offer = self.cheapest();
        let price = offer.map_or(f64::INFINITY, |(_, price)| price);
        if self.rent.lost_chunks >= price {
            return offer.map(|(chunk, _)| chunk);
        }
        self.rent.look_at = price.min(self.rent.lost_chunks + self.rent.price_min);
        None
    }

    fn look_at_pace(&mut self) {
        let starving = self.starving.peers.iter().take(PEERS_LOOKED_AT as usize);
        let rates = starving.filter_map(|&slot| self.peers[slot].down.rate());
        let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        if count > 0.0 {
            let step = if self.rent.pace == 0.0 { 1.0 } else { PACE_STEP };
            self.rent.pace += step * (sum / count - self.rent.pace);
        }
    }

    /// Among the least needed chunks the one with the fewest keen needers, and its price.
    fn cheapest(&self) -> Option<(u32, f64)> {
        let candidates = self
            .chunks
            .cached
            .iter_up()
            .filter(|&(chunk, needers)| needers == 0 || !self.chunks.get(chunk).protected);
        let priced = candidates.take(CHUNKS_COMPARED).map(|(chunk, needers)| {
            let (keen, served, seen) = self.needers_of(chunk);
            let price = match seen {
                0 => self.rent.price_min,
                _ if served == 0 => 0.0,
                _ => self.rent.price_min * (1.0 + KEEN * f64::from(keen) / f64::from(seen)),
            };
            (keen, needers, chunk, price)
        });
        let best = priced.min_by_key(|&(keen, needers, ..)| (keen, needers));
        best.map(|(.., chunk, price)| (chunk, price))
    }

    /// Among the next few peers: how many that need the chunk will take it soon as they keep up with
    /// the pace, how many that need it don't starve for another, and how many need it.
    fn needers_of(&self, chunk: u32) -> (u32, u32, u32) {
        let slots = self.peers.slot_count();
        let looked_at = slots.min(PEERS_LOOKED_AT);
        let start = if slots > looked_at { chunk.wrapping_mul(looked_at) % slots } else { 0 };
        let (mut keen, mut served, mut seen) = (0, 0, 0);
        for step in 0..looked_at {
            let slot = PeerSlot((start + step) % slots);
            if let Some(peer) = self.peers.get(slot)
                && peer.counted
                && !peer.have.contains(chunk)
            {
                let is_lacked = peer.lacks(chunk);
                if !is_lacked && !peer.is_being_sent(chunk) {
                    continue;
                }
                // Who chooses the order takes next what it has named: what it has not may be far off.
                let is_far = is_lacked && peer.order == Order::Peer && !peer.wants.contains(chunk);
                let slow = |rate| rate < KEEN_RATE * self.rent.pace;
                let starves = is_lacked && peer.starving.is_some();
                let is_slow = peer.down.settled_rate().is_some_and(slow);
                seen += 1;
                served += u32::from(!starves);
                keen += u32::from(!is_far && !starves && !is_slow);
            }
        }
        (keen, served, seen)
    }
}
