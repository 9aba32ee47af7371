//! UDP sockets of a shard: wait for readiness, then send and receive without blocking, several
//! datagrams a call where the kernel can (segmentation and receive offload).
//!
//! As with streams, the event loop never owns a buffer. Does not know what datagrams hold.

use std::{
    fmt, io,
    io::IoSliceMut,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

pub use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit};

/// What [`DatagramSocket::try_send`] takes: these bytes to `destination`, in datagrams of `segment_bytes`, of which
/// the last may be shorter. `source` is the address that they come from; without one the kernel chooses.
#[must_use]
pub fn transmit(
    destination: SocketAddr,
    source: Option<IpAddr>,
    contents: &[u8],
    segment_bytes: usize,
) -> Transmit<'_> {
    let segment_size = (contents.len() > segment_bytes).then_some(segment_bytes);
    Transmit { destination, ecn: None, contents, segment_size, src_ip: source }
}

use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::SockRef;

/// Bytes before a datagram's own that a link carries: headers of UDP, and of IPv4 or IPv6.
const HEADERS_V4_BYTES: u32 = 28;
const HEADERS_V6_BYTES: u32 = 48;

/// Bytes of the longest datagram that the first link to there carries, or that the system has learned the path to
/// carry; `None` if it can't say.
#[must_use]
pub fn longest_datagram(remote: SocketAddr) -> Option<u16> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Sends nothing: it asks for the route.
    socket.connect(remote).ok()?;
    let bytes = link_bytes(&socket, remote)?;
    Some(u16::try_from(bytes).unwrap_or(u16::MAX))
}

#[cfg(target_os = "linux")]
fn link_bytes(socket: &UdpSocket, remote: SocketAddr) -> Option<u32> {
    use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
    match remote {
        SocketAddr::V4(_) => {
            ip_mtu(socket).ok()?.min(u32::from(u16::MAX)).checked_sub(HEADERS_V4_BYTES)
        }
        SocketAddr::V6(_) => ipv6_mtu(socket).ok()?.checked_sub(HEADERS_V6_BYTES),
    }
}

#[cfg(not(target_os = "linux"))]
fn link_bytes(_: &UdpSocket, _: SocketAddr) -> Option<u32> {
    None
}

/// Bytes that one receive buffer must have: what the kernel puts together of equal datagrams.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a socket's receive buffer that are asked for; systems often allow less. As much as a sender
/// ever has under way: with 1 MiB a path of 1 Gbit/s whose queue others fill was not filled, as what lies
/// in that queue might lie in the socket. More would let a peer that does not read hold more.
pub const WISHED_BUFFER_BYTES: usize = 4 << 20;

/// Bytes of a socket's send buffer; the kernel doubles that and counts its own memory in. It is what datagrams may have
/// in a network card's queue, where Linux lets a stream have about a millisecond's worth ("TCP small queues"). So it
/// decides who gets how much of that card: at 100 Mbit/s and 1 Gbit/s datagrams got 0.8 and 0.4 times a stream's part
/// with 96 KiB, 0.9 and 1.0 times with 112 KiB, 1.6 and 0.9 times with 128 KiB (CUBIC, Linux 6.18).
const SEND_BUFFER_BYTES: usize = 112 << 10;

/// A UDP socket that belongs to this shard. One task may wait per direction.
pub struct DatagramSocket {
    socket: monoio::net::udp::UdpSocket,
    state: UdpSocketState,
    room_bytes: u32,
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("fd", &self.socket.as_raw_fd()).finish()
    }
}

impl AsFd for DatagramSocket {
    #[expect(unsafe_code, reason = "the event loop's socket lends its descriptor as a number only")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket owns the descriptor and closes it only when dropped, and the borrow
        // keeps the socket from being dropped.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

impl DatagramSocket {
    /// Takes a bound socket into this shard's event loop. Makes it non-blocking, keeps datagrams
    /// from being cut up on their way, and asks for the address that each was sent to.
    ///
    /// # Errors
    /// The system refuses, for example because descriptors to watch have run out.
    pub fn from_std(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // What the system allows: a smaller buffer is a smaller burst, nothing worse.
        SockRef::from(&socket).set_recv_buffer_size(WISHED_BUFFER_BYTES).ok();
        SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES).ok();
        let room_bytes = SockRef::from(&socket).recv_buffer_size()? / 2;
        let room_bytes = u32::try_from(room_bytes).unwrap_or(u32::MAX);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: monoio::net::udp::UdpSocket::from_std(socket)?, state, room_bytes })
    }

    /// Waits until a datagram is there, or an error.
    ///
    /// # Errors
    /// The event loop can't watch the socket.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable(false).await
    }

    /// Waits until a datagram would be taken.
    ///
    /// # Errors
    /// The event loop can't watch the socket.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable(false).await
    }

    /// Receives what is there, into as many buffers as there are, each of at least
    /// [`RECEIVE_BUFFER_BYTES`]; how many were used. A buffer may hold several datagrams of
    /// `stride` bytes each, the last one shorter.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing. What others say of earlier datagrams (no program listens
    /// there, and the like) is not an error of this socket and is left out.
    pub fn try_receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        loop {
            match self.state.recv(UdpSockRef::from(self), buffers, metas) {
                Err(error)
                    if [io::ErrorKind::Interrupted, io::ErrorKind::ConnectionRefused]
                        .contains(&error.kind()) => {}
                result => return result,
            }
        }
    }

    /// Sends one datagram, or several of `segment_size` bytes in one call.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel takes none now; otherwise why the datagram can't be sent.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        loop {
            match self.state.try_send(UdpSockRef::from(self), transmit) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Datagrams of equal size that one [`Self::try_send`] may hold.
    #[must_use]
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Bytes of datagrams that were not received yet that it surely holds: half of its buffer, since
    /// the kernel counts its own memory for them.
    #[must_use]
    pub fn room_bytes(&self) -> u32 {
        self.room_bytes
    }

    /// This end's address.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
