//! From whom the manifest is asked: one peer, the next if it refuses or lies, and more and more of
//! them if they say nothing.

use std::{cmp::Reverse, time::Duration};

use super::{Action, FetchFailure, PeerSlot, Swarm, peers::Peer};
use relay_protocol::time::Time;

/// After so long without an answer others are asked as well: twice as many each time, so that it
/// takes a few seconds to find one honest peer among a thousand that say nothing.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(1);

/// Digests of all manifests that one step may ask for: 4 MiB of them come at once at most, beside
/// those of earlier steps. A large manifest is asked of one more each time.
const DIGESTS_PER_STEP_MAX: u32 = 1 << 17;

/// When nobody is left to ask, those who were asked last have so long before the manifest counts as
/// missing.
const MISSING_AFTER: Duration = Duration::from_secs(5);

/// When nobody is left to ask, all are asked again after so long: a peer that had none may have
/// got one.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Who is asked.
#[derive(Debug)]
pub(super) struct ManifestState {
    known: bool,
    /// In the order in which they were asked; none of them has answered.
    asked: Vec<PeerSlot>,
    asked_at: Time,
    /// How many the next step asks.
    width: u32,
    /// Everybody who could have it was asked in vain: no chunk can be verified.
    exhausted: bool,
    /// When to look again.
    next_at: Option<Time>,
}

impl ManifestState {
    pub(super) fn new(chunk_count: u32) -> Self {
        Self {
            known: chunk_count == 0,
            asked: Vec::new(),
            asked_at: Time::ZERO,
            width: 1,
            exhausted: false,
            next_at: None,
        }
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
                self.guess_depth(now, slot);
                self.manifest.known = true;
                self.manifest.next_at = None;
                self.manifest.asked = Vec::new();
                self.chunks.news = true;
                if self.peers.get(slot).is_some_and(Peer::is_holder) {
                    self.prove(slot);
                }
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

    /// How long the manifest took says how long the path is.
    fn guess_depth(&mut self, now: Time, slot: PeerSlot) {
        let holds_nothing = |(other, peer): (_, &Peer)| other == slot || peer.have.count() == 0;
        if self.peers.iter().all(holds_nothing)
            && self.manifest.asked.contains(&slot)
            && let Some(peer) = self.peers.get_mut(slot)
        {
            let (chunk_size, most) = (self.config.chunk_size_bytes, self.config.fetches_max / 4);
            peer.depth.handle_sole(now.since(self.manifest.asked_at), chunk_size, most);
        }
    }

    /// The peer will not answer, if it was asked.
    pub(super) fn manifest_lost(&mut self, slot: PeerSlot) {
        let asked = &mut self.manifest.asked;
        let before = asked.len();
        asked.retain(|&other| other != slot);
        if asked.len() < before && asked.is_empty() {
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
        let next = if wanted { self.next_with_manifest() } else { Vec::new() };
        if next.is_empty() {
            return self.manifest_exhausted(now, wanted);
        }
        self.manifest.asked_at = now;
        self.manifest.next_at = Some(now + ASK_NEXT_AFTER);
        let width_max = DIGESTS_PER_STEP_MAX / self.chunks.count().max(1);
        self.manifest.width = (2 * self.manifest.width).min(width_max.max(1));
        for holder in next {
            self.peers[holder].manifest_tried = true;
            self.manifest.asked.push(holder);
            self.actions.push_back(Action::FetchManifest { holder });
        }
    }

    /// Who is asked next: who is trusted and claims most, of equals who came first.
    fn next_with_manifest(&self) -> Vec<PeerSlot> {
        let holders = self.peers.iter().filter(|(_, peer)| peer.have.count() > 0);
        let mut untried: Vec<_> = holders
            .filter(|(_, peer)| !peer.manifest_tried)
            .map(|(slot, peer)| (peer.is_suspect, Reverse(peer.have.count()), slot.0))
            .collect();
        untried.sort_unstable();
        untried.truncate(self.manifest.width as usize);
        untried.into_iter().map(|(.., slot)| PeerSlot(slot)).collect()
    }

    /// Nobody is left to ask.
    fn manifest_exhausted(&mut self, now: Time, wanted: bool) {
        let patient_until = self.manifest.asked_at + MISSING_AFTER;
        if !self.manifest.asked.is_empty() && now < patient_until {
            self.manifest.next_at = Some(patient_until);
            return;
        }
        self.manifest.asked.clear();
        self.manifest.width = 1;
        self.manifest.exhausted = true;
        self.manifest.next_at = wanted.then(|| now + ASK_AGAIN_AFTER);
        for (_, peer) in self.peers.iter_mut() {
            peer.manifest_tried = false;
        }
    }

    /// Somebody joined or got its first chunk: it can be asked at once.
    pub(super) fn manifest_holder_came(&mut self) {
        self.manifest.exhausted = false;
        if self.manifest.asked.is_empty() {
            self.manifest.next_at = None;
        }
    }
}
