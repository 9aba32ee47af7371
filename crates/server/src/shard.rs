//! One shard of the relay: its connections, the homes of some swarms, and the turn that joins
//! them.
//!
//! A turn: replies, then requests, then hand-offs; the news of connections; the homes' decisions;
//! what is to go to other shards. Requests to the own shard are handled in the same turn, so
//! that local and remote differ in one place only ([`super::outbox`]).

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shards::{Shard, ShardId, bell::LocalBell, clock, steering::DatagramGroup, task};

use super::{
    cells::ShardCells,
    claims::{CLAIMS_AT_ONCE_MAX, CLAIMS_PER_PEER_MAX, Claims},
    closing::Lingering,
    connection::{Connection, link::News},
    datagrams::ShardDatagrams,
    homes::Homes,
    message::{ConnectionRef, Handled, PeerNews, Request, SwarmRef},
    outbox::Outbox,
    session::SessionConfig,
    shared::Shared,
    slots::Slots,
    sweep::Sweep,
    unjoined::Unjoined,
    window_pool::WindowPool,
};
use relay_protocol::{Failure, FailureCode, limits::FRAME_PAYLOAD_BYTES_MAX, time::Time};
use relay_transport::{Payload, ReceiveBuffer, WRITE_BYTES_MAX};

/// Frames of one read, at most: what a peer hands to its kernel at once.
const FRAMES_PER_READ: usize = WRITE_BYTES_MAX / FRAME_PAYLOAD_BYTES_MAX;

/// Requests handled before other tasks get their turn.
const REQUESTS_PER_TURN_MAX: usize = 256;

/// How often time is looked at when nothing happens: hedges, deadlines and stalls are due in
/// tens of milliseconds at the least. What memory costs has a timer of its own (`watch_prices`).
const TICK_BUSY: Duration = Duration::from_millis(10);

/// No timer of the event loop is finer than this.
const TICK_LEAST: Duration = Duration::from_millis(1);

/// The same while no swarm has work, and how often everything else is looked after.
const TICK_IDLE: Duration = Duration::from_millis(100);

/// The same when nothing has happened since, but somebody may be overdue.
const TICK_QUIET: Duration = Duration::from_secs(1);

/// Everything of one shard, shared by its tasks.
pub(crate) struct ShardState {
    pub shard: Shard<Request, Handled>,
    pub shared: Arc<Shared>,
    pub session_config: Arc<SessionConfig>,
    pub cells: Arc<ShardCells>,
    pub connections: RefCell<Slots<Rc<Connection>>>,
    pub homes: RefCell<Homes>,
    pub outbox: RefCell<Outbox>,
    /// Live chunks of this shard: one entry for all its sends.
    pub payloads: RefCell<HashMap<(SwarmRef, u32), Weak<Payload>>>,
    /// Connections with something to write, in the order of their turn.
    pub pumped: RefCell<VecDeque<Rc<Connection>>>,
    pub pump_bell: LocalBell,
    /// Connections with news, in the order of their turn.
    pub dirty: RefCell<VecDeque<Rc<Connection>>>,
    pub claims: RefCell<Claims>,
    pub handshakes: RefCell<Unjoined>,
    pub observers: RefCell<Unjoined>,
    pub receive_buffer: RefCell<ReceiveBuffer>,
    pub is_draining: Cell<bool>,
    pub lingering: Lingering,
    pub sweep: RefCell<Sweep>,
    /// Rung by all that happens. A shard to which nothing happens looks at no clock.
    pub activity: LocalBell,
    /// Rung when a home waits for memory at a price.
    price_bell: LocalBell,
    /// Of those who watch, as counted when last looked.
    calls_seen: Cell<u64>,
    /// No window of this shard is larger for now.
    pub window_ceiling: Cell<u64>,
    /// Of this shard's part of their sum, what the windows of those leave that were there at the last sweep.
    pub window_room: Cell<u64>,
    pub datagrams: ShardDatagrams,
}

pub(crate) fn now() -> Time {
    Time::from_start(clock::now())
}

