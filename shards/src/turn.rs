//! One turn of a shard's event loop, and what happens exactly once in it.
//!
//! monoio 0.2.4 runs ready tasks, then polls the future given to `block_on` if it was woken,
//! then asks the kernel for readiness (without blocking if tasks are ready), and begins anew.
//! The future given to `block_on` is [`Main`](crate::root::Main), so its poll is the seam between two turns:
//!
//! 1. what producers put into other shards' inboxes is announced (the turn-end hook),
//! 2. timers that are due wake their tasks (monoio advances its own only when it parks, which a
//!    busy loop never does),
//! 3. tasks that yielded are put at the back of the run queue.
//!
//! Tasks woken here make the run queue non-empty, so the loop asks the kernel once without
//! blocking, and the tasks whose sockets are ready queue up **behind** the yielders of this turn
//! and **before** those of the next. All yielders of a turn share that one system call.
//! A task must not wake itself: monoio puts it at the *front* of the queue, and its siblings wait.
//!
//! Does not start threads and knows nothing of shards: see [`crate::runtime`].

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    task::Waker,
    time::Duration,
};

use crate::clock::running::now;

/// Names a timer: its deadline, then the order of creation.
pub(crate) type TimerKey = (Duration, u64);

/// The turns of this thread's loop.
#[derive(Default)]
pub(crate) struct Turn {
    /// Of [`Main`](crate::root::Main). None outside a running loop.
    main: RefCell<Option<Waker>>,
    /// Whether `main` was already woken for the coming turn.
    requested: Cell<bool>,
    number: Cell<u64>,
    yielders: RefCell<Vec<Waker>>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    timers_made: Cell<u64>,
    at_end: RefCell<Option<Rc<dyn Fn()>>>,
    /// The loop's future and its tasks have ended.
    done: Cell<bool>,
}

thread_local! {
    static TURN: Turn = Turn::default();
}

/// Lends out the turns of this thread's loop.
pub(crate) fn with<T>(run: impl FnOnce(&Turn) -> T) -> T {
    TURN.with(run)
}

/// Makes sure that the loop makes a turn: [`Main`](crate::root::Main) is polled after the tasks that are ready now.
pub(crate) fn request() {
    TURN.with(Turn::request);
}

/// Sets what runs at the end of each requested turn.
pub(crate) fn set_at_end(hook: Rc<dyn Fn()>) {
    TURN.with(|turn| *turn.at_end.borrow_mut() = Some(hook));
}

/// Counts turns. A task that saw another number has let the others run.
pub(crate) fn number() -> u64 {
    TURN.with(|turn| turn.number.get())
}

/// Wakes `waker` at the end of this turn.
pub(crate) fn wake_next_turn(waker: &Waker) {
    TURN.with(|turn| {
        turn.assert_running();
        turn.yielders.borrow_mut().push(waker.clone());
        turn.request();
    });
}

/// Wakes `waker` in the first turn that ends at or after `deadline`.
pub(crate) fn timer_add(deadline: Duration, waker: &Waker) -> TimerKey {
    TURN.with(|turn| {
        turn.assert_running();
        let key = (deadline, turn.timers_made.get());
        turn.timers_made.set(key.1 + 1);
        turn.timers.borrow_mut().insert(key, waker.clone());
        // Main arms the kernel's timer for the earliest deadline.
        turn.request();
        key
    })
}

/// Whether the timer has not fired yet; if so, `waker` is the one that will be woken.
pub(crate) fn timer_pending(key: TimerKey, waker: &Waker) -> bool {
    let (pending, replaced) = TURN.with(|turn| match turn.timers.borrow_mut().get_mut(&key) {
        None => (false, None),
        Some(entry) if entry.will_wake(waker) => (true, None),
        Some(entry) => (true, Some(std::mem::replace(entry, waker.clone()))),
    });
    // Outside of the borrow: it may own the last reference to a task, and hence to other timers.
    drop(replaced);
    pending
}

/// Forgets a timer, if it still exists.
pub(crate) fn timer_remove(key: TimerKey) {
    // Not `with`: timers may be dropped while the thread ends. The waker is dropped outside of
    // the borrow, since it may own the last reference to a task, and hence to other timers.
    let removed = TURN.try_with(|turn| turn.timers.borrow_mut().remove(&key));
    drop(removed);
}

impl Turn {
    /// See [`request`].
    pub(crate) fn request(&self) {
        if !self.requested.replace(true) {
            let main = self.main.borrow();
            main.as_ref()
                .expect("only tasks of a running shard yield, sleep or send")
                .wake_by_ref();
        }
    }

    /// A future that waits for a turn outside a loop would wait forever.
    fn assert_running(&self) {
        assert!(self.main.borrow().is_some(), "only tasks of a running shard yield and sleep");
    }

    /// Forgets what a loop before has left.
    pub(crate) fn reset(&self) {
        self.main.take();
        self.requested.set(false);
        self.yielders.take();
        self.timers.take();
        self.at_end.take();
        self.done.set(false);
    }

    /// Takes over as the waker of this loop's end of turns.
    pub(crate) fn begin(&self, main: &Waker) {
        self.main.borrow_mut().get_or_insert_with(|| main.clone());
    }

    /// What happens once in each turn.
    pub(crate) fn end(&self) {
        self.requested.set(false);
        self.number.set(self.number.get() + 1);
        let hook = self.at_end.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
        self.fire_timers();
        let mut yielders = self.yielders.take();
        for waker in yielders.drain(..) {
            waker.wake();
        }
        // Keep the allocation, unless waking has already begun another list.
        let mut list = self.yielders.borrow_mut();
        if list.is_empty() {
            *list = yielders;
        }
    }

    fn fire_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = now();
        while let Some(waker) = self.pop_due(now) {
            waker.wake();
        }
    }

    fn pop_due(&self, now: Duration) -> Option<Waker> {
        let mut timers = self.timers.borrow_mut();
        let entry = timers.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// The earliest timer's deadline.
    pub(crate) fn earliest(&self) -> Option<Duration> {
        self.timers.borrow().first_key_value().map(|(key, _)| key.0)
    }

    /// Nothing is left to run.
    pub(crate) fn finish(&self) {
        self.done.set(true);
        self.request();
    }

    /// Whether nothing is left to run.
    pub(crate) fn is_over(&self) -> bool {
        self.done.get()
    }

    /// The loop is over: from now on no task may wait for a turn.
    pub(crate) fn leave(&self) {
        self.main.take();
    }
}
