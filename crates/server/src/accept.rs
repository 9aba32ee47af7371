//! From a handed-off socket to a serving connection: the reader task and what it does with
//! effects. One request is visible here from the socket to the home shard.

use std::{rc::Rc, sync::Arc};

use shards::{Incoming, net::Socket, task};

use super::{
    closing::{close, finish, forget},
    connection::{Connection, link::ReadCounts},
    fault::Fault,
    message::{ConnectionRef, HomeRequest, Request},
    session::{Effect, Session},
    shard::{ShardState, now},
    unsent::count_unwanted,
    window::Window,
    window_pool::newcomers_part,
};
use relay_protocol::{DecodeError, Failure, FailureCode, Message};
use relay_swarm::FetchFailure;
use relay_transport::{ReadError, ReadOutcome, Reader};

/// Starts serving a socket that the listener handed over.
pub(crate) fn begin(state: &Rc<ShardState>, incoming: Incoming) {
    let remote = incoming.remote;
    let socket = match Socket::from_std(incoming.stream) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%remote, "failed to take over an accepted socket: {error}");
            state.shard.connection_closed();
            return;
        }
    };
    let now = now();
    let nonce = state.shared.nonces.next(remote);
    let window = first_window(state);
    let session = Session::new(Arc::clone(&state.session_config), nonce, window);
    let mut connections = state.connections.borrow_mut();
    let (index, generation) = connections.next();
    let reference = ConnectionRef { shard: state.shard.id, index, generation };
    let connection = Connection::new(reference, remote, socket, session, now);
    connections.insert(Rc::clone(&connection));
    drop(connections);
    state.cells.connections.add(1);
    state.cells.accepted.add(1);
    state.activity.ring();
    let flooded = state.handshakes.borrow_mut().push(&connection);
    if let Some(oldest) = flooded {
        state.cells.count_refused("handshake_flood");
        oldest.close_now();
    }
    state.pump(&connection);
    let (serving, panicked) = (Rc::clone(state), Rc::clone(state));
    let (served, ended) = (Rc::clone(&connection), Rc::clone(&connection));
    let serve = async move {
        serve(&serving, &served).await;
        finish(&serving, &served).await;
    };
    task::spawn_isolated(serve, move |message| {
        tracing::error!(remote = %ended.remote, "a connection panicked: {message}");
        panicked.cells.panics.add(1);
        panicked.cells.count_refused("panic");
        ended.close_now();
        forget(&panicked, &ended);
    });
    let (waiting, blocked) = (Rc::clone(state), connection);
    task::spawn(async move { super::pump::wait_writable(waiting, blocked).await });
}

/// Until the next sweep it grows into what others leave: a part of that for each who comes meanwhile.
fn first_window(state: &ShardState) -> Window {
    let first = state.shared.initial_window_bytes();
    let room = state.window_room.get();
    let most = newcomers_part(room, state.window_ceiling.get(), first);
    state.window_room.set(room.saturating_sub(most));
    let mut window = Window::new(first);
    window.set_ceiling(most);
    window
}

/// Reads until the end, an error, or a fault.
async fn serve(state: &Rc<ShardState>, connection: &Rc<Connection>) {
    let mut reader = Reader::new();
    loop {
        while !connection.link().may_read() {
            if connection.has_ended() {
                return;
            }
            connection.read_bell.wait().await;
        }
        match read_once(state, connection, &mut reader) {
            Ok(ReadOutcome::Read { is_full: true, .. }) => {
                task::yield_now().await;
            }
            Ok(ReadOutcome::Read { is_full: false, .. } | ReadOutcome::Blocked) => {
                if connection.link().ends_when_read() {
                    return;
                }
                if let Err(error) = connection.socket.readable().await {
                    tracing::debug!(remote = %connection.remote, "failed to wait: {error}");
                    return;
                }
            }
            Ok(ReadOutcome::Closed) => return,
            Err(error) => {
                fail(state, connection, error);
                return;
            }
        }
    }
}

/// One read, and everything that follows from it.
fn read_once(
    state: &Rc<ShardState>,
    connection: &Rc<Connection>,
    reader: &mut Reader,
) -> Result<ReadOutcome, ReadError<Fault>> {
    let cells = &state.cells;
    let mut counts = ReadCounts::new(now(), &cells.delivery_seconds);
    let mut buffer = state.receive_buffer.borrow_mut();
    let outcome = connection.read(reader, &mut buffer, &mut counts);
    drop(buffer);
    if counts.total_bytes > 0 {
        state.activity.ring();
    }
    cells.data_in_bytes.add(counts.data_bytes);
    cells.control_in_bytes.add(counts.total_bytes.saturating_sub(counts.data_bytes));
    perform_effects(state, connection);
    state.mark_news(connection);
    state.pump(connection);
    outcome
}

