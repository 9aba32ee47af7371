//! What a get shows while it runs: a bar on a terminal, a line now and then elsewhere, or an event for
//! machines.
//!
//! On a thread of its own, so that a terminal that is held up holds up nothing else. Everything on
//! stderr; results are not its business.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use shards::clock;

use super::{
    super::args::CommonArgs,
    count::FileCount,
    status::{Phase, Status, time_text},
};
use crate::{
    client::resume::Hashing,
    stderr::Pace,
    units::{bytes_text, grouped},
};

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How often it is drawn, in times a second.
const DRAWN_PER_SECOND: u8 = 10;

/// Without a terminal a wait is explained when it begins to be one, and then so often.
const EXPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Weight of the last tick in the rate that is shown: it follows within a second or two.
const RATE_WEIGHT: f64 = 0.1;

/// News that wait to be shown, at most; more are dropped: what they say can be seen in the bar.
pub(crate) const NEWS_MAX: usize = 64;

/// What the event loop tells beside figures.
#[derive(Debug)]
pub(crate) enum News {
    /// Something that the user should know.
    Note(String),
    /// There is no connection, for this reason.
    Lost(String),
    /// There is one again.
    Found,
}

/// Shows, until all senders of news are gone.
pub(crate) fn show(
    status: &Status,
    hashing: &Arc<Hashing>,
    news: &Receiver<News>,
    common: &CommonArgs,
) {
    let mut screen = Screen::new(status, common);
    loop {
        match news.recv_timeout(TICK) {
            Ok(News::Note(text)) => screen.print(&text),
            Ok(News::Lost(error)) => screen.lost(error),
            Ok(News::Found) => screen.found(),
            Err(RecvTimeoutError::Timeout) => screen.update(hashing),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    screen.bar.finish_and_clear();
}

struct Screen<'a> {
    status: &'a Status,
    is_quiet: bool,
    /// Events on stdout instead of lines on stderr.
    is_json: bool,
    bar: ProgressBar,
    /// What ended the last connection.
    error: Option<String>,
    explained_at: Option<Duration>,
    /// The user was told that there is no connection.
    told_lost: bool,
    pace: Pace,
    paced_at: (Duration, u64),
    last_bytes: u64,
    last_at: Duration,
    rate: f64,
}

impl<'a> Screen<'a> {
    fn new(status: &'a Status, common: &CommonArgs) -> Self {
        let is_quiet = common.quiet;
        let target = if stderr().is_terminal() && !is_quiet {
            ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(status.key.size_bytes), target);
        // The message has a line of its own: it says why nothing comes, and must not be cut off.
        let template = "[{wide_bar}] {prefix}{binary_bytes} of {binary_total_bytes}\n{msg}";
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        bar.set_style(style.progress_chars("=> "));
        let last_at = clock::now();
        Self {
            status,
            is_quiet,
            is_json: common.json,
            bar,
            error: None,
            explained_at: None,
            told_lost: false,
            pace: Pace::new(last_at),
            paced_at: (last_at, 0),
            last_bytes: 0,
            last_at,
            rate: 0.0,
        }
    }

    fn print(&self, text: &str) {
        if self.is_quiet {
        } else if self.bar.is_hidden() {
            crate::stderr::say(format_args!("{text}"));
        } else {
            self.bar.println(text);
        }
    }

    /// There is no connection: of a wait, this is another reason than the one that was told.
    fn lost(&mut self, error: String) {
        if self.error.replace(error).is_none() {
            self.explained_at = None;
        }
    }

    /// There is a connection again.
    fn found(&mut self) {
        self.error = None;
        if std::mem::take(&mut self.told_lost) {
            self.print("connected to the relay again");
        }
    }

    fn update(&mut self, hashing: &Hashing) {
        let waiting = self.status.why_waiting(self.error.as_deref());
        let is_connected = self.status.is_connected.load(Relaxed);
        self.told_lost |=
            waiting.is_some() && !is_connected && self.status.was_accepted.load(Relaxed);
        let phase = self.status.phase();
        let (bytes, total) = match phase {
            Phase::Hashing => {
                (hashing.hashed_bytes.load(Relaxed), hashing.total_bytes.load(Relaxed))
            }
            _ => (self.status.have_bytes.load(Relaxed), self.status.goal_bytes()),
        };
        if self.is_json {
            self.tell(phase, bytes, total, waiting.as_deref());
        }
        if self.bar.is_hidden() {
            if !self.is_json {
                self.tell_in_lines(phase, bytes, total, waiting);
            }
            return;
        }
        self.measure(bytes);
        self.bar.set_length(total);
        self.bar.set_position(bytes);
        if phase != Phase::Hashing {
            self.bar.set_prefix(self.files_text());
        }
        self.bar.set_message(match (waiting, phase) {
            (Some(waiting), _) => waiting,
            (None, Phase::Hashing) => format!("checking what is here, {}", self.rate_text()),
            (None, Phase::Getting) => self.rate_and_rest(total.saturating_sub(bytes)),
            (None, phase) => self.state_text(phase),
        });
    }

    /// How many files of a directory are whole, before how many bytes are here.
    fn files_text(&self) -> String {
        let Some(files) = self.status.files() else { return String::new() };
        let (done, total) = files.counts();
        format!("{} of {} files, ", grouped(done), grouped(total))
    }

    fn state_text(&self, phase: Phase) -> String {
        if phase == Phase::Finishing {
            return "bringing it safely to disk".into();
        }
        let served = bytes_text(self.status.served_bytes.load(Relaxed));
        format!("whole and verified; serving others ({served} so far)")
    }

    /// Where there is no bar: why nothing comes, at once and then seldom; else how far it is, ever more
    /// seldom.
    fn tell_in_lines(&mut self, phase: Phase, bytes: u64, total: u64, waiting: Option<String>) {
        let now = clock::now();
        if let Some(waiting) = waiting {
            if self.explained_at.is_none_or(|at| now - at >= EXPLAIN_EVERY) {
                self.explained_at = Some(now);
                self.print(&waiting);
            }
            return;
        }
        self.explained_at = None;
        if !self.pace.is_due(now) {
            return;
        }
        let (since, before) = std::mem::replace(&mut self.paced_at, (now, bytes));
        (self.last_at, self.last_bytes, self.rate) = (since, before.min(bytes), 0.0);
        self.measure(bytes);
        let (done, all) = (bytes_text(bytes), bytes_text(total));
        let text = match phase {
            Phase::Hashing => format!("checking what is here: {done} of {all}"),
            Phase::Getting => {
                let rest = self.rate_and_rest(total.saturating_sub(bytes));
                let comma = if rest.is_empty() { "" } else { ", " };
                format!("{}{done} of {all}{comma}{rest}", self.files_text())
            }
            phase => self.state_text(phase),
        };
        self.print(&text);
    }

    /// How it is going, for machines.
    fn tell(&mut self, phase: Phase, bytes: u64, total: u64, waiting: Option<&str>) {
        if !self.pace.is_due(clock::now()) {
            return;
        }
        let phase = match phase {
            Phase::Hashing => "hashing",
            Phase::Getting => "getting",
            Phase::Finishing => "finishing",
            Phase::Seeding => "seeding",
        };
        let (done_files, total_files) = self.status.files().map(FileCount::counts).unzip();
        let event = json!({
            "event": "progress",
            "phase": phase,
            "done_bytes": bytes,
            "total_bytes": total,
            "done_files": done_files,
            "total_files": total_files,
            "waiting": waiting,
        });
        // Without a reader the exit code tells what comes of it.
        writeln!(stdout(), "{event}").ok();
    }

    fn measure(&mut self, bytes: u64) {
        let now = clock::now();
        let seconds = (now - self.last_at).as_secs_f64();
        if bytes < self.last_bytes {
            // Another phase counts something else.
            (self.last_bytes, self.rate) = (bytes, 0.0);
        }
        if seconds > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three figures")]
            let now_rate = (bytes - self.last_bytes) as f64 / seconds;
            let weight = if self.rate == 0.0 { 1.0 } else { RATE_WEIGHT };
            self.rate += (now_rate - self.rate) * weight;
        }
        (self.last_bytes, self.last_at) = (bytes, now);
    }

    fn rate_text(&self) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is never negative, and saturates"
        )]
        let rate = self.rate as u64;
        format!("{}/s", bytes_text(rate))
    }

    fn rate_and_rest(&self, rest: u64) -> String {
        if self.rate < 1.0 {
            return String::new();
        }
        #[expect(clippy::cast_precision_loss, reason = "a time is shown with three figures")]
        let seconds = rest as f64 / self.rate;
        let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        format!("{}, {} left", self.rate_text(), time_text(left))
    }
}
