//! Ready-made fleets: one origin, many peers with rates, a cache that is small beside the file.

use std::time::Duration;

use relay::{
    protocol::{Bitfield, Order, Seeding},
    swarm::Eviction,
};

use super::{
    FRAME, MILLISECOND, Rng, SECOND,
    channel::Weather,
    nanoseconds,
    outcome::Outcome,
    peer::{PeerPlan, Vice},
    world::{Delays, HomePlan, Plan, World},
};

/// Who chooses, in a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    Relay,
    Sequential,
    Random,
}

/// One origin with a fast uplink and peers whose rates differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) seed: u64,
    pub(crate) peers: u32,
    pub(crate) chunks: u32,
    pub(crate) cache_chunks: u32,
    /// Fastest rate over slowest; log-uniform between.
    pub(crate) ratio: f64,
    /// Log-normal sigma of every chunk's time.
    pub(crate) jitter: f64,
    pub(crate) lambda: f64,
    pub(crate) eviction: Eviction,
    pub(crate) choice: Choice,
    pub(crate) spread: bool,
    /// Peers' uplink bytes a second.
    pub(crate) up_rate: f64,
    /// Slowest rate but for that of `slow`, in bytes a second.
    pub(crate) rate: f64,
    /// Of the peers, so many take so small a part of what the slowest of the others takes.
    pub(crate) slow: u32,
    pub(crate) slow_ratio: f64,
    /// Uplinks of those, if they are others.
    pub(crate) slow_up_rate: Option<f64>,
    pub(crate) delays: Delays,
}

/// Bytes of a fleet's chunks: four frames.
pub(crate) const CHUNK: u32 = 4 * FRAME;

/// Slowest rate of a fleet: ten chunks a second.
pub(crate) const RATE: f64 = 10.0 * CHUNK as f64;

impl Fleet {
    /// A hundred peers, four hundred chunks.
    pub(crate) fn new(seed: u64, cache_chunks: u32, lambda: f64) -> Self {
        Self {
            seed,
            peers: 100,
            chunks: 400,
            cache_chunks,
            ratio: 10.0,
            jitter: 0.5,
            lambda,
            eviction: Eviction::Demand,
            choice: Choice::Relay,
            spread: false,
            up_rate: 1000.0 * RATE,
            rate: RATE,
            slow: 0,
            slow_ratio: 1.0,
            slow_up_rate: None,
            delays: Delays::SHELL,
        }
    }

    pub(crate) fn plan(self) -> Plan {
        let mut rng = Rng::new(self.seed);
        let peer = |down_rate: f64, up_rate: f64, claims: Bitfield| PeerPlan {
            home: 0,
            joins_at: 0,
            down_rate,
            up_rate,
            jitter: self.jitter,
            rtt: MILLISECOND,
            window: nanoseconds(down_rate * 0.051e-9).max(2 * u64::from(FRAME)),
            claims,
            order: if self.choice == Choice::Relay { Order::Relay } else { Order::Peer },
            sequential: self.choice == Choice::Sequential,
            seeding: None,
            vice: Vice::None,
            leaves: false,
            loses_percent: 0,
            weather: Weather::default(),
            is_suspect: false,
        };
        let seeding =
            if self.spread { Seeding::Spread { peers: self.peers } } else { Seeding::Origin };
        let mut origin = peer(RATE, 100.0 * self.ratio * self.rate, Bitfield::full(self.chunks));
        (origin.seeding, origin.leaves) = (Some(seeding), self.spread);
        let mut peers = vec![origin];
        for number in 0..self.peers {
            let mut rate = rng.log_uniform(self.rate, self.ratio);
            let mut up_rate = self.up_rate;
            if number < self.slow {
                rate = self.rate / self.slow_ratio;
                up_rate = self.slow_up_rate.unwrap_or(up_rate);
            }
            peers.push(peer(rate, up_rate, Bitfield::empty(self.chunks)));
        }
        Plan {
            seed: self.seed,
            chunk_size: CHUNK,
            budget_chunks: self.cache_chunks,
            homes: vec![HomePlan {
                size_bytes: u64::from(self.chunks) * u64::from(CHUNK),
                eviction: self.eviction,
                lambda: self.lambda,
                restarts: Vec::new(),
            }],
            peers,
            until: 3600 * SECOND,
            check_every: 50_000,
            missing_deadline: Duration::from_secs(60),
            spread_wait: Duration::from_secs(10),
            coalesce_percent: 100,
            batch_percent: 0,
            delays: self.delays,
        }
    }

    pub(crate) fn run(self) -> Summary {
        let mut world = World::new(self.plan());
        let outcome = world.run();
        world.assert_progress();
        // The first is the origin, then come the slow ones.
        let slow = 1..=self.slow as usize;
        let sorted = |is_slow: bool| {
            let mine = outcome.stretch.iter().enumerate();
            let mine = mine.filter(|(index, _)| slow.contains(index) == is_slow);
            let mut mine: Vec<f64> = mine.filter_map(|(_, stretch)| *stretch).collect();
            mine.sort_unstable_by(f64::total_cmp);
            mine
        };
        let (others, slow) = (sorted(false), sorted(true));
        Summary {
            fetches_per_chunk: outcome.ingress[0],
            median: others[others.len() / 2],
            worst: others[others.len() - 1],
            slow_worst: slow.last().copied().unwrap_or(0.0),
            outcome,
        }
    }
}

/// What a fleet's run came to.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) fetches_per_chunk: f64,
    /// Of finish time over own ideal, of those that are not slow.
    pub(crate) median: f64,
    pub(crate) worst: f64,
    /// The same of the slow ones; zero if there are none.
    pub(crate) slow_worst: f64,
    pub(crate) outcome: Outcome,
}
