//! The bar on a terminal while a run goes on; a line now and then when stderr is none.

use std::{
    cell::Cell,
    io::{IsTerminal, stderr},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use relay::{
    stderr::{Pace, say},
    units::bytes_text,
};
use shards::clock;

use crate::board::Board;

/// Redraws a second.
const REDRAWS_HZ: u8 = 10;

/// Shows how far all clients together are.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    clients: usize,
    bytes_total: u64,
    /// Of lines, where there is no bar.
    pace: Cell<Pace>,
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
        Self { bar, clients, bytes_total, pace: Cell::new(Pace::new(clock::now())) }
    }

    /// Shows what the board says.
    pub(crate) fn update(&self, board: &Board) {
        let phase = if board.is_seeding() { ", seeding" } else { "" };
        let done = format!("{} of {} done{phase}", board.whole_count(), self.clients);
        if !self.bar.is_hidden() {
            self.bar.set_position(board.awaited_bytes());
            self.bar.set_message(done);
            return;
        }
        let mut pace = self.pace.get();
        if pace.is_due(clock::now()) {
            let (verified, all) = (bytes_text(board.awaited_bytes()), bytes_text(self.bytes_total));
            say(format_args!("loadgen: {verified} of {all} verified, clients: {done}"));
        }
        self.pace.set(pace);
    }

    /// Takes the bar away: the report follows.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
