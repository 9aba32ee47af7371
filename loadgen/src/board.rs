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
    aborted: AtomicBool,
    clients: Clients,
    bytes: Bytes,
    moments: Moments,
    seedings_left: AtomicU32,
    refused: Refused,
    /// For each file and chunk, how many well-behaved clients have it and will stay; empty
    /// unless some are to vanish.
    holders: Vec<Vec<AtomicU32>>,
}

/// How many clients are how far.
#[derive(Debug)]
struct Clients {
    /// Were started, on whatever shard.
    started: AtomicU32,
    /// Have the whole file.
    whole: AtomicU32,
    /// Must succeed and have the whole file, or never will.
    settled: AtomicU32,
    must_settle: u32,
}

/// How much is verified.
#[derive(Debug)]
struct Bytes {
    verified: AtomicU64,
    /// Those of clients that must succeed: what the run waits for.
    awaited: AtomicU64,
    /// Those of plain clients, and what they will be in the end.
    plain: AtomicU64,
    plain_total: u64,
}

/// When things happened.
#[derive(Debug)]
struct Moments {
    first_connect: AtomicU64,
    last_accepted: AtomicU64,
    last_verified: AtomicU64,
    seeding_done: AtomicU64,
}

/// Clients and origins that the relay has no room for, since their last attempt.
#[derive(Debug)]
struct Refused {
    count: AtomicU32,
    /// What the relay said first.
    why: OnceLock<String>,
}

impl Moments {
    fn at(moment: &AtomicU64) -> Option<Time> {
        Some(moment.load(Ordering::Relaxed)).filter(|&t| t != 0).map(Time)
    }
}

impl Board {
    /// One more client was started.
    pub(crate) fn count_started(&self) {
        self.clients.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that were started so far.
    pub(crate) fn started(&self) -> usize {
        self.clients.started.load(Ordering::Relaxed) as usize
    }

    /// For the plan; `sizes` are (bytes, chunks) of its files, `main` is woken at the end.
    pub(crate) fn new(plan: &Plan, sizes: &[(u64, u32)], seedings: u32, main: Thread) -> Self {
        let plain = plan.clients.iter().filter(|client| client.role == Role::Plain);
        let vanish = plan.clients.iter().any(|c| matches!(c.role, Role::Vanishes(_)));
        let counters = |&(_, chunks): &(u64, u32)| (0..chunks).map(|_| AtomicU32::new(0)).collect();
        Self {
            main,
            aborted: AtomicBool::new(false),
            clients: Clients {
                started: AtomicU32::new(0),
                whole: AtomicU32::new(0),
                settled: AtomicU32::new(0),
                must_settle: u32::try_from(plan.must_succeed()).expect("clients are bounded"),
            },
            bytes: Bytes {
                verified: AtomicU64::new(0),
                awaited: AtomicU64::new(0),
                plain: AtomicU64::new(0),
                plain_total: plain.map(|client| sizes[client.file].0).sum(),
            },
            moments: Moments {
                first_connect: AtomicU64::new(u64::MAX),
                last_accepted: AtomicU64::new(0),
                last_verified: AtomicU64::new(0),
                seeding_done: AtomicU64::new(0),
            },
            seedings_left: AtomicU32::new(seedings),
            refused: Refused { count: AtomicU32::new(0), why: OnceLock::new() },
            holders: if vanish { sizes.iter().map(counters).collect() } else { Vec::new() },
        }
    }

    /// A client or origin begins to connect.
    pub(crate) fn connecting(&self, now: Time) {
        self.moments.first_connect.fetch_min(now.0, Ordering::Relaxed);
    }

    /// The relay took a client in that joins at the start, for the first time.
    pub(crate) fn accepted(&self, now: Time) {
        self.moments.last_accepted.fetch_max(now.0, Ordering::Relaxed);
    }

    /// The relay has no room for one more client or origin, and says why.
    pub(crate) fn refused(&self, why: &str) {
        self.refused.why.get_or_init(|| why.to_owned());
        self.refused.count.fetch_add(1, Ordering::Relaxed);
    }

    /// What the relay said first.
    pub(crate) fn refusal(&self) -> &str {
        self.refused.why.get().map_or("", String::as_str)
    }

    /// One of those is in, or has ended.
    pub(crate) fn no_longer_refused(&self) {
        self.refused.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how many the relay has no room.
    pub(crate) fn refused_count(&self) -> u32 {
        self.refused.count.load(Ordering::Relaxed)
    }

    /// A client verified a chunk of so many bytes.
    pub(crate) fn verified(&self, client: &ClientPlan, chunk: u32, bytes: u64) {
        self.bytes.verified.fetch_add(bytes, Ordering::Relaxed);
        if client.role.must_succeed() {
            self.bytes.awaited.fetch_add(bytes, Ordering::Relaxed);
        }
        if client.role == Role::Plain {
            self.bytes.plain.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(holders) = self.holders.get(client.file) {
            holders[chunk as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client has its whole file.
    pub(crate) fn whole(&self, now: Time) {
        self.moments.last_verified.fetch_max(now.0, Ordering::Relaxed);
        self.clients.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// A client that must succeed has, or never will.
    pub(crate) fn settled(&self) {
        if self.clients.settled.fetch_add(1, Ordering::AcqRel) + 1 >= self.clients.must_settle {
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
        self.moments.seeding_done.fetch_max(now.0, Ordering::Relaxed);
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
        if self.bytes.plain_total == 0 {
            return 1.0;
        }
        self.bytes.plain.load(Ordering::Relaxed) as f64 / self.bytes.plain_total as f64
    }

    /// Whether nothing more is to be waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.clients.settled.load(Ordering::Acquire) >= self.clients.must_settle
    }

    /// Bytes that clients verified so far.
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.bytes.verified.load(Ordering::Relaxed)
    }

    /// The same without clients that end before they have their file.
    pub(crate) fn awaited_bytes(&self) -> u64 {
        self.bytes.awaited.load(Ordering::Relaxed)
    }

    /// Clients that have their whole file.
    pub(crate) fn whole_count(&self) -> u32 {
        self.clients.whole.load(Ordering::Relaxed)
    }

    /// Whether some file is still being spread.
    pub(crate) fn is_seeding(&self) -> bool {
        self.seedings_left.load(Ordering::Relaxed) > 0
    }

    /// When the first connection was begun.
    pub(crate) fn first_connect(&self) -> Option<Time> {
        Some(self.moments.first_connect.load(Ordering::Relaxed))
            .filter(|&t| t != u64::MAX)
            .map(Time)
    }

    /// When the last client was in that joins at the start.
    pub(crate) fn last_accepted(&self) -> Option<Time> {
        Moments::at(&self.moments.last_accepted)
    }

    /// When the last client had its file.
    pub(crate) fn last_verified(&self) -> Option<Time> {
        Moments::at(&self.moments.last_verified)
    }

    /// When the last spread was over.
    pub(crate) fn seeding_done_at(&self) -> Option<Time> {
        Moments::at(&self.moments.seeding_done)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn what_a_client_verified_that_will_vanish_is_not_awaited() {
        let args = ["loadgen", "--clients", "10", "--churn", "kill=3,join=2"];
        let plan = Plan::draw(&Args::try_parse_from(args).unwrap().check().unwrap());
        let (size, chunks) = (4000, 4);
        let board = Board::new(&plan, &[(size, chunks)], 1, std::thread::current());
        for client in &plan.clients {
            (0..chunks).for_each(|chunk| board.verified(client, chunk, 1000));
        }
        assert_eq!(board.verified_bytes(), 10 * size);
        assert_eq!(board.awaited_bytes(), 7 * size);
    }
}
