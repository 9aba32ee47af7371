//! `peer get`: gets what a ticket names, verified, and goes on where it was interrupted.
//!
//! ```text
//!  file, tree   get a file, or a directory        list   shows what is in a directory
//!    │   └──► context   what every step needs
//!  target       where it goes     unfinished      what it is until it is whole
//!  part         NAME.part         beside          what lies beside that
//!  run, job     the event loop's side  status     how it is doing, count: which files are whole
//!  screen       shows that        report          what is said at the end
//! ```

mod beside;
mod context;
mod count;
mod ending;
mod file;
mod job;
pub(super) mod list;
mod part;
mod report;
mod room;
mod run;
mod screen;
mod status;
mod target;
mod tree;
mod unfinished;

use shards::clock;

use self::{report::Report, target::Target};
use super::{
    args::GetArgs,
    error::{ProgramError, output_error},
};
use crate::protocol::TicketKind;

/// Runs the command.
///
/// # Errors
/// What the user should know; the exit code follows from it.
pub(super) fn run(args: &GetArgs) -> Result<(), ProgramError> {
    let ticket = &args.ticket.read()?;
    let is_bundle = ticket.kind == TicketKind::Bundle;
    if !args.only.is_empty() && !is_bundle {
        let text =
            "--only chooses files of a directory, and the ticket is of a single file: leave it out";
        return Err(ProgramError::Usage(text.into()));
    }
    let target = target::resolve(args.output.as_deref(), ticket.name());
    let target = target.map_err(ProgramError::Usage)?;
    if target == Target::Stdout && args.common.json {
        let text = "-o - and --json both want stdout: give a file name, or leave --json out";
        return Err(ProgramError::Usage(text.into()));
    }
    if target == Target::Stdout || args.common.json {
        crate::stdout::check().map_err(|error| output_error(&error))?;
    }
    let began = clock::now();
    let (result, status) = context::with(args, ticket, |context| match (&target, is_bundle) {
        (Target::Stdout, false) => context.stream_file(),
        (Target::Stdout, true) => context.stream_tree(),
        (Target::File(target), false) => context.get_file(target),
        (Target::File(target), true) => context.get_tree(target),
    })?;
    let report = Report {
        ticket,
        target: &target,
        status: &status,
        time: clock::now() - began,
        error: result.as_ref().err().map(String::as_str),
    };
    let printed = report.print(&args.common);
    result.map_err(ProgramError::Job).and(printed)
}
