//! A file that is shared: opened once, digested, and looked at now and then. Its store checks
//! each chunk at every read, so bytes that changed since are not served.
//!
//! A file that is to be sealed is read twice: its key follows from its content, so that is digested first, and
//! what the swarm moves after that. Both passes must find the same.
//!
//! What becomes of a share whose file has changed is the program's decision.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    content::holds_more,
    hashing::{self, HashError, Hashed},
    sealing::Seal,
    store::{Disk, FileStore},
};
use relay_protocol::{
    Digest, Manifest, NameFault, Pin, RelayAddr, Sealed, Ticket, TicketError, TicketKind,
    UserSecret, chunk_size_log2_for, fit_name, limits::CHUNK_SIZE_LOG2_SLACK,
};
use relay_units::{bytes_text, count_text};

/// The permission of a file's owner to execute it.
const EXECUTABLE: u32 = 0o100;

/// Why a file can't be shared.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is what other programs call stdin.
    #[error(
        "stdin can't be read twice, as a file must be: write it to a file first (one that is called \
         - is named ./-)"
    )]
    Stdin,
    /// It can't be opened.
    #[error("failed to open {path}: {error}: check its name, and that this user may read it")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Only files have a size and stay.
    #[error("{path} is {what}, and only regular files can be shared{advice}")]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It can't be digested.
    #[error("failed to hash {path}: {error}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// What kept it from being hashed.
        error: HashError,
    },
    /// It has another end than the system states.
    #[error(
        "{path} holds {how} than the {} that the system states: it is being written, or made while it is \
         read, as files in /proc are: copy it to another file first, and name that",
        count_text(*size_bytes, "byte")
    )]
    Misstated {
        /// The file.
        path: PathBuf,
        /// "more" or "less".
        how: &'static str,
        /// Its length, as the system states it.
        size_bytes: u64,
    },
    /// It changed before it was digested to its end.
    #[error("{0} changed while it was hashed: wait until it is written, then share it again")]
    Changing(PathBuf),
    /// It is to be shared as another file.
    #[error("{0} is not the ticket's file: its content differs; peer check FILE TICKET says where")]
    Another(PathBuf),
    /// It needs larger chunks than the relay takes.
    #[error(
        "{path} has {size} and needs chunks of {wanted}, but this relay's cache takes chunks of \
         at most {most}: give the relay more --cache",
        size = bytes_text(*size_bytes),
        wanted = bytes_text(1 << wanted_log2),
        most = bytes_text(1 << most_log2)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// Chunk size that it needs.
        wanted_log2: u8,
        /// Chunk size that the relay takes.
        most_log2: u8,
    },
}

/// How a file is to be shared.
#[derive(Clone, Copy, Debug)]
pub enum Sealing<'a> {
    /// As it is.
    Plain,
    /// Sealed with a user's secret.
    By(&'a UserSecret),
    /// Sealed as a ticket says.
    As(&'a Sealed),
}

impl Sealing<'_> {
    /// How often the file is read before it can be shared.
    #[must_use]
    pub fn passes(self) -> u64 {
        match self {
            Self::Plain => 1,
            Self::By(_) | Self::As(_) => 2,
        }
    }
}

/// How the file has changed since it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Its content was written to, maybe with the same bytes.
    Modified,
    /// It has another length: it is another file.
    Resized {
        /// Its length now.
        size_bytes: u64,
    },
    /// The path names another file now, or none; the one that is shared is still there.
    Replaced,
}

/// What tells that a file was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

/// A file that is to be shared, before it was digested.
#[derive(Debug)]
pub struct OpenFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    is_executable: bool,
}

/// A file that is shared.
#[derive(Debug)]
pub struct OriginFile {
    path: PathBuf,
    file: Arc<File>,
    stamp: Stamp,
    is_executable: bool,
    /// What the swarm moves.
    manifest: Arc<Manifest>,
    /// Of each chunk, as it lies on disk.
    checksums: Arc<[u64]>,
    sealed: Option<(Sealed, Seal)>,
}

