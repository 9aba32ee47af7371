//! TCP sockets of a shard: wait for readiness, then read and write without blocking.
//!
//! Data never goes through the event loop's own read and write operations: those lose bytes when
//! dropped, and hold buffers for as long as the other side pleases. Here a buffer is touched only
//! while a call runs. Does not resolve names, does not buffer.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketType,
        recv, recvmsg, sendmsg, socket, sockopt,
    },
};

use crate::chunk_files::ChunkFile;

/// A TCP connection that belongs to this shard. Share it between a reading and a writing task
/// by `Rc`; one task may wait per direction.
pub struct Socket {
    stream: monoio::net::TcpStream,
}

/// Most slices that one gathered write or scattered read takes; the kernel's own limit (`UIO_MAXIOV`).
pub const SLICES_MAX: usize = 1_024;

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.stream.as_raw_fd()).finish()
    }
}

impl AsFd for Socket {
    #[expect(unsafe_code, reason = "the event loop's stream lends its descriptor as a number only")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and closes it only when dropped, and the borrow
        // keeps the stream from being dropped.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

impl Socket {
    /// Takes a connected socket into this shard's event loop. Makes it non-blocking.
    ///
    /// # Errors
    /// The system refuses, for example because descriptors to watch have run out.
    pub fn from_std(stream: TcpStream) -> io::Result<Self> {
        // A blocking socket would stop every connection of the shard.
        stream.set_nonblocking(true)?;
        // The event loop takes the descriptor only if it accepts it: on an error `stream` closes.
        Ok(Self { stream: monoio::net::TcpStream::from_std(stream)? })
    }

    /// Connects. Dropping the future gives up and closes.
    ///
    /// # Errors
    /// The system's: refused, unreachable, timed out (after minutes, so add a timer).
    pub async fn connect(remote: SocketAddr) -> io::Result<Self> {
        let fd = new_socket(remote)?;
        let pending = match rustix::net::connect(&fd, &remote) {
            Ok(()) => false,
            // An interrupted connect goes on in the background, like one in progress.
            Err(Errno::INPROGRESS | Errno::INTR) => true,
            Err(error) => return Err(error.into()),
        };
        let socket = Self::from_std(TcpStream::from(fd))?;
        if pending {
            socket.writable().await?;
            sockopt::socket_error(&socket)??;
        }
        Ok(socket)
    }

    /// Waits until a read would bring bytes, the end, or an error.
    ///
    /// # Errors
    /// The event loop can't watch the socket.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    /// Waits until a write would take bytes or bring an error.
    ///
    /// # Errors
    /// The event loop can't watch the socket.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    /// Reads what is there, into the front of `buffer`. 0 is the end (or an empty buffer).
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; otherwise the connection's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                result => return Ok(result.map(|(count, _)| count)?),
            }
        }
    }

    /// As [`Self::try_read`], into the front of the first slice, then of the next. At most
    /// [`SLICES_MAX`] slices are looked at.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; otherwise the connection's.
    pub fn try_read_vectored(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = slices.len().min(SLICES_MAX);
        loop {
            let mut control = RecvAncillaryBuffer::default();
            match recvmsg(self, &mut slices[..count], &mut control, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                result => return Ok(result?.bytes),
            }
        }
    }

    /// Writes as much as the kernel takes now, from the front. At most [`SLICES_MAX`] slices are
    /// looked at.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing; otherwise the connection's. Never a signal.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(slices, SEND_FLAGS)
    }

    fn send(&self, slices: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(SLICES_MAX)];
        loop {
            let mut control = SendAncillaryBuffer::default();
            match sendmsg(self, slices, &mut control, flags) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// As [`Self::try_write_vectored`]; `more` follows at once, so what does not fill a packet may wait for that.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing; otherwise the connection's. Never a signal.
    pub fn try_write_before_more(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(slices, SEND_FLAGS.union(MORE))
    }

    /// Has the kernel send from a file, from `offset` on: its pages are referred to, not copied. May take less than it
    /// could (a signal, the end of a piece), which does not mean that it would block.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing; `UnexpectedEof` if the file ends before `offset`; otherwise the connection's
    /// or the file's. Never a signal.
    #[cfg(target_os = "linux")]
    pub fn try_send_file(&self, file: &ChunkFile, offset: u64, len: usize) -> io::Result<usize> {
        loop {
            let mut at = offset;
            match rustix::fs::sendfile(self, file, Some(&mut at), len) {
                Err(Errno::INTR) => {}
                Ok(0) if len > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => return Ok(result?),
            }
        }
    }

    /// Elsewhere there are no such files.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn try_send_file(&self, _: &ChunkFile, _: u64, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Written bytes that the other side's system has not acknowledged: the kernel keeps them.
    ///
    /// # Errors
    /// The system does not tell.
    #[cfg(target_os = "linux")]
    pub fn unacknowledged_bytes(&self) -> io::Result<u64> {
        use rustix::ioctl::{Getter, ioctl};
        #[expect(clippy::cast_possible_truncation, reason = "requests are numbers of 32 bits")]
        type Outstanding = Getter<{ libc::TIOCOUTQ as rustix::ioctl::Opcode }, libc::c_int>;
        #[expect(unsafe_code, reason = "no crate of ours has a safe wrapper for this request")]
        // SAFETY: for a socket this request is SIOCOUTQ, which writes one number of this type.
        let count = unsafe { ioctl(self, Outstanding::new()) }?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Elsewhere nothing is sent that would have to be known of.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(target_os = "linux"))]
    pub fn unacknowledged_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// When it is closed, the kernel forgets at once what was written and not acknowledged, and the other side sees
    /// the connection reset.
    ///
    /// # Errors
    /// The system's.
    pub fn reset_when_closed(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(self, Some(Duration::ZERO))?)
    }

    /// Closes a direction.
    ///
    /// # Errors
    /// The connection is already gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        use rustix::net::Shutdown as How;
        let how = match how {
            Shutdown::Read => How::Read,
            Shutdown::Write => How::Write,
            Shutdown::Both => How::Both,
        };
        Ok(rustix::net::shutdown(self, how)?)
    }

    /// This end's address.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn remote_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Whether small writes go out at once.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(self, nodelay)?)
    }
}

#[cfg(target_os = "linux")]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

#[cfg(target_os = "linux")]
const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
const MORE: SendFlags = SendFlags::empty();

fn new_socket(remote: SocketAddr) -> io::Result<OwnedFd> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    // Elsewhere than on Linux, sending has no flag for it.
    #[cfg(not(target_os = "linux"))]
    sockopt::set_socket_nosigpipe(&fd, true)?;
    Ok(fd)
}
