//! The files beside a target while it is not whole: `NAME.part`, and the list of its digests.
//!
//! The partial file is locked while a get writes it, and becomes the target by one rename, so
//! that a target is never half. The list proves itself by merging to the file's id; one that
//! doesn't is as good as none.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use rustix::fs::Mode;

use super::target::FileTarget;
use crate::{
    client::content::has_data,
    protocol::{Digest, Manifest, SwarmKey, limits::CHUNK_COUNT_MAX},
    units::{bytes_text, bytes_texts},
};

/// Opens a manifest file.
const MAGIC: [u8; 8] = *b"PSPMANI1";

/// Bytes before the digests: the magic, and the swarm key.
const HEADER_BYTES: usize = 8 + 32 + 8 + 1;

/// Bytes of the longest manifest file.
const MANIFEST_FILE_BYTES_MAX: u64 = HEADER_BYTES as u64 + 32 * CHUNK_COUNT_MAX as u64;

/// The target could be replaced between locking and looking; more often than this it is not by
/// chance.
const LOCK_TRIES_MAX: usize = 16;

/// A partial file that is ours alone.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    target: FileTarget,
    file: Arc<File>,
    /// This get made it: it holds nothing, whatever a file system says that can't tell holes from data.
    is_new: bool,
    /// Permissions to execute that the finished file gets.
    execute: u32,
}

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

