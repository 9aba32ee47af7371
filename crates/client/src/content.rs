//! Where the bytes of what is shared or got lie: one file, or a [`tree`](super::tree) of them. They are read and
//! written by their place, from any thread. Blocks: for threads without an event loop.

pub mod prefix;
pub mod sparse;
pub(crate) mod zeros;

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _};

use rustix::{
    buffer::spare_capacity,
    fs::SeekFrom,
    io::{Errno, pread},
};

/// A string of bytes that lies on disk.
pub trait Content: fmt::Debug + Send + Sync {
    /// Its length, as it is now.
    ///
    /// # Errors
    /// The system's.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Appends what stands at this place to `bytes`, as far as these have room: how many bytes came, 0 only at the end
    /// of the content or if there is no room.
    ///
    /// # Errors
    /// The system's, or what is there is not what it was.
    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize>;

    /// Writes all of these bytes to this place.
    ///
    /// # Errors
    /// The system's.
    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()>;

    /// Where the next bytes are that are no hole, at or after `offset_bytes` and before `end_bytes`. Where the system
    /// can't tell, all is data.
    ///
    /// # Errors
    /// The system's.
    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>>;
}

/// Puts `len` bytes from this place into `bytes`, instead of what was there: how many there were, fewer only if the
/// content ends before.
///
/// # Errors
/// The system's, or what is there is not what it was.
pub fn read_at(
    content: &dyn Content,
    bytes: &mut Vec<u8>,
    len: usize,
    offset_bytes: u64,
) -> io::Result<usize> {
    bytes.clear();
    bytes.reserve(len);
    while bytes.len() < len {
        if content.append_at(bytes, offset_bytes + bytes.len() as u64)? == 0 {
            break;
        }
    }
    // There may have been more room than was asked for.
    bytes.truncate(len);
    Ok(bytes.len())
}

/// Whether the content holds anything but holes.
///
/// # Errors
/// The system's.
pub fn has_data(content: &dyn Content) -> io::Result<bool> {
    let end = content.size_bytes()?;
    Ok(content.next_data(0, end)?.is_some())
}

impl Content for File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        loop {
            match pread(self, spare_capacity(bytes), offset_bytes) {
                Err(Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }

    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset_bytes)
    }

    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>> {
        if offset_bytes >= end_bytes {
            return Ok(None);
        }
        match rustix::fs::seek(self, SeekFrom::Data(offset_bytes)) {
            // It may have been cut off meanwhile.
            Ok(start) => Ok(Some(start).filter(|&start| start < end_bytes)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(Some(offset_bytes)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a file goes on where the system says that it ends. Asks once.
///
/// # Errors
/// The system's.
pub fn holds_more(file: &File, size_bytes: u64) -> io::Result<bool> {
    loop {
        match file.read_at(&mut [0], size_bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map(|count| count > 0),
        }
    }
}
