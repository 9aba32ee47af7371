//! The home of one swarm: its scheduler, its cached chunks, its place in the budget's queue.
//!
//! Turns what the [`Swarm`] decides into requests to the shards of its peers. It touches no
//! socket, and knows connections only by reference.

pub(crate) mod blame;
pub(crate) mod cache;
pub(crate) mod departures;
pub(crate) mod homes;
mod joining;
mod limits;
mod members;
mod pending;
mod telling;

use std::{collections::BTreeMap, sync::Arc};

use shards::{
    ShardId,
    budget::{Lease, Waiter},
};

use self::{
    cache::{Cache, count_unwanted},
    departures::Ending,
    members::Members,
    pending::{OpenFetch, Pending, Room},
};
use crate::{
    lending::{self, is_worth_it},
    message::{
        CachedChunk, ConnectionRef, FetchOrder, FetchedChunk, NewsItem, PeerNews, PeerRequest,
        SwarmRef, Target,
    },
    observe::cells::ShardCells,
    shard::outbox::Outbox,
};
use relay_protocol::{Manifest, Message, SwarmKey, time::Time};
use relay_swarm::{Action, Counters, FetchFailure, FetchId, PeerSlot, Swarm, SwarmConfig};

/// One swarm on its home shard.
pub(crate) struct Home {
    key: SwarmKey,
    reference: SwarmRef,
    swarm: Swarm,
    manifest: Option<Arc<Manifest>>,
    /// What an origin would have the file called; the first that said so.
    label: Option<Arc<str>>,
    cache: Cache,
    members: Members,
    pending: Pending,
    room: Room,
    deliveries: Deliveries,
    published: Counters,
    /// Stands in the list of those to be driven.
    pub is_dirty: bool,
}

/// Deliveries decided in this turn, one list per chunk and shard.
type Deliveries = BTreeMap<(u32, ShardId), Vec<Target>>;

impl Home {
    pub(crate) fn new(
        key: SwarmKey,
        reference: SwarmRef,
        config: SwarmConfig,
        waiter: Waiter,
        shard_count: usize,
        lends: bool,
    ) -> Self {
        Self {
            key,
            reference,
            swarm: Swarm::new(config),
            manifest: None,
            label: None,
            cache: Cache::default(),
            members: Members::new(shard_count),
            pending: Pending::default(),
            room: Room { waiter, is_wanted: false, lease: None, lends },
            deliveries: Deliveries::new(),
            published: Counters::default(),
            is_dirty: false,
        }
    }

    pub(crate) fn key(&self) -> &SwarmKey {
        &self.key
    }

