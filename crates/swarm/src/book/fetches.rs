//! Fetches under way: what is asked of whom, and why.
//!
//! Invariants: `overdue` and `on_trial` count the fetches that are; two fetches of one chunk are each other's
//! rivals.

use std::{collections::BTreeMap, time::Duration};

use relay_protocol::time::Time;

use crate::api::{FetchId, PeerSlot};

/// Why a chunk is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Some peer with credit lacks everything that is cached.
    Starving,
    /// Memory lies idle, and some peer will want it.
    Ahead,
    /// It is part of what this peer gets while the file is spread.
    Seeding(PeerSlot),
    /// Its only holder would like to go.
    Leaving,
}

/// What to fetch next, from whom, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick {
    pub(crate) chunk: u32,
    pub(crate) holder: PeerSlot,
    pub(crate) need: Need,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) chunk: u32,
    pub(crate) holder: PeerSlot,
    pub(crate) started_at: Time,
    /// What its age has added to its holder's silence.
    pub(crate) charged: Duration,
    /// The most that the shell's limits made it wait since it began: what it waits behind does not shrink with what is
    /// asked for later.
    pub(crate) patience: Duration,
    /// It does not move to an unproven holder before this age.
    pub(crate) turn: Duration,
    /// Its holder had supplied nothing yet.
    pub(crate) on_trial: bool,
    pub(crate) need: Need,
    /// Fetches at its holder when it was asked for, with it.
    pub(crate) queued: u32,
    /// The other fetch of the same chunk, while hedged.
    pub(crate) rival: Option<FetchId>,
    /// It ran into its time-out and goes on.
    pub(crate) overdue: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    by_id: BTreeMap<FetchId, Fetch>,
    next_id: u32,
    /// Those that are overdue.
    overdue: u32,
    /// Those of holders that had supplied nothing yet.
    on_trial: u32,
}

impl Fetches {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: FetchId) -> Option<&Fetch> {
        self.by_id.get(&id)
    }

    /// The oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FetchId, &Fetch)> {
        self.by_id.iter().map(|(&id, fetch)| (id, fetch))
    }

    #[inline]
    pub(crate) fn overdue(&self) -> u32 {
        self.overdue
    }

    #[inline]
    pub(crate) fn on_trial(&self) -> u32 {
        self.on_trial
    }

    /// One more, beside its rival if it has one.
    pub(super) fn add(&mut self, fetch: Fetch) -> FetchId {
        let id = FetchId(self.next_id);
        self.next_id += 1;
        self.on_trial += u32::from(fetch.on_trial);
        if let Some(rival) = fetch.rival {
            self.by_id.get_mut(&rival).expect("the rival is under way").rival = Some(id);
        }
        self.by_id.insert(id, fetch);
        id
    }

    /// One less; its rival has none any more.
    pub(super) fn remove(&mut self, id: FetchId) -> Option<Fetch> {
        let fetch = self.by_id.remove(&id)?;
        if let Some(rival) = fetch.rival.and_then(|rival| self.by_id.get_mut(&rival)) {
            rival.rival = None;
        }
        self.overdue -= u32::from(fetch.overdue);
        self.on_trial -= u32::from(fetch.on_trial);
        Some(fetch)
    }

    pub(super) fn get_mut(&mut self, id: FetchId) -> Option<&mut Fetch> {
        self.by_id.get_mut(&id)
    }

    /// It ran into its time-out.
    pub(super) fn mark_overdue(&mut self, id: FetchId) {
        let fetch = self.by_id.get_mut(&id).expect("it was just looked up");
        self.overdue += u32::from(!std::mem::replace(&mut fetch.overdue, true));
    }

    /// The shell's limits make those under way wait for so long; without limits, none.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        for fetch in self.by_id.values_mut() {
            fetch.patience = patience.map_or(Duration::ZERO, |it| it.max(fetch.patience));
        }
    }

    /// Checks the module's invariants.
    pub(crate) fn invariants(&self) {
        let overdue = self.by_id.values().filter(|fetch| fetch.overdue).count();
        assert_eq!(overdue, self.overdue as usize);
        let on_trial = self.by_id.values().filter(|fetch| fetch.on_trial).count();
        assert_eq!(on_trial, self.on_trial as usize);
        for (&id, fetch) in &self.by_id {
            if let Some(rival) = fetch.rival {
                assert_eq!(self.by_id[&rival].rival, Some(id));
                assert_eq!(self.by_id[&rival].chunk, fetch.chunk);
            }
        }
    }
}
