//! What one event costs the scheduler, over a whole distribution: 10,000 peers x 4,000 chunks.
//!
//! `cargo run --release --example swarm_bench [PEERS [CHUNKS [CACHED [PAUSE]]]]`. A fetch takes PAUSE
//! deliveries, so that many peers starve meanwhile. `cargo bench --bench swarm` measures the same
//! load in parts.

#[path = "../benches/load/mod.rs"]
mod load;

use load::{Load, Size};

fn argument(at: usize, default: u32) -> u32 {
    std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let size = Size {
        peers: argument(1, 10_000),
        chunks: argument(2, 4_000),
        cached: argument(3, 1_000),
        pause: argument(4, 1),
    };
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = std::time::Instant::now();
    let mut load = Load::new(size);
    let joined = start.elapsed();
    while !load.is_done() {
        load.step();
    }
    let took = start.elapsed() - joined;
    let Size { peers, chunks, cached, .. } = size;
    println!(
        "{peers} peers x {chunks} chunks, {cached} cached: {} events, {} ns each ({} deliveries, {} \
         fetches; a join took {} us)",
        load.events,
        took.as_nanos() / u128::from(load.events),
        load.deliveries,
        load.swarm.counters().fetches,
        joined.as_micros() / u128::from(peers)
    );
}
