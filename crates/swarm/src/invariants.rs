//! Counts everything anew and compares: what the modules' documentation states as formulas.

use relay_protocol::Order;

use crate::{
    Swarm,
    book::{Book, chunks::Place},
};

impl Swarm {
    /// Checks every invariant of the swarm; for tests, as it takes time like peers x chunks.
    ///
    /// # Panics
    /// If one doesn't hold.
    pub fn invariants(&self) {
        self.desk.book.invariants();
        self.late.invariants(&self.desk.book);
        self.seed.invariants(&self.desk.book);
        self.leave.invariants(&self.desk.book);
        self.uplinks.invariants(&self.desk.book);
    }
}

impl Book {
    fn invariants(&self) {
        self.chunks().fetchable.invariants();
        self.chunks().cached.invariants();
        self.log().invariants(|chunk| self.chunk(chunk).cached().map(|cached| cached.sequence));
        assert_eq!(self.log().live(), self.chunks().cached.len() as usize);
        (0..self.chunks().count()).for_each(|chunk| self.chunk_invariants(chunk));
        self.peer_invariants();
        self.starving_invariants();
        self.fetch_invariants();
    }

    fn chunk_invariants(&self, chunk: u32) {
        let state = self.chunk(chunk);
        let (mut holders, mut wanted, mut needers, mut unwritten) = (0, 0, 0, 0);
        let (mut keen, mut keen_unwritten) = (0, 0);
        for (_, peer) in self.peers().iter() {
            let pinned = peer.intake.unwritten().filter(|delivery| delivery.chunk == chunk).count();
            let pinned = u32::try_from(pinned).expect("at most one");
            assert!(pinned <= 1, "two deliveries of one chunk to one peer");
            holders += u32::from(peer.is_holder() && peer.have.contains(chunk));
            wanted += u32::from(peer.is_counted() && peer.lacks(chunk));
            needers += u32::from(peer.is_counted()) * (u32::from(peer.lacks(chunk)) + pinned);
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
        assert_eq!(self.chunks().fetchable.key(chunk), fetchable.then_some(wanted));
        let cached = state.is_cached();
        assert_eq!(self.chunks().cached.key(chunk), cached.then(|| state.rank()));
        assert_eq!(self.chunks().sole_bits.contains(chunk), holders == 1);
        assert!(!state.is_draining() || unwritten > 0, "chunk {chunk} drained");
        assert!(unwritten == 0 || cached || state.is_draining());
        assert!(!state.is_protected() || unwritten > 0);
    }

    fn peer_invariants(&self) {
        for (slot, peer) in self.peers().iter() {
            peer.wants.invariants();
            peer.intake.invariants();
            for chunk in peer.have.iter() {
                assert!(peer.settled.contains(chunk), "{slot:?} has {chunk} and lacks it");
            }
            for delivery in &peer.intake.deliveries {
                assert!(peer.settled.contains(delivery.chunk));
                assert!(!peer.have.contains(delivery.chunk));
            }
            let idle = peer.supply.fetches == 0 && peer.is_holder() && peer.have.count() > 0;
            assert_eq!(peer.supply.idle.is_some(), idle, "{slot:?}");
            if let Some(at) = peer.supply.idle {
                assert_eq!(self.idle_holders()[at as usize], slot);
            }
        }
    }

    fn starving_invariants(&self) {
        let (mut loses, mut pace, mut count) = (0, (0, 0), 0);
        for (slot, peer) in self.peers().iter() {
            let starving = peer.is_hungry() && !self.holds_back();
            assert_eq!(peer.starving.is_some(), starving, "{slot:?}");
            assert!(!starving || peer.is_counted(), "{slot:?} starves and doesn't count");
            let Some(starved) = peer.starving else { continue };
            assert_eq!(self.starving().peers()[starved.at as usize], slot);
            loses += starved.loses;
            pace.0 += starved.rate;
            pace.1 += u32::from(starved.rate > 0);
            count += 1;
            let missed = self.log().find(0, |chunk| match peer.terms.order {
                Order::Relay => peer.lacks(chunk),
                Order::Peer => peer.wants.contains(chunk),
            });
            assert_eq!(missed, None, "{slot:?} starves beside a cached chunk");
        }
        assert_eq!(loses, self.starving().loses());
        assert_eq!(pace, self.starving().pace().totals());
        assert_eq!(self.starving().peers().len(), count);
    }

    fn fetch_invariants(&self) {
        self.fetches().invariants();
        let mut per_chunk = std::collections::BTreeMap::<u32, u32>::new();
        let mut per_peer = std::collections::BTreeMap::<_, u32>::new();
        for (_, fetch) in self.fetches().iter() {
            *per_chunk.entry(fetch.chunk).or_default() += 1;
            *per_peer.entry(fetch.holder).or_default() += 1;
            assert_eq!(self.chunk(fetch.chunk).place, Place::Fetching);
        }
        for (&chunk, &fetches) in &per_chunk {
            assert!(fetches <= 2, "{fetches} fetches of chunk {chunk}");
        }
        let is_fetching = |&chunk: &u32| self.chunk(chunk).place == Place::Fetching;
        let fetching = (0..self.chunks().count()).filter(is_fetching).count();
        assert_eq!(fetching, per_chunk.len());
        for (slot, peer) in self.peers().iter() {
            assert_eq!(peer.supply.fetches, per_peer.get(&slot).copied().unwrap_or(0));
        }
    }
}
