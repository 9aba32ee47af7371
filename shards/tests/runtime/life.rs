//! From start to end of the shards: hand-off, rings, heartbeats, drain, panics.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use shards::{Driver, Incoming, JoinError, Shard, ShardId, Shards, clock, heartbeats, start, task};

use crate::common::{both_drivers, eventually, pair_of_sockets, start_of};

type NoMessages = std::convert::Infallible;

/// Shards that take what they are given until they are told to end.
fn takers(driver: Driver, shards: usize, capacity: usize, taken: &Arc<AtomicUsize>) -> Shards {
    let taken = taken.clone();
    let mut start_with = start_of(driver, shards, 1);
    start_with.handoff_capacity = capacity;
    let main = move |shard: Shard<NoMessages, NoMessages>| {
        let taken = taken.clone();
        async move {
            while !shard.draining() {
                while let Some(incoming) = shard.try_accept() {
                    drop(incoming);
                    taken.fetch_add(1, Ordering::SeqCst);
                    shard.connection_closed();
                }
                shard.port.wait().await;
            }
        }
    };
    start(start_with, main).expect("shards start")
}

fn incoming() -> (Incoming, TcpStream) {
    let (near, far) = pair_of_sockets();
    let remote = near.peer_addr().expect("connected");
    (Incoming { stream: near, remote, tag: 7 }, far)
}

#[test]
fn draining_wakes_every_parked_shard_and_join_returns() {
    for driver in both_drivers() {
        let shards = takers(driver, 8, 1, &Arc::default());
        assert_eq!(shards.shard_count(), 8);
        shards.drain();
        shards.drain();
        let handoff = shards.handoff();
        shards.join().unwrap();
        let (incoming, _far) = incoming();
        let returned = handoff.send(ShardId(3), incoming).unwrap_err();
        assert_eq!((returned.tag, handoff.connections()), (7, vec![0; 8]));
    }
}

#[test]
fn sockets_handed_over_arrive_and_are_counted() {
    const SOCKETS: usize = 200;
    for driver in both_drivers() {
        let taken = Arc::default();
        let shards = takers(driver, 4, SOCKETS, &taken);
        let handoff = shards.handoff();
        for index in 0..SOCKETS {
            let shard = if index % 2 == 0 { handoff.place(None) } else { ShardId(1) };
            handoff.send(shard, incoming().0).unwrap();
        }
        eventually(|| taken.load(Ordering::SeqCst) == SOCKETS);
        eventually(|| handoff.connections() == [0; 4]);
        shards.drain();
        shards.join().unwrap();
    }
}

#[test]
fn a_full_hand_off_gives_the_socket_back_and_does_not_count_it() {
    for driver in both_drivers() {
        let release = Arc::new(AtomicBool::new(false));
        let gate = release.clone();
        let mut start_with = start_of(driver, 1, 1);
        start_with.handoff_capacity = 2;
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let gate = gate.clone();
            async move {
                while !gate.load(Ordering::SeqCst) {
                    shard.port.wait().await;
                }
                for _ in 0..2 {
                    assert_eq!(shard.accepted().await.tag, 7);
                    shard.connection_closed();
                }
            }
        };
        let shards = start(start_with, main).unwrap();
        let handoff = shards.handoff();
        let sockets: Vec<_> = (0..3).map(|_| incoming()).collect();
        let results: Vec<bool> = sockets
            .into_iter()
            .map(|(incoming, _far)| handoff.send(ShardId(0), incoming).is_ok())
            .collect();
        assert_eq!((results, handoff.connections()), (vec![true, true, false], vec![2]));
        release.store(true, Ordering::SeqCst);
        shards.ringer(ShardId(0)).ring();
        shards.join().unwrap();
        assert_eq!(handoff.connections(), [0]);
    }
}

