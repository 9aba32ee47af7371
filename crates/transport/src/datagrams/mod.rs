//! One end of the channels that run in datagrams: a connection of QUIC (RFC 9000) beside the stream.
//!
//! ```text
//!  push_control ─► lanes ────► streams of QUIC ─► poll_transmit        address: how a datagram finds its connection
//!  push_data ────► sends ────►     (quinn-proto)                       settings: what a connection may cost
//!  poll_message ◄─ lanes ◄────                 ◄─ handle_datagram      silence: how long it may last
//!  read_data ◄──── arrivals ◄─
//! ```
//!
//! QUIC numbers, seals, acknowledges and repeats, finds out what the path carries, and follows an address that
//! changes. Here is what it is used for: a stream for each lane of messages, and one for each chunk. The relay's identity
//! is the one of the stream beside ([`Identity`], [`Trust`]); the peer proves by a secret of that stream's TLS, bound to
//! QUIC's own TLS, that both are its own. Until then the relay takes and sends nothing.
//!
//! Opens no socket and reads no clock.

mod address;
mod arrivals;
mod data;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod instant;
mod lanes;
mod outcome;
mod outgoing;
mod proof;
mod quic;
mod reading;
mod sends;
mod settings;
mod silence;

use core::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectionError, DatagramEvent, Dir, Endpoint, Event, StreamEvent,
};

pub use self::{
    address::Address,
    outcome::{DataCounts, DatagramError, Received},
    outgoing::Transmission,
    sends::Given,
    settings::{CongestionControl, PathSettings},
    silence::Silence,
};
use self::{
    arrivals::Arrivals,
    instant::{instant, time},
    lanes::Lanes,
    outgoing::Outgoing,
    proof::Proof,
    quic::Quic,
    sends::Sends,
    silence::SignsOfLife,
};
use crate::{
    lane::Route,
    secure::{Identity, Trust},
};
use relay_protocol::{
    Channel, DecodeError, FrameError, Message, Side,
    limits::{DATAGRAM_ANSWER_TIMEOUT, DATAGRAM_SECRET_BYTES},
    time::Time,
};

/// What one side needs to know.
#[derive(Clone, Debug)]
pub struct DatagramsConfig {
    /// From the offer.
    pub address: Address,
    /// What both sides export of the stream's TLS session.
    pub secret: [u8; DATAGRAM_SECRET_BYTES],
    /// Which channels run in datagrams.
    pub channel: Channel,
    /// Of the path and the socket.
    pub path: PathSettings,
}

/// One end.
#[derive(Debug)]
pub struct Datagrams {
    link: Quic,
    channel: Channel,
    proof: Proof,
    lanes: Lanes,
    sends: Sends,
    arrivals: Arrivals,
    outgoing: Outgoing,
    signs: SignsOfLife,
    /// QUIC takes no more file bytes until something was acknowledged.
    is_full: bool,
    /// What QUIC was let keep, at most: messages go beyond that.
    window_bytes: u64,
    /// This side's limit of rates: no file bytes are read before.
    held_until: Time,
    /// What this side has asked for, if it says so.
    expected_bytes: u64,
}

impl Datagrams {
    /// The relay's end. It waits for its peer.
    #[must_use]
    pub fn accept(config: &DatagramsConfig, identity: &Identity, now: Time) -> Self {
        let server = settings::server(&identity.datagrams(), config.channel, &config.path);
        let endpoint = settings::endpoint(Side::Relay, config.address);
        let awaited = Some((config.address.first_id(&config.secret), Arc::clone(&server)));
        let endpoint = Endpoint::new(Arc::new(endpoint), Some(server), true, None);
        Self::new(Side::Relay, config, Quic::new(endpoint, None, awaited), now)
    }

    /// The peer's end, towards the relay at this host and address. It begins at once.
    ///
    /// # Panics
    /// The address has no port.
    #[must_use]
    pub fn connect(
        config: &DatagramsConfig,
        trust: &Trust,
        (host, remote): (&str, SocketAddr),
        now: Time,
    ) -> Self {
        let (crypto, name) = trust.datagrams(host);
        let client: ClientConfig = settings::client(
            crypto,
            config.address,
            &config.secret,
            (config.channel, &config.path),
        );
        let endpoint = settings::endpoint(Side::Peer, config.address);
        let mut endpoint = Endpoint::new(Arc::new(endpoint), None, true, None);
        let connection = endpoint.connect(instant(now), client, remote, &name);
        let connection = Some(connection.expect("a relay's address, and a name that was checked"));
        Self::new(Side::Peer, config, Quic::new(endpoint, connection, None), now)
    }