impl OpenFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// The system's, or it is something else.
    pub fn open(path: &Path) -> Result<Self, OriginError> {
        let open_error = |error| OriginError::Open { path: path.to_owned(), error };
        if path.as_os_str() == "-" {
            return Err(OriginError::Stdin);
        }
        // Looked at first: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path).map_err(open_error)?;
        let (what, advice) = if metadata.is_dir() {
            ("a directory", ": pack it first, for example with tar")
        } else if metadata.is_file() {
            let file = File::open(path).map_err(open_error)?;
            let metadata = file.metadata().map_err(open_error)?;
            let is_executable = metadata.mode() & EXECUTABLE != 0;
            let (path, stamp) = (path.to_owned(), Stamp::of(&metadata));
            let open = Self { path, file, stamp, is_executable };
            open.check_end()?;
            return Ok(open);
        } else {
            ("a device, a pipe or a socket", ": write it to a file first")
        };
        Err(OriginError::NotAFile { path: path.to_owned(), what, advice })
    }

    /// Its length.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.stamp.size_bytes
    }

    /// Whether it ends where the system says: others would get less than what a reader finds.
    fn check_end(&self) -> Result<(), OriginError> {
        let size_bytes = self.size_bytes();
        match holds_more(&self.file, size_bytes) {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.misstated("more")),
            Err(error) => {
                let error = HashError::Read { offset_bytes: size_bytes, error };
                Err(OriginError::Hash { path: self.path.clone(), error })
            }
        }
    }

    fn misstated(&self, how: &'static str) -> OriginError {
        let (path, size_bytes) = (self.path.clone(), self.size_bytes());
        OriginError::Misstated { path, how, size_bytes }
    }

    /// The chunk size for a relay that recommends at most `most_log2`.
    ///
    /// # Errors
    /// The file would have too many chunks of the largest size that the relay takes.
    pub fn chunk_size_log2(&self, most_log2: u8) -> Result<u8, OriginError> {
        let wanted_log2 = chunk_size_log2_for(self.size_bytes(), most_log2);
        if wanted_log2 > most_log2 + CHUNK_SIZE_LOG2_SLACK {
            let (path, size_bytes) = (self.path.clone(), self.size_bytes());
            return Err(OriginError::TooLarge { path, size_bytes, wanted_log2, most_log2 });
        }
        Ok(wanted_log2)
    }

    /// Digests it on all cores, and seals it if so; `tell` is told the bytes done, of all passes together.
    ///
    /// # Errors
    /// It can't be read, or changes meanwhile.
    pub fn hash(
        self,
        chunk_size_log2: u8,
        sealing: Sealing<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<OriginFile, OriginError> {
        let size_bytes = self.size_bytes();
        let first = self.pass(chunk_size_log2, None, tell)?;
        let plain = first.manifest.key().id;
        let sealed = match sealing {
            Sealing::Plain => None,
            Sealing::By(user) => Some(Sealed::by(user, plain, size_bytes)),
            Sealing::As(sealed) if sealed.plain != plain => {
                return Err(OriginError::Another(self.path));
            }
            Sealing::As(sealed) => Some(sealed.clone()),
        };
        let (hashed, sealed) = match sealed {
            None => (first, None),
            Some(sealed) => {
                let seal = Seal::new(&sealed, size_bytes);
                let tell = &mut |done| tell(size_bytes + done);
                let second = self.pass(chunk_size_log2, Some(&seal), tell)?;
                if second.checksums != first.checksums {
                    return Err(OriginError::Changing(self.path));
                }
                (second, Some((sealed, seal)))
            }
        };
        self.check_end()?;
        let Self { path, file, stamp, is_executable } = self;
        let (manifest, checksums) = (hashed.manifest.into(), hashed.checksums.into());
        Ok(OriginFile {
            path,
            file: file.into(),
            stamp,
            is_executable,
            manifest,
            checksums,
            sealed,
        })
    }

    /// Reads all of it once.
    fn pass(
        &self,
        chunk_size_log2: u8,
        seal: Option<&Seal>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Hashed, OriginError> {
        let (size_bytes, threads) = (self.size_bytes(), hashing::threads_default());
        let hashed =
            hashing::hash_content(&self.file, size_bytes, chunk_size_log2, threads, seal, tell);
        let now = self.file.metadata().map(|metadata| Stamp::of(&metadata));
        let is_unchanged = now.is_ok_and(|now| now == self.stamp);
        match hashed {
            Err(HashError::Shrunk(_)) if is_unchanged => Err(self.misstated("less")),
            Err(HashError::Shrunk(_)) => Err(OriginError::Changing(self.path.clone())),
            Err(error) => Err(OriginError::Hash { path: self.path.clone(), error }),
            Ok(_) if !is_unchanged => Err(OriginError::Changing(self.path.clone())),
            Ok(hashed) => Ok(hashed),
        }
    }
}

impl OriginFile {
    /// The digests and the key of what the swarm moves.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// BLAKE3 of the file itself, sealed or not: what `b3sum` prints.
    #[must_use]
    pub fn plain(&self) -> Digest {
        self.sealed.as_ref().map_or(self.manifest.key().id, |(sealed, _)| sealed.plain)
    }

    /// Its ticket, and why that does not call it by its own name, if so. `pin` is what the relay is known by.
    ///
    /// # Errors
    /// None that an open file has.
    pub fn ticket(
        &self,
        relay: RelayAddr,
        pin: Pin,
    ) -> Result<(Ticket, Option<NameFault>), TicketError> {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        let (name, fault) = fit_name(name.as_bytes());
        let sealed = self.sealed.as_ref().map(|(sealed, _)| sealed.clone());
        let ticket = Ticket::new(relay, *self.manifest.key(), name)?;
        let pin = sealed.is_some().then_some(pin);
        let ticket = ticket.with_pin(pin).with_sealed(sealed);
        Ok((ticket.with_kind(TicketKind::of_file(self.is_executable)), fault))
    }

    /// What the swarm would move of it, if it were sealed as a ticket of another content says: to find out where
    /// that differs. `tell` is told the bytes done.
    ///
    /// # Errors
    /// It can't be read.
    pub fn manifest_as(
        &self,
        sealed: &Sealed,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Manifest, OriginError> {
        let (key, threads) = (self.manifest.key(), hashing::threads_default());
        let (size_bytes, log2) = (key.size_bytes, key.chunk_size_log2);
        let seal = Seal::new(sealed, size_bytes);
        let hashed =
            hashing::hash_content(&*self.file, size_bytes, log2, threads, Some(&seal), tell);
        let fail = |error| OriginError::Hash { path: self.path.clone(), error };
        hashed.map(|hashed| hashed.manifest).map_err(fail)
    }

    /// What has changed since it was opened. Asks the file system, which may block for a moment.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        let now = self.file.metadata().map(|metadata| Stamp::of(&metadata));
        match now {
            Ok(now) if now.size_bytes != self.stamp.size_bytes => {
                return Some(Change::Resized { size_bytes: now.size_bytes });
            }
            Ok(now) if now.modified == self.stamp.modified => {}
            _ => return Some(Change::Modified),
        }
        let named = std::fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata).inode);
        (!named.is_ok_and(|inode| inode == self.stamp.inode)).then_some(Change::Replaced)
    }

    /// What a peer reads its chunks from: each is checked at every read, by its checksum, or by its digest if it
    /// is sealed.
    #[must_use]
    pub fn store(&self, disk: &Disk) -> FileStore {
        let store = FileStore::new(*self.manifest.key(), self.file.clone(), false, disk);
        match &self.sealed {
            Some((_, seal)) => store.with_seal(seal.clone()),
            None => store.with_checksums(Arc::clone(&self.checksums)),
        }
    }
}

#[cfg(test)]
mod tests;
