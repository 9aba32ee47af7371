//! `peer share`: digests a file or a tree, prints its ticket when the relay has accepted, and serves it until
//! the user or a condition ends it.
//!
//! A disk thread reads it, another one looks whether it has changed. What is to be shared is in `wish`; what is said to the user and when it
//! ends in `watch`.

mod screen;
mod tally;
mod watch;
mod wish;

use std::{cell::RefCell, io::IsTerminal as _, num::NonZeroU64, rc::Rc, sync::Arc, time::Duration};

use shards::clock;

use super::{
    args::ShareArgs,
    belief::Belief,
    error::{ProgramError, no_thread, read_token},
    event_loop::{self, Interrupt, ignore_file_size_signal},
    probe::probe,
    voice::Voice,
    way::Way,
};
use crate::{
    client::{
        ChunkOrder, ConnectionError, Disk, Ended, FileState, HashCache, Lookout, Notice, Origin,
        Patience, Peer, PeerConfig, PeerHandle, Remote, SessionConfig, new_scratch,
        origin::{HashJob, Source},
        spool::Spool,
    },
    places,
    protocol::{Roles, Seeding, Token, rate::Rate},
    time::Time,
    transport::Trust,
    units::{bytes_text, grouped_text, rate_text},
};
use watch::{Sharing, Verdict};
use wish::Wish;

/// The first connection is tried for so long.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// Without `--timeout` a lost relay is waited for this long: for ever, as people see it.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// So long a get waits for a chunk without a `--timeout` of its own.
const GET_WAITS: Duration = Duration::from_secs(60);

/// How often signals and time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Every so many ticks the relay is asked how far the swarm is, and what is shared is looked at.
const TICKS_PER_QUESTION: u32 = 10;

/// Shares until it ends.
pub(super) fn run(args: &ShareArgs) -> Result<(), ProgramError> {
    let voice = Voice { quiet: args.common.quiet };
    crate::stdout::check().map_err(|error| {
        ProgramError::Job(format!("failed to write to stdout, where the ticket goes: {error}"))
    })?;
    let token = read_token(args.common.token_file.as_deref(), Roles::PUBLISH)?;
    let wish = Wish::of(args)?;
    let found = if args.is_of_stdin() { None } else { Some(open(args, voice, &wish)?) };
    let (proxy, relay) = (args.common.proxy.as_ref(), wish.relay().clone());
    let Way { remote, note } = Way::to(&[relay], proxy, args.common.transport)?;
    note.iter().for_each(|note| voice.say(note));
    let belief = wish.belief()?;
    let chunk_size_log2_max = ask_relay(args, voice, &remote, &belief, token.clone())?;
    if let Some(note) = belief.remember().map_err(ProgramError::Job)? {
        voice.say(&note);
    }
    // A pipe may take its time: the relay was asked before.
    let source = found.map_or_else(|| spool(args, voice, &wish), Ok)?;
    let chunk_size_log2 = wish.chunk_size_log2(&source, chunk_size_log2_max)?;
    let job =
        HashJob { rehashes: args.reading.rehash, ..HashJob::new(chunk_size_log2, wish.sealing()) };
    let origin = hash(voice, source, job)?;
    let pin = belief.pin().expect("the relay has proved itself");
    let (ticket, notes) = wish.ticket(&origin, pin)?;
    voice.say(&format!("sharing {} ({}) through {remote}", origin.shown(), size_text(&origin)));
    notes.iter().for_each(|note| voice.say(note));
    slow_rate(args.common.rate(), &origin).iter().for_each(|note| voice.say(note));
    let interrupt = Interrupt::watch()?;
    let origin = Arc::new(origin);
    let sharing = Rc::new(RefCell::new(Sharing::new(args, ticket, Arc::clone(&origin))));
    let serving = serve(args.clone(), (remote, belief), token, origin, sharing, interrupt);
    event_loop::run(args.common.driver, serving)?
}

/// Finds what is to be shared.
fn open(args: &ShareArgs, voice: Voice, wish: &Wish<'_>) -> Result<Source, ProgramError> {
    let mut search = voice.search("looking for what is to be shared");
    let source = Source::open(&args.paths, wish.looking(), &mut |entries| search.set(entries));
    search.finish();
    let source = source.map_err(ProgramError::job)?;
    source.skipped().iter().for_each(|skipped| voice.say(skipped));
    wish.check(&source)?;
    Ok(source)
}

