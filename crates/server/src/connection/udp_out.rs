//! Datagrams on their way out of a shard.
//!
//! What is in them, and when, is the link's business ([`super::packets`]).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use shards::datagrams;

use super::{
    Connection,
    packets::{Sent, Transmitted},
};
use crate::shard::{
    desk::{Desk, now},
    ready::Ready,
};
use relay_protocol::Channel;

/// Sends the datagrams of all connections that have any.
pub(crate) fn send_ready(desk: &Desk, ready: &mut Ready, scratch: &mut Vec<u8>) {
    for _ in 0..ready.transmits() {
        let Some(connection) = ready.pop_transmit() else { return };
        transmit(desk, ready, scratch, &connection);
    }
}

/// Sends what one connection has to say, and what QUIC has of its chunks. A panic over it ends that connection: its
/// reader clears it away.
pub(crate) fn transmit(
    desk: &Desk,
    ready: &mut Ready,
    scratch: &mut Vec<u8>,
    connection: &Rc<Connection>,
) {
    let step = || transmit_some(desk, ready, scratch, connection);
    if catch_unwind(AssertUnwindSafe(step)).is_err() {
        note_panic(desk, connection);
    }
}

/// A connection panicked over datagrams: it is counted, and ends.
pub(super) fn note_panic(desk: &Desk, connection: &Connection) {
    tracing::error!(remote = %connection.remote, "a connection panicked over a datagram");
    desk.cells.panics.add(1);
    desk.cells.count_refused("panic");
    connection.close_now();
}

fn transmit_some(
    desk: &Desk,
    ready: &mut Ready,
    scratch: &mut Vec<u8>,
    connection: &Rc<Connection>,
) {
    let mut link = connection.link();
    let is_closed = link.life.is_closed();
    let Some(datagrams) = link.queue.datagrams_mut().filter(|_| !is_closed) else { return };
    let (channel, socket) = (datagrams.channel(), datagrams.socket());
    if ready.is_blocked(socket) {
        // Others wait for it as well: no datagram is made before it has room.
        datagrams.handle_full();
        ready.mark_blocked(desk, socket, connection);
        return;
    }
    let now = now();
    let cells = &desk.cells;
    let transmitted = link.transmit(now, desk.sockets.segments_max(), scratch, |way, contents| {
        let (route, segment) = (way.route, way.segment_bytes);
        let transmit = datagrams::transmit(route.remote, route.local, contents, segment);
        match desk.sockets.of(route.socket).try_send(&transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Full,
            Ok(()) => {}
            // What the kernel does not take is lost like anything else on its way: a datagram that is only
            // long, to try the path, or one to an address that has gone.
            Err(error) => tracing::debug!(remote = %route.remote, "failed to send: {error}"),
        }
        let (count, bytes) =
            (contents.len().div_ceil(segment.max(1)) as u64, contents.len() as u64);
        if channel == Channel::Control {
            cells.datagrams_out.add(count);
            cells.datagrams_out_bytes.add(bytes);
            cells.control_out_bytes.add(bytes);
        } else {
            cells.data_datagrams_out.add(count);
            cells.data_datagrams_out_bytes.add(bytes);
        }
        Sent::Taken
    });
    let counts = link.take_datagram_counts();
    if channel == Channel::Control {
        cells.messages_resent.add(counts.lost_datagrams);
    } else {
        cells.data_lost_bytes.add(counts.lost_bytes);
        cells.data_resent_bytes.add(counts.lost_bytes);
    }
    let may_read = link.may_read();
    drop(link);
    match transmitted {
        Transmitted::All => ready.schedule(desk, now, connection),
        Transmitted::Part => ready.mark_transmit(desk, connection),
        Transmitted::Full => ready.mark_blocked(desk, socket, connection),
    }
    if may_read {
        // What waited to be sent may have kept it from being read.
        connection.read_bell.ring();
    }
}

/// Gives QUIC data of one connection, at most so many file bytes, and sends what may go; how many it took.
pub(crate) fn transmit_data(
    desk: &Desk,
    ready: &mut Ready,
    scratch: &mut Vec<u8>,
    connection: &Rc<Connection>,
    bytes_max: u64,
) -> u64 {
    let mut link = connection.link();
    if link.queue.data().is_none() || link.life.is_closed() {
        return 0;
    }
    let bytes = link.give_data(now(), bytes_max);
    drop(link);
    desk.cells.data_out_bytes.add(bytes);
    transmit(desk, ready, scratch, connection);
    bytes
}
