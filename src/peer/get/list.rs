//! `peer list`: what is in a directory, without getting it. Only the chunks that hold the index are got.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    super::{
        args::{GetArgs, ListArgs, SeedFor},
        error::{ProgramError, output_error},
        voice::Voice,
    },
    context,
    tree::bundle,
};
use crate::{
    protocol::{
        Ticket, TicketKind,
        bundle::{Entry, Index, Kind, shown_path},
        shown_name,
    },
    units::{bytes_text, count_text},
};

/// Lines that are printed at once, in bytes: a list may have a million.
const PRINT_BYTES: usize = 256 << 10;

/// Runs the command.
///
/// # Errors
/// What the user should know; the exit code follows from it.
pub(crate) fn run(args: &ListArgs) -> Result<(), ProgramError> {
    let ticket = args.ticket.read()?;
    if ticket.kind != TicketKind::Bundle {
        if !args.only.is_empty() {
            let text = "--only chooses files of a directory, and the ticket is of a single file: leave it out";
            return Err(ProgramError::Usage(text.into()));
        }
        return print(&single(&ticket, args.common.json));
    }
    crate::stdout::check().map_err(|error| output_error(&error))?;
    let mut get = GetArgs {
        ticket: args.ticket.clone(),
        output: None,
        relay: args.relay.clone(),
        seed_for: SeedFor::Auto,
        only: args.only.clone(),
        force: false,
        no_sparse: false,
        timeout: args.timeout,
        common: args.common.clone(),
    };
    // Progress is no part of the list.
    get.common.json = false;
    get.common.quiet |= args.common.json;
    let (bundle, _) = context::with(&get, &ticket, |context| {
        context.announce_list();
        bundle::get(context, None)
    })?;
    let bundle = bundle.map_err(ProgramError::Job)?;
    let selected = bundle.selected.as_deref();
    let index = &*bundle.index;
    let mut text = String::new();
    let (mut directories, mut files, mut links, mut bytes) = (0, 0, 0, 0);
    for (number, entry) in index.entries().enumerate() {
        if selected.is_some_and(|selected| !selected[number]) {
            continue;
        }
        match entry.kind {
            Kind::Directory => directories += 1,
            Kind::File { .. } => files += 1,
            Kind::Link { .. } => links += 1,
        }
        bytes += entry.kind.size_bytes();
        match args.common.json {
            true => writeln!(text, "{}", object(&entry)),
            false => writeln!(text, "{}", line(index, &entry)),
        }
        .expect("text grows");
        if text.len() >= PRINT_BYTES {
            print(&text)?;
            text.clear();
        }
    }
    print(&text)?;
    let counts = [(files, "file"), (links, "link")].map(|(count, noun)| count_text(count, noun));
    let directories = match directories {
        1 => "1 directory".to_owned(),
        count => format!("{count} directories"),
    };
    Voice { quiet: args.common.quiet }.say(&format!(
        "{}, {directories}, {}: {}",
        counts[0],
        counts[1],
        bytes_text(bytes)
    ));
    Ok(())
}

fn print(text: &str) -> Result<(), ProgramError> {
    crate::stdout::print(text.as_bytes()).map_err(|error| output_error(&error))
}

/// The one file of a ticket.
fn single(ticket: &Ticket, is_json: bool) -> String {
    let (size_bytes, is_executable) =
        (ticket.key.size_bytes, ticket.kind == TicketKind::Executable);
    let kind = Kind::File { size_bytes, is_executable };
    let entry = Entry { path: ticket.name().as_bytes(), kind, preserved: None };
    match is_json {
        true => format!("{}\n", object(&entry)),
        false => {
            format!("{} {size_bytes} {}\n", letter(&entry.kind), shown_name(ticket.name()))
        }
    }
}

fn letter(kind: &Kind<'_>) -> char {
    match kind {
        Kind::Directory => 'd',
        Kind::File { is_executable: true, .. } => 'x',
        Kind::File { .. } => '-',
        Kind::Link { .. } => 'l',
    }
}

/// A line for people: kind, size, path.
fn line(index: &Index, entry: &Entry<'_>) -> String {
    // As wide as the largest file could be.
    let width = index.counts().file_bytes.to_string().len();
    let (letter, size, path) =
        (letter(&entry.kind), entry.kind.size_bytes(), shown_path(entry.path));
    match entry.kind {
        Kind::Link { target } => {
            format!("{letter} {:>width$} {path} -> {}", "-", shown_path(target))
        }
        Kind::Directory => format!("{letter} {:>width$} {path}/", "-"),
        Kind::File { .. } => format!("{letter} {size:>width$} {path}"),
    }
}

/// The same for machines. Of a path that is no text `path` is what is shown, and `path_bytes` are its bytes.
fn object(entry: &Entry<'_>) -> serde_json::Value {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (shown_path(bytes), Some(bytes.to_vec())),
    };
    let (path, path_bytes) = text(entry.path);
    let (kind, size_bytes, is_executable, target) = match entry.kind {
        Kind::Directory => ("directory", None, None, None),
        Kind::File { size_bytes, is_executable } => {
            ("file", Some(size_bytes), Some(is_executable), None)
        }
        Kind::Link { target } => ("link", None, None, Some(text(target))),
    };
    let (target, target_bytes) = target.map_or((None, None), |(text, bytes)| (Some(text), bytes));
    json!({
        "path": path,
        "path_bytes": path_bytes,
        "kind": kind,
        "size_bytes": size_bytes,
        "executable": is_executable,
        "target": target,
        "target_bytes": target_bytes,
        "mode": entry.preserved.map(|preserved| preserved.mode),
        "modified": entry.preserved.map(|preserved| preserved.modified_secs),
    })
}