/// Takes what comes from stdin.
fn spool(args: &ShareArgs, voice: Voice, wish: &Wish<'_>) -> Result<Source, ProgramError> {
    if std::io::stdin().is_terminal() {
        let text = "- is stdin, and that is a terminal: have another program write into it, as in pg_dump shop | peer \
                    share - --name shop.sql";
        return Err(ProgramError::Usage(text.into()));
    }
    ignore_file_size_signal()?;
    let mut search = voice.search("reading stdin");
    let (directory, most) = (std::env::temp_dir(), args.reading.spool_max);
    let spool = Spool::fill(std::io::stdin().lock(), &directory, most, &mut |bytes| {
        search.show(&bytes_text(bytes));
    });
    search.finish();
    let source = Source::spooled(spool.map_err(ProgramError::job)?);
    wish.check(&source)?;
    if args.naming.name.is_none() {
        voice.say("the ticket calls it stdin: --name gives it another name");
    }
    Ok(source)
}

/// Hashes it, unless it is unchanged since that was done.
fn hash(voice: Voice, source: Source, job: HashJob<'_>) -> Result<Origin, ProgramError> {
    let passes = job.sealing.passes();
    let what = match passes {
        1 => format!("hashing {}", source.shown()),
        passes => format!("hashing and sealing {}, {passes} passes", source.shown()),
    };
    let mut progress = match source.index() {
        Some(index) => voice.progress_of(&what, index, passes),
        None => voice.progress(&what, source.size_bytes() * passes),
    };
    let cache = places::cache_directory().map(HashCache::at);
    let job = HashJob { cache: cache.as_ref(), ..job };
    let origin = source.hash(&job, &mut |done| progress.set(done));
    progress.finish();
    let origin = origin.map_err(ProgramError::job)?;
    if origin.is_remembered() {
        voice.say(&format!(
            "{} was hashed before, and is unchanged by its times and sizes: it was not read again (--rehash does)",
            origin.shown()
        ));
    }
    if let (Some(error), Some(cache)) = (origin.memory_fault(), &cache) {
        voice.say(&format!(
            "its hashes can't be remembered in {}: {error}: the next share of it reads it again",
            cache.directory().display()
        ));
    }
    Ok(origin)
}

/// A rate at which gets give up before they have a chunk: a warning.
fn slow_rate(rate: Option<NonZeroU64>, origin: &Origin) -> Option<String> {
    let chunk_bytes = origin.manifest().key().chunk_len_bytes(0).into();
    let rate = rate.and_then(|rate| Rate::new(rate.get()))?;
    (rate.time_for(chunk_bytes) > GET_WAITS).then(|| {
        format!(
            "warning: at --limit-rate {} a chunk of {} takes more than {} s, and a get gives up after so long without \
             one: raise the rate, share with a smaller --chunk, or have gets use a longer --timeout",
            rate_text(rate.bytes_per_second()),
            bytes_text(chunk_bytes),
            GET_WAITS.as_secs()
        )
    })
}

/// How much there is, for people.
fn size_text(origin: &Origin) -> String {
    let size = bytes_text(origin.manifest().key().size_bytes);
    match origin.index() {
        Some(index) => format!("{}, {size}", files_text(index.counts().files)),
        None => size,
    }
}

fn files_text(files: usize) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{} {noun}", grouped_text(files as u64))
}

/// Whether the relay takes us, and the largest chunk that it recommends.
fn ask_relay(
    args: &ShareArgs,
    voice: Voice,
    remote: &Remote,
    belief: &Belief,
    token: Option<Token>,
) -> Result<u8, ProgramError> {
    let (remote, trust) = (remote.clone(), belief.trust().clone());
    let asking = async move {
        let waits = |error: &ConnectionError| voice.say(&format!("{error}; trying again for 10 s"));
        probe(&remote, &trust, token.as_ref(), FIRST_PATIENCE, waits).await
    };
    let asked = event_loop::run(args.common.driver, asking)?;
    asked.map_err(|error| ProgramError::Job(watch::advise(&error, belief)))
}