    pub(crate) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub(crate) fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }

    pub(crate) fn reference(&self) -> SwarmRef {
        self.reference
    }

    /// No peer is left: the home is to be dropped, chunks and all.
    pub(crate) fn is_empty(&self) -> bool {
        self.swarm.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.swarm.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.swarm.handle_timeout(now);
    }

    /// The relay's own limits mean this for the swarm.
    pub(crate) fn handle_limits(&mut self, now: Time, limits: relay_swarm::Limits) -> bool {
        self.swarm.handle_limits(now, limits)
    }

    pub(crate) fn handle_news(
        &mut self,
        now: Time,
        news: PeerNews,
        outbox: &mut Outbox,
        cells: &ShardCells,
    ) {
        let peer = news.peer;
        if self.members.get(peer).is_none() {
            return;
        }
        let mut wants_status = false;
        for item in news.items {
            match item {
                NewsItem::Begun(chunk) => self.swarm.handle_begun(now, peer, chunk),
                NewsItem::Written(chunk) => self.swarm.handle_written(now, peer, chunk),
                NewsItem::CutOff(chunk, reached_bytes) => {
                    self.swarm.handle_cut_off(now, peer, chunk, reached_bytes);
                }
                NewsItem::Have(range) => {
                    cells.chunks_delivered.add(u64::from(range.count));
                    for chunk in range.first..range.first + range.count {
                        self.swarm.handle_have(now, peer, chunk);
                    }
                }
                NewsItem::Lost(range) => {
                    for chunk in range.first..range.first + range.count {
                        self.swarm.handle_lost(now, peer, chunk);
                    }
                }
                NewsItem::Lacking(chunk) => self.swarm.handle_lacking(now, peer, chunk),
                NewsItem::Want(chunks) => self.swarm.handle_want(now, peer, &chunks),
                NewsItem::Leaving => {
                    self.note_held(peer);
                    self.members.note_ending(peer, Ending::Left);
                    self.swarm.handle_leaving(now, peer);
                }
                NewsItem::StatusRequest => wants_status = true,
                NewsItem::GaveUp => self.swarm.handle_gave_up(now, peer),
                NewsItem::Label(label) => {
                    self.label.get_or_insert(label);
                }
                NewsItem::Below(below) => self.members.note_below(peer, below),
            }
        }
        self.swarm.handle_allowance(now, peer, news.allowance_bytes);
        self.note_held(peer);
        if wants_status {
            self.tell(peer, Message::SwarmStatus(self.swarm.status()), outbox);
        }
    }

    pub(crate) fn handle_fetched(
        &mut self,
        now: Time,
        fetch_id: FetchId,
        result: Result<FetchedChunk, FetchFailure>,
        cells: &ShardCells,
    ) {
        // The bytes of a fetch that was cancelled meanwhile go. If the swarm has yet to say so, it
        // stays in the table: then its lease is asked back, and found to be free.
        let is_wanted = self.swarm.is_fetching(fetch_id);
        let Some(fetch) = is_wanted.then(|| self.pending.fetches.remove(&fetch_id)).flatten()
        else {
            return count_unwanted(&result, cells);
        };
        cells.fetch_seconds.record(now.seconds_since(fetch.since));
        match result {
            Ok(chunk) => {
                cells.chunks_fetched.add(1);
                self.cache.insert(fetch.chunk, chunk, cells);
                self.swarm.handle_fetched(now, fetch_id);
            }
            Err(failure) => {
                cells.count_rejected(failure);
                self.blame(now, fetch.holder, failure);
                self.swarm.handle_fetch_failed(now, fetch_id, failure);
            }
        }
    }

    pub(crate) fn handle_manifest(
        &mut self,
        now: Time,
        peer: PeerSlot,
        result: Result<Arc<Manifest>, FetchFailure>,
        outbox: &mut Outbox,
    ) {
        if self.members.get(peer).is_none() {
            return;
        }
        match result {
            Ok(manifest) => {
                // A second holder's, asked since the first one took long, is nothing new to any peer.
                if self.manifest.is_none() {
                    self.manifest = Some(Arc::clone(&manifest));
                    for shard in self.members.shards() {
                        let (swarm, manifest) = (self.reference, Arc::clone(&manifest));
                        let told = PeerRequest::Manifest { swarm, manifest };
                        outbox.push_peer(shard, told);
                    }
                }
                self.swarm.handle_manifest(now, peer, Ok(()));
            }
            Err(failure) => {
                self.blame(now, peer, failure);
                self.swarm.handle_manifest(now, peer, Err(failure));
            }
        }
    }

    /// The lease of a cancelled fetch came back, or was gone already.
    pub(crate) fn handle_lease_back(
        &mut self,
        now: Time,
        lease: Option<Lease>,
        outbox: &mut Outbox,
    ) {
        let lease = lease.or_else(|| self.try_lease());
        match (self.pending.unleased.pop_front(), lease) {
            (Some((fetch_id, fetch)), Some(lease)) => {
                self.send_fetch(fetch_id, fetch, lease, outbox);
            }
            (Some(waiting), None) => self.pending.unleased.push_front(waiting),
            (None, _) => {}
        }
        self.handle_room_freed(now, outbox);
    }

    pub(crate) fn handle_recalled(&mut self, now: Time, chunk: u32, rest: &[(PeerSlot, u32)]) {
        if let Some(rest) = self.pending.handle_recalled(chunk, rest) {
            self.swarm.handle_recalled(now, chunk, &rest);
        }
    }

    /// Whether it stands in the budget's queue.
    pub(crate) fn is_waiting_for_room(&self) -> bool {
        self.room.waiter.is_waiting() && (self.room.is_wanted || !self.pending.unleased.is_empty())
    }

    /// Bytes may have come free: take them if it is this home's turn.
    pub(crate) fn handle_room_freed(&mut self, now: Time, outbox: &mut Outbox) {
        while let Some((fetch_id, fetch)) = self.pending.unleased.pop_front() {
            let Some(lease) = self.try_lease() else {
                self.pending.unleased.push_front((fetch_id, fetch));
                return;
            };
            self.send_fetch(fetch_id, fetch, lease, outbox);
        }
        if self.room.is_wanted
            && let Some(lease) = self.try_lease()
        {
            self.room.is_wanted = false;
            self.room.lease = Some(lease);
            self.swarm.handle_room(now);
        }
    }

    /// Another home waits for memory while this one is above its share: give up what is above.
    pub(crate) fn handle_pressure(&mut self, now: Time, share_bytes: usize) {
        let chunk_bytes = self.lease_bytes();
        // Only homes with work have a share: what an idle one keeps is a courtesy.
        let share_bytes = if self.swarm.wants_work() { share_bytes } else { 0 };
        let held = self.room.waiter.leased_bytes();
        if held > share_bytes {
            let chunks = (held - share_bytes).div_ceil(chunk_bytes);
            self.swarm.handle_pressure(now, u32::try_from(chunks).unwrap_or(u32::MAX));
        }
    }

    /// The home ends: no chunk of it is left, and what it counted is told.
    pub(crate) fn end(&mut self, cells: &ShardCells) {
        self.publish(cells);
        self.cache.remove_all(cells);
    }

    /// Adds what the swarm counted since the last time to the shard's cells.
    fn publish(&mut self, cells: &ShardCells) {
        let counters = self.swarm.counters();
        cells.cache_hits.add(counters.hits - self.published.hits);
        cells.cache_misses.add(counters.misses - self.published.misses);
        cells.hedges.add(counters.hedges - self.published.hedges);
        self.published = counters;
    }

    /// Carries out what the swarm decided, until it has nothing more to say.
    pub(crate) fn drive(&mut self, now: Time, outbox: &mut Outbox, cells: &ShardCells) {
        loop {
            self.handle_room_freed(now, outbox);
            let Some(action) = self.swarm.poll_action() else { break };
            self.perform(now, action, outbox, cells);
        }
        if !self.room.is_wanted && self.pending.unleased.is_empty() {
            // What it queued for was met otherwise, or is gone: no home may wait behind it.
            self.room.waiter.cancel();
        }
        self.flush_deliveries(outbox);
        debug_assert_eq!(self.cache.len(), self.swarm.cached_count() as usize);
        self.room.waiter.set_working(self.swarm.wants_work());
        self.publish(cells);
        self.is_dirty = false;
    }

    fn perform(&mut self, now: Time, action: Action, outbox: &mut Outbox, cells: &ShardCells) {
        match action {
            Action::WantRoom => self.room.is_wanted = true,
            Action::TryRoom => self.try_room(now),
            Action::ReleaseRoom => {
                self.room.is_wanted = false;
                self.room.lease = None;
                if self.pending.unleased.is_empty() {
                    self.room.waiter.cancel();
                }
            }
            Action::Fetch { fetch_id, chunk, holder } => {
                let fetch = OpenFetch { chunk, holder, since: now };
                match self.room.lease.take() {
                    Some(lease) => self.send_fetch(fetch_id, fetch, lease, outbox),
                    None => self.pending.unleased.push_back((fetch_id, fetch)),
                }
            }
            Action::CancelFetch { fetch_id, holder, keep_room } => {
                self.cancel_fetch(fetch_id, holder, keep_room, outbox);
            }
            Action::FetchManifest { holder } => {
                self.to_peer(holder, outbox, |to| PeerRequest::FetchManifest { to });
            }
            Action::Deliver { chunk, peer, offset } => {
                if let Some(ConnectionRef { shard, index, generation }) = self.connection(peer) {
                    let target = Target { index, generation, offset };
                    self.cache.pass_on(chunk, cells);
                    self.deliveries.entry((chunk, shard)).or_default().push(target);
                }
            }
            Action::Evict { chunk } => {
                self.flush_deliveries(outbox);
                cells.cache_evictions.add(1);
                self.cache.remove(chunk, cells);
            }
            Action::CutOff { chunk, peer, has_it } => {
                self.flush_deliveries(outbox); // It is about one of those.
                self.to_peer(peer, outbox, |to| PeerRequest::CutOff { to, chunk, has_it });
            }
            Action::Recall { chunk } => self.recall(now, chunk, outbox),
            other => self.perform_telling(&other, outbox, cells),
        }
    }

    /// Leases a chunk's bytes if that takes no waiting.
    fn try_room(&mut self, now: Time) {
        // Fetches without a lease come first.
        if self.pending.unleased.is_empty() && !self.room.waiter.others_wait() {
            debug_assert!(self.room.lease.is_none(), "a swarm that has room tries for none");
            self.room.lease = self.try_lease();
            if self.room.lease.is_none() {
                self.room.waiter.cancel();
            }
        }
        self.swarm.handle_room_tried(now, self.room.lease.is_some());
    }

    fn cancel_fetch(
        &mut self,
        fetch_id: FetchId,
        holder: PeerSlot,
        keep_room: bool,
        outbox: &mut Outbox,
    ) {
        let swarm = self.reference;
        if self.pending.fetches.remove(&fetch_id).is_some() {
            self.to_peer(holder, outbox, |to| PeerRequest::CancelFetch {
                to,
                swarm,
                fetch_id,
                lease_back: keep_room,
            });
        } else {
            // It never went out: its lease had not come.
            self.pending.unleased.retain(|&(id, _)| id != fetch_id);
        }
    }

    fn recall(&mut self, now: Time, chunk: u32, outbox: &mut Outbox) {
        self.flush_deliveries(outbox);
        let shards: Vec<ShardId> = self.members.shards().collect();
        if shards.is_empty() {
            self.swarm.handle_recalled(now, chunk, &[]);
            return;
        }
        self.pending.recall(chunk, shards.len());
        for shard in shards {
            let recall = PeerRequest::Recall { swarm: self.reference, chunk };
            outbox.push_peer(shard, recall);
        }
    }

    fn flush_deliveries(&mut self, outbox: &mut Outbox) {
        let swarm = self.reference;
        while let Some(((index, shard), targets)) = self.deliveries.pop_first() {
            let Some(FetchedChunk { bytes, crcs }) = self.cache.get(index).cloned() else {
                debug_assert!(false, "deliveries are flushed before their chunk is evicted");
                continue;
            };
            let chunk = CachedChunk { index, bytes, crcs };
            outbox.push_peer(shard, PeerRequest::Deliver { swarm, chunk, targets });
        }
    }

    fn send_fetch(
        &mut self,
        fetch_id: FetchId,
        fetch: OpenFetch,
        lease: Lease,
        outbox: &mut Outbox,
    ) {
        let manifest = self.manifest.clone().expect("nothing is fetched before the manifest");
        let chunk = fetch.chunk;
        let is_to_be_lent = is_worth_it(&self.key, chunk, self.swarm.takers(chunk));
        let order = FetchOrder { fetch_id, chunk, manifest, lease, is_to_be_lent };
        self.pending.fetches.insert(fetch_id, fetch);
        self.to_peer(fetch.holder, outbox, |to| PeerRequest::Fetch { to, fetch: order });
    }

    /// Whether memory is out for it, on whatever shard.
    pub(crate) fn holds_memory(&self) -> bool {
        self.room.waiter.leased_bytes() > 0
    }

    /// Bytes that one chunk is leased: a file smaller than a chunk needs only its own.
    fn lease_bytes(&self) -> usize {
        let bytes = self.key.size_bytes.min(u64::from(self.key.chunk_size_bytes()));
        let bytes = usize::try_from(bytes.max(1)).expect("a chunk fits in memory");
        if !self.room.lends {
            return bytes;
        }
        lending::lease_bytes(bytes, self.swarm.peer_count(), self.room.waiter.budget())
    }

    fn try_lease(&mut self) -> Option<Lease> {
        let bytes = self.lease_bytes();
        self.room.waiter.try_lease(bytes)
    }

    fn blame(&mut self, now: Time, peer: PeerSlot, failure: FetchFailure) {
        if failure == FetchFailure::Lied {
            self.members.note_lie(now, peer);
        }
    }
}

#[cfg(test)]
mod tests;
