//! What `peer share` tells its user, and when it ends.

use std::time::Duration;

use serde_json::json;
use shards::clock;

use super::super::{
    STOOD_STILL,
    args::ShareArgs,
    error::{ProgramError, output_error},
    info,
};
use super::screen::Screen;
use crate::{
    client::{ConnectionError, Notice, Reaction, origin::Change},
    protocol::{Bitfield, SwarmStatus, Ticket},
    time::Time,
    units::{bytes_text, bytes_texts, count_text, time_text},
};

/// Before a relay that was found again is asked for leave: who depends on us finds it, too, in that time
/// (a second at most between attempts), and would have nobody if we had gone.
const LEAVE_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How it ends, if not by the relay's leave.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The user wants it.
    Interrupted,
    /// It can't go on.
    Failed(String),
    /// The same, because the file is no longer what it was.
    Changed(String),
}

/// When it ends by itself.
#[derive(Clone, Copy, Debug)]
enum Until {
    Interrupted,
    HandedOut,
    Copies(u32),
}

/// A share under way.
#[derive(Debug)]
pub(super) struct Sharing {
    screen: Screen,
    json: bool,
    until: Until,
    timeout: Option<Duration>,
    path: String,
    ticket: Ticket,
    is_printed: bool,
    is_connected: bool,
    is_leaving: bool,
    /// When the relay that was found again is asked for leave.
    leave_again_at: Option<Time>,
    began_at: Option<Time>,
    /// Chunks that went from here to the relay; of all that went, again or not, bytes.
    served: Bitfield,
    served_bytes: u64,
    last_served_at: Option<Time>,
    rate: Rate,
    status: SwarmStatus,
    told: Option<SwarmStatus>,
    /// Copies that a relay knew of before it, or its memory of the swarm, was lost.
    copies_before: u32,
    /// Chunks that were handed out, as far as is known: what a relay has forgotten counts all the same.
    handed_out: u32,
    /// Of the time that the process has not run, so much was seen.
    lapsed: Duration,
    /// Why the relay did not take it in, as last told.
    refusal: Option<String>,
    was_changed: bool,
    was_replaced: bool,
    pub(super) verdict: Option<Verdict>,
    pub(super) has_ended: bool,
}

impl Sharing {
    pub(super) fn new(args: &ShareArgs, ticket: Ticket) -> Self {
        let until = match (args.once, args.until_copies) {
            (true, _) => Until::HandedOut,
            (false, Some(copies)) => Until::Copies(copies.get()),
            (false, None) => Until::Interrupted,
        };
        Self {
            screen: Screen::new(args.common.quiet, args.common.json),
            json: args.common.json,
            until,
            timeout: args.timeout,
            path: args.file.display().to_string(),
            began_at: None,
            served: Bitfield::empty(ticket.key.chunk_count()),
            served_bytes: 0,
            ticket,
            is_printed: false,
            is_connected: false,
            is_leaving: false,
            leave_again_at: None,
            last_served_at: None,
            rate: Rate::default(),
            status: SwarmStatus::default(),
            told: None,
            copies_before: 0,
            handed_out: 0,
            lapsed: clock::lapsed(),
            refusal: None,
            was_changed: false,
            was_replaced: false,
            verdict: None,
            has_ended: false,
        }
    }

    pub(super) fn notice(&mut self, now: Time, notice: &Notice<'_>) -> Reaction {
        match notice {
            Notice::Accepted { .. } => self.handle_accepted(now),
            Notice::Served { chunk } => {
                self.served.insert(*chunk);
                self.served_bytes += u64::from(self.ticket.key.chunk_len_bytes(*chunk));
                self.last_served_at = Some(now);
            }
            Notice::Status(status) => self.handle_status(now, *status),
            Notice::Unreadable { chunk, error } => self.handle_unreadable(*chunk, error),
            Notice::Disconnected { error, .. } => self.handle_disconnected(error),
            _ => return Reaction::GoOn,
        }
        self.reaction(now)
    }

    fn reaction(&mut self, now: Time) -> Reaction {
        match self.verdict {
            Some(Verdict::Changed(_)) => return Reaction::GiveUp,
            Some(_) => return Reaction::Vanish,
            None => {}
        }
        if self.leave_again_at.is_some_and(|at| at <= now) {
            self.leave_again_at = None;
            return Reaction::Leave;
        }
        let chunk_count = self.ticket.key.chunk_count();
        let is_done = match self.until {
            Until::Interrupted => false,
            Until::HandedOut => self.served.is_full() || self.handed_out == chunk_count,
            // Whoever gets an empty file has it without asking anybody.
            Until::Copies(wanted) => self.copies() >= wanted || chunk_count == 0,
        };
        if !is_done || std::mem::replace(&mut self.is_leaving, true) {
            return Reaction::GoOn;
        }
        self.screen.say("done; waiting until no connected peer depends on us (at most 60 s)");
        Reaction::Leave
    }

