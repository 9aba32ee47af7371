//! All clients and origins of a run, on pinned event loops: starts them, waits, collects.
//!
//! Client `i` lives on shard `i % shards`, and its connection is made there. Nothing crosses
//! shards but the [`Board`]'s counters, and one report of each shard at the end. A shard whose clients
//! all have their files lends its core to the others: cores differ in speed, by up to a third for minutes, and
//! the last client's time is what counts.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use relay::{
    client::{Disk, Peer, new_scratch},
    time::Time,
    units::count_text,
};
use shards::{
    Driver, Placement, SPIN_PATIENCE, Shard, Shards, SpinWatch, Start, StartError, clock, task,
};

use crate::{
    board::Board,
    client::{client_peer, origin_peer, run_client, run_origin},
    latency::Latencies,
    member::{Job, Local, Member, Record},
    plan::Role,
    recorder::Recorder,
    sampler::INTERVAL_FIRST,
    usage,
};

/// Members of one shard that connect at the same time: far below what a relay takes of those
/// that have not introduced themselves, and its backlog.
const CONNECTING_MAX: usize = 64;

/// How often a full shard looks whether it may connect the next.
const CONNECT_TICK: Duration = Duration::from_millis(1);

/// How often a shard that is ahead looks at once whether the others have come as far. Where all have a core, they have.
const LOOKS_AWAKE_MAX: u32 = 4;

/// How often it looks afterwards: some tens of a connection's time, so clients come as fast as before.
const STEP_TICK: Duration = Duration::from_micros(100);

/// For the members of a shard to end after they were stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the main thread looks at the board.
const TICK: Duration = Duration::from_millis(50);

/// How often it does while all clients stay: that must cost nothing.
const STAY_TICK: Duration = Duration::from_secs(1);

/// A relay that has no room for all is waited for this long: others may leave it.
const FULL_PATIENCE: Duration = Duration::from_secs(10);

/// By then most of those that it has no room for have tried.
const FULL_TOLD_AFTER: Duration = Duration::from_millis(300);

/// What event loops' threads are called, before their number.
const THREAD_NAME: &str = "loadgen";

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of all clients, by index, and then of the origins.
    pub(crate) records: Vec<Record>,
    /// Of all chunks of all clients.
    pub(crate) latencies: Latencies,
    /// What was recorded.
    pub(crate) recorder: Option<Recorder>,
    /// Why it ended early, if it did.
    pub(crate) cut_short: Option<String>,
    /// CPU time of the process, from the start of its event loops until all were done.
    pub(crate) cpu_time: Duration,
    /// Of that time, the largest share that one event loop worked or waited for a core.
    pub(crate) demand_ratio_max: f64,
}

struct ShardReport {
    records: Vec<Record>,
    latencies: Latencies,
    recorder: Option<Recorder>,
}

/// Runs the job until every client that must succeed has, or never will, or time is up.
/// `watch` is called now and then, and may end the run by a reason; `settled` once, when all are done
/// and yet stay.
///
/// # Errors
/// The event loops can't be started.
pub(crate) fn run(
    job: &Arc<Job>,
    placement: Placement,
    driver: Driver,
    mut watch: impl FnMut(&Board) -> Option<String>,
    settled: impl FnOnce(),
) -> Result<Outcome, StartError> {
    let (sender, receiver) = sync_channel(placement.shard_count());
    let shard_count = placement.shard_count();
    let start = Start {
        placement,
        driver,
        name: THREAD_NAME,
        // Shards have nothing to say to each other.
        credits_per_pair: 1,
        handoff_capacity: 1,
    };
    let job_of_shards = Arc::clone(job);
    let (began, cpu_before) = (clock::now(), usage::cpu_time());
    let shards = shards::start::<(), (), _, _>(start, move |shard| {
        shard_main(shard, shard_count, Arc::clone(&job_of_shards), sender.clone())
    })?;
    let mut spins = SpinWatch::new(shards.heartbeats(), SPIN_PATIENCE);
    let mut watch = |board: &Board| {
        if let Some(why) = spins.look(clock::now()) {
            // Its clients would never hear of an end.
            relay::stderr::say(format_args!("loadgen: {why}"));
            std::process::exit(1);
        }
        watch(board)
    };
    let cut_short = wait(job, &mut watch);
    let cpu_time = usage::cpu_time().saturating_sub(cpu_before);
    let demand_ratio_max = usage::demand_ratio_max(THREAD_NAME, clock::now() - began);
    if cut_short.is_none() && !job.stay.is_zero() {
        settled();
        stay(job.stay, &job.board, &mut watch);
    }
    let outcome = collect(shards, &receiver, cut_short);
    Ok(Outcome { cpu_time, demand_ratio_max, ..outcome })
}