    fn new(side: Side, config: &DatagramsConfig, link: Quic, now: Time) -> Self {
        Self {
            link,
            channel: config.channel,
            proof: Proof::new(side, config.secret),
            lanes: Lanes::default(),
            sends: Sends::default(),
            arrivals: Arrivals::default(),
            outgoing: Outgoing::new(),
            signs: SignsOfLife::new(now),
            is_full: false,
            window_bytes: 0,
            held_until: Time::ZERO,
            expected_bytes: 0,
        }
    }

    /// Which channels run here.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// Whether both sides have proved themselves, as far as this one knows: what is pushed can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.proof.is_done
    }

    /// Whether the other side was ever heard.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard_at().is_some()
    }

    /// When something came last that the other side had sealed.
    #[must_use]
    pub fn heard_at(&self) -> Option<Time> {
        self.signs.heard_at()
    }

    /// When the other side last wanted a proof of where this one is.
    #[must_use]
    pub fn challenged_at(&self) -> Option<Time> {
        self.signs.challenged_at()
    }

    /// Says something, so that the other side learns where this one is.
    pub fn ping(&mut self) {
        if let Some((_, connection)) = &mut self.link.connection {
            connection.ping();
            self.outgoing.is_due = true;
        }
    }

    /// A datagram came from there. What it brought waits for [`Self::poll_message`] and [`Self::read_data`].
    ///
    /// # Errors
    /// [`DatagramError`] but for the handler's: the connection is of no further use.
    pub fn handle_datagram<E>(
        &mut self,
        now: Time,
        route: Route,
        datagram: &[u8],
    ) -> Result<Received, DatagramError<E>> {
        if !self.link.takes(datagram) {
            return Ok(Received::Ignored);
        }
        let before = self.link.frames_before();
        let mut reply = Vec::new();
        let (at, bytes) = (instant(now), BytesMut::from(datagram));
        let event =
            self.link.endpoint.handle(at, route.remote, route.local, None, bytes, &mut reply);
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some(connection) = self.link.connection() {
                    connection.handle_event(event);
                    self.outgoing.is_due = true;
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.link.begin(now, incoming),
            // What is not from the other side is not answered.
            Some(DatagramEvent::Response(_)) | None => {}
        }
        let frames = self.link.frames_received();
        if frames.all == before.all {
            self.turn()?;
            return Ok(Received::Ignored);
        }
        self.signs.handle_heard(now);
        if frames.challenges > before.challenges {
            self.signs.handle_challenged(now);
        }
        self.outgoing.handle_heard(route, self.link.remote());
        (self.is_full, self.outgoing.is_due) = (false, true);
        self.turn()?;
        Ok(Received::Taken)
    }

    /// Hands events of the library around.
    fn turn<E>(&mut self) -> Result<(), DatagramError<E>> {
        self.link.exchange();
        let Some((_, connection)) = &mut self.link.connection else { return Ok(()) };
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected if self.proof.side == Side::Peer => {
                    self.proof.say(connection, &mut self.lanes)?;
                }
                Event::ConnectionLost { reason } => self.link.lost = Some(reason),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    self.arrivals.handle_opened(connection);
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    self.lanes.handle_readable(id);
                    self.arrivals.handle_readable(id);
                }
                Event::Stream(StreamEvent::Finished { id }) => self.sends.handle_arrived(id),
                Event::Stream(StreamEvent::Stopped { .. }) => {
                    return Err(DatagramError::Frame(FrameError::Stopped));
                }
                _ => {}
            }
        }
        if !self.proof.is_done && self.proof.side == Side::Relay && !connection.is_handshaking() {
            self.proof.check(connection, &mut self.arrivals, &mut self.lanes)?;
        }
        if self.lanes.has_ended() {
            return Err(DatagramError::Frame(FrameError::Ended));
        }
        if self.proof.is_done
            && let Some(connection) = self.link.connection()
        {
            let takes_data = self.channel != Channel::Control;
            self.arrivals.sort(connection, &mut self.lanes, takes_data)?;
        }
        match self.link.lost.take() {
            None => Ok(()),
            Some(ConnectionError::TimedOut) => Err(DatagramError::Silence(SignsOfLife::ceased())),
            Some(reason) => Err(DatagramError::Lost(shown(&reason))),
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// As [`Self::handle_datagram`].
    pub fn handle_timeout<E>(&mut self, now: Time) -> Result<(), DatagramError<E>> {
        if self.proof.side == Side::Peer && self.signs.answer_due().is_some_and(|due| due <= now) {
            let silence = Silence::Unanswered(DATAGRAM_ANSWER_TIMEOUT);
            return Err(DatagramError::Silence(silence));
        }
        if let Some((_, connection)) = &mut self.link.connection {
            connection.handle_timeout(instant(now));
            self.outgoing.is_due = true;
        }
        self.turn()
    }

    /// When [`Self::handle_timeout`] is due though nothing happens.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        let answer = self.signs.answer_due().filter(|_| self.proof.side == Side::Peer);
        let of_quic = self.link.connection.as_mut().and_then(|(_, c)| c.poll_timeout()).map(time);
        let held =
            (self.held_until > Time::ZERO && self.arrivals.has_unread()).then_some(self.held_until);
        // Only a relay asks.
        let poke = self.signs.poke_due().filter(|_| self.proof.side == Side::Relay);
        [answer, of_quic, held, poke].into_iter().flatten().min()
    }

    /// Whether to ask the peer, over the stream, for a sign of where it is: it owes an answer for long, and may be
    /// elsewhere without knowing.
    pub fn poll_poke(&mut self, now: Time) -> bool {
        self.signs.poll_poke(now)
    }

    /// What became of data since the last time.
    pub fn take_counts(&mut self) -> DataCounts {
        let stats = self.link.connection.as_ref().map(|(_, c)| c.stats()).unwrap_or_default();
        self.outgoing.take_counts(&stats)
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        self.sends.invariants();
    }
}

