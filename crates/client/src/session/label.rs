//! The part of a session that tells the relay what to call the file. Pure, like the rest.
//!
//! A relay of an older build doesn't know the message, and ends the connection when it comes. It handles what
//! is said in order, so whatever it answers later than the label shows that it took that.

use super::{Session, SessionError};
use relay_protocol::{Failure, FailureCode, Message};

/// What the relay is told, and whether it minds.
#[derive(Debug, Default)]
pub(super) struct Label {
    text: Option<String>,
    /// It was told, and nothing shows yet that the relay took it.
    is_unanswered: bool,
}

impl Label {
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

impl Session {
    /// Has the file called so where people watch the relay; for a publisher. Before the first message is
    /// handled.
    #[must_use]
    pub fn with_label(mut self, text: Option<String>) -> Self {
        self.label.text = text;
        self
    }

    /// As soon as the peer was accepted.
    pub(super) fn say_label(&mut self) {
        if let Some(text) = self.label.text.take() {
            self.outbox.push(Message::Label { text });
            self.label.is_unanswered = true;
        }
    }
}
