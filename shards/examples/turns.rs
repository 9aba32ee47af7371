//! Measures what a turn of the event loop costs: nanoseconds per yield, by driver and by the number
//! of tasks that yield in the same turn; and per message of the mesh.
//!
//! Run it with `cargo run --release -p shards --example turns`. Asserts nothing.

use std::{cell::Cell, rc::Rc};

use shards::{Driver, DriverChoice, Placement, Shard, ShardId, Start, clock, driver::choose, task};

const YIELDS: u32 = 200_000;
const REQUESTS: u64 = 500_000;
const CREDITS: usize = 128;

fn main() {
    for choice in [DriverChoice::Epoll, DriverChoice::IoUring] {
        match choose(choice) {
            Ok(chosen) => measure(chosen.driver),
            Err(error) => println!("{choice}: {error}"),
        }
    }
}

fn measure(driver: Driver) {
    for tasks in [1, 10, 100, 1_000] {
        let nanoseconds = yields(driver, tasks);
        println!("{driver}: {tasks} tasks yield: {nanoseconds:.0} ns a yield");
    }
    for credits in [1, CREDITS] {
        let nanoseconds = messages(driver, credits);
        println!("{driver}: {credits} credits: {nanoseconds:.0} ns a request and its reply");
    }
}

fn yields(driver: Driver, tasks: u32) -> f64 {
    let cost = Rc::new(Cell::new(0.0));
    let result = cost.clone();
    let run = async move {
        let began = clock::now();
        let each = YIELDS / tasks;
        let handles: Vec<_> = (0..tasks)
            .map(|_| {
                task::spawn(async move {
                    for _ in 0..each {
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        result.set((clock::now() - began).as_secs_f64() * 1e9 / f64::from(each * tasks));
    };
    shards::block_on(driver, run).expect("the driver was tried");
    cost.get()
}

fn messages(driver: Driver, credits: usize) -> f64 {
    let start = Start {
        placement: Placement::plan(std::num::NonZeroUsize::new(2), true),
        driver,
        name: "turns",
        credits_per_pair: credits,
        handoff_capacity: 1,
    };
    let began = clock::now();
    let shards = shards::start(start, ask_and_answer).expect("shards start");
    shards.join().expect("no shard panics");
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    let requests = REQUESTS as f64;
    (clock::now() - began).as_secs_f64() * 1e9 / requests
}

/// Shard 0 asks, shard 1 answers.
async fn ask_and_answer(shard: Shard<u64, u64>) {
    let port = shard.port;
    let (mut asked, mut done) = (0, 0);
    while done < REQUESTS {
        while port.try_reply().is_some() {
            done += 1;
        }
        while let Some((from, request)) = port.try_request_in() {
            port.reply(from, request);
            done += 1;
        }
        while port.id() == ShardId(0)
            && asked < REQUESTS
            && port.try_request(ShardId(1), asked).is_ok()
        {
            asked += 1;
        }
        if done < REQUESTS {
            port.wait().await;
        }
    }
}
