//! The event loop: virtual time, peers' links, and what must hold after every event.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use relay::{
    swarm::{Eviction, FetchFailure, FetchId, Join, PeerSlot, Swarm, SwarmConfig},
    time::Time,
};

use super::{
    MICROSECOND, MILLISECOND, SECOND,
    budget::Budget,
    digest::Digest,
    home::Home,
    outcome::Outcome,
    peer::{PeerPlan, SimPeer, Vice},
    rng::Rng,
};

/// One swarm.
#[derive(Clone, Debug)]
pub(crate) struct HomePlan {
    pub size_bytes: u64,
    pub eviction: Eviction,
    pub lambda: f64,
    /// The relay loses all state of this swarm at these times.
    pub restarts: Vec<u64>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub seed: u64,
    pub chunk_size: u32,
    pub budget_chunks: u32,
    pub homes: Vec<HomePlan>,
    pub peers: Vec<PeerPlan>,
    pub until: u64,
    /// Every how many events everything is counted anew.
    pub check_every: u64,
    pub missing_deadline: Duration,
    pub spread_wait: Duration,
    /// Deliver `begun` before `written` or only the latter.
    pub coalesce_percent: u64,
    /// So often several inputs come before the shell looks at actions.
    pub batch_percent: u64,
    pub delays: Delays,
}

/// What the shell adds to every decision.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// The shell looks at the time so often: what is due waits for the next look.
    pub look_every: u64,
    /// A message from one shard to another takes so long.
    pub hop: u64,
}

impl Delays {
    /// Those of the relay: `TICK_BUSY` in `crates/server/src/shard/tick.rs`, and a wake-up across cores.
    pub(crate) const SHELL: Self = Self { look_every: 10 * MILLISECOND, hop: 70 * MICROSECOND };

    /// When the shell sees that something is due at this time.
    pub(super) fn seen_at(self, due: u64) -> u64 {
        if self.look_every == 0 { due } else { due.next_multiple_of(self.look_every) }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Join(usize),
    Timer(usize),
    FrameDone(usize, u32),
    Progress(usize, u32, u64),
    Verified(usize, u32, u32, bool),
    Arrived(usize, u32, u32),
    Fetch { peer: usize, connection: u32, fetch_id: FetchId, chunk: u32 },
    UploadDone(usize, u32),
    FetchResult { home: usize, life: u32, fetch_id: FetchId, peer: usize },
    Manifest { peer: usize, connection: u32 },
    Recalled { home: usize, life: u32, chunk: u32, rest: Vec<(PeerSlot, u32)> },
    CutOff { home: usize, life: u32, peer: usize, connection: u32, chunk: u32, reached: u32 },
    Gone(usize, u32),
    Stop(usize),
    Die(usize),
    StallCheck(usize, u32),
    Restart(usize),
}

/// Everything.
pub(crate) struct World {
    pub(super) plan: Plan,
    pub(super) now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free_events: Vec<usize>,
    pub(super) rng: Rng,
    pub(super) budget: Budget,
    pub(super) homes: Vec<Home>,
    pub(super) peers: Vec<SimPeer>,
    pub(super) touched: Vec<usize>,
    pub(super) dirty: Vec<usize>,
    pub(super) count: u64,
    pub(super) digest: Digest,
    same_time: u64,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let budget = Budget::new(u64::from(plan.budget_chunks) * u64::from(plan.chunk_size));
        let homes = plan.homes.iter().map(|home| Home::new(swarm_of(&plan, home))).collect();
        let peers: Vec<SimPeer> = plan.peers.iter().cloned().map(SimPeer::new).collect();
        let mut world = Self {
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free_events: Vec::new(),
            rng: Rng::new(plan.seed ^ 0x5eed),
            budget,
            homes,
            peers,
            touched: Vec::new(),
            dirty: Vec::new(),
            count: 0,
            digest: Digest::default(),
            same_time: 0,
            plan,
        };
        for peer in 0..world.peers.len() {
            world.schedule(world.peers[peer].plan.joins_at, Event::Join(peer));
            match world.peers[peer].plan.vice {
                Vice::Stops(at) => world.schedule(at, Event::Stop(peer)),
                Vice::Dies(at) => world.schedule(at, Event::Die(peer)),
                _ => {}
            }
        }
        for home in 0..world.homes.len() {
            for at in world.plan.homes[home].restarts.clone() {
                world.schedule(at, Event::Restart(home));
            }
        }
        world
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        let index = self.free_events.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[index] = Some(event);
        self.sequence += 1;
        self.heap.push(Reverse((at.max(self.now), self.sequence, index)));
    }

