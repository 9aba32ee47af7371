//! Command lines, read as their definitions say, but that a variable without a value counts as not
//! set. For all programs of this tree.
//!
//! `RELAY_CORES= relay` is how people, unit files and container settings take back what a variable
//! said elsewhere; an option without its value is still an error.

use std::{env, ffi::OsString};

use clap::{Arg, Command, Parser, builder::Resettable};

/// Reads a command line, the program's name first.
///
/// # Errors
/// Wrong usage, or a page of help: to be printed, with its own exit code.
pub fn parse<A: Parser>(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<A, clap::Error> {
    let mut command = without_empty_variables(A::command());
    let mut matches = command.try_get_matches_from_mut(words)?;
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn without_empty_variables(command: Command) -> Command {
    command.mut_args(without_empty_variable).mut_subcommands(without_empty_variables)
}

fn without_empty_variable(option: Arg) -> Arg {
    let value = option.get_env().and_then(env::var_os);
    match value.is_some_and(|value| value.is_empty()) {
        true => option.env(Resettable::Reset),
        false => option,
    }
}