impl Part {
    /// Opens or makes the partial file, and locks it.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn open(target: FileTarget) -> Result<Self, String> {
        let path = target.part_path();
        for _ in 0..LOCK_TRIES_MAX {
            let (file, is_new) = open_regular(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(format!(
                        "another get writes {} right now: wait until it ends, or choose another \
                         name with -o",
                        path.display()
                    ));
                }
                // A file system without locks: two gets at once are the user's own care.
                Err(TryLockError::Error(_)) => {}
            }
            // It may have become another get's finished file between opening and locking.
            if is_at(&file, &path) {
                return Ok(Self { target, file: Arc::new(file), is_new, execute: 0 });
            }
        }
        Err(format!("{} is replaced again and again: choose another name with -o", path.display()))
    }

    /// Of a file that gets these permissions when it is whole.
    pub(crate) fn with_permissions(self, execute: u32) -> Self {
        Self { execute, ..self }
    }

    /// Whether it held anything when this get began.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn had_data(&self) -> io::Result<bool> {
        if self.is_new { Ok(false) } else { has_data(&*self.file) }
    }

    /// Bytes that were there when this get began, at most. A file system that counts no blocks leaves the
    /// length.
    pub(crate) fn bytes_before(&self) -> u64 {
        if !matches!(self.had_data(), Ok(true)) {
            return 0;
        }
        self.file.metadata().map_or(0, |metadata| match metadata.blocks() {
            0 => metadata.len(),
            blocks => metadata.len().min(blocks.saturating_mul(512)),
        })
    }

    /// Whether it is still where it was made.
    pub(crate) fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.target.part_path())
    }

    /// The open file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the file goes.
    pub(crate) fn target(&self) -> &FileTarget {
        &self.target
    }

    /// Gives a new file its length, and finds out whether there is room for what a file lacks.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn prepare(&self, key: &SwarmKey) -> Result<(), String> {
        let path = self.target.part_path();
        let path = path.display();
        // What has something in it may be the better part of another file: it gets its length at the end.
        if matches!(self.had_data(), Ok(false)) {
            self.file.set_len(key.size_bytes).map_err(|error| {
                let size = bytes_text(key.size_bytes);
                format!("could not make {path} {size} long: {error}: choose another place with -o")
            })?;
        }
        let (Ok(metadata), Ok(system)) = (self.file.metadata(), rustix::fs::fstatvfs(&*self.file))
        else {
            return Ok(()); // Writing will tell.
        };
        // Blocks are of 512 bytes whatever the file system has.
        let lacking = key.size_bytes.saturating_sub(metadata.blocks().saturating_mul(512));
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        // A file system that has no blocks at all doesn't tell: writing will.
        if lacking > free && system.f_blocks > 0 {
            let (lacking, free) = bytes_texts(lacking, free);
            return Err(format!(
                "not enough room for {path}: {lacking} are to come and {free} are free: make room and run \
                 this again, or choose another place with -o"
            ));
        }
        Ok(())
    }

    /// Removes a partial file that holds nothing, with what lies beside it: a get that kept no chunk leaves
    /// nothing that was not there before. The lock is still held, so that a get that opened the file meanwhile
    /// is told that it is in use, or finds that it is gone.
    pub(crate) fn discard_if_empty(&self, key: &SwarmKey, kept_chunks: u32) {
        let path = self.target.part_path();
        let holds_nothing = self.is_new && kept_chunks == 0;
        let is_empty =
            key.size_bytes > 0 && (holds_nothing || matches!(has_data(&*self.file), Ok(false)));
        if is_empty && is_at(&self.file, &path) {
            // What can't be removed is taken up by the next get.
            remove_if_there(&self.target.manifest_path()).ok();
            remove_if_there(&path).ok();
        }
    }

    /// What lies beside it.
    pub(crate) fn load_manifest(&self, key: &SwarmKey) -> StoredManifest {
        let bytes = open_regular_to_read(&self.target.manifest_path()).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(MANIFEST_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        parse_manifest(&bytes.unwrap_or_default(), key)
    }

    /// Puts the list of digests beside it, so that the next get need not ask for it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn save_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let path = self.target.manifest_path();
        // Never through a link that was put there.
        remove_if_there(&path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&manifest_bytes(manifest))
    }

    /// Makes the whole file appear under its name. What is on disk then survives a power loss.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn finish(&self, key: &SwarmKey, overwrite: bool) -> Result<(), String> {
        let (part, path) = (self.target.part_path(), self.target.path());
        let gone = || {
            let part = part.display();
            format!("{part} was moved or deleted while it was written: run this again")
        };
        let fail = |what: &str, error: &io::Error| {
            let kept = if self.is_in_place() {
                format!("the whole file is kept as {}", part.display())
            } else {
                gone()
            };
            format!("could not {what} {}: {error}: {kept}", path.display())
        };
        // It may have been part of a longer file.
        self.file.set_len(key.size_bytes).map_err(|error| fail("cut", &error))?;
        self.allow_to_execute();
        self.file.sync_all().map_err(|error| fail("write to disk", &error))?;
        if !self.is_in_place() {
            return Err(gone());
        }
        let renamed = if overwrite { fs::rename(&part, path) } else { rename_to_new(&part, path) };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} came to be while it was got: the whole file is kept as {}: run this again \
                 with --force to replace it, or with -o and another name",
                path.display(),
                part.display()
            ),
            _ => fail("finish", &error),
        })?;
        // The name is there; a directory that can't be synced only makes it less durable.
        File::open(self.target.directory()).and_then(|directory| directory.sync_all()).ok();
        remove_if_there(&self.target.manifest_path()).ok();
        Ok(())
    }
}

impl Part {
    /// A file system that knows no such permission leaves the file as it is.
    fn allow_to_execute(&self) {
        if self.execute > 0
            && let Ok(metadata) = self.file.metadata()
        {
            let mut permissions = metadata.permissions();
            permissions.set_mode(permissions.mode() | self.execute);
            self.file.set_permissions(permissions).ok();
        }
    }
}

/// Opens a file, or makes it; whether it was made.
fn open_regular(path: &Path) -> Result<(File, bool), String> {
    let refuse = |why: &str| format!("{} {why}: choose another name with -o", path.display());
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(refuse("is not a regular file")),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(no_follow());
    let opened = match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Or it was taken away meanwhile.
            options.create(true).truncate(false).open(path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    };
    opened.map_err(|error| {
        let why = format!("can't be written: {error}");
        refuse(&why)
    })
}

