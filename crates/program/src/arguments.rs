//! Command lines, read as their definitions say, but that a variable without a value counts as not
//! set. For all programs of this tree.
//!
//! `RELAY_CORES= relay` is how people, unit files and container settings take back what a variable
//! said elsewhere; an option without its value is still an error.

use std::{env, ffi::OsString, process::ExitCode};

use clap::{
    Arg, Command, Parser,
    builder::Resettable,
    error::{ContextKind, ContextValue},
};
use shards::DriverChoice;

/// `auto`, `io-uring` or `epoll`.
///
/// # Errors
/// A sentence that names the three.
pub fn parse_driver(text: &str) -> Result<DriverChoice, String> {
    text.parse().map_err(|_| format!("'{text}' is not one of auto, io-uring, epoll"))
}

/// A longer value is not repeated before what is wrong with it.
const VALUE_CHARS_MAX: usize = 64;

/// What is shown of it.
const VALUE_BEGIN_CHARS: usize = 12;

/// Reads a command line, the program's name first.
///
/// # Errors
/// Wrong usage, or a page of help: for [`print()`].
pub fn parse<A: Parser>(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<A, clap::Error> {
    let mut command = without_empty_variables(A::command());
    let mut matches = command.try_get_matches_from_mut(words).map_err(without_long_value)?;
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Says what is wrong with a command line, or prints the page of help that it asks for; what the program ends
/// with. A page that can't be printed is a failure.
#[must_use]
pub fn print(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // Nowhere to say it if even this can't be written.
        error.print().ok();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let printed = crate::stdout::check().and_then(|()| error.print());
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::stderr::say(format_args!("error: failed to write to stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A ticket fills some lines: what is wrong with it must not stand behind them.
fn without_long_value(mut error: clap::Error) -> clap::Error {
    let begin = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if value.chars().count() > VALUE_CHARS_MAX => {
            let begin = value.chars().filter(|char| !char.is_control()).take(VALUE_BEGIN_CHARS);
            Some(begin.collect::<String>() + "...")
        }
        _ => None,
    };
    if let Some(begin) = begin {
        error.insert(ContextKind::InvalidValue, ContextValue::String(begin));
    }
    error
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
