//! What is on disk already: found out by hashing it, on all cores; a sealed file is sealed for that, as its list
//! of digests is of what the swarm moves. Nothing is believed that was written down about it.
//!
//! Blocks: for threads without an event loop. Holes are not read. They may be zeros that were not written, so some are
//! asked whether the content has zeros there, and all only where some say so.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    content::{Content, read_at, zeros::Zeros},
    sealing::{Opening, Seal},
};
use relay_protocol::{Bitfield, ChunkHasher, Digest, KeyError, Manifest, ManifestHasher, SwarmKey};

/// Threads that hash, at most: beyond, memory is the limit on any machine.
const THREADS_MAX: usize = 64;

/// Runs of chunks that are holes of which samples are hashed, at most. A file that was got in no order at all has many;
/// what is not found to be zeros is got once more.
const HOLE_RUNS_MAX: usize = 1024;

/// Chunks that are hashed before it is looked whether more need be.
const BATCH_CHUNKS: usize = 1024;

/// Lets others see how far the hashing is, and stop it.
#[derive(Debug, Default)]
pub struct Hashing {
    /// Bytes that were hashed.
    pub hashed_bytes: AtomicU64,
    /// Bytes that are to be hashed, once known.
    pub total_bytes: AtomicU64,
    /// Set it to have the hashing end with [`io::ErrorKind::Interrupted`].
    pub stop: Arc<AtomicBool>,
    /// Holes are to be filled: they are not taken for the content's zeros.
    pub fills_holes: bool,
}

/// The chunks of the manifest that the file holds. An opening is told of each of them: whether it is of the right
/// file is to be asked there.
///
/// # Errors
/// The system's, or the hashing was stopped.
pub fn chunks_present(
    content: &dyn Content,
    manifest: &Manifest,
    opening: Option<&Opening>,
    hashing: &Hashing,
) -> io::Result<Bitfield> {
    let key = manifest.key();
    let candidates = chunks_with_data(content, key, hashing)?;
    let mut have = Bitfield::empty(key.chunk_count());
    let mut add = |all: Vec<Found>| {
        for found in all {
            if found.moved == manifest.digest(found.chunk) {
                have.insert(found.chunk);
                found.tell(opening);
            }
        }
    };
    add(digests(content, key, &candidates, opening, hashing)?);
    // Of a content without any data nothing has come.
    if !candidates.is_empty() && !hashing.fills_holes {
        add(zero_chunks(manifest, &candidates, opening, hashing)?);
    }
    Ok(have)
}

/// Those of these chunks that the content holds. An opening is told of each of them.
///
/// # Errors
/// The system's, or the hashing was stopped.
pub fn chunks_right(
    content: &dyn Content,
    manifest: &Manifest,
    chunks: &[u32],
    opening: Option<&Opening>,
    hashing: &Hashing,
) -> io::Result<Vec<u32>> {
    let mut right = digests(content, manifest.key(), chunks, opening, hashing)?;
    right.retain(|found| found.moved == manifest.digest(found.chunk));
    right.iter().for_each(|found| found.tell(opening));
    Ok(right.into_iter().map(|found| found.chunk).collect())
}

/// Digests of zeros where there are holes: of runs that are the content's zeros, as far as their first, middle and
/// last chunks tell.
fn zero_chunks(
    manifest: &Manifest,
    with_data: &[u32],
    opening: Option<&Opening>,
    hashing: &Hashing,
) -> io::Result<Vec<Found>> {
    let key = manifest.key();
    let ends = with_data.iter().copied().chain([key.chunk_count()]);
    let starts = [0].into_iter().chain(with_data.iter().map(|chunk| chunk + 1));
    let runs: Vec<_> = starts.zip(ends).filter(|(start, end)| start < end).collect();
    let zeros = Zeros(key.size_bytes);
    let mut whole = Vec::new();
    let samples: Vec<u32> = runs
        .iter()
        .take(HOLE_RUNS_MAX)
        .flat_map(|&(start, end)| {
            let mut samples = vec![start, start + (end - start) / 2, end - 1];
            samples.dedup();
            samples
        })
        .collect();
    let mut sampled = digests(&zeros, key, &samples, opening, hashing)?;
    sampled.retain(|found| found.moved == manifest.digest(found.chunk));
    sampled.sort_unstable_by_key(|found| found.chunk);
    for &(start, end) in runs.iter().take(HOLE_RUNS_MAX) {
        let from = sampled.partition_point(|found| found.chunk < start);
        if sampled.get(from).is_some_and(|found| found.chunk < end) {
            whole.extend(start..end);
        }
    }
    digests(&zeros, key, &whole, opening, hashing)
}

