//! `peer info`: what a ticket holds.

use super::{
    args::InfoArgs,
    error::{ProgramError, output_error},
};
use crate::{
    protocol::{Ticket, shown_name},
    units::{bytes_text, count_text},
};

/// Prints it.
pub(super) fn run(args: &InfoArgs) -> Result<(), ProgramError> {
    let text =
        if args.json { format!("{}\n", describe(&args.ticket)) } else { prose(&args.ticket) };
    crate::stdout::print(text.as_bytes()).map_err(|error| output_error(&error))
}

/// The same facts, for machines.
pub(super) fn describe(ticket: &Ticket) -> serde_json::Value {
    serde_json::json!({
        "name": ticket.name(),
        "size_bytes": ticket.key.size_bytes,
        "id": ticket.key.id.to_string(),
        "chunk_size_bytes": ticket.key.chunk_size_bytes(),
        "chunk_count": ticket.key.chunk_count(),
        "relay": ticket.relay.to_string(),
        "executable": ticket.is_executable,
    })
}

fn prose(ticket: &Ticket) -> String {
    let key = &ticket.key;
    // A name comes from another user: what could steer a terminal is shown as an escape.
    let name = shown_name(ticket.name());
    let executable = if ticket.is_executable { "mode   executable\n" } else { "" };
    let chunks = count_text(u64::from(key.chunk_count()), "chunk");
    format!(
        "name   {name}\nsize   {} ({})\nid     {} (BLAKE3, as b3sum prints it)\nchunks {chunks} of \
         {}\nrelay  {}\n{executable}",
        bytes_text(key.size_bytes),
        count_text(key.size_bytes, "byte"),
        key.id,
        bytes_text(u64::from(key.chunk_size_bytes())),
        ticket.relay,
    )
}
