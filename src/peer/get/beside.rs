//! What lies beside a target while it is not whole: the list of its digests, and of a bundle the chunks that hold its
//! index. Also how files are opened and renamed there.
//!
//! Nothing of it is believed: the list proves itself by merging to the content's id, and chunks are hashed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::target::FileTarget;
use crate::protocol::{
    Digest, Manifest, SwarmKey,
    limits::{BUNDLE_INDEX_BYTES_MAX, CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX},
};

/// Opens a manifest file.
const MAGIC: [u8; 8] = *b"PSPMANI1";

/// Bytes before the digests: the magic, and the swarm key.
const HEADER_BYTES: usize = 8 + 32 + 8 + 1;

/// Bytes of the longest manifest file.
const MANIFEST_FILE_BYTES_MAX: u64 = HEADER_BYTES as u64 + 32 * CHUNK_COUNT_MAX as u64;

/// Bytes of the longest file of index chunks: the last may go on behind the index.
const INDEX_FILE_BYTES_MAX: u64 = BUNDLE_INDEX_BYTES_MAX as u64 + (2 << CHUNK_SIZE_LOG2_MAX);

/// What lies beside a partial file.
#[derive(Debug)]
pub(crate) enum StoredManifest {
    /// The list of this file's digests.
    Right(Manifest),
    /// That of another file, or of the same in other chunks: the partial file is of that, too.
    Foreign,
    /// None, or what can't be one.
    None,
}

/// The list of digests that lies beside a target.
pub(crate) fn load_manifest(target: &FileTarget, key: &SwarmKey) -> StoredManifest {
    let bytes = read_regular(&target.manifest_path(), MANIFEST_FILE_BYTES_MAX);
    parse_manifest(&bytes.unwrap_or_default(), key)
}

/// Puts the list of digests beside a target, so that the next get need not ask for it.
///
/// # Errors
/// The system's.
pub(crate) fn save_manifest(target: &FileTarget, manifest: &Manifest) -> io::Result<()> {
    write_new(&target.manifest_path(), &manifest_bytes(manifest))
}

/// The chunks that lie beside a target and may hold an index.
pub(super) fn load_index(target: &FileTarget) -> io::Result<Vec<u8>> {
    read_regular(&target.index_path(), INDEX_FILE_BYTES_MAX)
}

/// Puts the chunks that hold the index beside a target.
pub(super) fn save_index(target: &FileTarget, chunks: &[u8]) -> io::Result<()> {
    write_new(&target.index_path(), chunks)
}

/// Removes all that lies beside a target. What can't be removed is of no harm.
pub(super) fn remove(target: &FileTarget) {
    remove_if_there(&target.manifest_path()).ok();
    remove_if_there(&target.index_path()).ok();
}

/// Never through a link that was put there.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)
}

fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular_to_read(path)?.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Locks a partial file or directory, as long as it is open.
///
/// # Errors
/// Another get has it: a sentence for the user.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), String> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(format!(
            "another get writes {} right now: wait until it ends, or choose another name with -o",
            path.display()
        )),
        // A file system without locks: two gets at once are the user's own care.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn open_regular_to_read(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

pub(super) fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Whether the path leads to this very file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames, but never over what is there: also not over an empty directory, which a rename would replace.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        result => return Ok(result?),
    }
    // File systems that can't: a second name first, which is refused if there is such a file.
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

fn manifest_bytes(manifest: &Manifest) -> Vec<u8> {
    let key = manifest.key();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 32 * manifest.digests().len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&key.id.0);
    bytes.extend_from_slice(&key.size_bytes.to_le_bytes());
    bytes.push(key.chunk_size_log2);
    manifest.digests().iter().for_each(|digest| bytes.extend_from_slice(&digest.0));
    bytes
}

fn parse_manifest(bytes: &[u8], key: &SwarmKey) -> StoredManifest {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return StoredManifest::None;
    };
    if header[..8] != MAGIC {
        return StoredManifest::None;
    }
    let is_ours = header[8..40] == key.id.0
        && header[40..48] == key.size_bytes.to_le_bytes()
        && header[48] == key.chunk_size_log2;
    if !is_ours {
        return StoredManifest::Foreign;
    }
    let (digests, odd) = rest.as_chunks::<32>();
    let digests: Vec<Digest> = digests.iter().map(|&bytes| Digest(bytes)).collect();
    match Manifest::verify(*key, &digests) {
        Ok(manifest) if odd.is_empty() => StoredManifest::Right(manifest),
        _ => StoredManifest::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(salt: u8) -> Manifest {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| u8::try_from(i % 251).unwrap() ^ salt).collect();
        Manifest::of(&bytes, 10).unwrap()
    }

    #[test]
    fn a_manifest_is_believed_only_if_it_proves_itself() {
        let dir = tempfile::tempdir().unwrap();
        let target = FileTarget::at(dir.path().join("x"));
        let (ours, other) = (manifest(1), manifest(2));
        assert!(matches!(load_manifest(&target, ours.key()), StoredManifest::None));
        save_manifest(&target, &ours).unwrap();
        save_manifest(&target, &ours).unwrap();
        assert!(
            matches!(load_manifest(&target, ours.key()), StoredManifest::Right(m) if m == ours)
        );
        assert!(matches!(load_manifest(&target, other.key()), StoredManifest::Foreign));
        let good = manifest_bytes(&ours);
        for bad in [
            good[..good.len() - 1].to_vec(),
            good[..good.len() - 32].to_vec(),
            [&good[..], &[0; 32]].concat(),
            [&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat(),
            vec![0; 100],
            Vec::new(),
        ] {
            assert!(matches!(parse_manifest(&bad, ours.key()), StoredManifest::None));
        }
    }

    #[test]
    fn links_beside_a_target_are_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let target = FileTarget::at(dir.path().join("y"));
        let precious = dir.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        for path in [target.manifest_path(), target.index_path()] {
            std::os::unix::fs::symlink(&precious, path).unwrap();
        }
        assert!(load_index(&target).is_err());
        save_manifest(&target, &manifest(1)).unwrap();
        save_index(&target, b"index").unwrap();
        assert_eq!(load_index(&target).unwrap(), b"index");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        remove(&target);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
