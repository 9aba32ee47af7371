//! A simulated peer: its link, its window, its vices.

use std::collections::{BTreeSet, VecDeque};

use relay::{
    protocol::{Bitfield, Order, Seeding, limits::PARTIAL_CHUNKS_MAX},
    swarm::PeerSlot,
};

use super::{FRAME, channel::Weather, nanoseconds, rng::Rng};

/// What is wrong with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vice {
    /// Nothing.
    None,
    /// Supplies wrong chunks, and a wrong manifest.
    Liar,
    /// Refuses every fetch, and has no manifest.
    Refuser,
    /// Takes fetches and never answers.
    Silent,
    /// Stops reading at this time and stays connected.
    Stops(u64),
    /// Vanishes at this time.
    Dies(u64),
    /// Says that it has a chunk as soon as its first frame has come, so as to seem fast.
    Boasts,
    /// Names chunks though the relay chooses.
    Names,
    /// Says all at once what it has got in this time, so as to seem fast.
    Hoards(u64),
    /// Says that it has a chunk only so long after it came, so as to seem slow.
    Dawdles(u64),
}

/// How a peer joins and behaves.
#[derive(Clone, Debug)]
pub(crate) struct PeerPlan {
    pub home: usize,
    pub joins_at: u64,
    pub down_rate: f64,
    pub up_rate: f64,
    /// Log-normal sigma of each chunk's service time.
    pub jitter: f64,
    pub rtt: u64,
    pub window: u64,
    pub claims: Bitfield,
    pub order: Order,
    /// In peer order: from the first chunk to the last, else at random.
    pub sequential: bool,
    pub seeding: Option<Seeding>,
    pub vice: Vice,
    /// Says LEAVING when it is complete; an origin that spreads closes when it may.
    pub leaves: bool,
    /// Deliveries out of a hundred that it loses after they came.
    pub loses_percent: u64,
    pub weather: Weather,
    /// A peer lied where it comes from.
    pub is_suspect: bool,
}

/// A delivery in the session's hands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub chunk: u32,
    pub written: u32,
    pub length: u32,
    /// The kernel has a frame of it.
    pub begun: bool,
}

/// A frame that the kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub chunk: u32,
    pub start: u32,
    pub end: u32,
    pub last: bool,
}

/// A peer and its session.
#[derive(Debug)]
pub(crate) struct SimPeer {
    pub plan: PeerPlan,
    pub slot: Option<PeerSlot>,
    /// Counts connections: events of an earlier one are void.
    pub connection: u32,
    pub have: Bitfield,
    pub wants: VecDeque<u32>,
    pub queue: VecDeque<Sending>,
    pub flights: VecDeque<Flight>,
    pub link_busy: bool,
    /// Payload bytes written to the kernel and received, since the peer joined.
    pub written: u64,
    pub received: u64,
    pub partials: VecDeque<(u32, u32)>,
    pub uploads: VecDeque<(relay::swarm::FetchId, u32)>,
    pub uploading: bool,
    /// Chunks that are verified, whether or not the relay has heard of it.
    pub complete: BTreeSet<u32>,
    /// Deliveries that were written and are not known to have arrived.
    pub open: Vec<u32>,
    /// When the last message of the lane in order comes.
    pub in_order_at: u64,
    /// The largest report of progress that has come.
    pub reported: u64,
    pub jitter_now: (u32, f64),
    pub finished_at: Option<u64>,
    pub given_up: bool,
    pub told_waiting: bool,
    pub stopped: bool,
    pub dead: bool,
    pub data_waits_since: Option<u64>,
    pub leaving: bool,
    pub uploaded_chunks: u32,
    /// When its uplink was last busy, and for how long in total.
    pub up_busy: u64,
}

impl SimPeer {
    pub(crate) fn new(plan: PeerPlan) -> Self {
        Self {
            have: plan.claims.clone(),
            plan,
            slot: None,
            connection: 0,
            wants: VecDeque::new(),
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            link_busy: false,
            written: 0,
            received: 0,
            partials: VecDeque::new(),
            uploads: VecDeque::new(),
            uploading: false,
            complete: BTreeSet::new(),
            open: Vec::new(),
            in_order_at: 0,
            reported: 0,
            jitter_now: (u32::MAX, 1.0),
            finished_at: None,
            given_up: false,
            told_waiting: false,
            stopped: false,
            dead: false,
            data_waits_since: None,
            leaving: false,
            uploaded_chunks: 0,
            up_busy: 0,
        }
    }

    /// Forgets everything of the connection.
    pub(crate) fn reset(&mut self) {
        self.slot = None;
        self.connection += 1;
        self.queue.clear();
        self.flights.clear();
        self.link_busy = false;
        (self.written, self.received) = (0, 0);
        self.partials.clear();
        self.uploads.clear();
        self.uploading = false;
        self.open.clear();
        (self.in_order_at, self.reported) = (0, 0);
        self.complete = self.have.iter().collect();
        self.data_waits_since = None;
        self.leaving = false;
    }

    /// Something is still to be taken, or in datagrams to be acknowledged: the relay's clock runs.
    pub(super) fn has_data_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.open.is_empty() || self.written > self.received
    }

    pub(crate) fn is_liar(&self) -> bool {
        self.plan.vice == Vice::Liar
    }

    /// Nanoseconds that so many bytes take on its downlink.
    pub(crate) fn down_time(&mut self, rng: &mut Rng, chunk: u32, bytes: u32) -> u64 {
        if self.jitter_now.0 != chunk {
            self.jitter_now = (chunk, rng.jitter(self.plan.jitter));
        }
        nanoseconds(f64::from(bytes) / self.plan.down_rate * self.jitter_now.1)
    }

    /// The next frame that the window allows, if any.
    pub(crate) fn next_frame(&mut self) -> Option<Flight> {
        let sending = self.queue.front_mut()?;
        let outstanding = self.written - self.received;
        let end = (sending.written + FRAME).min(sending.length);
        let bytes = u64::from(end - sending.written);
        if outstanding > 0 && outstanding + bytes > self.plan.window {
            return None;
        }
        let (chunk, start, last) = (sending.chunk, sending.written, end == sending.length);
        let flight = Flight { chunk, start, end, last };
        sending.written = end;
        sending.begun = true;
        self.written += bytes;
        if last {
            self.queue.pop_front();
        }
        Some(flight)
    }

    /// A frame has come; whether it completes its chunk, or can't (`Some(false)`).
    pub(crate) fn receive(&mut self, flight: Flight) -> Option<bool> {
        self.received += u64::from(flight.end - flight.start);
        if self.complete.contains(&flight.chunk) {
            return None;
        }
        let at = self.partials.iter().position(|&(chunk, _)| chunk == flight.chunk);
        let reached = at.map_or(0, |at| self.partials[at].1);
        let overlaps = self.plan.weather.in_datagrams && flight.start < reached;
        if flight.start != 0 && reached != flight.start && !overlaps {
            // It has dropped what this goes on with.
            return flight.last.then_some(false);
        }
        if let Some(at) = at {
            let known = if overlaps { reached } else { 0 };
            self.partials[at].1 = flight.end.max(known);
        } else {
            if self.partials.len() == PARTIAL_CHUNKS_MAX {
                self.partials.pop_front();
            }
            self.partials.push_back((flight.chunk, flight.end));
        }
        if flight.last {
            self.partials.retain(|&(chunk, _)| chunk != flight.chunk);
        }
        flight.last.then_some(true)
    }
}
