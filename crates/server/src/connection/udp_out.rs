//! Datagrams on their way out of a shard.
//!
//! What is in them, and when, is the link's business ([`super::packets`]).

use std::{io, rc::Rc};

use shards::datagrams;

use super::{Connection, packets::Sent};
use crate::shard::{
    desk::{Desk, now},
    ready::Ready,
};

/// Sends the datagrams of all connections that have any.
pub(crate) fn send_ready(desk: &Desk, ready: &mut Ready, scratch: &mut Vec<u8>) {
    while let Some(connection) = ready.pop_transmit() {
        transmit(desk, ready, scratch, &connection);
    }
}

/// Sends what one connection has to say.
pub(crate) fn transmit(
    desk: &Desk,
    ready: &mut Ready,
    scratch: &mut Vec<u8>,
    connection: &Connection,
) {
    let mut link = connection.link();
    if link.life.is_closed() {
        return;
    }
    let now = now();
    let cells = &desk.cells;
    link.transmit(now, scratch, |route, contents| {
        let transmit = datagrams::transmit(route.remote, route.local, contents, contents.len());
        // What the kernel does not take is lost like anything else on its way.
        if let Err(error) = desk.sockets.of(route.socket).try_send(&transmit) {
            tracing::debug!(remote = %route.remote, "failed to send a datagram: {error}");
        }
        cells.datagrams_out.add(1);
        cells.datagrams_out_bytes.add(contents.len() as u64);
        cells.control_out_bytes.add(contents.len() as u64);
    });
    cells.messages_resent.add(link.take_resent());
    let may_read = link.may_read();
    drop(link);
    ready.schedule(desk, now, connection);
    if may_read {
        // What waited to be sent may have kept it from being read.
        connection.read_bell.ring();
    }
}

/// Sends data of one connection, at most so many file bytes; those in it.
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
    let (now, cells) = (now(), &desk.cells);
    let most = (bytes_max, desk.sockets.segments_max());
    let bytes = link.transmit_data(now, most, scratch, |data, contents| {
        let segments = contents.len().div_ceil(data.segment_bytes);
        let route = data.route;
        let transmit = datagrams::transmit(route.remote, route.local, contents, data.segment_bytes);
        match desk.sockets.of(data.route.socket).try_send(&transmit) {
            Ok(()) => {
                cells.data_datagrams_out.add(segments as u64);
                cells.data_datagrams_out_bytes.add(contents.len() as u64);
                Sent::Taken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.mark_blocked(desk, data.route.socket, connection);
                Sent::Full
            }
            Err(error) if is_too_long(&error) => Sent::TooLong,
            Err(error) => {
                tracing::debug!(remote = %data.route.remote, "failed to send data: {error}");
                Sent::Refused
            }
        }
    });
    cells.data_out_bytes.add(bytes);
    let counts = link.take_data_counts();
    drop(link);
    cells.data_lost_bytes.add(counts.lost_bytes);
    cells.data_resent_bytes.add(counts.resent_bytes);
    ready.schedule(desk, now, connection);
    bytes
}

/// What the kernel can take of these datagrams at once, but the path's first link can't carry.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}
