//! `peer share`: digests a file, prints its ticket when the relay has accepted, and serves it until
//! the user or a condition ends it.
//!
//! A disk thread reads the file. What is to be shared is in `wish`; what is said to the user and when it
//! ends in `watch`.

mod screen;
mod tally;
mod watch;
mod wish;

use std::{cell::RefCell, num::NonZeroU64, rc::Rc, sync::Arc, time::Duration};

use shards::clock;

use super::{
    args::ShareArgs,
    belief::Belief,
    error::{ProgramError, no_thread, read_token},
    event_loop::{self, Interrupt},
    probe::probe,
    voice::Voice,
    way::Way,
};
use crate::{
    client::{
        ChunkOrder, ConnectionError, Disk, Ended, FileState, Notice, Patience, Peer, PeerConfig,
        PeerHandle, Remote, SessionConfig, new_scratch,
        origin::{OpenFile, OriginFile},
    },
    protocol::{Roles, Seeding, Token},
    time::Time,
    transport::Trust,
    units::bytes_text,
};
use watch::{Sharing, Verdict};
use wish::Wish;

/// The first connection is tried for so long.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// Without `--timeout` a lost relay is waited for this long: for ever, as people see it.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How often signals and time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Every so many ticks the relay is asked how far the swarm is, and the file is looked at.
const TICKS_PER_QUESTION: u32 = 10;

/// Shares until it ends.
pub(super) fn run(args: &ShareArgs) -> Result<(), ProgramError> {
    let voice = Voice { quiet: args.common.quiet };
    crate::stdout::check().map_err(|error| {
        ProgramError::Job(format!("failed to write to stdout, where the ticket goes: {error}"))
    })?;
    let token = read_token(args.common.token_file.as_deref(), Roles::PUBLISH)?;
    let wish = Wish::of(args)?;
    let sealing = wish.sealing();
    let file = OpenFile::open(&args.file).map_err(ProgramError::job)?;
    wish.check_size(&file)?;
    let (proxy, relay) = (args.common.proxy.as_ref(), wish.relay().clone());
    let Way { remote, note } = Way::to(&[relay], proxy, args.common.transport)?;
    note.iter().for_each(|note| voice.say(note));
    let belief = wish.belief()?;
    let chunk_size_log2_max = ask_relay(args, voice, &remote, &belief, token.clone())?;
    if let Some(note) = belief.remember().map_err(ProgramError::Job)? {
        voice.say(&note);
    }
    let chunk_size_log2 = wish.chunk_size_log2(&file, chunk_size_log2_max)?;
    let what = match sealing.passes() {
        1 => format!("hashing {}", args.file.display()),
        passes => format!("hashing and sealing {}, {passes} passes", args.file.display()),
    };
    let mut progress = voice.progress(&what, file.size_bytes() * sealing.passes());
    let origin = file.hash(chunk_size_log2, sealing, &mut |done| progress.set(done));
    progress.finish();
    let origin = origin.map_err(ProgramError::job)?;
    let pin = belief.pin().expect("the relay has proved itself");
    let (ticket, notes) = wish.ticket(&origin, pin)?;
    voice.say(&format!(
        "sharing {} ({}) through {remote}",
        args.file.display(),
        bytes_text(ticket.key.size_bytes)
    ));
    notes.iter().for_each(|note| voice.say(note));
    let interrupt = Interrupt::watch()?;
    let sharing = Rc::new(RefCell::new(Sharing::new(args, ticket)));
    let serving = serve(args.clone(), (remote, belief), token, origin, sharing, interrupt);
    event_loop::run(args.common.driver, serving)?
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
    origin: &OriginFile,
    disk: &Disk,
    (remote, trust): (Remote, Trust),
    (token, rate): (Option<Token>, Option<NonZeroU64>),
    later: Duration,
    sharing: &Rc<RefCell<Sharing>>,
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
    let sharing = Rc::clone(sharing);
    let watch = move |now: Time, notice: &Notice<'_>, _: &FileState| {
        sharing.borrow_mut().notice(now, notice)
    };
    let file = FileState::whole(Arc::clone(origin.manifest()));
    Peer::new(config, file, Box::new(origin.store(disk)), Box::new(watch))
}

async fn serve(
    args: ShareArgs,
    (remote, belief): (Remote, Belief),
    token: Option<Token>,
    origin: OriginFile,
    sharing: Rc<RefCell<Sharing>>,
    interrupt: Interrupt,
) -> Result<(), ProgramError> {
    let disk = Disk::start()
        .map_err(|error| ProgramError::Job(no_thread("that reads the file", &error)))?;
    let later = args.timeout.unwrap_or(FOREVER);
    let relay = (remote, belief.trust().clone());
    let terms = (token, args.common.rate());
    let peer = peer_of(&origin, &disk, relay, terms, later, &sharing);
    let peer = peer.with_transport(args.common.transport).with_label(args.label);
    let handle = peer.handle();
    let watching = tick(Rc::clone(&sharing), origin, handle, interrupt);
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
    origin: OriginFile,
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
        let change = if asks { origin.change() } else { None };
        let mut state = sharing.borrow_mut();
        if state.has_ended() {
            return;
        }
        if interrupt.came() {
            state.interrupt();
        }
        state.handle_change(change.as_ref());
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
