//! How a session begins: greeting, welcome, hello, consent, and what they settle for the rest of it.
//!
//! Pure. What is said is put together in [`super`]; this knows what may come when.

use std::time::Duration;

use crate::error::SessionError;
use relay_protocol::{
    Channel, DatagramOffer, Failure, FailureCode, Token, TokenDemand, Welcome,
    limits::{BINDING_BYTES, CHUNK_SIZE_LOG2_SLACK, HANDSHAKE_TIMEOUT},
    time::Time,
};

/// How far the handshake is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Waits for the relay's preamble.
    Greeting,
    /// Waits for the relay's welcome.
    Challenged,
    /// Waits for the relay's consent.
    Introduced,
    /// Takes part.
    Joined,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Greeting => "waiting for the preamble",
            Self::Challenged => "waiting for the welcome",
            Self::Introduced => "waiting to be accepted",
            Self::Joined => "joined",
        }
    }
}

/// What the relay's consent settles.
#[derive(Debug)]
pub(super) struct Consent {
    /// From the hello to the consent.
    pub(super) round_trip: Duration,
    /// Of the channel that was asked for in datagrams.
    pub(super) offer: Option<DatagramOffer>,
}

/// The handshake of one connection.
#[derive(Debug)]
pub(super) struct Handshake {
    stage: Stage,
    deadline: Time,
    /// When the hello was ready to be sent.
    introduced_at: Option<Time>,
    /// The channel that is to run in datagrams.
    channel: Option<Channel>,
    offer: Option<DatagramOffer>,
    /// What binds a token's proof to this connection; zeros before TLS has begun, when no welcome can come.
    binding: [u8; BINDING_BYTES],
    /// Of the largest chunk that the relay recommends; 0 until it has said so.
    chunk_size_log2_max: u8,
}

impl Handshake {
    /// Begins now.
    pub(super) fn new(now: Time) -> Self {
        Self {
            stage: Stage::Greeting,
            deadline: now + HANDSHAKE_TIMEOUT,
            introduced_at: None,
            channel: None,
            offer: None,
            binding: [0; BINDING_BYTES],
            chunk_size_log2_max: 0,
        }
    }

    /// Asks for this channel in datagrams. Before the first message is handled.
    pub(super) fn ask_for_datagrams(&mut self, channel: Option<Channel>) {
        self.channel = channel;
    }

    /// How far it is.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the relay has accepted the peer.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Joined
    }

    /// The channel that runs in datagrams, or is to.
    pub(super) fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// Binary logarithm of the largest chunk that the relay recommends; 0 until it has said so.
    pub(super) fn chunk_size_log2_max(&self) -> u8 {
        self.chunk_size_log2_max
    }

    /// TLS has begun: what binds a token's proof to it.
    pub(super) fn handle_secured(&mut self, binding: [u8; BINDING_BYTES]) {
        self.binding = binding;
    }

    /// The hello is ready to be sent.
    pub(super) fn handle_introduced(&mut self, now: Time) {
        self.introduced_at = Some(now);
    }

    /// The relay's preamble was right.
    pub(super) fn handle_preamble(&mut self) -> Result<(), SessionError> {
        if self.stage != Stage::Greeting {
            return Err(self.unexpected("a preamble"));
        }
        self.stage = Stage::Challenged;
        Ok(())
    }

    /// The relay's welcome; the proof of the token, if it wants one.
    pub(super) fn handle_welcome(
        &mut self,
        welcome: &Welcome,
        chunk_size_log2: u8,
        token: Option<&Token>,
        publishes: bool,
    ) -> Result<Option<[u8; 32]>, SessionError> {
        let chunk_size_log2_max = welcome.chunk_size_log2_max;
        if chunk_size_log2 > chunk_size_log2_max + CHUNK_SIZE_LOG2_SLACK {
            return Err(SessionError::ChunkTooLarge { chunk_size_log2, chunk_size_log2_max });
        }
        self.chunk_size_log2_max = chunk_size_log2_max;
        let proof = match (welcome.token_demand, token) {
            (TokenDemand::None, _) => None,
            (_, Some(token)) => Some(token.proof(&self.binding)),
            (TokenDemand::ToPublish, None) if !publishes => None,
            (_, None) => return Err(SessionError::TokenWanted),
        };
        self.stage = Stage::Introduced;
        Ok(proof)
    }

    /// How the relay's datagrams are found.
    pub(super) fn handle_offer(&mut self, offer: DatagramOffer) -> Result<(), SessionError> {
        if self.channel.is_none() || self.offer.is_some() {
            return Err(self.unexpected("a DatagramOffer that was not asked for"));
        }
        self.offer = Some(offer);
        Ok(())
    }

    /// The relay accepts the peer: what was asked for must have been offered.
    pub(super) fn handle_accepted(&mut self, now: Time) -> Result<Consent, SessionError> {
        let offer = self.offer.take();
        if self.channel.is_some() && offer.is_none() {
            return Err(self.unexpected("Accepted without the DatagramOffer"));
        }
        self.stage = Stage::Joined;
        let round_trip = self.introduced_at.map_or(Duration::ZERO, |at| now.since(at));
        Ok(Consent { round_trip, offer })
    }

    /// When [`Self::handle_timeout`] is due, unless the handshake is over.
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.is_over()).then_some(self.deadline)
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&self, now: Time) -> Result<(), SessionError> {
        match self.deadline() {
            Some(deadline) if now >= deadline => Err(SessionError::Silent(HANDSHAKE_TIMEOUT)),
            _ => Ok(()),
        }
    }

    /// A message that has no place in this stage.
    pub(super) fn unexpected(&self, message: &'static str) -> SessionError {
        SessionError::Unexpected { message, stage: self.stage.name() }
    }
}

/// What the relay is told to call the file, and whether it minds.
///
/// A relay of an older build doesn't know the message, and ends the connection when it comes. It handles what
/// is said in order, so whatever it answers later than the label shows that it took that.
#[derive(Debug, Default)]
pub(super) struct Label {
    text: Option<String>,
    /// It was told, and nothing shows yet that the relay took it.
    is_unanswered: bool,
}

impl Label {
    /// Still to be told, if there is a text.
    pub(super) fn new(text: Option<String>) -> Self {
        Self { text, is_unanswered: false }
    }

    /// The text to tell now, once.
    pub(super) fn take(&mut self) -> Option<String> {
        let text = self.text.take();
        self.is_unanswered |= text.is_some();
        text
    }

    /// The relay has answered what was asked after the label.
    pub(super) fn handle_answer(&mut self) {
        self.is_unanswered = false;
    }

    /// Why the session ends, of which the relay says this.
    pub(super) fn error(&self, failure: Failure) -> SessionError {
        match failure.code {
            FailureCode::Protocol if self.is_unanswered => SessionError::LabelRefused(failure),
            _ => SessionError::Relay(failure),
        }
    }
}
