//! What messages are called in errors.

use crate::protocol::Message;

/// A message's name, for errors.
pub(super) fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Welcome(_) => "Welcome",
        Message::Hello(_) => "Hello",
        Message::BitfieldPart { .. } => "BitfieldPart",
        Message::Accepted(_) => "Accepted",
        Message::ManifestRequest => "ManifestRequest",
        Message::ManifestPart { .. } => "ManifestPart",
        Message::ManifestRefused => "ManifestRefused",
        Message::Progress { .. } => "Progress",
        Message::Have { .. } => "Have",
        Message::Want { .. } => "Want",
        Message::Lacking { .. } => "Lacking",
        Message::Fetch { .. } => "Fetch",
        Message::CancelFetch { .. } => "CancelFetch",
        Message::FetchRefused { .. } => "FetchRefused",
        Message::Waiting { .. } => "Waiting",
        Message::SeedingDone => "SeedingDone",
        Message::Leaving => "Leaving",
        Message::LeaveGranted => "LeaveGranted",
        Message::StatsRequest => "StatsRequest",
        Message::Stats(_) => "Stats",
        Message::Ping { .. } => "Ping",
        Message::Pong { .. } => "Pong",
        Message::Failure(_) => "Failure",
        Message::SwarmStatusRequest => "SwarmStatusRequest",
        Message::SwarmStatus(_) => "SwarmStatus",
    }
}