    pub(super) fn time(&self) -> Time {
        Time(self.now)
    }

    /// Runs until every peer that can has finished, or nothing happens any more, or time is up.
    pub(crate) fn run(&mut self) -> Outcome {
        while let Some(Reverse((at, _, index))) = self.heap.pop() {
            if at > self.plan.until {
                break;
            }
            self.same_time = if at == self.now { self.same_time + 1 } else { 0 };
            let limit = 200_000 + 100 * self.peers.len() as u64;
            assert!(self.same_time < limit, "time stands still at {at}: {:?}", self.events[index]);
            self.now = at;
            let event = self.events[index].take().expect("scheduled once");
            self.free_events.push(index);
            self.handle(event);
            if !self.heap.is_empty() && self.rng.percent(self.plan.batch_percent) {
                // More comes in before the shell looks at what was decided.
                self.count += 1;
                continue;
            }
            self.pump();
            self.count += 1;
            self.check();
            if self.count.is_multiple_of(16) && self.all_done() {
                break;
            }
        }
        self.homes.iter().for_each(|home| home.swarm.invariants());
        self.outcome()
    }

    fn check(&self) {
        for (home, state) in self.homes.iter().enumerate() {
            state.check(self.plan.chunk_size, self.plan.homes[home].size_bytes);
        }
        let leased: u64 = self.homes.iter().map(|home| home.leased_bytes()).sum();
        assert_eq!(leased, self.budget.in_use(), "leases don't add up");
        if self.count.is_multiple_of(self.plan.check_every) {
            self.homes.iter().for_each(|home| home.swarm.invariants());
        }
    }

    fn handle(&mut self, event: Event) {
        if !self.is_live(&event) {
            return;
        }
        match event {
            Event::Join(peer) => self.join(peer),
            Event::Timer(home) => {
                self.homes[home].timer_at = None;
                self.input(home, |swarm, now| swarm.handle_timeout(now));
            }
            Event::FrameDone(peer, _) => self.frame_done(peer),
            Event::Progress(peer, _, received) => self.progress(peer, received),
            Event::Verified(peer, _, chunk, ok) => self.verified(peer, chunk, ok),
            Event::Arrived(peer, _, chunk) => self.delivery_arrived(peer, chunk),
            Event::Fetch { peer, fetch_id, chunk, .. } => self.fetch_came(peer, fetch_id, chunk),
            Event::UploadDone(peer, _) => self.upload_done(peer),
            Event::FetchResult { home, fetch_id, peer, .. } => {
                self.fetch_result(home, fetch_id, peer);
            }
            Event::Manifest { peer, .. } => self.manifest(peer),
            Event::Recalled { home, chunk, rest, .. } => {
                self.input(home, |swarm, now| swarm.handle_recalled(now, chunk, &rest));
            }
            Event::CutOff { home, peer, chunk, reached, .. } => {
                if let Some(slot) = self.peers[peer].slot {
                    self.input(home, |swarm, now| swarm.handle_cut_off(now, slot, chunk, reached));
                }
            }
            Event::Gone(peer, _) => self.gone(peer),
            Event::Stop(peer) => self.peers[peer].stopped = true,
            Event::Die(peer) => {
                self.peers[peer].dead = true;
                let connection = self.peers[peer].connection;
                let noticed = self.now + self.rng.below(500 * MILLISECOND);
                self.schedule(noticed, Event::Gone(peer, connection));
            }
            Event::StallCheck(peer, _) => self.stall_check(peer),
            Event::Restart(home) => self.restart(home),
        }
    }

