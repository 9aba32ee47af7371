//! Datagrams on their way into a shard, and what is due in datagrams when.
//!
//! A datagram is handled on the shard that its connection id names; the kernel brings it there, or the
//! shard that got it passes it on. Nothing that is not of a connection of this relay's is answered.
//! What datagrams mean is the transport's business ([`relay_transport::datagrams`]).

use std::{
    io::{self, IoSliceMut},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use shards::{
    ShardId, clock,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta},
    task,
};

use super::{
    Connection,
    closing::{close, forget},
    follow_up::{fail, follow_up},
    link::ReadCounts,
    udp_out::{note_panic, transmit},
};
use crate::{
    message::{CREDITS_PER_PAIR, PeerRequest, Request},
    session::Fault,
    shard::{
        Parts, ShardState,
        desk::{Desk, now},
        guests::Guests,
        ready::{Due, Ready},
        shaping::count_held_data,
    },
};
use relay_protocol::{Channel, Failure, FailureCode, time::Time};
use relay_transport::{
    ReadError, Route,
    datagrams::{Address, DatagramError, Received},
};

/// Receive calls on one socket before other tasks get their turn.
const RECEIVES_PER_TURN_MAX: usize = 4;

/// Buffers of one receive call.
const RECEIVE_BUFFERS: usize = 8;

/// Credits of a pair of shards that passing datagrams on leaves to others: a datagram may be lost,
/// what else goes between shards may not have to wait for that.
const CREDITS_LEFT: usize = CREDITS_PER_PAIR / 2;

/// How long to wait when a socket can't be received from.
const ERROR_BACKOFF: Duration = Duration::from_millis(100);

/// Starts the shard's tasks.
pub(crate) fn start(state: &Rc<ShardState>) {
    for (index, socket) in state.desk.sockets.iter().enumerate() {
        let index = u8::try_from(index).expect("a relay listens on fewer than 256 addresses");
        task::spawn(receive(Rc::clone(state), index, Rc::clone(socket)));
        task::spawn(wait_writable(Rc::clone(state), index, Rc::clone(socket)));
    }
    task::spawn(watch_time(Rc::clone(state)));
}

/// Receives for as long as the shard lives.
async fn receive(state: Rc<ShardState>, index: u8, socket: Rc<DatagramSocket>) {
    let mut bytes = vec![0; RECEIVE_BUFFERS * RECEIVE_BUFFER_BYTES];
    loop {
        let mut more = true;
        for _ in 0..RECEIVES_PER_TURN_MAX {
            let received =
                receive_once(&state.desk, &mut state.parts(), index, &socket, &mut bytes);
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                Err(error) => {
                    tracing::warn!("failed to receive datagrams: {error}");
                    clock::sleep(ERROR_BACKOFF).await;
                }
            }
        }
        if more {
            task::yield_now().await;
        } else if let Err(error) = socket.readable().await {
            tracing::error!("failed to wait for datagrams: {error}");
            return;
        }
    }
}

/// Goes on with the data that the socket had no room for, as long as the shard lives.
async fn wait_writable(state: Rc<ShardState>, index: u8, socket: Rc<DatagramSocket>) {
    let desk = &state.desk;
    let bell = &desk.bells.blocked[usize::from(index)];
    loop {
        bell.wait().await;
        if let Err(error) = socket.writable().await {
            tracing::error!("failed to wait until datagrams can be sent: {error}");
            return;
        }
        go_on(desk, &mut state.parts().ready, index);
    }
}

fn go_on(desk: &Desk, ready: &mut Ready, index: u8) {
    for connection in ready.take_blocked(index) {
        connection.marks.is_blocked.set(false);
        connection.link().handle_datagrams_writable();
        ready.mark_write(desk, &connection);
    }
}