/// A peer that has everything, and what it may be told.
fn peer_of(
    origin: &Origin,
    disk: &Disk,
    (remote, trust): (Remote, Trust),
    (token, rate): (Option<Token>, Option<NonZeroU64>),
    later: Duration,
    (sharing, lookout): (&Rc<RefCell<Sharing>>, &Rc<Lookout>),
) -> Peer {
    let session = SessionConfig {
        order: ChunkOrder::Relay,
        seeding: Some(Seeding::Origin),
        token,
        intake_bytes_per_second: None,
        upload_bytes_per_second: rate,
        keeps_bytes: false,
        is_manifest_only: false,
    };
    let seed = u64::from(std::process::id());
    let patience = Patience { first: FIRST_PATIENCE, later };
    let config = PeerConfig { remote, trust, session, patience, seed };
    let (sharing, lookout) = (Rc::clone(sharing), Rc::clone(lookout));
    let watch = move |now: Time, notice: &Notice<'_>, _: &FileState| {
        if let Notice::Unreadable { chunk, error } = notice
            && let Some(origin) = sharing.borrow_mut().suspect(error)
        {
            // The next tick ends the share, if that is what follows.
            let (chunk, text, told) = (*chunk, error.to_string(), Rc::clone(&sharing));
            let told = move |blame| told.borrow_mut().handle_unreadable(chunk, &text, &blame);
            lookout.explain(&origin, (chunk, error.kind()), told);
        }
        sharing.borrow_mut().notice(now, notice)
    };
    let file = FileState::whole(Arc::clone(origin.manifest()));
    Peer::new(config, file, Box::new(origin.store(disk)), Box::new(watch))
}

async fn serve(
    args: ShareArgs,
    (remote, belief): (Remote, Belief),
    token: Option<Token>,
    origin: Arc<Origin>,
    sharing: Rc<RefCell<Sharing>>,
    interrupt: Interrupt,
) -> Result<(), ProgramError> {
    let disk = Disk::start()
        .map_err(|error| ProgramError::Job(no_thread("that reads the file", &error)))?;
    let lookout = Lookout::start()
        .map_err(|error| ProgramError::Job(no_thread("that looks whether it changes", &error)))?;
    let lookout = Rc::new(lookout);
    let later = args.timeout.unwrap_or(FOREVER);
    let relay = (remote, belief.trust().clone());
    let terms = (token, args.common.rate());
    let peer = peer_of(&origin, &disk, relay, terms, later, (&sharing, &lookout));
    let peer = peer.with_transport(args.common.transport).with_label(args.naming.label);
    let handle = peer.handle();
    let watching = tick(Rc::clone(&sharing), (origin, lookout), handle, interrupt);
    shards::task::spawn(watching);
    let (result, _) = peer.run(new_scratch()).await;
    let mut sharing = sharing.borrow_mut();
    let result = match (sharing.verdict(), result) {
        (Some(_), _) | (None, Ok(Ended::Stopped)) => Ok("interrupted"),
        (None, Ok(Ended::Left)) => Ok("done"),
        (None, Err(error)) => Err(watch::advise(&error, &belief)),
    };
    sharing.end(Time::from_start(clock::now()), result)
}

/// What must be done though nothing happens.
async fn tick(
    sharing: Rc<RefCell<Sharing>>,
    (origin, lookout): (Arc<Origin>, Rc<Lookout>),
    handle: PeerHandle,
    interrupt: Interrupt,
) {
    let mut ticks = 0u32;
    let mut is_summing_up = false;
    loop {
        clock::sleep(TICK).await;
        if interrupt.came() && !std::mem::replace(&mut is_summing_up, true) {
            // So that the last words tell of what has just happened. The answer has a tick.
            handle.ask_status();
            continue;
        }
        ticks = ticks.wrapping_add(1);
        let asks = ticks.is_multiple_of(TICKS_PER_QUESTION);
        if asks && lookout.is_idle() {
            let sharing = Rc::clone(&sharing);
            lookout.look(&origin, move |change| sharing.borrow_mut().handle_change(&change));
        }
        let mut state = sharing.borrow_mut();
        if state.has_ended() {
            return;
        }
        if interrupt.came() {
            state.interrupt();
        }
        state.handle_time(Time::from_start(clock::now()));
        let verdict = state.verdict();
        let (stops, is_changed) = (verdict.is_some(), matches!(verdict, Some(Verdict::Changed(_))));
        drop(state);
        // The observer is told of what follows from these: the state must be free.
        if is_changed {
            handle.give_up();
        } else if stops {
            handle.stop();
        } else if asks {
            handle.ask_status();
        }
    }
}