    fn copies(&self) -> u32 {
        self.copies_before.saturating_add(self.status.copies)
    }

    fn handle_accepted(&mut self, now: Time) {
        self.is_connected = true;
        self.last_served_at = Some(now);
        // The wish to leave went with the connection before.
        self.leave_again_at = self.is_leaving.then(|| now + LEAVE_AGAIN_AFTER);
        if self.is_printed {
            self.screen.say("connected again");
            self.tell(&json!({ "event": "connected" }));
            return;
        }
        self.is_printed = true;
        self.began_at = Some(now);
        let line = if self.json {
            let mut object = info::describe(&self.ticket);
            object["ticket"] = self.ticket.to_string().into();
            object.to_string()
        } else {
            self.ticket.to_string()
        };
        self.print(&line);
    }

    fn handle_status(&mut self, now: Time, status: SwarmStatus) {
        let copies_told = self.copies();
        if status.copies < self.status.copies {
            // The relay was restarted, or forgot a swarm that nobody was in.
            self.copies_before = self.copies();
        }
        self.status = status;
        self.handed_out = self.handed_out.max(status.chunks_handed_out).max(self.served.count());
        self.rate.sample(now, self.served_bytes);
        let matters = self.copies() > copies_told;
        self.screen.show(self.state_text(), matters);
        if self.told.replace(status) == Some(status) {
            return;
        }
        self.tell(&json!({
            "event": "status",
            "peers": self.others(),
            "whole_peers": self.whole_others(),
            "copies": self.copies(),
            "chunks_handed_out": self.handed_out,
            "sent_bytes": self.served_bytes,
        }));
    }

    /// Peers that are connected, but for this one.
    fn others(&self) -> u32 {
        self.status.peers.saturating_sub(1)
    }

    fn whole_others(&self) -> u32 {
        self.status.whole_peers.saturating_sub(1)
    }

    /// In a line of 80 columns.
    fn state_text(&self) -> String {
        let rate = match self.rate.bytes_per_second {
            0 => String::new(),
            rate => format!("; {}/s", bytes_text(rate)),
        };
        format!(
            "{}, {} whole; {} so far{rate}; {}",
            count_text(u64::from(self.others()), "peer"),
            self.whole_others(),
            self.copies_text(),
            self.handed_out_text()
        )
    }

    fn copies_text(&self) -> String {
        match self.copies() {
            1 => "1 copy".to_owned(),
            copies => format!("{copies} copies"),
        }
    }

    fn handed_out_text(&self) -> String {
        let chunks = count_text(u64::from(self.ticket.key.chunk_count()), "chunk");
        format!("{} of {chunks} handed out", self.handed_out)
    }

    /// What came of it, if it ever began.
    fn sum_up(&mut self, now: Time) {
        self.screen.close();
        let Some(began_at) = self.began_at else { return };
        self.handed_out = self.handed_out.max(self.served.count());
        self.screen.say(&format!(
            "shared {} for {}: {}, {}, {} sent",
            self.path,
            time_text(now.since(began_at)),
            self.copies_text(),
            self.handed_out_text(),
            bytes_text(self.served_bytes)
        ));
    }

    fn handle_unreadable(&mut self, chunk: u32, error: &std::io::Error) {
        let offset = self.ticket.key.chunk_offset_bytes(chunk);
        let why = format!(
            "could not read {} at offset {offset} (chunk {chunk}): {error}. Nothing wrong was \
             sent. {}",
            self.path, SHARE_AGAIN
        );
        self.verdict.get_or_insert(Verdict::Changed(why));
    }

    fn handle_disconnected(&mut self, error: &ConnectionError) {
        let was_connected = std::mem::replace(&mut self.is_connected, false);
        if was_connected {
            self.screen.say(&format!("{error}; trying to connect again"));
            self.tell(&json!({ "event": "disconnected", "error": error.to_string() }));
        } else if !self.is_printed || matches!(error, ConnectionError::Session { .. }) {
            // Each reason once: it tries again and again.
            let text = error.to_string();
            if self.refusal.as_ref() != Some(&text) {
                let patience = if self.is_printed { "" } else { " for 10 s" };
                self.screen.say(&format!("{text}; trying again{patience}"));
                self.refusal = Some(text);
            }
        }
    }

