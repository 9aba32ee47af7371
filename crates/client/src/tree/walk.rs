//! Finds what is in directories that are to be shared: names, kinds, and a stamp of each. Goes from descriptor to
//! descriptor, so nothing that is renamed meanwhile leads it elsewhere, and follows no link but those that the user
//! named. Reads no file, but for the first byte of those that claim to be empty.
//!
//! It ends whatever it is given: a bundle's limits of entries, levels and bytes of an index bound it, and so its memory.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use relay_protocol::{
    bundle::{BundleError, Entry, Index, Kind, MODE_BITS, OWNER_EXECUTES, Preserved, shown_path},
    limits::{BUNDLE_ENTRIES_MAX, BUNDLE_INDEX_BYTES_MAX, BUNDLE_LEVELS_MAX},
};
use rustix::{
    fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, accessat, openat, statat},
    io::Errno,
};

use super::{
    Tree,
    troubles::{Troubles, special},
    walked::{Root, Walked},
};
use crate::{content::holds_more, stamp::Stamp};

/// How a directory is opened.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// How a file is opened: a pipe that stands in its place is not waited for.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// After so many entries the caller is told how many there are.
const TELL_EVERY: usize = 1000;

/// All may read it: whether we may need not be asked.
const ALL_READ: u16 = 0o444;

/// Why directories can't be walked.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// One of the paths can't be opened.
    #[error("failed to open {path}: {error}: check its name, and that this user may read it")]
    Open {
        /// As the user named it.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The system fails.
    #[error("failed to look through {path}: {error}")]
    System {
        /// Where, as it may be shown.
        path: String,
        /// The system's reason.
        error: io::Error,
    },
    /// Two of the paths would be one entry.
    #[error(
        "{one} and {other} are both called {name}, and can't be shared together: rename one of them, or share the \
         directory that holds both"
    )]
    SameName {
        /// The first path.
        one: PathBuf,
        /// The second path.
        other: PathBuf,
        /// The name, as it may be shown.
        name: String,
    },
    /// It is more than one share takes.
    #[error(
        "there are more than {BUNDLE_ENTRIES_MAX} files, directories and links, the most that one share takes: share \
             parts of it, or pack it first, for example with tar"
    )]
    TooMany,
    /// Names and targets of links are more than one share takes.
    #[error(
        "the names in it have more than {BUNDLE_INDEX_BYTES_MAX} bytes, the most that one share takes: share parts of \
             it, or pack it first, for example with tar"
    )]
    NamesTooLong,
    /// Some of it can't be shared.
    #[error("{0}")]
    Troubles(String),
    /// It breaks a rule of bundles.
    #[error("{0}: rename or remove what is named, or pack it first, for example with tar")]
    Bundle(#[from] BundleError),
}

/// What a bundle keeps beside names and content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeping {
    /// Nothing.
    Nothing,
    /// Modes and times of modification.
    Preserved,
    /// Whichever of both makes a bundle of this length: only one can. If none does, nothing.
    WhicheverHas(u64),
}

/// What was found.
#[derive(Debug)]
pub struct Walk {
    root: OwnedFd,
    roots: Option<Vec<Root>>,
    found: Vec<Found>,
    skipped: Troubles,
}

/// An entry that was found.
#[derive(Debug)]
struct Found {
    path: Box<[u8]>,
    what: What,
    mode: u16,
    stamp: Stamp,
}

#[derive(Debug)]
enum What {
    Directory,
    File,
    Link(CString),
}

/// A directory on the way, and what of it is still to be looked at.
struct Level {
    directory: Dir,
    /// Bytes of its path, with a slash behind.
    path_bytes: usize,
    names: Vec<CString>,
}

/// What a walk is about to find.
struct Walking<'a> {
    found: Vec<Found>,
    /// What the index will have, at least.
    index_bytes: usize,
    path: Vec<u8>,
    troubles: Troubles,
    skipped: Troubles,
    skips_special: bool,
    tell: &'a mut dyn FnMut(usize),
}

/// The name of what a path names, also where the path ends with dots.
#[must_use]
pub fn own_name(path: &Path) -> Vec<u8> {
    if let Some(name) = path.file_name() {
        return name.as_bytes().to_vec();
    }
    let whole = path.canonicalize();
    let name = whole.ok().and_then(|whole| Some(whole.file_name()?.as_bytes().to_vec()));
    name.unwrap_or_default()
}

/// Walks what is in one directory. `tell` is told now and then how many entries there are so far.
///
/// # Errors
/// [`WalkError`].
pub fn walk_directory(
    path: &Path,
    skips_special: bool,
    tell: &mut dyn FnMut(usize),
) -> Result<Walk, WalkError> {
    let root = openat(CWD, path, DIRECTORY, Mode::empty());
    let root = root.map_err(|error| open_error(path, error))?;
    let system = |error: Errno| system_error(path.as_os_str().as_bytes(), error);
    let again = openat(&root, c".", DIRECTORY, Mode::empty()).map_err(system)?;
    let mut walking = Walking::new(skips_special, tell);
    walking.walk(again)?;
    walking.end(root, None)
}

