//! What a share has come to: what went out of here, and how far the swarm is.
//!
//! Counts only. What follows from it is decided in [`super::watch`].

use std::time::Duration;

use shards::clock;

use crate::{
    peer::event_loop::STOOD_STILL,
    protocol::{Bitfield, SwarmStatus},
    time::Time,
};

/// What went from here to the relay.
#[derive(Debug)]
pub(super) struct Served {
    /// Chunks that went at least once.
    chunks: Bitfield,
    /// Of all that went, again or not.
    bytes: u64,
    /// When a chunk went last, or could have gone again.
    last_at: Option<Time>,
    rate: Rate,
    /// Of the time that the process has not run, so much was seen.
    lapsed: Duration,
}

impl Served {
    /// Nothing, of a file of so many chunks.
    pub(super) fn nothing(chunk_count: u32) -> Self {
        Self {
            chunks: Bitfield::empty(chunk_count),
            bytes: 0,
            last_at: None,
            rate: Rate::default(),
            lapsed: clock::lapsed(),
        }
    }

    /// A chunk of this length went out.
    pub(super) fn add(&mut self, now: Time, chunk: u32, len_bytes: u32) {
        self.chunks.insert(chunk);
        self.bytes += u64::from(len_bytes);
        self.last_at = Some(now);
    }

    /// From now on a chunk can go.
    pub(super) fn handle_connected(&mut self, now: Time) {
        self.last_at = Some(now);
    }

    /// How long no chunk went, in time that this process was running. `patience`: how long is waited for one.
    pub(super) fn idle(&mut self, now: Time, patience: Option<Duration>) -> Option<Duration> {
        let lapsed = clock::lapsed();
        let before = std::mem::replace(&mut self.lapsed, lapsed);
        let patience = patience.unwrap_or(STOOD_STILL).min(STOOD_STILL);
        if lapsed.saturating_sub(before) >= patience {
            // No peer could take a chunk while this process stood still.
            self.last_at = self.last_at.map(|_| now);
        }
        self.last_at.map(|at| now.since(at))
    }

    /// Chunks that went at least once.
    pub(super) fn count(&self) -> u32 {
        self.chunks.count()
    }

    /// Whether every chunk went.
    pub(super) fn is_all(&self) -> bool {
        self.chunks.is_full()
    }

    /// Bytes of all that went, again or not.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Measures how fast it goes, about once a second.
    pub(super) fn sample_rate(&mut self, now: Time) {
        self.rate.sample(now, self.bytes);
    }

    /// How fast it went of late.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.rate.bytes_per_second
    }
}

/// How far the swarm is, as the relay tells it, and what a relay has forgotten.
#[derive(Debug, Default)]
pub(super) struct Standing {
    status: SwarmStatus,
    told: Option<SwarmStatus>,
    /// Copies that a relay knew of before it, or its memory of the swarm, was lost.
    copies_before: u32,
    /// Chunks that were handed out, as far as is known: what a relay has forgotten counts all the same.
    handed_out: u32,
}

impl Standing {
    /// The relay's answer; `served`: chunks that went from here.
    pub(super) fn handle_status(&mut self, status: SwarmStatus, served: u32) {
        if status.copies < self.status.copies {
            // The relay was restarted, or forgot a swarm that no peer was in.
            self.copies_before = self.copies();
        }
        self.status = status;
        self.handed_out = self.handed_out.max(status.chunks_handed_out);
        self.handle_served(served);
    }

    /// So many chunks went from here.
    pub(super) fn handle_served(&mut self, chunks: u32) {
        self.handed_out = self.handed_out.max(chunks);
    }

    /// Whether the answer differs from the one before.
    pub(super) fn is_news(&mut self) -> bool {
        self.told.replace(self.status) != Some(self.status)
    }

    /// Peers that got the whole file, as far as any relay knew.
    pub(super) fn copies(&self) -> u32 {
        self.copies_before.saturating_add(self.status.copies)
    }

    /// Chunks that were handed out.
    pub(super) fn handed_out(&self) -> u32 {
        self.handed_out
    }

    /// Peers that are connected, but for this one.
    pub(super) fn others(&self) -> u32 {
        self.status.peers.saturating_sub(1)
    }

    /// Those of them that have the whole file.
    pub(super) fn whole_others(&self) -> u32 {
        self.status.whole_peers.saturating_sub(1)
    }
}

/// What goes out, of late.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    bytes_per_second: u64,
    last: Option<(Time, u64)>,
}

impl Rate {
    fn sample(&mut self, now: Time, bytes: u64) {
        let Some((at, before)) = self.last.replace((now, bytes)) else { return };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rate is shown with three figures"
        )]
        let latest = ((bytes - before) as f64 / now.seconds_since(at).max(0.001)) as u64;
        self.bytes_per_second = match (self.bytes_per_second, latest) {
            (0, latest) | (_, latest @ 0) => latest,
            (before, latest) => before.midpoint(latest),
        };
    }
}
