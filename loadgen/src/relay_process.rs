//! The relay that a run uses: one that is there, or one of its own, a second process of this
//! very executable in the relay's role.
//!
//! Knows how to find, start and end it, nothing of what it does.

use std::{
    io::{self, Read},
    net::SocketAddr,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use relay::{protocol::Pin, transport::Trust};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};

use crate::{
    args::EXIT_USAGE,
    stats::{Observer, StatsError},
};

/// The hidden first argument that makes this executable a relay.
pub(crate) const ROLE_ARGUMENT: &str = "relay-role";

/// Where a relay is looked for.
const USUAL_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7440);

/// What a relay prints before its data address.
const LISTENING: &str = "relay listening on ";

/// What it prints before its pin, in its last line.
const PIN: &str = "relay pin ";

/// For an own relay to begin to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// For an own relay to end after it was asked to.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is looked at whether it has.
const END_TICK: Duration = Duration::from_millis(5);

/// Bytes that a relay may print before its pin.
const OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// The one that was named doesn't answer.
    #[error("{0}; is it running? leave --relay out to have one started")]
    Absent(StatsError),
    /// The one that was named answers, and can't be used.
    #[error("{0}")]
    Named(StatsError),
    /// It could not be started.
    #[error("could not start a relay of our own: {0}")]
    Start(io::Error),
    /// It ended before it listened.
    #[error("our own relay ended with {0} before it listened; its messages are above")]
    Ended(ExitStatus),
    /// It said nothing in time.
    #[error("our own relay did not begin to listen within {} s", START_TIMEOUT.as_secs())]
    Silent,
    /// It listens, but doesn't answer.
    #[error("our own relay is of no use: {0}")]
    Useless(StatsError),
}

impl RelayError {
    /// Whether what its relay was told made no sense: as wrong usage of this program, too.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Ended(status) if status.code() == Some(i32::from(EXIT_USAGE)))
    }
}

/// The relay of a run; an own one is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where its data port is.
    pub(crate) address: SocketAddr,
    /// One line about where it came from.
    pub(crate) origin: String,
    /// How it is known: by the pin that was given or that an own one printed, else by the key that it showed first.
    pub(crate) trust: Trust,
    own: Option<OwnRelay>,
}

#[derive(Debug)]
struct OwnRelay {
    child: Child,
    /// Kept open: what the relay prints later must not kill it.
    stdout: ChildStdout,
}

impl Relay {
    /// The relay at this address, which must answer, and prove the pin, if that is known.
    pub(crate) fn at(
        address: SocketAddr,
        pin: Option<Pin>,
    ) -> Result<(Self, Observer), RelayError> {
        let trust = pin.map_or_else(Trust::first_seen, Trust::pinned);
        let observer = Observer::connect(address, &trust).map_err(|error| match error {
            error @ StatsError::Connect(..) => RelayError::Absent(error),
            error => RelayError::Named(error),
        })?;
        let origin = format!("the one at {address}");
        Ok((Self { address, origin, trust, own: None }, observer))
    }

    /// A relay at the usual address, else an own one.
    pub(crate) fn find_or_start(args: &[String]) -> Result<(Self, Observer), RelayError> {
        let trust = Trust::first_seen();
        match Observer::connect(USUAL_ADDRESS, &trust) {
            Ok(observer) => {
                let origin = format!("one that was running at {USUAL_ADDRESS}");
                Ok((Self { address: USUAL_ADDRESS, origin, trust, own: None }, observer))
            }
            Err(StatsError::Connect(..)) => Self::start(args),
            Err(error) => {
                relay::stderr::say(format_args!("loadgen: {error}"));
                Self::start(args)
            }
        }
    }

    /// An own relay, on loopback, on ports that are free.
    pub(crate) fn start(args: &[String]) -> Result<(Self, Observer), RelayError> {
        let mut own = OwnRelay::spawn(args).map_err(RelayError::Start)?;
        let (address, pin) = own.wait_until_ready()?;
        let trust = Trust::pinned(pin);
        let observer = Observer::connect(address, &trust).map_err(RelayError::Useless)?;
        let origin = format!("its own, process {} at {address}", own.child.id());
        Ok((Self { address, origin, trust, own: Some(own) }, observer))
    }

