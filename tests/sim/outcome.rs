//! What came of a run, and whether every peer got what could be had.

use relay::swarm::Counters;

use super::{
    peer::{SimPeer, Vice},
    world::World,
};

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Per peer: seconds from joining to completion, over bytes / own rate.
    pub stretch: Vec<Option<f64>>,
    /// Fetched bytes over file bytes, per home.
    pub ingress: Vec<f64>,
    pub counters: Vec<Counters>,
    pub events: u64,
    pub peak_chunks: f64,
    /// When the last honest peer completed.
    pub done_at: u64,
    pub seeding_done_at: Vec<Option<u64>>,
    /// Bytes fetched up to the end of seeding.
    pub seeding_ingress: Vec<f64>,
    /// Of all that was decided, in its order.
    pub digest: u64,
}

impl World {
    fn wants_to_finish(&self, peer: &SimPeer) -> bool {
        let able = !peer.dead
            && !peer.stopped
            && !matches!(peer.plan.vice, Vice::Dies(_) | Vice::Stops(_));
        able && !peer.is_liar() && !peer.given_up
    }

    pub(super) fn all_done(&self) -> bool {
        self.peers.iter().all(|peer| {
            !self.wants_to_finish(peer)
                || peer.have.is_full() && (!peer.plan.leaves || peer.slot.is_none())
        })
    }

    /// Every peer that can finish has finished; one that can't was told so.
    pub(crate) fn assert_progress(&self) {
        for (index, peer) in self.peers.iter().enumerate() {
            if !self.wants_to_finish(peer) && !peer.given_up || peer.have.is_full() {
                continue;
            }
            let missing =
                peer.have.iter_missing().find(|&chunk| !self.is_held(peer.plan.home, chunk));
            assert!(
                missing.is_some(),
                "peer {index} lacks {} chunks that others hold: {peer:?}\n{}",
                peer.have.len() - peer.have.count(),
                self.describe(peer.plan.home),
            );
            assert!(
                peer.given_up,
                "peer {index} waits in vain for {missing:?} and was not told: {}",
                self.describe(peer.plan.home)
            );
        }
    }

    fn describe(&self, home: usize) -> String {
        let peers = self.peers.iter().filter(|peer| peer.plan.home == home).map(|peer| {
            let (slot, have, vice) = (peer.slot, peer.have.count(), peer.plan.vice);
            format!(
                "{slot:?} has {have} vice {vice:?} order {:?} given up {}\n",
                peer.plan.order, peer.given_up
            )
        });
        let swarm = &self.homes[home].swarm;
        let views = swarm.peers().map(|view| format!("{view:?}\n"));
        format!(
            "\n{}{}seeding {} manifest {} cached {} fetching {} now {} done {:?}",
            peers.collect::<String>(),
            views.collect::<String>(),
            swarm.is_seeding(),
            swarm.has_manifest(),
            swarm.cached_count(),
            swarm.fetch_count(),
            self.now,
            swarm.poll_timeout()
        )
    }

    fn digest(&self) -> u64 {
        let mut digest = self.digest;
        for home in &self.homes {
            let (counters, status) = (home.swarm.counters(), home.swarm.status());
            digest.add(&[counters.deliveries, counters.hits, counters.misses, counters.fetches]);
            digest.add(&[counters.hedges, counters.evictions, counters.purchases, counters.bans]);
            digest.add(&[status.chunks_handed_out.into(), status.copies.into()]);
        }
        digest.end()
    }

    fn is_held(&self, home: usize, chunk: u32) -> bool {
        self.peers.iter().any(|peer| {
            let honest = matches!(peer.plan.vice, Vice::None) && peer.slot.is_some();
            honest && peer.plan.home == home && peer.have.contains(chunk)
        })
    }

    pub(super) fn outcome(&self) -> Outcome {
        let stretch = |peer: &SimPeer| {
            let size = self.plan.homes[peer.plan.home].size_bytes as f64;
            let lacked =
                1.0 - f64::from(peer.plan.claims.count()) / f64::from(peer.have.len().max(1));
            let ideal = size * lacked / peer.plan.down_rate;
            let took = peer.finished_at? - peer.plan.joins_at;
            (lacked > 0.0).then(|| took as f64 / 1e9 / ideal)
        };
        let amount =
            |bytes: u64, home: usize| bytes as f64 / self.plan.homes[home].size_bytes as f64;
        Outcome {
            stretch: self.peers.iter().map(stretch).collect(),
            ingress: (0..self.homes.len())
                .map(|h| amount(self.homes[h].fetched_bytes, h))
                .collect(),
            counters: self.homes.iter().map(|home| home.swarm.counters()).collect(),
            events: self.count,
            peak_chunks: self.budget.peak() as f64 / f64::from(self.plan.chunk_size),
            done_at: self.peers.iter().filter_map(|peer| peer.finished_at).max().unwrap_or(0),
            seeding_done_at: self.homes.iter().map(|home| home.seeding_done_at).collect(),
            seeding_ingress: (0..self.homes.len())
                .map(|h| amount(self.homes[h].seeding_bytes, h))
                .collect(),
            digest: self.digest(),
        }
    }
}
