//! `peer check`: whether a file or a directory is the one that a ticket names, and if not, where it differs.
//!
//! The ticket alone tells whether; where, only the list of digests, and of a directory its index, which some peer of the
//! swarm may have. They are asked for when it is wrong, and prove themselves. Without a relay, or without such a
//! peer, it differs all the same.

mod ask;
mod compare;
mod report;

use std::{slice, sync::Arc};

use self::{
    ask::Asking,
    compare::{compare, content_differs},
    report::{Verdict, report},
};
use super::{
    args::CheckArgs,
    destination::Destination,
    error::{ProgramError, output_error, read_grant},
    voice::Voice,
};
use crate::{
    client::{
        hashing,
        origin::{HashJob, Looking, Origin, Sealing, Source},
        tree::walk::Keeping,
    },
    protocol::{Ticket, TicketKind, bundle::Index},
    transport::Transport,
};

/// Checks it: an error if it is another one.
pub(super) fn run(args: &CheckArgs) -> Result<(), ProgramError> {
    if args.json {
        crate::stdout::check().map_err(|error| output_error(&error))?;
    }
    let token = read_grant(args.token_file.as_deref())?;
    let voice = Voice { quiet: args.quiet };
    let ticket = args.ticket.read()?;
    let destination = Destination::of(&ticket, args.relay.as_ref());
    let way = destination.way(args.proxy.as_ref(), Transport::Tcp)?;
    let source = open(args, voice, &ticket)?;
    let asking = Asking::new(args, &ticket, (&destination, &way), token);
    let verdict = match source.index().cloned() {
        Some(index) => check_tree((args, voice), &ticket, source, &index, &asking)?,
        None if source.size_bytes() != ticket.key.size_bytes => {
            Verdict::OtherSize { size_bytes: source.size_bytes() }
        }
        None => {
            let origin = hash(voice, &ticket, source)?;
            if origin.plain() == ticket.plain() {
                Verdict::Same
            } else {
                locate(&ticket, &origin, &asking)
            }
        }
    };
    report(args, &ticket, voice, &verdict)
}

/// Opens what is to be checked, if it can be what the ticket names.
fn open(args: &CheckArgs, voice: Voice, ticket: &Ticket) -> Result<Source, ProgramError> {
    let mut search = voice.search(&format!("looking through {}", args.path.display()));
    // Modes and times are looked at if the ticket's bundle has them.
    let keeping = Keeping::WhicheverHas(ticket.key.size_bytes);
    let looking = Looking { skips_special: true, keeping };
    let source = Source::open(slice::from_ref(&args.path), looking, &mut |entries| {
        search.set(entries);
    });
    search.finish();
    let source = source.map_err(ProgramError::job)?;
    let path = args.path.display();
    match (ticket.kind == TicketKind::Bundle, source.index().is_some()) {
        (true, false) => Err(ProgramError::Job(format!(
            "{path} is a file, and the ticket is of a directory: name the directory that a get of it has made"
        ))),
        (false, true) => Err(ProgramError::Job(format!(
            "{path} is a directory, and the ticket is of a file: name the file"
        ))),
        _ => {
            source.skipped().iter().for_each(|skipped| voice.say(skipped));
            Ok(source)
        }
    }
}

fn hash(voice: Voice, ticket: &Ticket, source: Source) -> Result<Origin, ProgramError> {
    let what = format!("checking {}", source.shown());
    let mut progress = match source.index() {
        Some(index) => voice.progress_of(&what, index, 1),
        None => voice.progress(&what, source.size_bytes()),
    };
    // What is remembered is not asked: a check reads.
    let job = HashJob::new(ticket.key.chunk_size_log2, Sealing::Plain);
    let origin = source.hash(&job, &mut |done| progress.set(done));
    progress.finish();
    origin.map_err(ProgramError::job)
}

/// Where the file differs, if a peer can tell. What it tells of a sealed file is of the ciphertext: this one is
/// sealed as the ticket says, and compared with that.
fn locate(ticket: &Ticket, origin: &Origin, asking: &Asking<'_>) -> Verdict {
    let find = || {
        let manifest = asking.manifest()?;
        let sealed = ticket.sealed.as_ref();
        let own = sealed.map(|sealed| origin.manifest_as(sealed, &mut |_| {})).transpose();
        let own = own.map_err(|error| error.to_string())?;
        let own = own.as_ref().unwrap_or_else(|| origin.manifest());
        Ok(hashing::first_difference(own, &manifest))
    };
    match find() {
        Ok(first) => Verdict::Differs { first, why_not: "the list of digests is not of it".into() },
        Err(why_not) => Verdict::Differs { first: None, why_not },
    }
}

/// The directory with modes and times, found once more.
fn with_modes_and_times(args: &CheckArgs) -> Result<Source, String> {
    let looking = Looking { skips_special: true, keeping: Keeping::Preserved };
    let source = Source::open(slice::from_ref(&args.path), looking, &mut |_| {});
    source.map_err(|error| error.to_string())
}

/// Whether a directory is the ticket's, and if not which entries differ.
fn check_tree(
    (args, voice): (&CheckArgs, Voice),
    ticket: &Ticket,
    source: Source,
    index: &Arc<Index>,
    asking: &Asking<'_>,
) -> Result<Verdict, ProgramError> {
    let origin = match source.size_bytes() == ticket.key.size_bytes {
        true => Some(hash(voice, ticket, source)?),
        false => None,
    };
    if origin.as_ref().is_some_and(|origin| origin.plain() == ticket.plain()) {
        return Ok(Verdict::Same);
    }
    let find = || {
        let theirs = asking.index()?;
        // An index with other times may have another length, and then it is not known from the ticket that it has any.
        let again = match theirs.is_preserving() && !index.is_preserving() {
            true => Some(with_modes_and_times(args)?),
            false => None,
        };
        let own = again.as_ref().and_then(Source::index).unwrap_or(index);
        let mut differences = compare(own, &theirs);
        if let (true, Some(origin)) = (differences.is_empty(), &origin) {
            let manifest = asking.manifest()?;
            let sealed = ticket.sealed.as_ref();
            let own = sealed.map(|sealed| origin.manifest_as(sealed, &mut |_| {})).transpose();
            let own = own.map_err(|error| error.to_string())?;
            let own = own.as_ref().unwrap_or_else(|| origin.manifest());
            content_differs(&mut differences, &theirs, own, &manifest);
        }
        Ok(differences)
    };
    Ok(match find() {
        Ok(differences) => Verdict::Tree(differences),
        Err(why_not) => Verdict::Differs { first: None, why_not },
    })
}
