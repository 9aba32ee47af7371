//! One run from a checked command line to a report: the order of things, and nothing else.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::Context;
use clap::ValueEnum;
use relay::{
    protocol::{Stats, chunk_size_log2_for},
    stderr::{self, say},
    stdout,
    time::Time,
    units::checksum_line,
};
use shards::{Placement, clock};

use crate::{
    args::{Config, FileChoice, RelayChoice, SeedingMode, Store},
    board::Board,
    client::client_path,
    content::{Content, ContentError, digest_files},
    errors::errors_of,
    fleet::{self, Outcome},
    latency::{ChunkSeconds, ClientSeconds, Latencies},
    member::Job,
    plan::Plan,
    prepare::{prepare, relay_cache_bytes},
    progress::Progress,
    recorder::Recording,
    relay_process::{Relay, names},
    report::{LoadgenFigures, Recorded, RelayFigures, Report, bound_by},
    report_dir,
    sampler::{Sample, Sampler},
    stats::Observer,
    usage,
};

/// What a run came to is nowhere.
pub(crate) const NO_STDOUT: &str = "could not write to stdout";

/// What a run left behind.
struct Ran {
    outcome: Outcome,
    report: Report,
    digests: Vec<(usize, String)>,
    samples: Vec<Sample>,
}

/// Runs the job and reports; whether it succeeded. One that could not even begin has a report for
/// machines all the same: its reader need not know why it would be missing.
///
/// # Errors
/// It could not begin, or its report could not be written.
pub(crate) fn run(config: &Config) -> anyhow::Result<bool> {
    let ran = perform(config).inspect_err(|error| {
        if let Some(path) = &config.json {
            let report = failed_report(config, format!("{error:#}"));
            // It may be the very file that can't be written: the error is told in any case.
            write_json(path, &report).ok();
        }
    })?;
    // What stays comes first, and each for itself: stdout may have no reader.
    let json = config.json.as_deref().map_or(Ok(()), |path| write_json(path, &ran.report));
    let page = write_page(config, &ran);
    let prose = write_prose(config.json.as_deref(), &ran.report, &ran.digests);
    json.and(page).and(prose)?;
    Ok(ran.report.is_success())
}

fn perform(config: &Config) -> anyhow::Result<Ran> {
    if has_prose_or_json(config.json.as_deref()) {
        stdout::check().context(NO_STDOUT)?;
    }
    prepare(config)?;
    let placement = Placement::plan(config.cores, false);
    if let Some(warning) = placement.warning() {
        say(format_args!("loadgen: {warning}"));
    }
    let driver = shards::driver::choose(config.driver)?;
    let (mut relay, observer) = find_relay(config)?;
    say(format_args!("loadgen: seed {}; the relay is {}", config.seed, relay.origin));
    let contents = make_contents(config, observer.chunk_size_log2_max())?;
    // Another connection: a relay waits for one to introduce itself, and content takes longer to make.
    drop(observer);
    let before = Observer::connect(relay.address, &relay.trust)?.stats(config.token.as_ref())?;
    let job = make_job(config, contents, &relay);
    let bytes_total = bytes_total(&job);
    let progress = Progress::new(config.clients, bytes_total);
    let shard_count = placement.shard_count();
    let sampler = RefCell::new(make_sampler(config, &job, &relay, &before)?);
    let (address, trust) = (relay.address, relay.trust.clone());
    let stats = || {
        Observer::connect(address, &trust)
            .and_then(|observer| observer.stats(config.token.as_ref()))
    };
    let close = || {
        let (ended_at, after) = (now(), stats());
        let last = after.as_ref().unwrap_or(&before);
        let samples = sampler.take().map(|sampler| sampler.finish(ended_at, &job.board, last));
        (after, samples.unwrap_or_default(), usage::rss_bytes_peak())
    };
    // What happens while all clients stay is not of the run: its figures are taken before.
    let mut closed = None;
    let watch = |board: &Board| {
        progress.update(board);
        if let Some(sampler) = &mut *sampler.borrow_mut() {
            sampler.poll(now(), board);
        }
        relay.has_ended().map(|status| format!("our own relay ended with {status}"))
    };
    let settled = || closed = Some(close());
    let lapsed = clock::lapsed();
    let outcome = fleet::run(&job, placement, driver.driver, watch, settled)?;
    let lapse = clock::lapsed().saturating_sub(lapsed).as_secs_f64();
    if lapse > 0.0 {
        say(format_args!(
            "loadgen: this process did not run for {lapse:.1} s: they count in no time and no rate"
        ));
    }
    let (after, samples, rss_bytes_peak) = closed.unwrap_or_else(close);
    progress.finish();
    let loadgen = LoadgenFigures {
        cpu_seconds: outcome.cpu_time.as_secs_f64(),
        demand_ratio_max: outcome.demand_ratio_max,
        rss_bytes_peak,
        shards: shard_count,
        driver: driver.driver.to_string(),
    };
    let mut errors = errors_of(&outcome, &job, now());
    let after = after.unwrap_or_else(|error| {
        errors.push(format!("could not ask for the relay's counters: {error}"));
        before.clone()
    });
    let digests = digest_stores(&job, &outcome, &mut errors);
    let is_own = relay.own_process().is_some();
    drop(relay);
    let relay = relay_figures(&before, &after, content_bytes(&job), is_own);
    let report = make_report(config, &job, &outcome, (relay, &after), loadgen, errors);
    Ok(Ran { outcome, report, digests, samples })
}

