//! What can go wrong for a peer, and which of it another attempt may mend.

use std::{io, net::SocketAddr, time::Duration};

use super::{
    assembler::{AssembleError, WrongDigestCause},
    endpoint::Endpoint,
    proxy::ProxyError,
};
use relay_protocol::{
    DecodeError, Failure, FailureCode, ManifestError, RelayAddr,
    limits::{CHUNK_SIZE_LOG2_SLACK, FAILURE_TEXT_BYTES_MAX},
};
use relay_transport::SecureError;
use relay_units::bytes_text;

/// Why a session ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The relay sent a message that has no place here.
    #[error("the relay sent {message} while the session was {stage}")]
    Unexpected {
        /// Name of the message, or "data".
        message: &'static str,
        /// Name of the state.
        stage: &'static str,
    },
    /// What is said could not be secured, or is not what the relay sealed.
    #[error(transparent)]
    Secure(#[from] SecureError),
    /// The relay asks for a token and none was given.
    #[error("the relay wants a token and none was given: name one with --token-file")]
    TokenWanted,
    /// The file's chunks are too large for the relay's cache.
    #[error(
        "chunks of {} are too large for this relay's cache, which takes chunks of at most {}: give the \
         relay more --cache, or share the file with smaller chunks, which makes another ticket",
        bytes_text(1 << chunk_size_log2),
        bytes_text(1 << (chunk_size_log2_max + CHUNK_SIZE_LOG2_SLACK))
    )]
    ChunkTooLarge {
        /// Of the swarm key.
        chunk_size_log2: u8,
        /// What the relay recommends; it takes a little more.
        chunk_size_log2_max: u8,
    },
    /// The relay sent a list of digests that isn't this file's.
    #[error("the relay sent a wrong manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// The relay sent data that can't be accepted.
    #[error(transparent)]
    Data(#[from] AssembleError),
    /// The relay asked for a chunk that the file doesn't have, or for too many at once.
    #[error("the relay sent a fetch that can't be: {0}")]
    Fetch(&'static str),
    /// The relay didn't complete the handshake in time.
    #[error("the relay did not answer the handshake within {} s", .0.as_secs())]
    Silent(Duration),
    /// The relay closed when it was told what to call the file.
    #[error(
        "the relay does not take the label: share without --label, or update the relay (it says: {})",
        .0.reason()
    )]
    LabelRefused(Failure),
    /// The relay said why it closes.
    #[error("the relay closed the connection: {}", .0.reason())]
    Relay(Failure),
}

impl SessionError {
    /// Whether a new connection may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // A relay whose checksums are right and whose bytes are wrong would lie again; whether it was the path, the
            // next connections tell.
            Self::Data(AssembleError::WrongDigest { cause, .. }) => {
                *cause != WrongDigestCause::Sender
            }
            Self::Silent(_) => true,
            // A link that turned a bit may turn none next time. An alert while TLS begins would come again, but
            // for the relay that refuses what the link has turned; patience bounds how often it is tried.
            Self::Secure(error) => {
                matches!(error, SecureError::Damaged(_) | SecureError::Refused(_))
            }
            Self::Relay(failure) => match failure.code {
                FailureCode::TooManyPeers
                | FailureCode::Stalled
                | FailureCode::ShuttingDown
                | FailureCode::Internal
                | FailureCode::LinkCorrupt
                | FailureCode::DatagramsSilent
                | FailureCode::NotPublished => true,
                FailureCode::Protocol
                | FailureCode::TokenRefused
                | FailureCode::SwarmRefused
                | FailureCode::Banned
                | FailureCode::ChunksMissing
                | FailureCode::UplinkRefused
                | FailureCode::TransportRefused => false,
            },
            _ => false,
        }
    }

    /// Whether the peer may only get, and no peer that may publish the file has come yet.
    #[must_use]
    pub fn is_not_published(&self) -> bool {
        matches!(self, Self::Relay(failure) if failure.code == FailureCode::NotPublished)
    }

    /// What to tell the relay before closing; nothing if it closed, or knows by itself.
    #[must_use]
    pub fn to_failure(&self) -> Option<Failure> {
        let code = match self {
            Self::Relay(_)
            // TLS says so itself.
            | Self::Secure(_)
            | Self::LabelRefused(_)
            | Self::TokenWanted
            | Self::ChunkTooLarge { .. } => return None,
            Self::Data(AssembleError::WrongDigest { .. }) if self.is_transient() => {
                FailureCode::LinkCorrupt
            }
            _ => FailureCode::Protocol,
        };
        Some(Failure { code, text: failure_text(&self.to_string()) })
    }
}

/// Cuts a text to what a failure may carry, at a character's boundary.
fn failure_text(text: &str) -> String {
    text[..text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX)].to_owned()
}

