//! Which swarms have a bridge: those with peers here, and for a while those that a peer has asked for in vain.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use shards::{clock, task};

use super::{
    super::own::{FOREVER, LAST_WORDS},
    standing::Standing,
};
use crate::{
    client::{
        Bridge, BridgeConfig, BridgeHandle, ChunkOrder, ConnectionError, FileState, Notice,
        Observer, Patience, PeerConfig, Reaction, Remote, Scratch, SessionConfig, Shelf, Side,
        new_scratch,
    },
    config::Upstream,
    protocol::{SwarmKey, Token, limits::RELAYS_BELOW_MAX, rng::Rng},
    server::uplinks::{Presence, SwarmNews, UplinkCells},
    time::Time,
    transport::Trust,
};

/// Swarms with an uplink at once: each takes three descriptors and two connections. The others are served by this relay
/// alone.
pub(super) const UPLINKS_MAX: usize = 256;

/// How often news are looked at.
const TICK: Duration = Duration::from_millis(20);

/// What was refused is tried again after so long, and up to twice as long: two relays that refuse each other should not
/// try at the same moment again.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

/// A swarm that a peer asked for in vain, which asks again within 4 s, is looked for at the other relay for so long.
const ASKED_WAIT: Duration = Duration::from_secs(15);

/// How a relay is reached.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) remote: Remote,
    pub(super) trust: Trust,
    pub(super) token: Option<Token>,
}

/// How either relay is reached.
pub(super) struct Ways {
    pub(super) up: Way,
    pub(super) down: Way,
}

/// A swarm that has peers here.
struct Wanted {
    /// Relays below this one that are among them.
    below: Vec<u64>,
    /// After a refusal it is not tried before.
    not_before: Time,
}

/// A bridge that runs.
struct Running {
    handle: BridgeHandle,
    /// Tells it from others of the same swarm.
    number: u64,
    /// A peer has asked for the swarm in vain: up to then one may come.
    until: Option<Time>,
}

/// A bridge that has ended: of which swarm, its number, and why if it was not stopped.
type Ended = (SwarmKey, u64, Option<(Side, ConnectionError)>);

/// Starts and ends bridges.
pub(super) struct Supervisor {
    ways: Ways,
    shelf: Shelf,
    relay_id: u64,
    standing: Rc<Standing>,
    cells: Arc<UplinkCells>,
    scratch: Scratch,
    wanted: BTreeMap<SwarmKey, Wanted>,
    running: BTreeMap<SwarmKey, Running>,
    ended: Rc<RefCell<Vec<Ended>>>,
    tasks: BTreeMap<u64, task::JoinHandle<()>>,
    rng: Rng,
    begun: u64,
}

impl Supervisor {
    /// Without a bridge yet.
    pub(super) fn new(
        ways: Ways,
        shelf: Shelf,
        relay_id: u64,
        upstream: Upstream,
        cells: Arc<UplinkCells>,
    ) -> Self {
        Self {
            ways,
            shelf,
            relay_id,
            standing: Rc::new(Standing::of(upstream)),
            cells,
            scratch: new_scratch(),
            wanted: BTreeMap::new(),
            running: BTreeMap::new(),
            ended: Rc::default(),
            tasks: BTreeMap::new(),
            rng: Rng::new(relay_id, 0),
            begun: 0,
        }
    }

    /// Until the relay ends.
    pub(super) async fn run(mut self, news: mpsc::Receiver<SwarmNews>, stopping: Arc<AtomicBool>) {
        let mut is_crowded = false;
        while !stopping.load(Ordering::Relaxed) {
            clock::sleep(TICK).await;
            let now = Time::from_start(clock::now());
            news.try_iter().for_each(|news| self.handle_news(now, news));
            self.handle_ended(now);
            self.end_unwanted(now);
            let is_full = self.start_wanted(now);
            if is_full && !is_crowded {
                tracing::warn!(
                    "{UPLINKS_MAX} swarms have an uplink, as many as there may be: others are served by this relay alone"
                );
            }
            is_crowded = is_full;
            let connected = self.running.values().filter(|it| it.handle.is_connected()).count();
            self.cells.set(self.running.len(), connected);
        }
        self.running.values().for_each(|running| running.handle.stop());
        let ends = async {
            for task in std::mem::take(&mut self.tasks).into_values() {
                task.await;
            }
        };
        // One that waits for its next attempt to connect is not waited for.
        clock::timeout(LAST_WORDS, ends).await;
    }

