//! What happens to peers: they join, do something, fall silent, fall behind, starve, leave, and go.
//!
//! A peer's wants are **counted** at the chunks while it takes what it is sent. A dormant peer
//! (no credit and no progress for [`DORMANT_AFTER`]) keeps no chunk in the cache: a want without
//! credit is not a want.

use std::time::Duration;

use relay_protocol::{Bitfield, time::Time};

use super::{
    Book,
    peer::{Missing, Pacing, Peer, Standing, Starved},
    starving::{chunk_rate, whole},
};
use crate::api::{Join, PeerSlot};

/// Silence after which a peer's wants no longer count. Longer than a slow but honest peer takes
/// for a frame, shorter than the 10 s after which a peer that takes no byte is disconnected.
const DORMANT_AFTER: Duration = Duration::from_secs(2);

/// How often a counted peer is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

impl Book {
    /// A peer joins; the slot names it from now on.
    pub(crate) fn join(&mut self, now: Time, join: Join) -> PeerSlot {
        let slot = self.peers.insert(Peer::new(now, join, self.log.start()));
        let claims = self.peers[slot].have.clone();
        for chunk in claims.iter() {
            self.add_holder(slot, chunk);
        }
        self.set_counted(slot, true);
        self.watch_peer(now, slot);
        self.refresh_idle(slot);
        slot
    }

    /// The peer would like to go: it holds, and wants no more.
    pub(crate) fn leave(&mut self, now: Time, slot: PeerSlot) {
        self.set_counted(slot, false);
        self.peers[slot].standing = Standing::Leaving;
        self.refresh_starving(now, slot);
    }

    /// Takes the peer out of every count; its slot and its deliveries stay until it has gone. Returns the chunks
    /// that it held.
    pub(crate) fn retire(&mut self, now: Time, slot: PeerSlot) -> Bitfield {
        self.set_counted(slot, false);
        self.peers[slot].standing = Standing::Retired;
        self.refresh_starving(now, slot);
        self.refresh_idle(slot);
        let nothing = Bitfield::empty(self.chunks.count());
        let had = std::mem::replace(&mut self.peers[slot].have, nothing);
        for chunk in had.iter() {
            self.chunks.change(chunk, |state| state.holders -= 1);
        }
        self.holders.suppliers.retain(|&other| other != slot);
        had
    }

    /// The peer's connection has ended; it is retired, and none of its deliveries is left.
    pub(crate) fn remove(&mut self, slot: PeerSlot) {
        self.watch.retain(|&(_, other)| other != slot);
        self.peers.remove(slot);
    }

    /// Counts the peer's wants at the chunks, or no longer.
    pub(super) fn set_counted(&mut self, slot: PeerSlot, counted: bool) {
        let peer = &mut self.peers[slot];
        if peer.is_counted() == counted {
            return;
        }
        peer.standing = if counted { Standing::Counted } else { Standing::Dormant };
        let keeps_pace = peer.keeps_pace();
        let step = |count: &mut u32| *count = if counted { *count + 1 } else { *count - 1 };
        for chunk in peer.settled.iter_missing() {
            let is_keen = keeps_pace && peer.asks_for(chunk);
            self.chunks.change(chunk, |state| {
                step(&mut state.wanted);
                step(&mut state.needers);
                if is_keen {
                    step(&mut state.keen);
                }
            });
        }
        for delivery in peer.intake.unwritten() {
            self.chunks.change(delivery.chunk, |state| {
                step(&mut state.needers);
                if keeps_pace {
                    step(&mut state.keen);
                    step(&mut state.keen_unwritten);
                }
            });
        }
    }

    /// The peer is as fast as those that starve, or has fallen behind. One decision, not one for each chunk.
    pub(crate) fn set_pacing(&mut self, slot: PeerSlot, pacing: Pacing) {
        let peer = &mut self.peers[slot];
        debug_assert_ne!(peer.keeps_pace(), pacing == Pacing::Keeps, "it changes sides");
        peer.pacing = pacing;
        if !peer.is_counted() {
            return;
        }
        let keeps_pace = pacing == Pacing::Keeps;
        let step = |count: &mut u32| *count = if keeps_pace { *count + 1 } else { *count - 1 };
        for chunk in peer.settled.iter_missing().filter(|&chunk| peer.asks_for(chunk)) {
            self.chunks.change(chunk, |state| step(&mut state.keen));
        }
        for delivery in peer.intake.unwritten() {
            self.chunks.change(delivery.chunk, |state| {
                step(&mut state.keen);
                step(&mut state.keen_unwritten);
            });
        }
    }

    /// The peer did something: its wants count (again).
    pub(crate) fn note_progress(&mut self, now: Time, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        peer.seen.progress_at = now;
        if peer.is_joined() {
            self.set_counted(slot, true);
            self.watch_peer(now, slot);
        }
    }

