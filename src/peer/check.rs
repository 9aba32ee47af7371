//! `peer check`: whether a file is the one that a ticket names, and if not, where it differs.
//!
//! The ticket alone tells whether; where, only the list of digests, which some peer of the swarm
//! may have. It is asked for when the file is wrong, and proves itself. Without a relay, or without such a
//! peer, the file differs all the same.

use std::{cell::Cell, io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use shards::{bell::LocalBell, clock, task};

use super::{
    args::CheckArgs,
    destination::Destination,
    error::{ProgramError, output_error, read_grant},
    event_loop,
    voice::Voice,
    way::Way,
};
use crate::{
    client::{
        ChunkOrder, FileState, Notice, Patience, Peer, PeerConfig, PeerHandle, Reaction,
        SessionConfig, hashing, new_scratch,
        origin::{OpenFile, OriginFile, Sealing},
        store::{ChunkStore, StoreEvent},
    },
    protocol::{Digest, Grant, Manifest, SwarmKey, Ticket, chunk_size_log2_for},
    transport::Transport,
    units::{bytes_text, count_text},
};

/// How long the relay may take to tell where the file differs.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the relay is asked which peers are there.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// When it has said so often that there is none, there is none: one may just have been connecting again.
const FOUND_NOBODY_MAX: u32 = 4;

/// What was found.
enum Verdict {
    Same,
    OtherSize { size_bytes: u64 },
    Differs { first: Option<(u32, u32)>, why_not: String },
}

/// Checks it: an error if the file is another one.
pub(super) fn run(args: &CheckArgs) -> Result<(), ProgramError> {
    if args.json {
        crate::stdout::check().map_err(|error| output_error(&error))?;
    }
    let token = read_grant(args.token_file.as_deref())?;
    let voice = Voice { quiet: args.quiet };
    let ticket = args.ticket.read()?;
    let destination = Destination::of(&ticket, args.relay.as_ref());
    let way = destination.way(args.proxy.as_ref(), Transport::Tcp)?;
    let key = ticket.key;
    let file = OpenFile::open(&args.file).map_err(ProgramError::job)?;
    let verdict = if file.size_bytes() != key.size_bytes {
        Verdict::OtherSize { size_bytes: file.size_bytes() }
    } else {
        let what = format!("checking {}", args.file.display());
        let mut progress = voice.progress(&what, key.size_bytes);
        let sealing = Sealing::Plain;
        let origin = file.hash(key.chunk_size_log2, sealing, &mut |done| progress.set(done));
        progress.finish();
        let origin = origin.map_err(ProgramError::job)?;
        if origin.plain() == ticket.plain() {
            Verdict::Same
        } else {
            let ask = || ask_for_manifest(args, &ticket, (&destination, &way), token);
            locate(&ticket, &origin, ask)
        }
    };
    report(args, &key, voice, &verdict)
}

/// Where the file differs, if a peer can tell. What it tells of a sealed file is of the ciphertext: this one is
/// sealed as the ticket says, and compared with that.
fn locate(
    ticket: &Ticket,
    origin: &OriginFile,
    ask: impl FnOnce() -> Result<Arc<Manifest>, String>,
) -> Verdict {
    let find = || {
        let manifest = ask()?;
        let sealed = ticket.sealed.as_ref();
        let own = sealed.map(|sealed| origin.manifest_as(sealed, &mut |_| {})).transpose();
        let own = own.map_err(|error| error.to_string())?;
        let own = own.as_ref().unwrap_or_else(|| origin.manifest());
        Ok(hashing::first_difference(own, &manifest))
    };
    match find() {
        Ok(first) => Verdict::Differs { first, why_not: "the list of digests is not of it".into() },
        Err(why_not) => Verdict::Differs { first: None, why_not },
    }
}

/// The list of digests from a peer that has it, or why it can't be had.
fn ask_for_manifest(
    args: &CheckArgs,
    ticket: &Ticket,
    (destination, way): (&Destination, &Way),
    token: Option<Grant>,
) -> Result<Arc<Manifest>, String> {
    if token.as_ref().is_some_and(|grant| !grant.roles.may_get()) {
        return Err(
            "the token of --token-file may only publish files, so the relay was not asked".into()
        );
    }
    if let Some(note) = &way.note {
        Voice { quiet: args.quiet }.say(note);
    }
    let belief = destination.belief(args.tls_ca.as_deref());
    let belief = belief.map_err(|error| error.to_string())?;
    let session = SessionConfig {
        order: ChunkOrder::Relay,
        seeding: None,
        token: token.map(|grant| grant.token),
        intake_bytes_per_second: None,
        upload_bytes_per_second: None,
        keeps_bytes: false,
        is_manifest_only: true,
    };
    // The answer is known without the relay: one that is not there is not waited for.
    let patience = Patience { first: Duration::ZERO, later: Duration::ZERO };
    let remote = &way.remote;
    let config = PeerConfig {
        remote: remote.clone(),
        trust: belief.trust().clone(),
        session,
        patience,
        seed: 0,
    };
    let asked = Rc::new(Asked::default());
    let file = FileState::lacking(ticket.key);
    let watch = Rc::clone(&asked);
    let watch = move |_, notice: &Notice<'_>, _: &FileState| watch.notice(notice);
    let peer = Peer::new(config, file, Box::new(Nowhere), Box::new(watch));
    let handle = peer.handle();
    let run = {
        let asked = Rc::clone(&asked);
        async move {
            let questions = ask_who_is_there(&asked, peer.handle());
            let running = task::race(peer.run(new_scratch()), questions);
            let ended = clock::timeout(PATIENCE, running).await;
            handle.stop();
            ended
        }
    };
    let ended = event_loop::run(args.driver, run).map_err(|error| error.to_string())?;
    if asked.is_accepted.get()
        && let Some(note) = belief.remember()?
    {
        Voice { quiet: args.quiet }.say(&note);
    }
    let (result, file) = match ended {
        Some(Ok((result, file))) => (Some(result), Some(file)),
        _ => (None, None),
    };
    match (file.as_ref().and_then(FileState::manifest), result) {
        (Some(manifest), _) => Ok(Arc::clone(manifest)),
        (None, Some(Err(error))) => {
            Err(belief.explain(&error).unwrap_or_else(|| error.to_string()))
        }
        (None, _) if asked.is_accepted.get() => {
            let key = &ticket.key;
            let log2 = chunk_size_log2_for(key.size_bytes, asked.recommended_log2.get());
            let other = match log2 == key.chunk_size_log2 {
                true => "",
                false => ", and a share through that relay now makes another ticket",
            };
            Err(format!("no peer that has the file of this ticket is connected to {remote}{other}"))
        }
        (None, _) => Err(format!("the relay at {remote} did not answer in time")),
    }
}

/// What is known of the relay while it is asked.
#[derive(Default)]
struct Asked {
    is_accepted: Cell<bool>,
    recommended_log2: Cell<u8>,
    /// How often it was said that there is no other peer.
    found_nobody: Cell<u32>,
}

impl Asked {
    fn notice(&self, notice: &Notice<'_>) -> Reaction {
        match notice {
            Notice::Recommended { chunk_size_log2_max } => {
                self.recommended_log2.set(*chunk_size_log2_max);
            }
            Notice::Accepted { .. } => self.is_accepted.set(true),
            Notice::Status(status) if status.peers <= 1 => {
                self.found_nobody.set(self.found_nobody.get() + 1);
            }
            Notice::Status(_) => self.found_nobody.set(0),
            _ => {}
        }
        let is_over = self.found_nobody.get() >= FOUND_NOBODY_MAX;
        match notice {
            Notice::ManifestVerified | Notice::Waiting { .. } => Reaction::Vanish,
            _ if is_over => Reaction::Vanish,
            _ => Reaction::GoOn,
        }
    }
}

/// Without another peer there is no answer to wait for.
async fn ask_who_is_there(asked: &Asked, handle: PeerHandle) {
    loop {
        clock::sleep(ASK_EVERY).await;
        if asked.is_accepted.get() {
            handle.ask_status();
        }
    }
}

/// Has nothing and keeps nothing: it only asks.
struct Nowhere;

impl ChunkStore for Nowhere {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn watch(&mut self, _: &Rc<LocalBell>) -> bool {
        false
    }

    fn put(&mut self, _: u32, _: Bytes) {}

    fn get(&mut self, _: u32, _: u32, _: Digest) -> io::Result<Option<Bytes>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        None
    }

    fn is_full(&self) -> bool {
        false
    }
}

