//! What is hashed must not change meanwhile: the first file that was seen to have changed ends it, not the last byte.

use std::io;

use super::subject::Subject;
use crate::content::Content;

/// A content that is read as long as what it is of stays what it was.
#[derive(Debug)]
pub(super) struct Steady<'a> {
    pub(super) content: &'a dyn Content,
    pub(super) subject: &'a Subject,
}

impl Content for Steady<'_> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.content.size_bytes()
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        let read = self.content.append_at(bytes, offset_bytes)?;
        match self.subject.has_noted_change() {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, "it has changed")),
            false => Ok(read),
        }
    }

    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.content.overwrite_at(bytes, offset_bytes)
    }

    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>> {
        self.content.next_data(offset_bytes, end_bytes)
    }
}
