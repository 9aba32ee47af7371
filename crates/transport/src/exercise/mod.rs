//! Drives what reads strangers' bytes by scripts of bytes: streams, TLS, manifests, tickets, bundles, and what
//! the sessions' own drivers need. Not part of a product build.
//!
//! A script is read as long as there is some; whatever it says, nothing may panic, and what is
//! asserted on the way must hold.

mod decoder;
mod handshake;
mod identity;
mod relay;
mod script;
mod tree;

use relay_protocol::Event;

use self::decoder::FRAMES_PER_READ;
use crate::{dialogue::Heard, receive_buffer::ReceiveBuffer, secure::Secure, tcp::Reader};

pub use self::{
    decoder::decoder,
    handshake::handshake,
    identity::{manifest, ticket},
    relay::{other_identity, relay_identity},
    script::Script,
    tree::bundle,
};

/// Hears a stream as a connection does that reads all there is, without TLS around its messages.
#[derive(Debug)]
pub struct Ear {
    reader: Reader,
    buffer: ReceiveBuffer,
    secure: Secure,
}

impl Default for Ear {
    fn default() -> Self {
        let buffer = ReceiveBuffer::new(FRAMES_PER_READ);
        Self { reader: Reader::new(), buffer, secure: Secure::clear() }
    }
}

impl Ear {
    /// Hands on what the bytes mean; false once they mean nothing, or the handler has had enough.
    pub fn hear<E>(
        &mut self,
        bytes: &[u8],
        handler: &mut impl FnMut(Heard<'_>) -> Result<(), E>,
    ) -> bool {
        let secure = &mut self.secure;
        let mut hear = |event: Event<'_>| match event {
            Event::Preamble { version } => handler(Heard::Preamble { version }).map_err(drop),
            Event::Data(run) => handler(Heard::Data(run)).map_err(drop),
            Event::Control(mut piece) => {
                while secure.open(&mut piece).map_err(drop)? {
                    while let Some(message) = secure.poll_message().map_err(drop)? {
                        handler(Heard::Message(message)).map_err(drop)?;
                    }
                }
                Ok(())
            }
        };
        self.reader.take(bytes, &mut self.buffer, &mut hear).is_ok()
    }
}
