//! Where the tasks of one shard wait for something to come from outside, or from each other.
//!
//! One task listens to the doorbell and wakes the tasks that wait; a nudge from the same thread does it
//! without a system call. Knows nothing of what comes: the check for work is a closure.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::{
    ringer::{BellSocket, Ringer},
    task,
};

pub(crate) struct Station {
    ringer: Ringer,
    /// True if an inbox of the shard holds something.
    has_work: Box<dyn Fn() -> bool>,
    /// Counts what happened: rings and nudges.
    events: Cell<u64>,
    /// `events` when a task last returned from waiting.
    events_seen: Cell<u64>,
    /// Tasks that wait. Bounded by the tasks of the shard, two in practice.
    waiting: RefCell<Vec<Waker>>,
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station").field("events", &self.events.get()).finish_non_exhaustive()
    }
}

impl Station {
    pub(crate) fn new(ringer: Ringer, has_work: Box<dyn Fn() -> bool>) -> Self {
        Self {
            ringer,
            has_work,
            events: Cell::new(0),
            events_seen: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        }
    }

    /// Listens to the doorbell for as long as the shard runs.
    ///
    /// # Errors
    /// The event loop can't watch the doorbell.
    pub(crate) async fn listen(self: Rc<Self>, mut bell: BellSocket) -> io::Result<()> {
        let watched = bell.watched()?;
        loop {
            watched.readable(false).await?;
            bell.drain();
            // The nudge makes everyone look, which is all that a call asks for.
            let _called = self.ringer.doorbell().take_called();
            self.nudge();
        }
    }

    pub(crate) fn ringer(&self) -> &Ringer {
        &self.ringer
    }

    /// Wakes all that wait, and the next that does.
    pub(crate) fn nudge(&self) {
        self.events.set(self.events.get() + 1);
        let mut waiting = self.waiting.take();
        for waker in waiting.drain(..) {
            waker.wake();
        }
        // Keep the allocation.
        let mut list = self.waiting.borrow_mut();
        if list.is_empty() {
            *list = waiting;
        }
    }

    /// Waits for a nudge, a ring, or work. Always lets the loop make a turn: a caller that finds
    /// work each time must not starve the sockets.
    pub(crate) async fn wait(&self) {
        if self.events.get() != self.events_seen.get() || (self.has_work)() {
            self.events_seen.set(self.events.get());
            task::yield_now().await;
        } else {
            Wait { station: self, events: None }.await;
        }
    }

    /// Work or a call that came between the last check and the parking.
    fn work_came(&self) -> bool {
        self.ringer.doorbell().take_called() || (self.has_work)()
    }
}

struct Wait<'a> {
    station: &'a Station,
    events: Option<u64>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let station = self.station;
        let events = *self.events.get_or_insert(station.events.get());
        let doorbell = station.ringer.doorbell();
        if station.events.get() == events {
            doorbell.park();
            if !station.work_came() {
                let mut waiting = station.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            // The work may be another's: every task that waits must look.
            station.nudge();
        }
        station.events_seen.set(station.events.get());
        if station.waiting.borrow().is_empty() {
            doorbell.unpark();
        }
        Poll::Ready(())
    }
}
