//! The budget against a plain model, and under threads that wait by real doorbells.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use crate::{Budget, Lease, Ringer, Waiter, clock, ringer::BellSocket, stepping};

/// Longer than any healthy wait; reached only by a lost wake-up.
const PATIENCE: Duration = Duration::from_secs(60);

fn bell() -> (Ringer, BellSocket) {
    Ringer::new().unwrap()
}

/// A small generator: replayable, and no dependency.
struct Random(u64);

impl Random {
    /// From `SHARDS_SEED`, else from the time; prints it.
    #[expect(clippy::disallowed_methods, reason = "a seed that is printed and can be given")]
    fn seeded() -> Self {
        let given = std::env::var("SHARDS_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::from(time.subsec_nanos()) + time.as_secs()
        });
        println!("SHARDS_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

#[test]
fn homes_are_served_in_the_order_of_their_first_refusal() {
    let budget = Budget::new(10, 3);
    let (ringer, _bell) = bell();
    let mut homes: Vec<Waiter> = (0..3).map(|_| budget.waiter(ringer.clone()).unwrap()).collect();
    assert!(budget.waiter(ringer).is_none(), "no more homes than were said");
    let all = homes[0].try_lease(10).unwrap();
    assert!(homes[2].try_lease(4).is_none());
    assert!(homes[1].try_lease(1).is_none());
    assert_eq!((budget.waiting(), homes[1].is_waiting()), (2, true));
    assert!(!homes[2].is_called());
    drop(all);
    assert!(homes[2].is_called() && !homes[1].is_called());
    // Ten bytes are free, but only the head may have some.
    assert!(homes[1].try_lease(1).is_none());
    assert!(homes[0].try_lease(1).is_none());
    let head = homes[2].try_lease(4).unwrap();
    assert!(homes[1].is_called());
    assert!(homes[0].try_lease(1).is_none());
    let (second, third) = (homes[1].try_lease(1).unwrap(), homes[0].try_lease(5).unwrap());
    assert_eq!((budget.in_use_bytes(), budget.peak_bytes(), budget.waiting()), (10, 10, 0));
    drop((head, second, third));
    assert_eq!((budget.in_use_bytes(), budget.peak_bytes()), (0, 10));
}

#[test]
fn a_home_that_leaves_the_queue_is_skipped_and_the_next_is_called() {
    let budget = Budget::new(10, 4);
    let (ringer, _bell) = bell();
    let mut homes: Vec<Waiter> = (0..4).map(|_| budget.waiter(ringer.clone()).unwrap()).collect();
    let most = homes[0].try_lease(8).unwrap();
    assert!(homes[1].try_lease(5).is_none(), "the head wants more than is free");
    assert!(homes[2].try_lease(2).is_none());
    assert!(homes[3].try_lease(2).is_none());
    drop(homes.remove(2));
    assert_eq!(budget.waiting(), 2);
    assert!(!homes[2].is_called());
    homes[1].cancel();
    assert!(homes[2].is_called(), "what the new head wants was free all along");
    let lease = homes[2].try_lease(2).unwrap();
    assert_eq!((budget.in_use_bytes(), budget.waiting()), (10, 0));
    drop((most, lease));
}

#[test]
fn a_head_that_asks_for_less_is_served_with_less() {
    let budget = Budget::new(10, 2);
    let (ringer, _bell) = bell();
    let mut first = budget.waiter(ringer.clone()).unwrap();
    let mut second = budget.waiter(ringer).unwrap();
    let held = first.try_lease(7).unwrap();
    assert!(second.try_lease(5).is_none());
    assert_eq!(second.try_lease(3).unwrap().bytes(), 3);
    assert_eq!((first.leased_bytes(), second.leased_bytes()), (7, 0));
    assert_eq!(held.bytes(), 7);
}

#[test]
fn the_limit_is_shared_among_homes_with_work() {
    let budget = Budget::new(12, 3);
    let (ringer, _bell) = bell();
    let mut homes: Vec<Waiter> = (0..3).map(|_| budget.waiter(ringer.clone()).unwrap()).collect();
    assert_eq!(budget.share_bytes(), 12);
    homes.iter_mut().for_each(|home| home.set_working(true));
    homes[0].set_working(true);
    assert_eq!(budget.share_bytes(), 4);
    drop(homes.pop());
    assert_eq!(budget.share_bytes(), 6);
}

#[test]
#[should_panic(expected = "at most the whole budget")]
fn a_wish_that_could_never_be_granted_is_a_bug() {
    let budget = Budget::new(12, 3);
    let (ringer, _bell) = bell();
    drop(budget.waiter(ringer).unwrap().try_lease(13));
}

/// What the budget must do, without any concurrency.
struct Model {
    limit: usize,
    in_use: usize,
    queue: VecDeque<usize>,
}

impl Model {
    fn try_lease(&mut self, home: usize, bytes: usize) -> bool {
        let may = self.queue.front().is_none_or(|&head| head == home);
        if may && self.in_use + bytes <= self.limit {
            self.queue.retain(|&other| other != home);
            self.in_use += bytes;
            return true;
        }
        if !self.queue.contains(&home) {
            self.queue.push_back(home);
        }
        false
    }
}

#[test]
fn any_sequence_of_steps_does_what_the_model_does() {
    const HOMES: usize = 5;
    let mut random = Random::seeded();
    for _ in 0..200 {
        let limit = 1 + random.below(40);
        let budget = Budget::new(limit, HOMES);
        let (ringer, _bell) = bell();
        let admit = || budget.waiter(ringer.clone()).unwrap();
        let mut homes: Vec<Waiter> = (0..HOMES).map(|_| admit()).collect();
        let mut leases: Vec<Lease> = Vec::new();
        let mut model = Model { limit, in_use: 0, queue: VecDeque::new() };
        for _ in 0..300 {
            let home = random.below(HOMES);
            match random.below(8) {
                0 => {
                    homes[home].cancel();
                    model.queue.retain(|&other| other != home);
                }
                1..4 if !leases.is_empty() => {
                    let lease = leases.swap_remove(random.below(leases.len()));
                    model.in_use -= lease.bytes();
                    drop(lease);
                }
                _ => {
                    let bytes = random.below(limit + 1);
                    let lease = homes[home].try_lease(bytes);
                    assert_eq!(lease.is_some(), model.try_lease(home, bytes));
                    leases.extend(lease);
                }
            }
            assert_eq!(budget.in_use_bytes(), model.in_use);
            assert_eq!(budget.waiting(), model.queue.len());
            for (index, home) in homes.iter().enumerate() {
                assert_eq!(home.is_waiting(), model.queue.contains(&index));
            }
        }
    }
}

/// Leases as a shard would: waits at its doorbell until it is called.
fn lease_patiently(waiter: &mut Waiter, bell: &(Ringer, BellSocket), bytes: usize) -> Lease {
    loop {
        if let Some(lease) = waiter.try_lease(bytes) {
            return lease;
        }
        let doorbell = bell.0.doorbell();
        doorbell.park();
        if doorbell.take_called() {
            doorbell.unpark();
            continue;
        }
        assert!(bell.1.wait(PATIENCE), "a wake-up was lost");
        bell.1.drain();
    }
}

/// Homes on threads of their own compete for few bytes; their leases are dropped by other threads.
fn compete(homes: usize, limit: usize, rounds: usize, seed: &mut Random) {
    const DROPPERS: usize = 2;
    let budget = Budget::new(limit, homes);
    thread::scope(|scope| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..DROPPERS).map(|_| mpsc::sync_channel::<Lease>(4)).unzip();
        for receiver in receivers {
            let budget = &budget;
            scope.spawn(move || {
                for lease in receiver {
                    assert!(budget.in_use_bytes() <= budget.limit_bytes());
                    if lease.bytes() % 2 == 0 {
                        thread::yield_now();
                    }
                    drop(lease);
                }
            });
        }
        for _ in 0..homes {
            let (senders, budget) = (senders.clone(), &budget);
            let mut random = Random(seed.0.wrapping_add(seed.below(usize::MAX) as u64) | 1);
            scope.spawn(move || {
                let bell = bell();
                let mut waiter = budget.waiter(bell.0.clone()).unwrap();
                for _ in 0..rounds {
                    let bytes = 1 + random.below(limit);
                    let lease = lease_patiently(&mut waiter, &bell, bytes);
                    match random.below(3) {
                        0 => drop(lease),
                        // A full channel means that droppers are behind.
                        next => drop(senders[next - 1].try_send(lease)),
                    }
                    if random.below(16) == 0 {
                        // Wishes that come and go must not hold up the others.
                        drop(waiter.try_lease(1 + random.below(limit)));
                        waiter.cancel();
                    }
                }
            });
        }
    });
    assert_eq!((budget.in_use_bytes(), budget.waiting()), (0, 0));
    assert!(budget.peak_bytes() <= limit);
}

