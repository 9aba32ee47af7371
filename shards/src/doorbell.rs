//! The doorbell's logic, over atomics alone: what wakes a parked shard, and when that is not needed.
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

/// One per shard, shared by all that may wake it.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    parked: AtomicBool,
    /// A caller without an inbox wants the shard to look around.
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

    /// Whether the caller, which has just sent something, must ring. True for one caller per park.
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

    /// Whether there was a call since the last time.
    #[must_use]
    pub(crate) fn take_called(&self) -> bool {
        // The load keeps the common case from writing to a shared line.
        self.called.load(Ordering::SeqCst) && self.called.swap(false, Ordering::SeqCst)
    }

    /// Whether there is a call to take.
    #[cfg(test)]
    pub(crate) fn is_called(&self) -> bool {
        self.called.load(Ordering::SeqCst)
    }

    /// Rings so far.
    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::Doorbell;

    /// A consumer and its producers, one step at a time. Each method of the doorbell is one atomic
    /// operation, so stepping in every order covers every sequentially consistent run.
    struct Model {
        doorbell: Doorbell,
        inbox: u32,
        ring: bool,
        received: u32,
        sent_in_all: u32,
        consumer: Consumer,
        producers: Vec<Producer>,
        order: Order,
        parks: u64,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Order {
        /// As documented.
        ParkThenCheck,
        /// The classical mistake.
        CheckThenPark,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Consumer {
        Drain,
        Park,
        Check,
        Unpark,
        Wait,
        Done,
    }

    struct Producer {
        left: u32,
        step: Step,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Step {
        Send,
        Look,
        Ring,
    }

    impl Model {
        fn new(order: Order, messages: &[u32]) -> Self {
            Self {
                doorbell: Doorbell::default(),
                inbox: 0,
                ring: false,
                received: 0,
                sent_in_all: messages.iter().sum(),
                consumer: Consumer::Drain,
                producers: messages
                    .iter()
                    .map(|&left| Producer { left, step: Step::Send })
                    .collect(),
                order,
                parks: 0,
            }
        }

        /// What can make a step: 0 is the consumer.
        fn enabled(&self) -> Vec<usize> {
            let consumer = match self.consumer {
                Consumer::Done => false,
                Consumer::Wait => self.ring,
                _ => true,
            };
            let producing = |producer: &Producer| producer.left > 0;
            (0..=self.producers.len())
                .filter(
                    |&who| {
                        if who == 0 { consumer } else { producing(&self.producers[who - 1]) }
                    },
                )
                .collect()
        }

        fn step(&mut self, who: usize) {
            if who == 0 {
                self.consumer = self.consume();
                return;
            }
            let producer = &mut self.producers[who - 1];
            match producer.step {
                Step::Send => {
                    self.inbox += 1;
                    producer.step = Step::Look;
                    return;
                }
                Step::Look if self.doorbell.take_parked() => {
                    producer.step = Step::Ring;
                    return;
                }
                Step::Look => {}
                Step::Ring => self.ring = true,
            }
            producer.left -= 1;
            producer.step = Step::Send;
        }

        fn consume(&mut self) -> Consumer {
            match (self.consumer, self.order) {
                (Consumer::Drain, order) => {
                    self.received += std::mem::take(&mut self.inbox);
                    if self.received == self.sent_in_all {
                        Consumer::Done
                    } else if order == Order::ParkThenCheck {
                        Consumer::Park
                    } else {
                        Consumer::Check
                    }
                }
                (Consumer::Park, order) => {
                    self.doorbell.park();
                    self.parks += 1;
                    if order == Order::ParkThenCheck { Consumer::Check } else { Consumer::Wait }
                }
                (Consumer::Check, _) if self.inbox > 0 => Consumer::Unpark,
                (Consumer::Check, Order::ParkThenCheck) => Consumer::Wait,
                (Consumer::Check, Order::CheckThenPark) => Consumer::Park,
                (Consumer::Unpark, _) => {
                    self.doorbell.unpark();
                    Consumer::Drain
                }
                (Consumer::Wait, _) => {
                    self.ring = false;
                    Consumer::Drain
                }
                (Consumer::Done, _) => Consumer::Done,
            }
        }
    }

    /// Runs every interleaving. Returns how many there were and how many lost a wake-up.
    fn explore(order: Order, messages: &[u32]) -> (u64, u64) {
        // Each entry: the choice made and how many there were.
        let mut path: Vec<(usize, usize)> = Vec::new();
        let (mut runs, mut lost) = (0, 0);
        loop {
            let mut model = Model::new(order, messages);
            for depth in 0.. {
                let enabled = model.enabled();
                if enabled.is_empty() {
                    break;
                }
                if depth == path.len() {
                    path.push((0, enabled.len()));
                }
                model.step(enabled[path[depth].0]);
            }
            runs += 1;
            lost += u64::from(model.consumer != Consumer::Done);
            assert!(model.doorbell.rings() <= model.parks, "one ring per park at most");
            while path.last().is_some_and(|&(choice, count)| choice + 1 == count) {
                path.pop();
            }
            match path.last_mut() {
                Some((choice, _)) => *choice += 1,
                None => return (runs, lost),
            }
        }
    }

    #[test]
    fn doorbell_loses_no_wake_up_in_any_interleaving() {
        let cases: &[&[u32]] =
            if cfg!(miri) { &[&[1], &[1, 1]] } else { &[&[1], &[3], &[1, 1], &[2, 1]] };
        for messages in cases {
            let (runs, lost) = explore(Order::ParkThenCheck, messages);
            assert!(runs > 1);
            assert_eq!(lost, 0, "of {runs} interleavings of {messages:?}");
        }
    }

    #[test]
    fn doorbell_model_sees_a_lost_wake_up_when_the_order_is_wrong() {
        let (runs, lost) = explore(Order::CheckThenPark, &[1]);
        assert!(lost > 0, "of {runs} interleavings");
    }

    #[test]
    fn doorbell_wakes_a_real_thread_for_the_last_message() {
        const PRODUCERS: usize = 2;
        const PATIENCE: Duration = Duration::from_secs(60);
        let messages = if cfg!(miri) { 20 } else { 20_000 };
        let doorbell = Doorbell::default();
        let inbox = AtomicUsize::new(0);
        thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                let mut received = 0;
                loop {
                    received += inbox.swap(0, Ordering::SeqCst);
                    if received == messages * PRODUCERS {
                        return;
                    }
                    doorbell.park();
                    if inbox.load(Ordering::SeqCst) > 0 {
                        doorbell.unpark();
                        continue;
                    }
                    // It may return early: a ring for the last park can come late.
                    let began = crate::clock::now();
                    thread::park_timeout(PATIENCE);
                    assert!(crate::clock::now() - began < PATIENCE, "a wake-up was lost");
                }
            });
            for _ in 0..PRODUCERS {
                let ring = consumer.thread().clone();
                let (doorbell, inbox) = (&doorbell, &inbox);
                scope.spawn(move || {
                    for _ in 0..messages {
                        inbox.fetch_add(1, Ordering::SeqCst);
                        if doorbell.take_parked() {
                            ring.unpark();
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn doorbell_calls_count_once_until_taken() {
        let doorbell = Doorbell::default();
        assert!(!doorbell.take_called());
        doorbell.call();
        doorbell.call();
        assert!(doorbell.take_called());
        assert!(!doorbell.take_called());
        assert!(!doorbell.take_parked());
    }
}
