//! What a share shows while it runs: one line that renews itself on a terminal, a line now and then
//! elsewhere. On a terminal by a thread of its own: one that is held up holds up no chunk.

use std::{
    io::{IsTerminal as _, stderr},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shards::clock;

use crate::stderr::{self as people, Pace};

/// What waits to be shown, at most; more is dropped: the next state tells it, too.
const WAITING_MAX: usize = 64;

/// The line is drawn so often, at most.
const DRAWN_PER_SECOND: u8 = 4;

/// How often the thread looks whether the line is to be drawn again, as a terminal may change its width.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Something that matters is said out of turn, but not more often than this.
const HURRY_EVERY: Duration = Duration::from_secs(5);

enum Shown {
    Line(String),
    State(String),
}

/// Where a share says something.
pub(super) struct Screen {
    is_quiet: bool,
    terminal: Option<(SyncSender<Shown>, JoinHandle<()>)>,
    pace: Pace,
    hurried_at: Option<Duration>,
    said: String,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("said", &self.said).finish_non_exhaustive()
    }
}

impl Screen {
    /// `is_plain`: lines only, wherever stderr goes.
    pub(super) fn new(is_quiet: bool, is_plain: bool) -> Self {
        let draws = stderr().is_terminal() && !is_quiet && !is_plain;
        let terminal = draws.then(|| {
            let (sender, receiver) = sync_channel(WAITING_MAX);
            let builder = Builder::new().name("peer-screen".into());
            builder.spawn(move || draw(&receiver)).ok().map(|thread| (sender, thread))
        });
        let pace = Pace::new(clock::now());
        Self { is_quiet, terminal: terminal.flatten(), pace, hurried_at: None, said: String::new() }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.terminal {
            Some((sender, _)) => drop(sender.try_send(Shown::Line(text.to_owned()))),
            None if self.is_quiet => {}
            None => people::say(text),
        }
    }

    /// How it stands. `matters`: where lines are seldom, it is worth one now.
    pub(super) fn show(&mut self, text: String, matters: bool) {
        if let Some((sender, _)) = &self.terminal {
            drop(sender.try_send(Shown::State(text)));
            return;
        }
        if self.is_quiet || text == self.said {
            return;
        }
        let now = clock::now();
        let hurries = matters && self.hurried_at.is_none_or(|at| now - at >= HURRY_EVERY);
        if hurries || self.pace.is_due(now) {
            self.hurried_at = Some(now);
            people::say(&text);
            self.said = text;
        }
    }

    /// Takes the line away: the end of the program says what follows.
    pub(super) fn close(&mut self) {
        if let Some((sender, thread)) = self.terminal.take() {
            drop(sender);
            // One that panicked takes nothing else away.
            thread.join().ok();
        }
    }
}

fn draw(shown: &Receiver<Shown>) {
    let bar =
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND));
    // One line whatever the width: what does not fit is cut off.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    loop {
        match shown.recv_timeout(REDRAW_EVERY) {
            Ok(Shown::Line(text)) => bar.println(text),
            Ok(Shown::State(text)) => bar.set_message(text),
            Err(RecvTimeoutError::Timeout) if bar.message().is_empty() => {}
            Err(RecvTimeoutError::Timeout) => bar.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    bar.finish_and_clear();
}