#[test]
fn competing_homes_neither_overshoot_nor_starve_nor_miss_their_call() {
    let mut random = Random::seeded();
    let began = clock::now();
    for (homes, limit) in [(2, 1), (2, 4), (3, 7), (8, 3), (8, 64)] {
        compete(homes, limit, 2_000, &mut random);
    }
    println!("took {:?}", clock::now() - began);
}

/// Leases in a thread of `stepping`: waits until its doorbell was rung.
fn lease_in_steps(waiter: &mut Waiter, ringer: &Ringer, bytes: usize) -> Lease {
    loop {
        if let Some(lease) = waiter.try_lease(bytes) {
            return lease;
        }
        let waiting = ringer.clone();
        stepping::wait_until(move || waiting.doorbell().is_called());
        assert!(ringer.doorbell().take_called());
    }
}

type Scene = (Budget, Vec<Box<dyn FnOnce() + Send>>);

/// Every schedule with at most `preemptions` ends, and leaves the budget empty.
fn check_all_schedules(preemptions: usize, scene: impl Fn() -> Scene) {
    let empty = |budget: Budget| {
        assert_eq!((budget.in_use_bytes(), budget.waiting()), (0, 0));
        assert!(budget.peak_bytes() <= budget.limit_bytes());
    };
    match stepping::explore(preemptions, scene, empty) {
        Ok(schedules) => println!("{schedules} schedules"),
        Err(message) => panic!("{message}"),
    }
}

