//! What home shards ask of this shard's connections: join answers, fetches, deliveries, recalls.

use std::rc::Rc;

use super::{
    desk::{Desk, now},
    guests::Guests,
    payloads::Payloads,
    ready::Ready,
};
use crate::{
    connection::{closing::close, follow_up::follow_up, udp_in},
    message::{CachedChunk, ConnectionRef, HomeRequest, NewsItem, PeerRequest, SwarmRef, Target},
    session::Session,
};
use relay_protocol::Message;

/// Does a home's bidding.
pub(super) fn handle(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    payloads: &mut Payloads,
    request: PeerRequest,
) {
    match request {
        PeerRequest::Joined { to, swarm, peer, manifest } => {
            let joined = guests.of(to).filter(|it| it.link().membership.join(swarm, peer));
            let Some(connection) = joined else {
                // It went while its join was under way.
                ready.outbox.push_home(swarm.home, HomeRequest::Gone { swarm, peer });
                return;
            };
            let number = u64::from(to.index) << 16 | u64::from(to.shard.0);
            connection.link().session.handle_joined_swarm(now(), number, manifest);
            follow_up(desk, guests, ready, &connection);
        }
        PeerRequest::Close { to, failure } => {
            if let Some(connection) = guests.of(to) {
                tracing::info!(remote = %connection.remote, "closing: {}", failure.text);
                close(desk, ready, &connection, failure);
            }
        }
        PeerRequest::Tell { to, message } => tell(desk, guests, ready, to, &message),
        PeerRequest::FetchManifest { to } => {
            with_session(desk, guests, ready, to, Session::handle_fetch_manifest);
        }
        PeerRequest::Manifest { swarm, manifest } => {
            for connection in guests.members(swarm) {
                let known = Some(manifest.clone());
                connection.link().session.handle_manifest_known(known);
                follow_up(desk, guests, ready, &connection);
            }
        }
        PeerRequest::Fetch { to, fetch } => {
            // Of one that left the home will hear: the lease must not wait until it has lingered.
            with_session(desk, guests, ready, to, |session| session.handle_fetch(fetch));
        }
        PeerRequest::CancelFetch { to, swarm, fetch_id, lease_back } => {
            let lease = guests.of(to).and_then(|connection| {
                let lease = connection.link().session.handle_cancel(fetch_id);
                follow_up(desk, guests, ready, &connection);
                lease
            });
            if lease_back {
                ready.outbox.push_home(swarm.home, HomeRequest::LeaseBack { swarm, lease });
            }
        }
        PeerRequest::Deliver { swarm, chunk, targets } => {
            deliver(desk, guests, ready, payloads, swarm, chunk, &targets);
        }
        PeerRequest::CutOff { to, chunk, has_it } => {
            if let Some(connection) = guests.present(to) {
                connection.link().cut_off(chunk, has_it);
                follow_up(desk, guests, ready, &connection);
            }
        }
        PeerRequest::Recall { swarm, chunk } => {
            recall(desk, guests, ready, payloads, swarm, chunk);
        }
        PeerRequest::Datagram { route, bytes } => {
            udp_in::handle(desk, guests, ready, route, &bytes);
        }
    }
}

fn tell(desk: &Desk, guests: &Guests, ready: &mut Ready, to: ConnectionRef, message: &Message) {
    // Behind its last word nothing is said.
    if let Some(connection) = guests.present(to) {
        connection.link().send(message);
        ready.mark_write(desk, &connection);
    }
}

/// Has a session hear something, unless the connection has left.
fn with_session(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    to: ConnectionRef,
    step: impl FnOnce(&mut Session),
) {
    if let Some(connection) = guests.present(to) {
        step(&mut connection.link().session);
        follow_up(desk, guests, ready, &connection);
    }
}

fn deliver(
    desk: &Desk,
    guests: &Guests,
    ready: &mut Ready,
    payloads: &mut Payloads,
    swarm: SwarmRef,
    chunk: CachedChunk,
    targets: &[Target],
) {
    let now = now();
    let payload = payloads.live(swarm, chunk);
    for target in targets {
        let Some(connection) = guests.get(target.index, target.generation) else { continue };
        let mut link = connection.link();
        if !link.life.is_closing() {
            link.deliver(now, Rc::clone(&payload), target.offset);
            drop(link);
            ready.mark_write(desk, connection);
        }
    }
}

fn recall(
    desk: &Desk,
    guests: &Guests,
    ready: &mut Ready,
    payloads: &mut Payloads,
    swarm: SwarmRef,
    chunk: u32,
) {
    let now = now();
    let mut rest = Vec::new();
    if let Some(payload) = payloads.remove(swarm, chunk) {
        for connection in guests.members(swarm) {
            let mut link = connection.link();
            let Some((_, peer)) = link.membership.member() else { continue };
            for reached in link.recall(now, chunk) {
                if reached < payload.len_bytes() {
                    rest.push((peer, reached));
                } else {
                    // Its last frame was half-written and is on its way as a copy.
                    link.session.tell(NewsItem::Written(chunk));
                }
            }
            drop(link);
            ready.mark_news(desk, &connection);
            ready.mark_write(desk, &connection);
        }
        payload.withdraw();
    }
    ready.outbox.push_home(swarm.home, HomeRequest::Recalled { swarm, chunk, rest });
}
