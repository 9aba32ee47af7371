//! Drives what reads strangers' bytes by scripts of bytes: streams, manifests, tickets, and what the sessions'
//! own drivers need. Not part of a product build.
//!
//! A script is read as long as there is some; whatever it says, nothing may panic, and what is
//! asserted on the way must hold.

mod decoder;
mod manifest;
mod ticket;

use relay_protocol::{CONTROL_HEADER_BYTES, Event, limits::CONTROL_BODY_BYTES_MAX};

use crate::{Reader, ReceiveBuffer};

pub use self::{decoder::decoder, manifest::manifest, ticket::ticket};

/// A script, read from its beginning; at its end everything is zero.
#[derive(Debug)]
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// Nothing is left of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes; fewer at the end.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next four bytes.
    pub fn number(&mut self) -> u32 {
        let mut number = [0; 4];
        let taken = self.bytes(4);
        number[..taken.len()].copy_from_slice(taken);
        u32::from_le_bytes(number)
    }

    /// Small numbers mostly, now and then a huge one.
    pub fn count(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::from(self.number()) << 32 | u64::from(self.number()),
            0xfe => self.number().into(),
            small => u64::from(small) << 12,
        }
    }

    /// A control frame whose body the script writes; its header is right.
    pub fn control(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()) * 5 % CONTROL_BODY_BYTES_MAX + 1;
        let body = self.bytes(len);
        let length = u16::try_from(body.len()).expect("a body is short").to_le_bytes();
        let mut frame = Vec::with_capacity(CONTROL_HEADER_BYTES + body.len());
        frame.extend_from_slice(&[1, 0, length[0], length[1]]);
        frame.extend_from_slice(body);
        frame
    }
}

/// Frames of one read, at most.
const FRAMES_PER_READ: usize = 4;

/// Hears a stream as a connection does that reads all there is.
#[derive(Debug)]
pub struct Ear {
    reader: Reader,
    buffer: ReceiveBuffer,
}

impl Default for Ear {
    fn default() -> Self {
        Self { reader: Reader::new(), buffer: ReceiveBuffer::new(FRAMES_PER_READ) }
    }
}

impl Ear {
    /// Hands on what the bytes mean; false once they mean nothing, or the handler has had enough.
    pub fn hear<E>(
        &mut self,
        bytes: &[u8],
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> bool {
        self.reader.take(bytes, &mut self.buffer, handler).is_ok()
    }
}
