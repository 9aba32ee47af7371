//! What is shared: a file, or a directory or several paths as one [`bundle`](relay_protocol::bundle). It is opened once,
//! digested, and looked at now and then. Its store checks each chunk at every read, so bytes that changed since are not
//! served.
//!
//! ```text
//!  Source ──hash──► Origin ──► ticket, store
//!     │               └──► change     what has changed since
//!     └─► subject    one file, or a tree: the only place that knows which
//! ```
//!
//! What is to be sealed is read twice: its key follows from its content, so that is digested first, and what the swarm
//! moves after that. Both passes must find the same. What was hashed before, and is unchanged since, is not read at all
//! ([`HashCache`]).
//!
//! What becomes of a share whose file has changed is the program's decision.

mod error;
mod steady;
mod subject;

use std::{io, os::unix::ffi::OsStrExt as _, path::PathBuf, sync::Arc};

use relay_protocol::{
    Digest, Manifest, NameFault, Pin, RelayAddr, Sealed, Ticket, TicketError, UserSecret,
    bundle::Index, chunk_size_log2_for, fit_name, limits::CHUNK_SIZE_LOG2_SLACK,
};

pub use self::{
    error::OriginError,
    subject::{Change, How, Looking},
};
use self::{steady::Steady, subject::Subject};
use super::{
    hash_cache::{CacheKey, HashCache, Remembered, is_settled, moment_now},
    hashing::{self, Hashed},
    sealing::Seal,
    spool::Spool,
    store::{Disk, FileStore},
};

/// How it is to be shared.
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
    /// How often the content is read before it can be shared.
    #[must_use]
    pub fn passes(self) -> u64 {
        match self {
            Self::Plain => 1,
            Self::By(_) | Self::As(_) => 2,
        }
    }

    /// Feeds a hasher with what makes this seal another one. Of a secret that is a keyed hash, which tells nothing of it.
    fn identify(self, hasher: &mut blake3::Hasher) {
        const OF_USER: &[u8] = b"relay 2026 a user's secret in the key of a hash cache";
        const OF_SHARE: &str = "relay 2026 a share's secret in the key of a hash cache";
        match self {
            Self::Plain => hasher.update(b"plain"),
            Self::By(user) => {
                hasher.update(b"by").update(blake3::keyed_hash(&user.0, OF_USER).as_bytes())
            }
            Self::As(sealed) => hasher
                .update(b"as")
                .update(&blake3::derive_key(OF_SHARE, &sealed.secret.0))
                .update(&sealed.plain.0),
        };
    }
}

/// How something is to be hashed.
#[derive(Clone, Copy, Debug)]
pub struct HashJob<'a> {
    /// Into which chunks it is cut.
    pub chunk_size_log2: u8,
    /// How it is sealed.
    pub sealing: Sealing<'a>,
    /// Where hashes are remembered.
    pub cache: Option<&'a HashCache>,
    /// What is remembered is not believed, but replaced.
    pub rehashes: bool,
}

impl<'a> HashJob<'a> {
    /// Remembers nothing.
    #[must_use]
    pub fn new(chunk_size_log2: u8, sealing: Sealing<'a>) -> Self {
        Self { chunk_size_log2, sealing, cache: None, rehashes: false }
    }
}

/// Something that is to be shared, before it was digested.
#[derive(Debug)]
pub struct Source(Subject);

/// Something that is shared.
#[derive(Debug)]
pub struct Origin {
    subject: Subject,
    /// What the swarm moves.
    manifest: Arc<Manifest>,
    /// Of each chunk, as it lies on disk.
    checksums: Arc<[u64]>,
    sealed: Option<(Sealed, Seal)>,
    memory: Memory,
}

/// Why a chunk could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blame {
    /// What was seen to have changed.
    pub change: Option<Change>,
    /// Of which files the chunk is, in words that follow its number.
    pub of: String,
    /// It is wrong and looks unchanged: what was remembered of it no longer is.
    pub is_forgotten: bool,
}

/// What became of the memory of hashes.
#[derive(Debug)]
enum Memory {
    /// They were made just now, and are not remembered.
    New,
    /// They were made just now, and can be forgotten.
    Kept(HashCache, CacheKey),
    /// They were made just now, and can't be remembered.
    Lost(io::Error),
    /// They were made before, and can be forgotten.
    Old(HashCache, CacheKey),
}

impl Source {
    /// Opens a file, or walks a directory or several paths. `tell` is told now and then how many entries were found.
    ///
    /// # Errors
    /// The system's, it is something else, or some of it can't be shared.
    pub fn open(
        paths: &[PathBuf],
        looking: Looking,
        tell: &mut dyn FnMut(usize),
    ) -> Result<Self, OriginError> {
        let source = Self(Subject::open(paths, looking, tell)?);
        source.0.check_end()?;
        Ok(source)
    }

