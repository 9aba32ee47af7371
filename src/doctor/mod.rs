//! `relay doctor`: what this machine allows a relay, what each of it means, and what mends it.
//!
//! Facts are gathered by [`facts`]; what they mean is decided by [`judge`], from facts alone. It changes
//! nothing, and opens ports only to see whether they are free.

mod facts;
mod finding;
mod judge;
mod ports;

use std::process::ExitCode;

use self::{facts::Facts, finding::Grade, judge::judge};
use crate::config::RelayArgs;

/// Checks this machine for a relay with the same options, and says what would mend what is amiss.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  relay doctor --cores 8 --cache 1G\n\nExits with 0 if a relay with these \
                  options runs here, perhaps with less than it could;\n1 if it does not; 2 for wrong \
                  usage. Give it the options that the relay gets."
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    relay: RelayArgs,
}

/// Looks, and says what it found; what the program ends with.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match args.relay.check() {
        Ok(config) => config,
        Err(error) => {
            crate::stderr::say(format_args!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let findings = judge(&Facts::gather(&args.relay, &config));
    let worst = findings.iter().map(|finding| finding.grade).max();
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    text.push_str(match worst {
        Some(Grade::Bad) => "\nA relay with these options does not run here.\n",
        Some(Grade::Note) => "\nA relay with these options runs here; see the notes for more.\n",
        _ => "\nAll is well.\n",
    });
    if let Err(error) = crate::stdout::print(text.as_bytes()) {
        crate::stderr::say(format_args!("error: failed to write to stdout: {error}"));
        return ExitCode::FAILURE;
    }
    if worst == Some(Grade::Bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests;