/// How many bytes of these chunks are not all zeros, as far as the list of digests tells; once they are more than
/// `enough_bytes`, no more is found out.
///
/// # Errors
/// The hashing was stopped.
pub fn bytes_not_zero(
    manifest: &Manifest,
    chunks: &[u32],
    opening: Option<&Opening>,
    enough_bytes: u64,
    hashing: &Hashing,
) -> io::Result<u64> {
    let key = manifest.key();
    let mut bytes = 0;
    for batch in chunks.chunks(BATCH_CHUNKS) {
        for found in digests(&Zeros(key.size_bytes), key, batch, opening, hashing)? {
            if found.moved != manifest.digest(found.chunk) {
                bytes += u64::from(key.chunk_len_bytes(found.chunk));
            }
        }
        if bytes > enough_bytes {
            break;
        }
    }
    Ok(bytes)
}

/// The manifest of a whole file of this length; `None` if the file is shorter. An opening is told of all chunks.
///
/// # Errors
/// The system's, or the hashing was stopped.
pub fn manifest_of(
    content: &dyn Content,
    size_bytes: u64,
    chunk_size_log2: u8,
    opening: Option<&Opening>,
    hashing: &Hashing,
) -> io::Result<Option<Manifest>> {
    let invalid = |error: KeyError| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut hasher = ManifestHasher::new(size_bytes, chunk_size_log2).map_err(invalid)?;
    let shape = SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2 };
    let all: Vec<u32> = (0..shape.chunk_count()).collect();
    for found in digests(content, &shape, &all, opening, hashing)? {
        hasher.set(found.chunk, found.moved);
        found.tell(opening);
    }
    Ok(hasher.finish().map(|(_, manifest)| manifest))
}

/// The digests of a chunk: as the swarm moves it, and as it lies on disk, if that is sealed.
struct Found {
    chunk: u32,
    moved: Digest,
    plain: Option<Digest>,
}

impl Found {
    fn tell(&self, opening: Option<&Opening>) {
        if let (Some(opening), Some(plain)) = (opening, self.plain) {
            // What the whole comes to is asked when all is here.
            opening.note(self.chunk, plain).ok();
        }
    }
}

/// All chunks that are not wholly holes. Never asks where data ends: a file in memory looks at each of
/// its pages for that (14 ms for 1 GiB).
fn chunks_with_data(
    content: &dyn Content,
    key: &SwarmKey,
    hashing: &Hashing,
) -> io::Result<Vec<u32>> {
    let mut chunks: Vec<u32> = Vec::new();
    let mut offset = 0;
    let end = key.size_bytes.min(content.size_bytes()?);
    while let Some(start) = content.next_data(offset, end)? {
        if hashing.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let chunk = start >> key.chunk_size_log2;
        chunks.push(u32::try_from(chunk).expect("below the chunk count"));
        offset = (chunk + 1) << key.chunk_size_log2;
    }
    Ok(chunks)
}

