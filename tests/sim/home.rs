//! A swarm, and what the shell around it holds for it.

use std::collections::BTreeMap;

use relay::swarm::{FetchId, PeerSlot, Swarm};

/// A chunk's memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) cached: bool,
    /// The cached one, and those that are still being written to peers which have spoken of the
    /// chunk meanwhile. Here all go together.
    pub(super) copies: usize,
    pub(super) writers: u32,
    pub(super) bytes: u64,
}

/// A swarm and what its shell holds for it.
pub(super) struct Home {
    pub(super) swarm: Swarm,
    pub(super) slots: BTreeMap<PeerSlot, usize>,
    pub(super) memory: BTreeMap<u32, Memory>,
    pub(super) fetches: BTreeMap<FetchId, (u32, usize)>,
    pub(super) held: u32,
    pub(super) timer_at: Option<u64>,
    /// Counts restarts.
    pub(super) life: u32,
    pub(super) fetched_bytes: u64,
    pub(super) is_seeding: bool,
    /// When peers began to exchange what they have.
    pub(super) exchange_began_at: u64,
    pub(super) seeding_done_at: Option<u64>,
    pub(super) seeding_bytes: u64,
    pub(super) chunk_size: u64,
    /// When it was last told to give memory up.
    pub(super) pressed_at: Option<u64>,
}

impl Home {
    pub(super) fn new(swarm: Swarm) -> Self {
        Self {
            swarm,
            slots: BTreeMap::new(),
            memory: BTreeMap::new(),
            fetches: BTreeMap::new(),
            held: 0,
            timer_at: None,
            life: 0,
            fetched_bytes: 0,
            is_seeding: false,
            exchange_began_at: 0,
            seeding_done_at: None,
            seeding_bytes: 0,
            chunk_size: 0,
            pressed_at: None,
        }
    }

    /// Every lease is one full chunk.
    pub(super) fn leased_bytes(&self) -> u64 {
        let copies: usize = self.memory.values().map(|memory| memory.copies).sum();
        self.chunk_size * (copies + self.fetches.len() + self.held as usize) as u64
    }

    /// What must hold after every event.
    pub(super) fn check(&self, chunk_size: u32, size_bytes: u64) {
        assert!(size_bytes == 0 || self.swarm.cached_count() as usize <= self.memory.len());
        assert_eq!(self.swarm.fetch_count(), self.fetches.len());
        assert!(self.chunk_size == 0 || self.chunk_size == u64::from(chunk_size));
    }

    /// Looks whether peers begin to exchange what they have.
    pub(super) fn note_exchange(&mut self, now: u64) {
        let was_seeding = std::mem::replace(&mut self.is_seeding, self.swarm.is_seeding());
        if was_seeding && !self.is_seeding {
            self.exchange_began_at = now;
        }
    }

    pub(super) fn cached(&self) -> impl Iterator<Item = u32> {
        self.memory.iter().filter(|(_, memory)| memory.cached).map(|(&chunk, _)| chunk)
    }
}
