//! No peer waits for the slow: what slow peers cost the others, themselves and the origin, over seeds.
//!
//! Each fleet runs with the delays that the relay's shell adds. Before the swarm knew a pace, the same fleets made
//! the others 1.9 to 41 times slower.

use relay::swarm::LAMBDA_DEFAULT;

use crate::sim::{
    MILLISECOND, Rng,
    fleet::{CHUNK, Fleet, RATE, Summary},
    for_seeds,
    peer::{PeerPlan, Vice},
    world::{Plan, World},
};

/// What slow peers may cost the median of the others.
const OTHERS_MAX: f64 = 1.15;

/// What a slow peer may take, of what its own rate asks for.
const SLOW_MAX: f64 = 1.15;

/// A small fleet has few peers, of which chance makes one late, and takes a while to know who is slow.
const SMALL_OTHERS_MAX: f64 = 1.4;
const SMALL_SLOW_MAX: f64 = 1.3;

/// The same on average over all small fleets.
const SMALL_OTHERS_MEAN_MAX: f64 = 1.03;

/// What theory allows where rates differ by this factor, and a fifth more.
fn fetches_max(ratio: f64) -> f64 {
    1.2 * (1.0 + ratio.ln())
}

/// Equal peers and some that are slower by this factor, of which the others take so many chunks a second.
#[derive(Clone, Copy, Debug)]
struct Mixed {
    peers: u32,
    slow: u32,
    ratio: f64,
    chunks: u32,
    cache_chunks: u32,
    chunks_per_second: f64,
}

impl Mixed {
    fn fleet(self, seed: u64) -> Fleet {
        Fleet {
            peers: self.peers,
            chunks: self.chunks,
            slow: self.slow,
            slow_ratio: self.ratio,
            ratio: 1.0,
            rate: self.chunks_per_second * f64::from(CHUNK),
            ..Fleet::new(seed, self.cache_chunks, LAMBDA_DEFAULT)
        }
    }

    /// The same run without the slow ones, and with them.
    fn run(self, seed: u64) -> (Summary, Summary) {
        let fleet = self.fleet(seed);
        let alone = Fleet { slow: 0, peers: self.peers - self.slow, ..fleet };
        (alone.run(), fleet.run())
    }

    fn check(self, seed: u64, others_max: f64, slow_max: f64) -> f64 {
        let (alone, mixed) = self.run(seed);
        let others = mixed.median / alone.median;
        println!(
            "seed {seed}: others {others:.2}, slow {:.2}, {:.2} fetches per chunk: {self:?}",
            mixed.slow_worst, mixed.fetches_per_chunk
        );
        assert!(others <= others_max, "slow peers made the others {others} times slower");
        assert!(mixed.slow_worst <= slow_max, "a slow peer took {} of its time", mixed.slow_worst);
        assert!(mixed.fetches_per_chunk <= fetches_max(self.ratio));
        others
    }
}

#[test]
fn what_was_slow_in_real_runs_is_not() {
    let mixed = |peers, slow, ratio, chunks, cache_chunks, chunks_per_second| Mixed {
        peers,
        slow,
        ratio,
        chunks,
        cache_chunks,
        chunks_per_second,
    };
    let fleets = [
        // 1 MB/s beside what the others got, of chunks of 256 KiB and 1 MiB.
        mixed(50, 5, 80.0, 400, 32, 320.0),
        mixed(15, 5, 250.0, 320, 32, 1000.0),
        mixed(8, 1, 380.0, 1024, 256, 380.0),
        mixed(2, 1, 800.0, 1024, 256, 800.0),
        // Others like them.
        mixed(20, 10, 20.0, 320, 32, 500.0),
        mixed(20, 5, 50.0, 100, 4, 300.0),
        mixed(60, 30, 5.0, 400, 16, 100.0),
        mixed(20, 5, 2.0, 400, 16, 300.0),
        mixed(40, 4, 3.0, 400, 100, 50.0),
    ];
    for_seeds("--test simulation real_runs", 2, |seed| {
        for fleet in fleets {
            fleet.check(seed, OTHERS_MAX, SLOW_MAX);
        }
    });
}

#[test]
fn a_spread_does_not_wait_for_slow_owners_and_its_origin_goes_when_peers_hold_all() {
    let mixed = |peers, slow, ratio, chunks, cache_chunks| Mixed {
        peers,
        slow,
        ratio,
        chunks,
        cache_chunks,
        // So slow that the 75 ms, which an exchange waits at least, are little.
        chunks_per_second: 40.0,
    };
    let fleets = [
        mixed(15, 5, 250.0, 320, 32),
        mixed(50, 5, 80.0, 400, 400),
        mixed(20, 10, 20.0, 400, 40),
        mixed(20, 14, 20.0, 400, 40),
        mixed(60, 1, 500.0, 60, 20),
        mixed(30, 3, 3.0, 300, 30),
        // Half of the cache may be on its way to slow owners.
        mixed(40, 12, 50.0, 240, 24),
    ];
    for_seeds("--test simulation slow_owners", 2, |seed| {
        for fleet in fleets {
            let own = fleet.fleet(seed);
            // What slow owners take they also supply slowly.
            let slow_up_rate = Some(own.rate / 2.0);
            let equal = Fleet { spread: true, slow_up_rate, ..own };
            let alone = Fleet { slow: 0, peers: fleet.peers - fleet.slow, ..equal }.run();
            let mixed = equal.run();
            let others = mixed.median / alone.median;
            println!(
                "seed {seed}: others {others:.2}, slow {:.2}, {:.2} fetches per chunk: {fleet:?}",
                mixed.slow_worst, mixed.fetches_per_chunk
            );
            assert!(others <= OTHERS_MAX, "slow owners made the others {others} times slower");
            assert!(
                mixed.slow_worst <= SLOW_MAX,
                "a slow peer took {} of its time",
                mixed.slow_worst
            );
            assert!(mixed.fetches_per_chunk <= 1.0 + fetches_max(fleet.ratio));
            assert!(mixed.outcome.seeding_done_at[0].is_some(), "the origin was told to go");
        }
    });
}

