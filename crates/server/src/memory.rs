//! How much of this machine's memory chunks may take, with what else a relay needs in the sum. The start and
//! `relay doctor` both ask here. Measures nothing while the relay runs.

use relay_program::machine::{self, MemoryLimit};
use relay_transport::LENT_BYTES_MAX;
use relay_units::option_text;

/// The bound on chunk bytes where memory is not short.
const CACHE_BYTES_DEFAULT: u64 = 256 << 20;

/// Of the process beside chunks: 16 MiB when it has started, and with a hundred peers three times as much.
const FIXED_BYTES: u64 = 64 << 20;

/// Of each event loop: its stack, its ring, its receive buffer, its part of the allocator's, and a chunk that is in
/// memory and in a file while it is laid out there.
const PER_SHARD_BYTES: u64 = (2 << 20) + LENT_BYTES_MAX as u64;

/// A thousand peers, at 64 KiB each.
const PEERS_BYTES: u64 = 1000 * (64 << 10);

/// Sockets may refer to this part of the cache's size in chunk files, whether the cache has them still or not. What
/// lies in sockets takes memory with copies as well, but a page that one byte is sent from keeps up to a chunk.
const PINNED_PART: u64 = 4;

/// And to no more than this: a wave of a hundred peers refers to less at a time.
const PINNED_BYTES_MAX: u64 = 64 << 20;

/// Where a limit leaves next to nothing beside that, chunks get this part of it.
const LEAST_PART: u64 = 4;

/// How the bound on chunk bytes came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// The bound.
    pub cache_bytes: u64,
    /// It was asked for.
    pub is_given: bool,
    /// What a relay needs beside chunks.
    pub beside_bytes: u64,
    /// What the process may use, if the system tells.
    pub limit: Option<MemoryLimit>,
    /// What of it is to be had now, if the system tells.
    pub available_bytes: Option<u64>,
}

/// What the plan comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is enough, as this says.
    Fits(String),
    /// The default did not fit and is less now, as this says.
    Lowered(String),
    /// It is more than there is, as this says, and what would fit.
    TooMuch(String, u64),
}

impl MemoryPlan {
    /// For this process on this machine.
    #[must_use]
    pub fn of_this_machine(given: Option<u64>, shard_count: usize) -> Self {
        Self::new(given, shard_count, machine::memory_limit(), machine::memory_bytes())
    }

    /// With this limit.
    #[must_use]
    pub fn new(
        given: Option<u64>,
        shard_count: usize,
        limit: Option<MemoryLimit>,
        available_bytes: Option<u64>,
    ) -> Self {
        let beside_bytes = FIXED_BYTES + PEERS_BYTES + shard_count as u64 * PER_SHARD_BYTES;
        let plan = Self {
            cache_bytes: 0,
            is_given: given.is_some(),
            beside_bytes,
            limit,
            available_bytes,
        };
        let most = limit.map_or(u64::MAX, |limit| plan.fitting(limit.bytes));
        Self { cache_bytes: given.unwrap_or(CACHE_BYTES_DEFAULT.min(most)), ..plan }
    }

    /// The largest bound on chunks within so much memory: whole MiB, if that is one.
    #[must_use]
    pub fn fitting(&self, bytes: u64) -> u64 {
        let room = bytes.saturating_sub(self.beside_bytes);
        // With what sockets may refer to it fills the room.
        let fitting = (room - room / (PINNED_PART + 1)).max(room.saturating_sub(PINNED_BYTES_MAX));
        let fitting = fitting.max(bytes / LEAST_PART);
        if fitting < 1 << 20 { fitting } else { fitting >> 20 << 20 }
    }

