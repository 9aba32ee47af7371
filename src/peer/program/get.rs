//! `peer get`: gets the file that a ticket names.

use super::{args::GetArgs, error::ProgramError};

/// Gets it.
pub(super) fn run(args: &GetArgs) -> Result<(), ProgramError> {
    Err(ProgramError::Job(format!("can't get {} yet", args.ticket.name())))
}
