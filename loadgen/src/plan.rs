//! What each client is to do, drawn from the seed before anything runs.
//!
//! Pure: the same configuration and seed give the same plan on every machine.

use std::num::NonZeroU64;

use relay::{client::ChunkOrder, rng::Rng};

use crate::args::{Config, OrderMode};

/// Late ones join while the others are between these shares of their work.
const JOIN_SHARE: std::ops::Range<f64> = 0.05..0.6;

/// Those that vanish do so when they have between these shares of their file.
const VANISH_SHARE: std::ops::Range<f64> = 0.05..0.95;

/// One run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) files: usize,
}

/// One client.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) index: usize,
    /// Index of its file.
    pub(crate) file: usize,
    pub(crate) role: Role,
    pub(crate) order: ChunkOrder,
    /// Limit of its intake, in payload bytes a second.
    pub(crate) rate: Option<NonZeroU64>,
    /// For its own small decisions.
    pub(crate) seed: u64,
}

/// How a client behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Role {
    /// As it should.
    Plain,
    /// Joins when the plain clients have done this share of their work.
    JoinsLate(f64),
    /// Vanishes when it has this share of its file.
    Vanishes(f64),
    /// Claims everything, supplies wrong bytes.
    Corrupts,
}

impl Role {
    /// Whether the run fails if this client doesn't end with the file.
    pub(crate) fn must_succeed(self) -> bool {
        matches!(self, Self::Plain | Self::JoinsLate(_))
    }

    /// Whether it is to get anything.
    pub(crate) fn takes(self) -> bool {
        self != Self::Corrupts
    }

    /// Whether the relay should wait for it before it spreads.
    fn gets_part(self) -> bool {
        matches!(self, Self::Plain | Self::Vanishes(_))
    }
}

impl Plan {
    /// Draws the plan.
    pub(crate) fn draw(config: &Config) -> Self {
        let mut rng = Rng::new(config.seed, 1);
        let roles = draw_roles(config, &mut rng);
        let rates = draw_rates(config, &mut rng);
        let client = |(index, (role, rate))| {
            let seed = Rng::new(config.seed, 1_000 + index as u64).next_u64();
            let order = match config.order {
                OrderMode::Relay => ChunkOrder::Relay,
                OrderMode::Sequential => ChunkOrder::Sequential,
                OrderMode::Random => ChunkOrder::Random { seed },
            };
            ClientPlan { index, file: index % config.files, role, order, rate, seed }
        };
        let clients = roles.into_iter().zip(rates).enumerate().map(client).collect();
        Self { clients, files: config.files }
    }

    /// Clients of this file that get a part in a spread.
    pub(crate) fn spread_peers(&self, file: usize) -> u32 {
        let parts = self.clients.iter().filter(|c| c.file == file && c.role.gets_part()).count();
        u32::try_from(parts).expect("clients are bounded")
    }

    /// Clients that must end with the file.
    pub(crate) fn must_succeed(&self) -> usize {
        self.clients.iter().filter(|client| client.role.must_succeed()).count()
    }
}

fn draw_roles(config: &Config, rng: &mut Rng) -> Vec<Role> {
    let mut roles = Vec::with_capacity(config.clients);
    roles.extend(std::iter::repeat_n(Role::Corrupts, config.corrupt));
    roles.extend((0..config.churn.kill).map(|_| Role::Vanishes(between(&VANISH_SHARE, rng))));
    roles.extend((0..config.churn.join).map(|_| Role::JoinsLate(between(&JOIN_SHARE, rng))));
    roles.resize(config.clients, Role::Plain);
    rng.shuffle(&mut roles);
    roles
}

fn draw_rates(config: &Config, rng: &mut Rng) -> Vec<Option<NonZeroU64>> {
    let mut rates = vec![config.rate; config.clients];
    if let Some(slow) = config.slow {
        rates[..slow.clients].fill(Some(slow.rate));
    }
    rng.shuffle(&mut rates);
    rates
}

fn between(range: &std::ops::Range<f64>, rng: &mut Rng) -> f64 {
    range.start + rng.fraction() * (range.end - range.start)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn plan(args: &[&str]) -> Plan {
        let args = std::iter::once("loadgen").chain(args.iter().copied());
        Plan::draw(&Args::try_parse_from(args).unwrap().check().unwrap())
    }

    #[test]
    fn the_same_seed_draws_the_same_plan() {
        let args = |seed| {
            ["--seed", seed, "--churn", "kill=5,join=5", "--order", "random", "--slow", "9@1M"]
        };
        assert_eq!(plan(&args("7")), plan(&args("7")));
        assert_ne!(plan(&args("7")), plan(&args("8")));
    }

    #[test]
    fn every_role_is_dealt_as_often_as_asked_for() {
        let plan = plan(&["--clients", "50", "--churn", "kill=4,join=6", "--corrupt", "3"]);
        let count = |test: fn(&Role) -> bool| plan.clients.iter().filter(|c| test(&c.role)).count();
        assert_eq!(count(|role| matches!(role, Role::Corrupts)), 3);
        assert_eq!(count(|role| matches!(role, Role::Vanishes(_))), 4);
        assert_eq!(count(|role| matches!(role, Role::JoinsLate(_))), 6);
        assert_eq!(plan.spread_peers(0), 41);
        assert_eq!(plan.must_succeed(), 43);
    }

    #[test]
    fn clients_are_spread_over_the_files() {
        let plan = plan(&["--clients", "10", "--files", "3"]);
        let peers: Vec<u32> = (0..3).map(|file| plan.spread_peers(file)).collect();
        assert_eq!(peers, [4, 3, 3]);
    }

    #[test]
    fn so_many_clients_are_slow() {
        let plan = plan(&["--clients", "20", "--slow", "5@1M", "--rate", "8M"]);
        let of = |rate: u64| {
            plan.clients.iter().filter(|client| client.rate.unwrap().get() == rate).count()
        };
        assert_eq!((of(1 << 20), of(8 << 20)), (5, 15));
    }
}
