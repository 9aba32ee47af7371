//! Which kernel interface an event loop waits on: `io_uring`, epoll or kqueue.
//!
//! [`choose`] does not guess from a version number: it builds a ring and uses it, since
//! containers, seccomp filters and locked-memory limits refuse what the kernel could do.
//! Does not start threads.

use std::{fmt, io, str::FromStr};

use crate::root::Main;

/// What the user asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DriverChoice {
    /// `io_uring` where it works, else epoll (kqueue on macOS).
    #[default]
    Auto,
    /// `io_uring` or an error.
    IoUring,
    /// epoll (kqueue on macOS).
    Epoll,
}

/// What a shard runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// Linux, `io_uring`.
    IoUring,
    /// Linux, epoll.
    Epoll,
    /// macOS.
    Kqueue,
}

/// A driver and why it was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// What to start with.
    pub driver: Driver,
    /// One line for the start-up log.
    pub reason: String,
}

/// The forced driver doesn't run here.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring was asked for but {why}; allow it (containers: a seccomp profile with \
     io_uring_setup, sysctl kernel.io_uring_disabled=0, ulimit -l) or use the driver auto or epoll"
)]
pub struct DriverError {
    why: String,
}

/// A text that names no driver.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown driver {0:?}, expected auto, io-uring or epoll")]
pub struct UnknownDriver(String);

/// Set to 1, it keeps `auto` from `io_uring`; the event-loop library's own switch, honoured here
/// so that one variable forces every loop of a test run.
pub const FORCE_EPOLL_VARIABLE: &str = "MONOIO_FORCE_LEGACY_DRIVER";

/// Decides, and says why.
///
/// # Errors
/// `io_uring` is forced and can't be used; the error says what to do.
pub fn choose(choice: DriverChoice) -> Result<Chosen, DriverError> {
    let forced = std::env::var(FORCE_EPOLL_VARIABLE).is_ok_and(|value| is_yes(&value));
    choose_with(choice, forced, try_io_uring)
}

fn choose_with(
    choice: DriverChoice,
    epoll_forced: bool,
    try_io_uring: impl FnOnce() -> Result<(), String>,
) -> Result<Chosen, DriverError> {
    let fallback = polling_driver();
    let chosen = |driver, why: &str| Chosen { driver, reason: format!("{driver}: {why}") };
    match choice {
        DriverChoice::Epoll => Ok(chosen(fallback, "asked for")),
        DriverChoice::IoUring => match try_io_uring() {
            Ok(()) => Ok(chosen(Driver::IoUring, "asked for, and it works here")),
            Err(why) => Err(DriverError { why }),
        },
        DriverChoice::Auto if epoll_forced => {
            Ok(chosen(fallback, &format!("{FORCE_EPOLL_VARIABLE} is set")))
        }
        DriverChoice::Auto => match try_io_uring() {
            Ok(()) => Ok(chosen(Driver::IoUring, "it works here")),
            Err(why) => Ok(chosen(fallback, &format!("fallback, since {why}"))),
        },
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes")
}

const fn polling_driver() -> Driver {
    if cfg!(target_os = "linux") { Driver::Epoll } else { Driver::Kqueue }
}

#[cfg(not(target_os = "linux"))]
fn try_io_uring() -> Result<(), String> {
    Err("this system has no io_uring".to_owned())
}

/// Tries a ring's system calls one by one, then builds a loop as a shard would and lets an operation go
/// through it.
#[cfg(target_os = "linux")]
fn try_io_uring() -> Result<(), String> {
    let refused = |error: io::Error| format!("the kernel refuses it: {error}");
    crate::ring::probe().map_err(refused)?;
    let (near, mut far) = std::os::unix::net::UnixStream::pair()
        .map_err(|error| format!("a socket pair can't be made: {error}"))?;
    let mut event_loop = build(Driver::IoUring).map_err(refused)?;
    // A ring may exist and yet lack the operations that the library uses; it knows them.
    let forced = std::env::var(FORCE_EPOLL_VARIABLE).is_ok_and(|value| is_yes(&value));
    if !forced && !monoio::utils::detect_uring() {
        return Err("this kernel's io_uring lacks operations that are needed".to_owned());
    }
    io::Write::write_all(&mut far, b"?").map_err(refused)?;
    let outcome = std::rc::Rc::new(std::cell::Cell::new(None));
    let result = outcome.clone();
    event_loop.run(Main::new(async move {
        let stream = monoio::net::UnixStream::from_std(near);
        result.set(Some(match stream {
            Ok(stream) => stream.readable(false).await,
            Err(error) => Err(error),
        }));
    }));
    match outcome.take() {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(refused(error)),
        None => Err("an operation on the ring never ended".to_owned()),
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
            Self::Kqueue => "kqueue",
        })
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
        })
    }
}

