//! What one event costs the scheduler: 10,000 peers x 4,000 chunks, in nanoseconds.
//!
//! `cargo run --release --example swarm_bench [PEERS [CHUNKS [CACHED [PAUSE]]]]`. A fetch takes PAUSE
//! deliveries, so that many peers starve meanwhile. Every peer takes chunks
//! as fast as the swarm gives them, in turn; links take no time, so nothing but the scheduler is
//! measured. Not a simulation: nobody is slow and nothing fails.

use std::{collections::VecDeque, time::Duration};

use relay::{
    protocol::{Bitfield, Order},
    swarm::{Action, Eviction, Join, LAMBDA_DEFAULT, PeerSlot, Swarm, SwarmConfig},
    time::Time,
};

const CHUNK: u32 = 256 << 10;

fn argument(at: usize, default: u32) -> u32 {
    std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let (peers, chunks) = (argument(1, 10_000), argument(2, 4_000));
    let cached = argument(3, 1_000);
    let mut swarm = Swarm::new(SwarmConfig {
        size_bytes: u64::from(chunks) * u64::from(CHUNK),
        chunk_size_bytes: CHUNK,
        eviction: Eviction::Demand,
        lambda: LAMBDA_DEFAULT,
        fetches_max: cached / 2,
        cache_chunks_max: cached,
        missing_deadline: Duration::from_secs(60),
        spread_wait: Duration::from_secs(10),
        leaving_deadline: Duration::from_secs(60),
    });
    let join = |claims| Join { claims, order: Order::Relay, seeding: None, is_suspect: false };
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = std::time::Instant::now();
    let origin = swarm.handle_join(Time::ZERO, join(Bitfield::full(chunks)));
    for _ in 0..peers {
        swarm.handle_join(Time::ZERO, join(Bitfield::empty(chunks)));
    }
    let joined = start.elapsed();
    swarm.handle_manifest(Time::ZERO, origin, Ok(()));
    let (events, deliveries) = run(&mut swarm, peers, u64::from(peers) * u64::from(chunks));
    let took = start.elapsed() - joined;
    let nanoseconds = took.as_nanos() / u128::from(events);
    println!(
        "{peers} peers x {chunks} chunks, {cached} cached: {events} events, {nanoseconds} ns each \
         ({deliveries} deliveries, {} fetches; a join took {} us)",
        swarm.counters().fetches,
        joined.as_micros() / u128::from(peers)
    );
}

/// Carries everything out at once; returns events and deliveries.
fn run(swarm: &mut Swarm, peers: u32, wanted: u64) -> (u64, u64) {
    let mut now = Time::ZERO;
    let (mut events, mut deliveries, mut in_use) = (0, 0, 0u32);
    let mut sent: VecDeque<(PeerSlot, u32)> = VecDeque::new();
    let mut fetching = VecDeque::new();
    let (mut waiting, mut pause) = (false, 0u32);
    let limit = argument(3, 1_000);
    let mut received = vec![0u64; peers as usize + 1];
    let window = 2 * u64::from(CHUNK);
    for peer in 1..=peers {
        swarm.handle_allowance(now, PeerSlot(peer), window);
        events += 1;
    }
    while deliveries < wanted {
        while let Some(action) = swarm.poll_action() {
            match action {
                Action::Deliver { chunk, peer, .. } => sent.push_back((peer, chunk)),
                Action::Fetch { fetch_id, .. } => fetching.push_back(fetch_id),
                Action::Evict { .. } => in_use -= 1,
                Action::WantRoom => waiting = true,
                Action::ReleaseRoom if waiting => waiting = false,
                Action::ReleaseRoom => in_use -= 1,
                _ => {}
            }
            if waiting && in_use < limit {
                (waiting, in_use) = (false, in_use + 1);
                swarm.handle_room(now);
                events += 1;
            }
        }
        now = now + Duration::from_micros(1);
        pause = pause.saturating_sub(1);
        if (pause == 0 || sent.is_empty())
            && let Some(fetch_id) = fetching.pop_front()
        {
            pause = argument(4, 1);
            swarm.handle_fetched(now, fetch_id);
            events += 1;
        } else if let Some((peer, chunk)) = sent.pop_front() {
            let slot = peer.0 as usize;
            received[slot] += u64::from(CHUNK);
            swarm.handle_written(now, peer, chunk);
            swarm.handle_have(now, peer, chunk);
            swarm.handle_allowance(now, peer, received[slot] + window);
            events += 3;
            deliveries += 1;
        } else {
            now = swarm.poll_timeout().expect("somebody waits").max(now);
            swarm.handle_timeout(now);
            events += 1;
        }
    }
    (events, deliveries)
}