impl ShardState {
    pub(crate) fn new(
        shard: Shard<Request, Handled>,
        shared: &Arc<Shared>,
        groups: &[DatagramGroup],
    ) -> Rc<Self> {
        let (id, shard_count) = (shard.id, shard.port.shard_count());
        let cells = Arc::clone(&shared.cells[id.index()]);
        Rc::new(Self {
            shared: Arc::clone(shared),
            session_config: Arc::clone(&shared.session),
            cells,
            connections: RefCell::new(Slots::new()),
            homes: RefCell::new(Homes::new(id, shard_count, shared, shard.port.ringer())),
            outbox: RefCell::new(Outbox::new(id, shard_count)),
            payloads: RefCell::new(HashMap::new()),
            pumped: RefCell::new(VecDeque::new()),
            pump_bell: LocalBell::new(),
            dirty: RefCell::new(VecDeque::new()),
            claims: RefCell::new(Claims::new(shard_count)),
            handshakes: RefCell::new(Unjoined::handshakes(shard_count)),
            observers: RefCell::new(Unjoined::observers(shared.places.observers, shard_count)),
            receive_buffer: RefCell::new(ReceiveBuffer::new(FRAMES_PER_READ)),
            is_draining: Cell::new(false),
            lingering: Lingering::default(),
            sweep: RefCell::new(Sweep::default()),
            activity: LocalBell::new(),
            price_bell: LocalBell::new(),
            calls_seen: Cell::new(0),
            window_ceiling: Cell::new(relay_protocol::path::BYTES_NEAR),
            window_room: Cell::new(WindowPool::own_part(shard_count as u64)),
            datagrams: ShardDatagrams::new(id, groups),
            shard,
        })
    }

    /// Puts the connection into the pump's round, if it has something to write. Data in datagrams may
    /// wait for its time alone, as acknowledgements may just have made it: then that is planned.
    pub(crate) fn pump(&self, connection: &Rc<Connection>) {
        self.datagrams.mark_ready(connection, &self.pump_bell);
        if !connection.link().wants_write(now) {
            if connection.link().queue.data().is_some() {
                self.datagrams.schedule(now(), connection);
            }
        } else if !connection.marks.writes.replace(true) {
            self.pumped.borrow_mut().push_back(Rc::clone(connection));
            self.pump_bell.ring();
        }
    }

    /// Puts the connection into the list of those with news, if it has any.
    pub(crate) fn mark_news(&self, connection: &Rc<Connection>) {
        if connection.link().has_news() && !connection.marks.has_news.replace(true) {
            self.dirty.borrow_mut().push_back(Rc::clone(connection));
            self.shard.port.nudge();
        }
    }

    /// The connection, if it is still the one that is meant.
    pub(crate) fn connection(&self, index: u32, generation: u32) -> Option<Rc<Connection>> {
        self.connections.borrow().get(index, generation).cloned()
    }

    pub(crate) fn connection_of(&self, to: ConnectionRef) -> Option<Rc<Connection>> {
        self.connection(to.index, to.generation)
    }