fn receive_once(
    desk: &Desk,
    parts: &mut Parts,
    index: u8,
    socket: &DatagramSocket,
    bytes: &mut [u8],
) -> io::Result<()> {
    let Parts { guests, ready, .. } = parts;
    let mut metas = [RecvMeta::default(); RECEIVE_BUFFERS];
    let count = {
        let mut buffers = bytes.chunks_mut(RECEIVE_BUFFER_BYTES).map(IoSliceMut::new);
        let mut buffers: [_; RECEIVE_BUFFERS] =
            std::array::from_fn(|_| buffers.next().expect("as many as there are"));
        socket.try_receive(&mut buffers, &mut metas)?
    };
    for (meta, buffer) in metas[..count].iter().zip(bytes.chunks(RECEIVE_BUFFER_BYTES)) {
        let route = Route { socket: index, remote: meta.addr, local: meta.dst_ip };
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            arrive(desk, guests, ready, route, datagram);
        }
    }
    Ok(())
}

/// Handles a datagram here, or passes it on to the shard that it is for.
fn arrive(desk: &Desk, guests: &mut Guests, ready: &mut Ready, route: Route, datagram: &[u8]) {
    let cells = &desk.cells;
    let Some(address) = Address::peek(datagram) else {
        // Noise counts, too: the port may be flooded.
        count_in(desk, Channel::Control, datagram);
        cells.count_datagram_dropped("malformed");
        return;
    };
    if desk.sockets.shard == Some(address.shard) {
        handle(desk, guests, ready, route, datagram);
        return;
    }
    let (to, port) = (ShardId(address.shard.into()), &desk.shard.port);
    let bytes = Bytes::copy_from_slice(datagram);
    let request = Request::Peer(PeerRequest::Datagram { route, bytes });
    let is_known = to.index() < port.shard_count();
    if is_known && port.credits(to) > CREDITS_LEFT && port.try_request(to, request).is_ok() {
        cells.datagrams_passed_on.add(1);
    } else {
        count_in(desk, Channel::Control, datagram);
        cells.count_datagram_dropped("not_passed_on");
    }
}

fn count_in(desk: &Desk, channel: Channel, datagram: &[u8]) {
    let (cells, bytes) = (&desk.cells, datagram.len() as u64);
    if channel == Channel::Control {
        cells.datagrams_in.add(1);
        cells.datagrams_in_bytes.add(bytes);
    } else {
        cells.data_datagrams_in.add(1);
        cells.data_datagrams_in_bytes.add(bytes);
    }
}

/// Handles a datagram of one of this shard's connections.
pub(crate) fn handle(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    route: Route,
    datagram: &[u8],
) {
    let connection = Address::peek(datagram).and_then(|address| {
        let index = u32::try_from(address.connection & u64::from(u32::MAX)).ok()?;
        guests.get(index, u32::try_from(address.connection >> 32).ok()?).cloned()
    });
    let channel = connection.as_ref().and_then(|connection| connection.link().datagram_channel());
    count_in(desk, channel.unwrap_or(Channel::Control), datagram);
    let Some(connection) = connection else {
        desk.cells.count_datagram_dropped("unknown_connection");
        return;
    };
    if connection.link().life.is_closing() {
        // It has said its last word, and hears no other.
        desk.cells.count_datagram_dropped("refused");
        return;
    }
    // As with its stream, a panic of one connection ends that connection.
    let step = || handle_of(desk, guests, ready, &connection, route, datagram);
    if catch_unwind(AssertUnwindSafe(step)).is_err() {
        end_panicked(desk, guests, ready, &connection);
    }
}

/// Work for a connection's datagrams panicked: the connection ends, and no other.
fn end_panicked(desk: &Desk, guests: &mut Guests, ready: &mut Ready, connection: &Rc<Connection>) {
    note_panic(desk, connection);
    forget(desk, guests, ready, connection);
}

fn handle_of(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    connection: &Rc<Connection>,
    route: Route,
    datagram: &[u8],
) {
    let now = now();
    let mut link = connection.link();
    let received = link.handle_datagram(now, route, datagram);
    let is_control = link.datagram_channel() == Some(Channel::Control);
    drop(link);
    match received {
        Ok(Received::Taken) => {
            if is_control {
                desk.cells.control_in_bytes.add(datagram.len() as u64);
            }
            read(desk, guests, ready, connection, now);
        }
        Ok(Received::Ignored) => {
            desk.cells.count_datagram_dropped("ignored");
            ready.schedule(desk, now, connection);
        }
        Err(error) => end_by(desk, ready, connection, error),
    }
}

