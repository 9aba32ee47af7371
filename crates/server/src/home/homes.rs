//! The swarms that have their home on this shard.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shards::{Ringer, ShardId};

use super::{
    Home,
    cache::count_unwanted,
    departures::Departures,
    limits::{self, UnderWay},
};
use crate::{
    message::{HomeRequest, JoinRequest, PeerRequest, SwarmRef},
    observe::cells::ShardCells,
    process::Shared,
    shard::{outbox::Outbox, slots::Slots},
    uplinks::Telling,
};
use relay_protocol::{Failure, FailureCode, SwarmKey, time::Time};
use relay_swarm::{LAMBDA_DEFAULT, SwarmConfig};

/// Swarms of the process at once: a manifest may take 8 MiB, and someone has to want them all.
pub(crate) const SWARMS_MAX: usize = 1024;

/// How long a swarm that spreads waits for its peers.
const SPREAD_WAIT: Duration = Duration::from_secs(10);

/// How long a peer that says LEAVING is kept at most.
const LEAVING_DEADLINE: Duration = Duration::from_secs(60);

/// Homes of one shard.
pub(crate) struct Homes {
    own: ShardId,
    shard_count: usize,
    shared: Arc<Shared>,
    ringer: Ringer,
    by_key: HashMap<SwarmKey, (u32, u32)>,
    homes: Slots<Home>,
    /// The peers that have gone from them.
    pub departures: Departures,
    /// Homes that something happened to since they last decided.
    dirty: Vec<(u32, u32)>,
    /// The relay had limits when last looked.
    are_limited: bool,
    /// What runs this relay's uplinks.
    telling: Telling,
}

impl Homes {
    pub(crate) fn new(
        own: ShardId,
        shard_count: usize,
        shared: &Arc<Shared>,
        ringer: Ringer,
    ) -> Self {
        let shared = Arc::clone(shared);
        let telling = Telling::new(shared.policy.uplinks.clone());
        Self {
            own,
            shard_count,
            shared,
            ringer,
            by_key: HashMap::new(),
            homes: Slots::new(),
            departures: Departures::default(),
            dirty: Vec::new(),
            are_limited: false,
            telling,
        }
    }

    pub(crate) fn handle(
        &mut self,
        now: Time,
        request: HomeRequest,
        outbox: &mut Outbox,
        cells: &ShardCells,
    ) {
        match request {
            HomeRequest::Join(join) => self.handle_join(now, *join, outbox, cells),
            HomeRequest::News(batch) => {
                for news in batch {
                    if let Some(home) = self.home(news.swarm) {
                        home.handle_news(now, news, outbox, cells);
                    }
                }
            }
            HomeRequest::Fetched { swarm, fetch_id, result } => match self.home(swarm) {
                Some(home) => home.handle_fetched(now, fetch_id, result, cells),
                None => count_unwanted(&result, cells),
            },
            HomeRequest::Manifest { swarm, peer, result } => {
                if let Some(home) = self.home(swarm) {
                    home.handle_manifest(now, peer, result, outbox);
                }
            }
            HomeRequest::LeaseBack { swarm, lease } => {
                if let Some(home) = self.home(swarm) {
                    home.handle_lease_back(now, lease, outbox);
                }
            }
            HomeRequest::Recalled { swarm, chunk, rest } => {
                if let Some(home) = self.home(swarm) {
                    home.handle_recalled(now, chunk, &rest);
                }
            }
            HomeRequest::Gone { swarm, peer } => {
                let gone = self.home(swarm).and_then(|home| home.handle_gone(now, peer));
                if let Some(departure) = gone {
                    self.departures.push(departure);
                }
                self.forget_if_empty(swarm, cells);
            }
        }
    }

