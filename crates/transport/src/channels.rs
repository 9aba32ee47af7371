//! One end of a connection's two channels: the one place that knows which runs on what.
//!
//! Begins on the stream; a channel that runs in datagrams moves there once the handshake is over.
//! Does not own sockets: their owner writes, transmits, and hands in what came.

use std::{io, rc::Rc};

use shards::net::Socket;

use super::{
    datagrams::Datagrams,
    lane::Transport,
    payload::Payload,
    secure::{Secure, SecureError},
    send_queue::{CutOff, SendEvent, SendQueue, Written},
};
use relay_protocol::{
    Channel, DecodeError, Message, UploadKey,
    limits::{BINDING_BYTES, DATAGRAM_SECRET_BYTES},
};

/// What one connection has still to say and to send.
#[derive(Debug)]
pub struct Channels {
    secure: Secure,
    stream: SendQueue,
    datagrams: Option<Box<Datagrams>>,
}

impl Channels {
    /// Both channels on the stream, whose messages go under TLS. The preamble is to be written.
    #[must_use]
    pub fn new(secure: Secure) -> Self {
        let mut stream = SendQueue::new();
        stream.push_preamble();
        Self { secure, stream, datagrams: None }
    }

    /// Takes in some of what came in control frames, see [`Secure::open`].
    ///
    /// # Errors
    /// [`SecureError`].
    pub fn open(&mut self, input: &mut &[u8]) -> Result<bool, SecureError> {
        self.secure.open(input)
    }

