//! A relay as a child process, on ports of its own, killed when the test is done with it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    process::{Child, Command, ExitStatus, Stdio},
};

use relay::protocol::Pin;
use rustix::process::{Pid, Signal, kill_process};

use super::{http, wait_for};

/// Signals that the tests' parent ignores, as a shell does with what it runs in the background, are not
/// ignored by programs that are started from now on: ours respect it, and could not be ended by them.
fn hear_signals() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for &signal in signal_hook::consts::TERM_SIGNALS {
            let ends = std::sync::Arc::new(true.into());
            signal_hook::flag::register_conditional_default(signal, ends)
                .expect("a signal can be caught");
        }
    });
}

/// Where relays that tests start keep their key, so that one which is started again has the same.
pub(crate) const RELAY_STATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/state");

/// Where programs that tests start remember hashes: never in the cache of the user who runs the tests. What tests make
/// is too new to be remembered, so no test finds what another has left.
pub(crate) const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// No place for state. Ports come back, so what one test's peers remember of a relay is wrong for another's.
pub(crate) const NO_STATE: &str = "/dev/null";

/// Says where a program keeps its state, and what it can make again, unless the test has.
pub(crate) fn with_state<'a>(command: &'a mut Command, place: &str) -> &'a mut Command {
    for (variable, place) in [("XDG_STATE_HOME", place), ("XDG_CACHE_HOME", CACHE)] {
        if !command.get_envs().any(|(name, _)| name == variable) {
            command.env(variable, place);
        }
    }
    command
}

/// A running relay.
pub(crate) struct RelayProcess {
    child: Child,
    /// Where it listens for peers.
    pub(crate) addr: SocketAddr,
    /// Where it answers HTTP.
    pub(crate) http: SocketAddr,
    /// What `--serve` printed, in the order of the files.
    pub(crate) tickets: Vec<String>,
    /// What it is known by.
    pub(crate) pin: Pin,
    stderr: File,
    reaped: bool,
}

/// A program that ended by itself.
pub(crate) struct Ended {
    /// Its exit code; a signal is -1.
    pub(crate) code: i32,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

impl RelayProcess {
    /// Starts a relay on free loopback ports. `command` is the program, `args` come on top.
    ///
    /// # Panics
    /// It does not come up.
    pub(crate) fn start(command: Command, args: &[&str]) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(command, addr, args)
    }

    /// The same on a port that the caller chose.
    pub(crate) fn start_on(command: Command, addr: SocketAddr, args: &[&str]) -> Self {
        Self::start_until(command, addr, args, 200)
    }

    /// The same for a relay whose probes want a token as well: being turned away is a sign of life.
    pub(crate) fn start_guarded(command: Command, args: &[&str]) -> Self {
        Self::start_until(command, SocketAddr::from(([127, 0, 0, 1], 0)), args, 401)
    }

    /// A port that the caller chose may be the near end of another test's connection for a moment.
    fn start_until(mut command: Command, addr: SocketAddr, args: &[&str], ready: u16) -> Self {
        hear_signals();
        with_state(&mut command, RELAY_STATE)
            .args(["--listen", &addr.to_string(), "--http", "127.0.0.1:0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        wait_for("a relay that comes up", || {
            match Self::try_start(&mut command, addr, args, ready) {
                Ok(relay) => Some(relay),
                Err(why) if addr.port() != 0 && why.contains("in use") => None,
                Err(why) => panic!("the relay did not come up: {why}"),
            }
        })
    }

