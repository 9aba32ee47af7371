//! Signs of life that each shard leaves for other threads, and what it has used of its core.
//!
//! Does not judge: a health check decides what age is too old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

pub use crate::clock::running::BEAT_INTERVAL;
use crate::{clock, placement::ShardId};

/// What all shards have left, for any thread to read.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<[Pulse]>);

/// Of one shard, on a cache line of its own: it is written in every turn.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Pulse {
    /// On the scale of `clock::now`.
    beat_ns: AtomicU64,
    cpu_ns: AtomicU64,
    /// The system's number of its thread; 0 until its loop turns.
    thread: AtomicU32,
}

impl Heartbeats {
    pub(crate) fn new(shard_count: usize) -> Self {
        let now_ns = nanoseconds(clock::now());
        let pulse = |_| Pulse {
            beat_ns: AtomicU64::new(now_ns),
            cpu_ns: AtomicU64::new(0),
            ..Pulse::default()
        };
        Self((0..shard_count).map(pulse).collect())
    }

    pub(crate) fn beat_of(&self, shard: ShardId) -> Beat {
        Beat { all: self.clone(), shard }
    }

    /// For each shard, the time since it last beat, given `now` of [`clock::now`].
    #[must_use]
    pub fn ages(&self, now: Duration) -> Vec<Duration> {
        let age = |pulse: &Pulse| {
            now.saturating_sub(Duration::from_nanos(pulse.beat_ns.load(Ordering::Relaxed)))
        };
        self.0.iter().map(age).collect()
    }

    /// For each shard, the CPU time of its thread, at most [`BEAT_INTERVAL`] old while it beats.
    #[must_use]
    pub fn cpu(&self) -> Vec<Duration> {
        let cpu = |pulse: &Pulse| Duration::from_nanos(pulse.cpu_ns.load(Ordering::Relaxed));
        self.0.iter().map(cpu).collect()
    }
}

impl Heartbeats {
    /// For each shard, its thread, as the system numbers it; 0 where that is not known.
    pub(crate) fn threads(&self) -> Vec<u32> {
        self.0.iter().map(|pulse| pulse.thread.load(Ordering::Relaxed)).collect()
    }
}

/// The system's number of this thread.
#[cfg(target_os = "linux")]
fn own_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Other systems show nothing by it.
#[cfg(not(target_os = "linux"))]
fn own_thread() -> u32 {
    0
}

/// One shard's own.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    all: Heartbeats,
    shard: ShardId,
}

impl Beat {
    pub(crate) fn beat(&self) {
        self.pulse().beat_ns.store(nanoseconds(clock::now()), Ordering::Relaxed);
    }

    /// Beats for as long as the loop turns. On the shard's own thread, since it reads its CPU time.
    pub(crate) async fn tick(self) {
        self.pulse().thread.store(own_thread(), Ordering::Relaxed);
        loop {
            self.beat();
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            let cpu = Duration::try_from(cpu).unwrap_or_default();
            self.pulse().cpu_ns.store(nanoseconds(cpu), Ordering::Relaxed);
            clock::sleep(BEAT_INTERVAL).await;
        }
    }

    fn pulse(&self) -> &Pulse {
        &self.all.0[self.shard.index()]
    }
}

/// Saturates after 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
