//! What is shared: one file, or a tree of them. It says where the bytes are, what tells it from others, and what of it
//! has changed.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::{ffi::OsStringExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use relay_protocol::{
    TicketKind,
    bundle::{Index, Kind, OWNER_EXECUTES, PieceOf, shown_path},
};
use rustix::fs::OFlags;

use super::error::OriginError;
use crate::{
    content::{Content, holds_more},
    hashing::{HashError, Hashed},
    spool::Spool,
    stamp::{Difference, Moment, Stamp},
    tree::{
        Tree,
        walk::{Keeping, Walk, own_name, walk_directory, walk_several},
        walked::Walked,
    },
};

/// What people call a pipe into the program.
const STDIN: &str = "stdin";

/// Files of a tree that are looked at at once, at most: some milliseconds, if their inodes are in memory.
const LOOKS_MAX: usize = 1000;

/// How what is shared has changed since it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The file, as it may be shown.
    pub of: String,
    /// What became of it.
    pub how: How,
}

/// What became of a file that is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It was written to, maybe with the same bytes, or has other permissions or names.
    Modified,
    /// It has another length: it is another file.
    Resized {
        /// Its length when it was opened.
        before_bytes: u64,
        /// Its length now.
        size_bytes: u64,
    },
    /// Its path names another file now, or none; the one that is shared is still there.
    Replaced,
    /// It is gone from its tree, or another file is in its place, so that it can't be read any longer.
    Gone,
}

/// What is found at the paths that the user named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looking {
    /// Leaves out what is no file, directory or link.
    pub skips_special: bool,
    /// What of a tree is kept beside names and content.
    pub keeping: Keeping,
}

impl Default for Looking {
    fn default() -> Self {
        Self { skips_special: false, keeping: Keeping::Nothing }
    }
}

/// What is shared.
#[derive(Debug)]
pub(super) enum Subject {
    File(OneFile),
    Tree(OneTree),
    /// What came through a pipe: no other process can change it.
    Spool(Box<Spool>),
}

/// One file.
#[derive(Debug)]
pub(super) struct OneFile {
    path: PathBuf,
    file: Arc<File>,
    stamp: Stamp,
    is_executable: bool,
    /// The times of a device's inode do not tell that its content was written.
    is_device: bool,
}

/// A directory, or several paths.
#[derive(Debug)]
pub(super) struct OneTree {
    /// As it may be shown.
    shown: String,
    name: OsString,
    tree: Arc<Tree>,
    walked: Arc<Walked>,
    skipped: Option<String>,
    /// The entry at which the next look begins.
    next_look: AtomicUsize,
}

impl Subject {
    /// What these paths name. `tell` is told how many entries were found so far.
    pub(super) fn open(
        paths: &[PathBuf],
        looking: Looking,
        tell: &mut dyn FnMut(usize),
    ) -> Result<Self, OriginError> {
        if paths.iter().any(|path| path.as_os_str() == "-") {
            return Err(OriginError::Stdin);
        }
        let (skips_special, of) = (looking.skips_special, shown_paths(paths));
        let fail = |error| OriginError::Walk { of: of.clone(), error };
        let (walk, name) = match paths {
            [path] => {
                let open_error = |error| OriginError::Open { path: path.clone(), error };
                // Looked at first: opening a pipe would wait for its other end.
                if !std::fs::metadata(path).map_err(open_error)?.is_dir() {
                    return OneFile::open(path).map(Self::File);
                }
                let walk = walk_directory(path, skips_special, tell).map_err(fail)?;
                (walk, OsString::from_vec(own_name(path)))
            }
            paths => {
                let walk = walk_several(paths, skips_special, tell).map_err(fail)?;
                (walk, name_of_several(paths))
            }
        };
        let tree = OneTree::of(walk, looking.keeping, of.clone(), name);
        tree.map(Self::Tree).map_err(fail)
    }

