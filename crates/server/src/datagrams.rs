//! The datagrams of one shard: its UDP sockets, who has something to send, what is due when.
//!
//! A datagram is handled on the shard that its first byte names; the kernel brings it there, or the
//! shard that got it passes it on. Nothing that was not sealed with a connection's key is answered.
//! What datagrams mean is the transport's business ([`relay_transport::datagrams`]).

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    io::{self, IoSliceMut},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use shards::{
    ShardId,
    bell::LocalBell,
    clock,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta},
    steering::DatagramGroup,
    task,
};

use self::sending::transmit;
pub(crate) use self::sending::{send_ready, transmit_data};
use super::{
    CREDITS_PER_PAIR,
    accept::{fail, perform_effects},
    cells::ShardCells,
    closing::{close, forget},
    connection::{Connection, link::ReadCounts},
    fault::Fault,
    message::{PeerRequest, Request},
    shard::{ShardState, now},
};
use relay_protocol::{
    Accepted, Channel, DatagramHeader, DatagramKeys, DatagramKind, DatagramOffer, Failure,
    FailureCode, Message, Side,
    limits::{DATAGRAM_SHARDS_MAX, NONCE_BYTES},
    time::Time,
};
use relay_transport::{
    Datagrams, DatagramsConfig, ReadError, Route,
    data::CongestionControl,
    datagrams::{DatagramError, Received},
};

mod sending;

/// Receive calls on one socket before other tasks get their turn.
const RECEIVES_PER_TURN_MAX: usize = 4;

/// Buffers of one receive call.
const RECEIVE_BUFFERS: usize = 8;

/// Credits of a pair of shards that passing datagrams on leaves to others: a datagram may be lost,
/// what else goes between shards may not have to wait for that.
const CREDITS_LEFT: usize = CREDITS_PER_PAIR / 2;

/// Nothing is due twice within this, so that the timer can't spin.
const DUE_AGAIN_MIN: Duration = Duration::from_millis(1);

/// What is due of control is looked at in steps of this (nanoseconds), for all connections at once:
/// each waking of a shard takes the core from whoever works there.
const DUE_STEP_NS: u64 = 5_000_000;

/// How long to wait when a socket can't be received from.
const ERROR_BACKOFF: Duration = Duration::from_millis(100);

/// What a shard keeps for datagrams.
pub(crate) struct ShardDatagrams {
    /// One for each address that the relay listens on; a route names its index.
    sockets: Vec<Rc<DatagramSocket>>,
    /// For each: connections whose data it had no room for, and what rings when there are any.
    blocked: Vec<(RefCell<Vec<Rc<Connection>>>, LocalBell)>,
    /// What this shard's connections are called by their first byte.
    shard: Option<u8>,
    /// Connections with datagrams to send.
    ready: RefCell<VecDeque<Rc<Connection>>>,
    /// When connections have something to do, by index and generation; one entry each.
    due: RefCell<BTreeSet<(Time, u32, u32)>>,
    /// Rung when something is due before all else.
    due_bell: LocalBell,
    scratch: RefCell<Vec<u8>>,
    /// What a socket holds of data that was not read yet.
    room_bytes: u32,
}

impl ShardDatagrams {
    /// Takes this shard's sockets over. Without them it serves on, but offers no datagrams.
    pub(crate) fn new(id: ShardId, groups: &[DatagramGroup]) -> Self {
        let open = |group: &DatagramGroup| {
            DatagramSocket::from_std(group.sockets[id.index()].try_clone()?).map(Rc::new)
        };
        let sockets = groups.iter().map(open).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.unwrap_or_else(|error| {
            tracing::error!(shard = %id, "failed to take over the UDP sockets: {error}");
            Vec::new()
        });
        let room_bytes = sockets.iter().map(|socket| socket.room_bytes()).min().unwrap_or(0);
        let blocked = sockets.iter().map(|_| Default::default()).collect();
        let shard = u8::try_from(id.0).ok().filter(|_| !sockets.is_empty());
        const { assert!(DATAGRAM_SHARDS_MAX == 1 + u8::MAX as usize) };
        Self {
            sockets,
            blocked,
            shard,
            ready: RefCell::new(VecDeque::new()),
            due: RefCell::new(BTreeSet::new()),
            due_bell: LocalBell::new(),
            scratch: RefCell::new(Vec::new()),
            room_bytes,
        }
    }

    /// Puts the connection among those with datagrams to send, if it has any.
    pub(crate) fn mark_ready(&self, connection: &Rc<Connection>, bell: &LocalBell) {
        if connection.link().wants_transmit(now) && !connection.marks.transmits.replace(true) {
            self.ready.borrow_mut().push_back(Rc::clone(connection));
            bell.ring();
        }
    }

    /// Whether any connection has datagrams to send.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// The connection is gone.
    pub(crate) fn forget(&self, connection: &Connection, cells: &ShardCells) {
        if let Some(at) = connection.marks.due.take() {
            let reference = connection.reference;
            self.due.borrow_mut().remove(&(at, reference.index, reference.generation));
        }
        if connection.link().queue.datagrams().is_some() {
            cells.datagram_connections.sub(1);
        }
    }

