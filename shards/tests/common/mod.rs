//! What the tests of the runtime share. Tests nothing by itself.

use std::{
    net::{TcpListener, TcpStream},
    num::NonZeroUsize,
};

use shards::{Driver, DriverChoice, Placement, Start, driver::choose};

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
