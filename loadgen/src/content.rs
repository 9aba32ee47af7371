//! What is distributed: a file that exists, or incompressible bytes made from the seed.
//!
//! Generated content lies in memory once, shared by all; a file is read where it is. Digests are
//! made here, by all cores, before any event loop runs. Sends nothing.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::fs::{FileExt, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use bytes::Bytes;
use relay::{
    client::{ChunkStore, Disk, FileStore, MemoryStore, Opening, Seal, content::holds_more},
    machine,
    protocol::{
        ChunkHasher, Digest, KeyError, Manifest, ManifestHasher, Sealed, SwarmKey, UserSecret,
        limits::{CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX},
    },
    stderr::{Pace, say},
    units::bytes_text,
};
use shards::clock;

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// Its name, without a directory; not always text.
    pub(crate) name: OsString,
    /// Whether its owner may execute it.
    pub(crate) is_executable: bool,
    /// The digests of what is moved, and with them its key.
    pub(crate) manifest: Arc<Manifest>,
    /// BLAKE3 of the file itself, what `b3sum` prints.
    pub(crate) plain: Digest,
    /// How it is sealed, if it is.
    seal: Option<Seal>,
    bytes: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    Path(PathBuf),
}

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// The file can't be read.
    #[error("could not read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The file can't be written.
    #[error("could not write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is not a regular file.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// It has another end than the system states.
    #[error(
        "{} holds more than the system states: it is being written, or made while it is read, as files in \
         /proc are; copy it to another file first, and name that",
        .0.display()
    )]
    Misstated(PathBuf),
    /// It can't be cut into chunks of this size.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No chunks are large enough.
    #[error(
        "{0} bytes are more than the {CHUNK_COUNT_MAX} chunks of 16 MiB that a file may have (4 TiB): \
         give a smaller --file"
    )]
    TooLarge(u64),
    /// The system refuses a thread.
    #[error("could not start a thread to make or hash content: {0}; {MORE_THREADS}", MORE_THREADS = shards::MORE_THREADS)]
    Thread(io::Error),
    /// More than this machine holds.
    #[error(
        "generated content lies in memory, and {wanted} bytes of it are more than this machine has \
         to spare ({there}): give a smaller --file, or name an existing file"
    )]
    Memory {
        /// All files.
        wanted: u64,
        /// What there is, less what else a run needs.
        there: u64,
    },
}

/// What the threads of this module are called.
const THREAD: &str = "loadgen-content";

/// The permission of a file's owner to execute it.
const EXECUTABLE: u32 = 0o100;

/// What a run needs beside its content: clients, and a relay with its cache.
const MEMORY_BESIDE_BYTES: u64 = 512 << 20;

/// Whether so many files of so many bytes can be made at all: systems promise more memory than they
/// have, and end a program that believes it.
pub(crate) fn check_size(size_bytes: u64, files: usize) -> Result<(), ContentError> {
    let largest =
        SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2: CHUNK_SIZE_LOG2_MAX };
    largest.validate().map_err(|_| ContentError::TooLarge(size_bytes))?;
    let wanted = size_bytes.saturating_mul(files as u64);
    let there = machine::memory_bytes().unwrap_or(u64::MAX);
    let there = there.saturating_sub(MEMORY_BESIDE_BYTES.min(there / 2));
    if wanted > there {
        return Err(ContentError::Memory { wanted, there });
    }
    Ok(())
}

impl Content {
    /// So many bytes, the `index`-th file of this seed.
    pub(crate) fn generate(
        size_bytes: u64,
        chunk_size_log2: u8,
        seed: u64,
        index: usize,
    ) -> Result<Self, ContentError> {
        let short = |_| ContentError::Memory { wanted: size_bytes, there: 0 };
        let size = usize::try_from(size_bytes).map_err(short)?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(size)
            .map_err(|_| ContentError::Memory { wanted: size_bytes, there: 0 })?;
        bytes.resize(size, 0);
        fill(&mut bytes, seed, index).map_err(ContentError::Thread)?;
        let chunk_size = 1usize << chunk_size_log2;
        let manifest = digest(size_bytes, chunk_size_log2, |chunk, hasher| {
            let start = chunk as usize * chunk_size;
            hasher.update(&bytes[start..size.min(start + chunk_size)]);
            Ok(())
        })?;
        let name = format!("file-{index}.bin").into();
        Ok(Self::plain(name, false, manifest, Source::Memory(bytes.into())))
    }

