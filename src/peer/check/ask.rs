//! Asks a relay's peers for what tells where something differs: the list of digests, or the first chunks of a bundle,
//! which hold its index. Both prove themselves.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shards::{bell::LocalBell, clock, task};

use super::super::{args::CheckArgs, destination::Destination, event_loop, voice::Voice, way::Way};
use crate::{
    client::{
        ChunkOrder, FileState, Notice, Patience, Peer, PeerConfig, PeerHandle, Reaction, Remote,
        SessionConfig, new_scratch,
        store::{ChunkStore, StoreEvent},
    },
    protocol::{
        Bitfield, Digest, Grant, Manifest, Ticket,
        bundle::{Decoded, Index},
        chunk_size_log2_for,
    },
    transport::Trust,
};

/// How long the relay may take to tell where the file differs.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the chunks with an index may take: 64 MiB, over a slow line.
const INDEX_PATIENCE: Duration = Duration::from_secs(60);

/// How often the relay is asked which peers are there.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// When it has said so often that there is none, there is none: one may just have been connecting again.
const FOUND_NONE_MAX: u32 = 4;

/// How a relay is asked about a ticket.
pub(super) struct Asking<'a> {
    args: &'a CheckArgs,
    ticket: &'a Ticket,
    destination: &'a Destination,
    way: &'a Way,
    token: Option<Grant>,
    /// The user has heard how the relay is reached.
    is_noted: Cell<bool>,
}

/// What is wanted of the swarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wants {
    Manifest,
    /// So many chunks from the first on.
    Chunks(u32),
}

