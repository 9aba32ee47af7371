//! A control channel in datagrams: one side of it, as a state machine.
//!
//! ```text
//!  push_control ─► lanes ─► frames ─► packets: number, seal ─► poll_transmit      path: where to
//!  handler ◄─ lanes ◄─ frames ◄─ packets: open, count once ◄─ handle_datagram    acknowledging: when
//!                                  recovery: acknowledged, lost, how much          silence: how long it may last
//! ```
//!
//! Pure: no socket, no clock, no randomness of its own. Datagrams that were not sealed with the
//! connection's key, or came before, change nothing and are answered by nothing. What is lost is
//! said again in a new packet until it is acknowledged; the round trip is estimated as RFC 6298
//! says. Does not carry file bytes.
//!
//! Invariant: what is kept for one connection is bounded: two lanes of at most
//! [`DATAGRAM_LANE_MAX`](relay_protocol::limits::DATAGRAM_LANE_MAX) messages each way, what the
//! caller pushes beyond, which it bounds by [`Datagrams::waiting_bytes`], and a number and a time
//! for each of at most 130 packets.

mod acknowledging;
mod data_channel;
mod lanes;
mod lanes_in;
mod lanes_out;
mod outcome;
mod packets;
mod path;
mod recovery;
mod rtt;
mod silence;

use self::{
    acknowledging::Acknowledging, data_channel::DataChannel, lanes::Lanes, packets::Packets,
    path::Path, recovery::Recovery, silence::SignsOfLife,
};
pub use self::{
    data_channel::DataTransmit,
    lanes_in::RunsAhead,
    outcome::{DatagramError, Received},
    silence::Silence,
};
use crate::{
    data::{CongestionControl, DataOut},
    lane::Route,
};
use relay_protocol::{
    Ack, DataPieceHeader, DatagramFrame, DatagramHeader, DatagramKeys, DatagramKind, Message, Side,
    datagram::{ACK_FRAME_BYTES, DATAGRAM_BODY_BYTES_MAX, DATAGRAM_HEADER_BYTES, PATH_FRAME_BYTES},
    next_frame,
    time::Time,
};

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
    packets: Packets,
    path: Path,
    lanes: Lanes,
    recovery: Recovery,
    acknowledging: Acknowledging,
    signs: SignsOfLife,
    /// The data channel, if it runs in datagrams.
    data: Option<Box<DataChannel>>,
}

impl Datagrams {
    /// From now on. A peer begins with a ping, by which the relay learns where it is.
    #[must_use]
    pub fn new(config: DatagramsConfig, now: Time) -> Self {
        let DatagramsConfig { side, shard, connection, keys, route, challenge_seed } = config;
        Self {
            packets: Packets::new(side, shard, connection, keys),
            path: Path::new(route, challenge_seed),
            lanes: Lanes::default(),
            recovery: Recovery::default(),
            acknowledging: Acknowledging::new(now),
            signs: SignsOfLife::new(side, now),
            data: None,
        }
    }

    /// A message to send.
    pub fn push_control(&mut self, message: &Message) {
        self.lanes.push(message);
    }

