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
mod instant;
mod lanes;
mod outcome;
mod outgoing;
mod sends;
mod settings;
mod silence;

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, DatagramEvent, Dir, Endpoint, Event,
    Incoming, ServerConfig, StreamEvent,
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
    arrivals::{ArrivalError, Arrivals},
    instant::{instant, time},
    lanes::{KIND_OF_PROOF, Lanes},
    outgoing::Outgoing,
    sends::Sends,
    silence::SignsOfLife,
};
use crate::{
    lane::Route,
    payload::Payload,
    secure::{Identity, Trust},
    send_queue::{CutOff, SendEvent},
};
use relay_protocol::{
    Channel, DataPieceHeader, DecodeError, Message, Side,
    limits::{DATAGRAM_ANSWER_TIMEOUT, DATAGRAM_SECRET_BYTES},
    time::Time,
};

/// The label under which both sides export what binds the peer's proof to QUIC's TLS session.
const PROOF_LABEL: &[u8] = b"EXPORTER-psp-relay-datagrams-proof";

/// Bytes of the peer's proof.
const PROOF_BYTES: usize = blake3::OUT_LEN;

/// What QUIC may keep of chunks beyond what its congestion window lets through: so it never waits for more.
const GIVEN_AHEAD_BYTES: u64 = 128 << 10;

/// What QUIC takes of messages beside that.
const MESSAGES_BYTES: u64 = 64 << 10;

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
    /// This side's limit of rates: no file bytes are read before.
    held_until: Time,
}

/// The library's part.
struct Quic {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// The relay's, until its peer has come.
    awaited: Option<(ConnectionId, Arc<ServerConfig>)>,
    lost: Option<quinn_proto::ConnectionError>,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// That the peer is the one of the stream.
#[derive(Debug)]
struct Proof {
    side: Side,
    secret: [u8; DATAGRAM_SECRET_BYTES],
    /// What came of it, behind the byte that says what it is.
    came: Vec<u8>,
    /// The peer has said it, the relay has checked it.
    is_done: bool,
}

impl Datagrams {
    /// The relay's end. It waits for its peer.
    #[must_use]
    pub fn accept(config: &DatagramsConfig, identity: &Identity, now: Time) -> Self {
        let server = settings::server(&identity.datagrams(), &config.path);
        let endpoint = settings::endpoint(Side::Relay, config.address);
        let awaited = Some((config.address.first_id(&config.secret), Arc::clone(&server)));
        let endpoint = Endpoint::new(Arc::new(endpoint), Some(server), true, None);
        let link = Quic { endpoint, connection: None, awaited, lost: None };
        Self::new(Side::Relay, config, link, now)
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
        let client: ClientConfig =
            settings::client(crypto, config.address, &config.secret, &config.path);
        let endpoint = settings::endpoint(Side::Peer, config.address);
        let mut endpoint = Endpoint::new(Arc::new(endpoint), None, true, None);
        let connection = endpoint.connect(instant(now), client, remote, &name);
        let connection = Some(connection.expect("a relay's address, and a name that was checked"));
        Self::new(Side::Peer, config, Quic { endpoint, connection, awaited: None, lost: None }, now)
    }

