//! `loadgen compare nginx`: the same job by ours and by another program, in alternation.
//!
//! ```text
//!  nginx   the other program: started with a configuration of its own, watched, ended
//!  http    clients of it: on event loops as ours, checking every byte as ours do
//!  mod     the rounds, and what comes of them
//! ```
//!
//! Both sides get the same content and send it to as many clients over loopback, with the same
//! congestion control, from as many event loops (workers) as the machine has cores. Our side is
//! this executable as users run it; with `--seeding origin` (the default here) its origin stays,
//! as a file on a server does.

mod http;
mod nginx;

use std::{fmt::Write as _, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use relay::{
    config::{parse_duration, parse_size},
    protocol::chunk_size_log2_for,
};
use serde::Serialize;
use serde_json::Value;
use shards::{DriverChoice, Placement};

use self::nginx::Nginx;
use crate::{
    args::SeedingMode,
    content::Content,
    job::NO_STDOUT,
    sweep::{last_words, own_command},
    units::{seconds, size},
    usage,
};

/// Of both sides: the one that is fastest on loopback, and what our relay takes there.
const CONGESTION: &str = "cubic";

/// Chunks up to this size: the protocol's bound is above its default.
const CHUNK_LOG2_ANY: u8 = 24;

const EXAMPLES: &str = "Example:
  loadgen compare nginx --clients 100 --file 100M --rounds 5

Clients of both check every byte (BLAKE3, chunk by chunk, against the same list of digests).
Exit codes: 0 compared; 1 one of them failed, or nginx is not there; 2 wrong usage.";

/// Compares with another program that does the same job.
#[derive(Parser, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// With what
    with: Opponent,
    /// Clients
    #[arg(long, env = "LOADGEN_CLIENTS", value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Size of generated content
    #[arg(long, env = "LOADGEN_FILE", value_name = "SIZE", default_value = "100M", value_parser = parse_size)]
    file: u64,
    /// Rounds of each, in alternation
    #[arg(long, env = "LOADGEN_ROUNDS", value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How our swarm begins
    #[arg(long, env = "LOADGEN_SEEDING", value_name = "MODE", default_value = "origin")]
    seeding: SeedingMode,
    /// Event loops of the clients, of both sides [default: all available]
    #[arg(long, env = "LOADGEN_CORES", value_name = "N")]
    cores: Option<NonZeroUsize>,
    /// What drives them: auto, io-uring or epoll
    #[arg(long, env = "LOADGEN_DRIVER", value_name = "D", default_value = "auto")]
    driver: DriverChoice,
    /// For one round
    #[arg(long, env = "LOADGEN_TIMEOUT", value_name = "DUR", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,
    /// The program
    #[arg(long, env = "LOADGEN_NGINX", value_name = "PATH")]
    nginx: Option<PathBuf>,
    /// Figures for machines (- is stdout, prose then goes to stderr)
    #[arg(long, env = "LOADGEN_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Another program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Opponent {
    /// A web server, with sendfile.
    Nginx,
}

/// One round of one side.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// From the first connect until the last client had verified the last byte.
    pub(crate) wall_seconds: f64,
    pub(crate) sender_cpu_seconds: f64,
    pub(crate) receiver_cpu_seconds: f64,
}

/// All rounds of one side.
#[derive(Debug, Serialize)]
struct Side {
    name: String,
    congestion: String,
    rounds: Vec<Round>,
}

impl Side {
    fn median(&self, pick: impl Fn(&Round) -> f64) -> f64 {
        let (_, median, _) = spread(self.rounds.iter().map(pick));
        median
    }
}

/// Runs all rounds and reports.
///
/// # Errors
/// One of them can't be run, or a client didn't get what it should.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let Opponent::Nginx = args.with;
    relay::stdout::check().context(NO_STDOUT)?;
    let loops = Placement::plan(args.cores, false).shard_count();
    usage::raise_descriptor_limit(u64::from(args.clients), loops).map_err(anyhow::Error::msg)?;
    let program = nginx::find(args.nginx.as_deref())?;
    let content =
        Content::generate(args.file, chunk_size_log2_for(args.file, CHUNK_LOG2_ANY), 1, 0)?;
    let workers = Placement::plan(None, false).shard_count();
    let nginx = Nginx::start(&program, workers, &content, CONGESTION)?;
    let mut theirs = Side {
        name: format!("{}, sendfile, {workers} workers", nginx.version),
        congestion: nginx.congestion.clone(),
        rounds: Vec::new(),
    };
    let mut ours = Side {
        name: format!("relay, {} seeding", seeding_name(args.seeding)),
        congestion: String::new(),
        rounds: Vec::new(),
    };
    for round in 1..=args.rounds {
        theirs.rounds.push(their_round(args, &nginx, &content)?);
        show(round, args, "nginx", &theirs);
        let (figures, congestion) = our_round(args)?;
        ours.rounds.push(figures);
        ours.congestion = congestion;
        show(round, args, "relay", &ours);
    }
    drop(nginx);
    report(args, &theirs, &ours)
}

fn show(round: u32, args: &CompareArgs, name: &str, side: &Side) {
    let wall = side.rounds.last().map_or(0.0, |round| round.wall_seconds);
    relay::stderr::say(format_args!("round {round} of {}: {name} {}", args.rounds, seconds(wall)));
}

fn seeding_name(seeding: SeedingMode) -> &'static str {
    match seeding {
        SeedingMode::Spread => "spread",
        SeedingMode::Origin => "origin",
    }
}