fn now() -> Time {
    Time::from_start(clock::now())
}

/// What looks at both processes while the run goes on, if there is to be a page of it.
fn make_sampler(
    config: &Config,
    job: &Job,
    relay: &Relay,
    before: &Stats,
) -> anyhow::Result<Option<Sampler>> {
    if job.recording.is_none() {
        return Ok(None);
    }
    let watch = Observer::connect(relay.address, &relay.trust)?.watch(config.token.as_ref())?;
    Ok(Some(Sampler::new(now(), before.clone(), Some(watch), relay.own_process())))
}

fn find_relay(config: &Config) -> anyhow::Result<(Relay, Observer)> {
    let token_file = config.token_file.as_deref();
    let own_args = |args: &[String]| {
        let mut args = args.to_vec();
        if let Some(path) = token_file.filter(|_| !names(&args, "--token-file")) {
            args.extend(["--token-file".into(), path.to_string_lossy().into_owned()]);
        }
        let is_cache_given = names(&args, "--cache") || std::env::var_os("RELAY_CACHE").is_some();
        if let Some(cache) = relay_cache_bytes(config).filter(|_| !is_cache_given) {
            args.extend(["--cache".into(), cache.to_string()]);
        }
        args
    };
    Ok(match &config.relay {
        RelayChoice::At(address, pin) => Relay::at(*address, *pin)?,
        RelayChoice::FindOrStart => Relay::find_or_start(&own_args(&[]))?,
        RelayChoice::Start(args) => Relay::start(&own_args(args))?,
    })
}

fn make_contents(config: &Config, relay_max: u8) -> anyhow::Result<Vec<Content>> {
    match &config.file {
        FileChoice::Generated(bytes) => {
            let log2 =
                config.chunk_size_log2.unwrap_or_else(|| chunk_size_log2_for(*bytes, relay_max));
            let content =
                |index| seal(config, Content::generate(*bytes, log2, config.seed, index)?);
            Ok((0..config.files).map(content).collect::<Result<_, _>>()?)
        }
        FileChoice::Path(path) => {
            let metadata = std::fs::metadata(path);
            let metadata =
                metadata.with_context(|| format!("could not read {}", path.display()))?;
            let log2 = config
                .chunk_size_log2
                .unwrap_or_else(|| chunk_size_log2_for(metadata.len(), relay_max));
            Ok(vec![seal(config, Content::open(path, log2)?)?])
        }
    }
}

/// Sealed, if that was asked for.
fn seal(config: &Config, content: Content) -> Result<Content, ContentError> {
    if config.sealed { content.sealed(config.seed) } else { Ok(content) }
}

fn make_job(config: &Config, contents: Vec<Content>, relay: &Relay) -> Arc<Job> {
    let plan = Plan::draw(config);
    let sizes: Vec<(u64, u32)> = contents
        .iter()
        .map(|content| content.manifest.key())
        .map(|key| (key.size_bytes, key.chunk_count()))
        .collect();
    let seedings = match config.seeding {
        SeedingMode::Spread => u32::try_from(config.files).expect("files are bounded"),
        SeedingMode::Origin => 0,
    };
    let board = Board::new(&plan, &sizes, seedings, thread::current());
    let recording = config.report.is_some().then(|| Recording {
        clients: config.clients,
        // All files are of one size.
        chunk_count: sizes[0].1,
    });
    Arc::new(Job {
        recording,
        plan,
        contents,
        remote: relay.address,
        trust: relay.trust.clone(),
        token: config.token.clone(),
        store: config.store.clone(),
        seeding: config.seeding,
        transport: config.transport,
        timeout: config.timeout,
        stay: config.stay,
        board,
    })
}