/// Walks several files and directories, each of which becomes an entry by its own name.
///
/// # Errors
/// [`WalkError`].
pub fn walk_several(
    paths: &[PathBuf],
    skips_special: bool,
    tell: &mut dyn FnMut(usize),
) -> Result<Walk, WalkError> {
    let mut roots: Vec<Root> = paths.iter().map(|path| (own_name(path), path.clone())).collect();
    roots.sort();
    if let Some([one, other]) = roots.array_windows().find(|[one, other]| one.0 == other.0) {
        let name = shown_path(&one.0);
        return Err(WalkError::SameName { one: one.1.clone(), other: other.1.clone(), name });
    }
    let root = openat(CWD, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|error| system_error(b".", error))?;
    let mut walking = Walking::new(skips_special, tell);
    for (name, path) in &roots {
        let stat = statat(&root, path, AtFlags::empty());
        let stat = stat.map_err(|error| open_error(path, error))?;
        walking.path.clone_from(name);
        let place = Place { directory: root.as_fd(), name: path.as_os_str().as_bytes() };
        if let Some(below) = walking.take(&place, &stat, OFlags::empty())? {
            walking.path.push(b'/');
            walking.walk(below)?;
        }
    }
    walking.end(root, Some(roots))
}

fn open_error(path: &Path, error: Errno) -> WalkError {
    WalkError::Open { path: path.to_owned(), error: error.into() }
}

fn system_error(path: &[u8], error: Errno) -> WalkError {
    WalkError::System { path: shown_path(path), error: error.into() }
}

/// Where an entry lies.
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a [u8],
}

impl<'a> Walking<'a> {
    fn new(skips_special: bool, tell: &'a mut dyn FnMut(usize)) -> Self {
        let (troubles, skipped) = (Troubles::default(), Troubles::default());
        let (found, path) = (Vec::new(), Vec::new());
        Self { found, index_bytes: 0, path, troubles, skipped, skips_special, tell }
    }

    fn end(self, root: OwnedFd, roots: Option<Vec<Root>>) -> Result<Walk, WalkError> {
        (self.tell)(self.found.len());
        if let Some(text) = self.troubles.text() {
            return Err(WalkError::Troubles(text));
        }
        Ok(Walk { root, roots, found: self.found, skipped: self.skipped })
    }

