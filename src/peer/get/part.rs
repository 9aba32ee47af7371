//! A file while it is not whole: `NAME.part`.
//!
//! It is locked while a get writes it, and becomes the target by one rename, so that a target is never half.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use rustix::fs::Mode;

use super::{
    beside::{self, is_at, no_follow, remove_if_there, rename_to_new},
    target::FileTarget,
    unfinished::Unfinished,
};
use crate::{
    client::{
        Content,
        content::{has_data, sparse::SparseFile},
    },
    protocol::SwarmKey,
    units::bytes_text,
};

/// The target could be replaced between locking and looking; more often than this it is not by
/// chance.
const LOCK_TRIES_MAX: usize = 16;

/// A partial file that is ours alone.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    target: FileTarget,
    key: SwarmKey,
    file: Arc<File>,
    /// This get made it: it holds nothing, whatever a file system says that can't tell holes from data.
    is_new: bool,
    /// Permissions to execute that the finished file gets.
    execute: u32,
    /// Whether long runs of zeros stay holes.
    is_sparse: bool,
}

impl Part {
    /// Opens or makes the partial file, and locks it.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn open(target: FileTarget, key: SwarmKey) -> Result<Self, String> {
        let path = target.part_path();
        for _ in 0..LOCK_TRIES_MAX {
            let (file, is_new) = open_regular(&path)?;
            beside::lock(&file, &path)?;
            // It may have become another get's finished file between opening and locking.
            if is_at(&file, &path) {
                let (file, execute, is_sparse) = (Arc::new(file), 0, true);
                return Ok(Self { target, key, file, is_new, execute, is_sparse });
            }
        }
        Err(format!("{} is replaced again and again: choose another name with -o", path.display()))
    }

    /// Of a file that gets these permissions when it is whole.
    pub(crate) fn with_permissions(self, execute: u32) -> Self {
        Self { execute, ..self }
    }

    /// Writes long runs of zeros as well, if holes are not wanted.
    pub(crate) fn with_holes(self, is_sparse: bool) -> Self {
        Self { is_sparse, ..self }
    }

    /// Whether it held anything when this get began.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn had_data(&self) -> io::Result<bool> {
        if self.is_new { Ok(false) } else { has_data(&*self.file) }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Gives a new file its length; bytes that it may still take up.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn prepare(&self) -> Result<u64, String> {
        let (path, size_bytes) = (self.target.part_path(), self.key.size_bytes);
        // What has something in it may be the better part of another file: it gets its length at the end.
        if matches!(self.had_data(), Ok(false)) {
            self.file.set_len(size_bytes).map_err(|error| {
                let (path, size) = (path.display(), bytes_text(size_bytes));
                format!("could not make {path} {size} long: {error}: choose another place with -o")
            })?;
        }
        // Blocks are of 512 bytes whatever the file system has.
        let blocks = self.file.metadata().map_or(0, |metadata| metadata.blocks());
        Ok(size_bytes.saturating_sub(blocks.saturating_mul(512)))
    }

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

impl Unfinished for Part {
    fn content(&self) -> Arc<dyn Content> {
        match self.is_sparse {
            true => Arc::new(SparseFile(Arc::clone(&self.file))),
            false => Arc::clone(&self.file) as _,
        }
    }

    fn target(&self) -> &FileTarget {
        &self.target
    }

    /// A file system that counts no blocks leaves the length.
    fn bytes_before(&self) -> u64 {
        if !matches!(self.had_data(), Ok(true)) {
            return 0;
        }
        self.file.metadata().map_or(0, |metadata| match metadata.blocks() {
            0 => metadata.len(),
            blocks => metadata.len().min(blocks.saturating_mul(512)),
        })
    }

    fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.target.part_path())
    }

    fn holds_nothing(&self, kept_chunks: u32) -> bool {
        let is_new = self.is_new && kept_chunks == 0;
        self.key.size_bytes > 0 && (is_new || matches!(has_data(&*self.file), Ok(false)))
    }

    fn discard_if_empty(&self, kept_chunks: u32) {
        let path = self.target.part_path();
        if self.holds_nothing(kept_chunks) && is_at(&self.file, &path) {
            // What can't be removed is taken up by the next get.
            beside::remove(&self.target);
            remove_if_there(&path).ok();
        }
    }

    fn finish(&self, overwrite: bool) -> Result<Option<String>, String> {
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
        self.file.set_len(self.key.size_bytes).map_err(|error| fail("cut", &error))?;
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
        beside::remove(&self.target);
        Ok(None)
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::protocol::Manifest;

    fn target(path: &Path) -> FileTarget {
        FileTarget::at(path.to_owned())
    }

    fn manifest(bytes: &[u8]) -> Manifest {
        Manifest::of(bytes, 10).unwrap()
    }

    fn open(path: &Path) -> Result<Part, String> {
        Part::open(target(path), *manifest(b"new").key())
    }

    #[test]
    fn only_one_get_writes_a_file_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let first = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.contains("another get writes"), "{error}");
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn a_finished_file_appears_by_its_name_and_over_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = open(&path).unwrap();
        beside::save_manifest(part.target(), &manifest(b"new")).unwrap();
        (&**part.file()).write_all(b"new, and what was there of another").unwrap();
        fs::write(&path, "precious").unwrap();
        let error = part.finish(false).unwrap_err();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read(part.target().part_path()).unwrap(), b"new", "nothing of it is lost");
        part.finish(true).unwrap();
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
        let error = open(&dir.path().join("x")).unwrap_err();
        assert!(error.contains("is not a regular file"), "{error}");
    }

    #[test]
    fn what_a_get_made_holds_nothing_whatever_the_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let part = open(&dir.path().join("x")).unwrap();
        // As where every hole is data.
        (&**part.file()).write_all(&[0; 5000]).unwrap();
        assert!(!part.had_data().unwrap());
        assert_eq!(part.bytes_before(), 0);
        part.discard_if_empty(1);
        assert!(part.is_in_place(), "a chunk was kept");
        drop(part);
        let part = open(&dir.path().join("x")).unwrap();
        assert!(part.had_data().unwrap() && part.bytes_before() > 0, "it was there before");
        part.discard_if_empty(0);
        assert!(part.is_in_place());
        let part = open(&dir.path().join("y")).unwrap();
        (&**part.file()).write_all(&[0; 5000]).unwrap();
        part.discard_if_empty(0);
        assert!(!part.is_in_place());
    }

    #[test]
    fn a_partial_file_that_was_taken_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let part = open(&path).unwrap();
        fs::remove_file(part.target().part_path()).unwrap();
        let error = part.finish(false).unwrap_err();
        assert!(error.contains("moved or deleted"), "{error}");
        assert!(!path.exists());
    }
}
