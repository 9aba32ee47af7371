//! What the clients and origins of a run share, and what is noted of each.
//!
//! Runs none of them: see [`crate::client`].

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use relay::{
    client::{ConnectionError, Disk, Ended, FileState, PeerHandle, Scratch},
    protocol::Token,
    time::Time,
    transport::{Transport, Trust},
};
use shards::Shard;

use crate::{
    args::{SeedingMode, Store},
    board::Board,
    content::Content,
    latency::Latencies,
    plan::Plan,
    recorder::{Recorder, Recording},
};

/// What all shards need to know.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) contents: Vec<Content>,
    pub(crate) remote: SocketAddr,
    pub(crate) trust: Trust,
    pub(crate) token: Option<Token>,
    pub(crate) store: Store,
    pub(crate) seeding: SeedingMode,
    pub(crate) transport: Transport,
    pub(crate) timeout: Duration,
    pub(crate) stay: Duration,
    pub(crate) board: Board,
    /// How the run is recorded, if there is to be a page of it.
    pub(crate) recording: Option<Recording>,
}

/// What the members of one shard share.
pub(crate) struct Local {
    pub(crate) job: Arc<Job>,
    pub(crate) scratch: Scratch,
    /// Reads and writes for all members of the shard.
    pub(crate) disk: Disk,
    pub(crate) latencies: RefCell<Latencies>,
    /// Only of a run with a page to look at.
    pub(crate) recorder: Option<RefCell<Recorder>>,
    /// Members that have begun to connect and were not accepted yet.
    pub(crate) connecting: Cell<usize>,
    /// Members that have not ended.
    pub(crate) running: Cell<usize>,
    /// Clients that lack something and are to get it. What they do for others afterwards, and origins, don't
    /// count: receiving and hashing is nearly all of the work.
    pub(crate) busy: Cell<usize>,
    /// Once there is none, others may have the core.
    pub(crate) shard: Shard<(), ()>,
    pub(crate) stopping: Cell<bool>,
}

impl Local {
    /// A chunk went from here to the relay.
    pub(crate) fn served(&self, now: Time, is_origin: bool, chunk: u32, file: &FileState) {
        if let Some(recorder) = &self.recorder {
            let bytes = file.key().chunk_len_bytes(chunk);
            recorder.borrow_mut().served(self.since_start(now), is_origin, bytes);
        }
    }

    /// The time since the first connection was begun.
    pub(crate) fn since_start(&self, now: Time) -> Duration {
        now.since(self.job.board.first_connect().unwrap_or(now))
    }
}

/// How a member stands with the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Contact {
    /// It waits for its time, or for its next attempt, or has ended.
    #[default]
    None,
    /// It has begun to connect: it counts in [`Local::connecting`].
    Connecting,
    /// The relay has no room for it: it counts in [`Board::refused_count`].
    Refused,
    Accepted,
}

/// What became of a client or an origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// As people call it.
    pub(crate) name: String,
    /// Index of a client; none for an origin.
    pub(crate) client: Option<usize>,
    pub(crate) started_at: Time,
    /// When it had the whole file, verified.
    pub(crate) whole_at: Option<Time>,
    contact: Contact,
    pub(crate) was_accepted: bool,
    /// Whether it counts in [`Local::busy`].
    is_busy: bool,
    pub(crate) chunk_count: u32,
    pub(crate) chunks_have: u32,
    pub(crate) first_missing: Option<u32>,
    /// Number and first of the chunks that no peer holds, as the relay said last, and when.
    pub(crate) unheld: Option<(u32, u32, Time)>,
    /// What ended it before its time, or its last connection.
    pub(crate) error: Option<String>,
    /// Whether `error` ended it.
    pub(crate) has_failed: bool,
}

impl Record {
    /// Of a client with this index, or an origin, that starts now. A client that is to get something is busy.
    pub(crate) fn new(name: String, client: Option<usize>, is_busy: bool) -> Self {
        Self { name, client, is_busy, ..Self::default() }
    }

    /// Of something that could not even begin.
    pub(crate) fn of_failure(name: String, error: String) -> Self {
        Self { name, error: Some(error), has_failed: true, ..Self::default() }
    }

    /// It begins to connect, as one of few at a time.
    pub(crate) fn connecting(&mut self, local: &Local) {
        local.connecting.set(local.connecting.get() + 1);
        self.contact = Contact::Connecting;
    }

    /// The relay has taken it in.
    pub(crate) fn accepted(&mut self, local: &Local) {
        self.was_accepted = true;
        self.leave_contact(local, Contact::Accepted);
    }

    /// It has no connection, perhaps because the relay has no room, as it says.
    pub(crate) fn disconnected(&mut self, local: &Local, no_room: Option<&str>) {
        let contact = no_room.map_or(Contact::None, |_| Contact::Refused);
        let before = self.leave_contact(local, contact);
        if let Some(why) = no_room.filter(|_| before != Contact::Refused) {
            local.job.board.refused(why);
        }
    }

    fn leave_contact(&mut self, local: &Local, next: Contact) -> Contact {
        let before = std::mem::replace(&mut self.contact, next);
        match before {
            Contact::Connecting => local.connecting.set(local.connecting.get() - 1),
            Contact::Refused if next != Contact::Refused => local.job.board.no_longer_refused(),
            _ => {}
        }
        before
    }

    /// It has all that it came for, or will never get it.
    pub(crate) fn settled(&mut self, local: &Local) {
        if std::mem::take(&mut self.is_busy) {
            local.busy.set(local.busy.get() - 1);
            // What is stopped ends everywhere at once.
            if local.busy.get() == 0 && !local.stopping.get() {
                local.shard.lend_core();
            }
        }
    }

    /// It has ended, and counts nowhere any more.
    pub(crate) fn ended(&mut self, local: &Local) {
        self.disconnected(local, None);
        self.settled(local);
    }

    /// What its peer has come to.
    pub(crate) fn finish(&mut self, result: &Result<Ended, ConnectionError>, file: &FileState) {
        self.chunks_have = file.have().count();
        self.first_missing = file.have().iter_missing().next();
        if let Err(error) = result {
            self.error = Some(error.to_string());
            self.has_failed = true;
        }
    }
}

/// A client or origin of this shard, while it runs.
pub(crate) struct Member {
    pub(crate) record: Rc<RefCell<Record>>,
    pub(crate) handle: PeerHandle,
}
