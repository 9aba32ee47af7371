//! Tasks of a shard: spawning, isolation from each other's panics, yielding.
//!
//! Tasks never leave their thread. Tasks that still run when the shard's main future ends are
//! dropped, in the loop, so that their sockets close.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::turn;

/// Lets every other ready task run and the driver poll its sockets and timers, then resumes.
/// Costs a share of one system call: all that yield in one turn of the loop share it.
pub async fn yield_now() {
    Yield { since: None }.await;
}

/// The number of this event loop's turn: what may happen only so often in a turn compares it with that of last time.
#[must_use]
pub fn turn_number() -> u64 {
    turn::number()
}

/// Waits for the first of two to end; the other is dropped, so both must bear that.
///
/// # Errors
/// The second ended first: its output, which is no failure.
pub async fn race<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Result<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        second.as_mut().poll(context).map(Err)
    })
    .await
}

/// Lets other threads of this core run before the shard goes on, if any want to: those that its
/// writes have just woken, while what was written is still in the core's cache. Costs a system call
/// (about 0.3 µs) when none does; beside a thread that never stops, it costs the rest of a slice.
pub fn cede_core() {
    rustix::thread::sched_yield();
}

/// From now on the calling thread waits for its turn: when it wakes up, it never takes the core from a thread
/// that is at work on it. For threads in a hurry for nothing, beside some that are. Threads that it starts
/// from then on do the same. On Linux this is `SCHED_BATCH`, which needs no privilege, and a warning
/// says if it is refused all the same; elsewhere nothing happens.
pub fn never_preempt() {
    #[cfg(target_os = "linux")]
    {
        // Not by the C library's function: musl's refuses, and its structure is another one.
        let priority: libc::c_int = 0;
        let (call, policy) = (libc::SYS_sched_setscheduler, libc::SCHED_BATCH);
        #[expect(unsafe_code, reason = "no crate of ours has a safe wrapper for this call")]
        // SAFETY: the kernel reads a structure of this one number before it returns; 0 names the thread.
        let result = unsafe { libc::syscall(call, 0, policy, &raw const priority) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            tracing::warn!(%error, "this thread takes the core from others whenever it wakes up");
        }
    }
}

struct Yield {
    since: Option<u64>,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let number = turn::number();
        match self.since {
            // A join or select around us may poll us early, with a waker of its own.
            Some(since) if since != number => return Poll::Ready(()),
            Some(_) => {}
            None => self.since = Some(number),
        }
        turn::wake_next_turn(context.waker());
        Poll::Pending
    }
}

/// Starts a task on this shard. A panic in it ends the shard: for code that faces a peer use
/// [`spawn_isolated`].
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    let joint = Rc::new(Joint {
        output: Cell::new(None),
        over: Cell::new(false),
        waiting: Cell::new(None),
    });
    let end = End(joint.clone());
    start(async move {
        let output = future.await;
        end.0.output.set(Some(output));
        drop(end);
    });
    JoinHandle(joint)
}

/// Starts a task whose panic ends it alone: `on_panic` is told the panic's message, after the
/// task's state was dropped. The shard and its other tasks go on.
pub fn spawn_isolated(
    future: impl Future<Output = ()> + 'static,
    on_panic: impl FnOnce(String) + 'static,
) {
    start(Isolated { future: Some(Box::pin(future)), on_panic: Some(on_panic) });
}

/// Waits for a task's end. Dropping it lets the task go on.
#[derive(Debug)]
pub struct JoinHandle<T>(Rc<Joint<T>>);

struct Joint<T> {
    output: Cell<Option<T>>,
    over: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl<T> std::fmt::Debug for Joint<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").field("over", &self.over.get()).finish_non_exhaustive()
    }
}

/// Announces the task's end even if it was cancelled.
struct End<T>(Rc<Joint<T>>);

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        self.0.over.set(true);
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}

impl<T> JoinHandle<T> {
    /// Whether the task has ended, by itself or cancelled.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    /// None: the shard ended first and dropped the task.
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.0.over.get() {
            return Poll::Ready(self.0.output.take());
        }
        self.0.waiting.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

struct Isolated<F, P> {
    future: Option<Pin<Box<F>>>,
    on_panic: Option<P>,
}

// The future is boxed and the closure is never pinned.
impl<F, P> Unpin for Isolated<F, P> {}

impl<F: Future<Output = ()>, P: FnOnce(String)> Future for Isolated<F, P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(future) = self.future.as_mut() else { return Poll::Ready(()) };
        // A future that panicked is never polled again, only dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        if let Ok(Poll::Pending) = polled {
            return Poll::Pending;
        }
        let future = self.future.take();
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(future)));
        let payload = polled.map(drop).err().or(dropped.err());
        if let (Some(payload), Some(on_panic)) = (payload, self.on_panic.take()) {
            on_panic(panic_message(&*payload));
        }
        Poll::Ready(())
    }
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The tasks of this thread, so that they can be cancelled. Bounded by the tasks alive.
#[derive(Default)]
struct Registry {
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
    closing: Cell<bool>,
}

thread_local! {
    static REGISTRY: Registry = Registry::default();
}

/// Number of tasks alive on this thread.
pub(crate) fn count() -> usize {
    REGISTRY.with(|registry| registry.count.get())
}

pub(crate) fn reset() {
    REGISTRY.with(|registry| {
        let wakers = registry.wakers.take();
        registry.free.take();
        registry.count.set(0);
        registry.closing.set(false);
        drop(wakers);
    });
}

/// Has every task dropped at its next poll, which is in this turn or the next.
pub(crate) fn cancel_all() {
    let wakers: Vec<Waker> = REGISTRY.with(|registry| {
        registry.closing.set(true);
        registry.wakers.borrow().iter().flatten().cloned().collect()
    });
    for waker in wakers {
        waker.wake();
    }
}

fn start(future: impl Future<Output = ()> + 'static) {
    let slot = REGISTRY.with(|registry| {
        if registry.closing.get() {
            return None;
        }
        registry.count.set(registry.count.get() + 1);
        Some(registry.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = registry.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        }))
    });
    if let Some(slot) = slot {
        drop(monoio::spawn(Registered { future: Some(Box::pin(future)), slot, known: false }));
    }
}

struct Registered<F> {
    future: Option<Pin<Box<F>>>,
    slot: usize,
    /// Whether the registry has our waker.
    known: bool,
}

impl<F> Unpin for Registered<F> {}

impl<F: Future<Output = ()>> Future for Registered<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.known {
            self.known = true;
            REGISTRY.with(|registry| {
                registry.wakers.borrow_mut()[self.slot] = Some(context.waker().clone());
            });
        }
        let closing = REGISTRY.with(|registry| registry.closing.get());
        let Some(future) = self.future.as_mut() else { return Poll::Ready(()) };
        if !closing && future.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.future = None;
        let waker = REGISTRY.with(|registry| {
            registry.count.set(registry.count.get() - 1);
            registry.free.borrow_mut().push(self.slot);
            registry.wakers.borrow_mut()[self.slot].take()
        });
        drop(waker);
        Poll::Ready(())
    }
}