    /// What came through a pipe.
    #[must_use]
    pub fn spooled(spool: Spool) -> Self {
        Self(Subject::Spool(Box::new(spool)))
    }

    /// Its length: of a tree that of its bundle.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    /// What it is, as it may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        self.0.shown()
    }

    /// What is in it, if it is a tree.
    #[must_use]
    pub fn index(&self) -> Option<&Arc<Index>> {
        self.0.index()
    }

    /// What was left out of it, for people.
    #[must_use]
    pub fn skipped(&self) -> Option<&str> {
        self.0.skipped()
    }

    /// The chunk size for a relay that recommends at most `most_log2`.
    ///
    /// # Errors
    /// It would have too many chunks of the largest size that the relay takes.
    pub fn chunk_size_log2(&self, most_log2: u8) -> Result<u8, OriginError> {
        let wanted_log2 = chunk_size_log2_for(self.size_bytes(), most_log2);
        if wanted_log2 > most_log2 + CHUNK_SIZE_LOG2_SLACK {
            let (of, size_bytes) = (self.shown(), self.size_bytes());
            return Err(OriginError::TooLarge { of, size_bytes, wanted_log2, most_log2 });
        }
        Ok(wanted_log2)
    }

    /// Digests it on all cores, and seals it if so, unless that is remembered; `tell` is told the bytes done, of all
    /// passes together.
    ///
    /// # Errors
    /// It can't be read, or changes meanwhile.
    pub fn hash(self, job: &HashJob<'_>, tell: &mut dyn FnMut(u64)) -> Result<Origin, OriginError> {
        let Some(cache) = job.cache.filter(|_| self.0.is_lasting()) else {
            let remembered = self.read(job, tell)?;
            return self.into_origin(job, remembered, Memory::New);
        };
        let key = self.cache_key(job);
        if let (false, Some(remembered)) = (job.rehashes, cache.get(&key)) {
            return self.into_origin(job, remembered, Memory::Old(cache.clone(), key));
        }
        let began = moment_now();
        let remembered = self.read(job, tell)?;
        let memory = if is_settled(self.0.latest(), began) {
            let kept = |()| Memory::Kept(cache.clone(), key);
            cache.put(&key, &remembered).map_or_else(Memory::Lost, kept)
        } else {
            // What was remembered of it, if anything, was not wanted.
            cache.forget(&key);
            Memory::New
        };
        self.into_origin(job, remembered, memory)
    }

    fn cache_key(&self, job: &HashJob<'_>) -> CacheKey {
        let mut hasher = blake3::Hasher::new_derive_key("relay 2026 key of a hash cache");
        hasher.update(&[job.chunk_size_log2]);
        job.sealing.identify(&mut hasher);
        self.0.identify(&mut hasher);
        CacheKey::of(&hasher)
    }

    fn into_origin(
        self,
        job: &HashJob<'_>,
        remembered: Remembered,
        memory: Memory,
    ) -> Result<Origin, OriginError> {
        let Remembered { plain, manifest, checksums } = remembered;
        let sealed = self.sealed(job.sealing, plain)?;
        let (manifest, checksums) = (manifest.into(), checksums.into());
        Ok(Origin { subject: self.0, manifest, checksums, sealed, memory })
    }

    /// How this content is sealed.
    fn sealed(
        &self,
        sealing: Sealing<'_>,
        plain: Digest,
    ) -> Result<Option<(Sealed, Seal)>, OriginError> {
        let sealed = match sealing {
            Sealing::Plain => return Ok(None),
            Sealing::By(user) => Sealed::by(user, plain, self.size_bytes()),
            Sealing::As(sealed) if sealed.plain != plain => {
                return Err(OriginError::Another(self.shown()));
            }
            Sealing::As(sealed) => sealed.clone(),
        };
        let seal = Seal::new(&sealed, self.size_bytes());
        Ok(Some((sealed, seal)))
    }

    /// Reads it as often as need be.
    fn read(
        &self,
        job: &HashJob<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Remembered, OriginError> {
        let size_bytes = self.size_bytes();
        let first = match self.0.hashed(job.chunk_size_log2) {
            Some(hashed) => hashed,
            None => self.pass(job.chunk_size_log2, None, tell)?,
        };
        let plain = first.manifest.key().id;
        let hashed = match self.sealed(job.sealing, plain)? {
            None => first,
            Some((_, seal)) => {
                let tell = &mut |done| tell(size_bytes + done);
                let second = self.pass(job.chunk_size_log2, Some(&seal), tell)?;
                if second.checksums != first.checksums {
                    return Err(OriginError::Changing(self.shown()));
                }
                second
            }
        };
        self.0.check_end()?;
        let Hashed { manifest, checksums } = hashed;
        Ok(Remembered { plain, manifest, checksums })
    }

    /// Reads all of it once.
    fn pass(
        &self,
        chunk_size_log2: u8,
        seal: Option<&Seal>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Hashed, OriginError> {
        let (size_bytes, threads) = (self.size_bytes(), hashing::threads_default());
        let content = self.0.content();
        let steady = Steady { content: &*content, subject: &self.0 };
        let hashed =
            hashing::hash_content(&steady, size_bytes, chunk_size_log2, threads, seal, tell);
        let hashed = hashed.map_err(|error| self.0.hash_error(error))?;
        self.0.check_unchanged()?;
        Ok(hashed)
    }
}

impl Origin {
    /// The digests and the key of what the swarm moves.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// What it is, as it may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        self.subject.shown()
    }

    /// What is in it, if it is a tree.
    #[must_use]
    pub fn index(&self) -> Option<&Arc<Index>> {
        self.subject.index()
    }

    /// BLAKE3 of the content itself, sealed or not: of a file what `b3sum` prints.
    #[must_use]
    pub fn plain(&self) -> Digest {
        self.sealed.as_ref().map_or(self.manifest.key().id, |(sealed, _)| sealed.plain)
    }

    /// Whether it was not read, as its hashes were remembered.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        matches!(self.memory, Memory::Old(..))
    }

    /// Why its hashes can't be remembered.
    #[must_use]
    pub fn memory_fault(&self) -> Option<&io::Error> {
        match &self.memory {
            Memory::Lost(error) => Some(error),
            Memory::New | Memory::Kept(..) | Memory::Old(..) => None,
        }
    }

    /// Its hashes are wrong: if they were remembered, they no longer are. Whether they were.
    pub fn forget(&self) -> bool {
        match &self.memory {
            Memory::Kept(cache, key) | Memory::Old(cache, key) => {
                cache.forget(key);
                true
            }
            Memory::New | Memory::Lost(_) => false,
        }
    }

    /// Its ticket, and why that does not call it by its own name, if so. `name` is another that it is to have; `pin` is
    /// what the relay is known by.
    ///
    /// # Errors
    /// The name is too long.
    pub fn ticket(
        &self,
        relay: RelayAddr,
        pin: Pin,
        name: Option<&str>,
    ) -> Result<(Ticket, Option<NameFault>), TicketError> {
        let (name, fault) = match name {
            Some(name) => (name.to_owned(), None),
            None => fit_name(self.subject.name().as_bytes()),
        };
        let sealed = self.sealed.as_ref().map(|(sealed, _)| sealed.clone());
        let ticket = Ticket::new(relay, *self.manifest.key(), name)?;
        let pin = sealed.is_some().then_some(pin);
        let ticket = ticket.with_pin(pin).with_sealed(sealed);
        Ok((ticket.with_kind(self.subject.kind()), fault))
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
        let (seal, content) = (Seal::new(sealed, size_bytes), self.subject.content());
        let hashed = hashing::hash_content(&*content, size_bytes, log2, threads, Some(&seal), tell);
        hashed.map(|hashed| hashed.manifest).map_err(|error| self.subject.hash_error(error))
    }

    /// What has changed since it was opened, as far as one look shows: of a large tree some files are looked at, others
    /// the next time. Asks the file system, which may block: [`Lookout`](super::Lookout) does that on a thread of its own.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        self.subject.change()
    }

    /// Of a chunk that is not what it was: which file was seen to have changed, and of which files it is, in words that
    /// follow its number. May block for a moment.
    #[must_use]
    pub fn blame(&self, chunk: u32) -> (Option<Change>, String) {
        let key = self.manifest.key();
        let len_bytes = key.chunk_len_bytes(chunk).into();
        self.subject.blame(key.chunk_offset_bytes(chunk), len_bytes)
    }

    /// Finds out why a chunk could not be read, of which a read said this: what has changed, or else, if what was
    /// read is wrong though it looks unchanged, what was remembered of it is no use, and would be found again. Asks the
    /// file system, which may block: [`Lookout`](super::Lookout) does that on a thread of its own.
    #[must_use]
    pub fn explain(&self, chunk: u32, kind: io::ErrorKind) -> Blame {
        let (change, of) = self.blame(chunk);
        let is_wrong = kind == io::ErrorKind::InvalidData;
        let is_forgotten = change.is_none() && is_wrong && self.forget();
        Blame { change, of, is_forgotten }
    }

    /// What a peer reads its chunks from: each is checked at every read, by its checksum, or by its digest if it
    /// is sealed.
    #[must_use]
    pub fn store(&self, disk: &Disk) -> FileStore {
        let store = FileStore::new(*self.manifest.key(), self.subject.content(), false, disk);
        match &self.sealed {
            Some((_, seal)) => store.with_seal(seal.clone()),
            None => store.with_checksums(Arc::clone(&self.checksums)),
        }
    }
}

#[cfg(test)]
mod tests;
