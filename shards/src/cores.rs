//! Cores that their shards have no more use for, and which shards may run there instead.
//!
//! Each shard has its core for itself, which keeps what it works on in that core's cache. But cores are
//! not equally fast (a neighbour's work, interrupts), and shards don't have equally much to do:
//! where the work is finite, some are done while others are not. Then a shard lends its core, and
//! those that still have work may run on it too; the scheduler sees to the rest. The lender runs on
//! there, on what is left for it, and borrows no other core any more.
//!
//! Decides nothing: the owner of a shard knows when it is done.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI32, Ordering},
};

use crate::placement::{Placement, ShardId};

/// Of all shards that were started together.
#[derive(Clone, Debug)]
pub(crate) struct Cores(Arc<[Place]>);

/// One shard's core.
#[derive(Debug)]
struct Place {
    core: Option<usize>,
    /// The system's number of the thread that is pinned to it; 0 for none.
    thread: AtomicI32,
    lent: AtomicBool,
}

impl Cores {
    /// No shard runs yet.
    pub(crate) fn new(placement: &Placement) -> Self {
        let place = |shard| Place {
            core: placement.core_of(shard),
            thread: AtomicI32::new(0),
            lent: AtomicBool::new(false),
        };
        Self(placement.shards().map(place).collect())
    }

    /// The calling thread is this shard's and pinned to its core, as long as it keeps what this returns.
    pub(crate) fn occupy(&self, shard: ShardId) -> Occupant {
        self.0[shard.index()].thread.store(system::this_thread(), Ordering::SeqCst);
        Occupant { cores: self.clone(), shard }
    }

    /// The core of this shard is there for all that have not lent theirs. Again does nothing.
    pub(crate) fn lend(&self, shard: ShardId) {
        if self.0[shard.index()].lent.swap(true, Ordering::SeqCst) {
            return;
        }
        // Of two that lend at once, the later to finish must not undo what the other did.
        while self.allow_lent(shard) != self.lent_count() {}
    }

    /// Lets all that have not lent their cores run on those that are lent, and the others on their own
    /// alone; how many have lent theirs.
    fn allow_lent(&self, lender: ShardId) -> usize {
        let count = self.lent_count();
        for place in self.0.iter() {
            let thread = place.thread.load(Ordering::SeqCst);
            let Some(core) = place.core.filter(|_| thread != 0) else { continue };
            let borrows = !place.is_lent();
            let lent = self.0.iter().filter(|other| borrows && other.is_lent());
            let cores = lent.filter_map(|other| other.core).chain([core]);
            if let Err(error) = system::allow(thread, cores) {
                tracing::warn!(core, %lender, %error, "what runs on this core can't have the lender's too");
            }
        }
        count
    }

    fn lent_count(&self) -> usize {
        self.0.iter().filter(|place| place.is_lent()).count()
    }
}

impl Place {
    fn is_lent(&self) -> bool {
        self.lent.load(Ordering::SeqCst)
    }
}

/// A shard's thread on its core.
#[derive(Debug)]
pub(crate) struct Occupant {
    cores: Cores,
    shard: ShardId,
}

impl Drop for Occupant {
    /// The thread is about to end, and its number may soon be another's.
    fn drop(&mut self) {
        self.cores.0[self.shard.index()].thread.store(0, Ordering::SeqCst);
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use rustix::{
        io::Errno,
        thread::{CpuSet, Pid, gettid, sched_setaffinity},
    };

    pub(super) fn this_thread() -> i32 {
        gettid().as_raw_pid()
    }

    /// Lets a thread of this process run on these cores and no others.
    pub(super) fn allow(thread: i32, cores: impl Iterator<Item = usize>) -> io::Result<()> {
        let mut set = CpuSet::new();
        cores.filter(|&core| core < CpuSet::MAX_CPU).for_each(|core| set.set(core));
        match sched_setaffinity(Pid::from_raw(thread), &set) {
            // It has just ended.
            Err(Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Elsewhere a core is a hint, if it can be chosen at all.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn this_thread() -> i32 {
        0
    }

    pub(super) fn allow(_: i32, _: impl Iterator<Item = usize>) -> std::io::Result<()> {
        Ok(())
    }
}
