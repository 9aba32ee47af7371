//! Wakes a shard from any thread, by a file descriptor that its event loop watches.
//!
//! An eventfd on Linux, a socket pair elsewhere. Carries no data: what woke the shard lies in an
//! inbox or in some state that the shard looks at.

use std::{io, os::fd::OwnedFd, sync::Arc};

use rustix::io::Errno;

use crate::doorbell::Doorbell;

/// Lets any thread ring a shard's doorbell. Cheap to clone; outlives the shard harmlessly.
#[derive(Clone, Debug)]
pub struct Ringer(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    doorbell: Doorbell,
    write_end: OwnedFd,
}

/// The watched end; goes to the shard's event loop.
#[derive(Debug)]
pub(crate) struct BellSocket {
    read_end: OwnedFd,
    /// Rings once more, until the event loop watches it.
    watched_end: Option<OwnedFd>,
}

impl Ringer {
    /// A doorbell and the end that its shard watches.
    pub(crate) fn new() -> io::Result<(Self, BellSocket)> {
        let (read_end, write_end) = descriptors()?;
        let ringer = Self(Arc::new(Bell { doorbell: Doorbell::default(), write_end }));
        let watched_end = Some(read_end.try_clone()?);
        Ok((ringer, BellSocket { read_end, watched_end }))
    }

    /// Makes the shard look around: its `Port::wait` returns. No system call if the shard is
    /// awake. Several rings before it looks count as one.
    pub fn ring(&self) {
        self.0.doorbell.call();
        self.announce();
    }

    /// Rings if the shard is parked. The caller has put something into an inbox before.
    pub(crate) fn announce(&self) {
        if self.0.doorbell.take_parked() {
            self.write();
        }
    }

    /// Whether both ring the same shard.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.0.doorbell
    }

    fn write(&self) {
        loop {
            match rustix::io::write(&self.0.write_end, &1_u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // Full means that rings lie unread: the shard is going to wake anyway.
                // A closed read end means that the shard is gone.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

impl BellSocket {
    /// Takes all rings, without blocking.
    pub(crate) fn drain(&self) {
        // A socket pair may hold several; an eventfd is empty after one.
        let mut rings = [0_u8; 512];
        loop {
            match rustix::io::read(&self.read_end, &mut rings) {
                Err(Errno::INTR) => {}
                Ok(count) if count == rings.len() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Blocks until there is a ring; false after `patience`. For threads without an event loop.
    #[cfg(test)]
    pub(crate) fn wait(&self, patience: std::time::Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let timeout = Timespec::try_from(patience).expect("a short time");
        let mut watched = [PollFd::new(&self.read_end, PollFlags::IN)];
        poll(&mut watched, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    /// A second handle for the event loop, which wants to own what it watches. It was made with the
    /// first: a shard must not need a descriptor when peers may have taken them all. The library has
    /// no type for an eventfd, but readiness is all that is asked of this stream.
    ///
    /// # Panics
    /// If it was taken before.
    pub(crate) fn watched(&mut self) -> io::Result<monoio::net::UnixStream> {
        let watched = self.watched_end.take().expect("one event loop watches the doorbell");
        monoio::net::UnixStream::from_std(watched.into())
    }
}

#[cfg(target_os = "linux")]
fn descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::event::{EventfdFlags, eventfd};

    let write_end = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    Ok((write_end.try_clone()?, write_end))
}

#[cfg(not(target_os = "linux"))]
fn descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = std::os::unix::net::UnixStream::pair()?;
    read_end.set_nonblocking(true)?;
    write_end.set_nonblocking(true)?;
    Ok((read_end.into(), write_end.into()))
}
