//! How a get is doing: written by the event loop, read by the thread that shows it.
//!
//! Figures only, so that no thread waits for another. Says why nothing comes; shows nothing itself.

use std::{
    sync::OnceLock,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use shards::clock;

use super::count::FileCount;
pub(crate) use crate::units::time_text;
use crate::{
    protocol::{SwarmKey, chunk_size_log2_for},
    units::{bytes_text, count_text},
};

/// Nothing new for so long is worth an explanation.
const QUIET: Duration = Duration::from_secs(2);

/// What the relay last said of missing chunks holds for so long; it repeats it every second.
const MISSING_HOLDS: Duration = Duration::from_secs(3);

/// What a get does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It hashes what is on disk.
    Hashing,
    /// It gets what it lacks.
    Getting,
    /// It has all, and brings it safely to disk.
    Finishing,
    /// It serves others.
    Seeding,
}

/// The figures.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) key: SwarmKey,
    phase: AtomicU8,
    /// Chunks that are wanted, if not all are, and bytes of them.
    goal: OnceLock<(u32, u64)>,
    /// Of a directory, once it is known what is in it.
    files: OnceLock<FileCount>,
    /// Chunks that are here, verified and kept; of them, bytes.
    pub(crate) have_chunks: AtomicU32,
    pub(crate) have_bytes: AtomicU64,
    /// Bytes that were here before.
    pub(crate) resumed_bytes: AtomicU64,
    pub(crate) served_chunks: AtomicU32,
    pub(crate) served_bytes: AtomicU64,
    pub(crate) was_accepted: AtomicBool,
    /// The relay proved itself, and was remembered for that.
    pub(crate) was_remembered: AtomicBool,
    /// Whether the path to the relay was looked at.
    pub(crate) was_path_judged: AtomicBool,
    pub(crate) is_connected: AtomicBool,
    pub(crate) has_manifest: AtomicBool,
    /// The relay itself said why it closed the last connection: it is there.
    pub(crate) relay_refused: AtomicBool,
    /// The file's origin has given it up: to run this again does not help.
    pub(crate) is_given_up: AtomicBool,
    /// The reader of the stream doesn't take it.
    pub(crate) is_reader_slow: AtomicBool,
    /// When the connection was lost, or first tried.
    disconnected_at_ms: AtomicU64,
    progress_at_ms: AtomicU64,
    missing_at_ms: AtomicU64,
    missing_count: AtomicU32,
    first_missing: AtomicU32,
    /// Of the largest chunk that the relay recommends; 0 until it was heard.
    recommended_log2: AtomicU8,
}

fn now_ms() -> u64 {
    u64::try_from(clock::now().as_millis()).unwrap_or(u64::MAX)
}

impl Status {
    /// At the start.
    pub(crate) fn new(key: SwarmKey) -> Self {
        Self {
            key,
            phase: AtomicU8::new(Phase::Hashing as u8),
            goal: OnceLock::new(),
            files: OnceLock::new(),
            have_chunks: AtomicU32::new(0),
            have_bytes: AtomicU64::new(0),
            resumed_bytes: AtomicU64::new(0),
            served_chunks: AtomicU32::new(0),
            served_bytes: AtomicU64::new(0),
            was_accepted: AtomicBool::new(false),
            was_remembered: AtomicBool::new(false),
            was_path_judged: AtomicBool::new(false),
            is_connected: AtomicBool::new(false),
            has_manifest: AtomicBool::new(false),
            relay_refused: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            is_reader_slow: AtomicBool::new(false),
            disconnected_at_ms: AtomicU64::new(now_ms()),
            progress_at_ms: AtomicU64::new(now_ms()),
            missing_at_ms: AtomicU64::new(0),
            missing_count: AtomicU32::new(0),
            first_missing: AtomicU32::new(0),
            recommended_log2: AtomicU8::new(0),
        }
    }

    /// What it does.
    pub(crate) fn phase(&self) -> Phase {
        let phases = [Phase::Hashing, Phase::Getting, Phase::Finishing, Phase::Seeding];
        phases[usize::from(self.phase.load(Relaxed))]
    }

