//! What `peer` says: sentences on stderr, bars only on a terminal, a line now and then
//! elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shards::clock;

use crate::{stderr::Pace, units::bytes_text};

/// How often a bar is drawn, in times a second.
const DRAWN_PER_SECOND: u8 = 10;

/// Speaks on stderr, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    pub(super) quiet: bool,
}

impl Voice {
    /// A line for people.
    pub(super) fn say(self, text: &str) {
        if !self.quiet {
            crate::stderr::say(format_args!("{text}"));
        }
    }

    /// Of something that goes over so many bytes.
    pub(super) fn progress(self, what: &str, bytes: u64) -> Progress {
        let visible = !self.quiet && std::io::stderr().is_terminal();
        let target = if visible {
            ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} \
                        {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        let pace = (!visible && !self.quiet).then(|| Pace::new(clock::now()));
        Progress { bar, pace, what: what.to_owned(), bytes }
    }
}

/// How far something is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Of lines, where there is no bar.
    pace: Option<Pace>,
    what: String,
    bytes: u64,
}

impl Progress {
    /// So many bytes are done.
    pub(super) fn set(&mut self, done_bytes: u64) {
        self.bar.set_position(done_bytes);
        if self.pace.as_mut().is_some_and(|pace| pace.is_due(clock::now())) {
            let (done, all) = (bytes_text(done_bytes), bytes_text(self.bytes));
            crate::stderr::say(format_args!("{}: {done} of {all}", self.what));
        }
    }

    /// It is over.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
