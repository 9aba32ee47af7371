//! Opens the TCP connection from a peer to a relay.
//!
//! Beside what [`Socket::connect`] does it sets options that only work before the connection is
//! made, and never blocks. Resolves no names, tries one address, doesn't try again.

use std::{io, net::SocketAddr, time::Duration};

use shards::net::Socket;
use socket2::{Domain, Protocol, TcpKeepalive, Type};

/// A relay's host that vanished without a word is noticed after so long of silence.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Bytes that are not acknowledged for so long end the connection; also bounds connecting.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// On loopback: bbr's pacing costs 1.6 to 2.4 times there, and stays on if it is changed once
/// the connection is made.
const LOOPBACK_CONGESTION: &[u8] = b"cubic";

/// Connects from this shard, which will also serve the connection.
///
/// # Errors
/// The system's.
pub async fn dial(remote: SocketAddr) -> io::Result<Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Grants and acknowledgements are small and must not wait for the ones before them.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    prepare_for_linux(&socket, remote)?;
    match socket.connect(&remote.into()) {
        Ok(()) => {}
        Err(error) if is_under_way(&error) => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::from_std(socket.into())?;
    socket.writable().await?;
    match socket2::SockRef::from(&socket).take_error()? {
        Some(error) => Err(error),
        None => Ok(socket),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        || error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(target_os = "linux")]
fn prepare_for_linux(socket: &socket2::Socket, remote: SocketAddr) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    if remote.ip().is_loopback() {
        // A kernel without it is merely slower.
        drop(socket.set_tcp_congestion(LOOPBACK_CONGESTION));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn prepare_for_linux(_: &socket2::Socket, _: SocketAddr) -> io::Result<()> {
    Ok(())
}
