//! The mesh under load: no lost wake-up, no deadlock, no ring that nobody needs.
//!
//! Run with more shards than cores, on both drivers, and with as few credits as can be.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use common::{both_drivers, start_of};
use shards::{Driver, Shard, ShardId, start};

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
