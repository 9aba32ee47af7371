//! Who comes to a swarm, how much of the file each has, and how it goes.

use std::net::SocketAddr;

use super::Home;
use crate::{
    departures::{Departure, Ending, Endings},
    message::{ConnectionRef, JoinRequest, PeerRequest},
    shard::outbox::Outbox,
};
use relay_protocol::time::Time;
use relay_swarm::{Join, PeerSlot};

/// A peer of a swarm, as its home knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(super) connection: ConnectionRef,
    pub(super) remote: SocketAddr,
    is_origin: bool,
    /// Chunks that it had when it came, and has now. The swarm forgets them when it lets a peer go,
    /// which is before the peer has gone.
    chunks_claimed: u32,
    chunks_held: u32,
    /// What has been decided about its end.
    ending: Option<Ending>,
}

/// What an onlooker is told of a member beside what the swarm knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberWatch {
    pub connection: ConnectionRef,
    pub chunks_claimed: u32,
    pub chunks_held: u32,
    pub has_said_farewell: bool,
}

impl Home {
    pub(crate) fn handle_join(&mut self, now: Time, join: JoinRequest, outbox: &mut Outbox) {
        let JoinRequest { from, remote, claims, order, seeding, .. } = join;
        let is_suspect = self.blame.is_blamed(now, remote.ip());
        let (is_origin, chunks_claimed) = (seeding.is_some(), claims.count());
        let peer = self.swarm.handle_join(now, Join { claims, order, seeding, is_suspect });
        let index = peer.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize(index + 1, None);
        }
        self.peers[index] = Some(Member {
            connection: from,
            remote,
            is_origin,
            chunks_claimed,
            chunks_held: chunks_claimed,
            ending: None,
        });
        self.peers_on_shard[from.shard.index()] += 1;
        let (swarm, manifest) = (self.reference, self.manifest.clone());
        let joined = PeerRequest::Joined { to: from, swarm, peer, manifest };
        outbox.push_peer(from.shard, joined);
    }

    /// The peer's connection has ended; what is remembered of it, except for its number.
    pub(crate) fn handle_gone(&mut self, now: Time, peer: PeerSlot) -> Option<Departure> {
        self.note_held(peer);
        let member = self.peers[peer.0 as usize].take()?;
        self.peers_on_shard[member.connection.shard.index()] -= 1;
        self.fetches.retain(|_, fetch| fetch.holder != peer);
        self.unleased.retain(|(_, fetch)| fetch.holder != peer);
        // Its place may be another's before all shards have answered.
        for recall in self.recalls.values_mut() {
            recall.rest.retain(|&(slot, _)| slot != peer);
        }
        self.swarm.handle_gone(now, peer);
        let is_whole = member.chunks_held == self.key.chunk_count();
        let ending = member.ending.unwrap_or(if is_whole { Ending::Left } else { Ending::Dead });
        self.endings.count(ending, member.is_origin);
        Some(Departure {
            number: 0,
            swarm: self.reference,
            key: self.key,
            connection: member.connection,
            remote: member.remote,
            ending,
            is_origin: member.is_origin,
            chunks_claimed: member.chunks_claimed,
            chunks_held: member.chunks_held,
            at: now,
            so_far: self.endings,
        })
    }

    /// Keeps in mind how much the peer has, as long as the swarm knows it.
    pub(super) fn note_held(&mut self, peer: PeerSlot) {
        if let Some(held) = self.swarm.chunks_held(peer)
            && let Some(Some(member)) = self.peers.get_mut(peer.0 as usize)
        {
            member.chunks_held = held;
        }
    }

    /// How the peer ends is decided before it does. Who lied is not taken for one that left.
    pub(super) fn note_ending(&mut self, peer: PeerSlot, ending: Ending) {
        if let Some(Some(member)) = self.peers.get_mut(peer.0 as usize)
            && member.ending != Some(Ending::Banned)
        {
            member.ending = Some(ending);
        }
    }

    /// For onlookers, while the peer is there.
    pub(crate) fn watch_member(&self, peer: PeerSlot) -> Option<MemberWatch> {
        let member = self.peers.get(peer.0 as usize)?.as_ref()?;
        Some(MemberWatch {
            connection: member.connection,
            chunks_claimed: member.chunks_claimed,
            chunks_held: self.swarm.chunks_held(peer).unwrap_or(member.chunks_held),
            has_said_farewell: member.ending == Some(Ending::Left),
        })
    }

    /// How many have gone, and how.
    pub(crate) fn endings(&self) -> Endings {
        self.endings
    }
}
