//! From whom the manifest is asked: one peer at a time, the next if it fails.

use std::time::Duration;

use super::{Action, FetchFailure, PeerSlot, Swarm};
use crate::time::Time;

/// After so long without an answer somebody else is asked as well.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(5);

/// When nobody is left to ask, all are asked again after so long: a peer that had none may have
/// got one.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Who is asked.
#[derive(Debug)]
pub(super) struct ManifestState {
    known: bool,
    asked: Option<PeerSlot>,
    /// Everybody who could have it was asked in vain: no chunk can be verified.
    exhausted: bool,
    /// When to look again.
    next_at: Option<Time>,
}

impl ManifestState {
    pub(super) fn new(chunk_count: u32) -> Self {
        Self { known: chunk_count == 0, asked: None, exhausted: false, next_at: None }
    }

    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether nobody has it who was asked: then every chunk is as good as missing.
    pub(super) fn is_missing(&self) -> bool {
        self.exhausted && !self.known
    }
}

impl Swarm {
    /// What became of the manifest that this peer was asked for; unasked good news is welcome.
    pub fn handle_manifest(&mut self, now: Time, slot: PeerSlot, result: Result<(), FetchFailure>) {
        self.begin(now);
        match result {
            Ok(()) => {
                self.manifest.known = true;
                self.manifest.next_at = None;
                self.chunks.news = true;
            }
            Err(failure) => {
                self.manifest_lost(slot);
                if let Some(peer) = self.peers.get_mut(slot) {
                    peer.manifest_tried = true;
                }
                if failure == FetchFailure::Lied {
                    self.ban(now, slot);
                }
            }
        }
        self.settle(now);
    }

    /// The peer that was asked will not answer.
    pub(super) fn manifest_lost(&mut self, slot: PeerSlot) {
        if self.manifest.asked == Some(slot) {
            self.manifest.asked = None;
            self.manifest.next_at = None;
        }
    }

    pub(super) fn manifest_timeout(&self) -> Option<Time> {
        self.manifest.next_at
    }

    pub(super) fn manifest_step(&mut self, now: Time) {
        if self.manifest.known || self.manifest.next_at.is_some_and(|at| now < at) {
            return;
        }
        let wanted = self.peers.iter().any(|(_, peer)| !peer.settled.is_full());
        let holders = self.peers.iter().filter(|(_, peer)| peer.have.count() > 0);
        let untried = holders.filter(|(_, peer)| !peer.manifest_tried);
        let trust = |peer: &super::peers::Peer| (!peer.is_suspect, peer.have.count());
        let best = untried.max_by_key(|(_, peer)| trust(peer)).map(|(slot, _)| slot);
        match best.filter(|_| wanted) {
            Some(holder) => {
                self.peers[holder].manifest_tried = true;
                self.manifest.asked = Some(holder);
                self.manifest.next_at = Some(now + ASK_NEXT_AFTER);
                self.actions.push_back(Action::FetchManifest { holder });
            }
            None => {
                self.manifest.asked = None;
                self.manifest.exhausted = true;
                self.manifest.next_at = wanted.then(|| now + ASK_AGAIN_AFTER);
                for (_, peer) in self.peers.iter_mut() {
                    peer.manifest_tried = false;
                }
            }
        }
    }

    /// Somebody joined or got its first chunk: it can be asked at once.
    pub(super) fn manifest_holder_came(&mut self) {
        self.manifest.exhausted = false;
        if self.manifest.asked.is_none() {
            self.manifest.next_at = None;
        }
    }
}
