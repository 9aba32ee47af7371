//! For tests: walks real code, on real threads, through its interleavings one atomic step at a time.
//!
//! Code under test takes its atomics from here instead of `std`. In a thread of [`explore`] each
//! operation first lets the scheduler choose which thread goes on; elsewhere they are plain atomics.
//! All schedules with at most a given number of preemptions are run (most bugs of this kind need
//! one or two), depth first and without randomness. Sequential consistency only: orderings weaker
//! than `SeqCst` are not modelled.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{self, Ordering},
    },
    thread,
};

#[expect(clippy::disallowed_types, reason = "a test's scheduler, never contended")]
type Lock<T> = std::sync::Mutex<T>;

type Condition = Box<dyn Fn() -> bool + Send>;

enum State {
    Runs,
    Waits(Condition),
    Ended,
}

struct Schedule {
    states: Vec<State>,
    threads: Vec<Option<thread::Thread>>,
    /// Each choice made so far, and how many there were.
    path: Vec<(usize, usize)>,
    depth: usize,
    preemptions_left: usize,
}

struct Scheduler {
    schedule: Lock<Schedule>,
    current: atomic::AtomicUsize,
    stuck: atomic::AtomicBool,
}

thread_local! {
    static ME: RefCell<Option<(usize, Arc<Scheduler>)>> = const { RefCell::new(None) };
}

const NOBODY: usize = usize::MAX;

impl Scheduler {
    /// Chooses which thread goes on; `me` is the one that runs, or has just stopped.
    fn choose(&self, me: usize) {
        let mut schedule = self.schedule.lock().expect("no test thread panics in here");
        let enabled = |state: &State| match state {
            State::Runs => true,
            State::Waits(condition) => condition(),
            State::Ended => false,
        };
        let mut choices: Vec<usize> =
            (0..schedule.states.len()).filter(|&who| enabled(&schedule.states[who])).collect();
        let runs_on = choices.contains(&me);
        if runs_on {
            choices.retain(|&who| who != me);
            choices.insert(0, me);
            if schedule.preemptions_left == 0 {
                choices.truncate(1);
            }
        }
        let Some(&first) = choices.first() else {
            let all_ended = schedule.states.iter().all(|state| matches!(state, State::Ended));
            self.stuck.store(!all_ended, Ordering::SeqCst);
            self.current.store(NOBODY, Ordering::SeqCst);
            schedule.threads.iter().flatten().for_each(thread::Thread::unpark);
            return;
        };
        let mut next = first;
        if choices.len() > 1 {
            let depth = schedule.depth;
            if depth == schedule.path.len() {
                schedule.path.push((0, choices.len()));
            }
            next = choices[schedule.path[depth].0];
            schedule.depth += 1;
        }
        if runs_on && next != me {
            schedule.preemptions_left -= 1;
        }
        self.current.store(next, Ordering::SeqCst);
        if next != me
            && let Some(thread) = &schedule.threads[next]
        {
            thread.unpark();
        }
    }

    /// Waits for `me` to be chosen.
    fn await_turn(&self, me: usize) {
        while self.current.load(Ordering::SeqCst) != me {
            assert!(!self.stuck.load(Ordering::SeqCst), "everyone waits: a wake-up was lost");
            thread::park();
        }
    }

    fn set_state(&self, me: usize, state: State) {
        self.schedule.lock().expect("no test thread panics in here").states[me] = state;
    }
}

/// Called before each atomic operation.
fn step() {
    // A thread that fails drops what it has, and the others no longer matter.
    let me = ME.with(|me| me.borrow().clone()).filter(|_| !thread::panicking());
    if let Some((me, scheduler)) = me {
        scheduler.choose(me);
        scheduler.await_turn(me);
    }
}

/// Waits, in a thread of [`explore`], until `condition` holds.
pub(crate) fn wait_until(condition: impl Fn() -> bool + Send + 'static) {
    let (me, scheduler) = ME.with(|me| me.borrow().clone()).expect("in a thread of explore");
    scheduler.set_state(me, State::Waits(Box::new(condition)));
    scheduler.choose(me);
    scheduler.await_turn(me);
    scheduler.set_state(me, State::Runs);
}

