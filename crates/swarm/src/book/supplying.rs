//! What happens to chunks that holders supply: they are claimed, fetched, cached, evicted.

use std::time::Duration;

use relay_protocol::time::Time;

use super::{
    Book,
    chunks::{Cached, Chunk, Place},
    fetches::{Fetch, Need, Pick},
};
use crate::api::{FetchId, PeerSlot};

/// Holders that are remembered because they supplied something: so that one of them is found among
/// any number that only claim.
const SUPPLIERS_MAX: usize = 16;

impl Book {
    /// One more peer has the chunk.
    #[inline]
    pub(super) fn add_holder(&mut self, slot: PeerSlot, chunk: u32) {
        self.chunks.change(chunk, |state| {
            state.holders += 1;
            state.holder_hint = slot.0;
        });
    }

    /// The peer has the chunk no longer; whether it had it. Its place among the idle holders is not looked at.
    pub(crate) fn unclaim(&mut self, slot: PeerSlot, chunk: u32) -> bool {
        let had = self.peers[slot].have.remove(chunk);
        if had {
            self.chunks.change(chunk, |state| state.holders -= 1);
            self.refresh_idle(slot);
        }
        had
    }

    /// The peer's place among the idle holders may have changed.
    pub(super) fn refresh_idle(&mut self, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        let is_idle = peer.supply.fetches == 0 && peer.is_holder() && peer.have.count() > 0;
        let all = &mut self.holders.idle;
        match peer.supply.idle {
            None if is_idle => {
                peer.supply.idle = Some(u32::try_from(all.len()).expect("at most all peers"));
                all.push(slot);
            }
            Some(at) if !is_idle => {
                peer.supply.idle = None;
                all.swap_remove(at as usize);
                if let Some(&moved) = all.get(at as usize) {
                    self.peers[moved].supply.idle = Some(at);
                }
            }
            _ => {}
        }
    }

    /// The peer has supplied something that is right; whether it is one more supplier to remember.
    pub(crate) fn prove(&mut self, slot: PeerSlot) -> bool {
        let suppliers = &mut self.holders.suppliers;
        let was_proven = std::mem::replace(&mut self.peers[slot].supply.is_proven, true);
        if was_proven && suppliers.contains(&slot) {
            return false;
        }
        if suppliers.len() == SUPPLIERS_MAX {
            suppliers.pop_front();
        }
        suppliers.push_back(slot);
        true
    }

    /// The peer may go, or soon.
    pub(crate) fn let_go(&mut self, slot: PeerSlot) {
        self.peers[slot].supply.may_go = true;
    }

