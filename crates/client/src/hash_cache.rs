//! Hashes of what was shared before, so that an unchanged file or tree is not read again for them: one file for each
//! content, cut and seal, in a directory of the user's.
//!
//! An entry is found by a key, a BLAKE3 of all that tells one content from what it would be after a change: the bytes of
//! a tree's index, and of each file size, times, device and inode; besides the chunk size, and how it is sealed. Of a
//! secret only a keyed hash goes into the key. An entry holds no secret and no content, but digests of it: a reader
//! learns whether a file that he has was shared, so the directory and its files are for their owner alone.
//!
//! Nothing is believed that could be wrong without being noticed. An entry has a checksum, and its digests merge to its
//! id. Content that was touched within [`RACY`] before it was read is not remembered: a later write may leave the same
//! times (git calls that *racily clean*, `Documentation/technical/racy-git.adoc`). Each chunk is checked when it is read
//! for others, as always.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use relay_protocol::{Digest, Manifest, SwarmKey};
use rustix::{
    fs::OFlags,
    time::{ClockId, clock_gettime},
};

use super::stamp::Moment;

/// Entries, at most: some hundred shares of one user.
const ENTRIES_MAX: usize = 512;

/// Bytes of all entries, at most. The largest entry has 10 MiB, one of 1 GiB in chunks of 256 KiB 160 KiB.
const BYTES_MAX: u64 = 256 << 20;

/// Content that was touched so short a time before it was read is not remembered. The coarsest clock that file systems
/// have ticks every two seconds (FAT).
pub const RACY: Duration = Duration::from_secs(2);

/// Permissions of a directory that others may write to.
const OTHERS_WRITE: u32 = 0o022;

/// Begins each entry, with its version.
const MAGIC: [u8; 8] = *b"RELAYHC1";

/// Ends the name of each entry.
const SUFFIX: &str = "hashes";

/// Ends the name of an entry that is being written.
const NEW_SUFFIX: &str = "new";

/// What the checksum is of, as BLAKE3 wants it named.
const CHECKSUM_CONTEXT: &str = "relay 2026 checksum of an entry of the hash cache";

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 32;

/// Bytes of one chunk's digest and checksum.
const CHUNK_BYTES: usize = 32 + 8;

/// Bytes before those of the chunks: magic, key, size, chunk size, plain digest, id.
const HEAD_BYTES: usize = MAGIC.len() + 32 + 8 + 1 + 32 + 32;

/// A directory of hashes. Clones are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashCache {
    directory: PathBuf,
}

/// Names what was hashed, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheKey([u8; 32]);

/// What is remembered of a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// BLAKE3 of the content itself.
    pub plain: Digest,
    /// What the swarm moves.
    pub manifest: Manifest,
    /// Of each chunk, as it lies on disk.
    pub checksums: Vec<u64>,
}

impl CacheKey {
    /// Made of all that was fed to this hasher.
    #[must_use]
    pub fn of(hasher: &blake3::Hasher) -> Self {
        Self(hasher.finalize().into())
    }
}

