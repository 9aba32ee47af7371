//! What comes through a pipe, put into a file that no path names, so that it can be shared: peers ask for its chunks in
//! any order, and again. The file goes with the process, however that ends.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::growing::Growing;
use relay_units::bytes_text;

/// Bytes of one read: more than a pipe holds.
const READ_BYTES: usize = 1 << 20;

/// A file without a name, and what is known of its content.
#[derive(Debug)]
pub struct Spool {
    /// All that came.
    pub file: Arc<File>,
    /// Its digests.
    pub growing: Growing,
}

/// Why what came could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// There is no place for it.
    #[error(
        "could not make a file in {directory} for what comes from stdin: {error}: name another directory with TMPDIR"
    )]
    Create {
        /// Where temporary files lie.
        directory: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It can't be read.
    #[error("could not read stdin: {0}")]
    Read(io::Error),
    /// It can't be written.
    #[error(
        "could not keep what comes from stdin, after {}, in {directory}: {error}: name a directory with more room \
         with TMPDIR", bytes_text(*size_bytes)
    )]
    Write {
        /// Where temporary files lie.
        directory: PathBuf,
        /// Bytes that were kept before.
        size_bytes: u64,
        /// The system's reason.
        error: io::Error,
    },
    /// More comes than is allowed.
    #[error(
        "more than {} come from stdin: allow more with --spool-max, if {directory} has the room, or write it to a \
         file and share that", bytes_text(*max_bytes)
    )]
    TooLong {
        /// Where temporary files lie.
        directory: PathBuf,
        /// The most that is kept.
        max_bytes: u64,
    },
}

impl Spool {
    /// Takes all that comes, into a file in this directory; `tell` is told after each read how much that is.
    ///
    /// # Errors
    /// [`SpoolError`]. Nothing is left then.
    pub fn fill(
        mut reader: impl Read,
        directory: &Path,
        max_bytes: u64,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Self, SpoolError> {
        let create_error = |error| SpoolError::Create { directory: directory.to_owned(), error };
        let mut file = tempfile::tempfile_in(directory).map_err(create_error)?;
        let mut growing = Growing::default();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self { file: Arc::new(file), growing }),
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SpoolError::Read(error)),
            };
            let size_bytes = growing.size_bytes();
            if size_bytes + read.len() as u64 > max_bytes {
                return Err(SpoolError::TooLong { directory: directory.to_owned(), max_bytes });
            }
            let write_error = |error| {
                let directory = directory.to_owned();
                SpoolError::Write { directory, size_bytes, error }
            };
            file.write_all(read).map_err(write_error)?;
            growing.update(read);
            tell(growing.size_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::content::read_at;

    #[test]
    fn all_that_comes_is_kept_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut told = Vec::new();
        let mut tell = |bytes| told.push(bytes);
        let spool = Spool::fill(&bytes[..], dir.path(), 3_000_001, &mut tell).unwrap();
        assert_eq!(spool.growing.size_bytes(), 3_000_001);
        assert_eq!(told.last(), Some(&3_000_001));
        let mut again = Vec::new();
        read_at(&*spool.file, &mut again, bytes.len() + 1, 0).unwrap();
        assert!(again == bytes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no path leads there");
    }

    #[test]
    fn what_does_not_end_in_time_is_refused_and_names_the_option() {
        let dir = tempfile::tempdir().unwrap();
        let error = Spool::fill(io::repeat(7), dir.path(), 5 << 20, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("more than 5 MiB"), "{error}");
        assert!(error.to_string().contains("--spool-max"), "{error}");
        let gone = dir.path().join("gone");
        let error = Spool::fill(io::empty(), &gone, 1, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }
}