    /// The path to the peer is known before the first chunk.
    pub(crate) fn guess_depth(&mut self, slot: PeerSlot, round_trip: Duration) {
        let (chunk_size, most) = (self.config.chunk_size_bytes, self.config.fetches_max / 4);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.supply.depth.handle_sole(round_trip, chunk_size, most);
        }
    }

    /// A fetch is decided, instead of one that was there before or beside its rival. It uses up a lease.
    pub(crate) fn start_fetch(&mut self, now: Time, pick: Pick, rival: Option<FetchId>) -> FetchId {
        let Pick { chunk, holder, need } = pick;
        self.memory.held -= 1;
        let peer = &mut self.peers[holder];
        let queued = peer.supply.fetches + 1;
        let fetch_id = self.fetches.add(Fetch {
            chunk,
            holder,
            started_at: now,
            charged: Duration::ZERO,
            patience: self.limits.patience,
            turn: peer.supply.silence.unanswered,
            on_trial: !peer.supply.is_proven,
            need,
            queued,
            rival,
            overdue: false,
        });
        peer.supply.fetches = queued;
        peer.supply.up.set_busy(now, true);
        peer.supply.depth.handle_started(now, queued);
        self.refresh_idle(holder);
        self.chunks.change(chunk, |state| state.place = Place::Fetching);
        self.tally.counters.misses += u64::from(rival.is_none());
        self.tally.counters.fetches += 1;
        fetch_id
    }

    /// Forgets a fetch; its chunk stays as it is.
    pub(crate) fn end_fetch(&mut self, now: Time, fetch_id: FetchId) -> Option<Fetch> {
        let fetch = self.fetches.remove(fetch_id)?;
        self.chunks.news = true;
        if let Some(holder) = self.peers.get_mut(fetch.holder) {
            holder.supply.fetches -= 1;
            let is_busy = holder.supply.fetches > 0;
            holder.supply.up.set_busy(now, is_busy);
            self.refresh_idle(fetch.holder);
        }
        Some(fetch)
    }

    /// After a fetch that brought nothing: its chunk is absent again unless the rival goes on.
    pub(crate) fn release_chunk(&mut self, fetch: &Fetch) {
        if fetch.rival.is_none() {
            self.chunks.change(fetch.chunk, |state| state.place = Place::Absent);
        }
    }

    /// The fetch brought what it was for.
    pub(crate) fn note_answer(&mut self, now: Time, fetch: &Fetch) {
        let (bytes, chunk_size) = (self.chunk_bytes(fetch.chunk), self.config.chunk_size_bytes);
        let holder = &mut self.peers[fetch.holder];
        let supply = &mut holder.supply;
        supply.up.add(bytes);
        supply.up.fold(now, f64::from(chunk_size));
        supply.depth.handle_answered(now, fetch.started_at, bytes, chunk_size);
        supply.silence.is_slow = false;
        supply.silence.unanswered = Duration::ZERO;
        supply.silence.counted_until = now;
        holder.seen.progress_at = now;
    }

    /// The fetch has waited for its turn in vain: what that adds to its holder's silence.
    pub(crate) fn note_silence(&mut self, now: Time, fetch_id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(fetch_id) else { return };
        let silence = &mut self.peers[fetch.holder].supply.silence;
        let added = now.since(silence.counted_until.max(fetch.started_at));
        silence.is_slow = true;
        silence.unanswered += added;
        silence.counted_until = now;
        fetch.charged += added;
    }

    /// No peer waited for this fetch in vain: its chunk came from elsewhere.
    pub(crate) fn forgive(&mut self, fetch: &Fetch) {
        let silence = &mut self.peers[fetch.holder].supply.silence;
        silence.unanswered = silence.unanswered.saturating_sub(fetch.charged);
    }

    /// The link to the holder damages what it supplies.
    pub(crate) fn note_damage(&mut self, slot: PeerSlot) {
        self.peers[slot].supply.silence.is_slow = true;
    }

    /// The fetch ran into its time-out and goes on.
    pub(crate) fn mark_overdue(&mut self, fetch_id: FetchId) {
        self.fetches.mark_overdue(fetch_id);
    }

    /// Fetched bytes are in the cache. For a peer that starves they are protected until `served`.
    pub(crate) fn cache(&mut self, now: Time, fetch: &Fetch) {
        let sequence = self.log.push(fetch.chunk);
        let is_protected = fetch.need == Need::Starving;
        let cached = Cached { sequence, used_at: now, is_protected, is_fresh: true };
        self.chunks.change(fetch.chunk, |state| state.place = Place::Cached(cached));
    }

    /// All peers that starved have been looked at since this chunk came.
    pub(crate) fn served(&mut self, chunk: u32) {
        self.chunks.change(chunk, Chunk::unprotect_unless_unwritten);
        if self.log.is_sparse() {
            self.rewrite_log();
        }
    }

    fn rewrite_log(&mut self) {
        let chunks = &mut self.chunks;
        let map = self.log.rewrite(&mut |chunk, sequence| {
            chunks.change(chunk, |state| {
                state.cached_mut().expect("what is in the log is cached").sequence = sequence;
            });
        });
        for (_, peer) in self.peers.iter_mut() {
            peer.cursor = map(peer.cursor);
        }
    }

    /// Drops a chunk from the cache; whether its memory is free at once, as no delivery holds it.
    pub(crate) fn evict(&mut self, chunk: u32) -> bool {
        let cached = self.chunks.get(chunk).cached().expect("only what is cached is evicted");
        self.log.remove(cached.sequence);
        self.tally.counters.evictions += 1;
        let is_drained = self.chunks.change(chunk, |state| {
            let is_drained = state.unwritten == 0;
            let draining = Place::Draining { is_recalled: false };
            state.place = if is_drained { Place::Absent } else { draining };
            is_drained
        });
        self.memory.has_returned |= is_drained;
        is_drained
    }

    /// An evicted chunk is to be taken back from its deliveries; whether that is news.
    pub(crate) fn recall(&mut self, chunk: u32) -> bool {
        debug_assert!(self.chunks.get(chunk).is_draining());
        self.chunks.change(chunk, |state| {
            let is_news = !state.is_recalled();
            state.place = Place::Draining { is_recalled: true };
            is_news
        })
    }

    /// A ban is decided.
    pub(crate) fn count_ban(&mut self) {
        self.tally.counters.bans += 1;
    }
}
