//! SIGINT and SIGTERM: the first drains, the second ends at once.

use signal_hook::{consts::TERM_SIGNALS, iterator::Signals as Iter};

/// Registered from the start, so that no signal is lost.
pub(crate) struct Signals(Iter);

impl Signals {
    pub(crate) fn register() -> std::io::Result<Self> {
        Iter::new(TERM_SIGNALS).map(Self)
    }

    /// Blocks until there is one.
    pub(crate) fn wait(&mut self) {
        if self.0.forever().next().is_none() {
            tracing::debug!("the signal stream ended");
        }
    }
}
