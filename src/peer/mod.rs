//! The `peer` program: shares files, gets files and directories, verifies them.
//!
//! ```text
//!  args ──► share, get ──► event_loop ──► the peer library
//!    │        │  probe       signals
//!    │        │  belief       which relay is the one that is meant
//!    │        │  way          how it is reached: directly, or through a proxy
//!    │      check, info
//!    │           destination   the relay at which a ticket's file is looked for
//! ```
//!
//! One process does one thing: its main thread becomes the event loop that serves the one
//! connection. Results go to stdout, everything else to stderr. What a peer does on a connection
//! is the library's business, not this module's.

pub mod args;
pub(crate) mod belief;
mod check;
mod destination;
mod error;
mod event_loop;
mod get;
mod info;
mod probe;
mod proxy_source;
mod share;
mod ticket_source;
mod voice;
mod way;

use std::{ffi::OsString, process::ExitCode};

pub use args::PeerArgs;
pub use error::ProgramError;
pub use proxy_source::ProxySource;
pub use ticket_source::TicketSource;

use args::Command;

use crate::{arguments, log_level};

/// Environment variable with the level of the log, which is silent otherwise.
const LOG_VARIABLE: &str = "PEER_LOG";

/// The whole program: arguments to exit code.
#[must_use]
pub fn main_with_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let args = match arguments::parse::<PeerArgs>(args) {
        Ok(args) => args,
        Err(error) => return arguments::print(&error),
    };
    start_log();
    let result = match &args.command {
        Command::Share(args) => share::run(args),
        Command::Get(args) => get::run(args),
        Command::List(args) => get::list::run(args),
        Command::Check(args) => check::run(args),
        Command::Info(args) => info::run(args),
        Command::Page(page) => return page.print::<PeerArgs>(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::stderr::say(format_args!("error: {error}"));
            error.exit_code()
        }
    }
}

/// Errors of the event loop; more with `PEER_LOG`.
fn start_log() {
    let filter = log_level::of_variable(LOG_VARIABLE, "error");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell on stderr that stderr can't be written, and end the program for that.
    let log = log.log_internal_errors(false);
    // A program that embeds this one may have its own.
    log.try_init().ok();
}
