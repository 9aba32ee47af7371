//! What `peer get` says at the end: of a file a line that `b3sum --check` reads, of a directory its path, or one
//! JSON object.

use std::{io, sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::json;

use super::{
    super::{
        args::CommonArgs,
        error::{ProgramError, output_error},
    },
    count::FileCount,
    status::{Status, time_text},
    target::Target,
};
use crate::{
    protocol::{Ticket, TicketKind},
    units::{bytes_text, checksum_line, count_text, grouped},
};

/// How it went.
pub(crate) struct Report<'a> {
    pub(crate) ticket: &'a Ticket,
    pub(crate) target: &'a Target,
    pub(crate) status: &'a Status,
    pub(crate) time: Duration,
    pub(crate) error: Option<&'a str>,
}

impl Report<'_> {
    /// Says it. The error itself is said by the program, on stderr.
    ///
    /// # Errors
    /// Its results could not be written. A user who closed stdout, or went, does not want a file's digest.
    pub(crate) fn print(&self, common: &CommonArgs) -> Result<(), ProgramError> {
        let line = match self.target {
            _ if common.json => self.json().to_string(),
            Target::File(target) if self.error.is_none() && self.is_bundle() => {
                target.path().display().to_string()
            }
            Target::File(target) if self.error.is_none() => {
                checksum_line(self.ticket.plain(), target.path())
            }
            _ => String::new(),
        };
        let is_wanted = common.json || !crate::stdout::was_closed();
        let printed = match line.is_empty() || !is_wanted {
            true => Ok(()),
            false => crate::stdout::print(format!("{line}\n").as_bytes()),
        };
        if self.error.is_none() && !common.quiet {
            crate::stderr::say(format_args!("{}", self.summary()));
        }
        match printed {
            Err(error) if common.json || error.kind() != io::ErrorKind::BrokenPipe => {
                Err(output_error(&error))
            }
            _ => Ok(()),
        }
    }

    fn is_bundle(&self) -> bool {
        self.ticket.kind == TicketKind::Bundle
    }

    /// What is whole, in words.
    fn size_text(&self) -> String {
        let bytes = bytes_text(self.status.goal_bytes());
        let Some(files) = self.status.files() else { return bytes };
        let (done, all) = (files.counts().0, files.index().counts().files as u64);
        match done == all {
            true => format!(
                "{} ({bytes})",
                count_text(done, "file").replace(&done.to_string(), &grouped(done))
            ),
            false => format!("{} of {} files ({bytes})", grouped(done), grouped(all)),
        }
    }

    fn received_bytes(&self) -> u64 {
        let have = self.status.have_bytes.load(Relaxed);
        have.saturating_sub(self.status.resumed_bytes.load(Relaxed))
    }

    fn summary(&self) -> String {
        let (received, seconds) = (self.received_bytes(), self.time.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is shown with three figures"
        )]
        let rate = (received as f64 / seconds.max(0.001)) as u64;
        let served = self.status.served_bytes.load(Relaxed);
        let served =
            if served > 0 { format!(", {} served", bytes_text(served)) } else { String::new() };
        let size = self.size_text();
        if received == 0 {
            return format!("done: {size} verified, nothing was to come{served}");
        }
        let (time, received) = (time_text(self.time), bytes_text(received));
        format!(
            "done: {size} verified, {received} received in {time} ({}/s){served}",
            bytes_text(rate)
        )
    }

    fn json(&self) -> serde_json::Value {
        let (key, status) = (&self.ticket.key, self.status);
        let path = match self.target {
            Target::File(target) => Some(target.path().to_string_lossy().into_owned()),
            Target::Stdout => None,
        };
        let files = status.files();
        let (done_files, total_files) = files.map(FileCount::counts).unzip();
        let counts = files.map(|files| files.index().counts());
        json!({
            "name": self.ticket.name(),
            "path": path,
            "id": key.id.to_string(),
            "sealed": self.ticket.sealed.is_some(),
            "plain_digest": self.ticket.plain().to_string(),
            "size_bytes": key.size_bytes,
            "chunk_size_bytes": key.chunk_size_bytes(),
            "chunk_count": key.chunk_count(),
            "verified": self.error.is_none(),
            "have_bytes": status.have_bytes.load(Relaxed),
            "resumed_bytes": status.resumed_bytes.load(Relaxed),
            "received_bytes": self.received_bytes(),
            "bundle": self.is_bundle(),
            "done_files": done_files,
            "total_files": total_files,
            "directories": counts.map(|counts| counts.directories),
            "links": counts.map(|counts| counts.links),
            "served_bytes": status.served_bytes.load(Relaxed),
            "served_chunks": status.served_chunks.load(Relaxed),
            "seconds": self.time.as_secs_f64(),
            "error": self.error,
        })
    }
}
