//! What `peer` says: sentences on stderr, bars only on a terminal, a line now and then
//! elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shards::clock;

use crate::{
    protocol::bundle::{Index, Kind},
    stderr::Pace,
    units::{bytes_text, grouped_text},
};

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
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} \
                        {binary_bytes_per_sec} {eta}";
        let (bar, pace) = self.bar(Some(bytes), template, what);
        Progress { bar, pace, what: what.to_owned(), bytes, files: None }
    }

    /// Of something that goes over all bytes of a bundle, so many times, and tells of its files as well.
    pub(super) fn progress_of(self, what: &str, index: &Index, passes: u64) -> Progress {
        let progress = self.progress(what, index.bundle_bytes() * passes);
        Progress { files: Some(Files::of(index)), ..progress }
    }

    /// Of a search: how many entries it has found.
    pub(super) fn search(self, what: &str) -> Search {
        let (bar, pace) = self.bar(None, "{msg}", what);
        Search { bar, pace, what: what.to_owned() }
    }

    /// A bar where there is a terminal, and else a pace for lines.
    fn bar(self, length: Option<u64>, template: &str, what: &str) -> (ProgressBar, Option<Pace>) {
        let visible = !self.quiet && std::io::stderr().is_terminal();
        let target = if visible {
            ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        (bar, (!visible && !self.quiet).then(|| Pace::new(clock::now())))
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
    /// If it goes over a tree.
    files: Option<Files>,
}

impl Progress {
    /// So many bytes are done.
    pub(super) fn set(&mut self, done_bytes: u64) {
        self.bar.set_position(done_bytes);
        if let (Some(files), None) = (&self.files, &self.pace) {
            self.bar.set_message(format!("{}: {}", self.what, files.text(done_bytes)));
        }
        if self.pace.as_mut().is_some_and(|pace| pace.is_due(clock::now())) {
            let (done, all) = (bytes_text(done_bytes), bytes_text(self.bytes));
            let files = self.files.as_ref().map(|files| format!("{}, ", files.text(done_bytes)));
            let files = files.unwrap_or_default();
            crate::stderr::say(format_args!("{}: {files}{done} of {all}", self.what));
        }
    }

    /// It is over.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// How many files of a bundle end before a place.
#[derive(Debug)]
struct Files {
    bundle_bytes: u64,
    /// Where each ends, in order.
    ends: Vec<u64>,
}

impl Files {
    fn of(index: &Index) -> Self {
        let mut end = index.header_bytes();
        let mut ends = Vec::with_capacity(index.counts().files);
        for entry in index.entries() {
            end += entry.kind.size_bytes();
            if matches!(entry.kind, Kind::File { .. }) {
                ends.push(end);
            }
        }
        Self { bundle_bytes: index.bundle_bytes(), ends }
    }

    /// After so many bytes, of one pass after the other.
    fn text(&self, done_bytes: u64) -> String {
        let pass_bytes = match done_bytes % self.bundle_bytes {
            0 if done_bytes > 0 => self.bundle_bytes,
            bytes => bytes,
        };
        let done = self.ends.partition_point(|&end| end <= pass_bytes);
        let (done, all) = (grouped_text(done as u64), grouped_text(self.ends.len() as u64));
        format!("{done} of {all} files")
    }
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    bar: ProgressBar,
    /// Of lines, where there is no bar.
    pace: Option<Pace>,
    what: String,
}

impl Search {
    /// So many entries were found.
    pub(super) fn set(&mut self, entries: usize) {
        self.show(&format!("{} entries", grouped_text(entries as u64)));
    }

    /// So much has come.
    pub(super) fn show(&mut self, found: &str) {
        let text = format!("{}: {found}", self.what);
        match &mut self.pace {
            Some(pace) => {
                if pace.is_due(clock::now()) {
                    crate::stderr::say(text);
                }
            }
            None => {
                self.bar.set_message(text);
                self.bar.tick();
            }
        }
    }

    /// It is over.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::bundle::Entry;

    #[test]
    fn files_are_counted_when_their_last_byte_is_done_in_each_pass() {
        let file = |path, size_bytes| Entry {
            path,
            kind: Kind::File { size_bytes, is_executable: false },
            preserved: None,
        };
        let entries = vec![file(b"a", 100), file(b"b", 0), file(b"c", 2000)];
        let index = Index::new(entries).unwrap();
        let (files, header, all) = (Files::of(&index), index.header_bytes(), index.bundle_bytes());
        for (done, count) in [
            (0, 0),
            (header + 99, 0),
            (header + 100, 2),
            (all - 1, 2),
            (all, 3),
            (all + 1, 0),
            (all + header + 100, 2),
            (2 * all, 3),
        ] {
            assert_eq!(files.text(done), format!("{count} of 3 files"), "after {done} bytes");
        }
    }
}
