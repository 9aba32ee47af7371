//! What can be wrong with a ticket, in the words that its user reads. None of them repeats any of it.

use super::relay_addr::RelayAddrError;
use crate::{
    key::KeyError,
    limits::{TICKET_CHARS_MAX, TICKET_NAME_BYTES_MAX, TICKET_RELAYS_MAX},
};

/// Why a text is not a ticket that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// It is something else.
    #[error(
        "this is not a ticket: a ticket begins with relay2 or relay1; copy the line that `peer share` printed"
    )]
    NotATicket,
    /// A newer program wrote it.
    #[error(
        "this ticket is of version {0}, this program reads versions 1 and 2: use the program that \
         made it, or a newer one"
    )]
    Version(char),
    /// It is longer than any.
    #[error(
        "the ticket is damaged: it is longer than {TICKET_CHARS_MAX} characters; copy it again"
    )]
    TooLong,
    /// A character that no ticket holds.
    #[error("the ticket is damaged: it holds the character {0:?}; copy it again")]
    Character(char),
    /// Something is missing or was altered.
    #[error("the ticket is damaged: {0}; copy it again, whole")]
    Damaged(&'static str),
    /// The checksum is right, the content makes no sense: its writer is at fault.
    #[error("the ticket names no file that can be: {0}; ask for a new one")]
    Key(#[from] KeyError),
    /// The ticket's address of a relay can't be one.
    #[error("the ticket names no relay: {0}; ask for a new one")]
    Relay(#[from] RelayAddrError),
    /// There is none to ask, or more than a ticket holds.
    #[error(
        "the ticket names {0} relays, and a ticket names 1 to {TICKET_RELAYS_MAX}; ask for a new one"
    )]
    RelayCount(usize),
    /// A newer program wrote it.
    #[error("a newer program made this ticket: use that program, or a newer one")]
    Marks,
    /// The name is too long.
    #[error("the file's name has {0} bytes, a ticket holds {TICKET_NAME_BYTES_MAX}: rename it")]
    NameTooLong(usize),
}
