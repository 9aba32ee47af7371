//! Which peers have gone from the swarms of a shard, and how. A home forgets a peer at once when it goes, and
//! a swarm without peers is forgotten as well; this is kept for watchers that come later, whether or not there is
//! one now. Bounded in number and in time.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use crate::message::{ConnectionRef, SwarmRef};
use relay_protocol::{SwarmKey, time::Time};

/// How long a departure is known: long enough to open the page after something went wrong.
pub(crate) const DEPARTURE_KEPT: Duration = Duration::from_secs(60);

/// Departures that a shard remembers, at most: the last ones, about 80 KiB, and 256 KiB for what they had of
/// long files. How many went is counted beside them.
const DEPARTURES_MAX: usize = 512;

/// How a peer's part in a swarm ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// It has the whole file, or said farewell.
    Left,
    /// Its connection ended before it had the file.
    Dead,
    /// It was cut off: it supplied wrong bytes.
    Banned,
}

/// How many ended how, since their swarm began. The peer that published the file is not among those that left
/// with it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Endings {
    pub left: u64,
    pub dead: u64,
    pub banned: u64,
}

impl Endings {
    /// One more.
    pub(crate) fn count(&mut self, ending: Ending, is_origin: bool) {
        match ending {
            Ending::Left if is_origin => {}
            Ending::Left => self.left += 1,
            Ending::Dead => self.dead += 1,
            Ending::Banned => self.banned += 1,
        }
    }
}

/// One peer that has gone.
#[derive(Clone, Debug)]
pub(crate) struct Departure {
    /// Of its shard's departures; they are counted from one.
    pub number: u64,
    pub swarm: SwarmRef,
    pub key: SwarmKey,
    pub connection: ConnectionRef,
    pub remote: SocketAddr,
    pub ending: Ending,
    pub is_origin: bool,
    /// Chunks that it had when it came, and when it went.
    pub chunks_claimed: u32,
    pub chunks_held: u32,
    /// Its row of the file's map, if it had a part of the file only.
    pub bits: Option<Arc<[u8]>>,
    pub at: Time,
    /// Of its swarm, this one included.
    pub so_far: Endings,
}

/// The last departures of a shard.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    last: VecDeque<Departure>,
    number: u64,
}

impl Departures {
    /// Remembers one; its number is given here.
    pub(crate) fn push(&mut self, departure: Departure) {
        if self.last.len() == DEPARTURES_MAX {
            self.last.pop_front();
        }
        self.number += 1;
        self.last.push_back(Departure { number: self.number, ..departure });
    }

    /// Those not too long ago, oldest first.
    pub(crate) fn recent(&self, now: Time) -> impl Iterator<Item = &Departure> {
        self.last.iter().filter(move |departure| now.since(departure.at) <= DEPARTURE_KEPT)
    }
}
