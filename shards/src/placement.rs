//! Which shard runs on which core.
//!
//! Decided once, before any thread is pinned, from the cores that this process may use.
//! Does not pin: the shard's thread does that itself.

use std::{fmt, num::NonZeroUsize};

/// Names a shard: 0, 1, … in the order of starting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// For tables with an entry per shard.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The shard of a table's entry.
    ///
    /// # Panics
    /// Beyond [`SHARDS_MAX`].
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(u16::try_from(index).expect("shards are numbered below SHARDS_MAX"))
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Most shards of one process. A mesh of n shards holds n × n credit counters and each inbox holds
/// (n - 1) × credits messages, so this stays near what machines have.
pub const SHARDS_MAX: usize = 1_024;

const _: () = assert!(SHARDS_MAX <= u16::MAX as usize);

/// How many shards, and on which cores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// System numbers of the cores that this process may use; empty if they can't be told.
    cores: Vec<usize>,
    available: usize,
    requested: usize,
    shard_count: usize,
}

impl Placement {
    /// Plans `requested` shards, by default one per core. No more than there are cores, unless
    /// `oversubscribe`: then cores are used in turn. Honours the affinity mask and must be called
    /// before the calling thread is pinned.
    #[must_use]
    pub fn plan(requested: Option<NonZeroUsize>, oversubscribe: bool) -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let cores: Vec<usize> = ids.into_iter().map(|core| core.id).collect();
        let unpinned = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let available = if cores.is_empty() { unpinned() } else { cores.len() };
        Self::plan_on(cores, available, requested, oversubscribe)
    }

    fn plan_on(
        cores: Vec<usize>,
        available: usize,
        requested: Option<NonZeroUsize>,
        oversubscribe: bool,
    ) -> Self {
        let requested = requested.map_or(available, NonZeroUsize::get);
        let granted = if oversubscribe { requested } else { requested.min(available) };
        let placement =
            Self { cores, available, requested, shard_count: granted.clamp(1, SHARDS_MAX) };
        placement.invariants();
        placement
    }

    fn invariants(&self) {
        assert!(self.available >= 1);
        assert!((1..=SHARDS_MAX).contains(&self.shard_count));
        assert!(self.cores.is_empty() || self.cores.len() == self.available);
    }

    /// Shards to start, at least 1.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shard_count
    }

    /// All shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shard_count).map(ShardId::from_index)
    }

    /// The core (its system number) that a shard runs on. None: pinning is impossible here.
    #[must_use]
    pub fn core_of(&self, shard: ShardId) -> Option<usize> {
        self.cores.get(shard.index() % self.cores.len().max(1)).copied()
    }

    /// The first shard on a core, given by its system number.
    #[must_use]
    pub fn shard_on_core(&self, core: usize) -> Option<ShardId> {
        self.shards().find(|&shard| self.core_of(shard) == Some(core))
    }

    /// Cores that this process may use.
    #[must_use]
    pub fn available(&self) -> usize {
        self.available
    }

    /// Shards that were asked for.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.requested
    }

    /// One line, if fewer shards run than were asked for.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.requested > self.shard_count).then(|| {
            format!(
                "{} cores requested, {} available: running {} shards",
                self.requested, self.available, self.shard_count
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::{Placement, SHARDS_MAX, ShardId};

    fn plan(cores: &[usize], requested: usize, oversubscribe: bool) -> Placement {
        Placement::plan_on(
            cores.to_vec(),
            cores.len().max(1),
            NonZeroUsize::new(requested),
            oversubscribe,
        )
    }

    #[test]
    fn asking_for_nothing_takes_every_core() {
        let placement = plan(&[2, 5, 7], 0, false);
        assert_eq!(placement.shard_count(), 3);
        assert_eq!(placement.core_of(ShardId(1)), Some(5));
        assert_eq!(placement.shard_on_core(7), Some(ShardId(2)));
        assert_eq!(placement.shard_on_core(0), None);
        assert_eq!(placement.warning(), None);
    }

    #[test]
    fn asking_for_too_many_takes_what_there_is_and_names_both_numbers() {
        let placement = plan(&[0, 1], 8, false);
        assert_eq!(placement.shard_count(), 2);
        let warning = placement.warning().unwrap();
        assert!(warning.contains('8') && warning.contains('2') && !warning.contains('\n'));
    }

    #[test]
    fn oversubscription_uses_cores_in_turn() {
        let placement = plan(&[4, 6], 5, true);
        assert_eq!(placement.shard_count(), 5);
        let cores: Vec<_> = placement.shards().map(|shard| placement.core_of(shard)).collect();
        assert_eq!(cores, [Some(4), Some(6), Some(4), Some(6), Some(4)]);
        assert_eq!(placement.warning(), None);
    }

    #[test]
    fn cores_that_cannot_be_told_leave_shards_unpinned() {
        let placement = plan(&[], 1, false);
        assert_eq!((placement.shard_count(), placement.core_of(ShardId(0))), (1, None));
    }

    #[test]
    fn absurd_requests_are_cut() {
        assert_eq!(plan(&[0], usize::MAX, true).shard_count(), SHARDS_MAX);
    }

    #[test]
    fn this_machine_has_a_plan() {
        let placement = Placement::plan(None, false);
        assert_eq!(placement.shard_count(), placement.available());
        assert!(placement.core_of(ShardId(0)).is_some());
    }
}
