//! What `peer check` says of what it has found.

use super::{
    super::{
        args::CheckArgs,
        error::{ProgramError, output_error},
        voice::Voice,
    },
    compare::Differences,
};
use crate::{
    protocol::{Ticket, TicketKind},
    units::{bytes_text, count_text},
};

/// What was found.
pub(super) enum Verdict {
    Same,
    OtherSize { size_bytes: u64 },
    Differs { first: Option<(u32, u32)>, why_not: String },
    Tree(Differences),
}

/// Says it, and makes an error of it if it is not the ticket's.
pub(super) fn report(
    args: &CheckArgs,
    ticket: &Ticket,
    voice: Voice,
    verdict: &Verdict,
) -> Result<(), ProgramError> {
    let (path, key) = (args.path.display(), &ticket.key);
    let what = if ticket.kind == TicketKind::Bundle { "directory" } else { "file" };
    let not = format!("{path} is not the ticket's {what}");
    if args.json {
        let first = match verdict {
            Verdict::Differs { first, .. } => *first,
            _ => None,
        };
        let mut object = serde_json::json!({
            "same": matches!(verdict, Verdict::Same),
            "first_different_chunk": first.map(|(chunk, _)| chunk),
            "first_different_offset_bytes": first.map(|(chunk, _)| key.chunk_offset_bytes(chunk)),
            "different_chunk_count": first.map(|(_, count)| count),
        });
        if let Verdict::Tree(differences) = verdict {
            object["lacking_count"] = differences.lacking.count().into();
            object["extra_count"] = differences.extra.count().into();
            object["different_count"] = differences.different.count().into();
            object["lacking"] = differences.lacking.first().into();
            object["extra"] = differences.extra.first().into();
            object["different"] = differences.different.first().into();
        }
        let line = format!("{object}\n");
        crate::stdout::print(line.as_bytes()).map_err(|error| output_error(&error))?;
    }
    match verdict {
        Verdict::Same => {
            voice.say(&format!("{path} is the ticket's {what}: {}", bytes_text(key.size_bytes)));
            Ok(())
        }
        Verdict::OtherSize { size_bytes } => Err(ProgramError::Job(format!(
            "{not}: it has {size_bytes} bytes, the ticket's has {}",
            key.size_bytes
        ))),
        Verdict::Differs { first: Some((chunk, 1)), .. } => Err(ProgramError::Job(format!(
            "{not}: one of its {} differs, chunk {chunk}, from offset {} on",
            count_text(u64::from(key.chunk_count()), "chunk"),
            key.chunk_offset_bytes(*chunk),
        ))),
        Verdict::Differs { first: Some((chunk, count)), .. } => Err(ProgramError::Job(format!(
            "{not}: {count} of its {} differ, the first is chunk {chunk}, \
             from offset {} on",
            count_text(u64::from(key.chunk_count()), "chunk"),
            key.chunk_offset_bytes(*chunk),
        ))),
        Verdict::Tree(differences) => {
            Err(ProgramError::Job(format!("{not}: {}", differences.text())))
        }
        Verdict::Differs { why_not, .. } => Err(ProgramError::Job(format!(
            "{not}: its content differs. Where it differs could not be found \
             out: {why_not}"
        ))),
    }
}