    fn handle_join(
        &mut self,
        now: Time,
        join: JoinRequest,
        outbox: &mut Outbox,
        cells: &ShardCells,
    ) {
        let from = join.from;
        let known = self.by_key.get(&join.key).copied();
        if known.is_none() && !join.may_begin {
            cells.count_refused("not_published");
            self.telling.tell_asked(join.key);
            let failure = Failure::new(
                FailureCode::NotPublished,
                "no peer that may publish this file has shared it here yet",
            );
            outbox.push_peer(from.shard, PeerRequest::Close { to: from, failure });
            return;
        }
        let found = known.or_else(|| self.create(now, join.key, cells));
        let own = self.own;
        let home = found
            .and_then(|(index, generation)| self.home(SwarmRef { home: own, index, generation }));
        match home {
            Some(home) => home.handle_join(now, join, outbox),
            None => {
                cells.count_refused("too_many_files");
                let failure = Failure {
                    code: FailureCode::TooManyPeers,
                    text: format!("the relay serves {SWARMS_MAX} files already: try again later"),
                };
                let close = PeerRequest::Close { to: from, failure };
                outbox.push_peer(from.shard, close);
            }
        }
    }

    fn create(&mut self, now: Time, key: SwarmKey, cells: &ShardCells) -> Option<(u32, u32)> {
        let waiter = self.shared.memory.budget.waiter(self.ringer.clone())?;
        let (index, generation) = self.homes.next();
        let reference = SwarmRef { home: self.own, index, generation };
        let config = self.swarm_config(&key);
        let lends = self.shared.memory.files.is_some();
        let mut home = Home::new(key, reference, config, waiter, self.shard_count, lends);
        let of_relay = self.shared.policy.rates.limits();
        let chunk = key.chunk_size_bytes().into();
        let of_swarm = limits::of_swarm(&of_relay, chunk, self.under_way(0), false);
        home.handle_limits(now, of_swarm);
        self.homes.insert(home);
        self.by_key.insert(key, (index, generation));
        cells.swarms.set(self.homes.len() as u64);
        tracing::info!(id = %key.id, size_bytes = key.size_bytes, "a swarm begins");
        Some((index, generation))
    }

    /// What all homes of the process fetch, and one of them.
    fn under_way(&self, own: usize) -> UnderWay {
        let all_bytes = self.shared.sum(|cells| &cells.fetching_bytes);
        let swarms = self.shared.sum(|cells| &cells.fetching_swarms);
        UnderWay { all_bytes, swarms, own: own as u64 }
    }

    fn swarm_config(&self, key: &SwarmKey) -> SwarmConfig {
        let chunk = key.size_bytes.min(u64::from(key.chunk_size_bytes())).max(1);
        let limit = self.shared.memory.budget.limit_bytes() as u64 / chunk;
        let cache_chunks_max = u32::try_from(limit).unwrap_or(u32::MAX);
        SwarmConfig {
            size_bytes: key.size_bytes,
            chunk_size_bytes: key.chunk_size_bytes(),
            eviction: self.shared.policy.eviction,
            lambda: LAMBDA_DEFAULT,
            fetches_max: (cache_chunks_max / 2).max(1),
            cache_chunks_max,
            missing_deadline: self.shared.policy.missing_timeout,
            spread_wait: SPREAD_WAIT,
            leaving_deadline: LEAVING_DEADLINE,
        }
    }

    /// The home, which will be driven in this turn.
    fn home(&mut self, swarm: SwarmRef) -> Option<&mut Home> {
        let home = self.homes.get_mut(swarm.index, swarm.generation)?;
        if !std::mem::replace(&mut home.is_dirty, true) {
            self.dirty.push((swarm.index, swarm.generation));
        }
        Some(home)
    }

    /// A swarm without peers is forgotten at once, chunks included.
    fn forget_if_empty(&mut self, swarm: SwarmRef, cells: &ShardCells) {
        if self.home(swarm).is_some_and(|home| home.is_empty())
            && let Some(mut home) = self.homes.remove(swarm.index, swarm.generation)
        {
            home.end(cells);
            tell_presence(&mut self.telling, &mut home);
            self.by_key.remove(home.key());
            cells.swarms.set(self.homes.len() as u64);
            tracing::info!(id = %home.key().id, "a swarm ends: no peer is left");
        }
    }