/// Now, as file systems tell the time.
#[must_use]
pub fn moment_now() -> Moment {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Whether content that was last touched at `latest`, and read from `began` on, may be remembered.
#[must_use]
pub fn is_settled(latest: Moment, began: Moment) -> bool {
    let racy = i64::try_from(RACY.as_secs()).expect("a few seconds");
    latest < (began.0.saturating_sub(racy), began.1)
}

impl HashCache {
    /// The one in this directory, which need not be there yet.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is remembered under this key. A damaged entry is removed, and as good as none.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<Remembered> {
        let path = self.path(key);
        self.check_private().ok()?;
        // What is no file, a link among them, is none of ours.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file =
            File::options().read(true).custom_flags(flags.bits().cast_signed()).open(&path).ok()?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return None;
        }
        let mut bytes = Vec::new();
        // An entry has a bound, whatever lies there.
        let read = (&mut file).take(BYTES_MAX).read_to_end(&mut bytes);
        let remembered = read.ok().and_then(|_| decode(key, &bytes));
        match remembered {
            Some(_) => {
                // Those that are of use stay longest. Where that can't be noted, those that are new do.
                let times = fs::FileTimes::new().set_modified(now());
                file.set_times(times).ok();
            }
            None => drop(fs::remove_file(&path)),
        }
        remembered
    }

    /// Remembers it, and forgets what was of no use for longest if there is too much.
    ///
    /// # Errors
    /// The system's: it is not remembered.
    pub fn put(&self, key: &CacheKey, remembered: &Remembered) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.check_private()?;
        let random = RandomState::new().build_hasher().finish();
        let new = self.directory.join(format!("{random:016x}.{NEW_SUFFIX}"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            // Not synced: what a power cut leaves of it has another checksum.
            file.write_all(&encode(key, remembered))?;
            fs::rename(&new, self.path(key))
        };
        let written = write();
        if written.is_err() {
            fs::remove_file(&new).ok();
        }
        self.trim(ENTRIES_MAX, BYTES_MAX)?;
        written
    }

    /// Whether the directory is this user's alone to write: what another could put there is not believed.
    fn check_private(&self) -> io::Result<()> {
        let metadata = fs::metadata(&self.directory)?;
        let owner = metadata.uid();
        let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
        if is_ours && metadata.mode() & OTHERS_WRITE == 0 {
            return Ok(());
        }
        let text = "other users may write to it: chmod go-w, if it is yours";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    /// Forgets it.
    pub fn forget(&self, key: &CacheKey) {
        // What is not there is forgotten.
        fs::remove_file(self.path(key)).ok();
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        let name = data_encoding::HEXLOWER.encode(&key.0);
        self.directory.join(format!("{name}.{SUFFIX}"))
    }

    /// Removes the oldest entries beyond these bounds.
    fn trim(&self, entries_max: usize, bytes_max: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_ours = path.extension().is_some_and(|end| end == SUFFIX || end == NEW_SUFFIX);
            // Another process may have removed it.
            if let (true, Ok(metadata)) = (is_ours, fs::symlink_metadata(&path)) {
                entries.push((metadata.modified()?, metadata.len(), path));
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, len, _)| len).sum();
        let mut count = entries.len();
        for (_, len, path) in entries {
            if count <= entries_max && bytes <= bytes_max {
                break;
            }
            fs::remove_file(path).ok();
            (count, bytes) = (count - 1, bytes - len);
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "of a file, beside which the file system puts its own"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    blake3::derive_key(CHECKSUM_CONTEXT, bytes)
}

fn encode(key: &CacheKey, remembered: &Remembered) -> Vec<u8> {
    let Remembered { plain, manifest, checksums } = remembered;
    let SwarmKey { id, size_bytes, chunk_size_log2 } = manifest.key();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&size_bytes.to_le_bytes());
    bytes.push(*chunk_size_log2);
    bytes.extend_from_slice(&plain.0);
    bytes.extend_from_slice(&id.0);
    for (digest, checksum) in manifest.digests().iter().zip(checksums) {
        bytes.extend_from_slice(&digest.0);
        bytes.extend_from_slice(&checksum.to_le_bytes());
    }
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn decode(of: &CacheKey, bytes: &[u8]) -> Option<Remembered> {
    let (bytes, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if checksum(bytes) != *sum {
        return None;
    }
    let (head, chunks) = bytes.split_at_checked(HEAD_BYTES)?;
    let (magic, head) = head.split_first_chunk()?;
    let (key, head) = head.split_first_chunk()?;
    let (size_bytes, head) = head.split_first_chunk()?;
    let (&chunk_size_log2, head) = head.split_first()?;
    let (plain, head) = head.split_first_chunk()?;
    let (id, _) = head.split_first_chunk()?;
    if *magic != MAGIC || *key != of.0 {
        return None;
    }
    let size_bytes = u64::from_le_bytes(*size_bytes);
    let key = SwarmKey { id: Digest(*id), size_bytes, chunk_size_log2 };
    key.validate().ok()?;
    let (chunks, []) = chunks.as_chunks::<CHUNK_BYTES>() else { return None };
    if chunks.len() != key.chunk_count() as usize {
        return None;
    }
    let (mut digests, mut checksums) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let (digest, checksum) = chunk.split_first_chunk()?;
        digests.push(Digest(*digest));
        checksums.push(u64::from_le_bytes(checksum.try_into().ok()?));
    }
    let manifest = Manifest::verify(key, &digests).ok()?;
    Some(Remembered { plain: Digest(*plain), manifest, checksums })
}

#[cfg(test)]
mod tests;