/// Keeps all connected; what ends the relay meanwhile ends it, too.
fn stay(time: Duration, board: &Board, watch: &mut impl FnMut(&Board) -> Option<String>) {
    relay::stderr::say(format_args!(
        "loadgen: everybody is done and stays connected for {} s",
        time.as_secs_f64()
    ));
    let deadline = clock::now() + time;
    while clock::now() < deadline && watch(board).is_none() {
        thread::park_timeout(STAY_TICK.min(deadline.saturating_sub(clock::now())));
    }
}

fn wait(job: &Job, watch: &mut impl FnMut(&Board) -> Option<String>) -> Option<String> {
    let deadline = clock::now() + job.timeout;
    let tick = if job.recording.is_some() { INTERVAL_FIRST } else { TICK };
    let mut full = FullRelay::default();
    loop {
        let reason = watch(&job.board);
        if job.board.is_settled() {
            return None;
        }
        if reason.is_some() || job.board.is_aborted() {
            return reason.or_else(|| Some("the origin failed".into()));
        }
        if let Some(reason) = full.look(&job.board) {
            return Some(reason);
        }
        if clock::now() >= deadline {
            return Some(format!("timed out after {} s", job.timeout.as_secs_f64()));
        }
        thread::park_timeout(tick);
    }
}

/// A relay that has no room for all: it is told at once, and waited for only a while, as those that are in
/// stay until all are done.
#[derive(Default)]
struct FullRelay {
    since: Option<Duration>,
    is_told: bool,
}

impl FullRelay {
    /// Why the run ends, if it does.
    fn look(&mut self, board: &Board) -> Option<String> {
        let count = board.refused_count();
        if count == 0 {
            self.since = None;
            return None;
        }
        let now = clock::now();
        let waited = now - *self.since.get_or_insert(now);
        let text = format!(
            "the relay is full and has no room for {}: {}",
            count_text(u64::from(count), "connection"),
            board.refusal()
        );
        if waited >= FULL_PATIENCE {
            return Some(text);
        }
        if waited >= FULL_TOLD_AFTER && !std::mem::replace(&mut self.is_told, true) {
            let patience = FULL_PATIENCE.as_secs();
            relay::stderr::say(format_args!("loadgen: {text}; trying for {patience} s"));
        }
        None
    }
}

fn collect(
    shards: Shards,
    receiver: &Receiver<ShardReport>,
    mut cut_short: Option<String>,
) -> Outcome {
    shards.drain();
    let ended = shards.join();
    let mut records = Vec::new();
    let mut latencies = Latencies::new();
    let mut recorder: Option<Recorder> = None;
    while let Ok(report) = receiver.try_recv() {
        records.extend(report.records);
        latencies.merge(&report.latencies);
        match (&mut recorder, report.recorder) {
            (Some(recorder), Some(more)) => recorder.merge(more),
            (empty, more) => *empty = more,
        }
    }
    if let Err(error) = ended {
        cut_short.get_or_insert(error.to_string());
    }
    records.sort_by_key(|record| record.client.unwrap_or(usize::MAX));
    let (cpu_time, demand_ratio_max) = (Duration::ZERO, 0.0);
    Outcome { records, latencies, recorder, cut_short, cpu_time, demand_ratio_max }
}

/// One shard of the load generator. It leaves the core to a relay that is at work on it, and finds more to
/// read at once: in the main job that saves two in five of both programs' context switches.
async fn shard_main(
    shard: Shard<(), ()>,
    shard_count: usize,
    job: Arc<Job>,
    reports: SyncSender<ShardReport>,
) {
    let disk = match Disk::start() {
        Ok(disk) => disk,
        Err(error) => return report_no_disk(&shard, &job, &reports, &error),
    };
    task::never_preempt();
    let mine = |index: &usize| index % shard_count == shard.id.index();
    let clients = || job.plan.clients.iter().enumerate().filter(|(index, _)| mine(index));
    let local = Rc::new(Local {
        job: Arc::clone(&job),
        scratch: new_scratch(),
        disk,
        latencies: RefCell::new(Latencies::new()),
        recorder: job.recording.map(|recording| RefCell::new(Recorder::new(recording))),
        connecting: Cell::new(0),
        running: Cell::new(0),
        busy: Cell::new(clients().filter(|(_, plan)| plan.role.takes()).count()),
        shard: shard.clone(),
        stopping: Cell::new(false),
    });
    let mut members = Vec::new();
    // Origins from the last loop on: with few clients, both ends of the relay get a core.
    let mine_from_last = |index: &usize| mine(&(shard_count - 1 - index % shard_count));
    for index in (0..job.plan.files).filter(mine_from_last) {
        members.push(start_origin(&local, index));
    }
    for (index, _) in clients() {
        while local.connecting.get() >= CONNECTING_MAX && !shard.draining() {
            clock::sleep(CONNECT_TICK).await;
        }
        if shard.draining() {
            break;
        }
        in_step(&shard, &job.board, index, shard_count).await;
        members.push(start_client(&local, index));
        job.board.count_started();
        // Its task connects before the next one is started.
        task::yield_now().await;
    }
    if members.is_empty() {
        shard.lend_core();
    }
    while !shard.draining() {
        shard.port.wait().await;
    }
    stop(&local, &members).await;
    let records = members.iter().map(|member| member.record.borrow().clone()).collect();
    let latencies = local.latencies.borrow().clone();
    // There is room for one report of each shard.
    let recorder = local.recorder.as_ref().map(|recorder| recorder.borrow().clone());
    reports.try_send(ShardReport { records, latencies, recorder }).ok();
}