    /// Tells the homes what the relay's limits mean for them now, if there are any.
    pub(crate) fn handle_limits(&mut self, now: Time, cells: &ShardCells) {
        let of_relay = self.shared.policy.rates.limits();
        if of_relay.is_none() && !self.are_limited {
            return;
        }
        self.are_limited = !of_relay.is_none();
        let fetching = |home: &Home| {
            home.swarm().fetch_count() as u64 * u64::from(home.key().chunk_size_bytes())
        };
        cells.fetching_bytes.set(self.homes.iter().map(fetching).sum());
        let swarms = self.homes.iter().filter(|home| home.swarm().fetch_count() > 0).count();
        cells.fetching_swarms.set(swarms as u64);
        let all = self.under_way(0);
        let holds_back = self.shared.policy.rates.holds_back(now);
        for home in self.homes.iter_mut() {
            let chunk = home.key().chunk_size_bytes().into();
            let swarm = home.swarm();
            let under_way = UnderWay { own: swarm.fetch_count() as u64, ..all };
            // Where nothing is delivered, nothing is held back: if its peers starve, that is not the limits' doing.
            let holds_back = holds_back && swarm.is_delivering();
            let of_swarm = limits::of_swarm(&of_relay, chunk, under_way, holds_back);
            let are_others = home.handle_limits(now, of_swarm);
            if are_others && !std::mem::replace(&mut home.is_dirty, true) {
                let SwarmRef { index, generation, .. } = home.reference();
                self.dirty.push((index, generation));
            }
        }
    }

    pub(crate) fn handle_timeouts(&mut self, now: Time) {
        self.telling.flush();
        for home in self.homes.iter_mut() {
            if home.poll_timeout().is_some_and(|due| due <= now) {
                home.handle_timeout(now);
                if !std::mem::replace(&mut home.is_dirty, true) {
                    let SwarmRef { index, generation, .. } = home.reference();
                    self.dirty.push((index, generation));
                }
            }
        }
    }

    /// Lets those homes decide that something happened to; all of them while memory is short. Whether one of
    /// them waits for memory at a price.
    pub(crate) fn drive(&mut self, now: Time, outbox: &mut Outbox, cells: &ShardCells) -> bool {
        let mut waits = false;
        if self.shared.memory.budget.waiting() > 0 {
            self.dirty.clear();
            let share_bytes = self.shared.memory.budget.share_bytes();
            for home in self.homes.iter_mut() {
                if !home.is_waiting_for_room() {
                    home.handle_pressure(now, share_bytes);
                }
                home.drive(now, outbox, cells);
                waits |= home.swarm().price_due_at().is_some();
                tell_presence(&mut self.telling, home);
            }
            return waits;
        }
        while let Some((index, generation)) = self.dirty.pop() {
            if let Some(home) = self.homes.get_mut(index, generation) {
                home.drive(now, outbox, cells);
                waits |= home.swarm().price_due_at().is_some();
                tell_presence(&mut self.telling, home);
            }
        }
        waits
    }

    /// The earliest moment at which memory may have cost some home enough.
    pub(crate) fn price_due_at(&self) -> Option<Time> {
        self.homes.iter().filter_map(|home| home.swarm().price_due_at()).min()
    }

    /// All homes, for onlookers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Home> {
        self.homes.iter()
    }

    /// The earliest moment at which some home must look at the time.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.homes.iter().filter_map(Home::poll_timeout).min()
    }

    /// Whether some home has memory that another may wait for.
    pub(crate) fn hold_memory(&self) -> bool {
        self.homes.iter().any(Home::holds_memory)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.homes.iter().any(|home| home.swarm().wants_work())
    }
}

/// What runs this relay's uplinks hears which peers the swarm has, if that has changed.
#[inline]
fn tell_presence(telling: &mut Telling, home: &mut Home) {
    if telling.is_on()
        && let Some(presence) = home.poll_presence()
    {
        telling.tell(*home.key(), presence);
    }
}
