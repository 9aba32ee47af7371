//! What a shard does because of time alone: hedges, deadlines, stalls, handshakes, what memory costs, and what is
//! published.

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use shards::clock;

use super::{
    ShardState,
    desk::{TIMER_LEAST, now},
    sweep::Sweep,
};
use relay_protocol::time::Time;

/// How often time is looked at when nothing happens: hedges, deadlines and stalls are due in
/// tens of milliseconds at the least. What memory costs has a timer of its own (`watch_prices`).
const TICK_BUSY: Duration = Duration::from_millis(10);

/// The same while no swarm has work, and how often everything else is looked after.
const TICK_IDLE: Duration = Duration::from_millis(100);

/// The same when nothing has happened since, but a peer may be overdue.
const TICK_QUIET: Duration = Duration::from_secs(1);

/// Looks at the time: hedges, deadlines, stalls, handshakes, and what is published.
pub(super) async fn run(state: Rc<ShardState>) {
    let desk = &state.desk;
    let mut sweep = Sweep::default();
    let (mut looked_at, mut is_quiet, mut is_watching) = (Time::ZERO, false, false);
    loop {
        let mut happened = false;
        if is_quiet {
            happened = wait_for_activity(&state, is_watching).await;
        } else {
            let busy = state.parts().homes.has_work();
            clock::sleep(if busy { TICK_BUSY } else { TICK_IDLE }).await;
        }
        let now = now();
        tell_lapse();
        {
            let homes = &mut state.parts().homes;
            homes.handle_limits(now, &desk.cells);
            homes.handle_timeouts(now);
        }
        is_quiet &= !happened;
        if now.since(looked_at) >= TICK_IDLE {
            looked_at = now;
            // While memory is short, homes give way as time passes.
            happened |= desk.bells.activity.take() || desk.shared.memory.budget.waiting() > 0;
            is_watching = sweep.run(desk, &mut state.parts(), now, !happened);
            is_quiet = !happened;
        }
        desk.shard.port.nudge();
    }
}

/// Acts upon a price of memory when it is due: peers starve until then. What is due later than the next
/// look sees that.
pub(super) async fn watch_prices(state: Rc<ShardState>) {
    let desk = &state.desk;
    loop {
        let due = state.parts().homes.price_due_at().map(|due| due.since(now()));
        match due.filter(|&due| due < TICK_BUSY) {
            Some(due) => {
                clock::sleep(due.max(TIMER_LEAST)).await;
                state.parts().homes.handle_timeouts(now());
                desk.shard.port.nudge();
            }
            None => desk.bells.price.wait().await,
        }
    }
}

/// Milliseconds that the process did not run, as far as the log tells. Of the process, as the clock is.
static LAPSE_TOLD_MS: AtomicU64 = AtomicU64::new(0);

/// The log says why all peers were silent; by the first shard that notices.
fn tell_lapse() {
    let lapsed = u64::try_from(clock::lapsed().as_millis()).unwrap_or(u64::MAX);
    if lapsed > LAPSE_TOLD_MS.load(Ordering::Relaxed) {
        let before = LAPSE_TOLD_MS.swap(lapsed, Ordering::Relaxed);
        let seconds = Duration::from_millis(lapsed.saturating_sub(before)).as_secs_f64();
        if seconds > 0.0 {
            tracing::warn!(
                "this relay did not run for {seconds:.1} s: that counts against no peer"
            );
        }
    }
}

/// Until something happens, a deadline is due, or it is time to look; whether something happened. A shard
/// whose homes hold memory wakes up now and then: no bell rings when another shard's home waits for some. As
/// long as none does, it looks no further: that would cost something for every connection.
async fn wait_for_activity(state: &ShardState, is_watching: bool) -> bool {
    let desk = &state.desk;
    loop {
        let (due, holds_memory) = {
            let homes = &state.parts().homes;
            (homes.poll_timeout(), homes.hold_memory())
        };
        let due = due.map(|due| due.since(now()).max(TICK_BUSY));
        let watch = (is_watching || holds_memory).then_some(TICK_QUIET);
        let Some(wait) = due.into_iter().chain(watch).min() else {
            desk.bells.activity.wait().await;
            return true;
        };
        if clock::timeout(wait, desk.bells.activity.wait()).await.is_some() {
            return true;
        }
        if is_watching || due == Some(wait) || desk.shared.memory.budget.waiting() > 0 {
            return false;
        }
    }
}