    /// A peer that would take something at once is not silent.
    #[inline]
    pub(crate) fn wake_if_hungry(&mut self, now: Time, slot: PeerSlot) {
        let peer = &self.peers[slot];
        if peer.is_hungry() && !peer.is_counted() {
            self.set_counted(slot, true);
            self.watch_peer(now, slot);
        }
    }

    /// Looks at the peer again after a while, to see whether it has fallen silent.
    fn watch_peer(&mut self, now: Time, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        if !peer.seen.is_watched && !peer.settled.is_full() {
            peer.seen.is_watched = true;
            self.watch.push_back((now + WATCH_EVERY, slot));
        }
    }

    /// When peers have to be looked at again.
    pub(crate) fn watch_timeout(&self) -> Option<Time> {
        self.watch.front().map(|&(at, _)| at)
    }

    /// Wants of peers that have fallen silent count no longer.
    pub(crate) fn watch_peers(&mut self, now: Time) {
        while let Some(&(at, slot)) = self.watch.front()
            && at <= now
        {
            self.watch.pop_front();
            let peer = &mut self.peers[slot];
            peer.seen.is_watched = false;
            if !peer.is_counted() {
                continue;
            }
            let silent = now.since(peer.seen.progress_at) >= DORMANT_AFTER;
            // What the shell holds back itself makes no peer silent.
            if silent && !peer.is_hungry() && !self.limits.holds_back {
                self.set_counted(slot, false);
            } else {
                self.watch_peer(now, slot);
            }
        }
    }

    /// The peer waits for what no connected peer holds; for how long already.
    pub(crate) fn misses(&mut self, now: Time, slot: PeerSlot) -> Duration {
        let missing = &mut self.peers[slot].missing;
        let since = missing.get_or_insert(Missing { since: now, told: None }).since;
        self.refresh_starving(now, slot);
        now.since(since)
    }

    /// The peer is told so.
    pub(crate) fn told_missing(&mut self, now: Time, slot: PeerSlot) {
        if let Some(missing) = &mut self.peers[slot].missing {
            missing.told = Some(now);
        }
    }

    /// The peer no longer waits in vain.
    pub(crate) fn misses_nothing(&mut self, now: Time, slot: PeerSlot) {
        self.peers[slot].missing = None;
        self.refresh_starving(now, slot);
    }

    /// Whether the peer starves may have changed. Its clock runs while it does not: then it is the peer
    /// that takes its time.
    pub(crate) fn refresh_starving(&mut self, now: Time, slot: PeerSlot) {
        let holds_back = self.holds_back;
        let chunk_bytes = self.config.chunk_size_bytes;
        let peer = &mut self.peers[slot];
        let starves = peer.is_hungry() && !holds_back;
        let takes = peer.is_joined() && !peer.settled.is_full() && peer.intake.allowance_bytes > 0;
        let is_idle = peer.intake.deliveries.is_empty();
        let is_busy = !is_idle || takes && !starves && !holds_back;
        peer.intake.down.set_busy(now, is_busy);
        // What is missing is not the relay's to give, and says nothing of the pace.
        let is_owed = peer.missing.is_none();
        let known = peer.intake.down.rate();
        let loses = if is_idle && is_owed { chunk_rate(known, chunk_bytes) } else { 0 };
        let rate = known.filter(|_| is_owed).map_or(0, whole);
        let old = peer.starving;
        let at = old.map_or(self.starving.peers.len(), |old| old.at as usize);
        let at = u32::try_from(at).expect("at most all peers");
        let entered = old.map_or(self.starving.entered, |old| old.entered);
        peer.starving = starves.then_some(Starved { at, entered, loses, rate });
        match (old, starves) {
            (None, true) => {
                self.starving.entered += 1;
                self.starving.peers.push(slot);
                self.chunks.news = true;
            }
            (Some(old), false) => {
                self.starving.peers.swap_remove(old.at as usize);
                if let Some(&moved) = self.starving.peers.get(old.at as usize) {
                    let entry = self.peers[moved].starving.as_mut();
                    entry.expect("it is among the starving").at = old.at;
                }
            }
            (Some(_), true) | (None, false) => {}
        }
        let of = |starved: Option<Starved>| starved.map_or((0, 0), |it| (it.loses, it.rate));
        let ((old_loses, old_rate), (loses, rate)) = (of(old), of(self.peers[slot].starving));
        self.starving.loses = self.starving.loses - old_loses + loses;
        self.starving.pace.change(now, old_rate, rate);
    }

    /// The next round begins so many starving peers later.
    pub(crate) fn turn_starving(&mut self, steps: usize) {
        let count = self.starving.peers.len();
        self.starving.turn = (self.starving.turn + steps) % count;
    }
}
