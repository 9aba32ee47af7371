//! From a file to its manifest, on all cores: threads of this module read, seal if that is wanted, and digest;
//! the caller waits and is told how far they are. Blocks: for threads without an event loop.
//!
//! Trusts nothing that it reads twice: it reads each byte once. Whether the file changed meanwhile
//! is [`super::origin`]'s question.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crc_fast::{CrcAlgorithm, checksum};

use super::{
    content::{Content, read_at},
    sealing::{PIECE_BYTES, Seal},
};
use relay_protocol::{ChunkHasher, Digest, KeyError, Manifest, ManifestHasher};

/// Bytes of one read. BLAKE3 is at its best from 64 KiB on, and a disk from a megabyte on.
const READ_BYTES: usize = 1 << 20;

/// How often the caller is told at least.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Results that wait for the caller, for each thread.
const RESULTS_PER_THREAD: usize = 4;

/// Why a file has no manifest.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It can't be cut into such chunks.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It can't be read.
    #[error("could not read it at offset {offset_bytes}: {error}")]
    Read {
        /// Where in the file.
        offset_bytes: u64,
        /// The system's reason.
        error: io::Error,
    },
    /// It is shorter than it was.
    #[error("it became shorter while it was read: it ends before offset {0}")]
    Shrunk(u64),
    /// The system refuses a thread.
    #[error("could not start a thread: {0}; {MORE_THREADS}", MORE_THREADS = shards::MORE_THREADS)]
    Thread(io::Error),
}

/// What one pass over a file has found out.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// What the file is to others: of a sealed one, the ciphertext's.
    pub manifest: Manifest,
    /// By which its owner notices that it has changed: of each chunk, as it lies on disk.
    pub checksums: Vec<u64>,
}

/// By which the owner of a chunk notices that it is not what it was: CRC-64/NVME. At a tenth of a
/// digest's price it misses one accident in 2^64; an attacker who hides a change of a file gets as
/// far as the relay, which looks at digests.
#[must_use]
pub fn chunk_checksum(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// As many threads as there are cores for this process.
#[must_use]
pub fn threads_default() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The manifest and checksums of the first `size_bytes` bytes of a content, which is sealed on the way if there is a
/// seal. `tell` is called on this thread with the bytes that are done, several times a second.
///
/// # Errors
/// [`HashError`].
pub fn hash_content(
    content: &dyn Content,
    size_bytes: u64,
    chunk_size_log2: u8,
    threads: NonZeroUsize,
    seal: Option<&Seal>,
    tell: &mut dyn FnMut(u64),
) -> Result<Hashed, HashError> {
    let mut hasher = ManifestHasher::new(size_bytes, chunk_size_log2)?;
    let plan = Plan::new(size_bytes, chunk_size_log2, hasher.chunk_count(), seal);
    let mut checksums = vec![0; hasher.chunk_count() as usize];
    let stopping = AtomicBool::new(false);
    let threads = threads.get().min(plan.span_count as usize);
    thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(RESULTS_PER_THREAD * threads.max(1));
        for number in 0..threads {
            let (sender, plan, stopping) = (sender.clone(), &plan, &stopping);
            let work = move || plan.work(content, stopping, &sender);
            let builder = thread::Builder::new().name("peer-hashing".into());
            match builder.spawn_scoped(scope, work) {
                Ok(_) => {}
                Err(error) if number == 0 => return Err(HashError::Thread(error)),
                // Those that there are do it all.
                Err(_) => break,
            }
        }
        drop(sender);
        let collected = collect(&results, &mut hasher, &mut checksums, tell);
        stopping.store(true, Ordering::Relaxed);
        collected
    })?;
    let (_, manifest) = hasher.finish().expect("every chunk was set");
    Ok(Hashed { manifest, checksums })
}