    /// What is shared, as it may be shown.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::File(file) => file.path.display().to_string(),
            Self::Tree(tree) => tree.shown.clone(),
            Self::Spool(_) => STDIN.into(),
        }
    }

    /// By which a ticket calls it, if it may.
    pub(super) fn name(&self) -> OsString {
        match self {
            Self::File(file) => OsString::from_vec(own_name(&file.path)),
            Self::Tree(tree) => tree.name.clone(),
            Self::Spool(_) => STDIN.into(),
        }
    }

    pub(super) fn content(&self) -> Arc<dyn Content> {
        match self {
            Self::File(file) => Arc::clone(&file.file) as _,
            Self::Tree(tree) => Arc::clone(&tree.tree) as _,
            Self::Spool(spool) => Arc::clone(&spool.file) as _,
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::File(file) => file.stamp.size_bytes,
            Self::Tree(tree) => tree.tree.index().bundle_bytes(),
            Self::Spool(spool) => spool.growing.size_bytes(),
        }
    }

    pub(super) fn kind(&self) -> TicketKind {
        match self {
            Self::File(file) => TicketKind::of_file(file.is_executable),
            Self::Tree(_) => TicketKind::Bundle,
            Self::Spool(_) => TicketKind::File,
        }
    }

    pub(super) fn index(&self) -> Option<&Arc<Index>> {
        match self {
            Self::File(_) | Self::Spool(_) => None,
            Self::Tree(tree) => Some(tree.tree.index()),
        }
    }

    /// Whether it is there the next time, and would show a change: what is remembered of it may be of use.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::File(file) => !file.is_device,
            Self::Tree(_) => true,
            Self::Spool(_) => false,
        }
    }

    /// What is known of it before it is read, in chunks of this size.
    pub(super) fn hashed(&self, chunk_size_log2: u8) -> Option<Hashed> {
        match self {
            Self::Spool(spool) => spool.growing.finish(chunk_size_log2),
            Self::File(_) | Self::Tree(_) => None,
        }
    }

    /// What was left out of it.
    pub(super) fn skipped(&self) -> Option<&str> {
        match self {
            Self::File(_) | Self::Spool(_) => None,
            Self::Tree(tree) => tree.skipped.as_deref(),
        }
    }

    /// Feeds a hasher with all that tells it from what it would be after a change.
    pub(super) fn identify(&self, hasher: &mut blake3::Hasher) {
        match self {
            Self::File(file) => {
                hasher.update(b"file");
                identify(&file.stamp, hasher);
            }
            Self::Tree(tree) => {
                hasher.update(b"tree").update(tree.tree.index().header());
                tree.stamps_of_files().for_each(|(_, stamp)| identify(stamp, hasher));
            }
            Self::Spool(_) => unreachable!("nothing of it is remembered"),
        }
    }

    /// When any of it was last touched.
    pub(super) fn latest(&self) -> Moment {
        match self {
            Self::File(file) => file.stamp.latest(),
            Self::Tree(tree) => {
                let moments = tree.stamps_of_files().map(|(_, stamp)| stamp.latest());
                moments.max().unwrap_or_default()
            }
            Self::Spool(_) => Moment::default(),
        }
    }

    /// Whether what was read so far is of one state of the content.
    pub(super) fn check_unchanged(&self) -> Result<(), OriginError> {
        let changed = match self {
            Self::File(file) => {
                let now = Stamp::of_open(&*file.file);
                let is_unchanged = now.is_ok_and(|now| now == file.stamp);
                (!is_unchanged).then(|| self.shown())
            }
            Self::Tree(tree) => tree.walked.first_changed().map(|number| tree.path(number)),
            Self::Spool(_) => None,
        };
        changed.map_or(Ok(()), |of| Err(OriginError::Changing(of)))
    }

    /// Whether a read has found a file that is not what it was. Asks no file system.
    pub(super) fn has_noted_change(&self) -> bool {
        match self {
            Self::File(_) | Self::Spool(_) => false,
            Self::Tree(tree) => tree.walked.first_changed().is_some(),
        }
    }

    /// Whether it ends where the system says: others would get less than what a reader finds. Of the files of a tree
    /// that is found out when they are read.
    pub(super) fn check_end(&self) -> Result<(), OriginError> {
        let Self::File(file) = self else { return Ok(()) };
        let size_bytes = file.stamp.size_bytes;
        match holds_more(&file.file, size_bytes) {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.misstated("more")),
            Err(error) => {
                let error = HashError::Read { offset_bytes: size_bytes, error };
                Err(OriginError::Hash { of: self.shown(), error })
            }
        }
    }

    /// Why it could not be hashed.
    pub(super) fn hash_error(&self, error: HashError) -> OriginError {
        if let Err(changed) = self.check_unchanged() {
            return changed;
        }
        match error {
            HashError::Shrunk(_) => self.misstated("less"),
            error => OriginError::Hash { of: self.shown(), error },
        }
    }

    fn misstated(&self, how: &'static str) -> OriginError {
        OriginError::Misstated { of: self.shown(), how, size_bytes: self.size_bytes() }
    }

    /// What has changed since it was opened, as far as one look shows: of a tree some files are looked at, others the
    /// next time. Asks the file system, which may block.
    pub(super) fn change(&self) -> Option<Change> {
        match self {
            Self::File(file) => file.change(),
            Self::Tree(tree) => tree.change(),
            Self::Spool(_) => None,
        }
    }

    /// What became of these bytes of it, whose content is not what it was: which file has changed, or which files
    /// have them.
    pub(super) fn blame(&self, offset_bytes: u64, len_bytes: u64) -> (Option<Change>, String) {
        match self {
            Self::File(file) => (file.change(), String::new()),
            Self::Tree(tree) => tree.blame(offset_bytes, len_bytes),
            Self::Spool(_) => (None, String::new()),
        }
    }
}

