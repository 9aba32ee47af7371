//! What a shard looks after ten times a second while something happens: stalls, handshakes, windows, figures.

use std::time::Duration;

use super::window_pool::WindowLoan;
use super::{
    Parts,
    desk::Desk,
    guests::{Guests, WindowRoom},
    publish::Publisher,
    ready::Ready,
};
use crate::{
    connection::{Connection, closing::close},
    home::homes::Homes,
    process::thread_cpu,
    session::window::WINDOW_BYTES_MIN,
};
use relay_protocol::{Failure, FailureCode, time::Time};

/// A peer that takes no byte for so long while data waits is disconnected; it can resume.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often every connection is looked at.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// What the sweep remembers from one time to the next.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    scanned_at: Time,
    published_at: Time,
    /// Data waited for some peer at the last scan.
    waits: bool,
    thread_cpu: Duration,
    publisher: Publisher,
    loan: WindowLoan,
}

impl Sweep {
    /// Whether a connection is watched that time alone will end: then come again though nothing happens.
    /// If `is_quiet`, nothing has happened since the last time.
    pub(crate) fn run(
        &mut self,
        desk: &Desk,
        parts: &mut Parts,
        now: Time,
        is_quiet: bool,
    ) -> bool {
        let Parts { guests, homes, ready, payloads, .. } = parts;
        while let Some(connection) = guests.handshakes.pop_overdue(now) {
            desk.cells.count_refused("handshake_timeout");
            tracing::info!(remote = %connection.remote, "refused: silent for too long");
            connection.close_now();
        }
        payloads.prune();
        self.count(desk, homes, now);
        self.publisher.run(desk, guests, homes, now);
        if is_quiet || now.since(self.scanned_at) >= SCAN_INTERVAL {
            self.scanned_at = now;
            self.waits = end_stalled(desk, guests, ready, now);
        }
        balance_windows(desk, guests, &mut self.loan, is_quiet);
        self.waits || !guests.handshakes.is_empty()
    }

    /// Sets the cells that are no sums of what happens.
    fn count(&mut self, desk: &Desk, homes: &Homes, now: Time) {
        let cells = &desk.cells;
        let thread_cpu = thread_cpu();
        let wall = now.since(self.published_at).as_secs_f64();
        let busy = thread_cpu.saturating_sub(self.thread_cpu).as_secs_f64() / wall.max(1e-6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio between 0 and 1, in millionths"
        )]
        cells.busy_ppm.set((busy.clamp(0.0, 1.0) * 1e6) as u64);
        self.thread_cpu = thread_cpu;
        self.published_at = now;
        cells.inbox_depth_max.set(desk.shard.port.inbox_depth_max() as u64);
        cells.doorbell_rings.set(desk.shard.port.doorbell_rings());
        let starving: usize = homes.iter().map(|home| home.swarm().starving_count()).sum();
        cells.peers_starving.set(starving as u64);
        // Where no peer lacks anything, what is missing is missed by none.
        let wanting = homes.iter().filter(|home| home.swarm().wants_work());
        cells.chunks_missing.set(wanting.map(|home| u64::from(home.swarm().missing_count())).sum());
    }
}

/// Ends those that take nothing; whether data waits for a peer.
fn end_stalled(desk: &Desk, guests: &Guests, ready: &mut Ready, now: Time) -> bool {
    let stalled_for = |connection: &Connection| {
        let link = connection.link();
        link.stalled_for(now).filter(|_| !link.life.is_closing())
    };
    let mut waits = false;
    for connection in guests.iter() {
        let Some(stalled_for) = stalled_for(connection) else { continue };
        waits = true;
        if stalled_for >= STALL_TIMEOUT {
            desk.cells.stalled.add(1);
            tracing::info!(remote = %connection.remote, "disconnected: it takes no data");
            let text = "no data was taken for 10 s: connect again to resume".into();
            close(desk, ready, connection, Failure { code: FailureCode::Stalled, text });
        }
    }
    waits
}

/// Keeps the sum of windows within this shard's part of the pool.
fn balance_windows(desk: &Desk, guests: &mut Guests, loan: &mut WindowLoan, is_quiet: bool) {
    let (mut wishes, mut under_way) = (Vec::with_capacity(guests.len()), 0);
    for connection in guests.iter() {
        let link = connection.link();
        wishes.push(link.session.window().wished_bytes());
        under_way += link.session.window().unacknowledged_bytes();
    }
    let shard_count = desk.shard_count() as u64;
    let wished = pool_wish(wishes.iter().sum(), under_way, is_quiet);
    let pool = desk.shared.windows.part(loan, shard_count, wished);
    let ceiling = water_level(&mut wishes, pool);
    let mut sum = 0;
    for connection in guests.iter() {
        let mut link = connection.link();
        link.session.window_mut().set_ceiling(ceiling);
        sum += link.session.window().size_bytes();
    }
    guests.windows = WindowRoom { ceiling_bytes: ceiling, room_bytes: pool.saturating_sub(sum) };
    desk.cells.window_bytes.set(sum);
}