    /// Hands what peers have to tell to their homes, one message for each home shard; whether there is more
    /// of it that a home would take.
    fn collect_news(&self) -> bool {
        if self.dirty.borrow().is_empty() {
            return false;
        }
        let own = self.shard.id;
        let mut batches: Vec<Vec<PeerNews>> =
            (0..self.shard.port.shard_count()).map(|_| Vec::new()).collect();
        let mut again = VecDeque::new();
        let count = self.dirty.borrow().len();
        for _ in 0..count {
            let Some(connection) = self.dirty.borrow_mut().pop_front() else { break };
            let Some((swarm, _)) = connection.link().membership.member() else {
                connection.marks.has_news.set(false);
                continue;
            };
            // Without a credit the news stays where it is: state, not a message.
            if swarm.home != own && self.shard.port.credits(swarm.home) == 0 {
                self.dirty.borrow_mut().push_back(connection);
                continue;
            }
            let may_claim = self.claims.borrow().left(swarm.home).min(CLAIMS_PER_PEER_MAX);
            let mut link = connection.link();
            let was_full = !link.may_read();
            let taken = link.take_news(may_claim);
            let is_due = link.has_news();
            drop(link);
            connection.marks.has_news.set(is_due);
            let Some(News { news, claims }) = taken else {
                // Its home has enough to do: it goes first when that takes more.
                self.dirty.borrow_mut().push_back(connection);
                continue;
            };
            self.claims.borrow_mut().hand_over(swarm.home, claims);
            if was_full {
                connection.read_bell.ring();
            }
            if is_due {
                again.push_back(connection);
            }
            batches[swarm.home.index()].push(news);
        }
        for (index, batch) in batches.into_iter().enumerate().filter(|(_, b)| !b.is_empty()) {
            let home = ShardId(u16::try_from(index).expect("few shards"));
            let news = super::message::HomeRequest::News(batch);
            self.outbox.borrow_mut().push(home, Request::Home(news));
        }
        // Whoever got a part comes behind those who got none.
        let has_more = !again.is_empty();
        self.dirty.borrow_mut().append(&mut again);
        has_more
    }

    fn handle_request(self: &Rc<Self>, request: Request) -> Handled {
        self.activity.ring();
        let handled = Handled { claims: request.claims() };
        match request {
            Request::Home(request) => {
                let mut homes = self.homes.borrow_mut();
                homes.handle(now(), request, &mut self.outbox.borrow_mut(), &self.cells);
            }
            Request::Peer(request) => self.handle_peer_request(request),
        }
        handled
    }

    /// One turn; whether there is more to do at once.
    fn turn(self: &Rc<Self>) -> bool {
        let port = &self.shard.port;
        while let Some((from, Handled { claims })) = port.try_reply() {
            self.claims.borrow_mut().handled(from, claims);
        }
        let (mut handled, mut claims) = (0, 0);
        while handled < REQUESTS_PER_TURN_MAX
            && claims < CLAIMS_AT_ONCE_MAX
            && let Some((from, request)) = port.try_request_in()
        {
            handled += 1;
            let reply = self.handle_request(request);
            claims += reply.claims;
            port.reply(from, reply);
        }
        while let Some(incoming) = self.shard.try_accept() {
            super::accept::begin(self, incoming);
        }
        let mut own_claims = 0;
        let has_more = loop {
            let has_more = self.collect_news();
            if !self.shard.draining() {
                let mut outbox = self.outbox.borrow_mut();
                if self.homes.borrow_mut().drive(now(), &mut outbox, &self.cells) {
                    self.price_bell.ring();
                }
            }
            let mut is_quiet = true;
            while own_claims < CLAIMS_AT_ONCE_MAX {
                let Some(request) = self.outbox.borrow_mut().pop_own() else { break };
                let Handled { claims } = self.handle_request(request);
                self.claims.borrow_mut().handled(self.shard.id, claims);
                own_claims += claims;
                is_quiet = false;
            }
            if is_quiet {
                break has_more;
            }
        };
        self.outbox.borrow_mut().flush(port);
        self.cells.outbox_depth.set(self.outbox.borrow().len() as u64);
        has_more || handled == REQUESTS_PER_TURN_MAX || claims.max(own_claims) >= CLAIMS_AT_ONCE_MAX
    }

    /// The shard's main loop: until the process drains and everything is written or the time
    /// for it is over.
    pub(crate) async fn run(self: Rc<Self>) {
        let _alarm = Alarm;
        task::spawn(super::pump::run(Rc::clone(&self)));
        task::spawn(tick(Rc::clone(&self)));
        task::spawn(watch_prices(Rc::clone(&self)));
        super::datagrams::start(&self);
        loop {
            let more = self.turn();
            let calls = self.shared.watch.calls();
            if self.calls_seen.replace(calls) != calls {
                // Somebody watches: there is something to do though nothing happens.
                self.activity.ring();
            }
            if self.shard.draining() {
                if super::drain::is_done(&self) {
                    break;
                }
                // Its deadline may be all that still happens.
                self.activity.ring();
            }
            if more {
                task::yield_now().await;
            } else {
                self.shard.port.wait().await;
            }
        }
        self.is_draining.set(true);
        super::drain::close_all(&self).await;
    }
}

