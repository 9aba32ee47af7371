//! What a session does as an end of an uplink: it names chunks one by one, claims and unclaims what can be had elsewhere,
//! and is told what other peers hold.
//!
//! Pure. [`super::super::bridge`] joins two such sessions.

use std::sync::Arc;

use super::{Session, SessionEvent};
use crate::wants::ChunkOrder;
use relay_protocol::{Bitfield, Manifest, Message, time::Time};

impl Session {
    /// Is an end of an uplink that stands for these relays. Before the first message is handled.
    #[must_use]
    pub fn with_uplink(mut self, below: Option<Vec<u64>>) -> Self {
        self.below = below;
        self
    }

    /// Says that it is an end of an uplink, if it is one.
    pub(super) fn introduce_uplink(&mut self) {
        if let Some(below) = self.below.clone() {
            self.outbox.push(Message::Uplink { below });
        }
    }

    /// Stands for these relays from now on.
    pub fn handle_below(&mut self, below: &[u64]) {
        if self.below.as_deref() != Some(below) {
            self.below = Some(below.to_vec());
            if self.handshake.is_over() {
                self.introduce_uplink();
            }
        }
    }

    /// Wants this chunk, whether it claims to have it or not.
    pub fn handle_named(&mut self, chunk: u32) {
        if self.file.remove(chunk) {
            self.outbox.lost(std::iter::once(chunk));
        }
        self.receiving.name(chunk);
    }

    /// Wants this chunk no longer.
    pub fn handle_forgotten(&mut self, chunk: u32) {
        self.receiving.forget(chunk);
        self.file.remove(chunk);
        if self.handshake.is_over() {
            self.outbox.lost(std::iter::once(chunk));
        }
    }

    /// Can supply these chunks from now on, and no others. No effect before it was accepted and has the manifest.
    pub fn handle_claims(&mut self, claims: &Bitfield) {
        if !self.handshake.is_over() || self.file.manifest().is_none() {
            return;
        }
        let have = self.file.have();
        let lost = beyond(have, claims);
        let new = beyond(claims, have);
        if !lost.is_empty() {
            self.outbox.lost(lost.iter().copied());
            for chunk in lost {
                self.file.remove(chunk);
            }
        }
        for chunk in new.into_iter().filter(|&chunk| !self.receiving.is_named(chunk)) {
            self.file.add(chunk);
            self.outbox.have(chunk);
        }
    }

    /// The list of digests came otherwise.
    pub fn handle_manifest(&mut self, manifest: &Arc<Manifest>) {
        if self.file.manifest().is_none() {
            self.file.set_manifest(Arc::clone(manifest));
        }
    }

    /// The relay says what other peers hold.
    pub(super) fn handle_available(&mut self, message: Message) {
        if let Message::Available { ranges, held } = message {
            self.events.push_back(SessionEvent::Available { ranges, held });
        }
    }

    /// A chunk that could not be supplied is not claimed any longer, here as there.
    pub(super) fn unclaim_refused(&mut self, chunk: u32) {
        if self.below.is_some() {
            self.file.remove(chunk);
        }
    }

    /// Whether it takes part though it lacks nothing: it may be asked to get anything again.
    pub(super) fn is_uplink(&self) -> bool {
        self.config.order == ChunkOrder::Named
    }

    /// What was said by its owner goes out now.
    pub fn handle_said(&mut self, now: Time) {
        self.handle_turn_end(now, true);
    }
}

/// What is in the one set and not in the other, ascending; a word at a time, as most often little differs.
fn beyond(set: &Bitfield, other: &Bitfield) -> Vec<u32> {
    let words = set.words().iter().zip(other.words()).zip((0u32..).step_by(64));
    let differs = words.filter(|((word, other), _)| *word & !*other != 0);
    let chunks = differs.flat_map(|(_, first)| first..set.len().min(first + 64));
    chunks.filter(|&chunk| set.contains(chunk) && !other.contains(chunk)).collect()
}