impl FromStr for DriverChoice {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        match text {
            "auto" => Ok(Self::Auto),
            "io-uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownDriver(text.to_owned())),
        }
    }
}

/// An event loop of either kind.
pub(crate) trait EventLoop {
    /// Runs until `main` ends.
    fn run(&mut self, main: Main);
}

impl<D: monoio::Driver> EventLoop for monoio::Runtime<D> {
    fn run(&mut self, main: Main) {
        self.block_on(main);
    }
}

/// Submission queue entries of a ring: the most, then what is tried where locked memory is short.
/// The library takes no fewer than 256.
#[cfg(target_os = "linux")]
const RING_ENTRIES: [u32; 2] = [1_024, 256];

/// Builds an event loop for this thread.
pub(crate) fn build(driver: Driver) -> io::Result<Box<dyn EventLoop>> {
    match driver {
        #[cfg(target_os = "linux")]
        Driver::IoUring => {
            let build = |entries| {
                let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
                builder.with_entries(entries).enable_timer().build()
            };
            // The library does not look at what entering a ring comes to: where it is refused, a loop
            // would turn for ever without anything happening.
            crate::ring::probe_enter()?;
            let [most, least] = RING_ENTRIES;
            let runtime = build(most).or_else(|_| build(least))?;
            Ok(Box::new(runtime))
        }
        #[cfg(not(target_os = "linux"))]
        Driver::IoUring => Err(io::ErrorKind::Unsupported.into()),
        Driver::Epoll | Driver::Kqueue => {
            let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
            Ok(Box::new(builder.enable_timer().build()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Driver, DriverChoice, choose, choose_with, polling_driver};

    #[test]
    fn names_round_trip() {
        for choice in [DriverChoice::Auto, DriverChoice::IoUring, DriverChoice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "uring".parse::<DriverChoice>().unwrap_err();
        assert!(error.to_string().contains("\"uring\""), "{error}");
    }

    #[test]
    fn a_refused_ring_falls_back_and_says_so_in_one_line() {
        let refuse = || Err("the kernel refuses it: Operation not permitted".to_owned());
        let chosen = choose_with(DriverChoice::Auto, false, refuse).unwrap();
        assert_eq!(chosen.driver, polling_driver());
        assert!(chosen.reason.contains("not permitted"), "{}", chosen.reason);
        assert!(!chosen.reason.contains('\n'));
    }

    #[test]
    fn a_forced_ring_that_is_refused_is_an_error_that_says_what_to_do() {
        let refuse = || Err("the kernel refuses it: Operation not permitted".to_owned());
        let error = choose_with(DriverChoice::IoUring, false, refuse).unwrap_err().to_string();
        assert!(error.contains("not permitted") && error.contains("epoll"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn the_variable_forces_epoll_only_on_auto() {
        let chosen = choose_with(DriverChoice::Auto, true, || Ok(())).unwrap();
        assert_eq!(chosen.driver, polling_driver());
        let chosen = choose_with(DriverChoice::IoUring, true, || Ok(())).unwrap();
        assert_eq!(chosen.driver, Driver::IoUring);
    }

    #[test]
    fn the_real_choice_always_runs_somewhere() {
        assert!(choose(DriverChoice::Auto).is_ok());
        assert_eq!(choose(DriverChoice::Epoll).unwrap().driver, polling_driver());
    }
}
