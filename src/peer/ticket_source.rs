//! Where a ticket comes from: the command line, stdin, or a file.
//!
//! A ticket of a sealed file is a key, and every user of a machine can read the command lines of the others: stdin
//! and a file keep it from them. It is read when it is needed, not while the command line is: messages about a
//! command line would repeat it.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
};

use super::error::ProgramError;
use crate::protocol::{Ticket, limits::TICKET_TEXT_BYTES_MAX};

/// A ticket, `-` for stdin, or `@FILE`. Not printed for debugging.
#[derive(Clone)]
pub struct TicketSource(String);

impl fmt::Debug for TicketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSource(..)")
    }
}

impl From<String> for TicketSource {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl TicketSource {
    /// Whether it comes from stdin.
    pub(super) fn is_stdin(&self) -> bool {
        self.0 == "-"
    }

    /// The ticket.
    ///
    /// # Errors
    /// It can't be read, or is none: wrong usage.
    pub(super) fn read(&self) -> Result<Ticket, ProgramError> {
        if self.is_stdin() {
            return ticket_in(io::stdin().lock(), "stdin");
        }
        let Some(path) = self.0.strip_prefix('@') else {
            return self.0.parse().map_err(|error| usage(&error));
        };
        let file = File::open(path);
        let file = file.map_err(|error| usage(&format!("could not read {path}: {error}")))?;
        ticket_in(file, path)
    }
}

/// The ticket that a text holds, with nothing beside it.
fn ticket_in(reader: impl Read, place: &str) -> Result<Ticket, ProgramError> {
    let mut bytes = Vec::new();
    // What is longer is refused as a ticket.
    let read = reader.take(TICKET_TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| usage(&format!("could not read {place}: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.trim().is_empty() {
        return Err(usage(&format!("{place} is empty, and should hold a ticket")));
    }
    text.parse().map_err(|error| usage(&format!("{place}: {error}")))
}

fn usage(why: &dyn fmt::Display) -> ProgramError {
    ProgramError::Usage(format!("the ticket can't be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<Ticket, String> {
        TicketSource::from(source.to_owned()).read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_ticket_is_taken_from_the_command_line_or_from_a_file_and_never_repeated() {
        let key = *crate::protocol::Manifest::of(b"file", 10).unwrap().key();
        let ticket = Ticket::new("localhost:1".parse().unwrap(), key, "name").unwrap();
        let text = ticket.to_string();
        assert_eq!(read(&text), Ok(ticket.clone()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket");
        let source = format!("@{}", path.display());
        assert!(read(&source).unwrap_err().contains("No such file"));
        std::fs::write(&path, format!("  {text}\n\n")).unwrap();
        assert_eq!(read(&source), Ok(ticket));
        std::fs::write(&path, "\n").unwrap();
        assert!(read(&source).unwrap_err().contains("is empty"));
        let cut = &text[..text.len() - 1];
        std::fs::write(&path, cut).unwrap();
        for source in [source.as_str(), cut] {
            let error = read(source).unwrap_err();
            assert!(error.contains("damaged") && !error.contains(cut), "{error}");
        }
        std::fs::write(&path, " ".repeat(TICKET_TEXT_BYTES_MAX) + "x").unwrap();
        assert!(read(&source).unwrap_err().contains("longer than"));
        let shown = format!("{:?}", TicketSource::from(text.clone()));
        assert!(!shown.contains(&text), "{shown}");
    }
}
