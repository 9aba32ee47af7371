//! What the scheduler reaches where rates differ, jitter, and the cache is small beside the file:
//! what theory and a model of it reach, with bounds, over seeds.

use relay::{
    protocol::Bitfield,
    swarm::{Eviction, LAMBDA_DEFAULT},
};

use crate::sim::{
    MILLISECOND, SECOND,
    fleet::{CHUNK, Choice, Fleet, RATE, Summary},
    for_seeds,
    peer::{PeerPlan, Vice},
    world::{Plan, World},
};

/// What theory allows where rates differ by a factor of 10, and a fifth more.
const FETCHES_PER_CHUNK_MAX: f64 = 1.2 * (1.0 + std::f64::consts::LN_10);

/// Log-normal sigma of an origin's time for a chunk with which a hundredth take a hundred times the
/// median.
const STANDS_STILL_JITTER: f64 = 2.0;

/// What peers that pretend may cost: a wait for some of them before any is proven.
const PRETENDED_SECONDS_MAX: u64 = 5;

fn check(fleet: Fleet, fetches: f64, median: f64, worst: f64) -> Summary {
    let summary = fleet.run();
    let Summary { fetches_per_chunk: f, median: m, worst: w, .. } = summary;
    println!("seed {}: {f:.2} fetches per chunk, stretch {m:.2} median, {w:.2} worst", fleet.seed);
    assert!(f <= fetches && m <= median && w <= worst, "{f} {m} {w} of {fleet:?}");
    assert!(summary.outcome.peak_chunks <= f64::from(fleet.cache_chunks));
    summary
}

#[test]
fn a_cache_of_two_percent_serves_rates_that_differ_by_ten() {
    for_seeds("--test simulation two_percent", 12, |seed| {
        check(Fleet::new(seed, 8, LAMBDA_DEFAULT), FETCHES_PER_CHUNK_MAX, 1.6, 2.5);
    });
}

#[test]
fn a_cache_of_a_quarter_hardly_holds_anybody_up() {
    for_seeds("--test simulation quarter", 12, |seed| {
        check(Fleet::new(seed, 100, LAMBDA_DEFAULT), FETCHES_PER_CHUNK_MAX, 1.2, 1.8);
    });
}

#[test]
fn equal_peers_with_jitter_fetch_each_chunk_once() {
    for_seeds("--test simulation equal", 12, |seed| {
        let fleet = Fleet { ratio: 1.0, ..Fleet::new(seed, 8, LAMBDA_DEFAULT) };
        check(fleet, 1.05, 1.2, 1.3);
    });
}

#[test]
fn least_recently_used_is_no_match() {
    for_seeds("--test simulation recently", 2, |seed| {
        let ours = Fleet::new(seed, 8, LAMBDA_DEFAULT).run().fetches_per_chunk;
        for choice in [Choice::Sequential, Choice::Random] {
            let lru =
                Fleet { eviction: Eviction::Lru, choice, ..Fleet::new(seed, 8, LAMBDA_DEFAULT) };
            let theirs = lru.run().fetches_per_chunk;
            println!("seed {seed}: {theirs:.1} fetches per chunk, {choice:?}, against {ours:.1}");
            assert!(theirs > 2.0 * ours);
        }
    });
}

#[test]
fn a_random_order_is_no_reason_to_wait() {
    // What is fetched for one serves all that have named it, and no peer pays rent for chunks that
    // none is about to take: 200 of 400 chunks are named, 8 or 40 are cached.
    for_seeds("--test simulation random", 3, |seed| {
        for cache_chunks in [8, 40] {
            let fleet = Fleet::new(seed, cache_chunks, LAMBDA_DEFAULT);
            let fleet = Fleet { choice: Choice::Random, ratio: 1.0, ..fleet };
            check(fleet, 2.5, 1.4, 1.4);
        }
    });
}

#[test]
fn a_spread_fetches_once_to_spread_and_once_to_exchange() {
    for_seeds("--test simulation once", 8, |seed| {
        let fleet = Fleet { spread: true, ratio: 3.0, ..Fleet::new(seed, 500, LAMBDA_DEFAULT) };
        let summary = check(fleet, 2.0, 3.0, 10.0);
        let seeding = summary.outcome.seeding_ingress[0];
        assert!(summary.outcome.seeding_done_at[0].is_some());
        assert!((seeding - 1.0).abs() < 1e-9, "seeding fetched {seeding} files");
        assert!((summary.fetches_per_chunk - 2.0).abs() < 1e-9);
    });
}

#[test]
fn a_spread_keeps_all_equal_uplinks_busy() {
    for_seeds("--test simulation uplinks", 4, |seed| {
        // A hundred uplinks of 2 chunks a second each: together 200, and 400 chunks to exchange.
        let fleet = Fleet {
            spread: true,
            ratio: 1.0,
            jitter: 0.1,
            up_rate: RATE / 5.0,
            ..Fleet::new(seed, 500, LAMBDA_DEFAULT)
        };
        let mut plan = fleet.plan();
        plan.peers.iter_mut().skip(1).for_each(|peer| {
            peer.down_rate = 40.0 * RATE;
            peer.window = 1 << 20;
        });
        let outcome = World::new(plan).run();
        let exchange = outcome.done_at - outcome.seeding_done_at[0].expect("seeding ended");
        let exchange = exchange as f64 / 1e9;
        println!("seed {seed}: exchanged in {exchange:.2} s, uplinks allow 2.0 s");
        assert!(exchange < 2.0 * 1.3, "{exchange} s: uplinks were idle");
    });
}