    /// The next message that came in control frames.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub fn poll_message(&mut self) -> Result<Option<Message>, DecodeError> {
        self.secure.poll_message()
    }

    /// Once, when TLS has begun: what binds a proof to its session.
    pub fn poll_secured(&mut self) -> Option<[u8; BINDING_BYTES]> {
        self.secure.poll_secured()
    }

    /// Whether TLS has not begun.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.secure.is_handshaking()
    }

    /// What this connection's datagrams are proved by to belong to it, once TLS has begun.
    #[must_use]
    pub fn datagram_secret(&self) -> Option<[u8; DATAGRAM_SECRET_BYTES]> {
        self.secure.datagram_secret()
    }

    /// From now on the channels that they were opened for go in datagrams.
    pub fn open_datagrams(&mut self, datagrams: Datagrams) {
        self.datagrams = Some(Box::new(datagrams));
    }

    /// The pairing that it runs now.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.datagrams.as_ref().map(|datagrams| datagrams.channel()) {
            None => Transport::Tcp,
            Some(Channel::Data) => Transport::UdpData,
            Some(Channel::Control) => Transport::UdpControl,
            Some(Channel::Both) => Transport::Quic,
        }
    }

    /// The datagrams' state, if a channel runs in them.
    #[must_use]
    pub fn datagrams(&self) -> Option<&Datagrams> {
        self.datagrams.as_deref()
    }

    /// As [`Self::datagrams`], to feed and to ask.
    #[must_use]
    pub fn datagrams_mut(&mut self) -> Option<&mut Datagrams> {
        self.datagrams.as_deref_mut()
    }

    /// A control message. The last word goes by the stream, whose end follows it.
    pub fn push_control(&mut self, message: &Message) {
        match &mut self.datagrams {
            Some(datagrams)
                if datagrams.channel() != Channel::Data
                    && !matches!(message, Message::Failure(_)) =>
            {
                datagrams.push_control(message);
            }
            _ => self.secure.push(message),
        }
    }

    /// Bytes of control messages that wait to go out. The caller bounds them: it stops reading from
    /// a side that does not take its answers.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        let of_datagrams = self.datagrams.as_ref().map_or(0, |all| all.waiting_bytes());
        self.stream.control_bytes() + self.secure.said_bytes() + of_datagrams
    }

    /// A chunk from `offset` (a whole number of frames) on.
    pub fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        match self.data_mut() {
            Some(data) => data.push_data(payload, tag, offset),
            None => self.stream.push_data(payload, tag, offset),
        }
    }

    /// Nothing is left to write or, of data in datagrams, to be acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_stream_empty()
            && self.control_bytes() == 0
            && self.data().is_none_or(Datagrams::is_data_empty)
    }

    /// The datagrams, if data runs in them.
    #[must_use]
    pub fn data(&self) -> Option<&Datagrams> {
        self.datagrams().filter(|datagrams| datagrams.channel() != Channel::Control)
    }

    /// As [`Self::data`], to feed and to ask.
    #[must_use]
    pub fn data_mut(&mut self) -> Option<&mut Datagrams> {
        self.datagrams_mut().filter(|datagrams| datagrams.channel() != Channel::Control)
    }

    /// A message came over the stream.
    pub fn handle_streamed(&mut self, message: &Message) {
        if let (Message::Ping { .. }, Some(datagrams)) = (message, &mut self.datagrams) {
            // Asked over the stream, because datagrams are not answered.
            datagrams.ping();
        }
    }

    /// Asks a peer, over the stream, to say something in a datagram.
    pub fn poke(&mut self) {
        self.secure.push(&Message::Ping { token: 0 });
    }

    /// What makes the checksums of what the peer supplies on the stream; `None` before TLS has begun.
    #[must_use]
    pub fn upload_key(&self) -> Option<UploadKey> {
        self.secure.upload_key()
    }

    /// Nothing is left that could be written to the stream now: messages wait until TLS has begun.
    #[must_use]
    pub fn is_stream_empty(&self) -> bool {
        self.stream.is_empty() && !self.secure.wants_write()
    }

    /// Something other than data of a new frame is left for the stream: it may be written whatever
    /// the window.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        self.stream.has_urgent() || self.secure.wants_write()
    }

    /// File bytes of the frame that comes next.
    #[must_use]
    pub fn next_frame_len(&self) -> Option<u32> {
        self.stream.next_frame_len()
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        let of_datagrams = self.data_mut().and_then(Datagrams::poll_event);
        of_datagrams.or_else(|| self.stream.poll_event())
    }

    /// Cuts off the sends with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        let of_datagrams = self.data_mut().and_then(|data| data.cancel(tag));
        of_datagrams.or_else(|| self.stream.cancel(tag))
    }

    /// Cuts off the send of this chunk, if there is one, before its bytes are withdrawn.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        let of_datagrams = self.data_mut().and_then(|data| data.recall(chunk));
        of_datagrams.or_else(|| self.stream.recall(chunk))
    }

    /// Sends no more of this chunk, if there is a send of it, as its receiver has spoken of it: nothing
    /// will be sent again.
    pub fn drop_rest(&mut self, chunk: u32) -> Option<CutOff> {
        let of_datagrams = self.data_mut().and_then(|data| data.drop_rest(chunk));
        of_datagrams.or_else(|| self.stream.recall(chunk))
    }

    /// Drops all data but the rest of a half-written frame: the connection is about to end.
    pub fn drop_data(&mut self) {
        self.stream.drop_data();
        if let Some(data) = self.data_mut() {
            data.drop_data();
        }
    }

    /// Whether the stream's socket may refer to files of chunks.
    #[must_use]
    pub fn is_lending(&self) -> bool {
        self.stream.is_lending()
    }

    /// Lets go of files, see [`SendQueue::release`].
    pub fn release(&mut self, socket: &Socket, received_bytes: u64) {
        self.stream.release(socket, received_bytes);
    }

    /// One non-blocking gathered write to the stream, see [`SendQueue::write`].
    ///
    /// # Errors
    /// The system's; "would block" is not one.
    pub fn write(&mut self, socket: &Socket, data_bytes_max: u64) -> io::Result<Written> {
        if self.secure.wants_write() || self.secure.said_bytes() > 0 {
            self.secure.seal(self.stream.control_mut());
        }
        self.stream.write(socket, data_bytes_max)
    }
}
