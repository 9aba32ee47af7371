//! What `peer share` tells its user, and when it ends.

use std::{io, sync::Arc, time::Duration};

use serde_json::json;

use super::{
    super::{
        args::ShareArgs,
        belief::Belief,
        error::{ProgramError, output_error},
        info,
    },
    screen::Screen,
    tally::{Served, Standing},
};
use crate::{
    client::{
        ConnectionError, Notice, Origin, Reaction,
        origin::{Blame, Change, How},
    },
    protocol::{SwarmStatus, Ticket},
    time::Time,
    units::{bytes_text, bytes_texts, count_text, time_text},
};

/// Before a relay that was found again is asked for leave: the peers that depend on this one find it, too, in
/// that time (a second at most between attempts). They would have no holder if this peer had gone.
const LEAVE_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How it ends, if not by the relay's leave.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The user wants it.
    Interrupted,
    /// It can't go on.
    Failed(String),
    /// It can't go on, because the file is no longer what it was.
    Changed(String),
}

/// When it ends by itself.
#[derive(Clone, Copy, Debug)]
enum Until {
    Interrupted,
    HandedOut,
    Copies(u32),
}

/// How far it is with the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No relay has accepted this peer yet, so its ticket is not printed.
    Unaccepted,
    Connected,
    /// The connection was lost, and is tried again.
    Lost,
    /// The share is over.
    Ended,
}

/// Whether the relay was asked for leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    Asked,
    /// Lost with the connection that it was asked on: to be asked again then.
    AskAgain(Time),
}

/// Where a share says something: to people, and to machines.
#[derive(Debug)]
struct Output {
    screen: Screen,
    json: bool,
    /// Why stdout did not take a line.
    failed: Option<String>,
}

impl Output {
    /// An event, for machines.
    fn tell(&mut self, event: &serde_json::Value) {
        if self.json {
            self.print(&event.to_string());
        }
    }

    fn print(&mut self, line: &str) {
        if let Err(error) = crate::stdout::print(format!("{line}\n").as_bytes()) {
            self.failed.get_or_insert(output_error(&error).to_string());
        }
    }
}

/// What the user was warned of, each once.
#[derive(Debug, Default)]
struct Warned {
    of_writes: bool,
    of_replacement: bool,
    /// A read failed for want of descriptors.
    of_want: bool,
    /// A chunk could not be read: why is found out.
    is_suspecting: bool,
    /// Why the relay did not take this peer in, as last told.
    of_refusal: Option<String>,
}

/// A share under way.
#[derive(Debug)]
pub(super) struct Sharing {
    origin: Arc<Origin>,
    ticket: Ticket,
    until: Until,
    timeout: Option<Duration>,
    output: Output,
    warned: Warned,
    stage: Stage,
    began_at: Option<Time>,
    leaving: Leaving,
    served: Served,
    standing: Standing,
    verdict: Option<Verdict>,
}

impl Sharing {
    pub(super) fn new(args: &ShareArgs, ticket: Ticket, origin: Arc<Origin>) -> Self {
        let until = match (args.once, args.until_copies) {
            (true, _) => Until::HandedOut,
            (false, Some(copies)) => Until::Copies(copies.get()),
            (false, None) => Until::Interrupted,
        };
        let screen = Screen::new(args.common.quiet, args.common.json);
        Self {
            origin,
            served: Served::nothing(ticket.key.chunk_count()),
            ticket,
            until,
            timeout: args.timeout,
            output: Output { screen, json: args.common.json, failed: None },
            warned: Warned::default(),
            stage: Stage::Unaccepted,
            began_at: None,
            leaving: Leaving::No,
            standing: Standing::default(),
            verdict: None,
        }
    }

    /// Whether it is over.
    pub(super) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// How it ends, if that is decided here.
    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The user wants an end.
    pub(super) fn interrupt(&mut self) {
        self.verdict = Some(Verdict::Interrupted);
    }

    pub(super) fn notice(&mut self, now: Time, notice: &Notice<'_>) -> Reaction {
        match notice {
            Notice::Accepted { .. } => self.handle_accepted(now),
            Notice::Served { chunk } => {
                let len_bytes = self.ticket.key.chunk_len_bytes(*chunk);
                self.served.add(now, *chunk, len_bytes);
            }
            Notice::Status(status) => self.handle_status(now, *status),
            Notice::Disconnected { error, .. } => self.handle_disconnected(error),
            _ => return Reaction::GoOn,
        }
        self.take_output_error();
        self.reaction(now)
    }

