//! Pace: who is worth a moment's wait, and who is left behind.
//!
//! Peers of one pace take a chunk within moments of each other. A chunk that one of them has not
//! taken yet will come free by itself, so it stays, and its one fetch serves them all (`rent` says for
//! how long). A peer that is slower than that will not come in that moment, however long the others
//! wait. Its wants hold nothing up: whatever only such peers need is given up at once. What they miss is
//! fetched again when the pace has come down to theirs, once for all of them. With rates that differ
//! by r in all that makes `1 + ln r` fetches a chunk, with nobody waiting: a wave at the pace of the
//! fastest peer that is not done fetches a file in its time, `size / t` bytes a second at time t, and
//! the integral of that from the fastest peer's time to the slowest one's is `size × ln r`.
//!
//! The **pace** is the mean rate of those who starve, as they have all that is cached: now or over the last
//! moments, whichever is less. A rate is bytes over
//! the time in which the peer had something to take or had not asked for more: time in which it starved
//! is the relay's fault and does not count. A peer falls behind when jitter no longer explains its rate.
//! Of n chunks, each of which takes its time by chance, the mean strays by 1 / √n, so it is behind if
//!
//! ```text
//! bytes / seconds < pace × exp(-MARGIN - JITTER / √n),    n = bytes / piece,
//! ```
//!
//! over about its last 32 pieces; where the pace is so high that a chunk takes less than [`TURN_SECONDS`], n counts
//! such turns instead: a peer's machine gives others a turn as well, and a wait for one delays all chunks
//! together. The same is asked of the time since its last chunk, as if all that is under
//! way arrived now: so one that is a hundred times slower shows within a few chunks' time, and one that stops
//! as well. It keeps pace again from [`RESUME`] of the pace on, and if it starves while no peer that
//! keeps pace needs anything: the wave has come down to it, whatever is known of it.
//!
//! Being left behind costs a peer nothing else: it takes what passes by. Which of it matters. If each slow
//! peer took what it liked, all would end with different chunks, and no later fetch would serve many of
//! them. So all of them prefer the same ones: those whose number in the log has the most trailing zeros
//! (`log::precedence`). A peer at a quarter of the pace takes the fourth part that all slower than half of it
//! take, and what a slower peer has is a part of what a faster one has; the same chunks are the last to be
//! given up.
//!
//! To pretend to be slow is to be left behind. To pretend to be fast takes bytes that the kernel has really
//! been rid of, and their time counts, however they are acknowledged.
//!
//! For every chunk: `keen = |{p counted, keeps pace: it is being sent, or p lacks it and, in peer order, has
//! named it}|`.

use std::time::Duration;

use super::{
    PeerSlot, Swarm,
    peers::{Peer, Stage},
};
use relay_protocol::{Order, time::Time};

/// A peer this much slower than the pace, as a natural logarithm, is not slow, whatever the evidence.
const MARGIN: f64 = 0.1;

/// How far the rate of one chunk may stray by chance, as a natural logarithm: four times the deviation of a
/// log-normal time with sigma 0.5. With three times, equal peers fetch each chunk 1.08 times instead of 1.02
/// with a cache of 2% (docs/tradeoff).
const JITTER: f64 = 2.0;

/// Part of the pace at which a peer keeps it again.
const RESUME: f64 = 0.85;

/// Less than this is no evidence of its own: chance comes in stretches of time, and acknowledgements
/// of small chunks in company.
const EVIDENCE_BYTES: u32 = 64 << 10;

/// Chance comes in turns of a machine's scheduler, too: what arrives in so long at the pace is one piece of evidence.
/// Measured: without it, 40 equal clients on two cores fetch each chunk 1.12 times, with it 1.06. With 4 ms, jobs of
/// the simulator that take a tenth of a second find out too late that a peer is slow.
const TURN_SECONDS: f64 = 0.002;

/// Less than this part of a piece, such as the rest of a recalled chunk, is no evidence at all.
const EVIDENCE_MIN: f64 = 0.01;

/// Pieces of evidence beyond which more make no difference.
const EVIDENCE_MAX: f64 = 64.0;

/// The pace falls at once with those who starve, and rises over so long: one peer that was lucky and starves
/// alone makes no others slow.
const RISE_SECONDS: f64 = 0.05;

/// So long a peer stays behind at least: to change sides costs a look at all that it lacks.
const BEHIND_LEAST: Duration = Duration::from_millis(50);

/// No rate counts for more, in bytes a second: sums of them fit.
const RATE_MAX: f64 = (1u64 << 40) as f64;

/// Peers that one look takes in: a bound on its cost.
const PEERS_LOOKED_AT: u32 = 256;

