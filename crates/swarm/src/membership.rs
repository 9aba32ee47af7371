//! Who takes part: joining, going, being banned, falling silent, starving.
//!
//! A peer's wants are **counted** at the chunks while it takes what it is sent. A dormant peer
//! (no credit and no progress for [`DORMANT_AFTER`]) keeps no chunk in the cache: a want without
//! credit is not a want.

use std::time::Duration;

use super::{
    Action, Join, PeerSlot, Swarm, pace,
    peers::{Delivery, Peer, Stage, Standing, Starved},
};
use relay_protocol::time::Time;

/// Silence after which a peer's wants no longer count. Longer than a slow but honest peer takes
/// for a frame, shorter than the 10 s after which a peer that takes no byte is disconnected.
const DORMANT_AFTER: Duration = Duration::from_secs(2);

/// How often a counted peer is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Rate of a peer that has not shown one yet, in millionths of a chunk a second: low, as it has
/// lost little that we know of, but enough that patience ends.
const RATE_UNKNOWN: u64 = 1_000_000;

/// The peers that have credit and lack everything that is cached.
#[derive(Debug, Default)]
pub(super) struct Starving {
    pub(super) peers: Vec<PeerSlot>,
    /// Where the next round begins.
    pub(super) turn: usize,
    /// How many began to starve so far.
    entered: u64,
}

impl Starving {
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

impl Swarm {
    /// A peer joins; the slot names it from now on.
    ///
    /// # Panics
    /// If the claims range over another number of chunks than the file has.
    pub fn handle_join(&mut self, now: Time, join: Join) -> PeerSlot {
        assert_eq!(join.claims.len(), self.chunks.count(), "claims of another file");
        self.begin(now);
        let slot = self.peers.insert(Peer::new(now, join, self.log.start()));
        let claims = self.peers[slot].have.clone();
        for chunk in claims.iter() {
            self.chunks.change(chunk, |state| {
                state.holders += 1;
                state.holder_hint = slot.0;
            });
        }
        self.set_counted(slot, true);
        self.watch_peer(now, slot);
        self.refresh_idle(slot);
        self.manifest_holder_came();
        self.seeding_joined(now, slot);
        self.settle(now);
        slot
    }

    /// The peer's connection has ended, for whatever reason.
    pub fn handle_gone(&mut self, now: Time, slot: PeerSlot) {
        self.begin(now);
        if self.peers.get(slot).is_some() {
            self.retire(now, slot);
            while let Some(delivery) = self.peers[slot].deliveries.pop_front() {
                self.release_unwritten(now, slot, delivery);
            }
            self.watch.retain(|&(_, other)| other != slot);
            self.peers.remove(slot);
            self.leaving_recheck();
        }
        self.settle(now);
    }

    /// Takes a peer out of every count; its slot and its deliveries stay until it has gone.
    pub(super) fn retire(&mut self, now: Time, slot: PeerSlot) {
        if self.peers[slot].standing == Standing::Retired {
            return;
        }
        self.set_counted(slot, false);
        self.leaving_ended(slot);
        self.peers[slot].standing = Standing::Retired;
        self.refresh_starving(now, slot);
        self.refresh_idle(slot);
        let have = std::mem::take(&mut self.peers[slot].have);
        for chunk in have.iter() {
            self.chunks.change(chunk, |state| state.holders -= 1);
            self.copy_lost(chunk);
        }
        self.peers[slot].have = relay_protocol::Bitfield::empty(self.chunks.count());
        self.supplier_lost(slot);
        self.drop_fetches_of(now, slot);
        self.seeding_lost(now, slot);
        self.manifest_lost(slot);
    }

    /// The peer lied: it is cut off, nobody else is.
    pub(super) fn ban(&mut self, now: Time, slot: PeerSlot) {
        if self.peers.get(slot).is_none_or(|peer| peer.standing == Standing::Retired) {
            return;
        }
        self.counters.bans += 1;
        self.actions.push_back(Action::Ban { peer: slot });
        self.retire(now, slot);
    }

    /// Counts the peer's wants at the chunks, or no longer.
    pub(super) fn set_counted(&mut self, slot: PeerSlot, counted: bool) {
        let peer = &mut self.peers[slot];
        if peer.counted == counted {
            return;
        }
        peer.counted = counted;
        let step = |count: &mut u32| *count = if counted { *count + 1 } else { *count - 1 };
        for chunk in peer.settled.iter_missing() {
            let is_keen = peer.keeps_pace && peer.asks_for(chunk);
            self.chunks.change(chunk, |state| {
                step(&mut state.wanted);
                step(&mut state.needers);
                if is_keen {
                    step(&mut state.keen);
                }
            });
        }
        for delivery in peer.deliveries.iter().filter(|delivery| delivery.stage < Stage::Written) {
            self.chunks.change(delivery.chunk, |state| {
                step(&mut state.needers);
                if peer.keeps_pace {
                    step(&mut state.keen);
                    step(&mut state.keen_unwritten);
                }
            });
        }
    }

