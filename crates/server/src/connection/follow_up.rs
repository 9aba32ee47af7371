//! What a connection's session decided, carried out: messages, joining, datagrams, ended fetches; and its faults.

use std::rc::Rc;

use super::{Connection, closing::close};
use crate::{
    home::cache::count_unwanted,
    lending,
    message::{FetchedChunk, HomeRequest, SwarmRef, VerifiedChunk},
    session::{Effect, Fault},
    shard::{
        desk::{Desk, now},
        guests::Guests,
        ready::Ready,
    },
};
use relay_protocol::{
    Accepted, Channel, DatagramOffer, DecodeError, Failure, FailureCode, Message,
};
use relay_swarm::{FetchFailure, PeerSlot};
use relay_transport::{
    Datagrams, DatagramsConfig, ReadError,
    datagrams::{Address, CongestionControl, PathSettings},
};
use shards::datagrams::longest_datagram;

/// After a session was told something: effects, then what is to be told and written.
pub(crate) fn follow_up(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    connection: &Rc<Connection>,
) {
    perform(desk, guests, ready, connection);
    ready.mark_news(desk, connection);
    ready.mark_write(desk, connection);
}

/// Why a relay takes no further peer.
fn full(peers_max: usize) -> Failure {
    let text = format!(
        "the relay serves {peers_max}, as many peers as it may: try again later, or raise its --max-peers"
    );
    Failure { code: FailureCode::TooManyPeers, text }
}

fn perform(desk: &Desk, guests: &mut Guests, ready: &mut Ready, connection: &Rc<Connection>) {
    desk.cells.count_all_dropped(&connection.link().session.take_dropped());
    loop {
        let Some(effect) = connection.link().session.poll_effect() else { break };
        match effect {
            Effect::Send(message) => connection.link().send(&message),
            Effect::AcceptInDatagrams(accepted, channel) => {
                open_datagrams(desk, ready, connection, accepted, channel);
            }
            Effect::Observe => {
                guests.handshakes.forget(connection);
                let crowded = guests.observers.push(connection);
                if let Some(silent) = crowded {
                    desk.cells.count_refused("observer_flood");
                    let text = "others ask for counters, too, and this connection was silent for the \
                                longest time: connect again";
                    let code = FailureCode::TooManyPeers;
                    close(desk, ready, &silent, Failure { code, text: text.into() });
                }
            }
            Effect::Stats => {
                guests.observers.refresh(connection);
                let stats = Message::Stats(Box::new(desk.shared.stats()));
                connection.link().send(&stats);
            }
            Effect::Join(join) => {
                guests.handshakes.forget(connection);
                if !desk.shared.peer_joins() {
                    desk.cells.count_refused("too_many_peers");
                    close(desk, ready, connection, full(desk.shared.peers_max()));
                    continue;
                }
                desk.cells.peers.add(1);
                connection.link().membership.ask();
                let home = desk.shared.home_of(&join.key);
                let join = join.request(connection.reference, connection.remote);
                ready.outbox.push_home(home, HomeRequest::Join(Box::new(join)));
                desk.shard.port.nudge();
            }
            Effect::Fetched(fetch_id, result) => {
                let damaged = matches!(result, Err(FetchFailure::Damaged));
                let result = result.map(|chunk| kept(desk, connection, chunk));
                if connection.link().membership.member().is_none() {
                    count_unwanted(&result, &desk.cells);
                }
                to_home(desk, ready, connection, |swarm, _| HomeRequest::Fetched {
                    swarm,
                    fetch_id,
                    result,
                });
                if damaged {
                    let text = "bytes were damaged on the way: connect again".into();
                    close(
                        desk,
                        ready,
                        connection,
                        Failure { code: FailureCode::LinkCorrupt, text },
                    );
                }
            }
            Effect::Manifest(result) => {
                to_home(desk, ready, connection, |swarm, peer| HomeRequest::Manifest {
                    swarm,
                    peer,
                    result,
                });
            }
        }
    }
}

/// Puts a chunk where it stays, unless there is no home for it.
fn kept(desk: &Desk, connection: &Connection, mut chunk: VerifiedChunk) -> FetchedChunk {
    chunk.is_to_be_lent &= connection.link().membership.member().is_some();
    let (chunk, is_lent) = lending::keep(desk.shared.memory.files.as_ref(), chunk);
    desk.cells.chunks_lent.add(u64::from(is_lent));
    chunk
}

fn to_home(
    desk: &Desk,
    ready: &mut Ready,
    connection: &Connection,
    request: impl FnOnce(SwarmRef, PeerSlot) -> HomeRequest,
) {
    let member = connection.link().membership.member();
    if let Some((swarm, peer)) = member {
        ready.outbox.push_home(swarm.home, request(swarm, peer));
        desk.shard.port.nudge();
    }
}

/// Accepts a peer that asked for datagrams: from then on they carry that channel.
fn open_datagrams(
    desk: &Desk,
    ready: &mut Ready,
    connection: &Rc<Connection>,
    accepted: Accepted,
    channel: Channel,
) {
    let Some(shard) = desk.sockets.shard else {
        let text = "this relay has no UDP socket for the connection: use --transport tcp";
        close(desk, ready, connection, Failure::new(FailureCode::TransportRefused, text));
        return;
    };
    let reference = connection.reference;
    let number = u64::from(reference.generation) << 32 | u64::from(reference.index);
    let mut link = connection.link();
    let secret = link.queue.datagram_secret().expect("a peer that joined has spoken under TLS");
    let config = DatagramsConfig {
        address: Address { shard, connection: number },
        secret,
        channel,
        path: PathSettings {
            congestion: CongestionControl::like_tcp(&desk.shared.about.congestion),
            room_bytes: desk.sockets.room_bytes,
            datagram_bytes_max: longest_datagram(connection.remote),
            is_local: connection.is_local,
        },
    };
    let offer = DatagramOffer { shard, connection: number };
    link.send(&Message::DatagramOffer(offer));
    link.send(&Message::Accepted(accepted));
    let now = now();
    let identity = &desk.shared.policy.identity;
    link.queue.open_datagrams(Datagrams::accept(&config, identity, now));
    drop(link);
    desk.cells.datagram_connections.add(1);
    ready.schedule(desk, now, connection);
}

/// The connection ends by an error: it is counted, and the peer told if that can be.
pub(crate) fn fail(
    desk: &Desk,
    ready: &mut Ready,
    connection: &Rc<Connection>,
    error: ReadError<Fault>,
) {
    let remote = connection.remote;
    match error {
        ReadError::Io(error) => tracing::debug!(%remote, "connection lost: {error}"),
        ReadError::Decode(error) => {
            let reason = match error {
                DecodeError::Magic { .. } => "magic",
                DecodeError::Version { .. } => "version",
                _ => "protocol",
            };
            desk.cells.count_refused(reason);
            tracing::info!(%remote, reason, "refused: {error}");
            // A peer that does not speak the protocol would not understand an answer either.
            if !matches!(error, DecodeError::Magic { .. }) {
                close(desk, ready, connection, Fault::protocol(error.to_string()).failure());
            }
        }
        ReadError::Handler(fault) => {
            desk.cells.count_refused(fault.reason);
            tracing::info!(%remote, reason = fault.reason, "refused: {fault}");
            // A peer that said why it closes expects no answer.
            if !fault.is_of_peer() {
                close(desk, ready, connection, fault.failure());
            }
        }
    }
}
