//! The peers of a swarm as their home knows them: where each is, how much of the file it has, how it goes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use shards::ShardId;

use super::{
    blame::Blame,
    departures::{Ending, Endings},
};
use crate::{message::ConnectionRef, uplinks::Presence};
use relay_protocol::time::Time;
use relay_swarm::PeerSlot;

/// One peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) connection: ConnectionRef,
    pub(super) remote: SocketAddr,
    pub(super) is_origin: bool,
    /// Chunks that it had when it came, and has now. The swarm forgets them when it lets a peer go,
    /// which is before the peer has gone.
    pub(super) chunks_claimed: u32,
    pub(super) chunks_held: u32,
    /// What has been decided about its end.
    pub(super) ending: Option<Ending>,
}

/// All of them, by their places in the swarm, and those that went.
#[derive(Debug)]
pub(super) struct Members {
    peers: Vec<Option<Member>>,
    on_shard: Vec<u32>,
    /// The ends of uplinks among them, and which relays each stands for. The one of this relay's own uplink stands for
    /// none.
    uplinks: BTreeMap<PeerSlot, Arc<[u64]>>,
    /// What was last told of them to what runs this relay's uplinks.
    told: Presence,
    endings: Endings,
    blame: Blame,
}

impl Members {
    pub(super) fn new(shard_count: usize) -> Self {
        Self {
            peers: Vec::new(),
            on_shard: vec![0; shard_count],
            uplinks: BTreeMap::new(),
            told: Presence::Nobody,
            endings: Endings::default(),
            blame: Blame::default(),
        }
    }

    /// Whether peers from there are asked only where no other can be.
    pub(super) fn is_suspect(&mut self, now: Time, address: IpAddr) -> bool {
        self.blame.is_blamed(now, address)
    }

    pub(super) fn insert(&mut self, peer: PeerSlot, member: Member) {
        let index = peer.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize(index + 1, None);
        }
        self.on_shard[member.connection.shard.index()] += 1;
        self.peers[index] = Some(member);
    }

    pub(super) fn get(&self, peer: PeerSlot) -> Option<&Member> {
        self.peers.get(peer.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, peer: PeerSlot) -> Option<&mut Member> {
        self.peers.get_mut(peer.0 as usize)?.as_mut()
    }

    /// The peer has gone.
    pub(super) fn remove(&mut self, peer: PeerSlot) -> Option<Member> {
        let member = self.peers.get_mut(peer.0 as usize)?.take()?;
        self.on_shard[member.connection.shard.index()] -= 1;
        self.uplinks.remove(&peer);
        Some(member)
    }

    /// Shards that peers of the swarm are connected to.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0u16..).map(ShardId).zip(&self.on_shard).filter(|&(_, &n)| n > 0).map(|(id, _)| id)
    }

    /// The peer is an end of an uplink, and stands for these relays.
    pub(super) fn note_below(&mut self, peer: PeerSlot, below: Arc<[u64]>) {
        self.uplinks.insert(peer, below);
    }

    /// Which peers there are for this relay's uplink, if that is another answer than the last time.
    pub(super) fn poll_presence(&mut self) -> Option<Presence> {
        let own = self.uplinks.values().filter(|below| below.is_empty()).count();
        let others = self.on_shard.iter().sum::<u32>() as usize - own;
        let presence = if others == 0 {
            Presence::Nobody
        } else {
            let ids = self.uplinks.values().flat_map(|below| below.iter().copied());
            let mut below: Vec<u64> = ids.collect();
            below.sort_unstable();
            below.dedup();
            Presence::Peers { below }
        };
        let is_news = presence != self.told;
        is_news.then(|| {
            self.told.clone_from(&presence);
            presence
        })
    }

    /// Keeps in mind how much the peer has.
    pub(super) fn note_held(&mut self, peer: PeerSlot, chunks_held: u32) {
        if let Some(member) = self.get_mut(peer) {
            member.chunks_held = chunks_held;
        }
    }

    /// How the peer ends is decided before it does. One that lied is not taken for one that left.
    pub(super) fn note_ending(&mut self, peer: PeerSlot, ending: Ending) {
        if let Some(member) = self.get_mut(peer)
            && member.ending != Some(Ending::Banned)
        {
            member.ending = Some(ending);
        }
    }

    /// A lie is remembered of where it came from, too: the liar may come back.
    pub(super) fn note_lie(&mut self, now: Time, peer: PeerSlot) {
        if let Some(remote) = self.get(peer).map(|member| member.remote) {
            self.blame.note(now, remote.ip());
            self.note_ending(peer, Ending::Banned);
        }
    }

    /// One more has gone; how many have, and how.
    pub(super) fn count_ending(&mut self, ending: Ending, is_origin: bool) -> Endings {
        self.endings.count(ending, is_origin);
        self.endings
    }

    /// How many have gone, and how.
    pub(super) fn endings(&self) -> Endings {
        self.endings
    }

    /// The place of a connection's peer.
    #[cfg(test)]
    pub(super) fn slot_of(&self, index: u32) -> Option<PeerSlot> {
        let is_it = |member: &Option<Member>| member.is_some_and(|it| it.connection.index == index);
        let at = self.peers.iter().position(is_it)?;
        u32::try_from(at).ok().map(PeerSlot)
    }
}
