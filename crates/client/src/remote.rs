//! Where a peer's relay is, and the way there: names are looked up off the event loop, and of
//! several addresses the first that answers is taken.
//!
//! Addresses of both families are tried in turn, each a moment after the one before, so that one
//! that never answers costs that moment (the idea of RFC 8305, without its history). Doesn't try
//! again when all have failed: that is the peer's business.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    rc::Rc,
    sync::mpsc,
    thread,
    time::Duration,
};

use shards::{bell::LocalBell, clock, net::Socket, task};

use super::{dial::dial, error::ConnectionError};
use relay_protocol::{RelayAddr, Ticket};

/// How long an address may be silent before the next is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried, at most: a name with more is no relay's.
const ADDRESSES_MAX: usize = 16;

/// How often a lookup is asked whether it has ended; it takes milliseconds, or seconds.
const LOOKUP_POLL: Duration = Duration::from_millis(2);

/// A lookup that has not ended by then counts as failed; its thread ends when the system's does.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay, as the user or a ticket names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remote {
    /// By its address.
    Addr(SocketAddr),
    /// By its name or address as text; looked up for each connection, as it may move.
    Named(RelayAddr),
    /// The first of several that can be reached.
    AnyOf {
        /// The best one.
        first: RelayAddr,
        /// Those that are tried after it, in this order.
        more: Vec<RelayAddr>,
    },
}

impl From<SocketAddr> for Remote {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<RelayAddr> for Remote {
    fn from(addr: RelayAddr) -> Self {
        Self::Named(addr)
    }
}

impl From<&Ticket> for Remote {
    fn from(ticket: &Ticket) -> Self {
        let first = ticket.relay.clone();
        // Without a pin nothing says that the others are the relay that is meant: one of them would be remembered, or
        // vouched for, under the name of the first.
        let more = if ticket.pin.is_some() {
            ticket.relays().skip(1).cloned().collect()
        } else {
            Vec::new()
        };
        if more.is_empty() { Self::Named(first) } else { Self::AnyOf { first, more } }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Named(addr) | Self::AnyOf { first: addr, .. } => addr.fmt(f),
        }
    }
}

impl Remote {
    /// The name, or the address, that a certificate would have to name.
    #[must_use]
    pub fn host(&self) -> Cow<'_, str> {
        match self {
            Self::Addr(addr) => addr.ip().to_string().into(),
            Self::Named(addr) | Self::AnyOf { first: addr, .. } => addr.host().into(),
        }
    }

    /// Connects from this shard; also the address that answered.
    ///
    /// # Errors
    /// The name has no address, or none of its addresses answers: the error of the first, of the first name.
    pub async fn connect(&self) -> Result<(Socket, SocketAddr), ConnectionError> {
        match self {
            Self::Addr(addr) => connect_first(vec![*addr]).await,
            Self::Named(name) => connect_first(look_up(name).await?).await,
            Self::AnyOf { first, more } => {
                let of_first = match look_up(first).await {
                    Ok(addresses) => connect_first(addresses).await,
                    Err(error) => Err(error),
                };
                if of_first.is_ok() {
                    return of_first;
                }
                for name in more {
                    let Ok(addresses) = look_up(name).await else { continue };
                    if let Ok(connected) = connect_first(addresses).await {
                        return Ok(connected);
                    }
                }
                of_first
            }
        }
    }
}

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

