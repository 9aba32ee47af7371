//! Hands accepted sockets over to shards, and says to which.
//!
//! A connection stays with its shard for life, so its place is chosen with care: on the core on
//! which its other end works, if that costs little balance. Does not accept and does not limit
//! admission: the listener does.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    placement::{Placement, ShardId},
    ringer::Ringer,
};

/// A socket on its way to a shard.
#[derive(Debug)]
pub struct Incoming {
    /// The socket, connected.
    pub stream: TcpStream,
    /// Its other end.
    pub remote: SocketAddr,
    /// Whatever the caller wants to know later, for example which listener it was.
    pub tag: u32,
}

/// The giving side. Cheap to clone, for any thread.
#[derive(Clone)]
pub struct Handoff(Arc<Inner>);

struct Inner {
    placement: Placement,
    gates: Vec<Gate>,
    draining: Arc<AtomicBool>,
}

struct Gate {
    queue: Sender<Incoming>,
    ringer: Ringer,
    connections: Arc<AtomicUsize>,
}

/// A shard may have this many connections more than the least loaded one for locality's sake…
const IMBALANCE_MIN: usize = 2;
/// … or the least loaded one's connections divided by this (5%), if that is more.
const IMBALANCE_DIVISOR: usize = 20;

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// The taking side, at its shard.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    queue: Receiver<Incoming>,
    connections: Arc<AtomicUsize>,
}

/// One gate per shard, each with room for `capacity` sockets that their shard has not yet taken.
pub(crate) fn handoff(
    placement: Placement,
    ringers: &[Ringer],
    capacity: usize,
    draining: Arc<AtomicBool>,
) -> (Handoff, Vec<Arrivals>) {
    assert!(capacity > 0, "a hand-off queue has room for at least one socket");
    let (gates, arrivals) = ringers
        .iter()
        .map(|ringer| {
            let (sender, receiver) = bounded(capacity);
            let connections = Arc::new(AtomicUsize::new(0));
            let arrivals = Arrivals { queue: receiver, connections: connections.clone() };
            (Gate { queue: sender, ringer: ringer.clone(), connections }, arrivals)
        })
        .unzip();
    (Handoff(Arc::new(Inner { placement, gates, draining })), arrivals)
}

impl Handoff {
    /// The shard for a connection whose other end works on `core` (of `SO_INCOMING_CPU`): one on
    /// that core if it has at most max(2, 5%) connections more than the least loaded shard, else
    /// the least loaded. Ties go to the lowest id.
    #[must_use]
    pub fn place(&self, core: Option<usize>) -> ShardId {
        place(&self.0.placement, &self.connections(), core)
    }

    /// Gives a socket to a shard and counts a connection there.
    ///
    /// # Errors
    /// The shard has not taken earlier ones yet and its queue is full, or it drains: the socket
    /// comes back.
    pub fn send(&self, shard: ShardId, incoming: Incoming) -> Result<(), Incoming> {
        let gate = &self.0.gates[shard.index()];
        if self.0.draining.load(Ordering::SeqCst) {
            return Err(incoming);
        }
        // Counted first: the shard might close it before we get to count.
        gate.connections.fetch_add(1, Ordering::Relaxed);
        gate.queue.try_send(incoming).map_err(|error| {
            gate.connections.fetch_sub(1, Ordering::Relaxed);
            error.into_inner()
        })?;
        gate.ringer.announce();
        Ok(())
    }

    /// Connections of each shard, those on their way included.
    #[must_use]
    pub fn connections(&self) -> Vec<usize> {
        self.0.gates.iter().map(|gate| gate.connections.load(Ordering::Relaxed)).collect()
    }
}

impl Arrivals {
    pub(crate) fn next(&self) -> Option<Incoming> {
        self.queue.try_recv().ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a shard closes no more connections than it had");
    }
}

fn place(placement: &Placement, connections: &[usize], core: Option<usize>) -> ShardId {
    let least = connections.iter().copied().min().unwrap_or(0);
    let most = least + IMBALANCE_MIN.max(least / IMBALANCE_DIVISOR);
    let load = |shard: &ShardId| connections[shard.index()];
    let near = core.and_then(|core| {
        let on_core = placement.shards().filter(|&shard| placement.core_of(shard) == Some(core));
        on_core.min_by_key(load)
    });
    near.filter(|shard| load(shard) <= most)
        .or_else(|| placement.shards().min_by_key(load))
        .expect("there is at least one shard")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::place;
    use crate::placement::{Placement, ShardId};

    fn placement(shards: usize) -> Placement {
        Placement::plan(NonZeroUsize::new(shards), true)
    }

    #[test]
    fn a_connection_goes_to_its_core_unless_that_shard_is_too_full() {
        let placement = placement(2);
        let core = placement.core_of(ShardId(1));
        for (connections, expected) in [
            ([0, 0], 1),
            ([0, 2], 1),
            ([0, 3], 0),
            ([100, 105], 1),
            ([100, 106], 0),
            // Five per cent of a few is less than two.
            ([10, 12], 1),
            ([10, 13], 0),
        ] {
            let shard = place(&placement, &connections, core);
            assert_eq!(shard, ShardId(expected), "{connections:?}");
        }
    }

    #[test]
    fn without_a_core_the_least_loaded_takes_it_and_ties_go_to_the_lowest() {
        let placement = placement(4);
        assert_eq!(place(&placement, &[3, 1, 0, 0], None), ShardId(2));
        assert_eq!(place(&placement, &[3, 1, 1, 2], Some(usize::MAX)), ShardId(1));
    }

    proptest! {
        #[test]
        fn no_shard_gets_far_ahead_whatever_cores_say(
            shards in 1_usize..9,
            cores in prop::collection::vec(prop::option::of(0_usize..4), 1..400),
        ) {
            let placement = placement(shards);
            let mut connections = vec![0_usize; shards];
            for core in cores {
                let shard = place(&placement, &connections, core);
                connections[shard.index()] += 1;
                let (least, most) =
                    (*connections.iter().min().unwrap(), *connections.iter().max().unwrap());
                prop_assert!(most <= least + (least / 20).max(2) + 1);
            }
        }
    }
}
