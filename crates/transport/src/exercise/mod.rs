//! Drives what reads strangers' bytes by scripts of bytes: streams, manifests, tickets, and what the sessions'
//! own drivers need. Not part of a product build.
//!
//! A script is read as long as there is some; whatever it says, nothing may panic, and what is
//! asserted on the way must hold.

mod decoder;
mod identity;
mod script;

use relay_protocol::Event;

use self::decoder::FRAMES_PER_READ;
use crate::{receive_buffer::ReceiveBuffer, tcp::Reader};

pub use self::{
    decoder::decoder,
    identity::{manifest, ticket},
    script::Script,
};

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
