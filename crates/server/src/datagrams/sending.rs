//! Datagrams on their way out of a shard.

use std::{io, rc::Rc};

use shards::datagrams::Transmit;

use crate::{
    connection::{Connection, packets::Sent},
    shard::{ShardState, now},
};

/// Sends the datagrams of all connections that have any.
pub(crate) fn send_ready(state: &ShardState) {
    loop {
        let Some(connection) = state.datagrams.ready.borrow_mut().pop_front() else { return };
        connection.marks.transmits.set(false);
        transmit(state, &connection);
    }
}

/// Sends what one connection has to say.
pub(super) fn transmit(state: &ShardState, connection: &Rc<Connection>) {
    if connection.link().life.is_closed() {
        return;
    }
    let now = now();
    let cells = &state.cells;
    let mut scratch = state.datagrams.scratch.borrow_mut();
    connection.link().transmit(now, &mut scratch, |route, contents| {
        let transmit = Transmit {
            destination: route.remote,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: route.local,
        };
        // What the kernel does not take is lost like anything else on its way.
        if let Err(error) = state.datagrams.sockets[usize::from(route.socket)].try_send(&transmit) {
            tracing::debug!(remote = %route.remote, "failed to send a datagram: {error}");
        }
        cells.datagrams_out.add(1);
        cells.datagrams_out_bytes.add(contents.len() as u64);
        cells.control_out_bytes.add(contents.len() as u64);
    });
    drop(scratch);
    cells.messages_resent.add(connection.link().take_resent());
    state.datagrams.schedule(now, connection);
    if connection.link().may_read() {
        // What waited to be sent may have kept it from being read.
        connection.read_bell.ring();
    }
}

/// Sends data of one connection; file bytes in it.
pub(crate) fn transmit_data(state: &ShardState, connection: &Rc<Connection>) -> u64 {
    let link = connection.link();
    if link.queue.data().is_none() || link.life.is_closed() {
        return 0;
    }
    drop(link);
    let (now, cells) = (now(), &state.cells);
    let mut scratch = state.datagrams.scratch.borrow_mut();
    let sockets = &state.datagrams.sockets;
    let segments_max = sockets.iter().map(|socket| socket.segments_max()).min().unwrap_or(1);
    let bytes =
        connection.link().transmit_data(now, segments_max, &mut scratch, |data, contents| {
            let segments = contents.len().div_ceil(data.segment_bytes);
            let transmit = Transmit {
                destination: data.route.remote,
                ecn: None,
                contents,
                segment_size: (segments > 1).then_some(data.segment_bytes),
                src_ip: data.route.local,
            };
            match sockets[usize::from(data.route.socket)].try_send(&transmit) {
                Ok(()) => {
                    cells.data_datagrams_out.add(segments as u64);
                    cells.data_datagrams_out_bytes.add(contents.len() as u64);
                    Sent::Taken
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let (waiting, bell) = &state.datagrams.blocked[usize::from(data.route.socket)];
                    waiting.borrow_mut().push(Rc::clone(connection));
                    bell.ring();
                    Sent::Full
                }
                Err(error) if is_too_long(&error) => Sent::TooLong,
                Err(error) => {
                    tracing::debug!(remote = %data.route.remote, "failed to send data: {error}");
                    Sent::Refused
                }
            }
        });
    drop(scratch);
    cells.data_out_bytes.add(bytes);
    let counts = connection.link().take_data_counts();
    cells.data_lost_bytes.add(counts.lost_bytes);
    cells.data_resent_bytes.add(counts.resent_bytes);
    state.datagrams.schedule(now, connection);
    bytes
}

/// What the kernel can take of these datagrams at once, but the path's first link can't carry.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}
