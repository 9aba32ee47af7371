//! The socket of a channel that runs in datagrams, and what wakes the tasks that watch it.
//!
//! Sends what is due. Receiving is the business of [`super::datagram_tasks`].

use std::{cell::Cell, io, net::SocketAddr};

use shards::{
    bell::LocalBell,
    datagrams::{DatagramSocket, transmit},
};

use relay_protocol::time::Time;
use relay_transport::{Datagrams, data::CongestionControl};

/// The socket of one connection's datagrams.
pub(super) struct ConnectionDatagrams {
    pub(super) socket: DatagramSocket,
    /// Rung when something is due earlier than the timer waits for.
    pub(super) timer: LocalBell,
    /// What the timer waits for.
    pub(super) timer_due: Cell<Time>,
    /// Rung when the socket had no room for data.
    pub(super) full: LocalBell,
    /// Rung when the connection has ended.
    pub(super) ended: LocalBell,
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
        })
    }

    /// Data runs in these datagrams, too.
    pub(super) fn open_data(&self, stream: &shards::Socket, datagrams: &mut Datagrams) {
        datagrams.open_data(congestion_control(stream), self.socket.room_bytes());
    }

    /// The connection has ended: the tasks end.
    pub(super) fn end(&self) {
        self.ended.ring();
        self.full.ring();
        self.timer.ring();
    }

    /// Sends the datagrams that are to go now, with at most so many file bytes; those that went.
    pub(super) fn transmit(&self, now: Time, bytes_max: u64, datagrams: &mut Datagrams) -> u64 {
        let (mut contents, mut sent) = (Vec::new(), 0);
        while let Some(route) = datagrams.poll_transmit(now, &mut contents) {
            let transmit = transmit(route.remote, None, &contents, contents.len());
            // What the kernel does not take is lost like anything else on its way.
            if let Err(error) = self.socket.try_send(&transmit) {
                tracing::debug!(remote = %route.remote, "failed to send a datagram: {error}");
            }
            contents.clear();
        }
        let segments_max = self.socket.segments_max();
        while let Some(data) =
            datagrams.poll_data(now, bytes_max - sent, segments_max, &mut contents)
        {
            let transmit = transmit(data.route.remote, None, &contents, data.segment_bytes);
            if let Err(error) = self.socket.try_send(&transmit) {
                if error.kind() == io::ErrorKind::WouldBlock {
                    datagrams.data_mut().expect("just sent by it").handle_unsent(data.first);
                    self.full.ring();
                    break;
                }
                tracing::debug!(remote = %data.route.remote, "failed to send data: {error}");
                if error.raw_os_error() != Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
                    break;
                }
                // Too long, mostly a probe: shorter ones may go.
                datagrams.data_mut().expect("just sent by it").handle_refused();
            }
            sent += data.data_bytes;
            contents.clear();
        }
        if datagrams.poll_timeout() < self.timer_due.get() {
            self.timer.ring();
        }
        sent
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