impl OneFile {
    fn open(path: &Path) -> Result<Self, OriginError> {
        let open_error = |error| OriginError::Open { path: path.to_owned(), error };
        let kind = std::fs::metadata(path).map_err(open_error)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = if kind.is_fifo() {
                "a pipe"
            } else if kind.is_socket() {
                "a socket"
            } else {
                "a character device"
            };
            return Err(OriginError::NotAFile { path: path.to_owned(), what });
        }
        let open = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
            let mode = rustix::fs::fstat(&file)?.st_mode;
            let stamp = Stamp::of_open(&file)?;
            // A device is made executable by no one.
            let is_executable = kind.is_file() && mode & u32::from(OWNER_EXECUTES) != 0;
            let (path, file) = (path.to_owned(), Arc::new(File::from(file)));
            Ok::<_, io::Error>(Self {
                path,
                file,
                stamp,
                is_executable,
                is_device: !kind.is_file(),
            })
        };
        open().map_err(open_error)
    }

    fn change(&self) -> Option<Change> {
        let change = |how| Some(Change { of: self.path.display().to_string(), how });
        let before_bytes = self.stamp.size_bytes;
        match Stamp::of_open(&*self.file) {
            Ok(now) if now.size_bytes != before_bytes => {
                return change(How::Resized { before_bytes, size_bytes: now.size_bytes });
            }
            Ok(now) if now.modified == self.stamp.modified => {
                let named = rustix::fs::stat(&self.path).map(|stat| Stamp::of(&stat).inode);
                if !named.is_ok_and(|inode| inode == self.stamp.inode) {
                    return change(How::Replaced);
                }
                if now.changed == self.stamp.changed {
                    return None;
                }
            }
            _ => {}
        }
        change(How::Modified)
    }
}

impl OneTree {
    fn of(
        walk: Walk,
        keeping: Keeping,
        shown: String,
        name: OsString,
    ) -> Result<Self, crate::tree::walk::WalkError> {
        let skipped = walk.skipped();
        let (tree, walked) = walk.tree(keeping)?;
        let (tree, next_look) = (Arc::new(tree), AtomicUsize::new(0));
        Ok(Self { shown, name, tree, walked, skipped, next_look })
    }