#[test]
fn two_tasks_of_a_shard_wait_for_sockets_and_for_messages() {
    for driver in both_drivers() {
        let (tell, told) = mpsc::sync_channel(64);
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let tell = tell.clone();
            async move {
                let (acceptor, accepted) = (shard.clone(), tell.clone());
                task::spawn(async move {
                    loop {
                        drop(acceptor.accepted().await);
                        acceptor.connection_closed();
                        accepted.try_send("socket").unwrap();
                    }
                });
                while !shard.draining() {
                    shard.port.wait().await;
                    tell.try_send("wait").ok();
                    // Away for a while: the other task must be woken nevertheless.
                    clock::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        let shards = start(start_of(driver, 1, 1), main).unwrap();
        let handoff = shards.handoff();
        for _ in 0..10 {
            handoff.send(ShardId(0), incoming().0).unwrap();
            while told.recv_timeout(Duration::from_secs(60)).unwrap() != "socket" {}
        }
        shards.drain();
        shards.join().unwrap();
    }
}

#[test]
fn any_thread_can_ring_and_a_nudge_costs_no_ring() {
    const RINGS: usize = 1_000;
    for driver in both_drivers() {
        let looked = Arc::new(AtomicUsize::new(0));
        let seen = looked.clone();
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let seen = seen.clone();
            async move {
                let port = shard.port.clone();
                let rings = port.doorbell_rings();
                for _ in 0..10 {
                    port.nudge();
                    port.wait().await;
                }
                let waiting = port.clone();
                let waiter = task::spawn(async move { waiting.wait().await });
                task::yield_now().await;
                port.nudge();
                assert_eq!(waiter.await, Some(()));
                assert_eq!(port.doorbell_rings(), rings, "nobody else rang");
                while !shard.draining() {
                    seen.fetch_add(1, Ordering::SeqCst);
                    port.wait().await;
                }
                assert!(port.doorbell_rings() <= RINGS as u64 + 1);
            }
        };
        let shards = start(start_of(driver, 1, 1), main).unwrap();
        let ringer = shards.ringer(ShardId(0));
        for _ in 0..RINGS {
            let before = looked.load(Ordering::SeqCst);
            ringer.ring();
            // Unless several rings fell together, each makes it look.
            eventually(|| looked.load(Ordering::SeqCst) > before);
        }
        shards.drain();
        shards.join().unwrap();
    }
}

#[test]
fn a_shard_that_panics_is_named_and_the_others_drain() {
    for driver in both_drivers() {
        let main = |shard: Shard<NoMessages, NoMessages>| async move {
            if shard.id == ShardId(1) {
                task::yield_now().await;
                panic!("a bug of shard {}", shard.id);
            }
            while !shard.draining() {
                shard.port.wait().await;
            }
        };
        let shards = start(start_of(driver, 3, 1), main).unwrap();
        let error = shards.join().unwrap_err();
        let message = "a bug of shard 1".to_owned();
        assert_eq!(error, JoinError { shard: ShardId(1), message });
        assert_eq!(error.to_string(), "shard 1 panicked: a bug of shard 1");
    }
}

#[test]
fn an_idle_shard_beats_and_a_stuck_one_does_not() {
    for driver in both_drivers() {
        let release = Arc::new(AtomicBool::new(false));
        let gate = release.clone();
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let gate = gate.clone();
            async move {
                while shard.id == ShardId(1) && !gate.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                while !shard.draining() {
                    shard.port.wait().await;
                }
            }
        };
        let shards = start(start_of(driver, 2, 1), main).unwrap();
        let hearts = shards.heartbeats();
        let long = heartbeats::BEAT_INTERVAL * 5;
        eventually(|| hearts.ages(clock::now())[1] > long);
        // Shard 0 shares a core with the stuck one at worst, and beats on.
        eventually(|| hearts.ages(clock::now())[0] < long);
        eventually(|| hearts.cpu()[0] > Duration::ZERO);
        release.store(true, Ordering::SeqCst);
        eventually(|| hearts.ages(clock::now())[1] < long);
        shards.drain();
        shards.join().unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn shards_are_pinned_to_the_cores_of_their_placement() {
    for driver in both_drivers() {
        let with = start_of(driver, 4, 1);
        let expected: Vec<_> =
            with.placement.shards().map(|id| with.placement.core_of(id)).collect();
        let (tell, told) = mpsc::sync_channel(4);
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let tell = tell.clone();
            async move {
                assert_eq!(shard.driver, driver);
                tell.try_send((shard.id, shard.core, crate::common::cores_of_this_thread()))
                    .unwrap();
            }
        };
        start(with, main).unwrap().join().unwrap();
        for (id, core, allowed) in told.iter().take(4) {
            assert_eq!(core, expected[id.index()]);
            assert_eq!(allowed, core.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_shard_that_is_done_lends_its_core_to_those_that_are_not() {
    const DONE: [u16; 2] = [1, 3];
    for driver in both_drivers() {
        let lent = Arc::new(AtomicUsize::new(0));
        let (told, told_by_main) = mpsc::sync_channel(4);
        let main = move |shard: Shard<NoMessages, NoMessages>| {
            let (lent, told) = (lent.clone(), told.clone());
            async move {
                let own = shard.core.expect("this machine pins");
                if DONE.contains(&shard.id.0) {
                    shard.lend_core();
                    shard.lend_core();
                    lent.fetch_add(1, Ordering::SeqCst);
                }
                // One that panics makes the others drain.
                while lent.load(Ordering::SeqCst) < DONE.len() && !shard.draining() {
                    task::yield_now().await;
                }
                told.try_send((shard.id, own, crate::common::cores_of_this_thread())).unwrap();
            }
        };
        start(start_of(driver, 4, 1), main).expect("shards start").join().unwrap();
        let mut found: Vec<_> = told_by_main.try_iter().collect();
        found.sort();
        let core_of: Vec<_> = found.iter().map(|&(_, own, _)| own).collect();
        for (shard, own, allowed) in found {
            let mut expected = vec![own];
            if !DONE.contains(&shard.0) {
                expected.extend(DONE.map(|lender| core_of[usize::from(lender)]));
            }
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(allowed, expected, "{driver:?}, shard {shard}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_never_preempts_says_so_to_the_scheduler_alone() {
    // Of proc(5)'s `stat`, what follows the name in brackets: the policy is the 41st field of all.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("of this thread");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        fields.split(' ').nth(38).and_then(|field| field.parse().ok()).expect("a policy")
    }
    let before = policy();
    let batch = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            task::never_preempt();
            policy()
        });
        thread.expect("a thread").join().unwrap()
    });
    assert_eq!((batch, policy()), (libc::SCHED_BATCH, before));
}
