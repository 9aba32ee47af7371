//! The beginning of a content, in memory: what is needed of a bundle before a place for it can be made.

#![expect(
    clippy::disallowed_types,
    reason = "a disk thread writes it and another reads it; no event loop touches it"
)]

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::Content;

/// The first bytes of a content. What comes of the rest is not kept.
#[derive(Debug)]
pub struct Prefix {
    bytes: Mutex<Vec<u8>>,
    len: usize,
}

impl Prefix {
    /// Of so many bytes, with those that are here already. Memory is taken as bytes come.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>, len: usize) -> Self {
        bytes.truncate(len);
        Self { bytes: Mutex::new(bytes), len }
    }

    /// What is here: what lacks before the last byte that came is 0.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Content for Prefix {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len as u64)
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        let own = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let here = own.get(from..).unwrap_or_default();
        let len = here.len().min(bytes.capacity() - bytes.len());
        bytes.extend_from_slice(&here[..len]);
        Ok(len)
    }

    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let from = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let end = from.saturating_add(bytes.len()).min(self.len);
        if from < end {
            let mut own = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() < end {
                own.resize(end, 0);
            }
            own[from..end].copy_from_slice(&bytes[..end - from]);
        }
        Ok(())
    }

    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>> {
        Ok((offset_bytes < end_bytes.min(self.len as u64)).then_some(offset_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read_at, *};

    #[test]
    fn it_keeps_its_length_and_no_more() {
        let prefix = Prefix::new(b"begin".to_vec(), 8);
        prefix.overwrite_at(b"after", 5).unwrap();
        prefix.overwrite_at(b"beyond", 1 << 40).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(read_at(&prefix, &mut bytes, 100, 2).unwrap(), 6);
        assert_eq!(bytes, b"ginaft");
        assert_eq!(read_at(&prefix, &mut bytes, 100, 8).unwrap(), 0);
        let later = Prefix::new(Vec::new(), 8);
        later.overwrite_at(b"x", 2).unwrap();
        assert_eq!(later.to_bytes(), b"\0\0x");
        assert_eq!(later.into_bytes(), b"\0\0x");
    }
}
