//! A relay's own counters, asked for over a connection that joins no swarm.
//!
//! Blocking, on the main thread, with a deadline for every step. Also tells whether what answers
//! at an address is a relay at all.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use relay::{
    protocol::{
        Claims, Failure, Hello, Message, Order, Stats, Token, TokenDemand, Welcome,
        limits::BINDING_BYTES,
    },
    transport::{Dialogue, DialogueError, Heard, SecureError, Trust, secure::WrongPin},
};

/// For connecting, and for each answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of one read: handshake and counters are a few hundred.
const READ_BYTES: usize = 4 << 10;

/// Why a relay gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    /// Nothing answers there.
    #[error("no relay answers at {0}: {1}")]
    Connect(SocketAddr, io::Error),
    /// It broke off.
    #[error("the relay at {0} broke off: {1}")]
    Io(SocketAddr, io::Error),
    /// Something else is there, or another version.
    #[error("what answers at {0} is no relay that this program can use: {1}")]
    Decode(SocketAddr, String),
    /// It has another key than the pin names.
    #[error(
        "the relay at {0} shows the pin {found}, and --relay names {expected}: an impostor answers, or it has a new \
         key: ask the relay's operator for the pin that `relay` prints",
        found = .1.found, expected = .1.expected
    )]
    WrongPin(SocketAddr, WrongPin),
    /// It said why not.
    #[error("the relay at {0} refuses: {text}", text = .1.reason())]
    Refused(SocketAddr, Failure),
    /// It wants a token.
    #[error("the relay at {0} wants a token: name one with --token-file")]
    TokenWanted(SocketAddr),
    /// It sent something that makes no sense now.
    #[error("the relay at {0} did not answer as the protocol says")]
    Unexpected(SocketAddr),
}

/// A connection for questions.
#[derive(Debug)]
pub(crate) struct Observer {
    remote: SocketAddr,
    stream: TcpStream,
    talk: Dialogue,
    welcome: Welcome,
    binding: [u8; BINDING_BYTES],
}

impl Observer {
    /// Connects and waits for the relay's welcome, which only a relay of this version sends.
    pub(crate) fn connect(remote: SocketAddr, trust: &Trust) -> Result<Self, StatsError> {
        let connect_error = |error| StatsError::Connect(remote, error);
        let stream = TcpStream::connect_timeout(&remote, STEP_TIMEOUT).map_err(connect_error)?;
        stream.set_read_timeout(Some(STEP_TIMEOUT)).map_err(connect_error)?;
        stream.set_write_timeout(Some(STEP_TIMEOUT)).map_err(connect_error)?;
        let welcome = Welcome { token_demand: TokenDemand::None, chunk_size_log2_max: 0 };
        let talk = Dialogue::new(trust.connect(&remote.ip().to_string()));
        let mut observer = Self { remote, stream, talk, welcome, binding: [0; BINDING_BYTES] };
        observer.write()?;
        match observer.read()? {
            Message::Welcome(welcome) => observer.welcome = welcome,
            _ => return Err(StatsError::Unexpected(remote)),
        }
        Ok(observer)
    }

    /// Binary logarithm of the largest chunk that the relay's cache is fit for.
    pub(crate) fn chunk_size_log2_max(&self) -> u8 {
        self.welcome.chunk_size_log2_max
    }

    /// Introduces itself, without a swarm, and asks for the counters.
    pub(crate) fn stats(mut self, token: Option<&Token>) -> Result<Stats, StatsError> {
        self.introduce(token)?;
        self.say(&Message::StatsRequest)?;
        match self.read()? {
            Message::Stats(stats) => Ok(*stats),
            _ => Err(StatsError::Unexpected(self.remote)),
        }
    }

    /// Introduces itself, and from then on asks for the counters without waiting for them.
    pub(crate) fn watch(mut self, token: Option<&Token>) -> Result<Watch, StatsError> {
        self.introduce(token)?;
        let nonblocking = self.stream.set_nonblocking(true);
        nonblocking.map_err(|error| StatsError::Io(self.remote, error))?;
        Ok(Watch { observer: self, is_asked: false })
    }

