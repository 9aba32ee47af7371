//! A tree as it was when it was walked: where its roots are, and a stamp of each file. Each read of a file is followed
//! by a look at it, so what is taken for shared content is that of a file that was not touched since, or it is noted
//! which file was. What follows from that is decided by the owner.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{beneath::open_beneath, handles::Handles};
use crate::stamp::{Difference, Stamp};

/// No file was seen to have changed.
const NONE: usize = usize::MAX;

/// One of several paths that are shared together: the name of its entry, and the path as it was given.
pub type Root = (Vec<u8>, PathBuf);

/// What a walk has seen.
#[derive(Debug)]
pub struct Walked {
    /// If several paths are shared: sorted by their entries' names, paths from the tree's root on. Else what is in the
    /// tree lies beneath its root.
    roots: Option<Vec<Root>>,
    /// Directories among the roots that are open.
    open: Handles,
    /// Of each entry; only those of files are looked at.
    stamps: Vec<Stamp>,
    /// The first entry that was seen to differ.
    changed: AtomicUsize,
}

impl Walked {
    /// # Panics
    /// The roots are not sorted.
    pub(super) fn new(roots: Option<Vec<Root>>, stamps: Vec<Stamp>) -> Self {
        assert!(roots.as_ref().is_none_or(|roots| roots.is_sorted()));
        Self { roots, open: Handles::default(), stamps, changed: AtomicUsize::new(NONE) }
    }

    /// Of each entry of the index. Only those of files mean anything.
    #[must_use]
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// The entry that was read, or looked at, and was not what it had been at the walk: of several one.
    #[must_use]
    pub fn first_changed(&self) -> Option<usize> {
        Some(self.changed.load(Ordering::Relaxed)).filter(|&number| number != NONE)
    }

    /// Whether this entry still is what it was. If not, that is noted.
    pub(super) fn compare(&self, number: usize, now: &Stamp) -> Option<Difference> {
        let difference = self.stamps[number].difference(now);
        if difference.is_some() {
            self.note(number);
        }
        difference
    }

    /// Notes that this entry is not what it was.
    pub(super) fn note(&self, number: usize) {
        // The first stays.
        self.changed.compare_exchange(NONE, number, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Closes directories that no thread uses right now.
    pub(super) fn clear(&self) {
        self.open.clear();
    }

    /// Opens what an entry's path names. What the user named may be a link, nothing beneath it.
    pub(super) fn open(
        &self,
        root: BorrowedFd<'_>,
        path: &[u8],
        flags: OFlags,
    ) -> io::Result<OwnedFd> {
        let Some(roots) = &self.roots else {
            return open_beneath(root, path, flags, Mode::empty());
        };
        let (name, rest) = match path.iter().position(|&byte| byte == b'/') {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        let number = roots.binary_search_by(|(of, _)| of.as_slice().cmp(name));
        let number = number.map_err(|_| io::Error::from(Errno::NOENT))?;
        let given = |flags| {
            let path = roots[number].1.as_os_str().as_bytes();
            openat(root, path, flags | OFlags::CLOEXEC, Mode::empty())
        };
        let Some(rest) = rest else { return Ok(given(flags)?) };
        let directory = match self.open.get(number) {
            Some(directory) => directory,
            None => {
                let directory = Arc::new(File::from(given(OFlags::PATH | OFlags::DIRECTORY)?));
                self.open.insert(number, &directory);
                directory
            }
        };
        open_beneath(directory.as_fd(), rest, flags, Mode::empty())
    }
}
