//! What `peer` says: sentences on stderr, bars only where somebody can look at them.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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

    /// A bar over so many bytes; an invisible one where stderr is no terminal.
    pub(super) fn bar(self, what: &str, bytes: u64) -> ProgressBar {
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
        bar
    }
}
