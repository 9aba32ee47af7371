//! What the scheduler costs: a step of a distribution, which is three events for a delivery and
//! some for its part of a fetch.
//!
//! `cargo bench --bench swarm`. Whole distributions: `cargo run --release --example swarm_bench`.

mod load;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use load::{Load, Size};

/// (peers, chunks, chunks cached): the main job, the largest that is promised, the longest file,
/// and a cache of a hundredth of the file, in which the price of evictions counts.
const SIZES: [(u32, u32, u32); 4] =
    [(100, 400, 400), (10_000, 4_000, 1_000), (100, 1 << 18, 1_000), (1_000, 4_000, 40)];

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("swarm step");
    for (peers, chunks, cached) in SIZES {
        let size = Size { peers, chunks, cached, pause: 1 };
        let name = format!("{peers} peers x {chunks} chunks, {cached} cached");
        let mut load = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|steps| take(&mut load, size, steps));
        });
    }
    group.finish();
}

/// So many steps; a new distribution begins where one ends, and its joins don't count.
fn take(load: &mut Option<Load>, size: Size, steps: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = steps;
    while left > 0 {
        let current = load.get_or_insert_with(|| Load::new(size));
        let began = now();
        while left > 0 && !current.is_done() {
            current.step();
            left -= 1;
        }
        took += now() - began;
        if current.is_done() {
            *load = None;
        }
    }
    took
}

fn joins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("swarm join");
    for (peers, chunks) in [(1_000, 4_000), (10, 1 << 18)] {
        let size = Size { peers, chunks, cached: 100, pause: 1 };
        group.throughput(criterion::Throughput::Elements(u64::from(peers)));
        group.bench_function(format!("{peers} peers x {chunks} chunks"), |bencher| {
            bencher.iter(|| Load::new(size));
        });
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

criterion_group!(benches, steps, joins);
criterion_main!(benches);