    /// The bound on what sockets may refer to in chunk files.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        (self.cache_bytes / PINNED_PART).min(PINNED_BYTES_MAX)
    }

    /// Says whether it fits.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mib = |bytes: u64| bytes >> 20;
        let beside_bytes = self.beside_bytes + self.pinned_bytes();
        let (cache, beside) = (mib(self.cache_bytes), mib(beside_bytes));
        let Some(limit) = self.limit else {
            return Verdict::Fits("this system does not tell how much there is".into());
        };
        let sum = format!("--cache {cache} MiB and {beside} MiB for what else a relay needs");
        if self.cache_bytes > self.fitting(limit.bytes) {
            let text = format!(
                "{} is {} MiB; {sum} are more: under load the system may kill the relay",
                limit.of,
                mib(limit.bytes)
            );
            return Verdict::TooMuch(text, self.fitting(limit.bytes));
        }
        if !self.is_given && self.cache_bytes < CACHE_BYTES_DEFAULT {
            return Verdict::Lowered(format!(
                "{} is {} MiB, so --cache is {cache} MiB and not {}: a relay needs up to {beside} MiB for \
                 what else it does",
                limit.of,
                mib(limit.bytes),
                mib(CACHE_BYTES_DEFAULT)
            ));
        }
        match self.available_bytes.filter(|there| *there < self.cache_bytes + beside_bytes) {
            Some(there) if limit.bytes > there => Verdict::TooMuch(
                format!(
                    "{} MiB are available now; {sum} are more: under load the system may kill the relay",
                    mib(there)
                ),
                self.fitting(there),
            ),
            _ => Verdict::Fits(format!(
                "{} MiB may be used, --cache takes up to {cache} MiB",
                mib(limit.bytes)
            )),
        }
    }

    /// Says at the start what there is to say.
    pub(super) fn tell(&self) {
        match self.verdict() {
            Verdict::Fits(text) => tracing::debug!("{text}"),
            Verdict::Lowered(text) => tracing::info!("{text}"),
            Verdict::TooMuch(text, fits) => {
                tracing::warn!("{text}; --cache {} would fit", option_text(fits));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_program::machine::LimitOf;

    const MIB: u64 = 1 << 20;

    fn plan(given: Option<u64>, limit_mib: u64) -> MemoryPlan {
        let limit = MemoryLimit { bytes: limit_mib * MIB, of: LimitOf::Group };
        MemoryPlan::new(given, 2, Some(limit), Some(limit.bytes))
    }

    #[test]
    fn the_default_follows_the_limit_with_what_else_is_needed_in_the_sum() {
        assert_eq!(plan(None, 8192).cache_bytes, CACHE_BYTES_DEFAULT);
        assert!(matches!(plan(None, 8192).verdict(), Verdict::Fits(_)));
        for limit in [32, 64, 128, 160, 200, 256, 300, 380] {
            let plan = plan(None, limit);
            let verdict = plan.verdict();
            assert!(matches!(&verdict, Verdict::Lowered(text) if text.contains("control group")));
            assert!(plan.cache_bytes >= limit * MIB / LEAST_PART, "{limit}: {plan:?}");
            assert!(plan.cache_bytes <= limit * MIB / 2 + 64 * MIB, "{limit}: {plan:?}");
        }
        let caches: Vec<u64> = (1..400).map(|limit| plan(None, limit).cache_bytes).collect();
        assert!(caches.is_sorted(), "more memory is never less cache");
        assert_eq!(MemoryPlan::new(None, 2, None, None).cache_bytes, CACHE_BYTES_DEFAULT);
    }

    #[test]
    fn a_cache_that_was_asked_for_is_kept_and_its_numbers_are_told() {
        let plan = plan(Some(256 * MIB), 256);
        assert_eq!(plan.cache_bytes, 256 * MIB);
        let Verdict::TooMuch(text, fits) = plan.verdict() else { panic!("it does not fit") };
        assert!(text.matches("256 MiB").count() == 2 && text.contains("196 MiB"), "{text}");
        assert_eq!(self::plan(Some(fits), 256).verdict(), self::plan(Some(fits), 256).verdict());
        assert!(matches!(self::plan(Some(fits), 256).verdict(), Verdict::Fits(_)));
    }

    #[test]
    fn little_that_is_free_now_is_told_and_lowers_nothing() {
        let limit = MemoryLimit { bytes: 8192 * MIB, of: LimitOf::Machine };
        let plan = MemoryPlan::new(None, 2, Some(limit), Some(100 * MIB));
        assert_eq!(plan.cache_bytes, CACHE_BYTES_DEFAULT);
        assert!(
            matches!(plan.verdict(), Verdict::TooMuch(text, _) if text.contains("100 MiB are"))
        );
    }
}
