//! Counts everything anew and compares: what the modules' documentation states as formulas.

use super::{
    Swarm,
    chunks::Place,
    peers::{Stage, Standing},
};
use relay_protocol::Order;

impl Swarm {
    /// Checks every invariant of the swarm; for tests, as it takes time like peers x chunks.
    ///
    /// # Panics
    /// If one doesn't hold.
    pub fn invariants(&self) {
        self.chunks.fetchable.invariants();
        self.chunks.cached.invariants();
        let cached = |chunk| self.chunks.get(chunk).place == Place::Cached;
        self.log.invariants(|chunk| cached(chunk).then(|| self.chunks.get(chunk).sequence));
        assert_eq!(self.log.live(), self.chunks.cached.len() as usize);
        (0..self.chunks.count()).for_each(|chunk| self.chunk_invariants(chunk));
        self.peer_invariants();
        self.fetch_invariants();
        self.seeding_invariants();
    }

    fn chunk_invariants(&self, chunk: u32) {
        let state = self.chunks.get(chunk);
        let (mut holders, mut wanted, mut needers, mut unwritten) = (0, 0, 0, 0);
        let (mut keen, mut keen_unwritten) = (0, 0);
        for (_, peer) in self.peers.iter() {
            let pinned = peer
                .deliveries
                .iter()
                .filter(|delivery| delivery.chunk == chunk && delivery.stage < Stage::Written)
                .count();
            let pinned = u32::try_from(pinned).expect("at most one");
            assert!(pinned <= 1, "two deliveries of one chunk to one peer");
            holders += u32::from(peer.is_holder() && peer.have.contains(chunk));
            wanted += u32::from(peer.counted && peer.lacks(chunk));
            needers += u32::from(peer.counted) * (u32::from(peer.lacks(chunk)) + pinned);
            let asks = u32::from(peer.lacks(chunk) && peer.asks_for(chunk));
            keen += u32::from(peer.is_keen()) * (asks + pinned);
            keen_unwritten += u32::from(peer.is_keen()) * pinned;
            unwritten += pinned;
        }
        let counted = (state.holders, state.wanted, state.needers, state.unwritten);
        assert_eq!(counted, (holders, wanted, needers, unwritten), "chunk {chunk}");
        let counted = (state.keen, state.keen_unwritten);
        assert_eq!(counted, (keen, keen_unwritten), "chunk {chunk}");
        let fetchable = state.place == Place::Absent && holders > 0 && wanted > 0;
        assert_eq!(self.chunks.fetchable.key(chunk), fetchable.then_some(wanted));
        let cached = state.place == Place::Cached;
        assert_eq!(self.chunks.cached.key(chunk), cached.then(|| state.rank()));
        assert_eq!(self.chunks.sole_bits.contains(chunk), holders == 1);
        assert!(state.place != Place::Draining || unwritten > 0, "chunk {chunk} drained");
        assert!(unwritten == 0 || matches!(state.place, Place::Cached | Place::Draining));
        assert!(!state.protected || cached && unwritten > 0);
    }

    fn peer_invariants(&self) {
        let (mut loses, mut pace) = (0, (0, 0));
        for (slot, peer) in self.peers.iter() {
            peer.wants.invariants();
            for chunk in peer.have.iter() {
                assert!(peer.settled.contains(chunk), "{slot:?} has {chunk} and lacks it");
            }
            for delivery in &peer.deliveries {
                assert!(peer.settled.contains(delivery.chunk));
                assert!(!peer.have.contains(delivery.chunk));
            }
            assert!(peer.standing == Standing::Joined || !peer.counted);
            let starving = peer.is_hungry() && !self.seeding.holds_back();
            assert_eq!(peer.starving.is_some(), starving, "{slot:?}");
            assert!(!starving || peer.counted, "{slot:?} starves and doesn't count");
            let under_way = peer.deliveries.iter().map(|it| u64::from(it.length_bytes));
            assert_eq!(peer.under_way_bytes, under_way.sum::<u64>());
            if let Some(starved) = peer.starving {
                assert_eq!(self.starving.peers[starved.at as usize], slot);
                loses += starved.loses;
                pace.0 += starved.rate;
                pace.1 += u32::from(starved.rate > 0);
                let missed = self.log.find(0, |chunk| match peer.order {
                    Order::Relay => peer.lacks(chunk),
                    Order::Peer => peer.wants.contains(chunk),
                });
                assert_eq!(missed, None, "{slot:?} starves beside a cached chunk");
            }
        }
        assert_eq!(loses, self.rent.rate());
        assert_eq!(pace, self.pace.totals());
        assert_eq!(
            self.starving.peers.len(),
            self.peers.iter().filter(|(_, p)| p.starving.is_some()).count()
        );
    }

    fn fetch_invariants(&self) {
        let mut per_chunk = std::collections::BTreeMap::<u32, u32>::new();
        let mut per_peer = std::collections::BTreeMap::<_, u32>::new();
        for (id, fetch) in &self.fetches {
            *per_chunk.entry(fetch.chunk).or_default() += 1;
            *per_peer.entry(fetch.holder).or_default() += 1;
            assert_eq!(self.chunks.get(fetch.chunk).place, Place::Fetching);
            if let Some(rival) = fetch.rival {
                assert_eq!(self.fetches[&rival].rival, Some(*id));
                assert_eq!(self.fetches[&rival].chunk, fetch.chunk);
            }
        }
        for (&chunk, &fetches) in &per_chunk {
            assert!(fetches <= 2, "{fetches} fetches of chunk {chunk}");
        }
        let fetching = (0..self.chunks.count())
            .filter(|&chunk| self.chunks.get(chunk).place == Place::Fetching)
            .count();
        assert_eq!(fetching, per_chunk.len());
        for (slot, peer) in self.peers.iter() {
            assert_eq!(peer.fetches, per_peer.get(&slot).copied().unwrap_or(0));
            let idle = peer.fetches == 0 && peer.is_holder() && peer.have.count() > 0;
            assert_eq!(peer.idle.is_some(), idle, "{slot:?}");
        }
        let overdue = self.fetches.values().filter(|fetch| fetch.overdue).count();
        assert_eq!(overdue, self.fetch_queue.overdue as usize);
        let hedges = &self.fetch_queue.hedges;
        assert!(
            hedges.iter().all(|id| self.fetches[id].overdue && self.fetches[id].rival.is_none())
        );
        let on_trial = self.fetches.values().filter(|fetch| fetch.on_trial).count();
        assert_eq!(on_trial, self.fetch_queue.on_trial as usize);
        for id in self.fetches.keys() {
            assert!(
                self.fetch_queue.due.iter().any(|(_, due)| due == id),
                "{id:?} never comes due"
            );
        }
    }
}