/// The permissions to execute that this process may give to files that it makes. While there is one thread: no
/// system tells without changing it.
pub(crate) fn execute_permissions() -> u32 {
    let masked = rustix::process::umask(Mode::empty());
    rustix::process::umask(masked);
    let all = [(Mode::XUSR, 0o100), (Mode::XGRP, 0o10), (Mode::XOTH, 0o1)];
    all.iter().filter(|(flag, _)| !masked.contains(*flag)).map(|(_, permission)| permission).sum()
}

fn open_regular_to_read(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Whether the path leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames, but never over a file that is there.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
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
    use super::{
        super::target::{Target, resolve},
        *,
    };

    fn target(path: &Path) -> FileTarget {
        match resolve(Some(path), "x").unwrap() {
            Target::File(target) => target,
            Target::Stdout => panic!("a path"),
        }
    }

    fn manifest(len: u8) -> Manifest {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| u8::try_from(i % 251).unwrap() ^ len).collect();
        Manifest::of(&bytes, 10).unwrap()
    }

    #[test]
    fn a_manifest_is_believed_only_if_it_proves_itself() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::open(target(&dir.path().join("x"))).unwrap();
        let (ours, other) = (manifest(1), manifest(2));
        assert!(matches!(part.load_manifest(ours.key()), StoredManifest::None));
        part.save_manifest(&ours).unwrap();
        part.save_manifest(&ours).unwrap();
        assert!(matches!(part.load_manifest(ours.key()), StoredManifest::Right(m) if m == ours));
        assert!(matches!(part.load_manifest(other.key()), StoredManifest::Foreign));
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
    fn only_one_get_writes_a_file_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let first = Part::open(target(&path)).unwrap();
        let error = Part::open(target(&path)).unwrap_err();
        assert!(error.contains("another get writes"), "{error}");
        drop(first);
        Part::open(target(&path)).unwrap();
    }

    #[test]
    fn a_finished_file_appears_by_its_name_and_over_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = Part::open(target(&path)).unwrap();
        part.save_manifest(&manifest(1)).unwrap();
        (&**part.file()).write_all(b"new, and what was there of another").unwrap();
        let key = *Manifest::of(b"new", 10).unwrap().key();
        fs::write(&path, "precious").unwrap();
        let error = part.finish(&key, false).unwrap_err();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read(part.target().part_path()).unwrap(), b"new", "nothing of it is lost");
        part.finish(&key, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left over: {left:?}");
    }

    #[test]
    fn links_and_directories_are_no_partial_files() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("x.part")).unwrap();
        let error = Part::open(target(&dir.path().join("x"))).unwrap_err();
        assert!(error.contains("is not a regular file"), "{error}");
        let part = Part::open(target(&dir.path().join("y"))).unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("y.part.manifest")).unwrap();
        part.save_manifest(&manifest(1)).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn what_a_get_made_holds_nothing_whatever_the_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let key = *manifest(1).key();
        let part = Part::open(target(&dir.path().join("x"))).unwrap();
        // As where every hole is data.
        (&**part.file()).write_all(&[0; 5000]).unwrap();
        assert!(!part.had_data().unwrap());
        assert_eq!(part.bytes_before(), 0);
        part.discard_if_empty(&key, 1);
        assert!(part.is_in_place(), "a chunk was kept");
        drop(part);
        let part = Part::open(target(&dir.path().join("x"))).unwrap();
        assert!(part.had_data().unwrap() && part.bytes_before() > 0, "it was there before");
        part.discard_if_empty(&key, 0);
        assert!(part.is_in_place());
        let part = Part::open(target(&dir.path().join("y"))).unwrap();
        (&**part.file()).write_all(&[0; 5000]).unwrap();
        part.discard_if_empty(&key, 0);
        assert!(!part.is_in_place());
    }

    #[test]
    fn a_partial_file_that_was_taken_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = Part::open(target(&path)).unwrap();
        fs::remove_file(part.target().part_path()).unwrap();
        let key = *manifest(1).key();
        let error = part.finish(&key, false).unwrap_err();
        assert!(error.contains("moved or deleted"), "{error}");
        assert!(!path.exists());
    }
}
