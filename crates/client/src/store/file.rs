//! Content in a file: chunks are written where they belong once they are verified, by a disk
//! thread. What is read is checked before it is given away: others may write to the file, too.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
use shards::bell::LocalBell;

use super::{
    contract::{ChunkStore, StoreEvent},
    disk::{DISK_QUEUE_BYTES_MAX, Disk, Mailbox},
};
use crate::hashing::chunk_checksum;
use relay_protocol::{Digest, SwarmKey, digest_chunk, limits::CHUNK_SIZE_LOG2_MAX};

/// Bytes of one file that wait to be written, at most, before its connection is read no further.
/// Grants keep an honest relay far below; two of the largest chunks, so that one may arrive while
/// one is written.
const STORE_QUEUE_BYTES_MAX: u64 = 2 << CHUNK_SIZE_LOG2_MAX;

/// Content in a file.
#[derive(Debug)]
pub struct FileStore {
    key: SwarmKey,
    file: Arc<File>,
    is_writable: bool,
    /// Of each chunk, where they are known.
    checksums: Option<Arc<[u64]>>,
    disk: Disk,
    mailbox: Mailbox,
    /// Bytes that wait to be written.
    queued_bytes: Rc<Cell<u64>>,
}

impl FileStore {
    /// A new file of the right length at `path`; what was there is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn create(key: SwarmKey, path: &Path, disk: &Disk) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(key.size_bytes)?;
        Ok(Self::new(key, file, true, disk))
    }

    /// An existing file, only to be read.
    ///
    /// # Errors
    /// The system's, or the file is of another length than the key says.
    pub fn open(key: SwarmKey, path: &Path, disk: &Disk) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        if len != key.size_bytes {
            let text = format!("it has {len} bytes now and had {}", key.size_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self::new(key, file, false, disk))
    }

    /// A file that the caller opened, of the right length.
    #[must_use]
    pub fn new(key: SwarmKey, file: impl Into<Arc<File>>, is_writable: bool, disk: &Disk) -> Self {
        Self {
            key,
            file: file.into(),
            is_writable,
            checksums: None,
            disk: disk.clone(),
            mailbox: Mailbox::default(),
            queued_bytes: Rc::default(),
        }
    }

    /// Knows each chunk's [`chunk_checksum`], and checks what it reads by that instead of the digest.
    /// For a file that is only read: 1 GiB from a share to a get, and all between, costs a tenth less
    /// processor time.
    ///
    /// # Panics
    /// If it is written to, or has another number of chunks.
    #[must_use]
    pub fn with_checksums(self, checksums: Arc<[u64]>) -> Self {
        assert!(!self.is_writable, "what is written has other checksums");
        assert_eq!(checksums.len(), self.key.chunk_count() as usize, "one for each chunk");
        Self { checksums: Some(checksums), ..self }
    }
}

impl ChunkStore for FileStore {
    fn keeps_bytes(&self) -> bool {
        self.is_writable
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.mailbox.watch(bell);
        true
    }

    fn put(&mut self, chunk: u32, bytes: Bytes) {
        let (file, mailbox) = (Arc::clone(&self.file), self.mailbox.clone());
        let queued_bytes = Rc::clone(&self.queued_bytes);
        let (offset, len) = (self.key.chunk_offset_bytes(chunk), bytes.len() as u64);
        queued_bytes.set(queued_bytes.get() + len);
        self.disk.write(
            bytes,
            move |bytes| file.write_all_at(bytes, offset),
            move |result| {
                queued_bytes.set(queued_bytes.get() - len);
                mailbox.push(StoreEvent::Kept { chunk, result });
            },
        );
    }

    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        let (file, mailbox, key) = (Arc::clone(&self.file), self.mailbox.clone(), self.key);
        let checksums = self.checksums.clone();
        self.disk.read(
            move || {
                let is_right = |bytes: &[u8]| match &checksums {
                    Some(checksums) => chunk_checksum(bytes) == checksums[chunk as usize],
                    None => digest_chunk(&key, chunk, bytes) == digest,
                };
                read_chunk(&file, &key, chunk, is_right)
            },
            move |result| mailbox.push(StoreEvent::Read { tag, chunk, result }),
        );
        Ok(None)
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.mailbox.pop()
    }

    fn is_full(&self) -> bool {
        let own = self.queued_bytes.get();
        // A store that waits for nothing of its own would never hear that there is room again.
        own > STORE_QUEUE_BYTES_MAX || own > 0 && self.disk.queued_bytes() > DISK_QUEUE_BYTES_MAX
    }
}

/// Reads a chunk and checks that it still is what it was.
fn read_chunk(
    file: &File,
    key: &SwarmKey,
    chunk: u32,
    is_right: impl Fn(&[u8]) -> bool,
) -> io::Result<Bytes> {
    let changed = |how: String| io::Error::new(io::ErrorKind::InvalidData, how);
    let len = key.chunk_len_bytes(chunk) as usize;
    let offset = key.chunk_offset_bytes(chunk);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let position = offset + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), position) {
            Ok(0) => {
                let size_bytes = key.size_bytes;
                return Err(changed(format!("the file has shrunk: it had {size_bytes} bytes")));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more than was asked for.
    bytes.truncate(len);
    if !is_right(&bytes) {
        return Err(changed(format!("the file has changed at bytes {offset} and following")));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