fn their_round(args: &CompareArgs, nginx: &Nginx, content: &Content) -> anyhow::Result<Round> {
    let job = http::Job {
        remote: nginx.address,
        path: nginx::PATH,
        manifest: std::sync::Arc::clone(&content.manifest),
        clients: args.clients as usize,
        timeout: args.timeout,
    };
    let driver = shards::driver::choose(args.driver)?.driver;
    let sender_before = nginx.cpu_time();
    let received = http::receive(&job, Placement::plan(args.cores, false), driver)?;
    let sender = nginx.cpu_time().saturating_sub(sender_before);
    Ok(Round {
        wall_seconds: received.wall.as_secs_f64(),
        sender_cpu_seconds: sender.as_secs_f64(),
        receiver_cpu_seconds: received.cpu.as_secs_f64(),
    })
}

/// Our side: this executable, with a relay of its own. Also its congestion control.
fn our_round(args: &CompareArgs) -> anyhow::Result<(Round, String)> {
    let mut command = own_command()?;
    command.args(["--clients", &args.clients.to_string(), "--file", &args.file.to_string()]);
    command.args(["--seeding", seeding_name(args.seeding), "--seed", "1", "--json", "-"]);
    command.args(["--timeout", &format!("{}ms", args.timeout.as_millis())]);
    command.args(["--driver", &args.driver.to_string()]);
    if let Some(cores) = args.cores {
        command.args(["--cores", &cores.to_string()]);
    }
    // Given, it starts a relay of its own.
    command.args(["--relay-args", &format!("--congestion {CONGESTION}")]);
    let output = command.output().context("could not start our side")?;
    let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if !output.status.success() {
        anyhow::bail!("our side failed: {}", last_words(&output.stderr, report.as_ref()));
    }
    let report = report.context("our side made no report")?;
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("our side's report has no {pointer}"))
    };
    let round = Round {
        wall_seconds: number("/wall_seconds")?,
        sender_cpu_seconds: number("/relay/cpu_seconds")?,
        receiver_cpu_seconds: number("/loadgen/cpu_seconds")?,
    };
    Ok((round, report["congestion"].as_str().unwrap_or_default().to_owned()))
}

/// Least, median and most.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return (f64::NAN, f64::NAN, f64::NAN),
        len if len.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    };
    (values[0], median, values[values.len() - 1])
}

fn report(args: &CompareArgs, theirs: &Side, ours: &Side) -> anyhow::Result<()> {
    let text = prose(args, theirs, ours);
    let ratio = ours.median(|r| r.wall_seconds) / theirs.median(|r| r.wall_seconds);
    let json = serde_json::json!({
        "clients": args.clients,
        "file_size_bytes": args.file,
        "rounds": args.rounds,
        "sides": [theirs, ours],
        "wall_ratio": ratio,
    });
    let json = format!("{json:#}\n");
    match &args.json {
        Some(path) if path.as_os_str() == "-" => {
            relay::stderr::write(format_args!("{text}"));
            relay::stdout::print(json.as_bytes()).context(NO_STDOUT)
        }
        path => {
            // What stays comes first: stdout may have no reader.
            let kept = path.as_ref().map_or(Ok(()), |path| {
                std::fs::write(path, json)
                    .with_context(|| format!("could not write {}", path.display()))
            });
            let told = relay::stdout::print(text.as_bytes()).context(NO_STDOUT);
            kept.and(told)
        }
    }
}

fn prose(args: &CompareArgs, theirs: &Side, ours: &Side) -> String {
    let mut text = format!(
        "{} clients get {} each over loopback and check every byte; medians of {} rounds in \
         alternation (least, most)\n",
        args.clients,
        size(args.file),
        args.rounds
    );
    for side in [theirs, ours] {
        let (least, median, most) = spread(side.rounds.iter().map(|round| round.wall_seconds));
        writeln!(
            text,
            "  {:<32} {} ({}, {}); sender {} CPU, receivers {} CPU; {}",
            side.name,
            seconds(median),
            seconds(least),
            seconds(most),
            seconds(side.median(|round| round.sender_cpu_seconds)),
            seconds(side.median(|round| round.receiver_cpu_seconds)),
            side.congestion
        )
        .expect("text grows");
    }
    let ratio = |pick: fn(&Round) -> f64| ours.median(pick) / theirs.median(pick);
    writeln!(
        text,
        "  ratio, ours to nginx             wall {:.2}, sender's CPU {:.2}, receivers' CPU {:.2}",
        ratio(|round| round.wall_seconds),
        ratio(|round| round.sender_cpu_seconds),
        ratio(|round| round.receiver_cpu_seconds)
    )
    .expect("text grows");
    text.push_str(
        "  nginx sends one file from the page cache by sendfile; the relay takes the content in from \
         its origin,\n  verifies it, and sends it on. Clients of both hash what they read on pinned event \
         loops.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), (1.0, 2.0, 3.0));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), (1.0, 2.5, 4.0));
        assert!(spread(std::iter::empty()).1.is_nan());
    }

    #[test]
    fn the_prose_has_both_sides_and_their_ratio() {
        let side = |name: &str, wall_seconds| Side {
            name: name.into(),
            congestion: "cubic".into(),
            rounds: vec![Round {
                wall_seconds,
                sender_cpu_seconds: 1.0,
                receiver_cpu_seconds: 2.0,
            }],
        };
        let args = CompareArgs::try_parse_from(["compare", "nginx"]).unwrap();
        let text = prose(&args, &side("theirs", 2.0), &side("ours", 3.0));
        assert!(text.contains("wall 1.50, sender's CPU 1.00"), "{text}");
        assert!(text.matches("cubic").count() == 2, "{text}");
    }
}
