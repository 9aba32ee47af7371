//! `loadgen sweep`: the ancestors' five analyses, run again and drawn, ours beside theirs.
//!
//! ```text
//!  plan     which runs there are, and what is asked of each
//!  results  what they came to, kept in a file: a sweep that was ended goes on
//!  page     what is drawn and said
//!  mod      runs them one after the other
//! ```
//!
//! Each run is a process of its own: this very executable with the flags that are told, so that
//! a user can repeat one by hand, and none inherits another's memory or fate.

mod page;
mod plan;
mod results;

use std::{
    io::{IsTerminal, Write, stderr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use relay::config::parse_duration;
use serde_json::Value;
use shards::clock;

use self::{
    plan::{Cell, Scale, analyses},
    results::{CellResult, Results},
};
use crate::{job::NO_STDOUT, report_dir, units};

/// A quick sweep starts nothing more after so long, and ends what runs: with the page, two minutes.
const QUICK_TIME: Duration = Duration::from_secs(112);

/// What a run may take to start and to end, beside its time limit.
const RUN_MARGIN: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "Examples:
  loadgen sweep --quick                        two minutes, smaller files
  loadgen sweep --report results               everything; end it any time, and go on by the same command

What is there already is kept: results.json in the directory holds each run by its flags.
Exit codes: 0 every run ended with every byte verified; 1 one did not; 2 wrong usage.";

/// Repeats the analyses of this network's ancestors, the earlier PSP programs: round trips, clients, cache sizes, orders.
#[derive(Parser, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SweepArgs {
    /// Smaller files and fewer sizes: two minutes
    #[arg(long, env = "LOADGEN_QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// Where results and the page go [default: sweep]
    #[arg(long, visible_alias = "out", env = "LOADGEN_REPORT", value_name = "DIR")]
    report: Option<PathBuf>,
    /// Only analyses whose name begins so: round-trips, clients, small-cache, cache, orders, theirs
    #[arg(long, env = "LOADGEN_ONLY", value_name = "NAME")]
    only: Option<String>,
    /// Contents and orders of all runs
    #[arg(long, env = "LOADGEN_SEED", value_name = "N", default_value = "1")]
    seed: u64,
    /// For one run; those of the ancestors' own cache policy need not end
    #[arg(long, env = "LOADGEN_TIMEOUT", value_name = "DUR", default_value = "15m", value_parser = parse_duration)]
    timeout: Duration,
}

/// The directory's name unless told otherwise.
const DIR: &str = "sweep";

/// What `--report` was once called is still understood, as a variable as well.
const OLD_VARIABLE: &str = "LOADGEN_OUT";

impl SweepArgs {
    fn dir(&self) -> PathBuf {
        let old = || std::env::var_os(OLD_VARIABLE).filter(|value| !value.is_empty());
        self.report.clone().or_else(|| old().map(PathBuf::from)).unwrap_or_else(|| DIR.into())
    }
}

/// Runs what is not there yet, then draws; whether every run ended well.
///
/// # Errors
/// The directory can't be used, or nothing is to be run.
pub(crate) fn run(args: &SweepArgs) -> anyhow::Result<bool> {
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let mut analyses = analyses(scale, args.seed);
    if let Some(only) = &args.only {
        analyses.retain(|analysis| analysis.name.starts_with(only.as_str()));
        anyhow::ensure!(!analyses.is_empty(), "--only {only}: no analysis is called so");
    }
    relay::stdout::check().context(NO_STDOUT)?;
    let out = args.dir();
    std::fs::create_dir_all(&out)
        .with_context(|| format!("could not make the directory {} of --report", out.display()))?;
    let mut results = Results::open(&out)?;
    let cells: Vec<&Cell> = analyses.iter().flat_map(|analysis| &analysis.cells).collect();
    let started_at = clock::now();
    let mut skipped = 0;
    for (n, cell) in cells.iter().enumerate() {
        if results.is_settled(cell) {
            continue;
        }
        let left = match scale {
            Scale::Quick => QUICK_TIME.saturating_sub(clock::now() - started_at),
            Scale::Full => args.timeout + RUN_MARGIN,
        };
        let Some(limit) = left.checked_sub(RUN_MARGIN).filter(|limit| !limit.is_zero()) else {
            skipped += 1;
            continue;
        };
        announce(n + 1, cells.len(), cell);
        let result = run_cell(cell, limit.min(args.timeout).min(cell.patience))?;
        relay::stderr::say(format_args!("  {}", result.in_short()));
        results.add(cell, result);
        results.write(&out)?;
    }
    if skipped > 0 {
        relay::stderr::say(format_args!(
            "loadgen: {skipped} runs are left, time is up: the same command goes on"
        ));
    }
    finish(args, &out, &analyses, &results)
}

fn announce(number: usize, count: usize, cell: &Cell) {
    relay::stderr::write(format_args!("[{number}/{count}] {}", cell.args.join(" ")));
    if !stderr().is_terminal() {
        relay::stderr::say("");
    }
    // What can't be shown is not missed.
    drop(stderr().flush());
}

fn finish(
    args: &SweepArgs,
    out: &Path,
    analyses: &[plan::Analysis],
    results: &Results,
) -> anyhow::Result<bool> {
    report_dir::write(out, "results.csv", &results.to_csv(analyses))?;
    report_dir::write(out, report_dir::PAGE, &page::draw(analyses, results))?;
    let line = format!("{}\n", out.join(report_dir::PAGE).display());
    relay::stdout::print(line.as_bytes()).context(NO_STDOUT)?;
    let mut is_good = true;
    for cell in analyses.iter().flat_map(|analysis| &analysis.cells) {
        match results.of(cell) {
            Some(result) if result.is_success() || cell.may_fail => {}
            Some(result) => {
                is_good = false;
                relay::stderr::say(format_args!(
                    "loadgen: {}: {}",
                    cell.args.join(" "),
                    result.in_short()
                ));
            }
            None => is_good &= args.quick,
        }
    }
    Ok(is_good)
}

/// Runs this executable with the cell's flags.
fn run_cell(cell: &Cell, limit: Duration) -> anyhow::Result<CellResult> {
    let figures = tempdir()?;
    let mut command = own_command()?;
    command.args(&cell.args).args(["--json", "-"]);
    command.args(["--timeout", &format!("{}ms", limit.as_millis())]);
    if cell.wants_figures {
        command.arg("--report").arg(figures.path());
    }
    let output = command.output().context("could not start a run")?;
    let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let error = match output.status.code() {
        Some(0) => None,
        _ => Some(last_words(&output.stderr, report.as_ref())),
    };
    let by_chunk = if cell.wants_figures { latency_by_chunk(figures.path()) } else { Vec::new() };
    Ok(CellResult { report: report.unwrap_or(Value::Null), error, by_chunk })
}

/// This executable, without the flags that its environment may hold for a single run.
pub(crate) fn own_command() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    for (name, _) in std::env::vars_os() {
        let is_flag = name.to_string_lossy().starts_with("LOADGEN_");
        if is_flag && name != "LOADGEN_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

fn tempdir() -> anyhow::Result<tempfile::TempDir> {
    tempfile::tempdir().context("could not make a temporary directory")
}

/// Why a run failed: its report's first error, else the last line that it said.
pub(crate) fn last_words(stderr: &[u8], report: Option<&Value>) -> String {
    let reported = report.and_then(|report| report["errors"][0].as_str());
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    reported.or(last).unwrap_or("it ended without a word").to_owned()
}

/// (first chunk, mean seconds) by part of the file, as the run's own report has it.
fn latency_by_chunk(dir: &Path) -> Vec<(f64, f64)> {
    let Ok(text) = std::fs::read(dir.join("figures.json")) else { return Vec::new() };
    let figures: Value = serde_json::from_slice(&text).unwrap_or_default();
    let rows = figures["chunks"]["rows"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| Some((row[0].as_f64()?, row[1].as_f64()?))).collect()
}

impl CellResult {
    /// One line.
    fn in_short(&self) -> String {
        match &self.error {
            Some(error) => format!("not done: {error}"),
            None => units::seconds(self.number("/wall_seconds")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_is_known_by_its_first_error_or_its_last_line() {
        let report = serde_json::json!({ "errors": ["timed out", "more"] });
        assert_eq!(last_words(b"a\nb\n", Some(&report)), "timed out");
        assert_eq!(last_words(b"a\nb\n\n", None), "b");
        assert_eq!(last_words(b"", None), "it ended without a word");
    }
}
