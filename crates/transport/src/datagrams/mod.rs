//! A control channel in datagrams: one side of it, as a state machine.
//!
//! ```text
//!  push_control ─► outgoing (lanes) ─► packet ─► poll_transmit          recovery: acknowledged, lost, how much
//!  handler ◄─ incoming (lanes) ◄─ frames ◄─ seal, replay ◄─ handle_datagram   path: where to
//! ```
//!
//! Pure: no socket, no clock, no randomness of its own. Datagrams that were not sealed with the
//! connection's key, or came before, change nothing and are answered by nothing. What is lost is
//! said again in a new packet until it is acknowledged; the round trip is estimated as RFC 6298
//! says. Does not carry file bytes.
//!
//! Invariant: what is kept for one connection is bounded: two lanes of at most
//! [`DATAGRAM_LANE_MAX`] messages each way, what the
//! caller pushes beyond, which he bounds by [`Datagrams::waiting_bytes`], and a number and a time
//! for each of at most 130 packets.

mod data;
mod incoming;
mod outcome;
mod outgoing;
mod path;
mod recovery;
mod replay;
mod rtt;

use self::{
    data::Data,
    incoming::{InOrder, Latest, Prompt},
    outgoing::{LaneOut, LatestOut},
    path::Path,
    recovery::Recovery,
    replay::ReplayWindow,
};
pub use self::{
    data::DataTransmit,
    incoming::RunsAhead,
    outcome::{DatagramError, Received, Silence},
};
use super::{Lane, Route};
use relay_protocol::{
    DatagramFrame, DatagramHeader, DatagramKey, DatagramKeys, DatagramKind, DecodeError, Message,
    Side,
    datagram::{
        ACK_FRAME_BYTES, DATAGRAM_BODY_BYTES_MAX, DATAGRAM_HEADER_BYTES,
        MESSAGE_FRAME_HEADER_BYTES, PATH_FRAME_BYTES,
    },
    decode_body, encode_body,
    limits::{
        DATAGRAM_ACK_DELAY_MAX, DATAGRAM_ACK_QUIET, DATAGRAM_KEEPALIVE_INTERVAL, DATAGRAM_LANE_MAX,
    },
    next_frame,
    time::Time,
};

/// Packets that came without being acknowledged, at most: then the acknowledgement waits no longer.
const UNACKNOWLEDGED_MAX: u32 = 8;

/// Messages in them, at most: a sender whose lane is full waits for the acknowledgement, and must not
/// wait for its delay as well.
const UNACKNOWLEDGED_MESSAGES_MAX: u32 = DATAGRAM_LANE_MAX / 4;

/// What one side needs to know.
#[derive(Debug)]
pub struct DatagramsConfig {
    /// Which side this is.
    pub side: Side,
    /// From the offer.
    pub shard: u8,
    /// From the offer.
    pub connection: u64,
    /// Of the connection.
    pub keys: DatagramKeys,
    /// Where the other side is: known to the peer, proven to the relay only by a challenge.
    pub route: Option<Route>,
    /// Makes this side's challenges unpredictable.
    pub challenge_seed: u64,
}

/// One side of a control channel in datagrams.
#[derive(Debug)]
pub struct Datagrams {
    side: Side,
    shard: u8,
    connection: u64,
    seal: DatagramKey,
    open: DatagramKey,
    next_number: u64,
    replay: ReplayWindow,
    path: Path,
    challenge_seed: u64,
    challenges: u64,
    recovery: Recovery,
    in_order: (LaneOut, InOrder),
    prompt: (LaneOut, Prompt),
    latest: (LatestOut, Latest),
    response: Option<(Route, u64)>,
    challenged_at: Option<Time>,
    ping_due: bool,
    /// Packets to acknowledge, when that is due, and when at the latest, whatever still comes.
    unacknowledged: u32,
    unacknowledged_messages: u32,
    ack_due: Option<Time>,
    ack_deadline: Time,
    opened_at: Time,
    /// When something sealed came last.
    heard_at: Option<Time>,
    /// When something went out last that asks for an acknowledgement.
    said_at: Time,
    resent: u64,
    body: Vec<u8>,
    /// When the peer was asked last, over the stream, for a sign of where it is.
    poked_at: Option<Time>,
    /// The data channel, if it runs in datagrams.
    data: Option<Box<Data>>,
}