/// Carries out what the session decided.
pub(crate) fn perform_effects(state: &Rc<ShardState>, connection: &Rc<Connection>) {
    state.cells.count_all_dropped(&connection.link().session.take_dropped());
    loop {
        let Some(effect) = connection.link().session.poll_effect() else { break };
        match effect {
            Effect::Send(message) => connection.link().send(&message),
            Effect::AcceptInDatagrams(accepted, channel, peer_nonce) => {
                super::datagrams::accept(state, connection, accepted, channel, &peer_nonce);
            }
            Effect::Observe => {
                state.handshakes.borrow_mut().forget(connection);
                let crowded = state.observers.borrow_mut().push(connection);
                if let Some(silent) = crowded {
                    state.cells.count_refused("observer_flood");
                    let text = "others ask for counters, too, and this connection was silent for the \
                                longest time: connect again";
                    let code = FailureCode::TooManyPeers;
                    close(state, &silent, Failure { code, text: text.into() });
                }
            }
            Effect::Stats => {
                state.observers.borrow_mut().refresh(connection);
                let stats = Message::Stats(Box::new(state.shared.stats()));
                connection.link().send(&stats);
            }
            Effect::Join(join) => {
                state.handshakes.borrow_mut().forget(connection);
                if !state.shared.peer_joins() {
                    state.cells.count_refused("too_many_peers");
                    let text = "the relay serves as many peers as it may: try again later, or \
                                raise its --max-peers";
                    let code = FailureCode::TooManyPeers;
                    close(state, connection, Failure { code, text: text.into() });
                    continue;
                }
                state.cells.peers.add(1);
                connection.link().membership.ask();
                let home = state.shared.home_of(&join.key);
                let join = join.request(connection.reference, connection.remote);
                let request = HomeRequest::Join(Box::new(join));
                state.outbox.borrow_mut().push(home, Request::Home(request));
                state.shard.port.nudge();
            }
            Effect::Fetched(fetch_id, result) => {
                if connection.link().membership.member().is_none() {
                    count_unwanted(&result, &state.cells);
                }
                let damaged = matches!(result, Err(FetchFailure::Damaged));
                to_home(state, connection, |swarm, _| HomeRequest::Fetched {
                    swarm,
                    fetch_id,
                    result,
                });
                if damaged {
                    let text = "bytes were damaged on the way: connect again".into();
                    close(state, connection, Failure { code: FailureCode::LinkCorrupt, text });
                }
            }
            Effect::Manifest(result) => {
                to_home(state, connection, |swarm, peer| HomeRequest::Manifest {
                    swarm,
                    peer,
                    result,
                });
            }
        }
    }
}

fn to_home(
    state: &ShardState,
    connection: &Connection,
    request: impl FnOnce(super::message::SwarmRef, relay_swarm::PeerSlot) -> HomeRequest,
) {
    let member = connection.link().membership.member();
    if let Some((swarm, peer)) = member {
        state.outbox.borrow_mut().push(swarm.home, Request::Home(request(swarm, peer)));
        state.shard.port.nudge();
    }
}

/// The connection ends by an error: it is counted, and the peer told if that can be.
pub(crate) fn fail(state: &Rc<ShardState>, connection: &Rc<Connection>, error: ReadError<Fault>) {
    let remote = connection.remote;
    match error {
        ReadError::Io(error) => tracing::debug!(%remote, "connection lost: {error}"),
        ReadError::Decode(error) => {
            let reason = match error {
                DecodeError::Magic { .. } => "magic",
                DecodeError::Version { .. } => "version",
                _ => "protocol",
            };
            state.cells.count_refused(reason);
            tracing::info!(%remote, reason, "refused: {error}");
            // Whoever does not speak the protocol would not understand an answer either.
            if !matches!(error, DecodeError::Magic { .. }) {
                close(state, connection, Fault::protocol(error.to_string()).failure());
            }
        }
        ReadError::Handler(fault) => {
            state.cells.count_refused(fault.reason);
            tracing::info!(%remote, reason = fault.reason, "refused: {fault}");
            // Who said why it closes expects no answer.
            if !fault.is_of_peer() {
                close(state, connection, fault.failure());
            }
        }
    }
}
