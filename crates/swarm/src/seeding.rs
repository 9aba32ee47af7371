//! How a swarm begins: plain fan-out, or a spread of disjoint parts over the first peers.
//!
//! While a file is spread, every chunk is fetched from the origin once, delivered to the one peer
//! whose part it is, and forgotten when that delivery is written. When every chunk was
//! acknowledged by a peer that is still there, the exchange begins with an empty cache.
//!
//! The first owners wait for slower ones for a while ([`super::patience`]). Then, as soon as the origin has no more
//! to do than to wait for those, the exchange begins without the rest of their parts; [`finishing`] says when the
//! origin may go.

mod finishing;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    PeerSlot, Swarm,
    chunks::Place,
    fetching::{Fetch, Need},
    holders::Pick,
    patience::Patience,
    peers::Peer,
};
use relay_protocol::{Bitfield, Seeding, time::Time};

/// How often parts are checked for owners that have stopped.
const STALL_CHECK_EVERY: Duration = Duration::from_secs(1);

/// For so long a chunk of a spread waits for memory before slow owners are to blame, whose chunks fill it.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(50);

/// One peer's part of the file.
#[derive(Debug, Default)]
struct Part {
    /// Chunks of it that its owner has not acknowledged.
    owed: u32,
    /// Chunks that are neither with the peer nor on their way.
    todo: VecDeque<u32>,
    /// Bytes that are being fetched for it.
    fetching_bytes: u64,
    /// Whether it stands in the round of those that can take a chunk.
    queued: bool,
}

#[derive(Debug, Default)]
enum Phase {
    /// Everybody exchanges with everybody.
    #[default]
    Open,
    /// The origin waits for peers.
    Waiting { origin: PeerSlot, peers: u32, start_by: Time },
    /// Parts are handed out.
    Spreading { origin: PeerSlot, check_at: Time, began_at: Time, patience: Patience },
    /// Everybody exchanges with everybody, and the origin waits until peers hold all of the file.
    Finishing { origin: PeerSlot },
}

/// What has been handed out to whom.
#[derive(Debug, Default)]
pub(super) struct SeedState {
    phase: Phase,
    /// A policy was stated or something was delivered: no policy is accepted any more.
    decided: bool,
    /// The origin has waited long enough: it takes whoever is there.
    waited: bool,
    /// Peers that joined with nothing and are still there.
    empty_peers: u32,
    parts: BTreeMap<PeerSlot, Part>,
    /// Owners that owe nothing.
    done: usize,
    owners: Vec<PeerSlot>,
    /// Chunks that an owner has acknowledged; once the exchange has begun, of which there is a copy.
    acknowledged: Bitfield,
    /// Owners with something to do and credit, in turn.
    ready: VecDeque<PeerSlot>,
}

impl SeedState {
    /// Whether nothing but parts is delivered.
    pub(super) fn holds_back(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. } | Phase::Spreading { .. })
    }

    fn spreading_origin(&self) -> Option<PeerSlot> {
        match self.phase {
            Phase::Spreading { origin, .. } => Some(origin),
            _ => None,
        }
    }

    /// The chunk is the owner's, who has not acknowledged it.
    fn owe(&mut self, owner: PeerSlot) {
        if let Some(part) = self.parts.get_mut(&owner) {
            self.done -= usize::from(part.owed == 0);
            part.owed += 1;
        }
    }

    /// The owner has acknowledged a chunk, or lacks it again.
    fn set_acknowledged(&mut self, chunk: u32, is_acknowledged: bool) {
        let owner = self.owners[chunk as usize];
        if !is_acknowledged && self.acknowledged.remove(chunk) {
            self.owe(owner);
        } else if is_acknowledged
            && self.acknowledged.insert(chunk)
            && let Some(part) = self.parts.get_mut(&owner)
        {
            part.owed -= 1;
            self.done += usize::from(part.owed == 0);
        }
    }
}

fn takes_part(peer: &Peer) -> bool {
    peer.joined_empty && peer.is_joined()
}

