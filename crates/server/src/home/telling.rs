//! What a home says to peers: that they may go, wait, or have to end; and the way to them.

use super::Home;
use crate::{
    message::{ConnectionRef, PeerRequest},
    observe::cells::ShardCells,
    shard::outbox::Outbox,
};
use relay_protocol::{Failure, FailureCode, Message, limits::HAVE_RANGES_MAX};
use relay_swarm::{Action, PeerSlot};

impl Home {
    /// Carries out an action that only says something.
    pub(super) fn perform_telling(&self, action: &Action, outbox: &mut Outbox, cells: &ShardCells) {
        match *action {
            Action::Ban { peer } => {
                cells.peers_banned.add(1);
                self.close(peer, FailureCode::Banned, "it supplied wrong bytes", outbox);
            }
            Action::SeedingDone { origin } => self.tell(origin, Message::SeedingDone, outbox),
            Action::LeaveGranted { peer } => self.tell(peer, Message::LeaveGranted, outbox),
            Action::Waiting { peer, missing_count, first_missing, deadline } => {
                let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
                let waiting = Message::Waiting { missing_count, first_missing, deadline_ms };
                self.tell(peer, waiting, outbox);
            }
            Action::Available { peer, ref ranges, held } => {
                for ranges in ranges.chunks(HAVE_RANGES_MAX) {
                    let available = Message::Available { ranges: ranges.to_vec(), held };
                    self.tell(peer, available, outbox);
                }
            }
            Action::GiveUp { peer, missing_count, is_given_up: true } => {
                let text = format!(
                    "the file's origin has given it up, because it changed there or can't be read \
                     any more, and nobody else who is connected holds {missing_count} of the \
                     chunks: ask for a new ticket"
                );
                self.close(peer, FailureCode::SwarmRefused, &text, outbox);
            }
            Action::GiveUp { peer, missing_count, is_given_up: false } => {
                let text = format!(
                    "nobody who is connected holds {missing_count} of the chunks: start a peer \
                     that has the file, then try again"
                );
                self.close(peer, FailureCode::ChunksMissing, &text, outbox);
            }
            _ => unreachable!("the others move chunks"),
        }
    }

    pub(super) fn tell(&self, peer: PeerSlot, message: Message, outbox: &mut Outbox) {
        self.to_peer(peer, outbox, |to| PeerRequest::Tell { to, message });
    }

    fn close(&self, peer: PeerSlot, code: FailureCode, text: &str, outbox: &mut Outbox) {
        let failure = Failure { code, text: text.to_owned() };
        self.to_peer(peer, outbox, |to| PeerRequest::Close { to, failure });
    }

    /// The peer's connection, while it is there.
    pub(crate) fn connection(&self, peer: PeerSlot) -> Option<ConnectionRef> {
        self.members.get(peer).map(|member| member.connection)
    }

    pub(super) fn to_peer(
        &self,
        peer: PeerSlot,
        outbox: &mut Outbox,
        request: impl FnOnce(ConnectionRef) -> PeerRequest,
    ) {
        if let Some(to) = self.connection(peer) {
            outbox.push_peer(to.shard, request(to));
        }
    }
}
