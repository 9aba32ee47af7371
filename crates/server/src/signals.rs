//! SIGINT and SIGTERM: the first drains, the second ends at once. SIGHUP: settings are read again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    iterator::Signals as Iter,
};

/// The same signal again within this is the same wish: supervisors such as `timeout` signal the
/// process and then its group, which reaches it twice within a millisecond. No person presses a
/// key twice as fast.
const REPETITION_MAX: Duration = Duration::from_millis(100);

/// Its thread's name.
pub(crate) const THREAD: &str = "relay-signals";

/// Registered from the start, so that no signal is lost.
pub(crate) struct Signals {
    iter: Iter,
    /// The last that counted, and when it came.
    last: Option<(i32, Duration)>,
}

/// What the main thread hears of.
enum Call {
    End,
    /// It is told once, however often the signal came since.
    Reload,
}

/// There is one of each at most.
const CALLS_MAX: usize = 2;

/// Where the first signal is waited for.
pub(crate) struct First {
    calls: mpsc::Receiver<Call>,
    wants_reload: Arc<AtomicBool>,
}

impl First {
    /// Blocks until there is one that ends the process; meanwhile reloads whenever it is told to.
    pub(crate) fn wait(&self, reload: impl Fn()) {
        loop {
            match self.calls.recv() {
                Ok(Call::Reload) => {
                    self.wants_reload.store(false, Ordering::SeqCst);
                    reload();
                }
                Ok(Call::End) => return,
                Err(_) => return tracing::error!("the thread that waits for signals ended"),
            }
        }
    }
}

impl Signals {
    pub(crate) fn register() -> std::io::Result<Self> {
        let all = TERM_SIGNALS.iter().chain([&SIGHUP]);
        Ok(Self { iter: Iter::new(all)?, last: None })
    }

    /// Watches on a thread of its own, so that each signal is dated when it comes, whatever the
    /// rest of the process does. The second one ends the process.
    pub(crate) fn watch(mut self) -> std::io::Result<First> {
        let (tell, calls) = mpsc::sync_channel(CALLS_MAX);
        let wants_reload = Arc::new(AtomicBool::new(false));
        let wanted = Arc::clone(&wants_reload);
        let watch = move || {
            self.wait(|| {
                if !wanted.swap(true, Ordering::SeqCst) {
                    // A relay that is ending reloads nothing.
                    tell.send(Call::Reload).ok();
                }
            });
            if tell.send(Call::End).is_err() {
                // The relay is ending by itself already.
                return;
            }
            self.wait(|| {});
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        };
        let builder = std::thread::Builder::new().name(THREAD.into());
        builder.spawn(watch)?;
        Ok(First { calls, wants_reload })
    }

    /// Blocks until there is a signal to end that is no repetition.
    fn wait(&mut self, hang_up: impl Fn()) {
        loop {
            let Some(signal) = self.iter.forever().next() else { return };
            if signal == SIGHUP {
                hang_up();
                continue;
            }
            let now = shards::clock::now();
            if !is_repetition(self.last, signal, now) {
                self.last = Some((signal, now));
                return;
            }
            tracing::debug!(signal, "the same signal again: counted once");
        }
    }
}

fn is_repetition(last: Option<(i32, Duration)>, signal: i32, now: Duration) -> bool {
    last.is_some_and(|(other, at)| other == signal && now.saturating_sub(at) < REPETITION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_signal_at_once_is_a_repetition() {
        let at = Duration::from_secs(5);
        assert!(!is_repetition(None, 15, at));
        assert!(is_repetition(Some((15, at)), 15, at + Duration::from_millis(1)));
        assert!(!is_repetition(Some((15, at)), 2, at + Duration::from_millis(1)));
        assert!(!is_repetition(Some((15, at)), 15, at + REPETITION_MAX));
    }
}
