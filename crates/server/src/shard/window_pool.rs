//! The sum of all windows of a process, shared by its shards: half of it is divided, half is lent.
//!
//! A shard whose peers wish for more than its part borrows from the other half, at most an equal part of it
//! with the others that do; so one peer far away gets its window on any number of shards, and the sum
//! of what all have never exceeds [`WINDOW_POOL_BYTES`].

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use relay_protocol::path;

/// Sum of all windows, if the least that every peer gets is not more: what the kernel may hold of
/// data that is sent and unacknowledged. Enough for 30 peers near by with the largest window. Measured with
/// the main job on 2 cores: with four times as much, or a fifth, it takes a tenth longer, for then
/// what is under way falls out of the processor's cache, or peers wait for their credit.
pub(crate) const WINDOW_POOL_BYTES: u64 = 128 << 20;

/// Of it, what shards borrow.
const LENT_BYTES_MAX: u64 = WINDOW_POOL_BYTES / 2;

/// What all shards know of each other's windows.
#[derive(Debug, Default)]
pub(crate) struct WindowPool {
    lent_bytes: AtomicU64,
    borrowers: AtomicUsize,
}

/// How large a new peer's window may grow until the next sweep looks at all of them, where the others leave
/// `room_bytes` and have no more than `ceiling_bytes`: of those that come together each gets a part of what
/// is left then.
pub(crate) fn newcomers_part(room_bytes: u64, ceiling_bytes: u64, first_bytes: u64) -> u64 {
    (room_bytes / 4).min(ceiling_bytes).clamp(first_bytes, path::BYTES_NEAR)
}

/// What one shard has borrowed.
#[derive(Debug, Default)]
pub(crate) struct WindowLoan {
    bytes: u64,
    is_borrower: bool,
}

impl WindowPool {
    /// What the windows of one of so many shards may sum up to at any time.
    pub(crate) fn own_part(shard_count: u64) -> u64 {
        (WINDOW_POOL_BYTES - LENT_BYTES_MAX) / shard_count
    }

    /// What the windows of one of so many shards may sum up to, if they wish for so much.
    pub(crate) fn part(&self, loan: &mut WindowLoan, shard_count: u64, wished_bytes: u64) -> u64 {
        let own = Self::own_part(shard_count);
        let wanted = wished_bytes.saturating_sub(own);
        match (loan.is_borrower, wanted > 0) {
            (false, true) => drop(self.borrowers.fetch_add(1, Relaxed)),
            (true, false) => drop(self.borrowers.fetch_sub(1, Relaxed)),
            _ => {}
        }
        loan.is_borrower = wanted > 0;
        let borrowers = self.borrowers.load(Relaxed).max(1) as u64;
        let target = wanted.min(LENT_BYTES_MAX / borrowers);
        if target < loan.bytes {
            self.lent_bytes.fetch_sub(loan.bytes - target, Relaxed);
            loan.bytes = target;
        } else {
            let more = target - loan.bytes;
            let taken = |lent: u64| more.min(LENT_BYTES_MAX.saturating_sub(lent));
            let lent =
                self.lent_bytes.fetch_update(Relaxed, Relaxed, |lent| Some(lent + taken(lent)));
            loan.bytes += lent.map_or(0, taken);
        }
        own + loan.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_shard_of_many_gets_a_far_peers_window_and_gives_it_back() {
        let (pool, mut loan) = (WindowPool::default(), WindowLoan::default());
        assert!(pool.part(&mut loan, 64, 64 * MIB) >= 64 * MIB);
        assert_eq!(pool.part(&mut loan, 64, 0), MIB);
        assert_eq!(pool.lent_bytes.load(Relaxed), 0);
    }

    #[test]
    fn a_crowd_that_comes_between_two_sweeps_gets_no_more_than_there_is() {
        let (mut room, mut sum, first) = (WINDOW_POOL_BYTES, 0, 32 << 10);
        for _ in 0..1000 {
            let part = newcomers_part(room, u64::MAX, first);
            (room, sum) = (room.saturating_sub(part), sum + part);
        }
        assert!(sum <= WINDOW_POOL_BYTES + 1000 * first, "{sum}");
        assert_eq!(newcomers_part(WINDOW_POOL_BYTES, u64::MAX, first), path::BYTES_NEAR);
    }

    #[test]
    fn the_sum_is_bounded_at_any_time_and_shards_end_as_equals() {
        for seed in 0..100u64 {
            let (pool, shards) = (WindowPool::default(), seed % 7 + 1);
            let mut loans: Vec<WindowLoan> = (0..shards).map(|_| WindowLoan::default()).collect();
            let mut parts = vec![WINDOW_POOL_BYTES / 2 / shards; loans.len()];
            for turn in 0..200u64 {
                let some = (seed * 31 + turn * turn * 7919) % 65_537;
                let at = if turn < 100 { some % shards } else { turn % shards };
                let at = usize::try_from(at).expect("few");
                // In the end all of them want all.
                let wished = if turn < 100 { some / 7 % 256 * MIB } else { u64::MAX };
                parts[at] = pool.part(&mut loans[at], shards, wished);
                assert!(parts.iter().sum::<u64>() <= WINDOW_POOL_BYTES, "seed {seed}: {parts:?}");
            }
            let equal = WINDOW_POOL_BYTES / shards;
            assert!(parts.iter().all(|part| part.abs_diff(equal) < shards), "{seed}: {parts:?}");
        }
    }
}