fn bytes_total(job: &Job) -> u64 {
    let size = |file: usize| job.contents[file].manifest.key().size_bytes;
    job.plan.clients.iter().filter(|c| c.role.must_succeed()).map(|c| size(c.file)).sum()
}

/// Reads back what clients wrote: (digest, path below the directory) of each whole file.
fn digest_stores(job: &Job, outcome: &Outcome, errors: &mut Vec<String>) -> Vec<(usize, String)> {
    let Store::Dir(dir) = &job.store else { return Vec::new() };
    let whole = outcome.records.iter().filter(|record| record.whole_at.is_some());
    let clients: Vec<usize> = whole.filter_map(|record| record.client).collect();
    let content = |client: usize| &job.contents[job.plan.clients[client].file];
    let paths: Vec<PathBuf> =
        clients.iter().map(|&client| client_path(dir, client, &content(client).name)).collect();
    let digests = digest_files(&paths);
    let mut lines = Vec::new();
    for ((&client, path), digest) in clients.iter().zip(&paths).zip(digests) {
        let name = &content(client).name;
        match digest {
            Ok(digest) if digest == content(client).plain => {
                let path = client_path(Path::new(""), client, name);
                lines.push((client, checksum_line(digest, &path)));
            }
            Ok(digest) => {
                errors.push(format!("{} has digest {digest}, which is wrong", path.display()));
            }
            Err(error) => {
                errors.push(format!("could not read {} back: {error}", path.display()));
            }
        }
    }
    lines
}

fn make_report(
    config: &Config,
    job: &Job,
    outcome: &Outcome,
    (relay, after): (RelayFigures, &Stats),
    loadgen: LoadgenFigures,
    errors: Vec<String>,
) -> Report {
    let key = *job.contents[0].manifest.key();
    let board = &job.board;
    let started = board.first_connect().unwrap_or_default();
    let ended = board.last_verified().unwrap_or(started);
    let wall_seconds = ended.seconds_since(started);
    let seeding_seconds = board.seeding_done_at().map_or(0.0, |at| at.seconds_since(started));
    let connected = board.last_accepted().unwrap_or(started);
    let (seconds, unlimited_seconds) = client_seconds(job, outcome);
    let goodput =
        if wall_seconds > 0.0 { board.verified_bytes() as f64 / wall_seconds } else { 0.0 };
    let same_machine = job.remote.ip().is_loopback();
    Report {
        clients: config.clients,
        clients_verified: usize::try_from(seconds.count()).unwrap_or(usize::MAX),
        clients_expected: job.plan.must_succeed(),
        files: config.files,
        file_size_bytes: key.size_bytes,
        chunk_size_bytes: key.chunk_size_bytes(),
        chunk_count: key.chunk_count(),
        transport: config.transport.to_string(),
        order: name_of(&config.order),
        seeding: name_of(&config.seeding),
        seed: config.seed,
        sealed: config.sealed,
        driver: after.driver.clone(),
        congestion: after.congestion.clone(),
        wall_seconds,
        connect_seconds: connected.seconds_since(started),
        seeding_seconds,
        exchange_seconds: (wall_seconds - seeding_seconds).max(0.0),
        goodput_bytes_per_second: goodput,
        client_seconds: ClientSeconds::from(&seconds),
        unlimited_client_seconds: ClientSeconds::from(&unlimited_seconds),
        chunk_latency_seconds: ChunkSeconds::from(&outcome.latencies),
        bound_by: bound_by(&relay, &loadgen, wall_seconds, same_machine).into(),
        relay,
        loadgen,
        errors,
    }
}

