//! Zeros, as many as are wanted: what holes read as, without a file.

use std::io;

use super::Content;

/// So many zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zeros(pub(crate) u64);

impl Content for Zeros {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        let before = bytes.len();
        let left = usize::try_from(self.0.saturating_sub(offset_bytes)).unwrap_or(usize::MAX);
        let len = left.min(bytes.capacity() - before);
        bytes.resize(before + len, 0);
        Ok(len)
    }

    fn overwrite_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn next_data(&self, _: u64, _: u64) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
