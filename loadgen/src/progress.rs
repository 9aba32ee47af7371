//! The bar on a terminal while a run goes on; nothing when stderr is none.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::board::Board;

/// Redraws a second.
const REDRAWS_HZ: u8 = 10;

/// Shows how far all clients together are.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    clients: usize,
}

impl Progress {
    /// For so many clients and verified bytes in all.
    pub(crate) fn new(clients: usize, bytes_total: u64) -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(bytes_total), target);
        let template = "{elapsed} [{bar:40}] {binary_bytes} of {binary_total_bytes}, \
                        {binary_bytes_per_sec}, {msg}";
        bar.set_style(
            ProgressStyle::with_template(template)
                .expect("the template is valid")
                .progress_chars("=> "),
        );
        Self { bar, clients }
    }

    /// Shows what the board says.
    pub(crate) fn update(&self, board: &Board) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position(board.verified_bytes());
        let phase = if board.is_seeding() { ", seeding" } else { "" };
        self.bar.set_message(format!("{} of {} done{phase}", board.whole_count(), self.clients));
    }

    /// Takes the bar away: the report follows.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