fn report_no_disk(
    shard: &Shard<(), ()>,
    job: &Job,
    reports: &SyncSender<ShardReport>,
    error: &std::io::Error,
) {
    let error = format!(
        "could not start a thread for files: {error}; {}",
        shards::mend_of_no_thread(error)
    );
    let record = Record::of_failure(format!("shard {}", shard.id), error);
    reports
        .try_send(ShardReport {
            records: vec![record],
            latencies: Latencies::new(),
            recorder: None,
        })
        .ok();
    job.board.abort();
}

/// Shards start their clients in turn. A relay places a connection on the core that its other end
/// works on, but only while its own shards stay balanced: a burst of one core would be spread.
///
/// A shard that is ahead sleeps: it would take the core from the relay, or from the shard that is behind.
async fn in_step(shard: &Shard<(), ()>, board: &Board, index: usize, shard_count: usize) {
    let mut looks = 0u32;
    while index > board.started() + shard_count && !shard.draining() {
        looks += 1;
        match looks {
            ..=LOOKS_AWAKE_MAX => task::yield_now().await,
            _ => clock::sleep(STEP_TICK).await,
        }
    }
}

fn start_client(local: &Rc<Local>, index: usize) -> Rc<Member> {
    let plan = local.job.plan.clients[index].clone();
    let name = format!("client-{index}");
    let record = new_record(local, name, plan.file, Some(index), plan.role.takes());
    let peer = client_peer(local, &plan, &record);
    let must_succeed = plan.role.must_succeed();
    // A client that joins late must not hold up those behind it meanwhile.
    if !matches!(plan.role, Role::JoinsLate(_)) {
        record.borrow_mut().connecting(local);
    }
    start_member(local, record, peer, must_succeed, move |local, member, peer| {
        run_client(local, plan, member, peer)
    })
}

fn start_origin(local: &Rc<Local>, index: usize) -> Rc<Member> {
    let record = new_record(local, format!("origin-{index}"), index, None, false);
    let peer = origin_peer(local, index, &record);
    record.borrow_mut().connecting(local);
    start_member(local, record, peer, false, run_origin)
}

fn new_record(
    local: &Local,
    name: String,
    file: usize,
    client: Option<usize>,
    is_busy: bool,
) -> Rc<RefCell<Record>> {
    let chunk_count = local.job.contents[file].manifest.key().chunk_count();
    let started_at = Time::from_start(clock::now());
    let mut record = Record::new(name, client, is_busy);
    (record.chunk_count, record.started_at) = (chunk_count, started_at);
    Rc::new(RefCell::new(record))
}

fn start_member<F: Future<Output = ()> + 'static>(
    local: &Rc<Local>,
    record: Rc<RefCell<Record>>,
    peer: std::io::Result<Peer>,
    must_succeed: bool,
    body: impl FnOnce(Rc<Local>, Rc<Member>, Peer) -> F,
) -> Rc<Member> {
    let peer = match peer {
        Ok(peer) => peer,
        Err(error) => {
            fail(local, &record, must_succeed, format!("could not open its store at {error}"));
            return Rc::new(Member { record, handle: Default::default() });
        }
    };
    local.running.set(local.running.get() + 1);
    let member = Rc::new(Member { record, handle: peer.handle() });
    let future = body(Rc::clone(local), Rc::clone(&member), peer);
    let (on_end, on_panic) = (Rc::clone(local), Rc::clone(local));
    let (ended, record) = (Rc::clone(&member), Rc::clone(&member.record));
    task::spawn_isolated(
        async move {
            future.await;
            ended.record.borrow_mut().ended(&on_end);
            on_end.running.set(on_end.running.get() - 1);
        },
        move |text| {
            on_panic.running.set(on_panic.running.get() - 1);
            fail(&on_panic, &record, must_succeed, format!("panicked: {text}"));
        },
    );
    member
}

fn fail(local: &Local, record: &RefCell<Record>, must_succeed: bool, error: String) {
    let mut record = record.borrow_mut();
    record.ended(local);
    record.error = Some(error);
    record.has_failed = true;
    if record.client.is_none() {
        local.job.board.abort();
    } else if must_succeed && record.whole_at.is_none() {
        local.job.board.settled();
    }
}

/// Ends all members and waits until they have.
async fn stop(local: &Local, members: &[Rc<Member>]) {
    local.stopping.set(true);
    members.iter().for_each(|member| member.handle.stop());
    let deadline = clock::now() + STOP_TIMEOUT;
    while local.running.get() > 0 && clock::now() < deadline {
        clock::sleep(CONNECT_TICK).await;
    }
}