    /// Whether the connection or the relay's life that the event belongs to goes on.
    fn is_live(&self, event: &Event) -> bool {
        match *event {
            Event::FrameDone(peer, connection)
            | Event::Progress(peer, connection, _)
            | Event::Verified(peer, connection, ..)
            | Event::Arrived(peer, connection, _)
            | Event::Fetch { peer, connection, .. }
            | Event::UploadDone(peer, connection)
            | Event::Manifest { peer, connection }
            | Event::Gone(peer, connection)
            | Event::StallCheck(peer, connection) => self.lives(peer, connection),
            Event::FetchResult { home, life, .. } | Event::Recalled { home, life, .. } => {
                self.homes[home].life == life
            }
            Event::CutOff { home, life, peer, connection, .. } => {
                self.homes[home].life == life && self.lives(peer, connection)
            }
            Event::Timer(home) => self.homes[home].timer_at.is_some_and(|at| at <= self.now),
            Event::Join(_) | Event::Stop(_) | Event::Die(_) | Event::Restart(_) => true,
        }
    }

    fn manifest(&mut self, peer: usize) {
        let result = match self.peers[peer].plan.vice {
            Vice::Liar => Err(FetchFailure::Lied),
            Vice::Refuser => Err(FetchFailure::Refused),
            _ => Ok(()),
        };
        self.peer_input(peer, |swarm, now, slot| swarm.handle_manifest(now, slot, result));
    }

    fn lives(&self, peer: usize, connection: u32) -> bool {
        self.peers[peer].slot.is_some() && self.peers[peer].connection == connection
    }

    fn join(&mut self, index: usize) {
        let peer = &self.peers[index];
        if peer.slot.is_some() || peer.dead || peer.given_up {
            return;
        }
        let (home, window) = (peer.plan.home, peer.plan.window);
        let claims = peer.have.clone();
        let seeding = peer.plan.seeding.filter(|_| peer.connection == 0);
        let order = peer.plan.order;
        let is_suspect = peer.plan.is_suspect;
        let now = self.time();
        let join = Join { claims, order, seeding, is_suspect, is_uplink: false };
        let slot = self.homes[home].swarm.handle_join(now, join);
        self.homes[home].slots.insert(slot, index);
        self.peers[index].slot = Some(slot);
        self.drain_soon(home);
        let connection = self.peers[index].connection;
        let rtt = self.peers[index].plan.rtt;
        self.schedule(self.now + rtt, Event::Progress(index, connection, 0));
        assert!(window > 0);
        if order == relay::protocol::Order::Peer || self.peers[index].plan.vice == Vice::Names {
            self.say_wants(index);
        }
        self.finish_if_done(index);
    }

    fn say_wants(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let mut wants: Vec<u32> = peer.have.iter_missing().collect();
        if !peer.plan.sequential {
            for at in (1..wants.len()).rev() {
                wants.swap(at, self.rng.index(at + 1));
            }
        }
        peer.wants = wants.into();
        self.say_more_wants(index, 200);
    }

    fn say_more_wants(&mut self, index: usize, count: usize) {
        let peer = &mut self.peers[index];
        let count = count.min(peer.wants.len());
        let wants: Vec<u32> = peer.wants.drain(..count).collect();
        if !wants.is_empty() {
            self.peer_input(index, |swarm, now, slot| swarm.handle_want(now, slot, &wants));
        }
    }

    fn frame_done(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.link_busy = false;
        if peer.stopped || peer.dead {
            return;
        }
        let Some(flight) = peer.flights.pop_front() else { return };
        let boasts = peer.plan.vice == Vice::Boasts && !peer.complete.contains(&flight.chunk);
        let done = peer.receive(flight).or(boasts.then_some(true));
        self.acknowledge(index, flight);
        let peer = &mut self.peers[index];
        let (connection, rtt) = (peer.connection, peer.plan.rtt);
        let received = peer.received;
        if let Some(ok) = done {
            let ok = ok && !self.rng.percent(self.peers[index].plan.loses_percent);
            if ok {
                self.peers[index].complete.insert(flight.chunk);
            }
            if let Vice::Dawdles(late) = self.peers[index].plan.vice {
                let event = Event::Verified(index, connection, flight.chunk, ok);
                self.schedule(self.now + rtt + late, event);
            } else if let Vice::Hoards(time) = self.peers[index].plan.vice {
                let event = Event::Verified(index, connection, flight.chunk, ok);
                self.schedule((self.now + rtt).next_multiple_of(time), event);
            } else if rtt == 0 && self.peers[index].plan.weather.is_clear() {
                self.verified(index, flight.chunk, ok);
            } else {
                let at = self.in_order_at(index);
                self.schedule(at, Event::Verified(index, connection, flight.chunk, ok));
            }
        }
        if rtt == 0 && self.peers[index].plan.weather.is_clear() {
            self.progress(index, received);
        } else {
            self.report(index);
        }
        self.touched.push(index);
    }

