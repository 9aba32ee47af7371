//! One end of a connection's two channels: the one place that knows which runs on what.
//!
//! Begins on the stream; a channel that runs in datagrams moves there once the handshake is over.
//! Does not own sockets: whoever holds them writes, transmits, and hands in what came.

use std::{io, rc::Rc};

use shards::net::Socket;

use super::{Datagrams, Payload, SendEvent, SendQueue, Transport, Written, send_queue::CutOff};
use crate::protocol::Message;

/// What one connection has still to say and to send.
#[derive(Debug, Default)]
pub struct Channels {
    stream: SendQueue,
    datagrams: Option<Box<Datagrams>>,
}

impl Channels {
    /// Both channels on the stream, nothing to write.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on control messages go in datagrams.
    pub fn open_datagrams(&mut self, datagrams: Datagrams) {
        self.datagrams = Some(Box::new(datagrams));
    }

    /// The pairing that it runs now.
    #[must_use]
    pub fn transport(&self) -> Transport {
        if self.datagrams.is_some() { Transport::UdpControl } else { Transport::Tcp }
    }

    /// The datagrams' state, if a channel runs in them.
    #[must_use]
    pub fn datagrams(&self) -> Option<&Datagrams> {
        self.datagrams.as_deref()
    }

    /// The same, to feed and to ask.
    #[must_use]
    pub fn datagrams_mut(&mut self) -> Option<&mut Datagrams> {
        self.datagrams.as_deref_mut()
    }

    /// The very first thing on a connection.
    pub fn push_preamble(&mut self) {
        self.stream.push_preamble();
    }

    /// A control message. The last word goes by the stream, whose end follows it.
    pub fn push_control(&mut self, message: &Message) {
        match &mut self.datagrams {
            Some(datagrams) if !matches!(message, Message::Failure(_)) => {
                datagrams.push_control(message);
            }
            _ => self.stream.push_control(message),
        }
    }

    /// Bytes of control messages that wait to go out. The caller bounds them: it stops reading from
    /// who does not take its answers.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        self.stream.control_bytes()
            + self.datagrams.as_ref().map_or(0, |datagrams| datagrams.waiting_bytes())
    }

    /// A chunk from `offset` (a whole number of frames) on.
    pub fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.stream.push_data(payload, tag, offset);
    }

    /// Nothing is left to write or, in datagrams, to be acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stream.is_empty()
            && self.datagrams.as_ref().is_none_or(|datagrams| datagrams.is_empty())
    }

    /// Nothing is left to write to the stream.
    #[must_use]
    pub fn is_stream_empty(&self) -> bool {
        self.stream.is_empty()
    }

    /// Something other than data of a new frame is left for the stream: it may be written whatever
    /// the window.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        self.stream.has_urgent()
    }

    /// File bytes of the frame that comes next.
    #[must_use]
    pub fn next_frame_len(&self) -> Option<u32> {
        self.stream.next_frame_len()
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        self.stream.poll_event()
    }

    /// Cuts off the sends with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.stream.cancel(tag)
    }

    /// Cuts off the send of this chunk, if there is one, before its bytes are withdrawn.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.stream.recall(chunk)
    }

    /// Drops all data but the rest of a half-written frame: the connection is about to end.
    pub fn drop_data(&mut self) {
        self.stream.drop_data();
    }

    /// One non-blocking gathered write to the stream, see [`SendQueue::write`].
    ///
    /// # Errors
    /// The system's; "would block" is not one.
    pub fn write(&mut self, socket: &Socket, data_bytes_max: u64) -> io::Result<Written> {
        self.stream.write(socket, data_bytes_max)
    }
}