fn collect(
    results: &mpsc::Receiver<Result<Span, HashError>>,
    hasher: &mut ManifestHasher,
    checksums: &mut [u64],
    tell: &mut dyn FnMut(u64),
) -> Result<(), HashError> {
    let mut done_bytes = 0;
    loop {
        match results.recv_timeout(TELL_EVERY) {
            Ok(span) => {
                let span = span?;
                for (chunk, (digest, checksum)) in (span.first_chunk..).zip(span.chunks) {
                    hasher.set(chunk, digest);
                    checksums[chunk as usize] = checksum;
                }
                done_bytes += span.bytes;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        tell(done_bytes);
    }
}

/// How a file is shared out among threads: in spans of whole chunks, at least one read long.
struct Plan<'a> {
    seal: Option<&'a Seal>,
    size_bytes: u64,
    chunk_size_log2: u8,
    chunk_count: u32,
    span_chunks: u32,
    span_count: u32,
    next_span: AtomicU32,
}

/// Digests and checksums of consecutive chunks.
struct Span {
    first_chunk: u32,
    chunks: Vec<(Digest, u64)>,
    bytes: u64,
}

impl<'a> Plan<'a> {
    fn new(size_bytes: u64, chunk_size_log2: u8, chunk_count: u32, seal: Option<&'a Seal>) -> Self {
        let span_chunks = u32::try_from(READ_BYTES >> chunk_size_log2).expect("1 MiB").max(1);
        let span_count = chunk_count.div_ceil(span_chunks);
        let next_span = AtomicU32::new(0);
        Self { seal, size_bytes, chunk_size_log2, chunk_count, span_chunks, span_count, next_span }
    }

    fn work(
        &self,
        content: &dyn Content,
        stopping: &AtomicBool,
        sender: &mpsc::SyncSender<Result<Span, HashError>>,
    ) {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        while !stopping.load(Ordering::Relaxed) {
            let span = self.next_span.fetch_add(1, Ordering::Relaxed);
            if span >= self.span_count {
                return;
            }
            let result = self.hash_span(content, span * self.span_chunks, &mut buffer);
            // After an error the caller listens no more.
            if result.is_err() | sender.send(result).is_err() {
                return;
            }
        }
    }

    fn hash_span(
        &self,
        content: &dyn Content,
        first_chunk: u32,
        read: &mut Vec<u8>,
    ) -> Result<Span, HashError> {
        let end_chunk = self.chunk_count.min(first_chunk + self.span_chunks);
        let begin = u64::from(first_chunk) << self.chunk_size_log2;
        let end = self.size_bytes.min(u64::from(end_chunk) << self.chunk_size_log2);
        let mut hasher = ChunkHasher::new(self.chunk_count, first_chunk, self.chunk_size_log2);
        let mut span = Span { first_chunk, chunks: Vec::new(), bytes: end - begin };
        let mut summer = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        let (mut chunk, mut offset) = (first_chunk, begin);
        while offset < end {
            let wanted = usize::try_from(end - offset).map_or(READ_BYTES, |n| n.min(READ_BYTES));
            let failed = |error| HashError::Read { offset_bytes: offset, error };
            if read_at(content, read, wanted, offset).map_err(failed)? < wanted {
                return Err(HashError::Shrunk(offset));
            }
            for piece in read.chunks_mut(PIECE_BYTES.min(1 << self.chunk_size_log2)) {
                summer.update(piece);
                if let Some(seal) = self.seal {
                    seal.apply(offset, piece);
                }
                hasher.update(piece);
                offset += piece.len() as u64;
                let is_chunk_end = offset == end || offset.trailing_zeros() >= self.log2();
                if is_chunk_end {
                    span.chunks.push((hasher.finalize(), summer.finalize_reset()));
                    chunk += 1;
                    if chunk < end_chunk {
                        hasher.restart(self.chunk_count, chunk, self.chunk_size_log2);
                    }
                }
            }
        }
        Ok(span)
    }

    fn log2(&self) -> u32 {
        u32::from(self.chunk_size_log2)
    }
}

/// The first chunk of a file that is not as the manifest says, and how many there are; `None` if
/// all of it is right. The file's length is compared by the caller.
///
/// # Errors
/// The file can't be read.
pub fn first_difference(own: &Manifest, other: &Manifest) -> Option<(u32, u32)> {
    assert_eq!(own.digests().len(), other.digests().len(), "of files of one size");
    let pairs = (0u32..).zip(own.digests().iter().zip(other.digests()));
    let mut different = pairs.filter(|(_, (one, two))| one != two).map(|(chunk, _)| chunk);
    let first = different.next()?;
    Some((first, 1 + u32::try_from(different.count()).expect("fewer than chunks")))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use relay_protocol::{Sealed, ShareSecret, digest_file};

    use super::*;

    fn temp_file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * i + i / 7) % 251).unwrap()).collect()
    }

    #[test]
    fn all_cores_find_what_one_pass_over_memory_finds() {
        let threads = NonZeroUsize::new(3).unwrap();
        for (len, log2) in [
            (0, 10),
            (1, 10),
            (1024, 10),
            (1025, 10),
            (READ_BYTES + 1, 10),
            (3 * READ_BYTES, 18),
            (3 * READ_BYTES + 5, 20),
            (5 * READ_BYTES + 7, 21),
            (5 * READ_BYTES, 24),
        ] {
            let bytes = content(len);
            let mut last = 0;
            let mut tell = |done| last = done;
            let file = temp_file(&bytes);
            let found = hash_content(&file, len as u64, log2, threads, None, &mut tell).unwrap();
            let manifest = Manifest::of(&bytes, log2).unwrap();
            assert_eq!(found.manifest, manifest, "{len} bytes, 2^{log2}");
            let checksums: Vec<u64> = bytes.chunks(1 << log2).map(chunk_checksum).collect();
            assert_eq!(found.checksums, checksums, "{len} bytes, 2^{log2}");
            assert_eq!(last, len as u64);
            let sealed = Sealed { secret: ShareSecret([1; 16]), plain: digest_file(&bytes) };
            let seal = Seal::new(&sealed, len as u64);
            let found =
                hash_content(&file, len as u64, log2, threads, Some(&seal), &mut |_| {}).unwrap();
            let mut moved = bytes.clone();
            sealed.cipher(len as u64).apply(0, &mut moved);
            assert_eq!(
                found.manifest,
                Manifest::of(&moved, log2).unwrap(),
                "{len} bytes, 2^{log2}"
            );
            assert_eq!(found.checksums, checksums, "they are of what lies on disk");
        }
    }

    #[test]
    fn a_file_that_became_shorter_has_no_manifest() {
        let file = temp_file(&content(3000));
        let threads = threads_default();
        let error = hash_content(&file, 5000, 10, threads, None, &mut |_| {}).unwrap_err();
        assert!(matches!(error, HashError::Shrunk(_)), "{error}");
    }

    #[test]
    fn differences_are_counted_from_the_first() {
        let mut bytes = content(5000);
        let own = Manifest::of(&bytes, 10).unwrap();
        assert_eq!(first_difference(&own, &own), None);
        bytes[1024] ^= 1;
        bytes[4999] ^= 1;
        let other = Manifest::of(&bytes, 10).unwrap();
        assert_eq!(first_difference(&own, &other), Some((1, 2)));
    }
}