#[test]
fn in_a_thousand_fleets_neither_the_others_nor_the_slow_are_held_up() {
    let (sum, count) = (std::cell::Cell::new(0.0), std::cell::Cell::new(0));
    for_seeds("--test simulation thousand_fleets", 1000, |seed| {
        let mut rng = Rng::new(seed);
        let peers = 6 + rng.below_u32(14);
        let chunks = 60 + rng.below_u32(40);
        let fleet = Mixed {
            peers,
            slow: 1 + rng.below_u32(peers / 2),
            ratio: rng.log_uniform(2.0, 12.0),
            chunks,
            cache_chunks: 4 + rng.below_u32(chunks),
            chunks_per_second: rng.log_uniform(20.0, 50.0),
        };
        let others = fleet.check(seed, SMALL_OTHERS_MAX, SMALL_SLOW_MAX);
        sum.set(sum.get() + others);
        count.set(count.get() + 1);
    });
    let mean = sum.get() / f64::from(count.get());
    println!("others: {mean:.3} on average");
    assert!(mean <= SMALL_OTHERS_MEAN_MAX || count.get() < 100, "{mean}");
}

#[test]
fn rates_over_any_range_take_what_theory_allows_at_any_size_of_cache() {
    for_seeds("--test simulation any_range", 1, |seed| {
        for cache_chunks in [4, 8, 20, 100] {
            let equal = Fleet { ratio: 1.0, ..Fleet::new(seed, cache_chunks, LAMBDA_DEFAULT) };
            let equal = equal.run().median;
            for ratio in [2.0, 10.0, 100.0] {
                let run = Fleet { ratio, ..Fleet::new(seed, cache_chunks, LAMBDA_DEFAULT) }.run();
                let (fetches, median) = (run.fetches_per_chunk, run.median / equal);
                println!(
                    "seed {seed}: cache {cache_chunks}, rates over {ratio}: {fetches:.2}, {median:.2}"
                );
                assert!(fetches <= fetches_max(ratio), "{fetches} fetches per chunk");
                assert!(median <= 1.2, "{median} times as long as equal peers");
            }
        }
    });
}

/// Equal peers alone and beside some that do something else: others' median, and fetches per chunk.
fn check_beside(seed: u64, count: usize, change: impl Fn(&mut PeerPlan)) {
    let fleet = Fleet { peers: 20, chunks: 200, ratio: 1.0, ..Fleet::new(seed, 8, LAMBDA_DEFAULT) };
    let fleet = Fleet { rate: 10.0 * RATE, ..fleet };
    let median = |plan: Plan| {
        let honest = plan.peers.iter().map(|peer| peer.vice == Vice::None).collect::<Vec<_>>();
        let mut world = World::new(plan);
        let outcome = world.run();
        world.assert_progress();
        let stretch = outcome.stretch.iter().zip(honest).filter(|&(_, honest)| honest);
        let mut stretch: Vec<f64> = stretch.filter_map(|(stretch, _)| *stretch).collect();
        stretch.sort_unstable_by(f64::total_cmp);
        (stretch[stretch.len() / 2], outcome.ingress[0])
    };
    let alone = median(fleet.plan());
    let mut plan = fleet.plan();
    for _ in 0..count {
        let mut other = plan.peers[1].clone();
        change(&mut other);
        plan.peers.push(other);
    }
    let beside = median(plan);
    println!("seed {seed}: {alone:?} alone, {beside:?} beside the others");
    assert!(beside.0 <= OTHERS_MAX * alone.0, "{beside:?} of {alone:?}");
    assert!(beside.1 <= 2.2, "{} fetches per chunk", beside.1);
}

#[test]
fn a_peer_that_pretends_to_be_fast_costs_the_others_nothing() {
    for_seeds("--test simulation pretends_to_be_fast", 8, |seed| {
        check_beside(seed, 3, |peer| peer.vice = Vice::Boasts);
    });
}

#[test]
fn a_peer_that_acknowledges_all_at_once_costs_the_others_nothing() {
    for_seeds("--test simulation all_at_once", 8, |seed| {
        check_beside(seed, 3, |peer| peer.vice = Vice::Hoards(500 * MILLISECOND));
    });
}

#[test]
fn a_peer_that_names_chunks_though_the_relay_chooses_costs_the_others_nothing() {
    for_seeds("--test simulation names_chunks", 8, |seed| {
        check_beside(seed, 3, |peer| peer.vice = Vice::Names);
    });
}

#[test]
fn a_peer_that_acknowledges_late_on_purpose_costs_itself() {
    for_seeds("--test simulation late_on_purpose", 8, |seed| {
        check_beside(seed, 3, |peer| peer.vice = Vice::Dawdles(300 * MILLISECOND));
    });
}

#[test]
fn a_peer_that_grants_and_does_not_take_costs_the_others_nothing() {
    for_seeds("--test simulation does_not_take", 8, |seed| {
        check_beside(seed, 3, |peer| peer.vice = Vice::Stops(seed * 50 * MILLISECOND));
    });
}

#[test]
fn clients_that_come_later_hold_up_nobody_who_was_there() {
    for_seeds("--test simulation come_later", 8, |seed| {
        check_beside(seed, 4, |peer| {
            (peer.joins_at, peer.down_rate) = (500 * MILLISECOND, peer.down_rate / 20.0);
            peer.vice = Vice::Dawdles(0);
        });
    });
}