    fn reaction(&mut self, now: Time) -> Reaction {
        match self.verdict {
            Some(Verdict::Changed(_)) => return Reaction::GiveUp,
            Some(_) => return Reaction::Vanish,
            None => {}
        }
        if matches!(self.leaving, Leaving::AskAgain(at) if at <= now) {
            self.leaving = Leaving::Asked;
            return Reaction::Leave;
        }
        let chunk_count = self.ticket.key.chunk_count();
        let is_done = match self.until {
            Until::Interrupted => false,
            Until::HandedOut => self.served.is_all() || self.standing.handed_out() == chunk_count,
            // A peer that gets an empty file has it without asking any peer.
            Until::Copies(wanted) => self.standing.copies() >= wanted || chunk_count == 0,
        };
        if !is_done || self.leaving != Leaving::No {
            return Reaction::GoOn;
        }
        self.leaving = Leaving::Asked;
        let text = "done; waiting until no connected peer depends on us (at most 60 s)";
        self.output.screen.say(text);
        Reaction::Leave
    }

    fn handle_accepted(&mut self, now: Time) {
        self.served.handle_connected(now);
        if self.leaving != Leaving::No {
            // The wish to leave went with the connection before.
            self.leaving = Leaving::AskAgain(now + LEAVE_AGAIN_AFTER);
        }
        if std::mem::replace(&mut self.stage, Stage::Connected) != Stage::Unaccepted {
            self.output.screen.say("connected again");
            self.output.tell(&json!({ "event": "connected" }));
            return;
        }
        self.began_at = Some(now);
        let line = if self.output.json {
            let mut object = info::describe(&self.ticket);
            object["ticket"] = self.ticket.to_string().into();
            object["hashes_remembered"] = self.origin.is_remembered().into();
            object.to_string()
        } else {
            self.ticket.to_string()
        };
        self.output.print(&line);
    }

    fn handle_status(&mut self, now: Time, status: SwarmStatus) {
        let copies_told = self.standing.copies();
        self.standing.handle_status(status, self.served.count());
        self.served.sample_rate(now);
        let matters = self.standing.copies() > copies_told;
        self.output.screen.show(self.state_text(), matters);
        if !self.standing.is_news() {
            return;
        }
        self.output.tell(&json!({
            "event": "status",
            "peers": self.standing.others(),
            "whole_peers": self.standing.whole_others(),
            "copies": self.standing.copies(),
            "chunks_handed_out": self.standing.handed_out(),
            "sent_bytes": self.served.bytes(),
        }));
    }

    /// In a line of 80 columns.
    fn state_text(&self) -> String {
        let rate = match self.served.bytes_per_second() {
            0 => String::new(),
            rate => format!("; {}/s", bytes_text(rate)),
        };
        format!(
            "{}, {} whole; {} so far{rate}; {}",
            count_text(u64::from(self.standing.others()), "peer"),
            self.standing.whole_others(),
            self.copies_text(),
            self.handed_out_text()
        )
    }

    fn copies_text(&self) -> String {
        match self.standing.copies() {
            1 => "1 copy".to_owned(),
            copies => format!("{copies} copies"),
        }
    }

    fn handed_out_text(&self) -> String {
        let chunks = count_text(u64::from(self.ticket.key.chunk_count()), "chunk");
        format!("{} of {chunks} handed out", self.standing.handed_out())
    }

    /// What came of it, if it ever began.
    fn sum_up(&mut self, now: Time) {
        self.output.screen.close();
        let Some(began_at) = self.began_at else { return };
        self.standing.handle_served(self.served.count());
        self.output.screen.say(&format!(
            "shared {} for {}: {}, {}, {} sent",
            self.origin.shown(),
            time_text(now.since(began_at)),
            self.copies_text(),
            self.handed_out_text(),
            bytes_text(self.served.bytes())
        ));
    }

    /// A chunk could not be read. What is to be looked at, to find out why: that is done once, and not for what passes by
    /// itself.
    pub(super) fn suspect(&mut self, error: &io::Error) -> Option<Arc<Origin>> {
        if error.kind() == io::ErrorKind::ResourceBusy {
            if !std::mem::replace(&mut self.warned.of_want, true) {
                self.output.screen.say(&format!(
                    "warning: a chunk could not be read now: {error}. It is read again when it is asked for again"
                ));
            }
            return None;
        }
        let is_known = std::mem::replace(&mut self.warned.is_suspecting, true);
        (!is_known).then(|| Arc::clone(&self.origin))
    }

    /// Why a chunk could not be read.
    pub(super) fn handle_unreadable(&mut self, chunk: u32, error: &str, blame: &Blame) {
        if self.has_ended() {
            return;
        }
        let offset = self.ticket.key.chunk_offset_bytes(chunk);
        let advice = if blame.is_forgotten { HASH_AGAIN } else { SHARE_AGAIN };
        let why = format!(
            "could not read {} at offset {offset} (chunk {chunk}){}: {error}. Nothing wrong was sent. {advice}",
            self.origin.shown(),
            blame.of
        );
        self.verdict.get_or_insert(Verdict::Changed(why));
    }