    /// It does something else now; the wait for chunks begins anew.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        if phase == Phase::Getting && !self.is_connected.load(Relaxed) {
            // What was before was not a search for the relay.
            self.disconnected_at_ms.store(now_ms(), Relaxed);
        }
        self.progress();
    }

    /// So much of the file is here.
    pub(crate) fn set_have(&self, chunks: u32, bytes: u64) {
        self.have_chunks.store(chunks, Relaxed);
        self.have_bytes.store(bytes, Relaxed);
    }

    /// Not all chunks are wanted, but so many, with so many bytes.
    pub(crate) fn set_goal(&self, chunks: u32, bytes: u64) {
        self.goal.get_or_init(|| (chunks, bytes));
    }

    /// Bytes of the chunks that are wanted.
    pub(crate) fn goal_bytes(&self) -> u64 {
        self.goal.get().map_or(self.key.size_bytes, |(_, bytes)| *bytes)
    }

    /// It is a directory, of which files are counted.
    pub(crate) fn set_files(&self, files: FileCount) {
        self.files.get_or_init(|| files);
    }

    /// The files of a directory, once it is known what is in it.
    pub(crate) fn files(&self) -> Option<&FileCount> {
        self.files.get()
    }

    /// A chunk came.
    pub(crate) fn handle_kept(&self, chunk: u32) {
        if let Some(files) = self.files.get() {
            files.handle_kept(chunk);
        }
        self.have_chunks.fetch_add(1, Relaxed);
        self.have_bytes.fetch_add(u64::from(self.key.chunk_len_bytes(chunk)), Relaxed);
        self.missing_at_ms.store(0, Relaxed);
        self.progress();
    }

    /// The time-out begins anew.
    pub(crate) fn progress(&self) {
        self.progress_at_ms.store(now_ms(), Relaxed);
    }

    /// A chunk went out.
    pub(crate) fn handle_served(&self, chunk: u32) {
        self.served_chunks.fetch_add(1, Relaxed);
        self.served_bytes.fetch_add(u64::from(self.key.chunk_len_bytes(chunk)), Relaxed);
    }

    /// The relay says how large chunks should be.
    pub(crate) fn handle_recommended(&self, chunk_size_log2_max: u8) {
        self.recommended_log2.store(chunk_size_log2_max, Relaxed);
    }

    /// The relay took the peer in.
    pub(crate) fn handle_accepted(&self) {
        self.was_accepted.store(true, Relaxed);
        self.relay_refused.store(false, Relaxed);
        self.is_connected.store(true, Relaxed);
    }

    /// There is no connection: what the relay said before is no longer so.
    pub(crate) fn handle_disconnected(&self) {
        self.missing_at_ms.store(0, Relaxed);
        self.handle_given_up();
    }

    /// The relay ended the connection since no peer holds some chunks: that is why nothing comes.
    pub(crate) fn handle_given_up(&self) {
        if self.is_connected.swap(false, Relaxed) {
            self.disconnected_at_ms.store(now_ms(), Relaxed);
        }
    }

    /// The relay says that no peer holds some chunks.
    pub(crate) fn handle_missing(&self, count: u32, first: u32) {
        self.missing_count.store(count, Relaxed);
        self.first_missing.store(first, Relaxed);
        self.missing_at_ms.store(now_ms().max(1), Relaxed);
    }

    /// Chunks that lack.
    pub(crate) fn lacking_chunks(&self) -> u32 {
        let wanted = self.goal.get().map_or(self.key.chunk_count(), |(chunks, _)| *chunks);
        wanted.saturating_sub(self.have_chunks.load(Relaxed))
    }

    /// How long nothing has come.
    pub(crate) fn waited(&self) -> Duration {
        since(&self.progress_at_ms)
    }

    /// Why nothing comes, if nothing does. `error` is what ended the last connection.
    pub(crate) fn why_waiting(&self, error: Option<&str>) -> Option<String> {
        if self.phase() != Phase::Getting || self.waited() < QUIET {
            return None;
        }
        Some(format!("waiting for {}: {}", time_text(self.waited()), self.why(error)))
    }

    /// Why nothing comes.
    pub(crate) fn why(&self, error: Option<&str>) -> String {
        if let Some(error) = error.filter(|_| self.relay_refused.load(Relaxed)) {
            return error.to_owned();
        }
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        let missing_at_ms = self.missing_at_ms.load(Relaxed);
        let is_missing = missing_at_ms > 0 && since(&self.missing_at_ms) < MISSING_HOLDS;
        if !self.is_connected.load(Relaxed) && !is_missing {
            let what = if self.was_accepted.load(Relaxed) {
                format!(
                    "the relay has been gone for {}",
                    time_text(since(&self.disconnected_at_ms))
                )
            } else {
                "there is no connection to the relay yet".into()
            };
            return format!("{what}{error}");
        }
        if !self.has_manifest.load(Relaxed) {
            let other = self.other_ticket();
            return format!("no list of digests has come: is anybody sharing the file?{other}");
        }
        let lacking = count_text(u64::from(self.lacking_chunks()), "chunk");
        if is_missing {
            let (missing, first) =
                (self.missing_count.load(Relaxed), self.first_missing.load(Relaxed));
            let other = self.other_ticket();
            return match missing {
                1 => format!("no connected peer holds chunk {first}, which is lacking{other}"),
                _ => format!(
                    "no connected peer holds {missing} of the {lacking} that are lacking (the first is chunk \
                     {first}){other}"
                ),
            };
        }
        if self.is_reader_slow.load(Relaxed) {
            return "the reader of stdout takes nothing".into();
        }
        format!("the peers that hold the {lacking} that are lacking send nothing")
    }
}