fn report(
    args: &CheckArgs,
    key: &SwarmKey,
    voice: Voice,
    verdict: &Verdict,
) -> Result<(), ProgramError> {
    let path = args.file.display();
    if args.json {
        let first = match verdict {
            Verdict::Differs { first, .. } => *first,
            _ => None,
        };
        let object = serde_json::json!({
            "same": matches!(verdict, Verdict::Same),
            "first_different_chunk": first.map(|(chunk, _)| chunk),
            "first_different_offset_bytes": first.map(|(chunk, _)| key.chunk_offset_bytes(chunk)),
            "different_chunk_count": first.map(|(_, count)| count),
        });
        let line = format!("{object}\n");
        crate::stdout::print(line.as_bytes()).map_err(|error| output_error(&error))?;
    }
    match verdict {
        Verdict::Same => {
            voice.say(&format!("{path} is the ticket's file: {}", bytes_text(key.size_bytes)));
            Ok(())
        }
        Verdict::OtherSize { size_bytes } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: it has {size_bytes} bytes, the ticket's has {}",
            key.size_bytes
        ))),
        Verdict::Differs { first: Some((chunk, 1)), .. } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: one of its {} differs, chunk {chunk}, from offset {} on",
            count_text(u64::from(key.chunk_count()), "chunk"),
            key.chunk_offset_bytes(*chunk),
        ))),
        Verdict::Differs { first: Some((chunk, count)), .. } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: {count} of its {} differ, the first is chunk {chunk}, \
             from offset {} on",
            count_text(u64::from(key.chunk_count()), "chunk"),
            key.chunk_offset_bytes(*chunk),
        ))),
        Verdict::Differs { why_not, .. } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: its content differs. Where it differs could not be found \
             out: {why_not}"
        ))),
    }
}