async fn look_up(name: &RelayAddr) -> Result<Vec<SocketAddr>, ConnectionError> {
    let fail = |error| ConnectionError::LookUp { remote: name.clone(), error };
    if let Ok(address) = name.host().parse() {
        return Ok(vec![SocketAddr::new(address, name.port())]);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let asked = name.clone();
    let builder = thread::Builder::new().name("peer-lookup".into());
    // A lookup that came too late finds no receiver.
    builder.spawn(move || sender.send(look_up_blocking(&asked)).ok()).map_err(fail)?;
    let deadline = clock::now() + LOOKUP_TIMEOUT;
    loop {
        match receiver.try_recv() {
            Ok(found) => return found.map_err(fail),
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(fail(io::Error::other("the lookup broke off")));
            }
            Err(mpsc::TryRecvError::Empty) if clock::now() >= deadline => {
                return Err(fail(io::ErrorKind::TimedOut.into()));
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

/// What the attempts of one connection share.
#[derive(Default)]
struct Race {
    attempts: RefCell<Attempts>,
    /// Rung when an attempt ended, and when it is time for the next.
    bell: LocalBell,
}

/// What became of the attempts so far.
#[derive(Default)]
struct Attempts {
    winner: Option<(Socket, SocketAddr)>,
    errors: Vec<(SocketAddr, io::Error)>,
    running: usize,
}

async fn connect_first(
    addresses: Vec<SocketAddr>,
) -> Result<(Socket, SocketAddr), ConnectionError> {
    let race = Rc::new(Race::default());
    let count = addresses.len();
    for (index, address) in addresses.into_iter().enumerate() {
        race.start(address);
        let failures = race.failures();
        if index + 1 < count {
            race.ring_after(NEXT_ADDRESS_AFTER);
            let next_at = clock::now() + NEXT_ADDRESS_AFTER;
            // A failure makes way for the next address at once.
            while !race.is_won() && race.failures() == failures && clock::now() < next_at {
                race.bell.wait().await;
            }
        }
        if race.is_won() {
            break;
        }
    }
    loop {
        if let Some(result) = race.result() {
            return result;
        }
        race.bell.wait().await;
    }
}

impl Race {
    fn is_won(&self) -> bool {
        self.attempts.borrow().winner.is_some()
    }

    fn failures(&self) -> usize {
        self.attempts.borrow().errors.len()
    }

    /// The connection; or the first error, once all attempts have failed.
    fn result(&self) -> Option<Result<(Socket, SocketAddr), ConnectionError>> {
        let mut attempts = self.attempts.borrow_mut();
        if let Some(won) = attempts.winner.take() {
            return Some(Ok(won));
        }
        if attempts.running > 0 {
            return None;
        }
        let (remote, error) = attempts.errors.drain(..).next().expect("there is an address");
        Some(Err(ConnectionError::Connect { remote, error }))
    }

    /// An attempt runs to its end even if another one wins: what it has opened is closed then.
    fn start(self: &Rc<Self>, address: SocketAddr) {
        self.attempts.borrow_mut().running += 1;
        let race = Rc::clone(self);
        task::spawn(async move {
            let dialled = dial(address).await;
            let mut attempts = race.attempts.borrow_mut();
            attempts.running -= 1;
            match dialled {
                Ok(socket) => {
                    attempts.winner.get_or_insert((socket, address));
                }
                Err(error) => attempts.errors.push((address, error)),
            }
            drop(attempts);
            race.bell.ring();
        });
    }

    fn ring_after(self: &Rc<Self>, time: Duration) {
        let race = Rc::clone(self);
        task::spawn(async move {
            clock::sleep(time).await;
            race.bell.ring();
        });
    }
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

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        // Bound but not listened on: no other program gets the port, and connecting is refused.
        let unused = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let unused = unused.unwrap();
        unused.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let shut = unused.local_addr().unwrap().as_socket().unwrap();
        let run = async move {
            let (_, answered) = connect_first(vec![shut, open]).await.unwrap();
            assert_eq!(answered, open);
            let error = connect_first(vec![shut, shut]).await.unwrap_err();
            assert!(error.is_transient() && error.to_string().contains(&shut.to_string()));
            let name: RelayAddr = format!("localhost:{}", open.port()).parse().unwrap();
            assert!(Remote::Named(name.clone()).connect().await.is_ok());
            let refusing: RelayAddr = shut.to_string().parse().unwrap();
            for more in [vec![name.clone()], vec![refusing.clone(), name]] {
                let several = Remote::AnyOf { first: refusing.clone(), more };
                assert_eq!(several.connect().await.unwrap().1.port(), open.port());
            }
            let several = Remote::AnyOf { first: refusing.clone(), more: vec![refusing] };
            let error = several.connect().await.unwrap_err();
            assert!(error.to_string().contains(&shut.to_string()));
        };
        shards::block_on(shards::Driver::Epoll, run).unwrap();
    }
}