    fn stamps_of_files(&self) -> impl Iterator<Item = (usize, &Stamp)> {
        let entries = self.tree.index().entries().zip(self.walked.stamps()).enumerate();
        entries
            .filter(|(_, (entry, _))| matches!(entry.kind, Kind::File { .. }))
            .map(|(number, (_, stamp))| (number, stamp))
    }

    /// A file of it, as it may be shown.
    fn path(&self, number: usize) -> String {
        let entry = self.tree.index().entry(number).expect("it is in the tree");
        format!("{} in {}", shown_path(entry.path), self.shown)
    }

    fn change(&self) -> Option<Change> {
        let noted = self.walked.first_changed();
        let count = self.tree.index().len();
        let start = self.next_look.load(Ordering::Relaxed);
        let looked = LOOKS_MAX.min(count);
        let round = (start..start + looked).map(|number| number % count);
        self.next_look.store((start + looked) % count.max(1), Ordering::Relaxed);
        self.worst(noted.into_iter().chain(round))
    }

    /// The worst that has become of these entries: a file that was only written to may hold the same, and hides no
    /// other one.
    fn worst(&self, numbers: impl Iterator<Item = usize>) -> Option<Change> {
        let mut worst = None;
        for change in numbers.filter_map(|number| self.look(number)) {
            if change.how != How::Modified {
                return Some(change);
            }
            worst.get_or_insert(change);
        }
        worst
    }

    /// What has become of one entry, if it is a file.
    fn look(&self, number: usize) -> Option<Change> {
        let entry = self.tree.index().entry(number)?;
        let Kind::File { size_bytes: before_bytes, .. } = entry.kind else { return None };
        let how = match self.tree.stamp_now(number) {
            Ok(now) => match self.walked.stamps()[number].difference(&now)? {
                Difference::Resized => How::Resized { before_bytes, size_bytes: now.size_bytes },
                Difference::Replaced => How::Gone,
                Difference::Modified => How::Modified,
            },
            Err(_) => How::Gone,
        };
        Some(Change { of: self.path(number), how })
    }

    fn blame(&self, offset_bytes: u64, len_bytes: u64) -> (Option<Change>, String) {
        let pieces = self.tree.index().pieces(offset_bytes..offset_bytes + len_bytes);
        let numbers: Vec<usize> = pieces
            .filter_map(|piece| match piece.of {
                PieceOf::File(number) => Some(number),
                PieceOf::Header => None,
            })
            .collect();
        let change = self.worst(numbers.iter().copied().take(LOOKS_MAX));
        let of = match (&change, numbers.as_slice()) {
            (Some(change), _) => format!(" (of {})", change.of),
            (None, []) => String::new(),
            (None, [one]) => format!(" (of {})", self.path(*one)),
            (None, [first, more @ ..]) => {
                format!(" (of {} and {} more)", self.path(*first), more.len())
            }
        };
        (change, of)
    }
}

fn identify(stamp: &Stamp, hasher: &mut blake3::Hasher) {
    let Stamp { size_bytes, modified, changed, inode } = stamp;
    hasher.update(&size_bytes.to_le_bytes());
    for (seconds, nanos) in [modified, changed] {
        hasher.update(&seconds.to_le_bytes()).update(&nanos.to_le_bytes());
    }
    hasher.update(&inode.0.to_le_bytes()).update(&inode.1.to_le_bytes());
}

/// Several paths in few words.
fn shown_paths(paths: &[PathBuf]) -> String {
    match paths {
        [] => String::new(),
        [path] => path.display().to_string(),
        [first, more @ ..] => format!("{} and {} more", first.display(), more.len()),
    }
}

/// What a ticket calls several paths: by the first of them, and how many there are.
fn name_of_several(paths: &[PathBuf]) -> OsString {
    let mut name = paths.first().map(|path| own_name(path)).unwrap_or_default();
    name.extend_from_slice(format!("-and-{}-more", paths.len() - 1).as_bytes());
    OsString::from_vec(name)
}
