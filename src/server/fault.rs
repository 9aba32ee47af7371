//! What a peer did wrong: what it is told, and how it is counted. Our own bugs assert instead.

use crate::protocol::{Failure, FailureCode};

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

    pub(crate) fn failure(&self) -> Failure {
        Failure { code: self.code, text: self.text.clone() }
    }
}
