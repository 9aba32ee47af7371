//! One bound for all chunk bytes of the process, and a fair queue for homes that wait for some.
//!
//! Homes (what leases: one [`Waiter`] each) live on different shards and share no lock.
//!
//! **Invariants.** `in use ≤ limit`, at every instant. *A home waits ⇒ only the head of the queue
//! can lease.* *The head waits ∧ what it wants is free ⇒ its shard has been rung, or the head is
//! just now looking.*
//!
//! **How.** Bytes in use and the number of waiting homes are one atomic word, so that leasing,
//! joining the queue and giving back are decided in one step each. A home that joins draws a ticket
//! and publishes it in its place of a fixed table; the head is the lowest ticket, and is elected
//! into one atomic word by any home that needs to know. Everything is `SeqCst`: each party first writes
//! what the others look for and then looks for what they write (the bell's argument, again).
//! A release while no home waits costs one atomic operation.
//!
//! Does not evict: a home that is told to wait, or sees that others do, decides that itself.

mod buffer;
mod pool;
mod queue;
mod spares;

use std::sync::{Arc, atomic::Ordering::SeqCst};

pub use self::buffer::{ChunkBuffer, Lease};
use self::pool::{HomeBytes, Pool};
use crate::ringer::Ringer;

/// Most homes of one budget: their count shares a word with the bytes.
pub const HOMES_MAX: usize = queue::HOMES_MAX;

/// Most bytes of one budget.
pub const LIMIT_BYTES_MAX: usize = queue::BYTES_MAX;

/// The process's chunk memory. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Pool>);

impl Budget {
    /// A budget of `limit_bytes` for up to `homes_max` homes at a time.
    ///
    /// # Panics
    /// Either is 0, or beyond [`LIMIT_BYTES_MAX`] or [`HOMES_MAX`].
    #[must_use]
    pub fn new(limit_bytes: usize, homes_max: usize) -> Self {
        Self(Arc::new(Pool::new(limit_bytes, homes_max)))
    }

    /// The bound.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.0.queue.limit_bytes()
    }

    /// Leased now; never above the limit.
    #[must_use]
    pub fn in_use_bytes(&self) -> usize {
        self.0.queue.in_use_bytes()
    }

    /// Most that was ever leased at a time.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.0.peak_bytes.load(SeqCst)
    }

    /// Homes that wait for bytes. While there are any, homes above their share should give back.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.queue.waiting()
    }

    /// The limit divided by the homes that have work.
    #[must_use]
    pub fn share_bytes(&self) -> usize {
        self.limit_bytes() / self.0.working.load(SeqCst).max(1)
    }

    /// Memory that is kept for leases to come; with what is in use it is within the limit.
    #[must_use]
    pub fn spare_bytes(&self) -> usize {
        self.0.spares.bytes()
    }

    /// Allocates and touches memory for chunks of `chunk_bytes` (a power of two), up to `bytes` in
    /// all and within the limit, on so many threads at once: the price of fresh memory is then paid.
    /// Blocks until it is done.
    pub fn warm_up(&self, chunk_bytes: usize, bytes: usize, threads: usize) {
        let count = bytes.min(self.limit_bytes()) / chunk_bytes;
        let warm = |share: usize| {
            for _ in 0..share {
                self.0.keep(vec![1; chunk_bytes]);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let share = count * (thread + 1) / threads - count * thread / threads;
                let started = std::thread::Builder::new().spawn_scoped(scope, move || warm(share));
                // Without another thread it takes longer.
                if started.is_err() {
                    warm(share);
                }
            }
        });
    }

    /// Admits a home. `ringer` wakes its shard when it is this home's turn. None: there are as many
    /// homes as there may be.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "homes keep their own; callers make one")]
    pub fn waiter(&self, ringer: Ringer) -> Option<Waiter> {
        let home = self.0.queue.admit(&ringer)?;
        Some(Waiter { budget: self.clone(), home, working: false, leased: HomeBytes::default() })
    }
}

/// One home's access to the budget, and its place in the queue. Dropping it leaves the queue;
/// its leases live on.
#[derive(Debug)]
pub struct Waiter {
    budget: Budget,
    home: queue::Home,
    working: bool,
    leased: HomeBytes,
}

impl Waiter {
    /// Leases `bytes`. None: they are not free, or others wait; this home then waits in the queue
    /// until it is served or [cancels](Self::cancel). Its shard is rung when it should try again.
    /// A later try may ask for another number and keeps the place.
    ///
    /// # Panics
    /// More bytes than the limit will never be free, and would block all that wait behind.
    pub fn try_lease(&mut self, bytes: usize) -> Option<Lease> {
        let budget = &self.budget.0;
        assert!(bytes <= budget.queue.limit_bytes(), "a lease is at most the whole budget");
        let in_use = budget.queue.try_take(&mut self.home, bytes)?;
        // Only ever too low by what is just being counted; the word itself is exact.
        budget.peak_bytes.fetch_max(in_use, SeqCst);
        self.leased.0.fetch_add(bytes, SeqCst);
        Some(Lease::new(Arc::clone(budget), bytes, self.leased.clone()))
    }

    /// Whether this home is in the queue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.home.is_waiting()
    }

    /// Whether this home was rung since its last try: it waits and should try now.
    #[must_use]
    pub fn is_called(&self) -> bool {
        self.is_waiting() && self.budget.0.queue.is_called(&self.home)
    }

    /// Whether some other home waits: then a home above its share gives back.
    #[must_use]
    pub fn others_wait(&self) -> bool {
        self.budget.waiting() > usize::from(self.is_waiting())
    }

    /// Bytes that this home has leased and that are not yet given back, on whatever thread.
    #[must_use]
    pub fn leased_bytes(&self) -> usize {
        self.leased.0.load(SeqCst)
    }

    /// Leaves the queue; the next home may be served.
    pub fn cancel(&mut self) {
        self.budget.0.queue.leave(&mut self.home);
    }

    /// Says whether this home has work, and so a share of the limit.
    pub fn set_working(&mut self, working: bool) {
        if working != self.working {
            self.working = working;
            let count = &self.budget.0.working;
            if working {
                count.fetch_add(1, SeqCst)
            } else {
                count.fetch_sub(1, SeqCst)
            };
        }
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.set_working(false);
        self.budget.0.queue.dismiss(&mut self.home);
    }
}