    fn handle_news(&mut self, now: Time, SwarmNews { key, presence }: SwarmNews) {
        match presence {
            Presence::Peers { below } => {
                if let Some(running) = self.running.get_mut(&key) {
                    running.until = None;
                    running.handle.join_below();
                    running.handle.stand_for(&stands_for(self.relay_id, &below));
                }
                let not_before = self.wanted.get(&key).map_or(now, |wanted| wanted.not_before);
                self.wanted.insert(key, Wanted { below, not_before });
            }
            Presence::Nobody => drop(self.wanted.remove(&key)),
            Presence::Asked => {
                let until = now + ASKED_WAIT;
                let is_full = self.running.len() >= UPLINKS_MAX;
                match self.running.get_mut(&key) {
                    Some(Running { until: Some(before), .. }) => *before = until,
                    Some(_) => {}
                    None if is_full => {}
                    None => self.start(key, &[], Some(until)),
                }
            }
        }
    }

    /// Bridges that have ended by themselves are tried again later.
    fn handle_ended(&mut self, now: Time) {
        for (key, number, why) in self.ended.take() {
            self.tasks.remove(&number);
            if self.running.get(&key).is_some_and(|running| running.number == number) {
                self.running.remove(&key);
            }
            let Some((side, error)) = why else { continue };
            self.standing.handle_ended(now, side, &error);
            let wait = REFUSED_WAIT.mul_f64(1.0 + self.rng.fraction());
            if let Some(wanted) = self.wanted.get_mut(&key) {
                wanted.not_before = now + wait;
            }
        }
    }

    /// Bridges whose swarms have no peers here go.
    fn end_unwanted(&mut self, now: Time) {
        let wanted = &self.wanted;
        self.running.retain(|key, running| {
            let stays = wanted.contains_key(key) || running.until.is_some_and(|until| now < until);
            if !stays {
                running.handle.stop();
            }
            stays
        });
    }

    /// Swarms with peers here get one; whether there are too many.
    fn start_wanted(&mut self, now: Time) -> bool {
        let due = self
            .wanted
            .iter()
            .filter(|(key, wanted)| !self.running.contains_key(key) && wanted.not_before <= now);
        let due: BTreeSet<SwarmKey> = due.map(|(&key, _)| key).collect();
        for key in due {
            if self.running.len() == UPLINKS_MAX {
                return true;
            }
            let below = self.wanted[&key].below.clone();
            self.start(key, &below, None);
        }
        false
    }

    fn start(&mut self, key: SwarmKey, below: &[u64], until: Option<Time>) {
        self.begun += 1;
        let (number, cells) = (self.begun, Arc::clone(&self.cells));
        let config = BridgeConfig {
            key,
            up: self.peer(&self.ways.up),
            down: self.peer(&self.ways.down),
            shelf: self.shelf.clone(),
            below: stands_for(self.relay_id, below),
            awaits_upstream: until.is_some(),
            came: Rc::new(move |side, bytes| match side {
                Side::Up => cells.add_in(bytes),
                Side::Down => cells.add_out(bytes),
            }),
        };
        let bridge = Bridge::new(config, |side| watch(side, &self.standing));
        self.running.insert(key, Running { handle: bridge.handle(), number, until });
        let (ended, scratch) = (Rc::clone(&self.ended), Rc::clone(&self.scratch));
        let run = async move {
            let why = bridge.run(scratch).await.err();
            ended.borrow_mut().push((key, number, why));
        };
        self.tasks.insert(number, task::spawn(run));
    }

    /// One end.
    fn peer(&self, way: &Way) -> PeerConfig {
        PeerConfig {
            remote: way.remote.clone(),
            trust: way.trust.clone(),
            session: SessionConfig {
                order: ChunkOrder::Named,
                seeding: None,
                token: way.token.clone(),
                intake_bytes_per_second: None,
                upload_bytes_per_second: None,
                keeps_bytes: true,
                is_manifest_only: false,
            },
            patience: Patience { first: FOREVER, later: FOREVER },
            seed: self.relay_id.wrapping_add(self.begun),
        }
    }
}

/// This relay, and those below it, as many as can be named: of more some circles go unnoticed. A peer that names any
/// number of relays breaks no uplink by it.
fn stands_for(own: u64, below: &[u64]) -> Vec<u64> {
    let others = below.iter().copied().filter(|&id| id != own);
    std::iter::once(own).chain(others).take(RELAYS_BELOW_MAX).collect()
}

/// The log hears whether the upstream relay is there.
fn watch(side: Side, standing: &Rc<Standing>) -> Box<dyn Observer> {
    let standing = Rc::clone(standing);
    let watch = move |_: Time, notice: &Notice<'_>, _: &FileState| {
        match notice {
            Notice::Accepted { .. } if side == Side::Up => standing.handle_accepted(),
            Notice::Disconnected { error, .. } if side == Side::Up => {
                standing.handle_disconnected(error);
            }
            _ => {}
        }
        Reaction::GoOn
    };
    Box::new(watch)
}
