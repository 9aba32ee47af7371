//! What the tests of the runtime share. Tests nothing by itself.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::{TcpListener, TcpStream},
    num::NonZeroUsize,
    time::{Duration, SystemTime},
};

use shards::{Driver, DriverChoice, Placement, Start, clock, driver::choose};

/// The drivers that run here: the one that polls, and `io_uring` where it is allowed.
pub(crate) fn both_drivers() -> Vec<Driver> {
    [DriverChoice::Epoll, DriverChoice::IoUring]
        .into_iter()
        .filter_map(|choice| choose(choice).ok())
        .map(|chosen| chosen.driver)
        .collect()
}

/// `shards` shards, however many cores there are.
pub(crate) fn start_of(driver: Driver, shards: usize, credits_per_pair: usize) -> Start {
    Start {
        placement: Placement::plan(NonZeroUsize::new(shards), true),
        driver,
        name: "test",
        credits_per_pair,
        handoff_capacity: 64,
    }
}

/// Both ends of a loopback connection.
pub(crate) fn pair_of_sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (far, _) = listener.accept().expect("it was connected");
    (near, far)
}

/// Waits until `condition` holds. The bound only keeps a failure from hanging.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    const TRIES_AT_ONCE: u32 = 100;
    let began = clock::now();
    for tries in 0_u32.. {
        if condition() {
            return;
        }
        assert!(clock::now() - began < Duration::from_secs(60), "it never came to be");
        if tries < TRIES_AT_ONCE {
            std::thread::yield_now();
        } else {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Cores on which the system lets this thread run.
#[cfg(target_os = "linux")]
pub(crate) fn cores_of_this_thread() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).expect("a thread may ask for its own");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// A small generator: replayable, and no dependency.
pub(crate) struct Random(u64);

impl Random {
    /// `SHARDS_SEED`, else one of the time; printed.
    #[expect(clippy::disallowed_methods, reason = "a seed that is printed and can be given")]
    pub(crate) fn seed() -> u64 {
        let given = std::env::var("SHARDS_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            time.map_or(1, |time| u64::from(time.subsec_nanos()) + time.as_secs())
        });
        println!("SHARDS_SEED={seed}");
        seed
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}