    fn progress(&mut self, index: usize, received: u64) {
        let peer = &mut self.peers[index];
        peer.reported = peer.reported.max(received);
        let allowance = peer.reported + peer.plan.window;
        self.peer_input(index, |swarm, now, slot| swarm.handle_allowance(now, slot, allowance));
    }

    fn verified(&mut self, index: usize, chunk: u32, ok: bool) {
        if ok {
            self.peers[index].have.insert(chunk);
            self.peer_input(index, |swarm, now, slot| swarm.handle_have(now, slot, chunk));
            if self.peers[index].slot.is_some() && !self.peers[index].wants.is_empty() {
                self.say_more_wants(index, 1);
            }
        } else {
            self.peer_input(index, |swarm, now, slot| swarm.handle_lacking(now, slot, chunk));
        }
        self.finish_if_done(index);
    }

    fn finish_if_done(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if !peer.have.is_full() {
            return;
        }
        peer.finished_at.get_or_insert(self.now);
        if peer.plan.leaves && !peer.leaving && peer.plan.seeding.is_none() {
            peer.leaving = true;
            self.peer_input(index, |swarm, now, slot| swarm.handle_leaving(now, slot));
        }
    }

    /// No peer wants what comes of a fetch that was cancelled, whether or not the shell has looked at
    /// that decision: if not, its lease moves on when it does.
    fn fetch_result(&mut self, home: usize, fetch_id: FetchId, peer: usize) {
        if !self.homes[home].swarm.is_fetching(fetch_id) {
            return;
        }
        match self.peers[peer].plan.vice {
            Vice::Liar => self.fetch_failed(home, fetch_id, FetchFailure::Lied),
            Vice::Refuser => self.fetch_failed(home, fetch_id, FetchFailure::Refused),
            _ => self.fetched(home, fetch_id),
        }
    }

    fn stall_check(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let waits = peer.data_waits_since.is_some_and(|since| self.now - since >= 10 * SECOND);
        if waits && peer.has_data_waiting() {
            self.gone(index);
        }
    }

    fn restart(&mut self, home: usize) {
        let freed = self.homes[home].leased_bytes();
        self.budget.cancel(home);
        self.budget.give_back(freed);
        let swarm = swarm_of(&self.plan, &self.plan.homes[home]);
        let life = self.homes[home].life + 1;
        let counted = self.homes[home].fetched_bytes;
        self.homes[home] = Home::new(swarm);
        self.homes[home].life = life;
        self.homes[home].fetched_bytes = counted;
        for index in 0..self.peers.len() {
            if self.peers[index].plan.home == home && self.peers[index].slot.is_some() {
                self.peers[index].reset();
                let again = self.now + self.rng.below(300 * MILLISECOND);
                self.schedule(again, Event::Join(index));
            }
        }
    }
}

fn swarm_of(plan: &Plan, home: &HomePlan) -> Swarm {
    Swarm::new(SwarmConfig {
        size_bytes: home.size_bytes,
        chunk_size_bytes: plan.chunk_size,
        eviction: home.eviction,
        lambda: home.lambda,
        fetches_max: plan.budget_chunks / 2,
        cache_chunks_max: plan.budget_chunks,
        missing_deadline: plan.missing_deadline,
        spread_wait: plan.spread_wait,
        leaving_deadline: Duration::from_secs(60),
    })
}
