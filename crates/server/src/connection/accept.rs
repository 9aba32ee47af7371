//! From a handed-off socket to a serving connection: the reader task. One request is visible here from the
//! socket to what follows from it ([`super::follow_up`]).

use std::{rc::Rc, sync::Arc};

use shards::{Incoming, net::Socket, task};

use super::{
    Connection,
    admit::admit,
    closing::{finish, forget},
    follow_up::{fail, follow_up},
    link::{Link, ReadCounts},
    pump,
};
use crate::{
    message::ConnectionRef,
    session::{Fault, Session},
    shard::{
        Parts, ShardState,
        desk::{Desk, now},
        guests::Guests,
        ready::Ready,
    },
};
use relay_transport::{ReadError, ReadOutcome, Reader};

/// Starts serving a socket that the listener handed over.
pub(crate) fn begin(
    state: &Rc<ShardState>,
    guests: &mut Guests,
    ready: &mut Ready,
    incoming: Incoming,
) {
    let desk = &state.desk;
    let remote = incoming.remote;
    let socket = match Socket::from_std(incoming.stream) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%remote, "failed to take over an accepted socket: {error}");
            desk.shard.connection_closed();
            return;
        }
    };
    let now = now();
    let window = guests.first_window(desk.shared.initial_window_bytes());
    let session = Session::new(Arc::clone(&desk.shared.policy.session), window);
    let (index, generation) = guests.next();
    let reference = ConnectionRef { shard: desk.id(), index, generation };
    let link = Link::new(session, desk.shared.policy.identity.accept(), now);
    let connection = Connection::new(reference, remote, socket, link, now);
    let flooded = guests.insert(&connection);
    desk.cells.connections.add(1);
    desk.cells.accepted.add(1);
    desk.bells.activity.ring();
    if let Some(oldest) = flooded {
        desk.cells.count_refused("handshake_flood");
        oldest.close_now();
    }
    ready.mark_write(desk, &connection);
    spawn(state, &connection);
}

/// The connection's two tasks.
fn spawn(state: &Rc<ShardState>, connection: &Rc<Connection>) {
    let (serving, panicked) = (Rc::clone(state), Rc::clone(state));
    let (served, ended) = (Rc::clone(connection), Rc::clone(connection));
    let serve = async move {
        serve(&serving, &served).await;
        finish(&serving, &served).await;
    };
    task::spawn_isolated(serve, move |message| {
        tracing::error!(remote = %ended.remote, "a connection panicked: {message}");
        let desk = &panicked.desk;
        desk.cells.panics.add(1);
        desk.cells.count_refused("panic");
        ended.close_now();
        let Parts { guests, ready, .. } = &mut *panicked.parts();
        forget(desk, guests, ready, &ended);
    });
    let (waiting, blocked) = (Rc::clone(state), Rc::clone(connection));
    task::spawn(async move { pump::wait_writable(waiting, blocked).await });
}

/// Reads until the end, an error, or a fault.
async fn serve(state: &ShardState, connection: &Rc<Connection>) {
    let mut reader = Reader::new();
    loop {
        while !connection.link().may_read() {
            if connection.has_ended() {
                return;
            }
            connection.read_bell.wait().await;
        }
        let is_handshaking = connection.link().queue.is_handshaking();
        if is_handshaking {
            state.desk.handshakes.place().await;
        }
        let Some(bytes_max) = admit(state, connection).await else { return };
        let outcome =
            read_once(&state.desk, &mut state.parts(), connection, &mut reader, bytes_max);
        match outcome {
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
                fail(&state.desk, &mut state.parts().ready, connection, error);
                return;
            }
        }
    }
}

/// One read of at most so many file bytes, and everything that follows from it.
fn read_once(
    desk: &Desk,
    parts: &mut Parts,
    connection: &Rc<Connection>,
    reader: &mut Reader,
    bytes_max: usize,
) -> Result<ReadOutcome, ReadError<Fault>> {
    let Parts { guests, ready, receive_buffer, .. } = parts;
    let cells = &desk.cells;
    let mut counts = ReadCounts::new(now(), &cells.delivery_seconds);
    let outcome = connection.read(reader, receive_buffer, bytes_max, &mut counts);
    ready.shaping.note_read(desk, connection, counts.data_bytes);
    if counts.total_bytes > 0 {
        desk.bells.activity.ring();
    }
    cells.data_in_bytes.add(counts.data_bytes);
    cells.control_in_bytes.add(counts.total_bytes.saturating_sub(counts.data_bytes));
    follow_up(desk, guests, ready, connection);
    outcome
}