/// The digests of these chunks, in any order, without those that the file is too short for.
fn digests(
    content: &dyn Content,
    key: &SwarmKey,
    chunks: &[u32],
    opening: Option<&Opening>,
    hashing: &Hashing,
) -> io::Result<Vec<Found>> {
    let seal = opening.map(Opening::seal);
    let total = chunks.iter().map(|&chunk| u64::from(key.chunk_len_bytes(chunk))).sum();
    hashing.total_bytes.fetch_add(total, Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = threads.min(THREADS_MAX).min(chunks.len()).max(1);
    thread::scope(|scope| {
        let worker = || digest_some(content, key, chunks, &next, seal, hashing);
        // Fewer threads take longer; this one is always there.
        let workers: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, worker).ok())
            .collect();
        let mut all = worker()?;
        for worker in workers {
            let part = worker.join().map_err(|_| io::Error::other("a hashing thread panicked"))?;
            all.append(&mut part?);
        }
        Ok(all)
    })
}

/// One thread's share: whatever chunk is next.
fn digest_some(
    content: &dyn Content,
    key: &SwarmKey,
    chunks: &[u32],
    next: &AtomicUsize,
    seal: Option<&Seal>,
    hashing: &Hashing,
) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    while let Some(&chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
        if hashing.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = key.chunk_len_bytes(chunk);
        let offset = key.chunk_offset_bytes(chunk);
        if read_at(content, &mut buffer, len as usize, offset)? < len as usize {
            continue;
        }
        let mut hasher = ChunkHasher::new(key.chunk_count(), chunk, key.chunk_size_log2);
        found.push(match seal {
            Some(seal) => {
                let moved = seal.turn(key, chunk, &mut buffer, Some(&mut hasher));
                Found { chunk, moved, plain: Some(hasher.finalize()) }
            }
            None => {
                hasher.update(&buffer);
                Found { chunk, moved: hasher.finalize(), plain: None }
            }
        });
        hashing.hashed_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use relay_protocol::{Sealed, ShareSecret, digest_file};

    use super::{super::content::has_data, *};

    const LOG2: u8 = 12;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
    }

    fn present(file: &File, manifest: &Manifest) -> (Vec<u32>, u64) {
        let hashing = Hashing::default();
        let have = chunks_present(file, manifest, None, &hashing).unwrap();
        (have.iter().collect(), hashing.hashed_bytes.load(Ordering::Relaxed))
    }

    #[test]
    fn what_is_there_is_found_and_holes_are_not_read() {
        let bytes = content((40 << LOG2) + 77);
        let manifest = Manifest::of(&bytes, LOG2).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(!has_data(&file).unwrap());
        file.set_len(bytes.len() as u64).unwrap();
        assert!(!has_data(&file).unwrap(), "a hole is no data");
        for chunk in [3, 17, 40] {
            let start = chunk << LOG2;
            let end = bytes.len().min(start + (1 << LOG2));
            file.write_all_at(&bytes[start..end], start as u64).unwrap();
        }
        assert!(has_data(&file).unwrap());
        let (chunks, hashed) = present(&file, &manifest);
        assert_eq!(chunks, [3, 17, 40]);
        assert!(hashed < bytes.len() as u64, "{hashed} bytes were hashed, holes as well");
        file.write_all_at(b"!", (17 << LOG2) + 5).unwrap();
        assert_eq!(present(&file, &manifest).0, [3, 40], "what was damaged is lacking");
    }

    #[test]
    fn holes_that_are_zeros_are_here_and_others_are_not() {
        let mut bytes = content((400 << LOG2) + 5);
        bytes[10 << LOG2..200 << LOG2].fill(0);
        bytes[300 << LOG2..].fill(0);
        let sealed = Sealed { secret: ShareSecret([3; 16]), plain: digest_file(&bytes) };
        let mut moved = bytes.clone();
        sealed.cipher(bytes.len() as u64).apply(0, &mut moved);
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes[..2 << LOG2], 0).unwrap();
        file.write_all_at(&bytes[205 << LOG2..206 << LOG2], 205 << LOG2).unwrap();
        for sealed in [None, Some(&sealed)] {
            let of = if sealed.is_some() { &moved } else { &bytes };
            let manifest = Manifest::of(of, LOG2).unwrap();
            let opening = sealed.map(|sealed| Opening::new(sealed, manifest.key()));
            let hashing = Hashing::default();
            let have = chunks_present(&file, &manifest, opening.as_ref(), &hashing).unwrap();
            let expected: Vec<u32> =
                [0..2, 10..200, 205..206, 300..401].into_iter().flatten().collect();
            assert_eq!(have.iter().collect::<Vec<_>>(), expected);
            let all: Vec<u32> = (0..401).collect();
            let count = |enough| {
                bytes_not_zero(&manifest, &all, opening.as_ref(), enough, &hashing).unwrap()
            };
            assert_eq!(count(u64::MAX), 110 << LOG2);
            let nothing = tempfile::tempfile().unwrap();
            nothing.set_len(bytes.len() as u64).unwrap();
            assert_eq!(
                chunks_present(&nothing, &manifest, opening.as_ref(), &hashing).unwrap().count(),
                0
            );
        }
    }

    #[test]
    fn a_file_of_another_length_or_content_misleads_nobody() {
        let bytes = content(5 << LOG2);
        let manifest = Manifest::of(&bytes, LOG2).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes[..(2 << LOG2) + 1], 0).unwrap();
        assert_eq!(present(&file, &manifest).0, [0, 1], "the third is cut off");
        file.write_all_at(&content(9 << LOG2), 1).unwrap();
        assert_eq!(present(&file, &manifest).0, Vec::<u32>::new());
    }

    #[test]
    fn a_whole_file_gives_the_manifest_that_it_was_made_of() {
        for len in [0, 1, 4096, 4097, 100_000] {
            let bytes = content(len);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let manifest = manifest_of(&file, len as u64, LOG2, None, &Hashing::default()).unwrap();
            assert_eq!(manifest, Some(Manifest::of(&bytes, LOG2).unwrap()));
        }
        let short = tempfile::tempfile().unwrap();
        assert_eq!(manifest_of(&short, 5, LOG2, None, &Hashing::default()).unwrap(), None);
    }

    #[test]
    fn what_is_there_of_a_sealed_file_is_found_and_judged_as_a_whole() {
        let bytes = content((5 << LOG2) + 77);
        let size_bytes = bytes.len() as u64;
        let sealed = Sealed { secret: ShareSecret([3; 16]), plain: digest_file(&bytes) };
        let mut moved = bytes.clone();
        sealed.cipher(size_bytes).apply(0, &mut moved);
        let manifest = Manifest::of(&moved, LOG2).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let wrong = Sealed { plain: digest_file(b"another"), ..sealed.clone() };
        let present = |sealed: &Sealed| {
            let opening = Opening::new(sealed, manifest.key());
            let hashing = Hashing::default();
            let have = chunks_present(&file, &manifest, Some(&opening), &hashing).unwrap();
            (have.count(), opening.check().is_ok())
        };
        assert_eq!(present(&sealed), (6, true));
        // Another key: what it seals to is nothing that the swarm moves.
        assert_eq!(present(&wrong), (0, true), "nothing is here, so nothing is wrong");
        let opening = Opening::new(&sealed, manifest.key());
        let hashing = Hashing::default();
        let found = manifest_of(&file, size_bytes, LOG2, Some(&opening), &hashing).unwrap();
        assert_eq!(found.as_ref(), Some(&manifest));
        assert!(opening.check().is_ok());
        // What the swarm moves is no file of its own: it was never opened.
        file.write_all_at(&moved, 0).unwrap();
        assert_eq!(present(&sealed), (0, true));
        file.write_all_at(&bytes[..2 << LOG2], 0).unwrap();
        assert_eq!(present(&sealed), (2, true));
    }

    #[test]
    fn it_can_be_stopped() {
        let bytes = content(5 << LOG2);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let hashing = Hashing { stop: Arc::new(true.into()), ..Hashing::default() };
        let manifest = Manifest::of(&bytes, LOG2).unwrap();
        let error = chunks_present(&file, &manifest, None, &hashing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
