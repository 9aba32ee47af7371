//! Blocking work beside an event loop: order, bounds, panics, and an end that loses nothing.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use shards::{Offload, block_on, task};

use crate::common::{both_drivers, eventually};

/// Runs a test's body on an event loop, with each driver. The body sends its findings.
fn on_each_loop<F: Future<Output = ()> + 'static>(
    body: impl Fn(mpsc::Sender<u64>) -> F,
) -> Vec<Vec<u64>> {
    let run = |driver| {
        let (sender, receiver) = mpsc::channel();
        block_on(driver, body(sender)).expect("the loop can be built");
        receiver.into_iter().collect()
    };
    both_drivers().into_iter().map(run).collect()
}

async fn until_empty<T: Send>(offload: &Offload<T>) {
    while !offload.is_empty() {
        task::yield_now().await;
    }
}

#[test]
fn results_come_back_in_order_however_small_the_queue() {
    for queue_max in [1, 3, 64] {
        let found = on_each_loop(|sender| async move {
            let offload = Offload::start("test-offload", queue_max).expect("a thread");
            for number in 0..200_u64 {
                let sender = sender.clone();
                offload.submit(
                    move || number * 2,
                    move |result| {
                        sender.send(result.expect("no panic")).expect("it is heard");
                    },
                );
            }
            assert_eq!(offload.len(), 200, "nothing is done before the loop had a turn");
            until_empty(&offload).await;
        });
        for numbers in found {
            assert_eq!(numbers, (0..200).map(|number| number * 2).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_loop_that_sleeps_is_woken_by_a_result() {
    on_each_loop(|_| async move {
        let offload = Offload::start("test-offload", 2).expect("a thread");
        let bell = Rc::new(shards::bell::LocalBell::new());
        for _ in 0..100 {
            let ring = Rc::clone(&bell);
            // Nothing else wakes this loop: a lost ring would hang here.
            offload.submit(std::thread::yield_now, move |_| ring.ring());
            bell.wait().await;
        }
    });
}

#[test]
fn a_done_may_submit_and_a_panicking_job_harms_no_other() {
    let found = on_each_loop(|sender| async move {
        let offload: Rc<Offload<u64>> =
            Rc::new(Offload::start("test-offload", 1).expect("a thread"));
        let (again, first) = (Rc::clone(&offload), sender.clone());
        let message = Rc::new(RefCell::new(String::new()));
        let text = Rc::clone(&message);
        offload.submit(
            || panic!("of a job"),
            move |result| {
                *text.borrow_mut() = result.expect_err("it panicked").to_string();
                again.submit(
                    || 7,
                    move |result| first.send(result.expect("no panic")).expect("it is heard"),
                );
            },
        );
        until_empty(&offload).await;
        assert_eq!(*message.borrow(), "a blocking job panicked: of a job");
    });
    assert!(found.iter().all(|numbers| numbers == &[7]), "{found:?}");
}

#[test]
fn what_was_submitted_is_done_though_nobody_holds_the_handle() {
    on_each_loop(|_| async move {
        let ran = Arc::new(AtomicUsize::new(0));
        let told = Rc::new(Cell::new(0));
        let offload = Offload::start("test-offload", 2).expect("a thread");
        for _ in 0..50 {
            let (ran, told) = (Arc::clone(&ran), Rc::clone(&told));
            offload.submit(
                move || ran.fetch_add(1, Ordering::SeqCst),
                move |_| told.set(told.get() + 1),
            );
        }
        drop(offload);
        while told.get() < 50 {
            task::yield_now().await;
        }
        assert_eq!(ran.load(Ordering::SeqCst), 50);
    });
}

thread_local! {
    static GUARD: RefCell<Option<Ended>> = const { RefCell::new(None) };
}

/// Counts when its thread's locals are dropped.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_thread_ends_with_its_last_handle() {
    let ended = Arc::new(AtomicUsize::new(0));
    let runs = on_each_loop(|_| {
        let ended = Arc::clone(&ended);
        async move {
            let offload = Offload::start("test-offload", 2).expect("a thread");
            let copy = offload.clone();
            drop(offload);
            let guard = Ended(ended);
            copy.submit(move || GUARD.set(Some(guard)), |_| {});
            until_empty(&copy).await;
        }
    });
    eventually(|| ended.load(Ordering::SeqCst) == runs.len());
}
