//! How a get is doing: written by the event loop, read by the thread that shows it.
//!
//! Figures only, so that nobody waits for anybody. Says why nothing comes; shows nothing itself.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use shards::clock;

pub(crate) use crate::units::time_text;
use crate::{protocol::SwarmKey, units::count_text};

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
    /// Chunks that are here, verified and kept; of them, bytes.
    pub(crate) have_chunks: AtomicU32,
    pub(crate) have_bytes: AtomicU64,
    /// Bytes that were here before.
    pub(crate) resumed_bytes: AtomicU64,
    pub(crate) served_chunks: AtomicU32,
    pub(crate) served_bytes: AtomicU64,
    pub(crate) was_accepted: AtomicBool,
    pub(crate) is_connected: AtomicBool,
    pub(crate) has_manifest: AtomicBool,
    /// The relay itself said why it closed the last connection: it is there.
    pub(crate) relay_refused: AtomicBool,
    /// The file's origin has given it up: to run this again does not help.
    pub(crate) is_given_up: AtomicBool,
    /// Whoever reads the stream doesn't take it.
    pub(crate) is_reader_slow: AtomicBool,
    /// When the connection was lost, or first tried.
    disconnected_at_ms: AtomicU64,
    progress_at_ms: AtomicU64,
    missing_at_ms: AtomicU64,
    missing_count: AtomicU32,
    first_missing: AtomicU32,
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
            have_chunks: AtomicU32::new(0),
            have_bytes: AtomicU64::new(0),
            resumed_bytes: AtomicU64::new(0),
            served_chunks: AtomicU32::new(0),
            served_bytes: AtomicU64::new(0),
            was_accepted: AtomicBool::new(false),
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
        self.progress();
    }

    /// So much of the file is here.
    pub(crate) fn set_have(&self, chunks: u32, bytes: u64) {
        self.have_chunks.store(chunks, Relaxed);
        self.have_bytes.store(bytes, Relaxed);
    }

    /// A chunk came.
    pub(crate) fn handle_kept(&self, chunk: u32) {
        self.have_chunks.fetch_add(1, Relaxed);
        self.have_bytes.fetch_add(u64::from(self.key.chunk_len_bytes(chunk)), Relaxed);
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

    /// The relay took the peer in.
    pub(crate) fn handle_accepted(&self) {
        self.was_accepted.store(true, Relaxed);
        self.relay_refused.store(false, Relaxed);
        self.is_connected.store(true, Relaxed);
    }

    /// There is no connection.
    pub(crate) fn handle_disconnected(&self) {
        if self.is_connected.swap(false, Relaxed) {
            self.disconnected_at_ms.store(now_ms(), Relaxed);
        }
    }

    /// The relay says that nobody holds some chunks.
    pub(crate) fn handle_missing(&self, count: u32, first: u32) {
        self.missing_count.store(count, Relaxed);
        self.first_missing.store(first, Relaxed);
        self.missing_at_ms.store(now_ms().max(1), Relaxed);
    }

    /// Chunks that lack.
    pub(crate) fn lacking_chunks(&self) -> u32 {
        self.key.chunk_count().saturating_sub(self.have_chunks.load(Relaxed))
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
        if !self.is_connected.load(Relaxed) {
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
        let lacking = count_text(u64::from(self.lacking_chunks()), "chunk");
        let missing_at_ms = self.missing_at_ms.load(Relaxed);
        if missing_at_ms > 0 && since(&self.missing_at_ms) < MISSING_HOLDS {
            let (missing, first) =
                (self.missing_count.load(Relaxed), self.first_missing.load(Relaxed));
            let missing = count_text(u64::from(missing), "chunk");
            return format!(
                "nobody connected holds {missing} of the {lacking} that are lacking (the first is \
                 {first})"
            );
        }
        if self.is_reader_slow.load(Relaxed) {
            return "whoever reads stdout takes nothing".into();
        }
        if !self.has_manifest.load(Relaxed) {
            return "no list of digests has come: is anybody sharing the file?".into();
        }
        format!("those who hold the {lacking} that are lacking send nothing")
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
        assert!(text.contains("3 chunks of the 9 chunks") && text.contains("is 7)"), "{text}");
        status.handle_disconnected();
        assert!(status.why(None).contains("has been gone for"));
        status.relay_refused.store(true, Relaxed);
        assert_eq!(status.why(Some("it is full")), "it is full", "it is there and says why");
        status.handle_accepted();
        assert!(!status.why(Some("it is full")).contains("full"));
    }
}