/// Runs the threads that `scene` makes in every schedule with at most `preemptions`. Calls `check`
/// after each. Returns the number of schedules, or what went wrong in the first that did.
pub(crate) fn explore<T>(
    preemptions: usize,
    scene: impl Fn() -> (T, Vec<Box<dyn FnOnce() + Send>>),
    check: impl Fn(T),
) -> Result<usize, String> {
    let mut path = Vec::new();
    for schedules in 1.. {
        let (state, bodies) = scene();
        let ran = run(preemptions, path, bodies);
        path = ran.1;
        if let Some(message) = ran.0 {
            return Err(format!("in schedule {schedules}: {message}"));
        }
        check(state);
        while path.last().is_some_and(|&(choice, count)| choice + 1 == count) {
            path.pop();
        }
        match path.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return Ok(schedules),
        }
    }
    unreachable!("there are fewer schedules than numbers")
}

type Ran = (Option<String>, Vec<(usize, usize)>);

fn run(
    preemptions: usize,
    path: Vec<(usize, usize)>,
    bodies: Vec<Box<dyn FnOnce() + Send>>,
) -> Ran {
    let count = bodies.len();
    let scheduler = Arc::new(Scheduler {
        schedule: Lock::new(Schedule {
            states: (0..count).map(|_| State::Runs).collect(),
            threads: vec![None; count],
            path,
            depth: 0,
            preemptions_left: preemptions,
        }),
        current: atomic::AtomicUsize::new(NOBODY),
        stuck: atomic::AtomicBool::new(false),
    });
    let core = core_of_caller();
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = bodies
            .into_iter()
            .enumerate()
            .map(|(me, body)| {
                let scheduler = scheduler.clone();
                let body = move || {
                    // Switching is several times cheaper on one core.
                    let _pinned = core.map(core_affinity::set_for_current);
                    live(me, &scheduler, body)
                };
                scope.spawn(body)
            })
            .collect();
        {
            let mut schedule = scheduler.schedule.lock().expect("nobody runs yet");
            for (slot, thread) in schedule.threads.iter_mut().zip(&threads) {
                *slot = Some(thread.thread().clone());
            }
        }
        scheduler.choose(NOBODY);
        threads.into_iter().filter_map(|thread| thread.join().expect("it catches")).collect()
    });
    let schedule = &mut *scheduler.schedule.lock().expect("all have ended");
    (failures.into_iter().next(), std::mem::take(&mut schedule.path))
}

/// Where the caller runs: tests that run side by side should not all take the same core.
fn core_of_caller() -> Option<core_affinity::CoreId> {
    #[cfg(target_os = "linux")]
    return Some(core_affinity::CoreId { id: rustix::thread::sched_getcpu() });
    #[cfg(not(target_os = "linux"))]
    return core_affinity::get_core_ids().and_then(|cores| cores.first().copied());
}

/// Runs one thread's body; returns what its panic said.
fn live(me: usize, scheduler: &Arc<Scheduler>, body: impl FnOnce()) -> Option<String> {
    ME.with(|slot| *slot.borrow_mut() = Some((me, scheduler.clone())));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        scheduler.await_turn(me);
        body();
    }));
    ME.with(|slot| slot.take());
    if !scheduler.stuck.load(Ordering::SeqCst) {
        scheduler.set_state(me, State::Ended);
        scheduler.choose(me);
    }
    outcome.err().map(|payload| crate::task::panic_message(&*payload))
}

/// As in `std`, in steps.
#[derive(Debug, Default)]
pub(crate) struct AtomicUsize(atomic::AtomicUsize);

impl AtomicUsize {
    pub(crate) fn new(value: usize) -> Self {
        Self(atomic::AtomicUsize::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> usize {
        step();
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: usize, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        step();
        self.0.fetch_add(value, order)
    }

    pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        step();
        self.0.fetch_sub(value, order)
    }

    pub(crate) fn fetch_max(&self, value: usize, order: Ordering) -> usize {
        step();
        self.0.fetch_max(value, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: usize,
        new: usize,
        success: Ordering,
        failure: Ordering,
    ) -> Result<usize, usize> {
        step();
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// As in `std`, in steps.
#[derive(Debug, Default)]
pub(crate) struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    pub(crate) fn load(&self, order: Ordering) -> bool {
        step();
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: bool, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        step();
        self.0.swap(value, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        step();
        self.0.compare_exchange(current, new, success, failure)
    }
}
