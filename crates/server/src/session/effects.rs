//! What a session wants done, in order, and why it ends through the peer's fault.

use std::{collections::VecDeque, sync::Arc};

use crate::message::{Join, VerifiedChunk};
use relay_protocol::{Accepted, Channel, Failure, FailureCode, Manifest, Message};
use relay_swarm::{FetchFailure, FetchId};
use relay_transport::SecureError;

/// What the shell must do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send it.
    Send(Message),
    /// Ask the home shard to let the peer join.
    Join(Box<Join>),
    /// Introduced, but joins no swarm.
    Observe,
    /// Offer datagrams, accept the peer, and go on with this channel in datagrams.
    AcceptInDatagrams(Accepted, Channel),
    /// Answer with the process's counters.
    Stats,
    /// A fetch ended.
    Fetched(FetchId, Result<VerifiedChunk, FetchFailure>),
    /// The manifest came, or did not.
    Manifest(Result<Arc<Manifest>, FetchFailure>),
}

/// Effects that wait for the shell.
#[derive(Debug, Default)]
pub(super) struct Effects {
    waiting: VecDeque<Effect>,
    /// The counters are among them.
    is_stats_due: bool,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.waiting.push_back(effect);
    }

    /// One answer serves all that were asked for in one read.
    pub(super) fn push_stats(&mut self) {
        if !std::mem::replace(&mut self.is_stats_due, true) {
            self.push(Effect::Stats);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        let effect = self.waiting.pop_front();
        self.is_stats_due &= !matches!(effect, Some(Effect::Stats));
        effect
    }

    /// All of them, as none is carried out any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.waiting.drain(..)
    }
}

/// Label of connections that the peer closed and said why.
const PEER_FAILED: &str = "peer_failed";

/// Label of connections that the peer closed in TLS: the relay is not the one that it expects.
const REFUSED: &str = "peer_refused";

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

    /// What came under TLS makes no sense, or TLS itself does not. Bytes that were damaged on the way are the
    /// link's fault, and look like that.
    pub(crate) fn of_secure(error: &SecureError) -> Self {
        match error {
            SecureError::Decode(error) => Self::protocol(error.to_string()),
            SecureError::Refused(_) => Self::new(FailureCode::Protocol, REFUSED, error.to_string()),
            error => Self::new(FailureCode::LinkCorrupt, "tls", error.to_string()),
        }
    }

    /// The peer said that it gives up, and why.
    pub(crate) fn of_peer(failure: &Failure) -> Self {
        let text = format!("the peer gave up: {}", failure.reason());
        Self::new(FailureCode::Protocol, PEER_FAILED, text)
    }

    /// Whether it is the peer that closes.
    pub(crate) fn is_of_peer(&self) -> bool {
        [PEER_FAILED, REFUSED].contains(&self.reason)
    }

    pub(crate) fn failure(&self) -> Failure {
        Failure { code: self.code, text: self.text.clone() }
    }
}