    /// The file was looked at.
    pub(super) fn handle_change(&mut self, change: Option<&Change>) {
        let text = match change {
            None => return,
            Some(Change::Resized { size_bytes }) => {
                let (now, before) = bytes_texts(*size_bytes, self.ticket.key.size_bytes);
                let why = format!(
                    "{} changed while it was shared: it has {now} now and had {before}. Nothing wrong was \
                     sent. {SHARE_AGAIN}",
                    self.path,
                );
                self.verdict.get_or_insert(Verdict::Changed(why));
                return;
            }
            Some(Change::Modified) if !std::mem::replace(&mut self.was_changed, true) => {
                format!(
                    "warning: {} was written to while it is shared. Each chunk is checked before \
                     it is sent; the first that differs ends this share",
                    self.path
                )
            }
            Some(Change::Replaced) if !std::mem::replace(&mut self.was_replaced, true) => {
                format!(
                    "warning: {} was removed or replaced. What is shared is still the old \
                     content; to share the new one, run peer share again",
                    self.path
                )
            }
            Some(_) => return,
        };
        self.screen.say(&text);
        self.tell(&json!({ "event": "changed", "text": text }));
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Time) {
        let lapsed = clock::lapsed();
        let before = std::mem::replace(&mut self.lapsed, lapsed);
        let patience = self.timeout.unwrap_or(STOOD_STILL).min(STOOD_STILL);
        if lapsed.saturating_sub(before) >= patience {
            // Nobody could take a chunk while this process stood still.
            self.last_served_at = self.last_served_at.map(|_| now);
        }
        let (Some(timeout), Some(since)) = (self.timeout, self.last_served_at) else { return };
        if self.is_connected && now.since(since) >= timeout {
            let why = format!(
                "nobody took a chunk for {} s (--timeout): {}",
                timeout.as_secs_f32(),
                "start peer get with the ticket, or give a longer --timeout"
            );
            self.verdict.get_or_insert(Verdict::Failed(why));
        }
    }

    /// The end, as it should be or for this reason.
    pub(super) fn end(
        &mut self,
        now: Time,
        result: Result<&str, String>,
    ) -> Result<(), ProgramError> {
        self.has_ended = true;
        self.sum_up(now);
        let failed = match self.verdict.take() {
            Some(Verdict::Failed(why) | Verdict::Changed(why)) => Err(why),
            _ => result,
        };
        let reason = failed.map_err(ProgramError::Job)?;
        self.tell(&json!({
            "event": "end",
            "reason": reason,
            "copies": self.copies(),
            "chunks_handed_out": self.handed_out,
            "sent_bytes": self.served_bytes,
        }));
        match self.verdict.take() {
            Some(Verdict::Failed(why)) => Err(ProgramError::Job(why)),
            _ => Ok(()),
        }
    }

    /// An event, for machines.
    fn tell(&mut self, event: &serde_json::Value) {
        if self.json {
            self.print(&event.to_string());
        }
    }

    fn print(&mut self, line: &str) {
        if let Err(error) = crate::stdout::print(format!("{line}\n").as_bytes()) {
            let why = output_error(&error).to_string();
            self.verdict.get_or_insert(Verdict::Failed(why));
        }
    }
}

/// What goes out, of late.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    bytes_per_second: u64,
    last: Option<(Time, u64)>,
}

impl Rate {
    fn sample(&mut self, now: Time, bytes: u64) {
        let Some((at, before)) = self.last.replace((now, bytes)) else { return };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rate is shown with three figures"
        )]
        let latest = ((bytes - before) as f64 / now.seconds_since(at).max(0.001)) as u64;
        self.bytes_per_second = match (self.bytes_per_second, latest) {
            (0, latest) | (_, latest @ 0) => latest,
            (before, latest) => before.midpoint(latest),
        };
    }
}

/// What to do when the file is no longer what it was.
const SHARE_AGAIN: &str =
    "To share what it is now, run peer share again and hand out the new ticket";

/// An error with what to do about it.
pub(super) fn advise(error: &ConnectionError) -> String {
    let advice = match error {
        ConnectionError::Connect { .. } => "check --relay, and that the relay runs there",
        ConnectionError::LookUp { .. } => "check the name in --relay",
        ConnectionError::Decode { .. } => {
            "check the port in --relay (not that of the relay's HTTP), and that both are of one version"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