    /// The process of an own relay.
    pub(crate) fn own_process(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.child.id())
    }

    /// Whether an own relay has ended by itself, and how.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.own.as_mut()?.child.try_wait().ok().flatten()
    }
}

/// Whether the words give this option a value.
pub(crate) fn names(words: &[String], option: &str) -> bool {
    words.iter().any(|word| {
        word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// This program: as the system knows it, or where nothing tells, as it was called.
fn own_executable() -> io::Result<PathBuf> {
    let called = || std::env::args_os().next().map(PathBuf::from);
    std::env::current_exe().or_else(|error| called().ok_or(error))
}

impl OwnRelay {
    fn spawn(args: &[String]) -> io::Result<Self> {
        let mut command = Command::new(own_executable()?);
        command.arg(ROLE_ARGUMENT);
        command.args(["--listen", "127.0.0.1:0"]);
        // Other runs know nothing of it, and there may be no place for its key.
        command.arg("--ephemeral-identity");
        if !names(args, "--http") {
            command.args(["--http", "127.0.0.1:0"]);
        }
        command.args(args);
        if std::env::var_os("RELAY_LOG").is_none_or(|level| level.is_empty()) {
            command.env("RELAY_LOG", "warn");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::other(format!("{error}; {}", shards::MORE_THREADS))
            }
            _ => error,
        })?;
        let stdout = child.stdout.take().expect("it was piped");
        Ok(Self { child, stdout })
    }

    /// Reads what the relay prints until it names its address and its pin.
    fn wait_until_ready(&mut self) -> Result<(SocketAddr, Pin), RelayError> {
        let deadline = shards::clock::now() + START_TIMEOUT;
        let mut output = Vec::new();
        let mut buffer = [0; 1024];
        while output.len() < OUTPUT_BYTES_MAX {
            let left = deadline.saturating_sub(shards::clock::now());
            if left.is_zero() || !self.is_readable(left).map_err(RelayError::Start)? {
                return Err(RelayError::Silent);
            }
            match self.stdout.read(&mut buffer).map_err(RelayError::Start)? {
                0 => return Err(RelayError::Ended(self.child.wait().map_err(RelayError::Start)?)),
                count => output.extend_from_slice(&buffer[..count]),
            }
            if let Some(found) = value_in(&output, LISTENING).zip(value_in(&output, PIN)) {
                return Ok(found);
            }
        }
        Err(RelayError::Silent)
    }

    fn is_readable(&self, within: Duration) -> io::Result<bool> {
        let fd = self.stdout.as_fd();
        let within = Timespec::try_from(within).expect("a few seconds fit");
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&within))?;
        Ok(ready > 0)
    }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let asked = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = asked {
            // If it ended meanwhile, that is what was wanted.
            kill_process(pid, Signal::TERM).ok();
        }
        let deadline = shards::clock::now() + END_TIMEOUT;
        while shards::clock::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(END_TICK);
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What follows this in a line that a relay printed, once the line is complete.
fn value_in<T: FromStr>(output: &[u8], before: &str) -> Option<T> {
    let text = String::from_utf8_lossy(output);
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n')?.strip_prefix(before))
        .find_map(|value| value.trim().parse().ok())
}

/// In the relay's role: end when the load generator does, however it ends.
#[cfg(target_os = "linux")]
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// In the relay's role: other systems have no such wish; a killed load generator leaves a relay.
#[cfg(not(target_os = "linux"))]
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_pin_are_found_once_their_lines_are_complete() {
        let address_in = |output: &[u8]| value_in::<SocketAddr>(output, LISTENING);
        assert_eq!(address_in(b"relay listening on 127.0.0.1:70"), None);
        let found = address_in(b"something\nrelay listening on 127.0.0.1:7000\nrelay http on x\n");
        assert_eq!(found, Some("127.0.0.1:7000".parse().unwrap()));
        assert_eq!(address_in(b"relay http on 127.0.0.1:1\n"), None);
        let pin = Pin::of_public_key(b"a key");
        let line = format!("relay http on 127.0.0.1:1\nrelay pin {pin}\n");
        assert_eq!(value_in(line.as_bytes(), PIN), Some(pin));
        assert_eq!(value_in::<Pin>(line.trim_end().as_bytes(), PIN), None);
    }
}