/// Takes what has come in datagrams, and does everything that follows from it.
fn read(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    connection: &Rc<Connection>,
    now: Time,
) {
    let cells = &desk.cells;
    let mut counts = ReadCounts::new(now, &cells.delivery_seconds);
    let mut link = connection.link();
    let could_read = link.may_read();
    let late_before = link.session.late_bytes();
    let result = link.read_datagrams(ready.shaping.datagrams_room(), &mut counts);
    let late = link.session.late_bytes() - late_before;
    drop(link);
    connection.note_datagrams();
    cells.data_in_bytes.add(counts.data_bytes);
    ready.shaping.note_datagrams(desk, connection, counts.data_bytes, late);
    desk.bells.activity.ring();
    if let Err(error) = result {
        end_by(desk, ready, connection, error);
    }
    follow_up(desk, guests, ready, connection);
    if !could_read && connection.link().may_read() {
        // What was read made room.
        connection.read_bell.ring();
    }
    ready.schedule(desk, now, connection);
}

/// Datagrams end the connection.
fn end_by(
    desk: &Desk,
    ready: &mut Ready,
    connection: &Rc<Connection>,
    error: DatagramError<Fault>,
) {
    let error = match error {
        DatagramError::Silence(silence) => {
            desk.cells.count_refused("datagrams_silent");
            tracing::info!(remote = %connection.remote, "disconnected: {silence}");
            let text = format!("{silence}: connect again, or use --transport tcp");
            close(desk, ready, connection, Failure::new(FailureCode::DatagramsSilent, text));
            return;
        }
        DatagramError::Handler(fault) => ReadError::Handler(fault),
        DatagramError::Decode(error) => ReadError::Decode(error),
        error => ReadError::Handler(Fault::protocol(error.to_string())),
    };
    fail(desk, ready, connection, error);
    let is_told = connection.link().life.is_closing();
    if !is_told {
        // It said why it closes, and not on the stream, whose end would follow.
        connection.close_now();
    }
}

/// Does what is due, as long as the shard lives.
async fn watch_time(state: Rc<ShardState>) {
    let desk = &state.desk;
    loop {
        let now = now();
        let due = state.parts().ready.pop_due(now);
        match due {
            Due::Never => desk.bells.due.wait().await,
            Due::At(at) => {
                // Rung or due, all the same: it is looked at again.
                clock::timeout(at.since(now), desk.bells.due.wait()).await;
            }
            Due::Now(index, generation) => {
                let parts = &mut *state.parts();
                let connection = parts.guests.get(index, generation).cloned();
                let Some(connection) = connection else { continue };
                let step = || handle_due(desk, parts, &connection, now);
                if catch_unwind(AssertUnwindSafe(step)).is_err() {
                    let Parts { guests, ready, .. } = parts;
                    end_panicked(desk, guests, ready, &connection);
                }
            }
        }
    }
}

/// Time has come for a connection's datagrams.
fn handle_due(desk: &Desk, parts: &mut Parts, connection: &Rc<Connection>, now: Time) {
    let Parts { guests, ready, scratch, .. } = parts;
    connection.marks.due.set(None);
    let mut link = connection.link();
    if link.life.is_closing() {
        return;
    }
    let result = link.handle_datagrams_timeout(now);
    let is_unread = link.has_unread_datagrams(now);
    drop(link);
    count_held_data(desk, connection, now);
    if let Err(error) = result {
        end_by(desk, ready, connection, error);
        return;
    }
    if is_unread {
        read(desk, guests, ready, connection, now);
    }
    transmit(desk, ready, scratch, connection);
    ready.mark_news(desk, connection);
    ready.mark_write(desk, connection);
}
