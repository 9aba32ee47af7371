//! What shards tell the main thread while a run goes on: counters and moments, lock-free.
//!
//! Carries no results; those come once, at the end, from [`crate::fleet`].

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::Thread,
};

use relay::{client::FileState, time::Time};

use crate::plan::{ClientPlan, Plan, Role};

/// Shared by all shards and the main thread. All counters are cumulative.
#[derive(Debug)]
pub(crate) struct Board {
    main: Thread,
    /// Bytes that clients verified.
    verified_bytes: AtomicU64,
    /// Those of plain clients, and what they will be in the end.
    plain_bytes: AtomicU64,
    plain_bytes_total: u64,
    /// Clients that have the whole file.
    whole: AtomicU32,
    /// Clients that must succeed and have the whole file, or never will.
    settled: AtomicU32,
    must_settle: u32,
    aborted: AtomicBool,
    /// Clients that were started, on whatever shard.
    started: AtomicU32,
    first_connect: AtomicU64,
    last_accepted: AtomicU64,
    last_verified: AtomicU64,
    seeding_done: AtomicU64,
    seedings_left: AtomicU32,
    /// Clients and origins that the relay has no room for, since their last attempt.
    refused: AtomicU32,
    refusal: OnceLock<String>,
    /// For each file and chunk, how many well-behaved clients have it and will stay; empty
    /// unless some are to vanish.
    holders: Vec<Vec<AtomicU32>>,
}

impl Board {
    /// One more client was started.
    pub(crate) fn count_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that were started so far.
    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed) as usize
    }

    /// For the plan; `sizes` are (bytes, chunks) of its files, `main` is woken at the end.
    pub(crate) fn new(plan: &Plan, sizes: &[(u64, u32)], seedings: u32, main: Thread) -> Self {
        let plain = plan.clients.iter().filter(|client| client.role == Role::Plain);
        let vanish = plan.clients.iter().any(|c| matches!(c.role, Role::Vanishes(_)));
        let counters = |&(_, chunks): &(u64, u32)| (0..chunks).map(|_| AtomicU32::new(0)).collect();
        Self {
            main,
            verified_bytes: AtomicU64::new(0),
            plain_bytes: AtomicU64::new(0),
            plain_bytes_total: plain.map(|client| sizes[client.file].0).sum(),
            whole: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            must_settle: u32::try_from(plan.must_succeed()).expect("clients are bounded"),
            aborted: AtomicBool::new(false),
            started: AtomicU32::new(0),
            first_connect: AtomicU64::new(u64::MAX),
            last_accepted: AtomicU64::new(0),
            last_verified: AtomicU64::new(0),
            seeding_done: AtomicU64::new(0),
            seedings_left: AtomicU32::new(seedings),
            refused: AtomicU32::new(0),
            refusal: OnceLock::new(),
            holders: if vanish { sizes.iter().map(counters).collect() } else { Vec::new() },
        }
    }

    /// A client or origin begins to connect.
    pub(crate) fn connecting(&self, now: Time) {
        self.first_connect.fetch_min(now.0, Ordering::Relaxed);
    }

    /// The relay took a client in that joins at the start, for the first time.
    pub(crate) fn accepted(&self, now: Time) {
        self.last_accepted.fetch_max(now.0, Ordering::Relaxed);
    }

    /// The relay has no room for one more client or origin, and says why.
    pub(crate) fn refused(&self, why: &str) {
        self.refusal.get_or_init(|| why.to_owned());
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What the relay said first.
    pub(crate) fn refusal(&self) -> &str {
        self.refusal.get().map_or("", String::as_str)
    }

    /// One of those is in, or has ended.
    pub(crate) fn no_longer_refused(&self) {
        self.refused.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how many the relay has no room.
    pub(crate) fn refused_count(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A client verified a chunk of so many bytes.
    pub(crate) fn verified(&self, client: &ClientPlan, chunk: u32, bytes: u64) {
        self.verified_bytes.fetch_add(bytes, Ordering::Relaxed);
        if client.role == Role::Plain {
            self.plain_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(holders) = self.holders.get(client.file) {
            holders[chunk as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client has its whole file.
    pub(crate) fn whole(&self, now: Time) {
        self.last_verified.fetch_max(now.0, Ordering::Relaxed);
        self.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// A client that must succeed has, or never will.
    pub(crate) fn settled(&self) {
        if self.settled.fetch_add(1, Ordering::AcqRel) + 1 >= self.must_settle {
            self.main.unpark();
        }
    }

    /// An origin failed: there is nothing to wait for.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.main.unpark();
    }

    /// Whether an origin failed.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// The origin of one file may go: others hold all of it.
    pub(crate) fn seeding_done(&self, now: Time) {
        self.seeding_done.fetch_max(now.0, Ordering::Relaxed);
        self.seedings_left.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes this client's chunks off the books if each exists elsewhere too; whether it may go.
    /// Two clients can't both rely on each other: a count that falls below one is put back.
    pub(crate) fn may_vanish(&self, client: &ClientPlan, file: &FileState) -> bool {
        let Some(holders) = self.holders.get(client.file) else { return true };
        let mut taken = Vec::with_capacity(file.have().count() as usize);
        for chunk in file.have().iter() {
            taken.push(chunk);
            if holders[chunk as usize].fetch_sub(1, Ordering::AcqRel) < 2 {
                taken.iter().for_each(|&chunk| {
                    holders[chunk as usize].fetch_add(1, Ordering::AcqRel);
                });
                return false;
            }
        }
        true
    }

    /// Share of the plain clients' work that is done.
    pub(crate) fn plain_share(&self) -> f64 {
        if self.plain_bytes_total == 0 {
            return 1.0;
        }
        self.plain_bytes.load(Ordering::Relaxed) as f64 / self.plain_bytes_total as f64
    }

    /// Whether nothing more is to be waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) >= self.must_settle
    }

    /// Bytes that clients verified so far.
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.verified_bytes.load(Ordering::Relaxed)
    }

    /// Clients that have their whole file.
    pub(crate) fn whole_count(&self) -> u32 {
        self.whole.load(Ordering::Relaxed)
    }

    /// Whether some file is still being spread.
    pub(crate) fn is_seeding(&self) -> bool {
        self.seedings_left.load(Ordering::Relaxed) > 0
    }

    /// When the first connection was begun.
    pub(crate) fn first_connect(&self) -> Option<Time> {
        Some(self.first_connect.load(Ordering::Relaxed)).filter(|&t| t != u64::MAX).map(Time)
    }

    /// When the last client was in that joins at the start.
    pub(crate) fn last_accepted(&self) -> Option<Time> {
        Some(self.last_accepted.load(Ordering::Relaxed)).filter(|&t| t != 0).map(Time)
    }

    /// When the last client had its file.
    pub(crate) fn last_verified(&self) -> Option<Time> {
        Some(self.last_verified.load(Ordering::Relaxed)).filter(|&t| t != 0).map(Time)
    }

    /// When the last spread was over.
    pub(crate) fn seeding_done_at(&self) -> Option<Time> {
        Some(self.seeding_done.load(Ordering::Relaxed)).filter(|&t| t != 0).map(Time)
    }
}
