//! What shards cost each other: a request and its reply by inbox and doorbell, and leases of the
//! budget.
//!
//! `cargo bench -p shards --bench mesh`. With one credit every message wakes a parked shard; with
//! many, rings are rare. What a turn of the loop costs: `cargo run --release -p shards --example turns`.

use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shards::{
    Budget, Driver, DriverChoice, Placement, Shard, ShardId, Shards, Start, clock, driver::choose,
};

/// As many as the relay has.
const CREDITS: usize = 256;

const CHUNK_BYTES: usize = 256 << 10;

fn drivers() -> Vec<Driver> {
    let chosen = [DriverChoice::Epoll, DriverChoice::IoUring].into_iter().map(choose);
    chosen.filter_map(|chosen| Some(chosen.ok()?.driver)).collect()
}

fn mesh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a request and its reply");
    group.throughput(Throughput::Elements(1));
    for driver in drivers() {
        for credits in [1, CREDITS] {
            group.bench_function(format!("{driver}, {credits} under way"), |bencher| {
                bencher.iter_custom(|requests| exchange(driver, credits, requests));
            });
        }
    }
    group.finish();
}

fn start(driver: Driver, shards: usize, credits: usize) -> Start {
    Start {
        placement: Placement::plan(NonZeroUsize::new(shards), true),
        driver,
        name: "mesh",
        credits_per_pair: credits,
        handoff_capacity: 1,
    }
}

/// Shard 0 asks so many times, shard 1 answers; the time from the first to the last.
fn exchange(driver: Driver, credits: usize, requests: u64) -> Duration {
    let took_ns = Arc::new(AtomicU64::new(0));
    let result = took_ns.clone();
    let main = move |shard: Shard<u64, u64>| {
        let result = result.clone();
        async move {
            let began = clock::now();
            ask_and_answer(&shard, requests).await;
            if shard.id == ShardId(0) {
                let took = u64::try_from((clock::now() - began).as_nanos()).unwrap_or(u64::MAX);
                result.store(took, Ordering::SeqCst);
            }
        }
    };
    let shards = shards::start(start(driver, 2, credits), main).expect("shards start");
    shards.join().expect("no shard panics");
    Duration::from_nanos(took_ns.load(Ordering::SeqCst))
}

async fn ask_and_answer(shard: &Shard<u64, u64>, requests: u64) {
    let port = &shard.port;
    let (mut asked, mut done) = (0, 0);
    while done < requests {
        while port.try_reply().is_some() {
            done += 1;
        }
        while let Some((from, request)) = port.try_request_in() {
            port.reply(from, request);
            done += 1;
        }
        while shard.id == ShardId(0)
            && asked < requests
            && port.try_request(ShardId(1), asked).is_ok()
        {
            asked += 1;
        }
        if done < requests {
            port.wait().await;
        }
    }
}

/// A shard that only sleeps: its ringer is what a home needs.
fn sleeper() -> Shards {
    let driver = choose(DriverChoice::Auto).expect("there is a driver").driver;
    let main = |shard: Shard<(), ()>| async move {
        while !shard.draining() {
            shard.port.wait().await;
        }
    };
    shards::start(start(driver, 1, 1), main).expect("a shard starts")
}

fn budget(criterion: &mut Criterion) {
    let shards = sleeper();
    let budget = Budget::new(256 << 20, 1_024);
    let mut home = budget.waiter(shards.ringer(ShardId(0))).expect("it is the first");
    let mut group = criterion.benchmark_group("budget");
    group.throughput(Throughput::Elements(1));
    group.bench_function("lease and give back", |bencher| {
        bencher.iter(|| home.try_lease(CHUNK_BYTES).expect("it is free").bytes());
    });
    group.bench_function("lease, buffer, freeze, give back", |bencher| {
        bencher.iter(|| {
            let mut buffer = home.try_lease(CHUNK_BYTES).expect("it is free").buffer(CHUNK_BYTES);
            buffer.append(&[7; 64]);
            buffer.freeze()
        });
    });
    let mut other = budget.waiter(shards.ringer(ShardId(0))).expect("there is room");
    group.bench_function("wait, be called, lease, give back", |bencher| {
        bencher.iter(|| {
            let all = home.try_lease(256 << 20).expect("it is free");
            assert!(other.try_lease(CHUNK_BYTES).is_none(), "nothing is left");
            drop(all);
            other.try_lease(CHUNK_BYTES).expect("its turn has come").bytes()
        });
    });
    group.finish();
    drop((home, other));
    shards.drain();
    shards.join().expect("it sleeps");
}

criterion_group!(benches, mesh, budget);
criterion_main!(benches);
