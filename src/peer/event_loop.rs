//! The event loop of a program that does one thing: runs on the main thread, hears of signals.

use std::{
    cell::RefCell,
    future::Future,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use shards::{DriverChoice, clock};
use signal_hook::{consts::SIGXFSZ, iterator::Signals};

use super::error::{ProgramError, no_thread};

/// Two signals within this are one: `timeout` and shells send the same one to a process and to its
/// group. No user presses a key twice that fast.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// A process that stood still for so long begins its waits anew; shorter breaks only count as no time, so
/// that on a machine that stands still again and again a wait ends all the same.
pub(super) const STOOD_STILL: Duration = Duration::from_secs(5);

/// Whether the user wants an end.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM are noted, but what is ignored stays so; a second one ends the process
    /// at once.
    pub(super) fn watch() -> Result<Self, ProgramError> {
        let fail = |error| ProgramError::Job(format!("failed to watch for signals: {error}"));
        let mut signals = Signals::new(crate::signals::to_catch()).map_err(fail)?;
        let interrupt = Self::default();
        let noted = interrupt.clone();
        let watch = move || {
            let mut first = None;
            for _ in signals.forever() {
                let now = clock::now();
                match first {
                    None => first = Some(now),
                    Some(first) if now.saturating_sub(first) < SAME_SIGNAL => {}
                    Some(_) => std::process::exit(1),
                }
                noted.0.store(true, Ordering::Relaxed);
            }
        };
        let thread = thread::Builder::new().name("peer-signals".into()).spawn(watch);
        thread.map_err(|error| ProgramError::Job(no_thread("that watches for signals", &error)))?;
        Ok(interrupt)
    }

    /// True from the first one on, for code that looks without knowing this type.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// There was one.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// From now on a file that may not grow so large is an error of a write, not a reason to be killed.
pub(super) fn ignore_file_size_signal() -> Result<(), ProgramError> {
    let registered = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let fail = |error| ProgramError::Job(format!("failed to watch for signals: {error}"));
    registered.map(drop).map_err(fail)
}

/// Runs a future on this thread until it ends.
pub(super) fn run<T: 'static>(
    driver: DriverChoice,
    future: impl Future<Output = T> + 'static,
) -> Result<T, ProgramError> {
    let fail = |error: &dyn std::fmt::Display| {
        ProgramError::Job(format!("failed to start the event loop: {error}"))
    };
    let chosen = shards::driver::choose(driver).map_err(|error| fail(&error))?;
    let output = Rc::new(RefCell::new(None));
    let end = Rc::clone(&output);
    let run = async move {
        let result = future.await;
        end.borrow_mut().replace(result);
    };
    shards::block_on(chosen.driver, run).map_err(|error| fail(&error))?;
    let result = output.borrow_mut().take();
    Ok(result.expect("the event loop ends with its future"))
}
