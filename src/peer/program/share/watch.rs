//! What `peer share` tells its user, and when it ends.

use std::time::Duration;

use serde_json::json;

use super::super::{
    args::ShareArgs,
    error::{ProgramError, output_error},
    info,
    voice::Voice,
};
use crate::{
    peer::{ConnectionError, Notice, Reaction, origin::Change},
    protocol::{Bitfield, SwarmStatus, Ticket},
    time::Time,
    units::{bytes_texts, count_text},
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
    voice: Voice,
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
    /// Chunks that went from here to the relay.
    served: Bitfield,
    last_served_at: Option<Time>,
    status: SwarmStatus,
    told: Option<SwarmStatus>,
    /// Copies that a relay knew of before it, or its memory of the swarm, was lost.
    copies_before: u32,
    was_changed: bool,
    was_replaced: bool,
    pub(super) verdict: Option<Verdict>,
    pub(super) has_ended: bool,
}

impl Sharing {
    pub(super) fn new(args: &ShareArgs, voice: Voice, ticket: Ticket) -> Self {
        let until = match (args.once, args.until_copies) {
            (true, _) => Until::HandedOut,
            (false, Some(copies)) => Until::Copies(copies.get()),
            (false, None) => Until::Interrupted,
        };
        Self {
            voice,
            json: args.common.json,
            until,
            timeout: args.timeout,
            path: args.file.display().to_string(),
            served: Bitfield::empty(ticket.key.chunk_count()),
            ticket,
            is_printed: false,
            is_connected: false,
            is_leaving: false,
            leave_again_at: None,
            last_served_at: None,
            status: SwarmStatus::default(),
            told: None,
            copies_before: 0,
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
                self.last_served_at = Some(now);
            }
            Notice::Status(status) => self.handle_status(*status),
            Notice::Unreadable { chunk, error } => self.handle_unreadable(*chunk, error),
            Notice::Disconnected { error, .. } => self.handle_disconnected(error),
            _ => return Reaction::GoOn,
        }
        self.reaction(now)
    }

    fn reaction(&mut self, now: Time) -> Reaction {
        if self.verdict.is_some() {
            return Reaction::Vanish;
        }
        if self.leave_again_at.is_some_and(|at| at <= now) {
            self.leave_again_at = None;
            return Reaction::Leave;
        }
        let chunk_count = self.ticket.key.chunk_count();
        let is_done = match self.until {
            Until::Interrupted => false,
            Until::HandedOut => {
                self.served.is_full() || self.status.chunks_handed_out == chunk_count
            }
            // Whoever gets an empty file has it without asking anybody.
            Until::Copies(wanted) => self.copies() >= wanted || chunk_count == 0,
        };
        if !is_done || std::mem::replace(&mut self.is_leaving, true) {
            return Reaction::GoOn;
        }
        self.voice.say("done; waiting until no connected peer depends on us (at most 60 s)");
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
            self.voice.say("connected again");
            self.tell(&json!({ "event": "connected" }));
            return;
        }
        self.is_printed = true;
        let line = if self.json {
            let mut object = info::describe(&self.ticket);
            object["ticket"] = self.ticket.to_string().into();
            object.to_string()
        } else {
            self.ticket.to_string()
        };
        self.print(&line);
    }

    fn handle_status(&mut self, status: SwarmStatus) {
        if status.copies < self.status.copies {
            // The relay was restarted, or forgot a swarm that nobody was in.
            self.copies_before = self.copies();
        }
        self.status = status;
        if self.told.replace(status) == Some(status) {
            return;
        }
        let others = status.peers.saturating_sub(1);
        let whole = status.whole_peers.saturating_sub(1);
        let (copies, handed_out) = (self.copies(), status.chunks_handed_out);
        self.voice.say(&format!(
            "{} connected, {whole} with the whole file; {} so far; {handed_out} of {} handed out",
            count_text(u64::from(others), "other peer"),
            if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") },
            count_text(u64::from(self.ticket.key.chunk_count()), "chunk"),
        ));
        self.tell(&json!({
            "event": "status",
            "peers": others,
            "whole_peers": whole,
            "copies": copies,
            "chunks_handed_out": handed_out,
        }));
    }

    fn handle_unreadable(&mut self, chunk: u32, error: &std::io::Error) {
        let offset = self.ticket.key.chunk_offset_bytes(chunk);
        let why = format!(
            "could not read {} at offset {offset} (chunk {chunk}): {error}. Nothing wrong was \
             sent. {}",
            self.path, SHARE_AGAIN
        );
        self.verdict.get_or_insert(Verdict::Failed(why));
    }

    fn handle_disconnected(&mut self, error: &ConnectionError) {
        if std::mem::replace(&mut self.is_connected, false) {
            self.voice.say(&format!("{error}; trying to connect again"));
            self.tell(&json!({ "event": "disconnected", "error": error.to_string() }));
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
                self.verdict.get_or_insert(Verdict::Failed(why));
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
        self.voice.say(&text);
        self.tell(&json!({ "event": "changed", "text": text }));
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Time) {
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

    /// The end, as it should be.
    pub(super) fn end(&mut self, reason: &str) -> Result<(), ProgramError> {
        self.tell(&json!({ "event": "end", "reason": reason, "copies": self.copies() }));
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