/// What came of a question.
struct Answer {
    file: FileState,
    chunks: BTreeMap<u32, Bytes>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        args: &'a CheckArgs,
        ticket: &'a Ticket,
        (destination, way): (&'a Destination, &'a Way),
        token: Option<Grant>,
    ) -> Self {
        Self { args, ticket, destination, way, token, is_noted: Cell::new(false) }
    }

    /// The list of digests from a peer that has it, or why it can't be had.
    pub(super) fn manifest(&self) -> Result<Arc<Manifest>, String> {
        let answer = self.ask(Wants::Manifest)?;
        Ok(Arc::clone(answer.file.manifest().expect("it was waited for")))
    }

    /// The index of the ticket's bundle, or why it can't be had.
    pub(super) fn index(&self) -> Result<Index, String> {
        let key = &self.ticket.key;
        let mut chunks = 1.min(key.chunk_count());
        loop {
            let answer = self.ask(Wants::Chunks(chunks))?;
            let mut prefix: Vec<u8> = answer.chunks.into_values().flatten().collect();
            if let Some(sealed) = &self.ticket.sealed {
                sealed.cipher(key.size_bytes).apply(0, &mut prefix);
            }
            match Index::decode(&prefix, key.size_bytes).map_err(|error| error.to_string())? {
                Decoded::Whole(index) => return Ok(index),
                Decoded::Needs { prefix_bytes } => {
                    let needed = (prefix_bytes as u64).div_ceil(u64::from(key.chunk_size_bytes()));
                    let needed = u32::try_from(needed).unwrap_or(u32::MAX).min(key.chunk_count());
                    // What it says of its own length may not keep it going.
                    if needed <= chunks {
                        return Err("the index of the ticket's directory is cut off".into());
                    }
                    chunks = needed;
                }
            }
        }
    }

    fn ask(&self, wants: Wants) -> Result<Answer, String> {
        let Self { args, ticket, destination, way, .. } = *self;
        let token = self.token.clone();
        if token.as_ref().is_some_and(|grant| !grant.roles.may_get()) {
            return Err(
                "the token of --token-file may only publish files, so the relay was not asked"
                    .into(),
            );
        }
        if let (Some(note), false) = (&way.note, self.is_noted.replace(true)) {
            Voice { quiet: args.quiet }.say(note);
        }
        let belief = destination.belief(args.tls_ca.as_deref());
        let belief = belief.map_err(|error| error.to_string())?;
        let config = config(&way.remote, belief.trust(), token, wants);
        let asked = Rc::new(Asked::about(wants));
        let (file, patience) = wanted(ticket, wants);
        let watch = Rc::clone(&asked);
        let watch = move |_, notice: &Notice<'_>, file: &FileState| watch.notice(notice, file);
        let wanted = match wants {
            Wants::Manifest => 0,
            Wants::Chunks(count) => count,
        };
        let store = Kept { wanted, ..Kept::default() };
        let kept = Rc::clone(&store.chunks);
        let peer = Peer::new(config, file, Box::new(store), Box::new(watch));
        let handle = peer.handle();
        let run = {
            let asked = Rc::clone(&asked);
            async move {
                let questions = ask_who_is_there(&asked, peer.handle());
                let running = task::race(peer.run(new_scratch()), questions);
                let ended = clock::timeout(patience, running).await;
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
        let is_answered = |file: &FileState| match wants {
            Wants::Manifest => file.manifest().is_some(),
            Wants::Chunks(_) => file.is_complete(),
        };
        match (file.filter(is_answered), result) {
            (Some(file), _) => Ok(Answer { file, chunks: kept.take() }),
            (None, Some(Err(error))) => {
                Err(belief.explain(&error).unwrap_or_else(|| error.to_string()))
            }
            (None, _) => Err(self.why_not(&asked)),
        }
    }

    /// Why there is no answer, though nothing went wrong.
    fn why_not(&self, asked: &Asked) -> String {
        let (key, remote) = (&self.ticket.key, &self.way.remote);
        if !asked.is_accepted.get() {
            return format!("the relay at {remote} did not answer in time");
        }
        let log2 = chunk_size_log2_for(key.size_bytes, asked.recommended_log2.get());
        let other = match log2 == key.chunk_size_log2 {
            true => "",
            false => ", and a share through that relay now makes another ticket",
        };
        format!("no peer that has the file of this ticket is connected to {remote}{other}")
    }
}

/// How a peer asks for this.
fn config(remote: &Remote, trust: &Trust, token: Option<Grant>, wants: Wants) -> PeerConfig {
    let is_manifest_only = wants == Wants::Manifest;
    let session = SessionConfig {
        // The chunks with an index, and no others.
        order: if is_manifest_only { ChunkOrder::Relay } else { ChunkOrder::Sequential },
        seeding: None,
        token: token.map(|grant| grant.token),
        intake_bytes_per_second: None,
        upload_bytes_per_second: None,
        keeps_bytes: !is_manifest_only,
        is_manifest_only,
    };
    // The answer is known without the relay: one that is not there is not waited for.
    let patience = Patience { first: Duration::ZERO, later: Duration::ZERO };
    PeerConfig { remote: remote.clone(), trust: trust.clone(), session, patience, seed: 0 }
}

/// What is to be got for this, and how long that may take.
fn wanted(ticket: &Ticket, wants: Wants) -> (FileState, Duration) {
    let file = FileState::lacking(ticket.key);
    let Wants::Chunks(count) = wants else { return (file, PATIENCE) };
    let mut goal = Bitfield::empty(ticket.key.chunk_count());
    for chunk in 0..count {
        goal.insert(chunk);
    }
    (file.with_goal(goal), INDEX_PATIENCE)
}

/// What is known of the relay while it is asked.
struct Asked {
    wants: Wants,
    is_accepted: Cell<bool>,
    recommended_log2: Cell<u8>,
    /// How often it was said that there is no other peer.
    found_none: Cell<u32>,
}

impl Asked {
    fn about(wants: Wants) -> Self {
        let (is_accepted, recommended_log2) = (Cell::default(), Cell::default());
        Self { wants, is_accepted, recommended_log2, found_none: Cell::default() }
    }

    fn notice(&self, notice: &Notice<'_>, file: &FileState) -> Reaction {
        match notice {
            Notice::Recommended { chunk_size_log2_max } => {
                self.recommended_log2.set(*chunk_size_log2_max);
            }
            Notice::Accepted { .. } => self.is_accepted.set(true),
            Notice::Status(status) if status.peers <= 1 => {
                self.found_none.set(self.found_none.get() + 1);
            }
            Notice::Status(_) => self.found_none.set(0),
            _ => {}
        }
        let is_over = self.found_none.get() >= FOUND_NONE_MAX;
        match notice {
            Notice::ManifestVerified if self.wants == Wants::Manifest => Reaction::Vanish,
            Notice::Verified { .. } if file.is_complete() => Reaction::Vanish,
            Notice::Waiting { .. } => Reaction::Vanish,
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

/// Keeps what was asked for in memory, and has nothing for others: an index is not large.
#[derive(Default)]
struct Kept {
    /// So many chunks from the first on were asked for: no relay can have more kept.
    wanted: u32,
    chunks: Rc<RefCell<BTreeMap<u32, Bytes>>>,
    /// What was kept and is to be told.
    told: VecDeque<u32>,
    bell: Option<Rc<LocalBell>>,
}

impl ChunkStore for Kept {
    fn keeps_bytes(&self) -> bool {
        true
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.bell = Some(Rc::clone(bell));
        true
    }

    fn put(&mut self, chunk: u32, bytes: Bytes) {
        if chunk < self.wanted {
            self.chunks.borrow_mut().insert(chunk, bytes);
        }
        self.told.push_back(chunk);
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    fn get(&mut self, _: u32, chunk: u32, _: Digest) -> io::Result<Option<Bytes>> {
        let kept = self.chunks.borrow().get(&chunk).cloned();
        kept.map(Some).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        let chunk = self.told.pop_front()?;
        Some(StoreEvent::Kept { chunk, result: Ok(()) })
    }

    fn is_full(&self) -> bool {
        false
    }
}