/// From connecting to having the file: of all clients, and of those without a limit of their own.
fn client_seconds(job: &Job, outcome: &Outcome) -> (Latencies, Latencies) {
    let (mut all, mut unlimited) = (Latencies::new(), Latencies::new());
    for record in &outcome.records {
        let (Some(client), Some(whole_at)) = (record.client, record.whole_at) else { continue };
        let time = whole_at.since(record.started_at);
        all.record(time);
        if job.plan.clients[client].rate.is_none() {
            unlimited.record(time);
        }
    }
    (all, unlimited)
}

/// Of all files.
fn content_bytes(job: &Job) -> u64 {
    job.contents.iter().map(|content| content.manifest.key().size_bytes).sum()
}

fn relay_figures(before: &Stats, after: &Stats, content_bytes: u64, is_own: bool) -> RelayFigures {
    let peaks_before = if is_own { &Stats::default() } else { before };
    let ingress_bytes = after.ingress_bytes.saturating_sub(before.ingress_bytes);
    RelayFigures {
        ingress_bytes,
        egress_bytes: after.egress_bytes.saturating_sub(before.egress_bytes),
        ingress_amplification: if content_bytes > 0 {
            ingress_bytes as f64 / content_bytes as f64
        } else {
            0.0
        },
        cache_hits: after.cache_hits.saturating_sub(before.cache_hits),
        cache_misses: after.cache_misses.saturating_sub(before.cache_misses),
        cache_evictions: after.cache_evictions.saturating_sub(before.cache_evictions),
        chunk_bytes_peak: after.chunk_bytes_peak,
        rss_bytes_peak: after.rss_bytes_peak,
        chunk_bytes_peak_before: peaks_before.chunk_bytes_peak,
        rss_bytes_peak_before: peaks_before.rss_bytes_peak,
        was_in_use: peaks_before.ingress_bytes > 0,
        cpu_seconds: after.cpu_us.saturating_sub(before.cpu_us) as f64 / 1e6,
        hedges: after.hedges.saturating_sub(before.hedges),
        peers_banned: after.peers_banned.saturating_sub(before.peers_banned),
        shards: after.shards,
    }
}

/// As it is written on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}

fn write_page(config: &Config, ran: &Ran) -> anyhow::Result<()> {
    let (Some(dir), Some(recorder)) = (&config.report, &ran.outcome.recorder) else {
        return Ok(());
    };
    let recorded = Recorded { report: &ran.report, recorder, samples: &ran.samples };
    report_dir::fill(dir, &recorded)?;
    say(format_args!("loadgen: the page is {}", dir.join(report_dir::PAGE).display()));
    Ok(())
}

/// Results go to stdout; with the JSON there, the prose goes to stderr.
fn write_prose(
    json: Option<&Path>,
    report: &Report,
    digests: &[(usize, String)],
) -> anyhow::Result<()> {
    let lines: String = digests.iter().map(|(_, line)| format!("{line}\n")).collect();
    if json == Some(Path::new("-")) {
        stderr::write(format_args!("{lines}{report}"));
        return Ok(());
    }
    if !has_prose_or_json(json) {
        return Ok(());
    }
    let text = format!("{lines}{report}");
    stdout::print(text.as_bytes()).context(NO_STDOUT)
}

/// Whether anything is to be written to stdout: a user who closed it and has a report in a file wants no prose.
fn has_prose_or_json(json: Option<&Path>) -> bool {
    !stdout::was_closed() || json.is_none_or(|path| path == Path::new("-"))
}

fn write_json(path: &Path, report: &Report) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return stdout::print(report.to_json().as_bytes()).context(NO_STDOUT);
    }
    let written = std::fs::write(path, report.to_json());
    written.with_context(|| format!("could not write {}", path.display()))
}

/// Of a run that could not begin: what was asked for, and why not. What only a run finds out is 0,
/// or empty.
fn failed_report(config: &Config, error: String) -> Report {
    let file_size_bytes = match &config.file {
        FileChoice::Generated(bytes) => *bytes,
        FileChoice::Path(path) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
    };
    Report {
        clients: config.clients,
        clients_expected: Plan::draw(config).must_succeed(),
        files: config.files,
        file_size_bytes,
        chunk_size_bytes: config.chunk_size_log2.map_or(0, |log2| 1 << log2),
        transport: config.transport.to_string(),
        order: name_of(&config.order),
        seeding: name_of(&config.seeding),
        seed: config.seed,
        sealed: config.sealed,
        bound_by: "neither".into(),
        errors: vec![error],
        ..Report::default()
    }
}