impl Status {
    /// Why no peer may have come with this ticket, if none has: through this relay the file gets another one
    /// now.
    fn other_ticket(&self) -> String {
        let recommended_log2 = self.recommended_log2.load(Relaxed);
        let log2 = chunk_size_log2_for(self.key.size_bytes, recommended_log2);
        if self.has_manifest.load(Relaxed)
            || recommended_log2 == 0
            || log2 == self.key.chunk_size_log2
        {
            return String::new();
        }
        format!(
            "; the ticket is of chunks of {}, and a share through this relay now makes a ticket of chunks of {}: \
             ask for that one, or ask for peer share --ticket with this one",
            bytes_text(self.key.chunk_size_bytes().into()),
            bytes_text(1 << log2)
        )
    }
}

fn since(at_ms: &AtomicU64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(at_ms.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Digest;

    #[test]
    fn who_waits_is_told_why() {
        let key = SwarmKey { id: Digest([0; 32]), size_bytes: 10 << 10, chunk_size_log2: 10 };
        let status = Status::new(key);
        status.enter(Phase::Getting);
        assert_eq!(status.why_waiting(None), None, "it has only just begun");
        assert!(status.why(Some("refused")).contains("no connection to the relay yet: refused"));
        status.handle_accepted();
        assert!(status.why(None).contains("list of digests"));
        status.has_manifest.store(true, Relaxed);
        status.handle_kept(0);
        assert!(status.why(None).contains("hold the 9 chunks that are lacking"));
        status.handle_missing(3, 7);
        let text = status.why(None);
        assert!(text.contains("3 of the 9 chunks") && text.contains("is chunk 7)"), "{text}");
        status.handle_missing(1, 7);
        let text = status.why(None);
        assert!(text.contains("holds chunk 7, which is lacking"), "{text}");
        status.handle_given_up();
        let text = status.why(None);
        assert!(text.contains("holds chunk 7"), "the relay is not gone: {text}");
        status.handle_accepted();
        status.handle_kept(1);
        assert!(!status.why(None).contains("chunk 7"), "somebody holds what was missing");
        status.handle_missing(1, 7);
        status.handle_disconnected();
        assert!(status.why(None).contains("has been gone for"));
        status.relay_refused.store(true, Relaxed);
        assert_eq!(status.why(Some("it is full")), "it is full", "it is there and says why");
        status.handle_accepted();
        assert!(!status.why(Some("it is full")).contains("full"));
    }

    #[test]
    fn who_finds_nobody_is_told_that_the_relay_makes_other_tickets_now() {
        let key = SwarmKey { id: Digest([0; 32]), size_bytes: 1 << 20, chunk_size_log2: 18 };
        let status = Status::new(key);
        status.enter(Phase::Getting);
        for (recommended_log2, is_told) in [(25, false), (18, false), (17, true)] {
            status.handle_recommended(recommended_log2);
            status.handle_accepted();
            for is_missing in [false, true] {
                match is_missing {
                    true => status.handle_missing(4, 0),
                    false => status.handle_disconnected(),
                }
                status.handle_accepted();
                let text = status.why(None);
                assert_eq!(
                    text.contains("chunks of 128 KiB"),
                    is_told,
                    "{recommended_log2}: {text}"
                );
            }
        }
        status.has_manifest.store(true, Relaxed);
        assert!(!status.why(None).contains("128 KiB"), "somebody has this ticket");
    }
}
