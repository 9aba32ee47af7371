//! When each piece comes out at the other end of a flow: delays, losses, and a bottleneck's queue.
//!
//! Moves nothing itself.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range, time::Duration};

use relay::rng::Rng;
use tokio::time::Instant;

use super::{Faults, Happened, MILLION, count};

/// What a lost piece of a stream is late by: the least time that retransmission takes.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// How far later ones overtake: more than the jitter of a busy machine.
const OVERTAKEN_BY: Duration = Duration::from_millis(8);

/// A bottleneck's queue, in time; what would wait longer is lost.
const QUEUE_TIME_MAX: Duration = Duration::from_millis(100);

/// Datagrams on one line at most, as a bound on memory; more are lost.
const DATAGRAMS_MAX: usize = 8192;

/// One direction of one flow.
pub(super) struct Line {
    rng: Rng,
    /// When the bottleneck has worked off what it was given.
    free_at: Instant,
    /// Streams are in order.
    last_due: Instant,
    sequence: u64,
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
}

impl Line {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let now = Instant::now();
        let waiting = BinaryHeap::new();
        Self { rng: Rng::new(seed, stream), free_at: now, last_due: now, sequence: 0, waiting }
    }

    fn chance(&mut self, of_a_million: u64) -> bool {
        of_a_million > 0 && self.rng.below(MILLION) < of_a_million
    }

    /// Delay and jitter of one piece.
    fn delay(&mut self, faults: &Faults) -> Duration {
        let jitter = u64::try_from(faults.jitter.as_nanos()).expect("short");
        faults.delay + Duration::from_nanos(self.rng.below(jitter + 1))
    }

    /// When the bottleneck is through with so many bytes.
    fn serve(&mut self, now: Instant, bytes: usize, faults: &Faults) -> Instant {
        let time = faults.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate.max(1))
        });
        self.free_at = self.free_at.max(now) + time;
        self.free_at
    }

    fn damage(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = usize::try_from(self.rng.below(bytes.len() as u64)).expect("an index");
            bytes[at] ^= 1 << self.rng.below(8);
        }
    }

    /// When this piece of a stream comes out; only its file bytes are damaged.
    pub(super) fn piece(
        &mut self,
        bytes: &mut [u8],
        payloads: &[Range<usize>],
        faults: &Faults,
        happened: &Happened,
    ) -> Instant {
        let now = Instant::now();
        let mut due = self.serve(now, bytes.len(), faults) + self.delay(faults);
        if self.chance(faults.lost) {
            count(&happened.lost);
            due += RETRANSMISSION + 2 * faults.delay;
        }
        if self.chance(faults.damaged)
            && let Some(payload) = payloads.first()
        {
            count(&happened.damaged);
            self.damage(&mut bytes[payload.clone()]);
        }
        self.last_due = self.last_due.max(due);
        self.last_due
    }

    /// Takes a datagram in, or loses it.
    pub(super) fn push(&mut self, mut bytes: Vec<u8>, faults: &Faults, happened: &Happened) {
        count(&happened.datagrams);
        let now = Instant::now();
        let is_late = self.free_at > now + QUEUE_TIME_MAX;
        let is_long = faults.datagram_bytes_max.is_some_and(|most| bytes.len() > most);
        let is_full = self.waiting.len() >= DATAGRAMS_MAX;
        if faults.black_hole || is_late || is_long || is_full || self.chance(faults.lost) {
            count(&happened.lost);
            return;
        }
        let mut due = self.serve(now, bytes.len(), faults) + self.delay(faults);
        if self.chance(faults.overtaken) {
            count(&happened.overtaken);
            due += OVERTAKEN_BY;
        }
        if self.chance(faults.damaged) {
            count(&happened.damaged);
            self.damage(&mut bytes);
        }
        if self.chance(faults.doubled) {
            count(&happened.doubled);
            let again = due + self.delay(faults);
            self.wait(again, bytes.clone());
        }
        self.wait(due, bytes);
    }

    fn wait(&mut self, due: Instant, bytes: Vec<u8>) {
        self.sequence += 1;
        self.waiting.push(Reverse((due, self.sequence, bytes)));
    }

    /// When the next datagram comes out.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, ..))| *due)
    }

    /// A datagram that is due.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        if self.next_due()? > Instant::now() {
            return None;
        }
        self.waiting.pop().map(|Reverse((.., bytes))| bytes)
    }
}
