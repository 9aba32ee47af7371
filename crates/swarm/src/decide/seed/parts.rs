//! Whose part of the file each chunk is in a spread, and what is still to be fetched for whom.
//!
//! Invariants: `part.owed` counts the chunks of its owner that are not `acknowledged`; `done` counts the parts
//! that owe nothing; an owner stands in `ready` at most once.

use std::collections::{BTreeMap, VecDeque};

use relay_protocol::Bitfield;

use crate::{
    api::PeerSlot,
    book::{Book, chunks::Place},
};

/// One peer's part of the file.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Chunks of it that its owner has not acknowledged.
    pub(super) owed: u32,
    /// Chunks that are neither with the peer nor on their way.
    todo: VecDeque<u32>,
    /// Bytes that are being fetched for it.
    fetching_bytes: u64,
    /// Whether it stands in the round of those that can take a chunk.
    queued: bool,
}

impl Part {
    /// Whether its owner has credit for more than what is being fetched for it.
    fn can_grow(&self, book: &Book, owner: PeerSlot) -> bool {
        let peer = book.peer(owner);
        let spoken_for = peer.intake.assigned_bytes + self.fetching_bytes;
        peer.intake.allowance_bytes > spoken_for && peer.is_joined()
    }
}

/// All parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    by_owner: BTreeMap<PeerSlot, Part>,
    /// Owners that owe nothing.
    done: usize,
    /// By chunk. One that has stopped may have handed on what it owed, and keeps what it has acknowledged.
    owners: Vec<PeerSlot>,
    /// Chunks that an owner has acknowledged; once the exchange has begun, of which there is a copy.
    pub(super) acknowledged: Bitfield,
    /// Owners with something to do and credit, in turn.
    ready: VecDeque<PeerSlot>,
}

impl Parts {
    /// Deals the chunks out in turn: parts differ by one chunk at most.
    pub(super) fn deal(&mut self, book: &mut Book, owners: &[PeerSlot]) {
        self.ready.clear();
        self.owners.clear();
        self.done = owners.len();
        self.by_owner = owners.iter().map(|&owner| (owner, Part::default())).collect();
        for (chunk, &owner) in (0..book.chunks().count()).zip(owners.iter().cycle()) {
            self.owners.push(owner);
            self.owe(owner);
            self.todo(book, owner, chunk);
        }
    }

    /// No chunk belongs to any peer.
    pub(super) fn clear(&mut self) {
        self.by_owner.clear();
        self.ready.clear();
        self.owners = Vec::new();
    }

