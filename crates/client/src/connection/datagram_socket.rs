//! The socket of the channels that run in datagrams, and what wakes the tasks that watch it.
//!
//! Sends what is due. Receiving is the business of [`super::datagram_tasks`].

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
};

use shards::{
    bell::LocalBell,
    datagrams::{DatagramSocket, longest_datagram, transmit},
};

use relay_protocol::time::Time;
use relay_transport::{
    Datagrams, WRITE_BYTES_MAX,
    datagrams::{CongestionControl, PathSettings},
};

/// The socket of one connection's datagrams.
pub(super) struct ConnectionDatagrams {
    pub(super) socket: DatagramSocket,
    /// Rung when something is due earlier than the timer waits for.
    pub(super) timer: LocalBell,
    /// What the timer waits for.
    pub(super) timer_due: Cell<Time>,
    /// Rung when the socket had no room.
    pub(super) full: LocalBell,
    /// Rung when the connection has ended.
    pub(super) ended: LocalBell,
    /// Where datagrams are made; empty between calls.
    scratch: RefCell<Vec<u8>>,
}

impl ConnectionDatagrams {
    /// On the address that the stream uses, so that datagrams take the same path.
    pub(super) fn open(stream: &shards::Socket) -> io::Result<Self> {
        let mut local: SocketAddr = stream.local_addr()?;
        local.set_port(0);
        Ok(Self {
            socket: DatagramSocket::from_std(std::net::UdpSocket::bind(local)?)?,
            timer: LocalBell::new(),
            timer_due: Cell::new(Time::ZERO),
            full: LocalBell::new(),
            ended: LocalBell::new(),
            scratch: RefCell::default(),
        })
    }

    /// What QUIC is to know of the way to there.
    pub(super) fn path(&self, stream: &shards::Socket, remote: SocketAddr) -> PathSettings {
        PathSettings {
            congestion: congestion_control(stream),
            room_bytes: self.socket.room_bytes(),
            datagram_bytes_max: longest_datagram(remote),
            is_local: stream.local_addr().is_ok_and(|local| local.ip() == remote.ip()),
        }
    }

    /// The connection has ended: the tasks end.
    pub(super) fn end(&self) {
        self.ended.ring();
        self.full.ring();
        self.timer.ring();
    }

    /// Sends the datagrams that are to go now, as many as a turn lets through; whether there are more.
    pub(super) fn transmit(&self, now: Time, datagrams: &mut Datagrams) -> bool {
        let contents = &mut *self.scratch.borrow_mut();
        let (segments_max, mut sent_bytes) = (self.socket.segments_max(), 0);
        while sent_bytes < WRITE_BYTES_MAX {
            contents.clear();
            let Some(way) = datagrams.poll_transmit(now, segments_max, contents) else { break };
            let transmit = transmit(way.route.remote, None, contents, way.segment_bytes);
            match self.socket.try_send(&transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    datagrams.handle_unsent(way, contents);
                    self.full.ring();
                    break;
                }
                Ok(()) => {}
                // What the kernel does not take is lost like anything else on its way: a datagram that is only
                // long, to try the path, or one that finds no way now.
                Err(error) => {
                    tracing::debug!(remote = %way.route.remote, "failed to send: {error}")
                }
            }
            sent_bytes += contents.len();
        }
        if datagrams.poll_timeout().is_some_and(|due| due < self.timer_due.get()) {
            self.timer.ring();
        }
        datagrams.wants_transmit()
    }
}

/// As the stream's, so that its datagrams are no rougher than it is.
#[cfg(target_os = "linux")]
fn congestion_control(stream: &shards::Socket) -> CongestionControl {
    let name = rustix::net::sockopt::tcp_congestion(stream);
    name.map(|name| CongestionControl::like_tcp(&name)).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn congestion_control(_: &shards::Socket) -> CongestionControl {
    CongestionControl::default()
}
