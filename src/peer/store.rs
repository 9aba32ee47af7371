//! Where chunks live: what a shell does with those that a session verified, and where it finds
//! those that a relay fetches.
//!
//! Verifies nothing: only verified chunks are put in, and the relay verifies what is read out.
//! Reads and writes block. They are meant for memory and for the page cache; a disk that is
//! slower than the network holds up its event loop, which for one connection is backpressure.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;

use crate::protocol::SwarmKey;

/// A place for the chunks of one file.
pub trait ChunkStore {
    /// Whether [`Self::put`] wants the bytes. If not, chunks are verified and never copied.
    fn keeps_bytes(&self) -> bool;

    /// Keeps a verified chunk.
    ///
    /// # Errors
    /// The system's.
    fn put(&mut self, chunk: u32, bytes: &[u8]) -> io::Result<()>;

    /// A chunk that was put in, or was there from the start.
    ///
    /// # Errors
    /// The system's.
    fn get(&self, chunk: u32) -> io::Result<Bytes>;
}

/// Content that is all there in memory: a publisher's, or the source that verifying clients
/// share. Chunks of it are never copied.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    key: SwarmKey,
    content: Bytes,
}

impl MemoryStore {
    /// The whole content of the file that `key` names.
    ///
    /// # Panics
    /// If it is of another length.
    #[must_use]
    pub fn new(key: SwarmKey, content: Bytes) -> Self {
        assert_eq!(content.len() as u64, key.size_bytes, "content of another file");
        Self { key, content }
    }
}

impl ChunkStore for MemoryStore {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn put(&mut self, _: u32, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn get(&self, chunk: u32) -> io::Result<Bytes> {
        let start = usize::try_from(self.key.chunk_offset_bytes(chunk)).expect("it is in memory");
        Ok(self.content.slice(start..start + self.key.chunk_len_bytes(chunk) as usize))
    }
}

/// Keeps nothing and has nothing: for who only asks.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl ChunkStore for Nowhere {
    fn keeps_bytes(&self) -> bool {
        false
    }

    fn put(&mut self, _: u32, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn get(&self, _: u32) -> io::Result<Bytes> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Content in a file: chunks are written where they belong once they are verified.
#[derive(Debug)]
pub struct FileStore {
    key: SwarmKey,
    file: File,
    is_writable: bool,
}

impl FileStore {
    /// A new file of the right length at `path`; what was there is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn create(key: SwarmKey, path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(key.size_bytes)?;
        Ok(Self { key, file, is_writable: true })
    }

    /// An existing file, only to be read.
    ///
    /// # Errors
    /// The system's, or the file is of another length than the key says.
    pub fn open(key: SwarmKey, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        if len != key.size_bytes {
            let text = format!("it has {len} bytes now and had {}", key.size_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self { key, file, is_writable: false })
    }
}

impl ChunkStore for FileStore {
    fn keeps_bytes(&self) -> bool {
        self.is_writable
    }

    fn put(&mut self, chunk: u32, bytes: &[u8]) -> io::Result<()> {
        if !self.is_writable {
            return Ok(());
        }
        self.file.write_all_at(bytes, self.key.chunk_offset_bytes(chunk))
    }

    fn get(&self, chunk: u32) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.key.chunk_len_bytes(chunk) as usize];
        self.file.read_exact_at(&mut bytes, self.key.chunk_offset_bytes(chunk))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Manifest;

    const LOG2: u8 = 10;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn both_stores_give_back_every_chunk_of_awkward_sizes() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 1023, 1024, 1025, 2048, 5000] {
            let bytes = content(len);
            let manifest = Manifest::of(&bytes, LOG2).unwrap();
            let key = *manifest.key();
            let memory = MemoryStore::new(key, bytes.clone().into());
            let path = dir.path().join(format!("{len}"));
            let mut file = FileStore::create(key, &path).unwrap();
            for chunk in (0..key.chunk_count()).rev() {
                file.put(chunk, &memory.get(chunk).unwrap()).unwrap();
            }
            for chunk in 0..key.chunk_count() {
                assert!(manifest.matches(chunk, &file.get(chunk).unwrap()));
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            let again = FileStore::open(key, &path).unwrap();
            assert!(
                (0..key.chunk_count()).all(|c| again.get(c).unwrap() == memory.get(c).unwrap())
            );
        }
    }

    #[test]
    fn a_file_that_changed_its_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content(10)).unwrap();
        let key = *Manifest::of(&content(11), LOG2).unwrap().key();
        let error = FileStore::open(key, &path).unwrap_err();
        assert!(error.to_string().contains("10 bytes now"), "{error}");
    }
}