/// What is known of the pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of the starving whose rate is known, in bytes a second.
    sum: u64,
    count: u32,
    /// The pace; zero before anybody starved.
    rate: f64,
    /// The mean over the last [`RISE_SECONDS`] in which somebody starved.
    risen: f64,
    counted_at: Time,
    /// Where the next look begins.
    turn: u32,
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

    /// Sum and number of known rates, for checks.
    pub(super) fn totals(&self) -> (u64, u32) {
        (self.sum, self.count)
    }
}

/// A rate in whole bytes a second, so that sums of rates don't drift.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
pub(super) fn whole(bytes_per_second: f64) -> u64 {
    bytes_per_second.min(RATE_MAX) as u64
}

impl Swarm {
    /// Bytes that are one piece of evidence.
    fn evidence_bytes(&self) -> f64 {
        f64::from(self.config.chunk_size_bytes.max(EVIDENCE_BYTES))
    }

    /// The same where a rate is measured, over longer than a turn.
    fn piece_bytes(&self) -> f64 {
        self.evidence_bytes().max(self.pace.rate * TURN_SECONDS)
    }

    /// Whether so many bytes in so many seconds are less than the pace, whatever chance does to pieces of this size.
    fn is_slower(&self, bytes: f64, seconds: f64, piece: f64) -> bool {
        let pieces = (bytes / piece).clamp(EVIDENCE_MIN, EVIDENCE_MAX);
        bytes < seconds * self.pace.rate * (-MARGIN - JITTER / pieces.sqrt()).exp()
    }

    /// What came of the peer since the last time counts, all of it at once: acknowledgements come in company.
    pub(super) fn weigh(&mut self, now: Time, slot: PeerSlot) {
        let piece = self.piece_bytes();
        if self.peers[slot].down.fold(now, piece) {
            self.judge(now, slot);
        }
    }

    /// Whether the peer has fallen behind the pace, or keeps it again.
    pub(super) fn judge(&mut self, now: Time, slot: PeerSlot) {
        let peer = &self.peers[slot];
        let piece = self.evidence_bytes();
        let under_way = (peer.under_way_bytes as f64).max(piece);
        let (bytes, seconds, silence) = peer.down.evidence(now);
        let is_silent = self.is_slower(under_way, silence, piece);
        if peer.keeps_pace {
            if is_silent || self.is_slower(bytes, seconds, self.piece_bytes()) {
                self.peers[slot].behind_since = now;
                self.set_keeps_pace(slot, false);
            }
        } else if bytes > 0.0
            && now.since(peer.behind_since) >= BEHIND_LEAST
            && bytes >= RESUME * self.pace.rate * seconds
            && !is_silent
        {
            self.set_keeps_pace(slot, true);
        }
    }

    /// Looks at some peers that may have fallen silent, or to whose pace the wave has come down.
    pub(super) fn look_at_pace(&mut self, now: Time) {
        let slots = self.peers.slot_count();
        for _ in 0..slots.min(PEERS_LOOKED_AT) {
            self.pace.turn = (self.pace.turn + 1) % slots;
            let slot = PeerSlot(self.pace.turn);
            if self.peers.get(slot).is_some_and(|peer| peer.counted) {
                self.judge(now, slot);
            }
        }
    }

    /// Where no peer that keeps pace needs anything, those who starve set the pace, whatever is known of them. Else
    /// a peer to which nothing arrives whole would be cut off for its own next chunk, again and again.
    pub(super) fn let_the_slow_lead(&mut self) {
        if self.chunks.keen_total > 0 {
            return;
        }
        let starving = self.starving.peers.iter().take(PEERS_LOOKED_AT as usize);
        for slot in starving.copied().collect::<Vec<_>>() {
            if !self.peers[slot].keeps_pace {
                self.set_keeps_pace(slot, true);
            }
        }
    }

    /// One decision, not one for each chunk.
    fn set_keeps_pace(&mut self, slot: PeerSlot, keeps_pace: bool) {
        let peer = &mut self.peers[slot];
        peer.keeps_pace = keeps_pace;
        if !peer.counted {
            return;
        }
        let step = |count: &mut u32| *count = if keeps_pace { *count + 1 } else { *count - 1 };
        for chunk in peer.settled.iter_missing().filter(|&chunk| peer.asks_for(chunk)) {
            self.chunks.change(chunk, |state| step(&mut state.keen));
        }
        for delivery in peer.deliveries.iter().filter(|delivery| delivery.stage < Stage::Written) {
            self.chunks.change(delivery.chunk, |state| {
                step(&mut state.keen);
                step(&mut state.keen_unwritten);
            });
        }
    }
}

impl Peer {
    /// Whether it takes this chunk, if it lacks it, as soon as it can: in peer order what it has not named
    /// may be far off.
    pub(super) fn asks_for(&self, chunk: u32) -> bool {
        self.order == Order::Relay || self.wants.contains(chunk)
    }

    /// Whether its needs are worth a wait.
    pub(super) fn is_keen(&self) -> bool {
        self.counted && self.keeps_pace
    }
}

#[cfg(test)]
mod tests;