    /// Bytes of messages that wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.waiting_bytes()
    }

    /// Every message has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether the other side was ever heard.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard_at().is_some()
    }

    /// When something sealed came last.
    #[must_use]
    pub fn heard_at(&self) -> Option<Time> {
        self.signs.heard_at()
    }

    /// When the other side last wanted a proof of where this one is.
    #[must_use]
    pub fn challenged_at(&self) -> Option<Time> {
        self.path.challenged_at()
    }

    /// Messages that had to be said again, since this was last asked.
    pub fn take_resent(&mut self) -> u64 {
        self.lanes.take_resent()
    }

    /// Says something, so that the other side learns where this one is.
    pub fn ping(&mut self) {
        self.signs.want_ping();
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
        let (number, body) = match self.packets.open(datagram) {
            Ok(opened) => opened,
            Err(received) => return Ok(received),
        };
        let mut body = &*body;
        self.signs.handle_heard(now);
        self.path.handle_source(now, route, self.packets.is_newest(number));
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
                    self.path.handle_challenge(now, route, token);
                }
                DatagramFrame::Response { token } => self.handle_response(route, token),
                _ if !takes_messages => is_refused = true,
                message => {
                    self.acknowledging.handle_message();
                    self.lanes.handle_message(&message, handler)?;
                }
            }
        }
        if is_refused {
            // Not booked, so not acknowledged: it comes again, in another packet.
            return Ok(Received::Refused);
        }
        if wants_ack {
            self.acknowledging.handle_packet(now, self.packets.is_disorder(number));
        }
        self.packets.insert(number);
        Ok(Received::Taken)
    }

    fn handle_ack(&mut self, now: Time, ack: &Ack) {
        if ack.largest >= self.packets.next_number() {
            // What was never sent can't have come; the seal says that it is the other side's bug.
            return;
        }
        let outcome = self.recovery.handle_ack(now, ack);
        self.lanes.handle_acked(&outcome.acked);
        self.lanes.handle_lost(&outcome.lost);
    }

    /// The other side has proved that it is there.
    fn handle_response(&mut self, route: Route, token: u64) {
        let was_elsewhere = self.path.proven().is_some();
        if self.path.handle_response(route, token)
            && was_elsewhere
            && let Some(data) = &mut self.data
        {
            data.out.handle_path_changed();
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The other side can't be heard.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Silence> {
        self.signs.handle_timeout(now, self.recovery.timeouts())?;
        let lost = self.recovery.handle_timeout(now, self.has_heard());
        self.lanes.handle_lost(&lost);
        if let Some(data) = &mut self.data {
            data.out.handle_timeout(now);
            data.arrivals.handle_timeout(now);
        }
        Ok(())
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_transmit`] is due though nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let can_send = self.path.proven().is_some();
        let others = [
            self.signs.keepalive_at(),
            self.acknowledging.due().filter(|_| can_send),
            self.recovery.poll_timeout(),
            self.path.poll_timeout(),
            self.data().filter(|_| can_send).and_then(DataOut::poll_timeout),
            self.data.as_ref().and_then(|data| data.arrivals.held_until()),
        ];
        let (silent_at, _) = self.signs.silence(self.recovery.timeouts());
        others.into_iter().flatten().fold(silent_at, Time::min)
    }

    /// Whether [`Self::poll_transmit`] would give something.
    #[must_use]
    pub fn wants_transmit(&self, now: Time) -> bool {
        if self.path.poll_timeout().is_some_and(|at| at <= now) || self.path.has_response() {
            return true;
        }
        if self.path.proven().is_none() {
            return false;
        }
        self.acknowledging.is_due(now) || self.wants_packet()
    }

    /// Whether a packet that asks for an acknowledgement is to be sent.
    fn wants_packet(&self) -> bool {
        let has_content = self.signs.is_ping_due() || self.lanes.has_content();
        self.recovery.wants_probe() || has_content && self.recovery.has_room()
    }

    /// Appends the next datagram to `out`; where to. Ask until there is none.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Route> {
        if let Some((route, token)) = self.path.poll_challenge(now) {
            self.seal_frame(DatagramFrame::Challenge { token }, out);
            return Some(route);
        }
        if let Some((route, token)) = self.path.poll_response() {
            self.seal_frame(DatagramFrame::Response { token }, out);
            return Some(route);
        }
        let route = self.path.proven()?;
        let wants_packet = self.wants_packet();
        if !self.acknowledging.is_due(now) && !wants_packet {
            return None;
        }
        let start = self.packets.begin(DatagramKind::Control, out);
        if self.acknowledging.owes()
            && let Some(ack) = self.packets.ack()
        {
            DatagramFrame::Ack(ack).encode(out);
            self.acknowledging.handle_sent();
        }
        if wants_packet {
            self.fill(start, out);
            self.recovery.handle_sent(now, self.packets.next_number());
            self.signs.handle_said(now);
        }
        self.packets.end(start, out);
        Some(route)
    }

    /// Puts in what there is to say and fits.
    fn fill(&mut self, start: usize, out: &mut Vec<u8>) {
        let end = start + DATAGRAM_HEADER_BYTES + DATAGRAM_BODY_BYTES_MAX;
        let says_something = self.lanes.fill(self.packets.next_number(), end, out);
        // A probe with nothing to say, or the sign of life that was due.
        if (!says_something || self.signs.is_ping_due()) && out.len() < end {
            DatagramFrame::Ping.encode(out);
            self.signs.handle_ping_sent();
        }
    }

    fn seal_frame(&mut self, frame: DatagramFrame<'_>, out: &mut Vec<u8>) {
        const { assert!(PATH_FRAME_BYTES + ACK_FRAME_BYTES <= DATAGRAM_BODY_BYTES_MAX) };
        let start = self.packets.begin(DatagramKind::Control, out);
        frame.encode(out);
        self.packets.end(start, out);
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        self.recovery.invariants();
        self.lanes.invariants();
    }
}

/// The data channel, where that runs in datagrams.
impl Datagrams {
    /// The data channel runs in these datagrams, too. `room_bytes` is what this side's socket can
    /// hold of data that was not read yet.
    pub fn open_data(&mut self, control: CongestionControl, room_bytes: u32) {
        self.data = Some(Box::new(DataChannel::new(control, room_bytes)));
    }

    /// What is sent of chunks, if that runs in datagrams.
    #[must_use]
    pub fn data(&self) -> Option<&DataOut> {
        self.data.as_ref().map(|data| &data.out)
    }

    /// As [`Self::data`], to feed and to ask.
    #[must_use]
    pub fn data_mut(&mut self) -> Option<&mut DataOut> {
        self.data.as_mut().map(|data| &mut data.out)
    }

    /// What is to be said of data that has come; on the stream.
    pub fn poll_data_ack(&mut self) -> Option<Message> {
        self.data.as_mut()?.arrivals.poll_ack()
    }

    /// Something is to be said of data that has come.
    #[must_use]
    pub fn owes_data_ack(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.arrivals.is_empty())
    }

    /// This side limits its rate: the other sends no more before `until`, and is then told of `room_bytes` at most.
    pub fn hold_data(&mut self, now: Time, until: Time, room_bytes: u32) {
        if let Some(data) = &mut self.data {
            data.arrivals.hold(now, until, room_bytes);
        }
    }

    /// Time has passed: what was held back until now goes on.
    pub fn release_data(&mut self, now: Time) {
        if let Some(data) = &mut self.data {
            data.arrivals.handle_timeout(now);
        }
    }

    /// This side limits its rate no longer.
    pub fn unhold_data(&mut self) {
        if let Some(data) = &mut self.data {
            data.arrivals.unhold();
        }
    }

    /// A datagram of data came from there. Its piece goes to `handler`.
    ///
    /// # Errors
    /// A sealed datagram that breaks the protocol, or the handler's; the connection is of no
    /// further use.
    pub fn handle_data<E>(
        &mut self,
        now: Time,
        route: Route,
        datagram: &[u8],
        handler: &mut impl FnMut(DataPieceHeader, &[u8]) -> Result<(), E>,
    ) -> Result<Received, DatagramError<E>> {
        let header = DatagramHeader::peek(datagram);
        let is_data = header.is_some_and(|header| header.kind == DatagramKind::Data);
        let Some(data) = self.data.as_mut().filter(|_| is_data) else {
            return Ok(Received::Forged);
        };
        let (number, body) = match self.packets.open(datagram) {
            Ok(opened) => opened,
            Err(received) => return Ok(received),
        };
        self.signs.handle_heard(now);
        let piece = DataPieceHeader::decode(&body)?;
        self.path.handle_source(now, route, self.packets.is_newest(number));
        self.packets.insert(number);
        data.arrivals.handle_packet(number);
        if let Some((piece, bytes)) = piece {
            handler(piece, bytes).map_err(DatagramError::Handler)?;
        }
        Ok(Received::Taken)
    }

    /// Appends datagrams of data to `out`, which is empty: at most `segments_max` of one length,
    /// with at most `data_bytes_max` file bytes. Ask until there are none.
    pub fn poll_data(
        &mut self,
        now: Time,
        data_bytes_max: u64,
        segments_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<DataTransmit> {
        let route = self.path.proven()?;
        let most = (data_bytes_max, segments_max);
        self.data.as_mut()?.poll_transmit(now, route, &mut self.packets, most, out)
    }

    /// Whether [`Self::poll_data`] would give something. If it will by time alone,
    /// [`Self::poll_timeout`] says when.
    #[must_use]
    pub fn wants_data(&self, now: Time, data_bytes_max: u64) -> bool {
        let data = self.data.as_ref().filter(|_| self.path.proven().is_some());
        data.is_some_and(|data| data.wants_transmit(now, data_bytes_max))
    }

    /// Datagrams are not answered: the peer may be elsewhere without knowing, and has nothing to say
    /// by which the relay would learn where. Whether to ask it, over the stream, for a ping.
    pub fn poll_poke(&mut self, now: Time) -> bool {
        let of_data = self.data().map_or(0, DataOut::timeouts);
        self.signs.poll_poke(now, self.recovery.timeouts().max(of_data))
    }
}

#[cfg(test)]
mod tests;