impl Swarm {
    pub(super) fn seeding_joined(&mut self, now: Time, slot: PeerSlot) {
        self.seeding.empty_peers += u32::from(takes_part(&self.peers[slot]));
        self.count_copies(slot);
        let peer = &self.peers[slot];
        let Some(seeding) = peer.seeding.filter(|_| peer.have.is_full()) else { return };
        if self.seeding.decided || self.counters.deliveries > 0 || self.chunks.count() == 0 {
            return;
        }
        self.seeding.decided = true;
        if let Seeding::Spread { peers } = seeding {
            let start_by = now + self.config.spread_wait;
            self.seeding.phase = Phase::Waiting { origin: slot, peers, start_by };
            self.seeding.acknowledged = Bitfield::empty(self.chunks.count());
            for slot in self.peers.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
                self.refresh_starving(now, slot);
            }
        }
    }

    /// The peer is gone, banned or leaving: others get its part, and what it had taken too, as
    /// only the origin has that now.
    pub(super) fn seeding_lost(&mut self, now: Time, slot: PeerSlot) {
        let peer = &self.peers[slot];
        // Called once per peer that took part: when it stops being joined.
        self.seeding.empty_peers -= u32::from(peer.joined_empty && !peer.seeding_counted_out);
        self.peers[slot].seeding_counted_out = true;
        match self.seeding.phase {
            Phase::Finishing { origin } if origin == slot => self.seeding.phase = Phase::Open,
            Phase::Waiting { origin, .. } | Phase::Spreading { origin, .. }
                if origin == slot && !self.peers[slot].is_holder() =>
            {
                self.open(now);
            }
            Phase::Spreading { .. } => self.hand_on(now, slot, true),
            _ => {}
        }
    }

    /// Hands a part to the others; with `all`, what its owner acknowledged too.
    fn hand_on(&mut self, now: Time, slot: PeerSlot, all: bool) {
        match self.seeding.parts.remove(&slot) {
            Some(part) => self.seeding.done -= usize::from(part.owed == 0),
            // It had stopped, and what it had acknowledged is lost only now.
            None if all && self.seeding.owners.contains(&slot) => {}
            None => return,
        }
        let mine = (0u32..).zip(&self.seeding.owners).filter(|&(_, &owner)| owner == slot);
        let mut lost: Vec<u32> = mine.map(|(chunk, _)| chunk).collect();
        lost.retain(|&chunk| all || !self.seeding.acknowledged.contains(chunk));
        if self.seeding.parts.is_empty() {
            let Some(origin) = self.seeding.spreading_origin() else { return };
            self.seeding.acknowledged = Bitfield::empty(self.chunks.count());
            self.seeding.phase = Phase::Waiting { origin, peers: 1, start_by: now };
            self.seeding.waited = false;
            return;
        }
        let heirs: Vec<PeerSlot> = self.seeding.parts.keys().copied().collect();
        for (&chunk, &heir) in lost.iter().zip(heirs.iter().cycle()) {
            self.bequeath(chunk, heir);
        }
    }

    /// The chunk is another owner's now, who lacks it.
    fn bequeath(&mut self, chunk: u32, heir: PeerSlot) {
        self.seeding.acknowledged.remove(chunk);
        self.seeding.owners[chunk as usize] = heir;
        self.seeding.owe(heir);
        if self.chunks.get(chunk).place != Place::Fetching {
            self.seeding_todo(heir, chunk);
        }
    }

    pub(super) fn seeding_timeout(&self) -> Option<Time> {
        match self.seeding.phase {
            Phase::Waiting { start_by, .. } => (!self.seeding.waited).then_some(start_by),
            Phase::Spreading { check_at, patience, .. } => {
                Some(patience.look_at().map_or(check_at, |at| at.min(check_at)))
            }
            Phase::Open | Phase::Finishing { .. } => None,
        }
    }

    pub(super) fn seeding_step(&mut self, now: Time) {
        match self.seeding.phase {
            Phase::Waiting { origin, peers, start_by } => {
                self.seeding.waited = now >= start_by;
                let present = self.seeding.empty_peers;
                let enough = present >= peers || present > 0 && self.seeding.waited;
                if enough && self.manifest.is_known() {
                    self.start_spreading(now, origin);
                } else if self.seeding.waited && present == 0 && self.somebody_lacks() {
                    self.open(now);
                }
            }
            Phase::Spreading { ref mut check_at, ref mut patience, began_at, .. } => {
                let is_stall_checked = *check_at <= now;
                if is_stall_checked {
                    *check_at = now + STALL_CHECK_EVERY;
                }
                let (done, owners) = (self.seeding.done, self.seeding.parts.len());
                let is_over = patience.look(now, began_at, done, owners, self.chunks.count());
                if is_over && (self.next_ready().is_none() || self.waits_long_for_room(now)) {
                    self.open(now);
                } else if is_stall_checked {
                    self.hand_on_stalled(now);
                }
            }
            Phase::Open | Phase::Finishing { .. } => {}
        }
    }

    fn waits_long_for_room(&self, now: Time) -> bool {
        self.room.asked_at.is_some_and(|at| now.since(at) >= ROOM_WAIT_MAX)
    }

    /// Whether peers that take no part, as they have something already, are held back in vain.
    fn somebody_lacks(&self) -> bool {
        self.peers.iter().any(|(_, peer)| peer.is_joined() && !peer.settled.is_full())
    }

    /// Deals the chunks out in turn: parts differ by one chunk at most.
    fn start_spreading(&mut self, now: Time, origin: PeerSlot) {
        let owners = self.peers.iter().filter(|(_, peer)| takes_part(peer));
        let owners: Vec<PeerSlot> =
            owners.map(|(slot, _)| slot).take(self.chunks.count() as usize).collect();
        if owners.is_empty() {
            return;
        }
        // What an earlier spread left would be in the way: nobody takes it from the cache.
        let cached: Vec<u32> = self.chunks.cached.iter_up().map(|(chunk, _)| chunk).collect();
        for chunk in cached {
            self.evict(now, chunk, true);
        }
        let check_at = now + STALL_CHECK_EVERY;
        self.seeding.phase =
            Phase::Spreading { origin, check_at, began_at: now, patience: Patience::Whole };
        self.seeding.ready.clear();
        self.seeding.owners.clear();
        self.seeding.done = owners.len();
        self.seeding.parts = owners.iter().map(|&owner| (owner, Part::default())).collect();
        for (chunk, &owner) in (0..self.chunks.count()).zip(owners.iter().cycle()) {
            self.seeding.owners.push(owner);
            self.seeding.owe(owner);
            self.seeding_todo(owner, chunk);
        }
    }

    /// Peers that have taken nothing for as long as a spread waits for peers lose the rest of
    /// their parts to the others.
    fn hand_on_stalled(&mut self, now: Time) {
        let wait = self.config.spread_wait;
        let silent = |slot: PeerSlot| now.since(self.peers[slot].progress_at) >= wait;
        let parts = self.seeding.parts.iter();
        let stalled: Vec<PeerSlot> = parts
            .filter(|&(&slot, part)| part.owed > 0 && silent(slot))
            .map(|(&slot, _)| slot)
            .collect();
        if stalled.len() == self.seeding.parts.len() {
            return self.open(now);
        }
        for slot in stalled {
            self.hand_on(now, slot, false);
        }
    }

    /// The chunk is to be fetched for its owner (again).
    fn seeding_todo(&mut self, owner: PeerSlot, chunk: u32) {
        if let Some(part) = self.seeding.parts.get_mut(&owner) {
            part.todo.push_back(chunk);
            self.seeding_ready(owner);
        }
    }

    /// The owner may be able to take a chunk.
    pub(super) fn seeding_ready(&mut self, slot: PeerSlot) {
        let Some(part) = self.seeding.parts.get_mut(&slot) else { return };
        let peer = &self.peers[slot];
        let credit = peer.allowance_bytes > peer.assigned_bytes + part.fetching_bytes;
        if !part.queued && !part.todo.is_empty() && credit && peer.is_joined() {
            part.queued = true;
            self.seeding.ready.push_back(slot);
            self.chunks.news = true;
        }
    }

    /// The next chunk of the next owner that can take one.
    pub(super) fn pick_seeding(&mut self, now: Time) -> Option<Pick> {
        let origin = self.seeding.spreading_origin()?;
        if !self.may_ask(&self.peers[origin]) {
            return None;
        }
        let (slot, chunk) = self.next_ready()?;
        if !self.peers[origin].have.contains(chunk) {
            self.open(now);
            return None;
        }
        Some(Pick { chunk, holder: origin, need: Need::Seeding(slot) })
    }

    /// The next owner in turn that can take a chunk, and which.
    fn next_ready(&mut self) -> Option<(PeerSlot, u32)> {
        while let Some(&slot) = self.seeding.ready.front() {
            if let Some(chunk) = self.next_of_part(slot) {
                return Some((slot, chunk));
            }
            self.seeding.ready.pop_front();
            if let Some(part) = self.seeding.parts.get_mut(&slot) {
                part.queued = false;
            }
        }
        None
    }

    /// The first chunk of the part that is still to be fetched, if its owner has credit.
    fn next_of_part(&mut self, slot: PeerSlot) -> Option<u32> {
        let part = self.seeding.parts.get_mut(&slot)?;
        let peer = &self.peers[slot];
        let credit = peer.allowance_bytes > peer.assigned_bytes + part.fetching_bytes;
        if !credit || !peer.is_joined() {
            return None;
        }
        while let Some(&chunk) = part.todo.front() {
            let mine = self.seeding.owners[chunk as usize] == slot && peer.lacks(chunk);
            if mine && self.chunks.get(chunk).place == Place::Absent {
                return Some(chunk);
            }
            if mine && self.chunks.get(chunk).place != Place::Fetching {
                // Its memory is about to come back: later.
                return None;
            }
            part.todo.pop_front();
        }
        None
    }

    /// A fetch for a part begins: the owner goes to the end of the round.
    pub(super) fn seeding_fetching(&mut self, slot: PeerSlot, chunk: u32) {
        let bytes = u64::from(self.chunk_bytes(chunk));
        if let Some(part) = self.seeding.parts.get_mut(&slot) {
            part.todo.retain(|&other| other != chunk);
            part.fetching_bytes += bytes;
            part.queued = false;
        }
        self.seeding.ready.retain(|&other| other != slot);
        self.seeding_ready(slot);
    }

    fn seeding_fetch_ended(&mut self, slot: PeerSlot, chunk: u32) {
        let bytes = u64::from(self.chunk_bytes(chunk));
        if let Some(part) = self.seeding.parts.get_mut(&slot) {
            part.fetching_bytes = part.fetching_bytes.saturating_sub(bytes);
        }
    }

    /// A chunk of a part has come.
    pub(super) fn seeding_fetched(&mut self, now: Time, slot: PeerSlot, chunk: u32) {
        self.seeding_fetch_ended(slot, chunk);
        if self.seeding.spreading_origin().is_none() {
            return;
        }
        let owner = self.seeding.owners[chunk as usize];
        if self.seeding.parts.contains_key(&owner) && self.peers[owner].lacks(chunk) {
            self.note_progress(now, owner);
            self.deliver(now, owner, chunk);
        } else {
            self.evict(now, chunk, true);
        }
        self.seeding_ready(slot);
    }

    /// A fetch for a part brought nothing.
    pub(super) fn seeding_fetch_lost(&mut self, fetch: &Fetch) {
        let Need::Seeding(slot) = fetch.need else { return };
        if fetch.rival.is_some() {
            return;
        }
        self.seeding_fetch_ended(slot, fetch.chunk);
        if let Some(&owner) = self.seeding.owners.get(fetch.chunk as usize) {
            self.seeding_todo(owner, fetch.chunk);
        }
    }

    /// A part's delivery was written (or given up): the relay forgets the chunk.
    pub(super) fn seeding_written(&mut self, now: Time, chunk: u32) {
        let spreading = self.seeding.spreading_origin().is_some();
        if spreading && self.chunks.is_cached(chunk) && self.chunks.get(chunk).unwritten == 0 {
            self.evict(now, chunk, false);
        }
    }

    /// The chunk's memory is free: it can be fetched for its owner (again).
    pub(super) fn seeding_absent(&mut self, chunk: u32) {
        if let Some(&owner) = self.seeding.owners.get(chunk as usize) {
            self.seeding_ready(owner);
        }
    }

    /// A delivery did not arrive, or its receiver lost the chunk again.
    pub(super) fn seeding_returned(&mut self, slot: PeerSlot, chunk: u32) {
        if self.seeding.spreading_origin().is_none() || self.seeding.owners[chunk as usize] != slot
        {
            return;
        }
        if self.seeding.parts.contains_key(&slot) {
            self.seeding.set_acknowledged(chunk, false);
            self.seeding_todo(slot, chunk);
        } else if let Some(&heir) = self.seeding.parts.keys().next() {
            self.bequeath(chunk, heir);
        }
    }

    /// A peer has a chunk now.
    pub(super) fn seeding_kept(&mut self, now: Time, slot: PeerSlot, chunk: u32, delivered: bool) {
        match self.seeding.phase {
            Phase::Spreading { .. } => {
                let is_own = self.seeding.owners[chunk as usize] == slot;
                if delivered && is_own && self.seeding.parts.contains_key(&slot) {
                    self.seeding.set_acknowledged(chunk, true);
                    if self.seeding.acknowledged.is_full() {
                        self.open(now);
                    }
                }
            }
            Phase::Finishing { .. } => self.count_copy(slot, chunk, delivered),
            _ => {}
        }
    }

    /// In a spread: a chunk that waits for an owner who takes nothing.
    pub(super) fn seeding_victim(&self) -> Option<u32> {
        let cached = self.chunks.cached.iter_up().map(|(chunk, _)| chunk);
        cached.into_iter().find(|&chunk| {
            let owner = self.seeding.owners.get(chunk as usize);
            !owner.and_then(|&owner| self.peers.get(owner)).is_some_and(|peer| peer.counted)
        })
    }

    /// What each owner owes is what it has not acknowledged.
    pub(super) fn seeding_invariants(&self) {
        let seeding = &self.seeding;
        let mut owed = BTreeMap::<PeerSlot, u32>::new();
        for (chunk, &owner) in (0u32..).zip(&seeding.owners) {
            *owed.entry(owner).or_default() += u32::from(!seeding.acknowledged.contains(chunk));
        }
        for (slot, part) in &seeding.parts {
            assert_eq!(part.owed, owed.get(slot).copied().unwrap_or(0), "{slot:?} owes");
        }
        if seeding.spreading_origin().is_some() {
            let done = seeding.parts.values().filter(|part| part.owed == 0).count();
            assert_eq!(seeding.done, done, "owners that owe nothing");
        }
    }
}