    /// The peer did something: its wants count (again).
    pub(super) fn note_progress(&mut self, now: Time, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        peer.progress_at = now;
        if peer.is_joined() {
            self.set_counted(slot, true);
            self.watch_peer(now, slot);
        }
    }

    /// Looks at the peer again after a while, to see whether it has fallen silent.
    pub(super) fn watch_peer(&mut self, now: Time, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        if !peer.watched && !peer.settled.is_full() {
            peer.watched = true;
            self.watch.push_back((now + WATCH_EVERY, slot));
        }
    }

    pub(super) fn watch_peers(&mut self, now: Time) {
        while let Some(&(at, slot)) = self.watch.front()
            && at <= now
        {
            self.watch.pop_front();
            let peer = &mut self.peers[slot];
            peer.watched = false;
            if !peer.counted {
                continue;
            }
            let silent = now.since(peer.progress_at) >= DORMANT_AFTER;
            if silent && !peer.is_hungry() {
                self.set_counted(slot, false);
            } else {
                self.watch_peer(now, slot);
            }
        }
    }

    /// Sets or clears that the peer needs no delivery of the chunk.
    pub(super) fn set_settled(&mut self, slot: PeerSlot, chunk: u32, settled: bool) {
        let peer = &mut self.peers[slot];
        let changed = if settled { peer.settled.insert(chunk) } else { peer.settled.remove(chunk) };
        if changed && peer.counted {
            let step = |count: &mut u32| *count = if settled { *count - 1 } else { *count + 1 };
            let is_keen = peer.keeps_pace && peer.asks_for(chunk);
            self.chunks.change(chunk, |state| {
                step(&mut state.wanted);
                step(&mut state.needers);
                if is_keen {
                    step(&mut state.keen);
                }
            });
        }
        if changed && !settled {
            let state = self.chunks.get(chunk);
            if state.place == super::chunks::Place::Cached {
                peer.cursor = peer.cursor.min(state.sequence);
            }
        }
    }

    /// A delivery's memory is no longer needed: written, given up or gone.
    pub(super) fn release_unwritten(&mut self, now: Time, slot: PeerSlot, delivery: Delivery) {
        if delivery.stage == Stage::Written {
            return;
        }
        let (counted, keen) = (self.peers[slot].counted, self.peers[slot].is_keen());
        self.chunks.change(delivery.chunk, |state| {
            state.unwritten -= 1;
            state.needers -= u32::from(counted);
            state.keen -= u32::from(keen);
            state.keen_unwritten -= u32::from(keen);
            state.protected &= state.unwritten > 0;
        });
        self.memory_returned(now, delivery.chunk);
        self.seeding_written(now, delivery.chunk);
    }

    /// Whether the peer starves may have changed. Its clock runs while it does not: then it is the peer
    /// that takes its time.
    pub(super) fn refresh_starving(&mut self, now: Time, slot: PeerSlot) {
        let holds_back = self.seeding.holds_back();
        let chunk_bytes = self.config.chunk_size_bytes;
        let peer = &mut self.peers[slot];
        let starves = peer.is_hungry() && !holds_back;
        let takes = peer.is_joined() && !peer.settled.is_full() && peer.allowance_bytes > 0;
        let is_busy = !peer.deliveries.is_empty() || takes && !starves && !holds_back;
        peer.down.set_busy(now, is_busy);
        // What is missing is not the relay's to give, and says nothing of the pace.
        let is_owed = peer.missing_since.is_none();
        let known = peer.down.rate();
        let loses = match peer.deliveries.is_empty() && is_owed {
            true => chunk_rate(known, chunk_bytes),
            false => 0,
        };
        let rate = known.filter(|_| is_owed).map_or(0, pace::whole);
        let old = peer.starving;
        let at = old.map_or(self.starving.peers.len(), |old| old.at as usize);
        let at = u32::try_from(at).expect("at most all peers");
        peer.starving = starves.then_some(Starved { at, loses, rate });
        match (old, starves) {
            (None, true) => {
                peer.starving_since = self.starving.entered;
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
        self.rent.change_rate(old_loses, loses);
        self.pace.change(now, old_rate, rate);
    }
}

/// Millionths of a chunk a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive")]
fn chunk_rate(bytes_per_second: Option<f64>, chunk_size_bytes: u32) -> u64 {
    bytes_per_second.map_or(RATE_UNKNOWN, |rate| (rate / f64::from(chunk_size_bytes) * 1e6) as u64)
}
