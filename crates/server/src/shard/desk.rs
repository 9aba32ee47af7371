//! What all work of one shard has at hand, and no work changes: its end of the mesh, counters, bells, sockets.
//!
//! Holds no connection and no swarm. Tasks wait for bells, so these stand outside of what one task has to itself
//! at a time ([`super::Parts`]).

use std::{cell::Cell, io, rc::Rc, sync::Arc, time::Duration};

use shards::{
    Shard, ShardId, bell::LocalBell, clock, datagrams::DatagramSocket, steering::DatagramGroup,
    task,
};

use crate::{
    message::{Handled, Request},
    observe::cells::ShardCells,
    process::Shared,
};
use relay_protocol::{limits::DATAGRAM_SHARDS_MAX, time::Time};

/// Connections of one shard that linger at once; further ones are closed as soon as their words
/// are with the kernel. Descriptors are what they cost.
const LINGERING_MAX: usize = 256;

/// No timer of the event loop is finer than this.
pub(crate) const TIMER_LEAST: Duration = Duration::from_millis(1);

/// The time that counts for peers and swarms.
pub(crate) fn now() -> Time {
    Time::from_start(clock::now())
}

/// One shard's place of work.
pub(crate) struct Desk {
    pub shard: Shard<Request, Handled>,
    pub shared: Arc<Shared>,
    pub cells: Arc<ShardCells>,
    pub sockets: Sockets,
    pub bells: Bells,
    pub lingering: Lingering,
    pub handshakes: Handshakes,
}

/// What the tasks of a shard wait for.
#[derive(Debug)]
pub(crate) struct Bells {
    /// Rung by all that happens. A shard to which nothing happens looks at no clock.
    pub activity: LocalBell,
    /// Rung when a home waits for memory at a price.
    pub price: LocalBell,
    /// Rung when a connection has something to write or to transmit.
    pub pump: LocalBell,
    /// Rung when a connection waits for its turn to be read from.
    pub intake: LocalBell,
    /// Rung when a connection's datagrams are due before all others.
    pub due: LocalBell,
    /// Of each datagram socket: rung when it had no room for data of a connection.
    pub blocked: Vec<LocalBell>,
}

impl Desk {
    /// Takes the shard's datagram sockets over.
    pub(crate) fn new(
        shard: Shard<Request, Handled>,
        shared: &Arc<Shared>,
        groups: &[DatagramGroup],
    ) -> Self {
        let sockets = Sockets::new(shard.id, groups);
        let bells = Bells {
            activity: LocalBell::new(),
            price: LocalBell::new(),
            pump: LocalBell::new(),
            intake: LocalBell::new(),
            due: LocalBell::new(),
            blocked: sockets.iter().map(|_| LocalBell::new()).collect(),
        };
        Self {
            shared: Arc::clone(shared),
            cells: Arc::clone(&shared.cells[shard.id.index()]),
            sockets,
            bells,
            lingering: Lingering::default(),
            handshakes: Handshakes::default(),
            shard,
        }
    }

    pub(crate) fn id(&self) -> ShardId {
        self.shard.id
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shard.port.shard_count()
    }
}

/// A shard's UDP sockets, one for each address that the relay listens on; a route names the index of one.
pub(crate) struct Sockets {
    all: Vec<Rc<DatagramSocket>>,
    /// What this shard's connections are called by their first byte.
    pub shard: Option<u8>,
    /// What a socket holds of data that was not read yet.
    pub room_bytes: u32,
}

impl Sockets {
    /// Takes this shard's sockets over. Without them it serves on, but offers no datagrams.
    pub(crate) fn new(id: ShardId, groups: &[DatagramGroup]) -> Self {
        let open = |group: &DatagramGroup| {
            DatagramSocket::from_std(group.sockets[id.index()].try_clone()?).map(Rc::new)
        };
        let all = groups.iter().map(open).collect::<io::Result<Vec<_>>>();
        let all = all.unwrap_or_else(|error| {
            tracing::error!(shard = %id, "failed to take over the UDP sockets: {error}");
            Vec::new()
        });
        let room_bytes = all.iter().map(|socket| socket.room_bytes()).min().unwrap_or(0);
        let shard = u8::try_from(id.0).ok().filter(|_| !all.is_empty());
        const { assert!(DATAGRAM_SHARDS_MAX == 1 + u8::MAX as usize) };
        Self { all, shard, room_bytes }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<DatagramSocket>> {
        self.all.iter()
    }

    /// The socket of a route.
    pub(crate) fn of(&self, index: u8) -> &DatagramSocket {
        &self.all[usize::from(index)]
    }

    /// Datagrams that go in one call, whichever socket takes them.
    pub(crate) fn segments_max(&self) -> usize {
        self.all.iter().map(|socket| socket.segments_max()).min().unwrap_or(1)
    }
}

/// Reads of connections that have not begun TLS, in one turn: a handshake is work that any stranger can ask for,
/// about 0.1 ms for its first read. Others of the shard wait no longer than a millisecond for strangers.
const HANDSHAKES_PER_TURN_MAX: u32 = 8;

/// How many reads of handshakes this turn has seen.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    turn: Cell<u64>,
    reads: Cell<u32>,
}

impl Handshakes {
    /// Waits for a turn that has room for one more. Those that wait are the connections that have not introduced
    /// themselves, whose number is bounded; they go on in the order in which they came.
    pub(crate) async fn place(&self) {
        while !self.take(task::turn_number()) {
            task::yield_now().await;
        }
    }

    fn take(&self, turn: u64) -> bool {
        if self.turn.replace(turn) != turn {
            self.reads.set(0);
        }
        let has_room = self.reads.get() < HANDSHAKES_PER_TURN_MAX;
        if has_room {
            self.reads.set(self.reads.get() + 1);
        }
        has_room
    }
}

/// How many connections of a shard linger.
#[derive(Debug, Default)]
pub(crate) struct Lingering(Cell<usize>);

/// The place of one of them.
pub(crate) struct Place<'a>(&'a Lingering);

impl Lingering {
    /// A place, if there is one.
    pub(crate) fn enter(&self, is_draining: bool) -> Option<Place<'_>> {
        // A relay that ends says so to all: it has no other use for the descriptors.
        if self.0.get() >= LINGERING_MAX && !is_draining {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_room_for_so_many_handshakes_and_the_next_for_as_many() {
        let handshakes = Handshakes::default();
        for turn in 1..4 {
            let taken = (0..100).filter(|_| handshakes.take(turn)).count();
            assert_eq!(taken, HANDSHAKES_PER_TURN_MAX as usize);
        }
    }

    #[test]
    fn only_so_many_linger_unless_the_relay_ends() {
        let lingering = Lingering::default();
        let mut places: Vec<_> = (0..LINGERING_MAX).map(|_| lingering.enter(false)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(lingering.enter(false).is_none());
        assert!(lingering.enter(true).is_some());
        drop(places.pop());
        assert!(lingering.enter(false).is_some());
    }
}
