//! How peers come to a home, and go.

use std::sync::Arc;

use super::departures::{Departure, Ending, Endings};
use super::{Home, members::Member};
use crate::{
    message::{ConnectionRef, JoinRequest, PeerRequest},
    observe::map_row::{push_row, stride_of},
    shard::outbox::Outbox,
    uplinks::Presence,
};
use relay_protocol::time::Time;
use relay_swarm::{Join, PeerSlot};

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
        let JoinRequest { from, remote, claims, order, seeding, uplink, .. } = join;
        let is_suspect = self.members.is_suspect(now, remote.ip());
        let (is_origin, chunks_claimed) = (seeding.is_some(), claims.count());
        let is_uplink = uplink.is_some();
        let join = Join { claims, order, seeding, is_suspect, is_uplink };
        let peer = self.swarm.handle_join(now, join);
        let member = Member {
            connection: from,
            remote,
            is_origin,
            chunks_claimed,
            chunks_held: chunks_claimed,
            ending: None,
        };
        self.members.insert(peer, member);
        if let Some(below) = uplink {
            self.members.note_below(peer, below);
        }
        let (swarm, manifest) = (self.reference, self.manifest.clone());
        outbox.push_peer(from.shard, PeerRequest::Joined { to: from, swarm, peer, manifest });
    }

    /// The peer's connection has ended; what is remembered of it, except for its number.
    pub(crate) fn handle_gone(&mut self, now: Time, peer: PeerSlot) -> Option<Departure> {
        self.note_held(peer);
        let bits = self.row_of(peer);
        let member = self.members.remove(peer)?;
        self.pending.forget(peer);
        self.swarm.handle_gone(now, peer);
        let is_whole = member.chunks_held == self.key.chunk_count();
        let ending = member.ending.unwrap_or(if is_whole { Ending::Left } else { Ending::Dead });
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
            bits,
            at: now,
            so_far: self.members.count_ending(ending, member.is_origin),
        })
    }

    /// Which peers there are for this relay's uplink, if that is another answer than the last time.
    pub(crate) fn poll_presence(&mut self) -> Option<Presence> {
        self.members.poll_presence()
    }

    /// The peer's row of the map, if it has a part of the file; none once the swarm has let it go.
    fn row_of(&self, peer: PeerSlot) -> Option<Arc<[u8]>> {
        let have = self.swarm.have(peer).filter(|have| !have.is_full())?;
        let mut bits = Vec::new();
        push_row(&mut bits, have, stride_of(have.len()));
        Some(bits.into())
    }

    /// Keeps in mind how much the peer has, as long as the swarm knows it.
    pub(super) fn note_held(&mut self, peer: PeerSlot) {
        if let Some(held) = self.swarm.chunks_held(peer) {
            self.members.note_held(peer, held);
        }
    }

    /// For onlookers, while the peer is there.
    pub(crate) fn watch_member(&self, peer: PeerSlot) -> Option<MemberWatch> {
        let member = self.members.get(peer)?;
        Some(MemberWatch {
            connection: member.connection,
            chunks_claimed: member.chunks_claimed,
            chunks_held: self.swarm.chunks_held(peer).unwrap_or(member.chunks_held),
            has_said_farewell: member.ending == Some(Ending::Left),
        })
    }

    /// How many have gone, and how.
    pub(crate) fn endings(&self) -> Endings {
        self.members.endings()
    }
}
