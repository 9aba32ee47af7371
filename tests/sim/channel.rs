//! What carries a peer's messages and data, as far as a swarm can notice it: messages that overtake
//! one another or come late, progress that is told twice, data that is known to have arrived only
//! when that is acknowledged, and may be lost when it is taken back before.
//!
//! The rules are those of the transports' contract: what is in order stays so, a fetch may come at
//! any time, of progress the newest counts.

use super::{
    FRAME, MILLISECOND,
    peer::Flight,
    rng::Rng,
    world::{Event, World},
};

/// How late a message is that was lost: it is said again after so long.
const SAID_AGAIN: u64 = 200 * MILLISECOND;

/// What goes wrong on a peer's channels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Messages come later by up to so much, each for itself.
    pub control_jitter: u64,
    /// Messages out of a hundred that are lost, and said again.
    pub control_lost_percent: u64,
    /// Reports of progress out of a hundred that come twice.
    pub doubled_percent: u64,
    /// A delivery is over when its arrival was acknowledged, not when it was written.
    pub in_datagrams: bool,
}

impl Weather {
    /// A bad one.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        Self {
            control_jitter: 1 + rng.below(60 * MILLISECOND),
            control_lost_percent: [0, 1, 5, 20][rng.index(4)],
            doubled_percent: rng.below(30),
            in_datagrams: rng.percent(60),
        }
    }

    pub(super) fn is_clear(self) -> bool {
        self.control_jitter == 0
    }

    fn delay(self, rng: &mut Rng) -> u64 {
        let again = if rng.percent(self.control_lost_percent) { SAID_AGAIN } else { 0 };
        again + rng.below(self.control_jitter + 1)
    }
}

impl World {
    /// When a message of the lane in order comes that is sent now.
    pub(super) fn in_order_at(&mut self, index: usize) -> u64 {
        let weather = self.peers[index].plan.weather;
        let at = self.now + self.peers[index].plan.rtt;
        if weather.is_clear() {
            return at;
        }
        let at = at + weather.delay(&mut self.rng);
        let last = &mut self.peers[index].in_order_at;
        *last = at.max(*last);
        *last
    }

    /// Sends a report of progress, which may come late, twice, or before an earlier one.
    pub(super) fn report(&mut self, index: usize) {
        let peer = &self.peers[index];
        let (weather, connection, received) = (peer.plan.weather, peer.connection, peer.received);
        let mut at = self.now + peer.plan.rtt;
        if !weather.is_clear() {
            at += weather.delay(&mut self.rng);
            if self.rng.percent(weather.doubled_percent) {
                let again = at + weather.delay(&mut self.rng);
                self.schedule(again, Event::Progress(index, connection, received));
            }
        }
        self.schedule(at, Event::Progress(index, connection, received));
    }

    /// When a fetch reaches its holder, if not at once: then perhaps after its cancellation.
    pub(super) fn fetch_at(&mut self, index: usize) -> Option<u64> {
        let weather = self.peers[index].plan.weather;
        (!weather.is_clear()).then(|| self.now + weather.delay(&mut self.rng))
    }

    /// The last frame of a delivery arrived: its sender is told so.
    pub(super) fn acknowledge(&mut self, index: usize, flight: Flight) {
        let peer = &self.peers[index];
        if flight.last && peer.open.contains(&flight.chunk) {
            let connection = peer.connection;
            let at = self.in_order_at(index);
            self.schedule(at, Event::Arrived(index, connection, flight.chunk));
        }
    }

    /// All of a delivery is known to have arrived.
    pub(super) fn delivery_arrived(&mut self, index: usize, chunk: u32) {
        let peer = &mut self.peers[index];
        let Some(at) = peer.open.iter().position(|&open| open == chunk) else { return };
        peer.open.remove(at);
        let home = peer.plan.home;
        self.writer_done(home, chunk);
        self.peer_input(index, |swarm, now, slot| swarm.handle_written(now, slot, chunk));
    }

    /// Takes back a delivery of which all is under way, if there is one: as far as it is known to
    /// have arrived. What is under way may still come, or be lost for good.
    pub(super) fn take_back(&mut self, index: usize, chunk: u32) -> Option<u32> {
        let peer = &mut self.peers[index];
        let at = peer.open.iter().position(|&open| open == chunk)?;
        peer.open.remove(at);
        let reached = peer.partials.iter().find(|&&(other, _)| other == chunk);
        let frames = reached.map_or(0, |&(_, reached)| reached / FRAME);
        let known = self.rng.below_u32(frames + 1) * FRAME;
        if self.rng.percent(50) {
            // The first is on the wire.
            let peer = &mut self.peers[index];
            let mut is_first = true;
            let lost: Vec<Flight> = peer.flights.iter().copied().collect();
            peer.flights.clear();
            for flight in lost {
                if flight.chunk == chunk && !is_first {
                    peer.written -= u64::from(flight.end - flight.start);
                } else {
                    peer.flights.push_back(flight);
                }
                is_first = false;
            }
        }
        Some(known)
    }
}