    fn new(side: Side, config: &DatagramsConfig, link: Quic, now: Time) -> Self {
        let proof = Proof { side, secret: config.secret, came: Vec::new(), is_done: false };
        Self {
            link,
            channel: config.channel,
            proof,
            lanes: Lanes::default(),
            sends: Sends::default(),
            arrivals: Arrivals::default(),
            outgoing: Outgoing::new(),
            signs: SignsOfLife::new(now),
            is_full: false,
            held_until: Time::ZERO,
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
        let before = self.link.frames_received();
        let mut reply = Vec::new();
        let (at, bytes) = (instant(now), BytesMut::from(datagram));
        let event =
            self.link.endpoint.handle(at, route.remote, route.local, None, bytes, &mut reply);
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                let (_, connection) = self.link.connection.as_mut().expect("the only one");
                connection.handle_event(event);
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
                    let proof = self.proof.make(connection);
                    self.lanes.push_proof(connection, &proof.ok_or(DatagramError::Unproven)?);
                    self.proof.is_done = true;
                }
                Event::ConnectionLost { reason } => self.link.lost = Some(reason),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    self.arrivals.handle_opened(connection);
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    if !self.lanes.handle_readable(id) {
                        self.arrivals.handle_readable(id);
                    }
                }
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.sends.handle_arrived(id)
                }
                _ => {}
            }
        }
        if !self.proof.is_done && self.proof.side == Side::Relay {
            self.check_proof()?;
        }
        if self.proof.is_done
            && let Some(connection) = self.link.connection()
        {
            let takes_data = self.channel != Channel::Control;
            self.arrivals.sort(connection, &mut self.lanes, takes_data)?;
        }
        match self.link.lost.take() {
            None => Ok(()),
            Some(quinn_proto::ConnectionError::TimedOut) => {
                Err(DatagramError::Silence(SignsOfLife::ceased()))
            }
            Some(reason) => Err(DatagramError::Lost(reason.to_string())),
        }
    }

    /// Reads what the peer says first, as far as it has come.
    fn check_proof<E>(&mut self) -> Result<(), DatagramError<E>> {
        let Some((_, connection)) =
            self.link.connection.as_mut().filter(|(_, c)| !c.is_handshaking())
        else {
            return Ok(());
        };
        let Some(id) = self.arrivals.first() else { return Ok(()) };
        let came = &mut self.proof.came;
        while came.len() <= PROOF_BYTES
            && let Some(bytes) = lanes::read_ordered(connection, id, PROOF_BYTES + 1 - came.len())
        {
            came.extend_from_slice(&bytes);
        }
        if came.len() <= PROOF_BYTES {
            return Ok(());
        }
        let expected = self.proof.make(connection).map(blake3::Hash::from);
        let proof = <[u8; PROOF_BYTES]>::try_from(&self.proof.came[1..]).map(blake3::Hash::from);
        // Hashes are compared in constant time.
        if self.proof.came[0] != KIND_OF_PROOF || expected.is_none() || proof.ok() != expected {
            return Err(DatagramError::Unproven);
        }
        self.arrivals.hand_over_first(&mut self.lanes, KIND_OF_PROOF);
        (self.proof.is_done, self.proof.came) = (true, Vec::new());
        Ok(())
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
        [answer, of_quic, held, self.signs.poke_due()].into_iter().flatten().min()
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

/// File bytes.
impl Datagrams {
    /// A chunk from `offset` (a whole number of frames) on.
    ///
    /// # Panics
    /// If `offset` is not the start of a frame of this chunk.
    pub fn push_data(&mut self, payload: std::rc::Rc<Payload>, tag: u32, offset: u32) {
        self.sends.push(payload, tag, offset);
    }

    /// All data that was pushed has arrived, or was cut off.
    #[must_use]
    pub fn is_data_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        self.sends.poll_event()
    }

    /// Cuts off the send with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.cancel(self.link.connection(), tag)
    }

    /// Cuts off the send of this chunk, if there is one.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.recall(self.link.connection(), chunk)
    }

    /// Sends no more of this chunk, if there is a send of it: its receiver has spoken of it.
    pub fn drop_rest(&mut self, chunk: u32) -> Option<CutOff> {
        self.outgoing.is_due = true;
        self.sends.drop_rest(self.link.connection(), chunk)
    }

    /// Drops all sends: the connection is about to end.
    pub fn drop_data(&mut self) {
        self.sends.clear(self.link.connection());
    }

    /// File bytes of the smallest piece that could go next: the window must have room for them.
    #[must_use]
    pub fn next_piece_len(&self) -> Option<u32> {
        self.sends.next_piece_len()
    }

    /// Whether [`Self::give_data`] would give something.
    #[must_use]
    pub fn takes_data(&self, bytes_max: u64) -> bool {
        self.proof.is_done
            && !self.is_full
            && self.next_piece_len().is_some_and(|len| u64::from(len) <= bytes_max)
    }

    /// Gives QUIC file bytes to send, at most so many (the other side's window, which is the caller's business), as
    /// many as it may soon send.
    pub fn give_data(&mut self, bytes_max: u64) -> Given {
        if !self.takes_data(bytes_max) {
            return Given::default();
        }
        let Some((_, connection)) = &mut self.link.connection else { return Given::default() };
        let window = connection.congestion_state().window() + GIVEN_AHEAD_BYTES;
        connection.set_send_window(window);
        let given = self.sends.give(connection, bytes_max);
        connection.set_send_window(window + MESSAGES_BYTES);
        self.is_full = given.is_full;
        self.outgoing.is_due |= given.bytes > 0;
        given
    }

    /// Hands on pieces of chunks that came, with at most about so many file bytes; how many there were.
    ///
    /// # Errors
    /// The other side broke the protocol, or the handler's; the connection is of no further use.
    pub fn read_data<E>(
        &mut self,
        now: Time,
        bytes_max: u64,
        handler: &mut impl FnMut(DataPieceHeader, &[u8]) -> Result<(), E>,
    ) -> Result<u64, DatagramError<E>> {
        if !self.has_unread_data(now) {
            return Ok(0);
        }
        let Some(connection) = self.link.connection() else { return Ok(0) };
        let read = self.arrivals.read(connection, bytes_max, handler);
        self.outgoing.is_due = true;
        read.map_err(|error| match error {
            ArrivalError::Frame(error) => DatagramError::Frame(error),
            ArrivalError::Handler(error) => DatagramError::Handler(error),
        })
    }

    /// File bytes may have come that can be read now.
    #[must_use]
    pub fn has_unread_data(&self, now: Time) -> bool {
        self.proof.is_done && self.held_until <= now && self.arrivals.has_unread()
    }

    /// File bytes that the other side sent and took back, since this was last asked: they won't come.
    pub fn take_discarded(&mut self) -> u64 {
        self.arrivals.take_discarded()
    }

    /// This side limits its rate: it reads no file bytes before `until`, which holds the other side back.
    pub fn hold_data(&mut self, until: Time) {
        self.held_until = until;
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

impl Proof {
    /// What proves to the other end of QUIC's session that this one has the stream's secret.
    fn make(&self, connection: &Connection) -> Option<[u8; PROOF_BYTES]> {
        let mut session = [0; 32];
        let crypto = connection.crypto_session();
        crypto.export_keying_material(&mut session, PROOF_LABEL, &[]).ok()?;
        Some(*blake3::keyed_hash(&self.secret, &session).as_bytes())
    }
}

/// How many frames of the other side were read.
#[derive(Clone, Copy, Default)]
struct FramesReceived {
    all: u64,
    challenges: u64,
}

impl Quic {
    /// None before the other side has come.
    fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().map(|(_, connection)| connection)
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|(_, connection)| connection.remote_address())
    }

    /// A peer wants to begin: the one that was made an offer does, and no other.
    fn begin(&mut self, now: Time, incoming: Incoming) {
        let awaited = self.awaited.take_if(|(first_id, _)| incoming.orig_dst_cid() == first_id);
        let Some((first_id, server)) = awaited else { return self.endpoint.ignore(incoming) };
        let mut reply = Vec::new();
        match self.endpoint.accept(incoming, instant(now), &mut reply, Some(Arc::clone(&server))) {
            Ok(connection) => self.connection = Some(connection),
            // It was damaged on its way, or is another's: the right one may still come.
            Err(_) => self.awaited = Some((first_id, server)),
        }
    }

    /// Passes on what connection and endpoint have for each other.
    fn exchange(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
    }

    /// Frames are read of authentic packets only, and of each once.
    fn frames_received(&self) -> FramesReceived {
        let Some((_, connection)) = &self.connection else { return FramesReceived::default() };
        let stats = connection.stats().frame_rx;
        let all = stats.acks
            + stats.crypto
            + stats.ping
            + stats.stream
            + stats.reset_stream
            + stats.max_data
            + stats.max_stream_data
            + stats.max_streams_uni
            + stats.new_connection_id
            + stats.retire_connection_id
            + stats.data_blocked
            + stats.stream_data_blocked
            + stats.streams_blocked_uni
            + stats.stop_sending
            + u64::from(stats.handshake_done)
            + stats.path_challenge
            + stats.path_response
            + stats.connection_close;
        FramesReceived { all, challenges: stats.path_challenge }
    }
}

#[cfg(test)]
mod tests;
