//! Content in a file: chunks are written where they belong once they are verified, by a disk
//! thread. What is read is checked before it is given away: others may write to the file, too.
//!
//! In the file lies what people see. Of a sealed one the disk thread opens what it writes, and seals what it
//! reads; what it gives away has the digest that the swarm knows, or is not given away: a checksum would not do,
//! as a second content under one key tells what both are.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io,
    path::Path,
    rc::Rc,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use shards::bell::LocalBell;

use super::{
    contract::{ChunkStore, StoreEvent},
    disk::{DISK_QUEUE_BYTES_MAX, Disk, Mailbox},
};
use crate::{
    content::{Content, read_at},
    hashing::chunk_checksum,
    sealing::{Opening, Seal},
};
use relay_protocol::{Digest, SwarmKey, digest_chunk, limits::CHUNK_SIZE_LOG2_MAX};

/// Bytes of one file that wait to be written, at most, before its connection is read no further.
/// Grants keep an honest relay far below; two of the largest chunks, so that one may arrive while
/// one is written.
const STORE_QUEUE_BYTES_MAX: u64 = 2 << CHUNK_SIZE_LOG2_MAX;

/// Content in a file.
#[derive(Debug)]
pub struct FileStore {
    key: SwarmKey,
    content: Arc<dyn Content>,
    is_writable: bool,
    /// Of each chunk, where they are known.
    checksums: Option<Arc<[u64]>>,
    /// How the file is sealed, if it is.
    seal: Option<Seal>,
    /// Is told of what was opened.
    opening: Option<Opening>,
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
        Ok(Self::new(key, Arc::new(file), true, disk))
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
        Ok(Self::new(key, Arc::new(file), false, disk))
    }

    /// What the caller opened, of the right length.
    #[must_use]
    pub fn new(key: SwarmKey, content: Arc<dyn Content>, is_writable: bool, disk: &Disk) -> Self {
        Self {
            key,
            content,
            is_writable,
            checksums: None,
            seal: None,
            opening: None,
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
        assert!(self.seal.is_none(), "what is sealed is checked by digests");
        assert_eq!(checksums.len(), self.key.chunk_count() as usize, "one for each chunk");
        Self { checksums: Some(checksums), ..self }
    }

    /// Seals what it reads: what the swarm moves is not what lies in the file.
    ///
    /// # Panics
    /// It has checksums, or is written to without an [`Opening`].
    #[must_use]
    pub fn with_seal(self, seal: Seal) -> Self {
        assert!(!self.is_writable, "what is opened is told to somebody");
        assert!(self.checksums.is_none(), "what is sealed is checked by digests");
        Self { seal: Some(seal), ..self }
    }

    /// Opens what it writes, seals what it reads, and tells what was opened. The chunk that makes the file whole
    /// is not kept if the file is not the ticket's.
    #[must_use]
    pub fn with_opening(self, opening: Opening) -> Self {
        Self { seal: Some(opening.seal().clone()), opening: Some(opening), ..self }
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
        let (content, mailbox, key) = (Arc::clone(&self.content), self.mailbox.clone(), self.key);
        let queued_bytes = Rc::clone(&self.queued_bytes);
        let len = bytes.len() as u64;
        let (seal, opening) = (self.seal.clone(), self.opening.clone());
        queued_bytes.set(queued_bytes.get() + len);
        let write = move |bytes: Bytes| {
            let (bytes, plain) = opened(seal.as_ref(), &key, chunk, bytes);
            content.overwrite_at(&bytes, key.chunk_offset_bytes(chunk)).map(|()| plain)
        };
        self.disk.write(bytes, write, move |result| {
            queued_bytes.set(queued_bytes.get() - len);
            let result = result.and_then(|plain| note(opening.as_ref(), chunk, plain));
            mailbox.push(StoreEvent::Kept { chunk, result });
        });
    }

    fn get(&mut self, tag: u32, chunk: u32, digest: Digest) -> io::Result<Option<Bytes>> {
        let (content, mailbox, key) = (Arc::clone(&self.content), self.mailbox.clone(), self.key);
        let (checksums, seal) = (self.checksums.clone(), self.seal.clone());
        self.disk.read(
            move || {
                let is_right = |bytes: &mut [u8]| match (&seal, &checksums) {
                    (Some(seal), _) => seal.turn(&key, chunk, bytes, None) == digest,
                    (None, Some(checksums)) => chunk_checksum(bytes) == checksums[chunk as usize],
                    (None, None) => digest_chunk(&key, chunk, bytes) == digest,
                };
                read_chunk(&*content, &key, chunk, is_right)
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

/// A verified chunk as it is to lie on disk, and its digest then, if it was sealed. In place: nothing else has the
/// bytes of a chunk that was put.
pub(super) fn opened(
    seal: Option<&Seal>,
    key: &SwarmKey,
    chunk: u32,
    bytes: Bytes,
) -> (Bytes, Option<Digest>) {
    let Some(seal) = seal else { return (bytes, None) };
    let mut bytes = BytesMut::from(bytes);
    let plain = seal.turn(key, chunk, &mut bytes, None);
    (bytes.freeze(), Some(plain))
}

/// Tells of a chunk that was opened, and is on disk.
pub(super) fn note(opening: Option<&Opening>, chunk: u32, plain: Option<Digest>) -> io::Result<()> {
    match (opening, plain) {
        (Some(opening), Some(plain)) => opening.note_kept(chunk, plain),
        _ => Ok(()),
    }
}

/// Reads a chunk and checks that it still is what it was; what `is_right` makes of the bytes is the result.
fn read_chunk(
    content: &dyn Content,
    key: &SwarmKey,
    chunk: u32,
    is_right: impl Fn(&mut [u8]) -> bool,
) -> io::Result<Bytes> {
    let changed = |how: String| io::Error::new(io::ErrorKind::InvalidData, how);
    let len = key.chunk_len_bytes(chunk) as usize;
    let offset = key.chunk_offset_bytes(chunk);
    let mut bytes = Vec::new();
    if read_at(content, &mut bytes, len, offset)? < len {
        let size_bytes = key.size_bytes;
        return Err(changed(format!("the file has shrunk: it had {size_bytes} bytes")));
    }
    if !is_right(&mut bytes) {
        return Err(changed(format!("the file has changed at bytes {offset} and following")));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