    /// Sees to it that the connection is looked at when it has something to do.
    pub(crate) fn schedule(&self, now: Time, connection: &Connection) {
        if connection.link().life.is_closed() {
            return;
        }
        let link = connection.link();
        let Some(due) = link.poll_datagrams_timeout() else { return };
        let has_data = link.queue.data().is_some();
        drop(link);
        let due = if has_data { due.max(now + DUE_AGAIN_MIN) } else { round_up(due.max(now)) };
        let planned = connection.marks.due.get();
        if planned.is_some_and(|planned| planned <= due) {
            // It is looked at earlier, and then again.
            return;
        }
        let reference = connection.reference;
        let mut all = self.due.borrow_mut();
        if let Some(planned) = planned {
            all.remove(&(planned, reference.index, reference.generation));
        }
        let entry = (due, reference.index, reference.generation);
        all.insert(entry);
        connection.marks.due.set(Some(due));
        if all.first() == Some(&entry) {
            self.due_bell.ring();
        }
    }
}

/// Starts the shard's tasks.
pub(crate) fn start(state: &Rc<ShardState>) {
    for (index, socket) in state.datagrams.sockets.iter().enumerate() {
        let index = u8::try_from(index).expect("a relay listens on fewer than 256 addresses");
        task::spawn(receive(Rc::clone(state), index, Rc::clone(socket)));
        task::spawn(wait_writable(Rc::clone(state), index, Rc::clone(socket)));
    }
    task::spawn(watch_time(Rc::clone(state)));
}

/// Accepts a peer that asked for datagrams: from then on they carry that channel.
pub(crate) fn accept(
    state: &Rc<ShardState>,
    connection: &Rc<Connection>,
    accepted: Accepted,
    channel: Channel,
    peer_nonce: &[u8; NONCE_BYTES],
) {
    let Some(shard) = state.datagrams.shard else {
        let text = "this relay has no UDP socket for the connection: use --transport tcp";
        close(state, connection, Failure::new(FailureCode::TransportRefused, text));
        return;
    };
    let (nonces, remote) = (&state.shared.nonces, connection.remote);
    let secret = nonces.next_secret(remote);
    let reference = connection.reference;
    let number = u64::from(reference.generation) << 32 | u64::from(reference.index);
    let seed = nonces.next_secret(remote);
    let config = DatagramsConfig {
        side: Side::Relay,
        shard,
        connection: number,
        keys: DatagramKeys::derive(&secret, connection.link().session.nonce(), peer_nonce),
        route: None,
        challenge_seed: seed.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)),
    };
    let offer = DatagramOffer { shard, connection: number, secret };
    connection.link().send(&Message::DatagramOffer(offer));
    connection.link().send(&Message::Accepted(accepted));
    let now = now();
    let mut datagrams = Datagrams::new(config, now);
    if channel == Channel::Data {
        let control = CongestionControl::like_tcp(&state.shared.congestion);
        datagrams.open_data(control, state.datagrams.room_bytes);
    }
    connection.link().queue.open_datagrams(datagrams);
    state.cells.datagram_connections.add(1);
    state.datagrams.schedule(now, connection);
}

