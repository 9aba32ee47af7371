//! Files in memory that hold one chunk each, for the kernel to send from without copying.
//!
//! The kernel keeps a page for as long as any socket refers to it. A file of its own gives a chunk the right life:
//! its pages are written once, before any socket may refer to them, and never again. When the last [`ChunkFile`] is
//! dropped, what still lies in sockets outlives it, as a copy would.
//!
//! What lies in sockets has a bound of its own. A connection takes a [`Pin`] before it sends from a file, and drops it
//! when the kernel says that the other side has all of that.
//!
//! **Invariant.** `pinned bytes = sum of the files that a pin refers to ≤ bound`, whether they are dropped or not.
//!
//! Where such files come from is in [`place`]. Does not lease: the owner of a file sees to it that what it
//! takes is within a budget.

#[cfg(target_os = "linux")]
mod mount;
pub mod place;

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

/// What a file of so many bytes takes, at least: whole pages of this system. Large pages are whole numbers of these.
#[must_use]
pub fn taken_bytes(len: usize) -> usize {
    len.next_multiple_of(rustix::param::page_size())
}

/// Where chunk files are made, and how many there may be. Clones are the same place.
#[derive(Clone)]
pub struct ChunkFiles(Arc<Inner>);

struct Inner {
    directory: OwnedFd,
    files: AtomicUsize,
    files_max: usize,
    bytes: AtomicUsize,
    bytes_peak: AtomicUsize,
    pinned: AtomicUsize,
    pinned_max: usize,
}

impl fmt::Debug for ChunkFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkFiles").field("files", &self.count()).finish_non_exhaustive()
    }
}

impl ChunkFiles {
    /// Files in this directory: at most `files_max` (each has a descriptor), of which sockets may refer to
    /// `pinned_max` bytes.
    #[must_use]
    pub fn new(directory: OwnedFd, files_max: usize, pinned_max: usize) -> Self {
        Self(Arc::new(Inner {
            directory,
            files: AtomicUsize::new(0),
            files_max,
            bytes: AtomicUsize::new(0),
            bytes_peak: AtomicUsize::new(0),
            pinned: AtomicUsize::new(0),
            pinned_max,
        }))
    }

    /// A file of these parts, one behind the other. None: there are as many files as there may be.
    ///
    /// # Errors
    /// The system's: no memory, no descriptor.
    pub fn create(&self, parts: &[IoSlice<'_>]) -> io::Result<Option<ChunkFile>> {
        if self.0.files.fetch_add(1, SeqCst) >= self.0.files_max {
            self.0.files.fetch_sub(1, SeqCst);
            return Ok(None);
        }
        // From here on its drop takes it off the count.
        let mut place = Counted { bytes: 0, files: self.clone() };
        let file = unnamed_file(&self.0.directory)?;
        write_all(&file, parts)?;
        place.count(memory_taken(&file)?);
        let pins =
            Arc::new(Pins { bytes: place.bytes, count: AtomicUsize::new(0), files: self.clone() });
        Ok(Some(ChunkFile { file, pins, place }))
    }

    /// Files that exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.files.load(SeqCst)
    }

    /// What they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(SeqCst)
    }

    /// The most that they ever took at a time.
    #[must_use]
    pub fn bytes_peak(&self) -> usize {
        self.0.bytes_peak.load(SeqCst)
    }

    /// Of files that exist and files that are dropped: what sockets may refer to.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.0.pinned.load(SeqCst)
    }

    /// Counts what sockets may refer to from now on, if it may be that much.
    fn pin(&self, bytes: usize) -> bool {
        let fits = self.0.pinned.fetch_add(bytes, SeqCst) + bytes <= self.0.pinned_max;
        if !fits {
            self.0.pinned.fetch_sub(bytes, SeqCst);
        }
        fits
    }
}

/// Writes these parts to an empty file. A tmpfs takes less only when it is full.
fn write_all(file: &OwnedFd, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if rustix::io::writev(file, parts)? != len {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// What a file takes, as the system says: in units of 512 bytes, whatever its blocks are.
fn memory_taken(file: &OwnedFd) -> io::Result<usize> {
    let blocks = u64::try_from(rustix::fs::fstat(file)?.st_blocks).unwrap_or(0);
    Ok(usize::try_from(blocks * 512).unwrap_or(usize::MAX))
}

#[cfg(target_os = "linux")]
fn unnamed_file(directory: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(openat(directory, c".", flags, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed_file(_: &OwnedFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A file's place among those that there may be.
#[derive(Debug)]
struct Counted {
    bytes: usize,
    files: ChunkFiles,
}

impl Counted {
    fn count(&mut self, bytes: usize) {
        self.bytes = bytes;
        let inner = &self.files.0;
        let now = inner.bytes.fetch_add(bytes, SeqCst) + bytes;
        inner.bytes_peak.fetch_max(now, SeqCst);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.files.0.bytes.fetch_sub(self.bytes, SeqCst);
        self.files.0.files.fetch_sub(1, SeqCst);
    }
}

/// A file that was written once. The last drop frees what no socket refers to.
#[derive(Debug)]
pub struct ChunkFile {
    file: OwnedFd,
    pins: Arc<Pins>,
    place: Counted,
}

impl ChunkFile {
    /// What it takes.
    #[must_use]
    pub fn taken_bytes(&self) -> usize {
        self.place.bytes
    }

    /// To be held from before a socket may refer to the file until it no longer does. None: sockets may refer to no
    /// more than they do.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        Pins::add(&self.pins).then(|| Pin(Arc::clone(&self.pins)))
    }

    /// Appends `len` bytes from `offset` on.
    ///
    /// # Errors
    /// The system's, for example when pages were swapped out and can't be read back.
    pub fn append_to(&self, out: &mut Vec<u8>, offset: usize, len: usize) -> io::Result<()> {
        let (start, mut done) = (out.len(), 0);
        out.resize(start + len, 0);
        while done < len {
            let at = (offset + done) as u64;
            match rustix::io::pread(&self.file, &mut out[start + done..], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for ChunkFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How many connections may have bytes of one file in their sockets.
#[derive(Debug)]
struct Pins {
    bytes: usize,
    count: AtomicUsize,
    files: ChunkFiles,
}

impl Pins {
    /// One more, if the bound allows it. The file is counted before the first pin exists and until the last is gone.
    fn add(self: &Arc<Self>) -> bool {
        let mut count = self.count.load(SeqCst);
        loop {
            let is_first = count == 0;
            if is_first && !self.files.pin(self.bytes) {
                return false;
            }
            match self.count.compare_exchange(count, count + 1, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => {
                    if is_first {
                        self.files.0.pinned.fetch_sub(self.bytes, SeqCst);
                    }
                    count = now;
                }
            }
        }
    }
}

/// One connection's right to have bytes of a file in its socket.
#[derive(Debug)]
pub struct Pin(Arc<Pins>);

impl Pin {
    /// Whether it is of this file.
    #[must_use]
    pub fn is_of(&self, file: &ChunkFile) -> bool {
        Arc::ptr_eq(&self.0, &file.pins)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, SeqCst) == 1 {
            self.0.files.0.pinned.fetch_sub(self.0.bytes, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;
