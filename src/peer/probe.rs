//! Asks a relay, before anything takes time, whether it takes us and how large its chunks may be.
//! A share of a large file would otherwise fail after an hour of hashing.
//!
//! The connection joins no swarm and ends when the answer is here.

use std::time::Duration;

use shards::{clock, net::Socket};

use crate::{
    client::{ConnectionError, Remote, SessionError},
    protocol::{
        Claims, Event, Hello, Message, Order, Seeding, Token, TokenDemand,
        limits::{BINDING_BYTES, HANDSHAKE_TIMEOUT},
    },
    transport::{
        Channels, ReadError, ReadOutcome, Reader, ReceiveBuffer, Secure, SecureError, Trust,
    },
};

/// Between attempts.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Binary logarithm of the chunk size that the relay recommends at most. Tries for `patience`
/// where another attempt may go better; `waits` is called once, when the first has failed.
///
/// # Errors
/// The last attempt's.
pub(super) async fn probe(
    remote: &Remote,
    trust: &Trust,
    token: Option<&Token>,
    patience: Duration,
    waits: impl FnOnce(&ConnectionError),
) -> Result<u8, ConnectionError> {
    let give_up_at = clock::now() + patience;
    let mut waits = Some(waits);
    loop {
        let error = match attempt(remote, trust, token).await {
            Ok(chunk_size_log2_max) => return Ok(chunk_size_log2_max),
            Err(error) => error,
        };
        if !error.is_transient() || clock::now() >= give_up_at {
            return Err(error);
        }
        if let Some(waits) = waits.take() {
            waits(&error);
        }
        clock::sleep(RETRY_AFTER).await;
    }
}

async fn attempt(
    relay: &Remote,
    trust: &Trust,
    token: Option<&Token>,
) -> Result<u8, ConnectionError> {
    let (socket, remote) = relay.connect().await?;
    let binding = [0; BINDING_BYTES];
    let mut handshake = Handshake { token, binding, chunk_size_log2_max: None, accepted: false };
    let secure = trust.connect(&relay.host());
    let session_error = |error| ConnectionError::Session { remote: remote.clone(), error };
    let answered = clock::timeout(HANDSHAKE_TIMEOUT, handshake.run(&socket, secure)).await;
    match answered {
        None => Err(session_error(SessionError::Silent(HANDSHAKE_TIMEOUT))),
        Some(Ok(Some(chunk_size_log2_max))) => Ok(chunk_size_log2_max),
        Some(Ok(None)) => Err(ConnectionError::Closed(remote)),
        Some(Err(ReadError::Io(error))) => Err(ConnectionError::Io { remote, error }),
        Some(Err(ReadError::Decode(error))) => Err(ConnectionError::Decode { remote, error }),
        Some(Err(ReadError::Handler(error))) => Err(session_error(error)),
    }
}

struct Handshake<'a> {
    token: Option<&'a Token>,
    binding: [u8; BINDING_BYTES],
    chunk_size_log2_max: Option<u8>,
    accepted: bool,
}

impl Handshake<'_> {
    /// Until the relay has accepted; `None` if it closes before.
    async fn run(
        &mut self,
        socket: &Socket,
        secure: Secure,
    ) -> Result<Option<u8>, ReadError<SessionError>> {
        let mut queue = Channels::new(secure);
        let (mut reader, mut buffer) = (Reader::new(), ReceiveBuffer::new(0));
        while !self.accepted {
            // A few hundred bytes into an empty socket: all of it fits.
            queue.write(socket, 0).map_err(ReadError::Io)?;
            socket.readable().await.map_err(ReadError::Io)?;
            let outcome = reader.read(socket, &mut buffer, &mut |event| match event {
                Event::Preamble { .. } => Ok(()),
                Event::Control(piece) => self.handle_sealed(piece, &mut queue),
                Event::Data(_) => Err(unexpected("data")),
            })?;
            if outcome == ReadOutcome::Closed {
                return Ok(None);
            }
        }
        Ok(self.chunk_size_log2_max)
    }

    fn handle_sealed(
        &mut self,
        mut piece: &[u8],
        queue: &mut Channels,
    ) -> Result<(), SessionError> {
        while queue.open(&mut piece)? {
            if let Some(binding) = queue.poll_secured() {
                self.binding = binding;
            }
            while let Some(message) = queue.poll_message().map_err(SecureError::from)? {
                self.handle(message, queue)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Message, queue: &mut Channels) -> Result<(), SessionError> {
        match message {
            Message::Welcome(welcome) => {
                let proof = match (welcome.token_demand, self.token) {
                    (TokenDemand::None, _) => None,
                    (_, Some(token)) => Some(token.proof(&self.binding)),
                    (_, None) => return Err(SessionError::TokenWanted),
                };
                self.chunk_size_log2_max = Some(welcome.chunk_size_log2_max);
                let (claims, order) = (Claims::Nothing, Order::Relay);
                // So that the relay says now if the token may not publish.
                let seeding = Some(Seeding::Origin);
                let hello = Hello { key: None, proof, claims, order, seeding };
                queue.push_control(&Message::Hello(hello));
                Ok(())
            }
            Message::Accepted(_) => {
                self.accepted = true;
                Ok(())
            }
            Message::Ping { token } => {
                queue.push_control(&Message::Pong { token });
                Ok(())
            }
            Message::Failure(failure) => Err(SessionError::Relay(failure)),
            _ => Err(unexpected("a message of a swarm")),
        }
    }
}

fn unexpected(message: &'static str) -> SessionError {
    SessionError::Unexpected { message, stage: "being probed" }
}
