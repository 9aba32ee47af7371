//! Homes on different shards share one budget: chunks travel between them and are dropped there.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use shards::{Budget, Driver, Shard, ShardId, Waiter, start, task};

use crate::common::{Random, both_drivers, start_of};

const CHUNK_BYTES: usize = 4_096;

/// One home: sends chunks to the next shard until it has sent enough.
struct Home {
    waiter: Waiter,
    left: usize,
    /// Chunks of other homes, kept for a while.
    kept: Vec<Bytes>,
    random: Random,
}

impl Home {
    /// Sends chunks while there are bytes and credits for them.
    fn send(&mut self, shard: &Shard<Bytes, ()>) {
        let next = (shard.id.index() + 1) % shard.port.shard_count();
        let to = ShardId::from_index(next);
        while self.left > 0 && shard.port.credits(to) > 0 {
            let Some(lease) = self.waiter.try_lease(CHUNK_BYTES) else { return };
            let mut buffer = lease.buffer(CHUNK_BYTES);
            buffer.append(&[u8::try_from(shard.id.0).expect("few shards"); CHUNK_BYTES]);
            shard.port.try_request(to, buffer.freeze()).expect("a credit is there");
            self.left -= 1;
        }
        // Without credit there is no wish: others must not wait behind it.
        self.waiter.cancel();
    }

    fn receive(&mut self, shard: &Shard<Bytes, ()>) {
        while shard.port.try_reply().is_some() {}
        while let Some((from, chunk)) = shard.port.try_request_in() {
            assert!(chunk.iter().all(|&byte| u16::from(byte) == from.0));
            if self.random.below(2) == 0 {
                self.kept.push(chunk.slice(17..19));
            }
            shard.port.reply(from, ());
        }
    }
}

async fn live(shard: Shard<Bytes, ()>, mut home: Home, finished: &AtomicUsize) {
    let count = shard.port.shard_count();
    let mut told = false;
    loop {
        home.receive(&shard);
        home.send(&shard);
        if home.left == 0 && !told && home.kept.is_empty() {
            told = true;
            if finished.fetch_add(1, Ordering::SeqCst) + 1 == count {
                return;
            }
        }
        if told && (finished.load(Ordering::SeqCst) == count || shard.draining()) {
            return;
        }
        if home.kept.is_empty() {
            shard.port.wait().await;
        } else {
            // Others may be waiting for just these bytes.
            home.kept.truncate(home.kept.len() / 2);
            task::yield_now().await;
        }
    }
}

fn compete(driver: Driver, shards: usize, chunks: usize, each: usize, seed: u64) {
    let budget = Budget::new(chunks * CHUNK_BYTES, shards);
    let finished = Arc::new(AtomicUsize::new(0));
    let (shared, all) = (budget.clone(), finished.clone());
    let main = move |shard: Shard<Bytes, ()>| {
        let waiter = shared.waiter(shard.port.ringer()).expect("a place for each");
        let random = Random::new(seed.wrapping_add(u64::from(shard.id.0) << 32));
        let home = Home { waiter, left: each, kept: Vec::new(), random };
        let all = all.clone();
        async move { live(shard, home, &all).await }
    };
    let running = start(start_of(driver, shards, 4), main).expect("shards start");
    let ringers: Vec<_> =
        (0..shards).map(|index| running.ringer(ShardId::from_index(index))).collect();
    crate::common::eventually(|| finished.load(Ordering::SeqCst) == shards);
    ringers.iter().for_each(shards::Ringer::ring);
    running.join().expect("no shard panics");
    assert_eq!((budget.in_use_bytes(), budget.waiting()), (0, 0));
    assert!(budget.peak_bytes() <= budget.limit_bytes());
}

#[test]
fn homes_on_different_shards_all_finish_with_one_chunk_of_memory() {
    let seed = Random::seed();
    for driver in both_drivers() {
        compete(driver, 2, 1, 2_000, seed);
        compete(driver, 4, 1, 500, seed);
    }
}

#[test]
fn homes_on_different_shards_all_finish_with_a_few_chunks_of_memory() {
    let seed = Random::seed();
    for driver in both_drivers() {
        compete(driver, 2, 3, 10_000, seed);
        compete(driver, 8, 5, 2_000, seed);
    }
}