#[test]
fn one_slow_sole_holder_does_not_stall_the_others() {
    for_seeds("--test simulation sole", 4, |seed| {
        let mut plan = Fleet { ratio: 1.0, ..Fleet::new(seed, 40, LAMBDA_DEFAULT) }.plan();
        // One more holder has what no other has: the last 8 chunks, at 2 a second.
        let count = plan.peers[0].claims.len();
        let (mut most, mut rest) = (Bitfield::full(count), Bitfield::empty(count));
        for chunk in count - 8..count {
            most.remove(chunk);
            rest.insert(chunk);
        }
        plan.peers[0].claims = most;
        let mut slow = plan.peers[1].clone();
        (slow.claims, slow.up_rate) = (rest, RATE / 5.0);
        plan.peers.push(slow);
        let mut world = World::new(plan);
        let outcome = world.run();
        world.assert_progress();
        let others = outcome.stretch.iter().skip(1).flatten().copied();
        let worst = others.fold(0.0, f64::max);
        println!("seed {seed}: worst stretch {worst:.2}");
        assert!(worst < 1.35, "the slow holder held others up: {worst}");
    });
}

#[test]
fn four_chunks_of_memory_serve_two_hundred_peers_half_of_them_stopped() {
    for_seeds("--test simulation stopped", 3, |seed| {
        let fleet = Fleet { peers: 200, chunks: 40, ..Fleet::new(seed, 4, LAMBDA_DEFAULT) };
        let mut plan = fleet.plan();
        for (number, peer) in plan.peers.iter_mut().enumerate().skip(1) {
            if number % 2 == 0 {
                peer.vice = Vice::Stops(number as u64 * 10 * MILLISECOND);
            } else if number % 4 == 1 {
                peer.down_rate = RATE / 20.0;
                peer.window = u64::from(CHUNK) / 2;
            }
        }
        let mut world = World::new(plan);
        let outcome = world.run();
        world.assert_progress();
        println!(
            "seed {seed}: done after {:.0} s, {:.1} fetches per chunk",
            outcome.done_at as f64 / 1e9,
            outcome.ingress[0]
        );
        assert!(outcome.peak_chunks <= 4.0);
    });
}

/// Runs a plan alone and among peers that claim all and answer nothing: all honest ones finish, and
/// the others cost a few seconds.
fn check_among_pretenders(seed: u64, mut plan: Plan, joins_at: impl Iterator<Item = u64>) {
    let alone = World::new(plan.clone()).run().done_at / SECOND;
    let honest = plan.peers.len();
    let pretender = PeerPlan { vice: Vice::Silent, seeding: None, ..plan.peers[0].clone() };
    plan.peers.extend(joins_at.map(|joins_at| PeerPlan { joins_at, ..pretender.clone() }));
    let mut world = World::new(plan);
    let outcome = world.run();
    world.assert_progress();
    assert!(outcome.stretch[1..honest].iter().all(Option::is_some));
    let seconds = outcome.done_at / SECOND;
    println!("seed {seed}: {alone} s alone, {seconds} s among pretenders");
    assert!(seconds <= alone + PRETENDED_SECONDS_MAX, "{seconds} s");
}

/// Forty for the one who has it.
#[test]
fn forty_who_pretend_to_hold_everything_cost_a_few_seconds() {
    for_seeds("--test simulation pretend", 6, |seed| {
        let fleet =
            Fleet { peers: 20, chunks: 100, ratio: 1.0, ..Fleet::new(seed, 8, LAMBDA_DEFAULT) };
        let mut plan = fleet.plan();
        // So slow an origin that its chunks are late now and then, as those of a pretender are.
        plan.peers[0].up_rate = 2.0 * RATE;
        // Some were there before, the others keep coming.
        check_among_pretenders(seed, plan, (0..40).map(|number| number / 2 * 250 * MILLISECOND));
    });
}

/// A hundred of them, and an origin that is fast but stands still now and then, as on a busy
/// machine: it is late then with all that it was asked for.
#[test]
fn who_was_late_once_is_asked_again_however_many_pretend() {
    for_seeds("--test simulation late", 200, |seed| {
        let fleet =
            Fleet { peers: 20, chunks: 64, ratio: 1.0, ..Fleet::new(seed, 64, LAMBDA_DEFAULT) };
        let mut plan = fleet.plan();
        for peer in &mut plan.peers {
            peer.down_rate *= 100.0;
            peer.window *= 100;
        }
        plan.peers[0].up_rate = 20.0 * RATE;
        plan.peers[0].jitter = STANDS_STILL_JITTER;
        check_among_pretenders(seed, plan, std::iter::repeat_n(0, 100));
    });
}
