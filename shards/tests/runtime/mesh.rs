//! The mesh under load: no lost wake-up, no deadlock, no ring without need.
//!
//! Run with more shards than cores, on both drivers, and with as few credits as can be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use shards::{Driver, Shard, ShardId, start};

use crate::common::{both_drivers, start_of};

/// Asks every other shard `requests` times and answers whatever comes, until all shards have
/// everything. Returns the number of replies.
async fn ask_everyone(shard: &Shard<u64, u64>, requests: u64, finished: &AtomicU64) -> u64 {
    let port = &shard.port;
    let others: Vec<ShardId> = (0..port.shard_count())
        .map(ShardId::from_index)
        .filter(|&other| other != port.id())
        .collect();
    let mut left: Vec<u64> = others.iter().map(|_| requests).collect();
    let expected = requests * others.len() as u64;
    let mut replies = 0;
    let mut told = false;
    loop {
        while let Some((_, reply)) = port.try_reply() {
            assert_eq!(reply % 2, 1);
            replies += 1;
        }
        while let Some((from, request)) = port.try_request_in() {
            port.reply(from, request * 2 + 1);
        }
        for (&other, left) in others.iter().zip(&mut left) {
            while *left > 0 && port.try_request(other, *left).is_ok() {
                *left -= 1;
            }
        }
        port.invariants();
        if replies == expected && !told {
            told = true;
            finished.fetch_add(1, Ordering::SeqCst);
        }
        if finished.load(Ordering::SeqCst) == port.shard_count() as u64 {
            return replies;
        }
        if told && shard.draining() {
            return replies;
        }
        port.wait().await;
    }
}

/// All shards ask all others at once; the last to finish drains the rest.
fn flood(driver: Driver, shards: usize, credits: usize, requests: u64) {
    let finished = Arc::new(AtomicU64::new(0));
    let total = Arc::new(AtomicU64::new(0));
    let (seen, sum) = (finished.clone(), total.clone());
    let running = start(start_of(driver, shards, credits), move |shard: Shard<u64, u64>| {
        let (seen, sum) = (seen.clone(), sum.clone());
        async move {
            let replies = ask_everyone(&shard, requests, &seen).await;
            sum.fetch_add(replies, Ordering::SeqCst);
            // Others may still be parked without anything to wake them.
            for other in 0..shard.port.shard_count() {
                if other != shard.id.index() {
                    let _refused = shard.port.try_request(ShardId::from_index(other), 0);
                }
            }
        }
    })
    .expect("shards start");
    running.join().expect("no shard panics");
    assert_eq!(total.load(Ordering::SeqCst), requests * (shards * (shards - 1)) as u64);
}

#[test]
fn a_flood_in_all_directions_is_answered_on_both_drivers() {
    for driver in both_drivers() {
        for shards in [2, 4, 8] {
            flood(driver, shards, 64, 20_000 / shards as u64);
        }
    }
}

#[test]
fn one_credit_per_pair_neither_deadlocks_nor_loses_a_wake_up() {
    for driver in both_drivers() {
        for shards in [2, 4, 8] {
            flood(driver, shards, 1, 2_000 / shards as u64);
        }
    }
}

#[test]
fn a_parked_shard_is_rung_at_most_once_for_all_that_is_sent_in_a_turn() {
    const ROUNDS: u64 = 300;
    const BATCH: usize = 32;
    for driver in both_drivers() {
        let rings = Arc::new(AtomicU64::new(0));
        let seen = rings.clone();
        let main = move |shard: Shard<u64, u64>| {
            let seen = seen.clone();
            async move {
                let port = &shard.port;
                if port.id() == ShardId(0) {
                    for _ in 0..ROUNDS {
                        let others = [ShardId(1), ShardId(2)];
                        for index in 0..BATCH {
                            let other = others[index % 2];
                            port.try_request(other, 0).expect("enough credits");
                        }
                        let mut replies = 0;
                        while replies < BATCH {
                            port.wait().await;
                            while port.try_reply().is_some() {
                                replies += 1;
                            }
                        }
                    }
                    for other in [ShardId(1), ShardId(2)] {
                        port.try_request(other, 1).expect("enough credits");
                    }
                    return;
                }
                loop {
                    port.wait().await;
                    while let Some((from, request)) = port.try_request_in() {
                        port.reply(from, 0);
                        if request == 1 {
                            seen.fetch_max(port.doorbell_rings(), Ordering::SeqCst);
                            assert!(port.inbox_depth_max() <= BATCH);
                            return;
                        }
                    }
                }
            }
        };
        start(start_of(driver, 3, BATCH), main).unwrap().join().unwrap();
        let rings = rings.load(Ordering::SeqCst);
        assert!(rings <= ROUNDS + 1, "{driver}: {rings} rings for {ROUNDS} rounds");
    }
}

#[test]
fn a_shard_that_has_ended_gives_requests_back_and_takes_no_replies() {
    for driver in both_drivers() {
        let main = |shard: Shard<u64, u64>| async move {
            let port = &shard.port;
            if port.id() == ShardId(1) {
                port.try_request(ShardId(0), 5).unwrap();
                return;
            }
            let (from, request) = loop {
                if let Some(pair) = port.try_request_in() {
                    break pair;
                }
                port.wait().await;
            };
            // The other is gone, or will be: then its inbox refuses, with credits left.
            while port.credits(from) > 0 && port.try_request(from, 1).is_ok() {
                shards::task::yield_now().await;
            }
            port.reply(from, request);
            port.invariants();
        };
        start(start_of(driver, 2, 1_000), main).unwrap().join().unwrap();
    }
}
