//! Finds event loops that go round without waiting and without a turn: where the kernel refuses to let a ring be
//! entered, the library's loop takes no notice, and nothing on its own thread would ever be run again.
//!
//! Looks from another thread, and seldom. A loop is told of only if all of this holds for a while: it had no
//! turn; its thread ran, to a good part inside the kernel; and it never once waited there. A long calculation
//! is outside of the kernel, and a process that is stopped, or starved of its core, does not run. Ends nothing.

use std::time::Duration;

use crate::heartbeats::Heartbeats;

/// A loop without a turn for so long is looked at, and told of if nothing has changed after as long again.
pub const SPIN_PATIENCE: Duration = Duration::from_secs(5);

/// What it must have run meanwhile: less may be chance.
const RAN_TICKS_MIN: u64 = 5;

/// In the kernel for at least this part of it.
const KERNEL_PART: u64 = 5;

/// Looks at all loops of some shards.
#[derive(Debug)]
pub struct SpinWatch {
    heartbeats: Heartbeats,
    patience: Duration,
    /// Of each shard, what it had done when it was first found without a turn.
    suspects: Vec<Option<(Duration, Work)>>,
}

/// What a thread has done so far, as the system counts it.
#[derive(Clone, Copy, Debug)]
struct Work {
    user_ticks: u64,
    kernel_ticks: u64,
    waits: u64,
}

impl SpinWatch {
    /// For the shards of these heartbeats.
    #[must_use]
    pub fn new(heartbeats: Heartbeats, patience: Duration) -> Self {
        let suspects = heartbeats.threads().iter().map(|_| None).collect();
        Self { heartbeats, patience, suspects }
    }

    /// Looks; what to tell if a loop spins. Given `now` of [`crate::clock::now`].
    pub fn look(&mut self, now: Duration) -> Option<String> {
        let ages = self.heartbeats.ages(now);
        let threads = self.heartbeats.threads();
        for (shard, (age, thread)) in ages.into_iter().zip(threads).enumerate() {
            let suspect = &mut self.suspects[shard];
            let Some(work) = (age >= self.patience).then(|| work(thread)).flatten() else {
                *suspect = None;
                continue;
            };
            let (since, before) = *suspect.get_or_insert((now, work));
            if now.saturating_sub(since) < self.patience {
                continue;
            }
            if work.spun_since(&before) {
                return Some(format!(
                    "the event loop of shard {shard} spins: it has had no turn for {:.0} s, and its thread calls \
                     the kernel without ever waiting there, as where io_uring_enter is refused by now. Start it \
                     again with --driver epoll",
                    age.as_secs_f64()
                ));
            }
            *suspect = Some((now, work));
        }
        None
    }
}

impl Work {
    fn spun_since(&self, before: &Self) -> bool {
        let kernel = self.kernel_ticks.saturating_sub(before.kernel_ticks);
        let all = kernel + self.user_ticks.saturating_sub(before.user_ticks);
        all >= RAN_TICKS_MIN && kernel * KERNEL_PART >= all && self.waits == before.waits
    }
}

/// Where the system tells.
fn work(thread: u32) -> Option<Work> {
    let read = |file| std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
    let (stat, status) = (read("stat")?, read("status")?);
    // The name comes second, and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse().ok();
    let (user_ticks, kernel_ticks) = (ticks()?, ticks()?);
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    Some(Work { user_ticks, kernel_ticks, waits: waits.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::Work;

    #[test]
    fn only_who_runs_in_the_kernel_and_never_waits_there_spins() {
        let before = Work { user_ticks: 100, kernel_ticks: 100, waits: 7 };
        let after = |user: u64, kernel: u64, waits: u64| Work {
            user_ticks: 100 + user,
            kernel_ticks: 100 + kernel,
            waits: 7 + waits,
        };
        assert!(after(200, 300, 0).spun_since(&before));
        assert!(!after(500, 0, 0).spun_since(&before), "it calculates");
        assert!(!after(200, 300, 1).spun_since(&before), "it waited");
        assert!(!after(1, 1, 0).spun_since(&before), "it hardly ran");
    }
}
