//! Why a connection ends through the peer's fault. Pure.

use relay_protocol::{Failure, FailureCode};

/// Label of connections that the peer closed and said why.
const PEER_FAILED: &str = "peer_failed";

/// Why a connection ends through the peer's fault: what it is told, and the metric's label.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Fault {
    pub code: FailureCode,
    pub reason: &'static str,
    pub text: String,
}

impl Fault {
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self { code: FailureCode::Protocol, reason: "protocol", text: text.into() }
    }

    pub(crate) fn new(code: FailureCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self { code, reason, text: text.into() }
    }

    /// The peer said that it gives up, and why.
    pub(crate) fn of_peer(failure: &Failure) -> Self {
        let text = format!("the peer gave up: {}", failure.reason());
        Self::new(FailureCode::Protocol, PEER_FAILED, text)
    }

    /// Whether the peer was the one who closes.
    pub(crate) fn is_of_peer(&self) -> bool {
        self.reason == PEER_FAILED
    }

    pub(crate) fn failure(&self) -> Failure {
        Failure { code: self.code, text: self.text.clone() }
    }
}
