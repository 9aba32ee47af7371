//! The whole command line: one run, or what is more than one.

use clap::Parser;
use relay::pages::PageCommand;

use crate::{args::Args, compare::CompareArgs, sweep::SweepArgs};

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
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) args: Args,
}

/// What is more than one run.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    Sweep(SweepArgs),
    Compare(CompareArgs),
    #[command(flatten)]
    Page(PageCommand),
}
