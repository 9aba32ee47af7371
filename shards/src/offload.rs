//! Blocking work beside an event loop: one thread that does it, results back on the loop.
//!
//! ```text
//!   loop: submit(job, done) ──waiting──► queue (bounded) ──► thread: job()
//!         done(result)      ◄──doorbell── results (bounded) ◄──┘
//! ```
//!
//! Jobs run one after the other, in the order of submission, and so do their `done`s. For files,
//! whose reads and writes no event loop can wait for. Bounds the queue between the threads; how
//! much waits on the loop's side is bounded by the caller that submits, which knows what a job weighs.
//!
//! Invariant: jobs in `queue` and results in `results` are together at most `queue_max`, so a
//! result always finds room and the thread never waits for the loop.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::{
    ringer::{BellSocket, Ringer},
    task,
};

type Job<T> = Box<dyn FnOnce() -> T + Send>;
type Done<T> = Box<dyn FnOnce(Result<T, Panicked>)>;

/// A job panicked. The thread goes on with the next one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a blocking job panicked: {0}")]
pub struct Panicked(pub String);

/// A thread for the blocking work of one event loop. Clones are the same thread. When the last is
/// dropped, the thread finishes what was submitted and ends; only a loop that ends before drops
/// what did not fit the queue.
pub struct Offload<T: Send + 'static>(Rc<Handle<T>>);

struct Handle<T>(Rc<Inner<T>>);

struct Inner<T> {
    /// None once nothing more comes: the thread ends.
    queue: RefCell<Option<Sender<Job<T>>>>,
    queue_max: usize,
    /// Jobs that the thread has, done or not, and that were not handed back yet.
    under_way: Cell<usize>,
    /// What did not fit the queue, oldest first.
    waiting: RefCell<VecDeque<Job<T>>>,
    /// What to do with results, of all jobs, oldest first.
    dones: RefCell<VecDeque<Done<T>>>,
    closing: Cell<bool>,
}

impl<T: Send + 'static> Clone for Offload<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: Send + 'static> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").field("jobs", &self.len()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Offload<T> {
    /// Starts the thread. On an event loop only, which also runs every `done`.
    ///
    /// # Errors
    /// The system refuses a thread or a doorbell.
    ///
    /// # Panics
    /// `queue_max` is 0.
    pub fn start(name: &str, queue_max: usize) -> io::Result<Self> {
        assert!(queue_max > 0, "a queue without room moves nothing");
        let (ringer, bell) = Ringer::new()?;
        let (queue, jobs) = bounded::<Job<T>>(queue_max);
        let (results_in, results) = bounded::<Result<T, Panicked>>(queue_max);
        let inner = Rc::new(Inner {
            queue: RefCell::new(Some(queue)),
            queue_max,
            under_way: Cell::new(0),
            waiting: RefCell::default(),
            dones: RefCell::default(),
            closing: Cell::new(false),
        });
        let thread_ringer = ringer.clone();
        let body = move || work(&jobs, results_in, &thread_ringer);
        thread::Builder::new().name(name.to_owned()).spawn(body)?;
        let delivering = deliver_all(Rc::clone(&inner), results, ringer, bell);
        task::spawn(async move {
            if let Err(error) = delivering.await {
                panic!("the doorbell of a thread for blocking work can't be watched: {error}");
            }
        });
        Ok(Self(Rc::new(Handle(inner))))
    }

    /// Has the thread run `job`, then runs `done` on the loop, in a task of its own: it may submit.
    /// Never blocks. A panic in `done` ends the shard.
    pub fn submit(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, Panicked>) + 'static,
    ) {
        let inner = &self.0.0;
        inner.dones.borrow_mut().push_back(Box::new(done));
        inner.waiting.borrow_mut().push_back(Box::new(job));
        inner.refill();
    }

    /// Jobs that were submitted and are not done.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.0.dones.borrow().len()
    }

    /// Whether all that was submitted is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        self.0.closing.set(true);
        self.0.close_when_done();
    }
}

impl<T> Inner<T> {
    /// Gives the thread as much of what waits as its queue may hold.
    fn refill(&self) {
        let (queue, mut waiting) = (self.queue.borrow(), self.waiting.borrow_mut());
        let Some(queue) = &*queue else { return };
        while self.under_way.get() < self.queue_max {
            let Some(job) = waiting.pop_front() else { return };
            self.under_way.set(self.under_way.get() + 1);
            let sent = queue.try_send(job);
            assert!(sent.is_ok(), "the queue has room for all that are under way");
        }
    }

    fn close_when_done(&self) {
        if self.closing.get() && self.under_way.get() == 0 && self.waiting.borrow().is_empty() {
            self.queue.borrow_mut().take();
        }
    }

    /// Hands all results that are there back; false if there will be no more.
    fn deliver(&self, results: &Receiver<Result<T, Panicked>>) -> bool {
        loop {
            match results.try_recv() {
                Ok(result) => {
                    self.under_way.set(self.under_way.get() - 1);
                    self.refill();
                    let done = self.dones.borrow_mut().pop_front();
                    done.expect("every job was submitted with it")(result);
                    self.close_when_done();
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }
}

/// The loop's side: until the thread has ended.
async fn deliver_all<T>(
    inner: Rc<Inner<T>>,
    results: Receiver<Result<T, Panicked>>,
    ringer: Ringer,
    mut bell: BellSocket,
) -> io::Result<()> {
    let watched = bell.watched()?;
    while inner.deliver(&results) {
        ringer.doorbell().park();
        if results.is_empty() && !ringer.doorbell().take_called() {
            watched.readable(false).await?;
            bell.drain();
            continue;
        }
        ringer.doorbell().unpark();
        // Others of the loop had no turn since the last delivery.
        task::yield_now().await;
    }
    Ok(())
}

/// The thread's life.
fn work<T>(jobs: &Receiver<Job<T>>, results: Sender<Result<T, Panicked>>, ringer: &Ringer) {
    while let Some(job) = next(jobs) {
        let result = catch_unwind(AssertUnwindSafe(job));
        let result = result.map_err(|payload| Panicked(task::panic_message(&*payload)));
        if results.try_send(result).is_err() {
            // The loop has ended; what was submitted is still done.
            continue;
        }
        ringer.announce();
    }
    drop(results);
    ringer.ring();
}

#[expect(clippy::disallowed_methods, reason = "this thread is there to wait; it runs no loop")]
fn next<T>(jobs: &Receiver<Job<T>>) -> Option<Job<T>> {
    jobs.recv().ok()
}