/// Messages.
impl Datagrams {
    /// A message to send.
    pub fn push_control(&mut self, message: &Message) {
        self.lanes.push(message);
        self.outgoing.is_due = true;
    }

    /// Bytes of messages that QUIC has not taken.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.waiting_bytes()
    }

    /// The next message that came. Ask until there is none, or none can be taken.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub fn poll_message(&mut self) -> Result<Option<Message>, DecodeError> {
        if !self.proof.is_done {
            return Ok(None);
        }
        let Some((_, connection)) = &mut self.link.connection else { return Ok(None) };
        let message = self.lanes.poll(connection)?;
        // What was read makes room, of which the other side hears.
        self.outgoing.is_due |= message.is_some();
        Ok(message)
    }

    /// Messages may have come that were not asked for.
    #[must_use]
    pub fn has_unread_messages(&self) -> bool {
        self.proof.is_done && self.lanes.has_unread()
    }
}

/// What goes out.
impl Datagrams {
    /// Whether [`Self::poll_transmit`] may give something.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.outgoing.may_send() && self.outgoing.is_due
    }

    /// Appends the next datagrams to `out`, which is empty: at most `segments_max` of one length. Ask until there are
    /// none. [`Self::handle_unsent`] takes them back.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        segments_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmission> {
        if !self.wants_transmit() {
            return None;
        }
        let Some((_, connection)) = &mut self.link.connection else {
            // The peer has not come.
            self.outgoing.is_due = false;
            return None;
        };
        if self.proof.is_done {
            self.lanes.flush(connection);
        }
        let transmission = self.outgoing.poll(connection, now, segments_max, out);
        if self.outgoing.take_asked() {
            self.signs.handle_asked(now);
        }
        transmission
    }

    /// The system had no room for the datagrams that were polled last: they go first when it has, see
    /// [`Self::handle_writable`].
    pub fn handle_unsent(&mut self, transmission: Transmission, bytes: &mut Vec<u8>) {
        self.outgoing.handle_unsent(transmission, bytes);
    }

    /// The system has no room, as others have found: nothing is made before it has.
    pub fn handle_full(&mut self) {
        self.outgoing.handle_full();
    }

    /// Which of this side's sockets the other side uses.
    #[must_use]
    pub fn socket(&self) -> u8 {
        self.outgoing.socket()
    }

    /// The system may have room again.
    pub fn handle_writable(&mut self) {
        self.outgoing.handle_writable();
    }
}

/// Why a connection ended, in words of this side: the other's own could be any.
fn shown(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::ApplicationClosed(close) => {
            format!("the other side ended it with code {}", close.error_code)
        }
        ConnectionError::ConnectionClosed(close) => {
            format!("the other side ended it: {}", close.error_code)
        }
        ConnectionError::TransportError(error) => format!("{}", error.code),
        reason => reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