    fn handle_disconnected(&mut self, error: &ConnectionError) {
        if self.stage == Stage::Connected {
            self.stage = Stage::Lost;
            self.output.screen.say(&format!("{error}; trying to connect again"));
            self.output.tell(&json!({ "event": "disconnected", "error": error.to_string() }));
            return;
        }
        let is_first = self.stage == Stage::Unaccepted;
        let text = error.to_string();
        // Each reason once: it tries again and again.
        let is_told = self.warned.of_refusal.as_ref() == Some(&text);
        if (is_first || matches!(error, ConnectionError::Session { .. })) && !is_told {
            let patience = if is_first { " for 10 s" } else { "" };
            self.output.screen.say(&format!("{text}; trying again{patience}"));
            self.warned.of_refusal = Some(text);
        }
    }

    /// What is shared was looked at, and this was found.
    pub(super) fn handle_change(&mut self, Change { of, how }: &Change) {
        let text = match how {
            _ if self.has_ended() => return,
            How::Resized { before_bytes, size_bytes } => {
                let (now, before) = bytes_texts(*size_bytes, *before_bytes);
                let why = format!(
                    "{of} changed while it was shared: it has {now} now and had {before}. Nothing wrong was \
                     sent. {SHARE_AGAIN}"
                );
                self.verdict.get_or_insert(Verdict::Changed(why));
                return;
            }
            How::Gone => {
                let why = format!(
                    "{of} was removed or replaced while it was shared. Nothing wrong was sent. {SHARE_AGAIN}"
                );
                self.verdict.get_or_insert(Verdict::Changed(why));
                return;
            }
            How::Modified if !std::mem::replace(&mut self.warned.of_writes, true) => {
                format!(
                    "warning: {of} was written to while it is shared, or has other permissions. Each chunk is checked \
                     before it is sent; the first that differs ends this share"
                )
            }
            How::Replaced if !std::mem::replace(&mut self.warned.of_replacement, true) => {
                format!(
                    "warning: {of} was removed or replaced. What is shared is still the old \
                     content; to share the new one, run peer share again"
                )
            }
            How::Modified | How::Replaced => return,
        };
        self.output.screen.say(&text);
        self.output.tell(&json!({ "event": "changed", "text": text }));
        self.take_output_error();
    }

    /// Time has passed.
    pub(super) fn handle_time(&mut self, now: Time) {
        let idle = self.served.idle(now, self.timeout);
        let (Some(timeout), Some(idle)) = (self.timeout, idle) else { return };
        if self.stage == Stage::Connected && idle >= timeout {
            let why = format!(
                "no peer took a chunk for {} s (--timeout): {}",
                timeout.as_secs_f32(),
                "start peer get with the ticket, or give a longer --timeout"
            );
            self.verdict.get_or_insert(Verdict::Failed(why));
        }
    }

    /// A share whose stdout is gone fails.
    fn take_output_error(&mut self) {
        if let Some(why) = self.output.failed.take() {
            self.verdict.get_or_insert(Verdict::Failed(why));
        }
    }

    /// The end, as it should be or for this reason.
    pub(super) fn end(
        &mut self,
        now: Time,
        result: Result<&str, String>,
    ) -> Result<(), ProgramError> {
        self.stage = Stage::Ended;
        self.sum_up(now);
        let failed = match self.verdict.take() {
            Some(Verdict::Failed(why) | Verdict::Changed(why)) => Err(why),
            _ => result,
        };
        let reason = failed.map_err(ProgramError::Job)?;
        self.output.tell(&json!({
            "event": "end",
            "reason": reason,
            "copies": self.standing.copies(),
            "chunks_handed_out": self.standing.handed_out(),
            "sent_bytes": self.served.bytes(),
        }));
        self.output.failed.take().map_or(Ok(()), |why| Err(ProgramError::Job(why)))
    }
}

/// What to do when the file is no longer what it was.
const SHARE_AGAIN: &str =
    "To share what it is now, run peer share again and hand out the new ticket";

/// What to do when it looks like what it was, and is not.
const HASH_AGAIN: &str = "It looks unchanged since it was hashed, so a disk or another program is to blame; what was \
                          remembered of it is forgotten. To share what it is now, run peer share --rehash and hand out \
                          the new ticket";

/// An error with what to do about it.
pub(super) fn advise(error: &ConnectionError, belief: &Belief) -> String {
    if let Some(text) = belief.explain(error) {
        return text;
    }
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
