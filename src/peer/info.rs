//! `peer info`: what a ticket holds, but for what makes it a key.

use super::{
    args::InfoArgs,
    error::{ProgramError, output_error},
};
use crate::{
    protocol::{Ticket, TicketKind, shown_name},
    units::{bytes_text, count_text},
};

/// Prints it.
pub(super) fn run(args: &InfoArgs) -> Result<(), ProgramError> {
    let ticket = args.ticket.read()?;
    let text = if args.json { format!("{}\n", describe(&ticket)) } else { prose(&ticket) };
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
        "relays": ticket.relays().map(ToString::to_string).collect::<Vec<_>>(),
        "pin": ticket.pin.map(|pin| pin.to_string()),
        "sealed": ticket.sealed.is_some(),
        "plain_digest": ticket.plain().to_string(),
        "executable": ticket.kind == TicketKind::Executable,
        "bundle": ticket.kind == TicketKind::Bundle,
    })
}

fn prose(ticket: &Ticket) -> String {
    let key = &ticket.key;
    // A name comes from another user: what could steer a terminal is shown as an escape.
    let mut lines = vec![
        ("name", shown_name(ticket.name())),
        (
            "size",
            format!("{} ({})", bytes_text(key.size_bytes), count_text(key.size_bytes, "byte")),
        ),
    ];
    if ticket.sealed.is_some() {
        lines.push(("digest", format!("{} (BLAKE3, as b3sum prints it)", ticket.plain())));
        lines.push(("id", format!("{} (of the sealed file, as the relay knows it)", key.id)));
        lines
            .push(("sealed", "yes: this ticket opens the file, keep it as you would a key".into()));
    } else {
        lines.push(("id", format!("{} (BLAKE3, as b3sum prints it)", key.id)));
        lines.push(("sealed", "no: the relay and all on the way can read the file".into()));
    }
    let chunks = count_text(u64::from(key.chunk_count()), "chunk");
    let chunk_size = bytes_text(u64::from(key.chunk_size_bytes()));
    lines.push(("chunks", format!("{chunks} of {chunk_size}")));
    lines.extend(ticket.relays().map(|relay| ("relay", relay.to_string())));
    if let Some(pin) = ticket.pin {
        lines.push(("pin", format!("{pin} (which the relay must prove)")));
    }
    match ticket.kind {
        TicketKind::File => {}
        TicketKind::Executable => lines.push(("mode", "executable".into())),
        TicketKind::Bundle => {
            lines.push(("holds", "a directory: peer list shows what is in it".into()));
        }
    }
    lines.iter().map(|(what, text)| format!("{what:<6} {text}\n")).collect()
}