    /// An existing file.
    pub(crate) fn open(path: &Path, chunk_size_log2: u8) -> Result<Self, ContentError> {
        let read_error = |error| ContentError::Read { path: path.to_owned(), error };
        // Before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(ContentError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        let chunk_size = 1u64 << chunk_size_log2;
        let manifest = digest(metadata.len(), chunk_size_log2, |chunk, hasher| {
            let start = u64::from(chunk) * chunk_size;
            let len = chunk_size.min(metadata.len() - start);
            let mut bytes = vec![0; usize::try_from(len).expect("a chunk is at most 16 MiB")];
            file.read_exact_at(&mut bytes, start).map_err(read_error)?;
            hasher.update(&bytes);
            Ok(())
        })?;
        if holds_more(&file, metadata.len()).map_err(read_error)? {
            return Err(ContentError::Misstated(path.to_owned()));
        }
        let name = path.file_name().unwrap_or("file".as_ref()).to_owned();
        let is_executable = metadata.permissions().mode() & EXECUTABLE != 0;
        Ok(Self::plain(name, is_executable, manifest, Source::Path(path.to_owned())))
    }

    fn plain(name: OsString, is_executable: bool, manifest: Arc<Manifest>, bytes: Source) -> Self {
        let plain = manifest.key().id;
        Self { name, is_executable, manifest, plain, seal: None, bytes }
    }

    /// The same, sealed as a user of this seed would.
    ///
    /// # Errors
    /// The system's, if it is a file.
    pub(crate) fn sealed(self, seed: u64) -> Result<Self, ContentError> {
        let key = *self.manifest.key();
        let user = UserSecret(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        let sealed = Sealed::by(&user, self.plain, key.size_bytes);
        let cipher = sealed.cipher(key.size_bytes);
        let read_error = |path: &Path, error| ContentError::Read { path: path.to_owned(), error };
        let file = match &self.bytes {
            Source::Path(path) => {
                Some((path, File::open(path).map_err(|error| read_error(path, error))?))
            }
            Source::Memory(_) => None,
        };
        let manifest = digest(key.size_bytes, key.chunk_size_log2, |chunk, hasher| {
            let start = key.chunk_offset_bytes(chunk);
            let mut bytes = vec![0; key.chunk_len_bytes(chunk) as usize];
            match (&self.bytes, &file) {
                (Source::Memory(content), _) => {
                    let from = usize::try_from(start).expect("it is in memory");
                    let len = bytes.len();
                    bytes.copy_from_slice(&content[from..from + len]);
                }
                (_, Some((path, file))) => {
                    let read = file.read_exact_at(&mut bytes, start);
                    read.map_err(|error| read_error(path, error))?;
                }
                (Source::Path(_), None) => unreachable!("it was opened"),
            }
            cipher.apply(start, &mut bytes);
            hasher.update(&bytes);
            Ok(())
        })?;
        Ok(Self { manifest, seal: Some(Seal::new(&sealed, key.size_bytes)), ..self })
    }

    /// What a client that gets it opens it with, if it is sealed.
    pub(crate) fn opening(&self) -> Option<Opening> {
        self.seal.as_ref().map(|seal| Opening::with(seal.clone(), self.manifest.key()))
    }

    /// Copies it to a new file.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_to(&self, path: &Path) -> Result<(), ContentError> {
        let written = match &self.bytes {
            Source::Memory(bytes) => std::fs::write(path, bytes),
            Source::Path(source) => std::fs::copy(source, path).map(drop),
        };
        written.map_err(|error| ContentError::Write { path: path.to_owned(), error })
    }

    /// The shared source of this content's chunks.
    ///
    /// # Errors
    /// The system's, if it is a file.
    pub(crate) fn store(&self, disk: &Disk) -> io::Result<Box<dyn ChunkStore>> {
        let key = *self.manifest.key();
        Ok(match &self.bytes {
            Source::Memory(bytes) => {
                Box::new(MemoryStore::new(key, bytes.clone()).with_seal(self.seal.clone()))
            }
            Source::Path(path) => {
                let store = FileStore::open(key, path, disk)?;
                Box::new(match &self.seal {
                    Some(seal) => store.with_seal(seal.clone()),
                    None => store,
                })
            }
        })
    }
}

/// Bytes that don't compress: BLAKE3's extended output under the seed, every core its part.
fn fill(bytes: &mut [u8], seed: u64, index: usize) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new_derive_key("psp-relay loadgen content v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(index as u64).to_le_bytes());
    let output = hasher.finalize_xof();
    let part = bytes.len().div_ceil(cores()).max(1);
    thread::scope(|scope| {
        for (number, part_bytes) in bytes.chunks_mut(part).enumerate() {
            let mut output = output.clone();
            let work = move || {
                output.set_position((number * part) as u64);
                output.fill(part_bytes);
            };
            thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, work)?;
        }
        Ok(())
    })
}

