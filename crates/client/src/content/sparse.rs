//! Zeros that are not written: long runs of them stay a hole of the file, or become one.
//!
//! A disk image of 100 GiB that holds 3 GiB takes 3 GiB at its getters, too. What can be a hole is found in the bytes
//! that came, not asked of the publisher: so a file is sparse at a getter whatever it is where it is shared.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::Content;

/// Zeros in a row that are worth a hole. Each hole is a system call, and an extent that the file system keeps; a
/// quarter of the usual chunk is far more than either costs.
pub const HOLE_BYTES_LEAST: usize = 64 << 10;

/// Holes begin and end at multiples of this in a file: what is allocated is a block of the file system, and these have
/// 4 KiB on nearly all.
pub const BLOCK_BYTES: usize = 4 << 10;

/// Bytes that are compared at once, so that the compiler uses vectors.
const STRIDE_BYTES: usize = 64;

/// Zeros that are written where no hole can be made, at a time.
static ZEROS: [u8; HOLE_BYTES_LEAST] = [0; HOLE_BYTES_LEAST];

/// A file that is written without its long runs of zeros.
#[derive(Clone, Debug)]
pub struct SparseFile(pub Arc<File>);

impl Content for SparseFile {
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        self.0.append_at(bytes, offset_bytes)
    }

    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        overwrite(&self.0, bytes, offset_bytes)
    }

    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>> {
        self.0.next_data(offset_bytes, end_bytes)
    }
}

/// Writes these bytes, but leaves or makes holes where many zeros are. The file's length is the caller's care: a hole
/// at the end makes it no longer.
///
/// # Errors
/// The system's.
pub fn overwrite(file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let hole = next_hole(bytes, at, offset_bytes).unwrap_or(bytes.len()..bytes.len());
        if at < hole.start {
            file.write_all_at(&bytes[at..hole.start], offset_bytes + at as u64)?;
        }
        if !hole.is_empty() {
            make_hole(file, offset_bytes + hole.start as u64, hole.len() as u64)?;
        }
        at = hole.end;
    }
    Ok(())
}

/// Whether these are so many zeros, and nothing else, that they are not written for themselves.
#[must_use]
pub fn is_hole(bytes: &[u8]) -> bool {
    bytes.len() >= BLOCK_BYTES && is_zero(bytes)
}

/// The first run of zeros from here on that is to be a hole. A write that is all zeros is one if it has a block at
/// least: its neighbours may be zeros as well.
fn next_hole(bytes: &[u8], from: usize, offset_bytes: u64) -> Option<Range<usize>> {
    if from == 0 && is_hole(bytes) {
        return Some(0..bytes.len());
    }
    let block = BLOCK_BYTES as u64;
    let to_aligned = (offset_bytes + from as u64).next_multiple_of(block) - offset_bytes;
    let mut at = usize::try_from(to_aligned).ok()?;
    let mut start = at;
    while let Some(next) = bytes.get(at..at + BLOCK_BYTES) {
        if is_zero(next) {
            at += BLOCK_BYTES;
            continue;
        }
        if at - start >= HOLE_BYTES_LEAST {
            return Some(start..at);
        }
        at += BLOCK_BYTES;
        start = at;
    }
    (at - start >= HOLE_BYTES_LEAST).then_some(start..at)
}

/// Whether all are 0. What is not shows that at its beginning, nearly always.
fn is_zero(bytes: &[u8]) -> bool {
    let (strides, rest) = bytes.as_chunks::<STRIDE_BYTES>();
    let is_any = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum | byte) != 0;
    !strides.iter().any(|stride| is_any(stride)) && !is_any(rest)
}

/// Nothing is done where there is a hole already; where there is data, it is given back to the file system.
fn make_hole(file: &File, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
    let end_bytes = offset_bytes + len_bytes;
    if file.next_data(offset_bytes, end_bytes)?.is_none() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset_bytes, len_bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // It knows no holes.
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut at = offset_bytes;
    while at < end_bytes {
        let len = usize::try_from(end_bytes - at).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const LEN: usize = 1 << 20;

    fn content(holes: &[(usize, usize)]) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..LEN).map(|i| u8::try_from(i % 251).unwrap() | 1).collect();
        for &(start, end) in holes {
            bytes[start..end].fill(0);
        }
        bytes
    }

    fn read(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn long_runs_of_zeros_are_found_and_nothing_else_is() {
        let found = |bytes: &[u8], offset| {
            let (mut at, mut found) = (0, Vec::new());
            while let Some(hole) = next_hole(bytes, at, offset) {
                at = hole.end;
                found.push((hole.start, hole.end));
            }
            found
        };
        assert!(found(&content(&[]), 0).is_empty());
        assert_eq!(found(&content(&[(4096, 69_632)]), 0), [(4096, 69_632)], "64 KiB");
        assert!(found(&content(&[(4097, 69_632)]), 0).is_empty(), "a block less");
        assert_eq!(found(&content(&[(4097, 80_000)]), 0), [(8192, 77_824)], "whole blocks of it");
        let two = [(0, 65_536), (131_072, LEN)];
        assert_eq!(found(&content(&two), 0), two);
        assert_eq!(found(&content(&[(10, 200_000)]), 4000), [(96, 196_704)], "blocks of the file");
        assert_eq!(found(&[0; 5000], 77), [(0, 5000)], "all zeros");
        assert!(found(&[0; 4095], 0).is_empty(), "not worth it");
        assert!(found(&[], 0).is_empty());
    }

    #[test]
    fn what_is_written_is_read_whatever_was_there() {
        let holes = [(65_536, 262_144), (500_000, 900_000)];
        let bytes = content(&holes);
        for old in [None, Some(content(&[]))] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(LEN as u64).unwrap();
            if let Some(old) = &old {
                file.write_all_at(old, 0).unwrap();
            }
            for (number, piece) in bytes.chunks(100_003).enumerate() {
                overwrite(&file, piece, number as u64 * 100_003).unwrap();
            }
            assert!(read(&file) == bytes);
            // Where the file system can tell, and this one punched at all.
            let blocks = file.metadata().unwrap().blocks() * 512;
            assert!(blocks < LEN as u64 * 3 / 4 || !knows_holes(), "{blocks} bytes are allocated");
        }
    }

    fn knows_holes() -> bool {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN as u64).unwrap();
        matches!(file.next_data(0, LEN as u64), Ok(None))
    }
}