    /// Whether no owner takes part any more.
    pub(super) fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    /// How many owners take part, and how many of them owe nothing.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.by_owner.len(), self.done)
    }

    /// Whether the peer owns a part.
    pub(super) fn has(&self, slot: PeerSlot) -> bool {
        self.by_owner.contains_key(&slot)
    }

    /// The chunk's owner, if there are parts.
    pub(super) fn owner(&self, chunk: u32) -> Option<PeerSlot> {
        self.owners.get(chunk as usize).copied()
    }

    /// Owners that owe something.
    pub(super) fn owing(&self) -> impl Iterator<Item = PeerSlot> {
        self.by_owner.iter().filter(|(_, part)| part.owed > 0).map(|(&slot, _)| slot)
    }

    /// The chunk is the owner's, which has not acknowledged it.
    fn owe(&mut self, owner: PeerSlot) {
        if let Some(part) = self.by_owner.get_mut(&owner) {
            self.done -= usize::from(part.owed == 0);
            part.owed += 1;
        }
    }

    /// The owner has acknowledged a chunk, or lacks it again.
    pub(super) fn set_acknowledged(&mut self, chunk: u32, is_acknowledged: bool) {
        let owner = self.owners[chunk as usize];
        if !is_acknowledged && self.acknowledged.remove(chunk) {
            self.owe(owner);
        } else if is_acknowledged
            && self.acknowledged.insert(chunk)
            && let Some(part) = self.by_owner.get_mut(&owner)
        {
            part.owed -= 1;
            self.done += usize::from(part.owed == 0);
        }
    }

    /// The owner loses its part; with `all`, also what it acknowledged. Which chunks that are.
    pub(super) fn take(&mut self, slot: PeerSlot, all: bool) -> Option<Vec<u32>> {
        match self.by_owner.remove(&slot) {
            Some(part) => self.done -= usize::from(part.owed == 0),
            // It had stopped, and what it had acknowledged is lost only now.
            None if all && self.owners.contains(&slot) => {}
            None => return None,
        }
        let mine = (0u32..).zip(&self.owners).filter(|&(_, &owner)| owner == slot);
        let mut lost: Vec<u32> = mine.map(|(chunk, _)| chunk).collect();
        lost.retain(|&chunk| all || !self.acknowledged.contains(chunk));
        Some(lost)
    }

    /// The chunks are the other owners' now, in turn.
    pub(super) fn hand_on(&mut self, book: &mut Book, lost: &[u32]) {
        let heirs: Vec<PeerSlot> = self.by_owner.keys().copied().collect();
        for (&chunk, &heir) in lost.iter().zip(heirs.iter().cycle()) {
            self.bequeath(book, chunk, heir);
        }
    }

    /// The chunk is another owner's now, which lacks it.
    fn bequeath(&mut self, book: &mut Book, chunk: u32, heir: PeerSlot) {
        self.acknowledged.remove(chunk);
        self.owners[chunk as usize] = heir;
        self.owe(heir);
        if book.chunk(chunk).place != Place::Fetching {
            self.todo(book, heir, chunk);
        }
    }

    /// The owner lacks the chunk again.
    pub(super) fn returned(&mut self, book: &mut Book, slot: PeerSlot, chunk: u32) {
        if self.has(slot) {
            self.set_acknowledged(chunk, false);
            self.todo(book, slot, chunk);
        } else if let Some(&heir) = self.by_owner.keys().next() {
            self.bequeath(book, chunk, heir);
        }
    }

    /// The chunk is to be fetched for its owner (again).
    pub(super) fn todo(&mut self, book: &mut Book, owner: PeerSlot, chunk: u32) {
        if let Some(part) = self.by_owner.get_mut(&owner) {
            part.todo.push_back(chunk);
            self.refresh_ready(book, owner);
        }
    }

    /// The owner may be able to take a chunk.
    pub(super) fn refresh_ready(&mut self, book: &mut Book, slot: PeerSlot) {
        let Some(part) = self.by_owner.get_mut(&slot) else { return };
        if !part.queued && !part.todo.is_empty() && part.can_grow(book, slot) {
            part.queued = true;
            self.ready.push_back(slot);
            book.note_news();
        }
    }

    /// The next owner in turn that can take a chunk, and which.
    pub(super) fn next_ready(&mut self, book: &Book) -> Option<(PeerSlot, u32)> {
        while let Some(&slot) = self.ready.front() {
            if let Some(chunk) = self.next_of(book, slot) {
                return Some((slot, chunk));
            }
            self.ready.pop_front();
            if let Some(part) = self.by_owner.get_mut(&slot) {
                part.queued = false;
            }
        }
        None
    }

    /// The first chunk of the part that is still to be fetched, if its owner has credit.
    fn next_of(&mut self, book: &Book, slot: PeerSlot) -> Option<u32> {
        let part = self.by_owner.get_mut(&slot)?;
        if !part.can_grow(book, slot) {
            return None;
        }
        while let Some(&chunk) = part.todo.front() {
            if self.owners[chunk as usize] == slot && book.peer(slot).lacks(chunk) {
                match book.chunk(chunk).place {
                    Place::Absent => return Some(chunk),
                    // Its memory is about to come back: later.
                    Place::Cached(_) | Place::Draining { .. } => return None,
                    Place::Fetching => {}
                }
            }
            part.todo.pop_front();
        }
        None
    }

    /// A fetch for a part begins: the owner goes to the end of the round.
    pub(super) fn fetching(&mut self, book: &mut Book, slot: PeerSlot, chunk: u32) {
        if let Some(part) = self.by_owner.get_mut(&slot) {
            part.todo.retain(|&other| other != chunk);
            part.fetching_bytes += u64::from(book.chunk_bytes(chunk));
            part.queued = false;
        }
        self.ready.retain(|&other| other != slot);
        self.refresh_ready(book, slot);
    }

    /// It has ended, one way or the other.
    pub(super) fn fetch_ended(&mut self, book: &Book, slot: PeerSlot, chunk: u32) {
        if let Some(part) = self.by_owner.get_mut(&slot) {
            let bytes = u64::from(book.chunk_bytes(chunk));
            part.fetching_bytes = part.fetching_bytes.saturating_sub(bytes);
        }
    }

    /// Checks the module's invariants; `done` means something only while parts are handed out.
    pub(super) fn invariants(&self, is_spreading: bool) {
        let mut owed = BTreeMap::<PeerSlot, u32>::new();
        for (chunk, &owner) in (0u32..).zip(&self.owners) {
            *owed.entry(owner).or_default() += u32::from(!self.acknowledged.contains(chunk));
        }
        for (slot, part) in &self.by_owner {
            assert_eq!(part.owed, owed.get(slot).copied().unwrap_or(0), "{slot:?} owes");
        }
        if is_spreading {
            let done = self.by_owner.values().filter(|part| part.owed == 0).count();
            assert_eq!(self.done, done, "owners that owe nothing");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relay_protocol::{Order, time::Time};

    use super::*;
    use crate::api::{Eviction, Join, SwarmConfig};

    const CHUNKS: u32 = 10;
    const CHUNK_BYTES: u32 = 1 << 16;

    /// A file's parts, dealt to three peers with credit for so many chunks.
    fn dealt(credit_chunks: u64) -> (Book, Parts, Vec<PeerSlot>) {
        let config = SwarmConfig {
            size_bytes: u64::from(CHUNKS * CHUNK_BYTES),
            chunk_size_bytes: CHUNK_BYTES,
            eviction: Eviction::Demand,
            lambda: 1.0,
            fetches_max: 4,
            cache_chunks_max: 8,
            missing_deadline: Duration::from_secs(60),
            spread_wait: Duration::from_secs(10),
            leaving_deadline: Duration::from_secs(60),
        };
        let mut book = Book::new(config, CHUNKS);
        let join = || {
            let claims = Bitfield::empty(CHUNKS);
            let join = Join {
                claims,
                order: Order::Relay,
                seeding: None,
                is_suspect: false,
                is_uplink: false,
            };
            let slot = book.join(Time::ZERO, join);
            book.set_allowance(slot, credit_chunks * u64::from(CHUNK_BYTES));
            slot
        };
        let owners: Vec<PeerSlot> = std::iter::repeat_with(join).take(3).collect();
        let mut parts = Parts { acknowledged: Bitfield::empty(CHUNKS), ..Parts::default() };
        parts.deal(&mut book, &owners);
        parts.invariants(true);
        (book, parts, owners)
    }

    fn sizes(parts: &Parts, owners: &[PeerSlot]) -> Vec<usize> {
        let size = |owner| (0..CHUNKS).filter(|&chunk| parts.owner(chunk) == Some(owner)).count();
        owners.iter().map(|&owner| size(owner)).collect()
    }

    #[test]
    fn parts_differ_by_one_chunk_and_what_an_owner_owes_goes_to_the_others() {
        let (mut book, mut parts, owners) = dealt(1);
        assert_eq!(sizes(&parts, &owners), [4, 3, 3]);
        parts.set_acknowledged(0, true);
        // It stops, and keeps what it has acknowledged.
        let lost = parts.take(owners[0], false).expect("it had a part");
        assert_eq!(lost, [3, 6, 9]);
        parts.hand_on(&mut book, &lost);
        parts.invariants(true);
        assert_eq!(sizes(&parts, &owners), [1, 5, 4]);
        // It goes, and what it had acknowledged goes with it.
        assert_eq!(parts.take(owners[0], false), None);
        let lost = parts.take(owners[0], true).expect("it had acknowledged something");
        assert_eq!(lost, [0]);
        parts.hand_on(&mut book, &lost);
        parts.invariants(true);
        assert_eq!(sizes(&parts, &owners), [0, 6, 4]);
    }

    #[test]
    fn owners_with_credit_take_turns() {
        let (book, mut parts, _) = dealt(0);
        assert_eq!(parts.next_ready(&book), None);
        let (mut book, mut parts, owners) = dealt(2);
        let mut taken = Vec::new();
        while let Some((owner, chunk)) = parts.next_ready(&book) {
            parts.fetching(&mut book, owner, chunk);
            taken.push((owner, chunk));
        }
        let turn = owners.iter().copied().cycle().zip(0..6);
        assert_eq!(taken, turn.collect::<Vec<_>>());
    }
}