/// Receives for as long as the shard lives.
async fn receive(state: Rc<ShardState>, index: u8, socket: Rc<DatagramSocket>) {
    let mut bytes = vec![0; RECEIVE_BUFFERS * RECEIVE_BUFFER_BYTES];
    loop {
        let mut more = true;
        for _ in 0..RECEIVES_PER_TURN_MAX {
            match receive_once(&state, index, &socket, &mut bytes) {
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
    let (waiting, bell) = &state.datagrams.blocked[usize::from(index)];
    loop {
        bell.wait().await;
        if let Err(error) = socket.writable().await {
            tracing::error!("failed to wait until datagrams can be sent: {error}");
            return;
        }
        for connection in waiting.take() {
            connection.link().handle_datagrams_writable();
            state.pump(&connection);
        }
    }
}

fn receive_once(
    state: &Rc<ShardState>,
    index: u8,
    socket: &DatagramSocket,
    bytes: &mut [u8],
) -> io::Result<()> {
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
            arrive(state, route, datagram);
        }
    }
    Ok(())
}

/// Handles a datagram here, or passes it on to the shard that it is for.
fn arrive(state: &Rc<ShardState>, route: Route, datagram: &[u8]) {
    let header = DatagramHeader::peek(datagram);
    // Noise counts, too: somebody may be flooding the port.
    if header.is_some_and(|header| header.kind == DatagramKind::Data) {
        state.cells.data_datagrams_in.add(1);
        state.cells.data_datagrams_in_bytes.add(datagram.len() as u64);
    } else {
        state.cells.datagrams_in.add(1);
        state.cells.datagrams_in_bytes.add(datagram.len() as u64);
    }
    let Some(header) = header else {
        state.cells.count_datagram_dropped("malformed");
        return;
    };
    if state.datagrams.shard == Some(header.shard) {
        handle(state, route, datagram);
        return;
    }
    let (to, port) = (ShardId(header.shard.into()), &state.shard.port);
    let bytes = Bytes::copy_from_slice(datagram);
    let request = Request::Peer(PeerRequest::Datagram { route, bytes });
    let is_known = to.index() < port.shard_count();
    if is_known && port.credits(to) > CREDITS_LEFT && port.try_request(to, request).is_ok() {
        state.cells.datagrams_passed_on.add(1);
    } else {
        state.cells.count_datagram_dropped("not_passed_on");
    }
}

/// Handles a datagram of one of this shard's connections.
pub(crate) fn handle(state: &Rc<ShardState>, route: Route, datagram: &[u8]) {
    let connection = DatagramHeader::peek(datagram).and_then(|header| {
        let index = u32::try_from(header.connection & u64::from(u32::MAX)).ok()?;
        state.connection(index, u32::try_from(header.connection >> 32).ok()?)
    });
    let Some(connection) = connection else {
        state.cells.count_datagram_dropped("unknown_connection");
        return;
    };
    if connection.link().life.is_closing() {
        // It has said its last word, and hears no other.
        state.cells.count_datagram_dropped("refused");
        return;
    }
    // As with its stream, a panic of one connection ends that connection.
    let step = || handle_of(state, &connection, route, datagram);
    if catch_unwind(AssertUnwindSafe(step)).is_err() {
        tracing::error!(remote = %connection.remote, "a connection panicked over a datagram");
        state.cells.panics.add(1);
        state.cells.count_refused("panic");
        connection.close_now();
        forget(state, &connection);
    }
}

fn handle_of(state: &Rc<ShardState>, connection: &Rc<Connection>, route: Route, datagram: &[u8]) {
    let (now, cells) = (now(), &state.cells);
    let mut counts = ReadCounts::new(now, &cells.delivery_seconds);
    let mut link = connection.link();
    let could_read = link.may_read();
    let received = link.handle_datagram(route, datagram, &mut counts);
    drop(link);
    cells.data_in_bytes.add(counts.data_bytes);
    match received {
        Ok(Received::Taken) if is_data(datagram) => {}
        Ok(Received::Taken) => cells.control_in_bytes.add(datagram.len() as u64),
        Ok(Received::Forged) => return cells.count_datagram_dropped("forged"),
        Ok(Received::Replayed) => return cells.count_datagram_dropped("replayed"),
        Ok(Received::Refused) => cells.count_datagram_dropped("refused"),
        Err(error) => {
            let error = match error {
                DatagramError::Handler(fault) => ReadError::Handler(fault),
                DatagramError::Decode(error) => ReadError::Decode(error),
                error => ReadError::Handler(Fault::protocol(error.to_string())),
            };
            fail(state, connection, error);
            if !connection.link().life.is_closing() {
                // It said why it closes, and not on the stream, whose end would follow.
                connection.close_now();
            }
        }
    }
    state.activity.ring();
    perform_effects(state, connection);
    state.mark_news(connection);
    state.pump(connection);
    if !could_read && connection.link().may_read() {
        // Acknowledgements made room.
        connection.read_bell.ring();
    }
    state.datagrams.schedule(now, connection);
}

/// Does what is due, as long as the shard lives.
async fn watch_time(state: Rc<ShardState>) {
    let datagrams = &state.datagrams;
    loop {
        let first = datagrams.due.borrow().first().copied();
        let Some((at, index, generation)) = first else {
            datagrams.due_bell.wait().await;
            continue;
        };
        let now = now();
        if at > now {
            // Rung or due, all the same: it is looked at again.
            clock::timeout(at.since(now), datagrams.due_bell.wait()).await;
            continue;
        }
        datagrams.due.borrow_mut().pop_first();
        let Some(connection) = state.connection(index, generation) else { continue };
        connection.marks.due.set(None);
        let mut link = connection.link();
        let heard = link.handle_datagrams_timeout(now);
        let is_closing = link.life.is_closing();
        drop(link);
        if let Err(silence) = heard
            && !is_closing
        {
            state.cells.count_refused("datagrams_silent");
            tracing::info!(remote = %connection.remote, "disconnected: {silence}");
            let text = format!("{silence}: connect again, or use --transport tcp");
            close(&state, &connection, Failure::new(FailureCode::DatagramsSilent, text));
        }
        transmit(&state, &connection);
        state.mark_news(&connection);
        state.pump(&connection);
    }
}

/// The next whole step, never the time itself: what is due now could be due again at once.
fn round_up(time: Time) -> Time {
    Time(time.0 - time.0 % DUE_STEP_NS) + Duration::from_nanos(DUE_STEP_NS)
}

fn is_data(datagram: &[u8]) -> bool {
    DatagramHeader::peek(datagram).is_some_and(|header| header.kind == DatagramKind::Data)
}