impl Datagrams {
    /// From now on. A peer begins with a ping, by which the relay learns where it is.
    #[must_use]
    pub fn new(config: DatagramsConfig, now: Time) -> Self {
        let DatagramsConfig { side, shard, connection, keys, route, challenge_seed } = config;
        let (seal, open) = keys.of(side);
        Self {
            side,
            shard,
            connection,
            seal,
            open,
            next_number: 0,
            replay: ReplayWindow::default(),
            path: Path::new(route),
            challenge_seed,
            challenges: 0,
            recovery: Recovery::default(),
            in_order: Default::default(),
            prompt: Default::default(),
            latest: Default::default(),
            response: None,
            challenged_at: None,
            ping_due: side == Side::Peer,
            unacknowledged: 0,
            unacknowledged_messages: 0,
            ack_due: None,
            ack_deadline: now,
            opened_at: now,
            heard_at: None,
            said_at: now,
            resent: 0,
            body: Vec::new(),
            poked_at: None,
            data: None,
        }
    }

    /// A message to send.
    pub fn push_control(&mut self, message: &Message) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        encode_body(message, &mut body);
        match Lane::of(message) {
            Lane::InOrder => self.in_order.0.push(&body),
            Lane::Prompt => self.prompt.0.push(&body),
            Lane::Latest => self.latest.0.push(&body),
        }
        self.body = body;
    }

    /// Bytes of messages that wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.in_order.0.waiting_bytes() + self.prompt.0.waiting_bytes()
    }

    /// Every message has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_order.0.is_empty() && self.prompt.0.is_empty() && self.latest.0.is_empty()
    }

    /// Whether the other side was ever heard.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard_at.is_some()
    }

    /// Messages that had to be said again, since this was last asked.
    pub fn take_resent(&mut self) -> u64 {
        std::mem::take(&mut self.resent)
    }

    /// A datagram came from there. Its messages go to `handler`, unless they can't be taken now.
    ///
    /// # Errors
    /// A sealed datagram that breaks the protocol, or the handler's; the connection is of no
    /// further use.
    pub fn handle_datagram<E>(
        &mut self,
        now: Time,
        route: Route,
        datagram: &[u8],
        takes_messages: bool,
        handler: &mut impl FnMut(Message) -> Result<(), E>,
    ) -> Result<Received, DatagramError<E>> {
        let Some(header) = DatagramHeader::peek(datagram) else { return Ok(Received::Forged) };
        if header.connection != self.connection {
            return Ok(Received::Forged);
        }
        if !self.replay.is_new(header.number) {
            return Ok(Received::Replayed);
        }
        let Some(mut body) = self.open.open(datagram) else { return Ok(Received::Forged) };
        self.heard_at = Some(now);
        let is_newest = self.replay.is_newest(header.number);
        let (seed, count) = (self.challenge_seed, self.challenges);
        self.path.handle_source(now, route, is_newest, || token(seed, count));
        self.challenges += 1;
        let (mut is_refused, mut wants_ack) = (false, false);
        while let Some(frame) = next_frame(&mut body)? {
            wants_ack |= !matches!(
                frame,
                DatagramFrame::Ack(_)
                    | DatagramFrame::Challenge { .. }
                    | DatagramFrame::Response { .. }
            );
            match frame {
                DatagramFrame::Ping => {}
                DatagramFrame::Ack(ack) => self.handle_ack(now, &ack),
                DatagramFrame::Challenge { token } => {
                    (self.response, self.challenged_at) = (Some((route, token)), Some(now));
                }
                DatagramFrame::Response { token } => {
                    self.handle_response(route, token);
                }
                _ if !takes_messages => is_refused = true,
                message => {
                    self.unacknowledged_messages += 1;
                    self.handle_message(&message, handler)?;
                }
            }
        }
        if is_refused {
            // Not booked, so not acknowledged: it comes again, in another packet.
            return Ok(Received::Refused);
        }
        if wants_ack {
            self.plan_ack(now, header.number, is_newest);
        }
        self.replay.insert(header.number);
        Ok(Received::Taken)
    }

    fn handle_message<E>(
        &mut self,
        frame: &DatagramFrame<'_>,
        handler: &mut impl FnMut(Message) -> Result<(), E>,
    ) -> Result<(), DatagramError<E>> {
        let decode = |body: &[u8]| {
            decode_body(body).map_err(|error| DatagramError::Decode(DecodeError::Message(error)))
        };
        match *frame {
            DatagramFrame::InOrder { number, body } => {
                let lane = &mut self.in_order.1;
                if !lane.is_known(number)? {
                    lane.insert(number, decode(body)?);
                }
                while let Some(message) = lane.pop() {
                    handler(message).map_err(DatagramError::Handler)?;
                }
            }
            DatagramFrame::Prompt { number, body } if self.prompt.1.insert(number)? => {
                handler(decode(body)?).map_err(DatagramError::Handler)?;
            }
            DatagramFrame::Latest { number, body } if self.latest.1.insert(number) => {
                handler(decode(body)?).map_err(DatagramError::Handler)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_ack(&mut self, now: Time, ack: &relay_protocol::Ack) {
        if ack.largest >= self.next_number {
            // What was never sent can't have come; the seal says that it is the other side's bug.
            return;
        }
        let outcome = self.recovery.handle_ack(now, ack);
        self.in_order.0.handle_acked(&outcome.acked);
        self.prompt.0.handle_acked(&outcome.acked);
        self.latest.0.handle_acked(&outcome.acked);
        self.handle_lost(&outcome.lost);
    }

    fn handle_lost(&mut self, packets: &[u64]) {
        if packets.is_empty() {
            return;
        }
        self.resent += self.in_order.0.handle_lost(packets)
            + self.prompt.0.handle_lost(packets)
            + u64::from(self.latest.0.handle_lost(packets));
    }

    fn plan_ack(&mut self, now: Time, number: u64, is_newest: bool) {
        if self.ack_due.is_none() {
            self.ack_deadline = now + DATAGRAM_ACK_DELAY_MAX;
        }
        self.unacknowledged += 1;
        let is_disorder = !is_newest || self.replay.has_gap_before(number);
        let is_much = self.unacknowledged >= UNACKNOWLEDGED_MAX
            || self.unacknowledged_messages >= UNACKNOWLEDGED_MESSAGES_MAX;
        let due = if is_disorder || is_much {
            now
        } else {
            // In a flow one acknowledgement tells of many: each wakes the other side.
            self.ack_deadline.min(now + DATAGRAM_ACK_QUIET)
        };
        // What is due by now is not put off by what came since.
        let planned = self.ack_due.filter(|&planned| planned <= now);
        self.ack_due = Some(planned.unwrap_or(due));
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The other side can't be heard.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Silence> {
        let (given_up_at, silence) = self.silence();
        if given_up_at <= now {
            return Err(silence);
        }
        if self.side == Side::Peer && now.since(self.said_at) >= DATAGRAM_KEEPALIVE_INTERVAL {
            self.ping_due = true;
        }
        let lost = self.recovery.handle_timeout(now, self.heard_at.is_some());
        self.handle_lost(&lost);
        self.handle_data_timeout(now);
        Ok(())
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_transmit`] is due though nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let keepalive =
            (self.side == Side::Peer).then(|| self.said_at + DATAGRAM_KEEPALIVE_INTERVAL);
        let can_send = self.path.proven().is_some();
        let others = [
            keepalive,
            self.ack_due.filter(|_| can_send),
            self.recovery.poll_timeout(),
            self.path.poll_timeout(),
            self.poll_data_timeout(),
        ];
        others.into_iter().flatten().fold(self.silence().0, Time::min)
    }

    /// Whether [`Self::poll_transmit`] would give something.
    #[must_use]
    pub fn wants_transmit(&self, now: Time) -> bool {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.path.poll_timeout()) || self.response.is_some() {
            return true;
        }
        if self.path.proven().is_none() {
            return false;
        }
        is_due(self.ack_due) || self.wants_packet()
    }

    /// Whether a packet that asks for an acknowledgement is to be sent.
    fn wants_packet(&self) -> bool {
        let has_content = self.ping_due
            || self.latest.0.peek().is_some()
            || self.prompt.0.peek().is_some()
            || self.in_order.0.peek().is_some();
        self.recovery.wants_probe() || has_content && self.recovery.has_room()
    }

    /// Appends the next datagram to `out`; where to. Ask until there is none.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Route> {
        if let Some((route, token)) = self.path.poll_challenge(now) {
            self.seal_frame(DatagramFrame::Challenge { token }, out);
            return Some(route);
        }
        if let Some((route, token)) = self.response.take() {
            self.seal_frame(DatagramFrame::Response { token }, out);
            return Some(route);
        }
        let route = self.path.proven()?;
        let is_ack_due = self.ack_due.is_some_and(|due| due <= now);
        let wants_packet = self.wants_packet();
        if !is_ack_due && !wants_packet {
            return None;
        }
        let start = self.begin_packet(DatagramKind::Control, out);
        if self.unacknowledged > 0
            && let Some(ack) = self.replay.ack()
        {
            DatagramFrame::Ack(ack).encode(out);
            (self.unacknowledged, self.unacknowledged_messages, self.ack_due) = (0, 0, None);
        }
        if wants_packet {
            self.fill(start, out);
            self.recovery.handle_sent(now, self.next_number);
            self.said_at = now;
        }
        self.end_packet(start, out);
        Some(route)
    }

    /// Puts in what there is to say and fits, what must not wait first.
    fn fill(&mut self, start: usize, out: &mut Vec<u8>) {
        let packet = self.next_number;
        let end = start + DATAGRAM_HEADER_BYTES + DATAGRAM_BODY_BYTES_MAX;
        let fits =
            |out: &Vec<u8>, body: &[u8]| out.len() + MESSAGE_FRAME_HEADER_BYTES + body.len() <= end;
        let mut is_empty = true;
        while let Some((number, body)) = self.prompt.0.peek().filter(|(_, body)| fits(out, body)) {
            DatagramFrame::Prompt { number, body }.encode(out);
            self.prompt.0.handle_sent(number, packet);
            is_empty = false;
        }
        if let Some((number, body)) = self.latest.0.peek().filter(|(_, body)| fits(out, body)) {
            DatagramFrame::Latest { number, body }.encode(out);
            self.latest.0.handle_sent(packet);
            is_empty = false;
        }
        while let Some((number, body)) = self.in_order.0.peek().filter(|(_, body)| fits(out, body))
        {
            DatagramFrame::InOrder { number, body }.encode(out);
            self.in_order.0.handle_sent(number, packet);
            is_empty = false;
        }
        if is_empty || self.ping_due {
            // A probe with nothing to say, or the sign of life that was due.
            if out.len() < end {
                DatagramFrame::Ping.encode(out);
                self.ping_due = false;
            }
        }
    }

    fn seal_frame(&mut self, frame: DatagramFrame<'_>, out: &mut Vec<u8>) {
        const { assert!(PATH_FRAME_BYTES + ACK_FRAME_BYTES <= DATAGRAM_BODY_BYTES_MAX) };
        let start = self.begin_packet(DatagramKind::Control, out);
        frame.encode(out);
        self.end_packet(start, out);
    }

    fn begin_packet(&self, kind: DatagramKind, out: &mut Vec<u8>) -> usize {
        let header = DatagramHeader {
            shard: self.shard,
            kind,
            connection: self.connection,
            number: self.next_number,
        };
        let start = out.len();
        out.extend_from_slice(&header.encode());
        start
    }

    fn end_packet(&mut self, start: usize, out: &mut Vec<u8>) {
        self.seal.seal(out, start);
        self.next_number += 1;
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        self.recovery.invariants();
        self.in_order.0.invariants();
        self.prompt.0.invariants();
    }
}

/// A number that nobody can guess who does not know the seed.
fn token(seed: u64, count: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&count.to_le_bytes());
    let hash = hasher.finalize();
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