/// Why a connection ended, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No connection could be made.
    #[error("could not connect to the relay at {remote}: {error}")]
    Connect {
        /// The relay.
        remote: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The relay's name has no address.
    #[error("could not find the address of the relay at {remote}: {error}")]
    LookUp {
        /// The relay.
        remote: RelayAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The proxy does not lead to the relay.
    #[error(transparent)]
    Proxy(Box<ProxyError>),
    /// The connection broke.
    #[error("the connection to the relay at {remote} broke: {error}")]
    Io {
        /// The relay.
        remote: Endpoint,
        /// The system's reason.
        error: io::Error,
    },
    /// The relay closed without a word.
    #[error("the relay at {0} closed the connection without saying why")]
    Closed(Endpoint),
    /// The relay's stream makes no sense, or is of another version.
    #[error("what answers at {remote} can't be used: {error}")]
    Decode {
        /// The relay.
        remote: Endpoint,
        /// What was wrong.
        error: DecodeError,
    },
    /// The session ended.
    #[error("{error} (relay at {remote})")]
    Session {
        /// The relay.
        remote: Endpoint,
        /// What ended it.
        error: SessionError,
    },
    /// Datagrams don't get through, though the stream does.
    #[error(
        "datagrams (UDP) to the relay at {remote} were not answered for {} s: a firewall may drop \
         them; use --transport tcp", .after.as_secs()
    )]
    DatagramsUnanswered {
        /// The relay.
        remote: Endpoint,
        /// How long they were tried.
        after: Duration,
    },
    /// The chunk store failed: no attempt at the relay will mend that.
    #[error("could not {what} chunk {chunk}: {error}")]
    Store {
        /// "read", "write" or "open".
        what: &'static str,
        /// The chunk's index.
        chunk: u32,
        /// The system's reason.
        error: io::Error,
    },
}

impl ConnectionError {
    /// Whether a new connection may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // An address that the system can't make sense of, and an interface that is not there.
            Self::Connect { error, .. } => error.kind() != io::ErrorKind::InvalidInput,
            Self::LookUp { error, .. } => error.kind() != io::ErrorKind::AddrNotAvailable,
            Self::Proxy(error) => error.fault.is_transient(),
            Self::Io { .. } | Self::Closed(_) => true,
            Self::Session { error, .. } => error.is_transient(),
            Self::Decode { .. } | Self::Store { .. } | Self::DatagramsUnanswered { .. } => false,
        }
    }

    /// Whether a chunk was wrong though its checksums fitted: the relay lied, or the path forged it.
    #[must_use]
    pub fn is_forgery(&self) -> bool {
        let cause = WrongDigestCause::Sender;
        matches!(self, Self::Session { error: SessionError::Data(AssembleError::WrongDigest { cause: found, .. }), .. }
            if *found == cause)
    }

    /// Whether the relay waits for a peer that may publish the file, as this one does then.
    #[must_use]
    pub fn is_not_published(&self) -> bool {
        matches!(self, Self::Session { error, .. } if error.is_not_published())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_protocol::Digest;

    #[test]
    fn a_damaged_chunk_is_worth_another_connection_and_a_lie_or_a_ban_is_not() {
        let wrong = |cause| SessionError::Data(AssembleError::WrongDigest { chunk: 1, cause });
        let code = |error: &SessionError| error.to_failure().expect("it is told").code;
        for cause in [WrongDigestCause::Link, WrongDigestCause::Unknown] {
            assert!(wrong(cause).is_transient());
            assert_eq!(code(&wrong(cause)), FailureCode::LinkCorrupt);
        }
        assert!(!wrong(WrongDigestCause::Sender).is_transient(), "a relay that lies is given up");
        assert_eq!(code(&wrong(WrongDigestCause::Sender)), FailureCode::Protocol);
        let failure = |code| SessionError::Relay(Failure { code, text: "so".into() });
        assert!(!failure(FailureCode::Banned).is_transient());
        assert!(failure(FailureCode::ShuttingDown).is_transient());
        assert!(failure(FailureCode::NotPublished).is_transient());
        assert!(failure(FailureCode::NotPublished).is_not_published());
        assert!(!failure(FailureCode::TokenRefused).is_not_published());
        let manifest = ManifestError::Mismatch { merged: Digest([0; 32]), id: Digest([1; 32]) };
        assert!(!SessionError::Manifest(manifest).is_transient());
    }

    #[test]
    fn failure_texts_fit_the_wire() {
        let text = "ä".repeat(FAILURE_TEXT_BYTES_MAX);
        assert!(failure_text(&text).len() <= FAILURE_TEXT_BYTES_MAX);
    }
}