    /// Takes all that is beneath a directory, whose path is the present one.
    fn walk(&mut self, directory: OwnedFd) -> Result<(), WalkError> {
        let mut levels = vec![self.enter(directory)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path_bytes);
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let directory =
                level.directory.fd().map_err(|error| system_error(&self.path, error))?;
            self.path.extend_from_slice(name.to_bytes());
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It went meanwhile, so it is not there.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    self.troubles.add(&self.path, &error.to_string());
                    continue;
                }
            };
            let place = Place { directory, name: name.to_bytes() };
            if let Some(below) = self.take(&place, &stat, OFlags::NOFOLLOW)? {
                self.path.push(b'/');
                let below = self.enter(below)?;
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Reads the names in a directory.
    fn enter(&self, directory: OwnedFd) -> Result<Level, WalkError> {
        let fail = |error| system_error(&self.path, error);
        let mut directory = Dir::new(directory).map_err(fail)?;
        let mut names: Vec<CString> = Vec::new();
        while let Some(entry) = directory.read() {
            let entry = entry.map_err(fail)?;
            let name: &CStr = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if self.found.len() + names.len() > BUNDLE_ENTRIES_MAX {
                return Err(WalkError::TooMany);
            }
        }
        Ok(Level { directory, path_bytes: self.path.len(), names })
    }

    /// Takes the entry of the present path. If it is a directory to go into, that is opened. `flags`: whether it may
    /// be a link.
    fn take(
        &mut self,
        place: &Place<'_>,
        stat: &Stat,
        flags: OFlags,
    ) -> Result<Option<OwnedFd>, WalkError> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.take_directory(place, stat, flags),
            FileType::RegularFile => match self.why_not(place, stat, flags) {
                None => What::File,
                Some(why) => {
                    self.troubles.add(&self.path, &why);
                    return Ok(None);
                }
            },
            FileType::Symlink => {
                match rustix::fs::readlinkat(place.directory, place.name, Vec::new()) {
                    Ok(target) => What::Link(target),
                    Err(error) => {
                        self.troubles.add(&self.path, &error.to_string());
                        return Ok(None);
                    }
                }
            }
            kind => {
                let list = if self.skips_special { &mut self.skipped } else { &mut self.troubles };
                list.add_special(&self.path, special(kind));
                return Ok(None);
            }
        };
        self.add(what, stat)?;
        Ok(None)
    }

    fn take_directory(
        &mut self,
        place: &Place<'_>,
        stat: &Stat,
        flags: OFlags,
    ) -> Result<Option<OwnedFd>, WalkError> {
        match openat(place.directory, place.name, DIRECTORY | flags, Mode::empty()) {
            Ok(below) => {
                self.add(What::Directory, stat)?;
                // The index says which entry lies too deep. One level more is enough for that.
                let levels = self.path.iter().filter(|&&byte| byte == b'/').count() + 1;
                Ok((levels <= BUNDLE_LEVELS_MAX).then_some(below))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                Err(system_error(&self.path, error))
            }
            Err(error) => {
                self.troubles.add(&self.path, &error.to_string());
                Ok(None)
            }
        }
    }

    /// Why a regular file can't be shared.
    fn why_not(&self, place: &Place<'_>, stat: &Stat, flags: OFlags) -> Option<String> {
        if Stamp::of(stat).size_bytes == 0 {
            let file = openat(place.directory, place.name, FILE | flags, Mode::empty());
            let more = file.map_err(io::Error::from).and_then(|file| holds_more(&file.into(), 0));
            return match more {
                Ok(false) => None,
                Ok(true) => Some(
                    "it holds more than the 0 bytes that the system states, as files in /proc do"
                        .into(),
                ),
                Err(error) => Some(error.to_string()),
            };
        }
        // Most may be read by all: one call less for each of them.
        if mode_of(stat) & ALL_READ == ALL_READ {
            return None;
        }
        let may = accessat(place.directory, place.name, Access::READ_OK, AtFlags::EACCESS);
        may.err().map(|error| error.to_string())
    }

    fn add(&mut self, what: What, stat: &Stat) -> Result<(), WalkError> {
        let target = if let What::Link(target) = &what { target.count_bytes() } else { 0 };
        self.index_bytes += self.path.len() + target;
        if self.index_bytes > BUNDLE_INDEX_BYTES_MAX {
            return Err(WalkError::NamesTooLong);
        }
        if self.found.len() == BUNDLE_ENTRIES_MAX {
            return Err(WalkError::TooMany);
        }
        let (path, mode, stamp) = (self.path.as_slice().into(), mode_of(stat), Stamp::of(stat));
        self.found.push(Found { path, what, mode, stamp });
        if self.found.len().is_multiple_of(TELL_EVERY) {
            (self.tell)(self.found.len());
        }
        Ok(())
    }
}

fn mode_of(stat: &Stat) -> u16 {
    u16::try_from(stat.st_mode & u32::from(MODE_BITS)).expect("nine bits")
}

impl Walk {
    /// What was left out, for people; nothing if all is there.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        self.skipped.skipped_text()
    }

    /// The tree that was found, to be read.
    ///
    /// # Errors
    /// It breaks a rule of bundles.
    pub fn tree(mut self, keeping: Keeping) -> Result<(Tree, Arc<Walked>), WalkError> {
        self.found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let index = match keeping {
            Keeping::Nothing => self.index(false)?,
            Keeping::Preserved => self.index(true)?,
            Keeping::WhicheverHas(bundle_bytes) => {
                let plain = self.index(false)?;
                if plain.bundle_bytes() == bundle_bytes || plain.is_empty() {
                    plain
                } else {
                    let preserving = self.index(true)?;
                    if preserving.bundle_bytes() == bundle_bytes { preserving } else { plain }
                }
            }
        };
        let stamps = self.found.iter().map(|found| found.stamp).collect();
        let walked = Arc::new(Walked::new(self.roots, stamps));
        let tree = Tree::to_read(self.root, Arc::new(index)).with_walked(Arc::clone(&walked));
        Ok((tree, walked))
    }

    fn index(&self, is_preserving: bool) -> Result<Index, BundleError> {
        let entry = |found| Found::entry(found, is_preserving);
        Index::new(self.found.iter().map(entry).collect())
    }
}

impl Found {
    fn entry(&self, is_preserving: bool) -> Entry<'_> {
        let (mode, Stamp { size_bytes, modified, .. }) = (self.mode, self.stamp);
        let kind = match &self.what {
            What::Directory => Kind::Directory,
            What::File => Kind::File { size_bytes, is_executable: mode & OWNER_EXECUTES != 0 },
            What::Link(target) => Kind::Link { target: target.to_bytes() },
        };
        let (modified_secs, modified_nanos) = modified;
        let preserved = is_preserving.then_some(Preserved { mode, modified_secs, modified_nanos });
        Entry { path: &self.path, kind, preserved }
    }
}

#[cfg(test)]
mod tests;
