//! Runs the load generator's executable, also in the relay's role, and ends what it started.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

/// The executable under test.
pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Value,
}

/// Starts nothing by itself; environment of the caller doesn't leak in.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = clean(LOADGEN);
    command.args(args);
    command
}

/// A program without the caller's settings of ours, and without input.
pub(crate) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("LOADGEN_") || name.starts_with("RELAY_") {
            command.env_remove(name);
        }
    }
    // Relays keep their key there, so that one which is started again has the same.
    command
        .stdin(Stdio::null())
        .env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command
}

/// Runs with a report, which is read back; a generous time limit and a fixed seed unless given.
pub(crate) fn run(args: &[&str]) -> Run {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let json = std::env::temp_dir().join(format!("loadgen-{}-{number}.json", std::process::id()));
    let mut all = args.to_vec();
    for (flag, value) in [("--timeout", "60s"), ("--seed", "7"), ("--json", json.to_str().unwrap())]
    {
        if !args.contains(&flag) {
            all.extend([flag, value]);
        }
    }
    let output = command(&all).output().unwrap();
    let report = std::fs::read(&json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    std::fs::remove_file(&json).ok();
    let run = of(&output, report.unwrap_or_default());
    println!("{all:?}\n{}{}", run.stdout, run.stderr);
    run
}

fn of(output: &Output, report: Value) -> Run {
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        report,
    }
}

impl Run {
    /// All clients that should have the file have it.
    pub(crate) fn assert_success(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.report["errors"], Value::Array(Vec::new()));
        self
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"))
    }
}

/// A relay process of the test's own; killed when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    /// Kept open: what the relay prints later must not kill it.
    _stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) address: String,
    /// What it is known by.
    pub(crate) pin: String,
}

impl Relay {
    pub(crate) fn start(listen: &str, args: &[&str]) -> Self {
        let mut command = command(&["relay-role", "--listen", listen, "--http", "127.0.0.1:0"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value = |start: &str| loop {
            let line = lines.next().expect("the relay ended before it was ready").unwrap();
            if let Some(value) = line.strip_prefix(start) {
                break value.to_owned();
            }
        };
        let (address, pin) = (value("relay listening on "), value("relay pin "));
        Self { child, _stdout: lines, address, pin }
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