/// A thread that leases, holds for a moment, and gives back.
fn leasing(budget: &Budget, bytes: usize) -> Box<dyn FnOnce() + Send> {
    let (ringer, bell) = bell();
    let mut waiter = budget.waiter(ringer.clone()).unwrap();
    Box::new(move || {
        drop(lease_in_steps(&mut waiter, &ringer, bytes));
        drop(bell);
    })
}

/// A thread that wants, and gives up if it does not get.
fn giving_up(budget: &Budget, bytes: usize) -> Box<dyn FnOnce() + Send> {
    let mut waiter = budget.waiter(bell().0).unwrap();
    Box::new(move || {
        let lease = waiter.try_lease(bytes);
        waiter.cancel();
        drop(lease);
    })
}

#[test]
fn no_schedule_of_a_release_and_two_who_want_loses_a_wake_up() {
    check_all_schedules(2, || {
        let budget = Budget::new(2, 3);
        let mut holder = budget.waiter(bell().0).unwrap();
        let lease = holder.try_lease(2).unwrap();
        let release: Box<dyn FnOnce() + Send> = Box::new(move || drop(lease));
        let bodies = vec![release, leasing(&budget, 1), leasing(&budget, 2)];
        (budget, bodies)
    });
}

#[test]
fn no_schedule_of_one_release_that_serves_two_forgets_the_second() {
    check_all_schedules(2, || {
        let budget = Budget::new(2, 3);
        let mut holder = budget.waiter(bell().0).unwrap();
        let lease = holder.try_lease(2).unwrap();
        let release: Box<dyn FnOnce() + Send> = Box::new(move || drop(lease));
        // The home that is served first gives back only when the second was served, too.
        let served = Arc::new(AtomicUsize::new(0));
        let mut bodies = vec![release];
        for _ in 0..2 {
            let ((ringer, bell), served) = (bell(), served.clone());
            let mut waiter = budget.waiter(ringer.clone()).unwrap();
            bodies.push(Box::new(move || {
                let lease = lease_in_steps(&mut waiter, &ringer, 1);
                served.fetch_add(1, SeqCst);
                stepping::wait_until(move || served.load(SeqCst) == 2);
                drop((lease, bell));
            }));
        }
        (budget, bodies)
    });
}

#[test]
fn no_schedule_of_one_who_gives_up_loses_a_wake_up_of_another() {
    check_all_schedules(2, || {
        let budget = Budget::new(2, 3);
        let mut holder = budget.waiter(bell().0).unwrap();
        let lease = holder.try_lease(1).unwrap();
        let release: Box<dyn FnOnce() + Send> = Box::new(move || drop(lease));
        let bodies = vec![release, giving_up(&budget, 2), leasing(&budget, 1)];
        (budget, bodies)
    });
}

#[test]
fn no_schedule_of_two_releases_loses_the_wake_up_of_one_who_needs_both() {
    check_all_schedules(2, || {
        let budget = Budget::new(2, 2);
        let mut holder = budget.waiter(bell().0).unwrap();
        let leases = [holder.try_lease(1).unwrap(), holder.try_lease(1).unwrap()];
        let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for lease in leases {
            bodies.push(Box::new(move || drop(lease)));
        }
        bodies.push(leasing(&budget, 2));
        (budget, bodies)
    });
}

/// A thread that waits for some and then wants more: a call for the first wish must not stand in
/// the way of the call for the second.
fn wanting_more(budget: &Budget, first: usize, then: usize) -> Box<dyn FnOnce() + Send> {
    let (ringer, bell) = bell();
    let mut waiter = budget.waiter(ringer.clone()).unwrap();
    Box::new(move || {
        drop(waiter.try_lease(first));
        drop(lease_in_steps(&mut waiter, &ringer, then));
        drop(bell);
    })
}

#[test]
fn no_schedule_of_a_wish_that_grows_takes_an_old_call_for_a_new_one() {
    check_all_schedules(3, || {
        let budget = Budget::new(2, 2);
        let mut holder = budget.waiter(bell().0).unwrap();
        let leases = [holder.try_lease(1).unwrap(), holder.try_lease(1).unwrap()];
        let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for lease in leases {
            bodies.push(Box::new(move || drop(lease)));
        }
        bodies.push(wanting_more(&budget, 1, 2));
        (budget, bodies)
    });
}
