//! `peer check`: whether a file is the one that a ticket names, and if not, where it differs.
//!
//! The ticket alone tells whether; where, only the list of digests, which some peer of the swarm
//! may have. It is asked for when the file is wrong, and proves itself.

use std::{
    cell::RefCell,
    io::{self, Write as _},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shards::bell::LocalBell;

use super::{
    args::CheckArgs,
    error::{ProgramError, output_error, read_token},
    event_loop,
    voice::Voice,
};
use crate::{
    peer::{
        ChunkOrder, FileState, Notice, Patience, Peer, PeerConfig, Reaction, SessionConfig,
        hashing, new_scratch,
        origin::{OpenFile, OriginFile},
        store::{ChunkStore, StoreEvent},
    },
    protocol::{Digest, Manifest, Token, limits::NONCE_BYTES},
    units::{bytes_text, count_text},
};

/// How long the relay may take to tell where the file differs.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
enum Verdict {
    Same,
    OtherSize { size_bytes: u64 },
    Differs { first: Option<(u32, u32)>, why_not: String },
}

/// Checks it: an error if the file is another one.
pub(super) fn run(args: &CheckArgs) -> Result<(), ProgramError> {
    let token = read_token(args.token_file.as_deref())?;
    let voice = Voice { quiet: args.quiet };
    let key = args.ticket.key;
    let file = OpenFile::open(&args.file).map_err(ProgramError::job)?;
    let verdict = if file.size_bytes() != key.size_bytes {
        Verdict::OtherSize { size_bytes: file.size_bytes() }
    } else {
        let what = format!("checking {}", args.file.display());
        let mut progress = voice.progress(&what, key.size_bytes);
        let origin = file.hash(key.chunk_size_log2, &mut |done| progress.set(done));
        progress.finish();
        let origin = origin.map_err(ProgramError::job)?;
        if origin.manifest().key().id == key.id {
            Verdict::Same
        } else {
            locate(args, token, &origin)
        }
    };
    report(args, voice, &verdict)
}

/// Where the file differs, if somebody can tell.
fn locate(args: &CheckArgs, token: Option<Token>, origin: &OriginFile) -> Verdict {
    let asked = ask_for_manifest(args, token);
    match asked {
        Ok(manifest) => {
            let first = hashing::first_difference(origin.manifest(), &manifest);
            Verdict::Differs { first, why_not: String::new() }
        }
        Err(why_not) => Verdict::Differs { first: None, why_not },
    }
}

/// The list of digests from whoever of the swarm has it.
fn ask_for_manifest(args: &CheckArgs, token: Option<Token>) -> Result<Arc<Manifest>, String> {
    let session = SessionConfig {
        order: ChunkOrder::Relay,
        seeding: None,
        token,
        nonce: [0; NONCE_BYTES],
        intake_bytes_per_second: None,
        keeps_bytes: false,
    };
    let patience = Patience { first: PATIENCE, later: PATIENCE };
    let remote = args.ticket.relay.clone().into();
    let config = PeerConfig { remote, session, patience, seed: 0 };
    let waiting = Rc::new(RefCell::new(None));
    let noted = Rc::clone(&waiting);
    let watch = move |_, notice: &Notice<'_>, _: &FileState| match notice {
        Notice::ManifestVerified => Reaction::Vanish,
        Notice::Waiting { .. } => {
            noted.borrow_mut().replace("nobody who is connected has the file");
            Reaction::Vanish
        }
        _ => Reaction::GoOn,
    };
    let file = FileState::lacking(args.ticket.key);
    let peer = Peer::new(config, file, Box::new(Nowhere), Box::new(watch));
    let handle = peer.handle();
    let run = async move {
        let running = peer.run(new_scratch());
        let ended = shards::clock::timeout(PATIENCE, running).await;
        handle.stop();
        ended
    };
    let ended = event_loop::run(args.driver, run).map_err(|error| error.to_string())?;
    let (result, file) = ended.ok_or("the relay took too long to tell")?;
    match (file.manifest(), waiting.take(), result) {
        (Some(manifest), _, _) => Ok(Arc::clone(manifest)),
        (None, Some(why), _) => Err(why.into()),
        (None, None, Err(error)) => Err(error.to_string()),
        (None, None, Ok(_)) => Err("the relay did not tell".into()),
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

fn report(args: &CheckArgs, voice: Voice, verdict: &Verdict) -> Result<(), ProgramError> {
    let path = args.file.display();
    let key = &args.ticket.key;
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
        writeln!(io::stdout(), "{object}").map_err(|error| output_error(&error))?;
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
        Verdict::Differs { first: Some((chunk, count)), .. } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: {count} of its {} differ, the first is chunk {chunk}, \
             from offset {} on",
            count_text(u64::from(key.chunk_count()), "chunk"),
            key.chunk_offset_bytes(*chunk),
        ))),
        Verdict::Differs { why_not, .. } => Err(ProgramError::Job(format!(
            "{path} is not the ticket's file: its content differs. Where can't be told without \
             the relay: {why_not}"
        ))),
    }
}
