//! The addresses behind a name. The system's way to find them blocks, so it has a thread of its own.
//!
//! Connects to nothing.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
    time::Duration,
};

use relay_protocol::RelayAddr;
use shards::clock;

/// Addresses of one name that are tried, at most: a name with more is no relay's.
const ADDRESSES_MAX: usize = 16;

/// How often a lookup is asked whether it has ended; it takes milliseconds, or seconds.
const LOOKUP_POLL: Duration = Duration::from_millis(2);

/// A lookup that has not ended by then counts as failed; its thread ends when the system's does.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The addresses of a relay, families alternating, without a look-up if it is an address
/// already. Blocks: for threads without an event loop.
///
/// # Errors
/// The system's, or there are none.
pub fn look_up_blocking(name: &RelayAddr) -> io::Result<Vec<SocketAddr>> {
    let found = (name.host(), name.port()).to_socket_addrs().map_err(|error| {
        let interface = name.host().split_once('%').map(|(_, interface)| interface);
        interface.map_or(error, |interface| {
            let text = format!("this machine has no network interface {interface}");
            io::Error::new(io::ErrorKind::AddrNotAvailable, text)
        })
    })?;
    let found = alternate(found.take(ADDRESSES_MAX).collect());
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// The same without blocking.
///
/// # Errors
/// The system's, or there are none, or it takes too long.
pub(crate) async fn look_up(name: &RelayAddr) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.host().parse() {
        return Ok(vec![SocketAddr::new(address, name.port())]);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let asked = name.clone();
    let builder = thread::Builder::new().name("peer-lookup".into());
    // A lookup that came too late finds no receiver.
    builder.spawn(move || sender.send(look_up_blocking(&asked)).ok())?;
    let deadline = clock::now() + LOOKUP_TIMEOUT;
    loop {
        match receiver.try_recv() {
            Ok(found) => return found,
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(io::Error::other("the lookup broke off"));
            }
            Err(mpsc::TryRecvError::Empty) if clock::now() >= deadline => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(mpsc::TryRecvError::Empty) => clock::sleep(LOOKUP_POLL).await,
        }
    }
}

/// The system's order of preference, but no family twice while the other has some left.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut those): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let mut alternating = Vec::new();
    while let Some(address) = these.pop_front() {
        alternating.push(address);
        alternating.extend(those.pop_front());
    }
    alternating.extend(those);
    alternating
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_beginning_with_the_preferred_one() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(alternate(given), parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        let given = parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternate(given), parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(alternate(Vec::new()), Vec::new());
    }
}