/// What a shard wishes of the pool. A shard that falls asleep does not look again until something happens, so it
/// gives back what it borrowed, unless something is under way to its peers.
fn pool_wish(wished_bytes: u64, under_way_bytes: u64, is_quiet: bool) -> u64 {
    if is_quiet && under_way_bytes == 0 {
        return 0;
    }
    // Twice as much as is wished for leaves room to grow.
    2 * wished_bytes
}

/// The level that no wish may exceed so that all fit into the pool: what is wished below it is
/// granted in full, so no peer is short of what it could use (max-min fairness). At least
/// [`WINDOW_BYTES_MIN`].
fn water_level(wishes: &mut [u64], pool: u64) -> u64 {
    let mut left = wishes.len() as u64;
    if left * WINDOW_BYTES_MIN >= pool {
        return WINDOW_BYTES_MIN;
    }
    if wishes.iter().sum::<u64>() <= pool {
        // There is room to grow: each may take what would be its part.
        return (pool / left.max(1)).max(wishes.iter().copied().max().unwrap_or(0));
    }
    wishes.sort_unstable();
    let mut pool = pool;
    for &wish in wishes.iter() {
        if wish > pool / left {
            break;
        }
        pool -= wish;
        left -= 1;
    }
    (pool / left.max(1)).max(WINDOW_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::window::Window,
        shard::window_pool::{WINDOW_POOL_BYTES, WindowPool},
    };

    /// A thousand far away, some that acknowledge late to seem so, and one near by that wishes for little.
    #[test]
    fn however_long_the_paths_the_sum_is_bounded_and_who_wishes_for_little_gets_it() {
        let mut far = Window::new(u64::MAX);
        far.handle_round_trip(Duration::from_millis(100));
        let mut late = Window::new(u64::MAX);
        late.handle_round_trip(Duration::from_secs(60));
        let near = Window::new(64 << 10);
        let windows = [vec![far; 1000], vec![late; 100], vec![near]].concat();
        let wish = |window: &Window| window.wished_bytes();
        let level =
            water_level(&mut windows.iter().map(wish).collect::<Vec<_>>(), WINDOW_POOL_BYTES);
        let mut sizes = windows.iter().cloned().map(|mut window| {
            window.set_ceiling(level);
            window.size_bytes()
        });
        assert!(sizes.clone().sum::<u64>() <= WINDOW_POOL_BYTES);
        let (of_far, of_late) = (sizes.next(), sizes.clone().nth(1000));
        assert_eq!(of_far, of_late, "who acknowledges late gets no more than others");
        assert_eq!(sizes.next_back(), Some(64 << 10));
    }

    #[test]
    fn a_shard_that_falls_asleep_gives_back_what_it_borrowed_unless_something_is_under_way() {
        const MIB: u64 = 1 << 20;
        let (pool, mut loans) =
            (WindowPool::default(), [WindowLoan::default(), WindowLoan::default()]);
        let [quiet, busy] = &mut loans;
        let own = WindowPool::own_part(8);
        let wish = |under_way, is_quiet| pool_wish(64 * MIB, under_way, is_quiet);
        assert!(pool.part(quiet, 8, wish(0, false)) > own, "it has work");
        assert!(pool.part(quiet, 8, wish(1, true)) > own, "its peer is far away");
        let while_both = pool.part(busy, 8, wish(1, false));
        assert_eq!(pool.part(quiet, 8, wish(0, true)), own, "it sleeps");
        assert!(pool.part(busy, 8, wish(1, false)) > while_both, "the other one has all of it");
    }

    #[test]
    fn wishes_below_the_water_level_are_granted_in_full() {
        const MIB: u64 = 1 << 20;
        let level = |mut wishes: Vec<u64>, pool| water_level(&mut wishes, pool);
        assert_eq!(level(vec![4 * MIB; 100], 100 * MIB), MIB, "equals get equal parts");
        assert_eq!(level(vec![MIB, MIB, 40 * MIB], 10 * MIB), 8 * MIB);
        assert_eq!(level(vec![WINDOW_BYTES_MIN; 10_000], 10 * MIB), WINDOW_BYTES_MIN);
        assert_eq!(level(vec![MIB; 4], 100 * MIB), 25 * MIB, "room to grow");
        assert_eq!(level(vec![], MIB), MIB);
        for seed in 0..1000u64 {
            let wish = |i: u64| (seed * 31 + i * i * 7919) % (4 * MIB) + WINDOW_BYTES_MIN;
            let wishes: Vec<u64> = (0..seed % 40 + 1).map(wish).collect();
            let pool = 20 * MIB;
            let level = level(wishes.clone(), pool);
            let granted: u64 = wishes.iter().map(|&wish| wish.min(level)).sum();
            assert!(granted <= pool, "seed {seed}: {granted} of {pool}");
        }
    }
}