    fn try_start(
        command: &mut Command,
        addr: SocketAddr,
        args: &[&str],
        ready: u16,
    ) -> Result<Self, String> {
        let stderr = tempfile::tempfile().expect("a temporary file can be made");
        command.stderr(stderr.try_clone().expect("a descriptor can be copied"));
        let mut child = command.spawn().expect("the program can be started");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let http = SocketAddr::from(([0; 4], 0));
        let pin = Pin::of_public_key(&[]);
        let mut relay = Self { child, addr, http, tickets: Vec::new(), pin, stderr, reaped: false };
        let mut lines = BufReader::new(stdout).lines();
        let mut line = |start: &str| {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            let addr = line.strip_prefix(start).and_then(|addr| addr.parse().ok());
            addr.ok_or_else(|| format!("expected '{start}ADDR', got '{line}'"))
        };
        match (line("relay listening on "), line("relay http on ")) {
            (Ok(addr), Ok(http)) => (relay.addr, relay.http) = (addr, http),
            (Err(why), _) | (_, Err(why)) => return Err(format!("{why}\n{}", relay.log())),
        }
        for _ in args.iter().filter(|arg| **arg == "--serve") {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            let ticket = line.strip_prefix("relay ticket ").expect("a ticket follows");
            relay.tickets.push(ticket.to_owned());
        }
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        let pin = line.strip_prefix("relay pin ").expect("its pin comes last");
        relay.pin = pin.parse().expect("a pin");
        wait_for("the relay to be ready", || {
            (http::get(relay.http, "/readyz").ok()?.status == ready).then_some(())
        });
        Ok(relay)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the relay is there to be signalled");
    }

    /// Kills it without a word, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the relay can be killed");
        self.child.wait().expect("the relay can be waited for");
        self.reaped = true;
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_for("the relay to end", || {
            self.child.try_wait().expect("the relay can be waited for")
        });
        self.reaped = true;
        status
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the relay can be waited for").is_none()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        read_all(&self.stderr)
    }

    /// Sum of a metric over all its labels that contain each of `labels`, such as
    /// `reason="magic"`; 0 if there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        http::metric(&http::metrics(self.http), name, labels)
    }

    /// Waits until a metric is at least `least`.
    pub(crate) fn wait_metric(&self, name: &str, labels: &[&str], least: f64) {
        let mut last = 0.0;
        for _ in 0..1000 {
            last = self.metric(name, labels);
            if last >= least {
                return;
            }
            super::pause(super::POLL);
        }
        panic!("{name}{labels:?} is {last}, not {least}\n{}", self.log());
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of the relay\n{}---", self.log());
        }
        if !self.reaped {
            // Nothing is to be done about a process that is gone already.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A program on its way to its end; killed if the test ends before.
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// It can't be started.
    pub(crate) fn start(command: &mut Command) -> Self {
        let stdout = tempfile::tempfile().expect("a temporary file can be made");
        let stderr = tempfile::tempfile().expect("a temporary file can be made");
        let child = with_state(command, NO_STATE)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a descriptor can be copied"))
            .stderr(stderr.try_clone().expect("a descriptor can be copied"))
            .spawn()
            .expect("the program can be started");
        Self { child, stdout, stderr }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// What it wrote to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        read_all(&self.stdout)
    }

    /// What it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        read_all(&self.stderr)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the program is there to be signalled");
    }

    /// Kills it without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It doesn't within three times [`super::PATIENCE`].
    pub(crate) fn wait(mut self) -> Ended {
        for _ in 0..3 * super::PATIENCE.as_millis() / super::POLL.as_millis() {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                let code = status.code().unwrap_or(-1);
                let (stdout, stderr) = (read_all(&self.stdout), read_all(&self.stderr));
                return Ended { code, stdout, stderr };
            }
            super::pause(super::POLL);
        }
        panic!("it does not end\n{}\n{}", read_all(&self.stdout), read_all(&self.stderr));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is to be done about a process that is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a program that is expected to end by itself.
pub(crate) fn run(command: &mut Command) -> Ended {
    Running::start(command).wait()
}

fn read_all(file: &File) -> String {
    let length = file.metadata().expect("a file has a length").len();
    let mut bytes = vec![0; usize::try_from(length).expect("logs are small")];
    // The position is shared with the writer: it must stay where it is.
    file.read_exact_at(&mut bytes, 0).expect("a file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The drivers that work here: what the relay chooses by itself, and epoll. `command` makes the
/// relay's command.
pub(crate) fn drivers(command: impl Fn() -> Command) -> Vec<&'static str> {
    let relay = RelayProcess::start(command(), &[]);
    let page = http::metrics(relay.http);
    if http::metric(&page, "relay_build_info", &["driver=\"io-uring\""]) > 0.0 {
        return vec!["epoll", "io-uring"];
    }
    println!("io_uring does not work here: epoll only");
    vec!["epoll"]
}

/// Most resident memory of a process so far, in bytes; 0 where the kernel does not tell, as outside of Linux.
pub(crate) fn resident_bytes_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Open descriptors of a process; 0 where the kernel does not tell.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
