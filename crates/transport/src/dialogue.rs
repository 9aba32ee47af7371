//! One end of a stream for a side that waits for its socket itself: bytes in, bytes out.
//!
//! For programs that ask a few questions, and for tests. Bulk data goes through [`super::SendQueue`] and
//! [`super::Reader`], which copy none of it.

use super::secure::{Secure, SecureError};
use relay_protocol::{DecodeError, Decoder, Event, Message, Run, encode_preamble};

/// What was heard.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The other side's preamble.
    Preamble {
        /// Its version.
        version: u16,
    },
    /// TLS has begun.
    Secured,
    /// A message.
    Message(Message),
    /// File bytes.
    Data(Run<'a>),
}

/// Why nothing more can be heard.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError<E> {
    /// The other side sent what is not of the protocol.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// What is said is not what the other side sealed.
    #[error("{0}")]
    Secure(SecureError),
    /// The handler refused something.
    #[error("{0}")]
    Handler(E),
}

/// Both directions of a stream, without its socket.
#[derive(Debug)]
pub struct Dialogue {
    decoder: Decoder,
    secure: Secure,
    /// For the socket.
    out: Vec<u8>,
}

impl Dialogue {
    /// The preamble is to be written, and what begins TLS.
    #[must_use]
    pub fn new(mut secure: Secure) -> Self {
        let mut out = encode_preamble().to_vec();
        secure.seal(&mut out);
        Self { decoder: Decoder::new(), secure, out }
    }

    /// Says something, now or as soon as TLS has begun.
    pub fn say(&mut self, message: &Message) {
        self.secure.push(message);
        self.secure.seal(&mut self.out);
    }

    /// Says these bytes where messages are expected.
    #[cfg(any(test, feature = "exercise"))]
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        self.secure.push_said(bytes);
        self.secure.seal(&mut self.out);
    }

    /// Bytes for the socket.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// A data frame, as it is.
    #[cfg(any(test, feature = "exercise"))]
    pub fn push_frame(&mut self, frame: &[u8]) {
        self.out.extend_from_slice(frame);
    }

    /// What binds a token's proof to this connection, once TLS has begun.
    #[must_use]
    pub fn secure(&mut self) -> &mut Secure {
        &mut self.secure
    }

    /// Hands on what came from the socket. There may be bytes for it afterwards.
    ///
    /// # Errors
    /// What came makes no sense, or the handler's.
    pub fn hear<E>(
        &mut self,
        mut bytes: &[u8],
        handler: &mut impl FnMut(Heard<'_>) -> Result<(), E>,
    ) -> Result<(), DialogueError<E>> {
        let Self { decoder, secure, out } = self;
        let mut hand_on = |heard: Heard<'_>| handler(heard).map_err(DialogueError::Handler);
        while let Some(event) = decoder.decode(&mut bytes)? {
            let mut piece = match event {
                Event::Preamble { version } => {
                    hand_on(Heard::Preamble { version })?;
                    continue;
                }
                Event::Data(run) => {
                    hand_on(Heard::Data(run))?;
                    continue;
                }
                Event::Control(piece) => piece,
            };
            let was_handshaking = secure.is_handshaking();
            loop {
                let opened = secure.open(&mut piece);
                // An answer of the handshake, or why there is none.
                secure.seal(out);
                if !opened.map_err(DialogueError::Secure)? {
                    break;
                }
                if was_handshaking && !secure.is_handshaking() {
                    hand_on(Heard::Secured)?;
                }
                while let Some(message) = secure.poll_message()? {
                    hand_on(Heard::Message(message))?;
                }
            }
        }
        Ok(())
    }
}