/// The manifest; `feed` gives a hasher the bytes of a chunk. Every core takes its share.
fn digest(
    size_bytes: u64,
    chunk_size_log2: u8,
    feed: impl Fn(u32, &mut ChunkHasher) -> Result<(), ContentError> + Sync,
) -> Result<Arc<Manifest>, ContentError> {
    let mut hasher = ManifestHasher::new(size_bytes, chunk_size_log2)?;
    let (count, cores) = (hasher.chunk_count(), u32::try_from(cores()).unwrap_or(1));
    let chunks_done = AtomicU32::new(0);
    let share = |core: u32| {
        let (feed, chunks_done, mut pace) = (&feed, &chunks_done, Pace::new(clock::now()));
        (core..count).step_by(cores as usize).map(move |chunk| {
            let mut hasher = ChunkHasher::new(count, chunk, chunk_size_log2);
            let digested = feed(chunk, &mut hasher).map(|()| (chunk, hasher.finalize()));
            let done = chunks_done.fetch_add(1, Ordering::Relaxed) + 1;
            if core == 0 && pace.is_due(clock::now()) {
                let done = bytes_text(u64::from(done) << chunk_size_log2);
                say(format_args!("loadgen: hashing: {done} of {}", bytes_text(size_bytes)));
            }
            digested
        })
    };
    let digests: Vec<Result<Vec<(u32, Digest)>, ContentError>> = thread::scope(|scope| {
        let start = |core| {
            let work = move || share(core).collect();
            thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, work)
        };
        let workers: Vec<_> = (0..cores).map(start).collect::<io::Result<_>>()?;
        let join =
            |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("hashing doesn't panic");
        io::Result::Ok(workers.into_iter().map(join).collect())
    })
    .map_err(ContentError::Thread)?;
    for share in digests {
        share?.into_iter().for_each(|(chunk, digest)| hasher.set(chunk, digest));
    }
    let (_, manifest) = hasher.finish().expect("every chunk was digested");
    Ok(Arc::new(manifest))
}

/// Plain BLAKE3 of files on disk, in order, by all cores; what `b3sum` prints.
pub(crate) fn digest_files(paths: &[PathBuf]) -> Vec<io::Result<Digest>> {
    let share = paths.len().div_ceil(cores()).max(1);
    let digest = |path: &PathBuf| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Digest(*hasher.finalize().as_bytes()))
    };
    thread::scope(|scope| {
        let mut parts = Vec::new();
        for part in paths.chunks(share) {
            let work = move || part.iter().map(digest).collect::<Vec<_>>();
            let worker = thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, work);
            parts.push((worker.ok(), part));
        }
        let mut digests = Vec::new();
        for (worker, part) in parts {
            digests.extend(match worker {
                Some(worker) => worker.join().expect("hashing doesn't panic"),
                // The system refused a thread.
                None => part.iter().map(digest).collect(),
            });
        }
        digests
    })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use relay::protocol::digest_file;

    use super::*;

    #[test]
    fn generated_content_is_the_same_for_the_same_seed_and_no_other() {
        let id =
            |seed, index| Content::generate(10_000, 10, seed, index).unwrap().manifest.key().id;
        assert_eq!(id(1, 0), id(1, 0));
        assert_ne!(id(1, 0), id(2, 0));
        assert_ne!(id(1, 0), id(1, 1));
    }

    #[test]
    fn the_id_is_the_plain_digest_for_every_awkward_size() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, 1023, 1024, 1025, 5000, 100_000] {
            let content = Content::generate(size, 10, 3, 0).unwrap();
            let Source::Memory(bytes) = &content.bytes else { panic!("generated") };
            assert_eq!(content.manifest.key().id, digest_file(bytes));
            let path = dir.path().join(size.to_string());
            std::fs::write(&path, bytes).unwrap();
            let opened = Content::open(&path, 10).unwrap();
            assert_eq!(opened.manifest.key(), content.manifest.key());
            let on_disk = digest_files(&[path]).remove(0).unwrap();
            assert_eq!(on_disk, content.manifest.key().id);
            let sealed = [content.clone().sealed(5).unwrap(), opened.sealed(5).unwrap()];
            for sealed in sealed {
                assert_eq!(sealed.plain, content.plain);
                assert_eq!(sealed.manifest.key().id == content.plain, size == 0);
                let again = content.clone().sealed(5).unwrap();
                assert_eq!(again.manifest, sealed.manifest, "from memory and from a file");
            }
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let error = Content::open(Path::new("/no/such/file"), 18).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let error = Content::open(Path::new("/"), 18).unwrap_err();
        assert!(error.to_string().contains("not a file"), "{error}");
    }

    #[test]
    fn what_no_machine_holds_is_refused_before_it_is_made() {
        assert!(check_size(100 << 20, 1).is_ok());
        let error = check_size(1 << 41, 1).unwrap_err().to_string();
        assert!(error.contains("smaller --file"), "{error}");
        assert!(check_size(1 << 30, 1 << 20).is_err(), "all files count");
        let error = check_size(10 << 40, 1).unwrap_err().to_string();
        assert!(error.contains("4 TiB"), "{error}");
    }
}