    fn introduce(&mut self, token: Option<&Token>) -> Result<(), StatsError> {
        let proof = match (self.welcome.token_demand, token) {
            (TokenDemand::None, _) => None,
            (_, Some(token)) => Some(token.proof(&self.binding)),
            (_, None) => return Err(StatsError::TokenWanted(self.remote)),
        };
        let hello =
            Hello { key: None, proof, claims: Claims::Nothing, order: Order::Relay, seeding: None };
        self.say(&Message::Hello(hello))?;
        match self.read()? {
            Message::Accepted(_) => Ok(()),
            _ => Err(StatsError::Unexpected(self.remote)),
        }
    }

    fn say(&mut self, message: &Message) -> Result<(), StatsError> {
        self.talk.say(message);
        self.write()
    }

    /// Writes what waits.
    fn write(&mut self) -> Result<(), StatsError> {
        let bytes = self.talk.take_out();
        self.stream.write_all(&bytes).map_err(|error| StatsError::Io(self.remote, error))
    }

    /// The next message; the relay sends none that isn't awaited, but may ping.
    fn read(&mut self) -> Result<Message, StatsError> {
        loop {
            if let Some(message) = self.read_some()? {
                return Ok(message);
            }
        }
    }

    /// What one read brings.
    fn read_some(&mut self) -> Result<Option<Message>, StatsError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let error = io::Error::other("it closed the connection without saying why");
                    return Err(StatsError::Io(self.remote, error));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StatsError::Io(self.remote, error)),
            };
            return self.take(&buffer[..count]);
        }
    }

    /// Answers come one at a time: what follows the first message can only be a ping.
    fn take(&mut self, input: &[u8]) -> Result<Option<Message>, StatsError> {
        let (remote, mut answer, mut pings) = (self.remote, None, Vec::new());
        let mut is_secured = false;
        let mut handler = |heard: Heard<'_>| match heard {
            Heard::Preamble { .. } => Ok(()),
            Heard::Secured => {
                is_secured = true;
                Ok(())
            }
            Heard::Message(Message::Ping { token }) => {
                pings.push(token);
                Ok(())
            }
            Heard::Message(Message::Failure(failure)) => Err(StatsError::Refused(remote, failure)),
            Heard::Message(message) if answer.is_none() => {
                answer = Some(message);
                Ok(())
            }
            Heard::Message(_) | Heard::Data(_) => Err(StatsError::Unexpected(remote)),
        };
        let heard = self.talk.hear(input, &mut handler);
        heard.map_err(|error| match error {
            DialogueError::Handler(error) => error,
            DialogueError::Secure(SecureError::WrongPin(wrong)) => {
                StatsError::WrongPin(remote, wrong)
            }
            error => StatsError::Decode(remote, error.to_string()),
        })?;
        if is_secured && let Some(binding) = self.talk.secure().poll_secured() {
            self.binding = binding;
        }
        for token in pings {
            self.talk.say(&Message::Pong { token });
        }
        self.write()?;
        Ok(answer)
    }
}

/// A relay's counters, again and again: each look asks for the next answer and takes the one that
/// came meanwhile.
#[derive(Debug)]
pub(crate) struct Watch {
    observer: Observer,
    is_asked: bool,
}

impl Watch {
    /// The answer to an earlier question, if it is there. Never waits.
    pub(crate) fn poll(&mut self) -> Result<Option<Stats>, StatsError> {
        let mut stats = None;
        if self.is_asked {
            match self.observer.read_some() {
                Ok(Some(Message::Stats(answer))) => stats = Some(*answer),
                Ok(Some(_)) => return Err(StatsError::Unexpected(self.observer.remote)),
                Ok(None) => return Ok(None),
                Err(StatsError::Io(_, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        self.observer.say(&Message::StatsRequest)?;
        self.is_asked = true;
        Ok(stats)
    }
}