/// If the shard panics, the process must end and say so, not go on with one shard less: the main
/// thread waits for signals, so it gets one.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whoever can't be told will be told by /healthz.
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM).ok();
        }
    }
}

/// Looks at the time: hedges, deadlines, stalls, handshakes, and what is published.
async fn tick(state: Rc<ShardState>) {
    let (mut looked_at, mut is_quiet, mut is_watching) = (Time::ZERO, false, false);
    loop {
        let mut happened = false;
        if is_quiet {
            happened = wait_for_activity(&state, is_watching).await;
        } else {
            let busy = state.homes.borrow().has_work();
            clock::sleep(if busy { TICK_BUSY } else { TICK_IDLE }).await;
        }
        let now = now();
        tell_lapse();
        state.homes.borrow_mut().handle_timeouts(now);
        is_quiet &= !happened;
        if now.since(looked_at) >= TICK_IDLE {
            looked_at = now;
            // While memory is short, homes give way as time passes.
            happened |= state.activity.take() || state.shared.budget.waiting() > 0;
            is_watching = super::sweep::run(&state, now, !happened);
            is_quiet = !happened;
        }
        state.shard.port.nudge();
    }
}

/// Acts upon a price of memory when it is due: peers starve until then. What is due later than the next
/// look sees that.
async fn watch_prices(state: Rc<ShardState>) {
    loop {
        let due = state.homes.borrow().price_due_at().map(|due| due.since(now()));
        match due.filter(|&due| due < TICK_BUSY) {
            Some(due) => {
                clock::sleep(due.max(TICK_LEAST)).await;
                state.homes.borrow_mut().handle_timeouts(now());
                state.shard.port.nudge();
            }
            None => state.price_bell.wait().await,
        }
    }
}

/// Milliseconds that the process did not run, as far as the log tells. Of the process, as the clock is.
static LAPSE_TOLD_MS: AtomicU64 = AtomicU64::new(0);

/// Whoever reads the log learns why everybody was silent; by the first shard that notices.
fn tell_lapse() {
    let lapsed = u64::try_from(clock::lapsed().as_millis()).unwrap_or(u64::MAX);
    if lapsed > LAPSE_TOLD_MS.load(Ordering::Relaxed) {
        let before = LAPSE_TOLD_MS.swap(lapsed, Ordering::Relaxed);
        let seconds = Duration::from_millis(lapsed.saturating_sub(before)).as_secs_f64();
        if seconds > 0.0 {
            tracing::warn!("this relay did not run for {seconds:.1} s: that counts against nobody");
        }
    }
}

/// Until something happens, a deadline is due, or it is time to look; whether something happened. A shard
/// whose homes hold memory wakes up now and then: nobody rings when another shard's home waits for some. As
/// long as none does, it looks no further: that would cost something for every connection.
async fn wait_for_activity(state: &ShardState, is_watching: bool) -> bool {
    loop {
        let due = state.homes.borrow().poll_timeout().map(|due| due.since(now()).max(TICK_BUSY));
        let holds_memory = state.homes.borrow().hold_memory();
        let watch = (is_watching || holds_memory).then_some(TICK_QUIET);
        let Some(wait) = due.into_iter().chain(watch).min() else {
            state.activity.wait().await;
            return true;
        };
        if clock::timeout(wait, state.activity.wait()).await.is_some() {
            return true;
        }
        if is_watching || due == Some(wait) || state.shared.budget.waiting() > 0 {
            return false;
        }
    }
}

/// What a peer is told when the relay shuts down.
pub(crate) fn shutting_down() -> Failure {
    Failure {
        code: FailureCode::ShuttingDown,
        text: "the relay shuts down: connect again when it is back".into(),
    }
}

#[cfg(test)]
mod tests;
