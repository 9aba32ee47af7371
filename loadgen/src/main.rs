//! `loadgen`: runs many relay clients in one process, measures, verifies, reports.
//!
//! ```text
//!  args ──► plan ──► relay_process ──► content ──► fleet (client) ──► report
//!           what     the relay to      what is     on shards          for people
//!           to do    use, and its      sent                           and machines
//!                    stats
//! ```
//!
//! `report_dir`, `run_page` and `page` make a page of a run; `sweep` repeats the ancestors'
//! experiments, `compare` does the same job with another program.
//!
//! Each client is a protocol peer of the relay's own library. With a hidden first argument this
//! executable is the relay itself: see [`relay_process`].

mod args;
mod board;
mod client;
mod compare;
mod content;
mod errors;
mod fleet;
mod job;
mod latency;
mod member;
mod page;
mod plan;
mod prepare;
mod progress;
mod recorder;
mod relay_process;
mod report;
mod report_dir;
mod run_page;
mod sampler;
mod stats;
mod sweep;
mod table;
mod units;
mod usage;

use std::process::ExitCode;

use clap::Parser;
use relay::pages::PageCommand;

use crate::{
    args::{Args, EXIT_USAGE},
    compare::CompareArgs,
    sweep::SweepArgs,
};

#[global_allocator]
static ALLOCATOR: relay::allocator::Allocator = relay::allocator::Allocator;

const EXAMPLES: &str = "Examples:
  loadgen --clients 100 --file 100M            the main job, with a relay of its own if none runs
  loadgen --clients 5 --store dir:out          five real files and their digests
  loadgen --relay 10.0.0.7:7440 --seeding origin --rate 2M --json report.json
  loadgen sweep --quick                        the ancestors' experiments, drawn (sweep --help)
  loadgen compare nginx                        the same job over HTTP (compare --help)

Sizes: 100M is 100 MiB, 100MB is 10^8 bytes. Every flag also reads LOADGEN_FLAG.
Exit codes: 0 every client has the file, verified; 1 the job failed; 2 wrong usage.";

/// Runs many clients against a relay, measures, verifies and reports.
#[derive(Parser, Debug)]
#[command(
    name = "loadgen",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
}

/// What is more than one run.
#[derive(clap::Subcommand, Debug)]
enum Command {
    Sweep(SweepArgs),
    Compare(CompareArgs),
    #[command(flatten)]
    Page(PageCommand),
}

fn main() -> ExitCode {
    relay::allocator::reserve_little();
    let mut words = std::env::args_os();
    // No command of the user's: this program plays the relay's part.
    if words.nth(1).is_some_and(|word| word == relay_process::ROLE_ARGUMENT) {
        if let Err(error) = relay_process::die_with_parent() {
            relay::stderr::say(format_args!(
                "loadgen: a relay that would outlive its load generator: {error}"
            ));
        }
        return relay::serve::main_with_args(std::iter::once("relay".into()).chain(words));
    }
    let CommandLine { command, args } = match relay::arguments::parse(std::env::args_os()) {
        Ok(line) => line,
        Err(error) => return relay::arguments::print(&error),
    };
    match command {
        Some(Command::Page(page)) => page.print::<CommandLine>(),
        Some(Command::Sweep(args)) => logged(|| sweep::run(&args)),
        Some(Command::Compare(args)) => logged(|| compare::run(&args).map(|()| true)),
        None => match args.check() {
            Ok(config) => logged(|| job::run(&config)),
            Err(text) => {
                relay::stderr::say(format_args!("loadgen: {text}"));
                ExitCode::from(EXIT_USAGE)
            }
        },
    }
}

fn logged(run: impl FnOnce() -> anyhow::Result<bool>) -> ExitCode {
    start_log();
    exit(run())
}

fn exit(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            relay::stderr::say(format_args!("loadgen: {error:#}"));
            let relay_error = error.downcast_ref::<relay_process::RelayError>();
            match relay_error.is_some_and(relay_process::RelayError::is_usage) {
                true => ExitCode::from(EXIT_USAGE),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Warnings of the event loops; more with `LOADGEN_LOG`.
fn start_log() {
    let filter = relay::log_level::of_variable("LOADGEN_LOG", "warn");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell on stderr that stderr can't be written, and end the program for that.
    log.log_internal_errors(false).init();
}
