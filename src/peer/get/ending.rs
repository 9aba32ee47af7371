//! What the end of a connection means: for the user, in words, and for the get, which may ask again.

use std::io;

use super::super::belief::Belief;
use crate::{
    client::{ConnectionError, SessionError, wrong_plain},
    protocol::FailureCode,
};

/// What ended the last peer, and what that means for the user.
pub(super) fn explain(belief: &Belief, error: &ConnectionError) -> String {
    if let Some(text) = belief.explain(error) {
        return text;
    }
    if let ConnectionError::Store { error, .. } = error
        && let Some(wrong) = wrong_plain(error)
    {
        return wrong.to_string();
    }
    let hint = match error {
        ConnectionError::Connect { .. } => ": is the relay running, and can this machine reach it?",
        ConnectionError::LookUp { .. } => {
            ": is the relay's name right, in the ticket or in --relay?"
        }
        ConnectionError::Io { .. } | ConnectionError::Closed(_) => ": is the relay still running?",
        ConnectionError::Store { error, .. } => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": make room",
            io::ErrorKind::FileTooLarge => ": allow larger files, or choose another place",
            io::ErrorKind::BrokenPipe => ": the program that read stdout has closed it",
            _ => "",
        },
        _ => "",
    };
    format!("{error}{hint}")
}

/// The relay gives up after a time of its own, and a full one may have room later; the user may have
/// given more. A publisher may come.
pub(super) fn is_worth_asking_again(error: &ConnectionError) -> bool {
    let is_transient = |code| {
        matches!(
            code,
            FailureCode::ChunksMissing | FailureCode::TooManyPeers | FailureCode::NotPublished
        )
    };
    code_of(error).is_some_and(is_transient)
}

/// What the relay said, if it did.
pub(super) fn code_of(error: &ConnectionError) -> Option<FailureCode> {
    match error {
        ConnectionError::Session { error: SessionError::Relay(failure), .. } => Some(failure.code),
        _ => None,
    }
}
