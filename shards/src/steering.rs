//! UDP sockets that share one port, one for each shard, and how a datagram finds the right one.
//!
//! On Linux the kernel runs a tiny program on each datagram that picks the socket by the first byte of the datagram's
//! connection id, as QUIC lays it out (RFC 8999). Elsewhere, or where the program is refused, any of the sockets gets it, and the
//! receiver must pass it on.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// The sockets of one address.
#[derive(Debug)]
pub struct DatagramGroup {
    /// One for each shard, by its number.
    pub sockets: Vec<UdpSocket>,
    /// Whether the kernel steers: socket `first byte of the connection id % sockets.len()` gets the datagram.
    pub is_steered: bool,
}

/// Binds `count` sockets to one address with a port. Its owner makes sure that no other program takes
/// the port: it is refused if another socket has it already.
///
/// # Errors
/// The address is in use, or not available.
pub fn bind_group(addr: SocketAddr, count: usize, steers: bool) -> io::Result<DatagramGroup> {
    // Sockets that share a port accept others that want to: one that doesn't finds out first.
    let alone = new_socket(addr)?;
    alone.bind(&addr.into())?;
    drop(alone);
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = new_socket(addr)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        sockets.push(socket);
    }
    let is_steered = match sockets.first() {
        Some(first) if steers && count > 1 => match attach(first, count) {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%addr, "datagrams are passed on between shards: {error}");
                false
            }
        },
        _ => count == 1,
    };
    Ok(DatagramGroup { sockets: sockets.into_iter().map(UdpSocket::from).collect(), is_steered })
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where the connection id begins: in a short header behind the first byte, in a long one behind version and length.
#[cfg(target_os = "linux")]
const ID_AT_SHORT: u32 = 1;
#[cfg(target_os = "linux")]
const ID_AT_LONG: u32 = 6;

/// The bit of the first byte that a long header has.
#[cfg(target_os = "linux")]
const LONG_HEADER: u32 = 0x80;

/// Makes the kernel pick socket `first byte of the connection id % count` of the group; the first one for what is too
/// short to have an id.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "this socket option has no safe wrapper in any crate of ours")]
fn attach(socket: &Socket, count: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let count = u32::try_from(count).map_err(io::Error::other)?;
    let jump = |code: u32, k: u32, jt: u8| {
        let code = u16::try_from(code).expect("instructions are 16 bits");
        libc::sock_filter { code, jt, jf: 0, k }
    };
    let step = |code: u32, k: u32| jump(code, k, 0);
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let mut program = [
        step(load_byte, 0),
        jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, LONG_HEADER, 2),
        step(load_byte, ID_AT_SHORT),
        step(libc::BPF_JMP | libc::BPF_JA, 1),
        step(load_byte, ID_AT_LONG),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
        step(libc::BPF_RET | BPF_A, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a few"),
        filter: program.as_mut_ptr(),
    };
    let size = libc::socklen_t::try_from(size_of_val(&program)).expect("a few bytes");
    // SAFETY: the descriptor is open, and the kernel copies the program that the structure points
    // to, of the stated length, before it returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// "Return the accumulator", of linux/filter.h.
#[cfg(target_os = "linux")]
const BPF_A: u32 = 0x10;

#[cfg(not(target_os = "linux"))]
fn attach(_: &Socket, _: usize) -> io::Result<()> {
    Err(io::Error::other("this system has no program that steers datagrams"))
}
