//! The doorbell's logic, over atomics alone: who wakes a parked shard, and when nobody needs to.
//!
//! Consumer: drain; [`park`](Doorbell::park); check again that nothing came; only then wait.
//! Producer: send; then [`take_parked`](Doorbell::take_parked) and ring only if it says so.
//!
//! Invariant: *something was sent ∧ the consumer waits ⇒ a ring is on its way*. For either the
//! producer's swap comes after the store of `park` (then it sees true and rings), or it comes
//! before it, and then so does the send, and the consumer's check finds what was sent. This
//! needs one total order of both variables, so everything is `SeqCst`.
//!
//! Does not name a file descriptor (see [`crate::ringer`]), so that Miri runs its tests, and the
//! model below walks through every interleaving.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// One per shard, shared by everyone who may wake it.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    parked: AtomicBool,
    /// Somebody without an inbox wants the shard to look around.
    called: AtomicBool,
    rings: AtomicU64,
}

impl Doorbell {
    /// The consumer is about to wait. It must check once more for work, and [`Self::unpark`]
    /// if there is some.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        // The inboxes' own loads may be weaker than SeqCst.
        fence(Ordering::SeqCst);
    }

    /// The consumer found work by itself: producers need not ring.
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Whether the caller, who has just sent something, must ring. True for one caller per park.
    #[must_use]
    pub(crate) fn take_parked(&self) -> bool {
        fence(Ordering::SeqCst);
        let parked = self.parked.swap(false, Ordering::SeqCst);
        if parked {
            self.rings.fetch_add(1, Ordering::Relaxed);
        }
        parked
    }

    /// For producers without an inbox: leaves a mark that the consumer checks like an inbox.
    /// [`Self::take_parked`] comes next.
    pub(crate) fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
    }

    /// Whether somebody called since the last time.
    #[must_use]
    pub(crate) fn take_called(&self) -> bool {
        // The load keeps the common case from writing to a shared line.
        self.called.load(Ordering::SeqCst) && self.called.swap(false, Ordering::SeqCst)
    }

    /// Rings so far.
    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}
