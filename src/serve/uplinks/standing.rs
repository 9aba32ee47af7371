//! What is known of the relay above, and what the log says of it: once, not for every swarm.

use std::{
    cell::{Cell, RefCell},
    thread,
    time::Duration,
};

use crate::{
    client::{ConnectionError, SessionError, Side},
    config::Upstream,
    protocol::FailureCode,
    time::Time,
};

/// The same reason is logged once in so long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Where the operator names the token that this relay proves.
const TOKEN_OPTION: &str = "--upstream-token-file";

/// What is known of the relay above, for the log.
pub(super) struct Standing {
    upstream: Upstream,
    is_away: Cell<bool>,
    was_met: Cell<bool>,
    /// The reason that was logged last, and when.
    said: RefCell<Option<(String, Time)>>,
}

impl Standing {
    pub(super) fn of(upstream: Upstream) -> Self {
        let (is_away, was_met) = (Cell::new(false), Cell::new(false));
        Self { upstream, is_away, was_met, said: RefCell::new(None) }
    }

    /// A swarm is joined there.
    pub(super) fn handle_accepted(&self) {
        if self.is_away.replace(false) {
            tracing::info!("the upstream relay {} is there again", self.upstream.relay);
        }
        if self.was_met.replace(true) {
            return;
        }
        // It is written to a disk, which no event loop waits for.
        let belief = self.upstream.belief.clone();
        let remember = move || match belief.remember() {
            Ok(None) => {}
            Ok(Some(text)) => tracing::info!("{text}"),
            Err(text) => tracing::error!("{text}"),
        };
        let thread = thread::Builder::new().name("relay-known".into()).spawn(remember);
        if let Err(error) = thread {
            tracing::warn!("the upstream relay is not remembered: {error}");
        }
    }

    pub(super) fn handle_disconnected(&self, error: &ConnectionError) {
        // One that waits for the publisher is there.
        if !error.is_not_published() && !self.is_away.replace(true) {
            tracing::warn!(
                "the upstream relay {} is away: {error}. Peers here go on with what they have together; it is tried \
                 again and again",
                self.upstream.relay
            );
        }
    }

    /// An uplink has ended, and is tried again later.
    pub(super) fn handle_ended(&self, now: Time, side: Side, error: &ConnectionError) {
        let text = match side {
            Side::Up => {
                let relay = &self.upstream.relay;
                let advice = advice(error);
                // What a peer's user would do is what this relay's operator has another option for.
                let why = error.to_string().replace("--token-file", TOKEN_OPTION);
                format!(
                    "the uplink to {relay} ended: {why}. Peers here are served by this relay alone{advice}"
                )
            }
            Side::Down => format!("this relay refuses its own uplink: {error}"),
        };
        let mut said = self.said.borrow_mut();
        let is_new =
            said.as_ref().is_none_or(|(before, at)| *before != text || now.since(*at) >= SAY_AGAIN);
        if is_new {
            tracing::warn!("{text}");
            *said = Some((text, now));
        }
    }
}

fn code_of(error: &ConnectionError) -> Option<FailureCode> {
    match error {
        ConnectionError::Session { error: SessionError::Relay(failure), .. } => Some(failure.code),
        _ => None,
    }
}

/// What to do about it.
fn advice(error: &ConnectionError) -> &'static str {
    match code_of(error) {
        Some(FailureCode::TokenRefused) => {
            ": give --upstream-token-file FILE with a token that may publish and get there"
        }
        Some(FailureCode::Protocol) => ": both relays must be of a release that knows uplinks",
        _ => "",
    }
}
