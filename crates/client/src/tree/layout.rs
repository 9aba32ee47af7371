//! What has no bytes in a bundle: directories, empty files, links, modes and times. Made beneath the tree's root,
//! through no link.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::atomic::Ordering,
};

use relay_protocol::bundle::{Entry, Kind, Preserved};
use rustix::{
    fs::{
        AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, mkdirat,
        symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    Tree,
    beneath::{open_beneath, parent_beneath},
    marks::Marks,
    named,
    survey::Found,
};

/// What a tree that is whole could not get, as it may lack a file system.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Completed {
    /// Modes or times that could not be set, and why the first could not be.
    pub not_preserved: Option<(usize, String)>,
}

/// The directory that was used last: the next entry lies there, mostly.
#[derive(Default)]
struct LastParent {
    path: Vec<u8>,
    opened: Option<OwnedFd>,
}

impl LastParent {
    /// The directory that this path lies in, and its last component.
    fn of<'a>(&mut self, tree: &Tree, path: &'a [u8]) -> io::Result<(&OwnedFd, &'a OsStr)> {
        let at = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        if self.opened.is_none() || self.path != parent {
            self.opened = None;
            let opened = parent_beneath(tree.root.as_fd(), path)?.0;
            (self.path, self.opened) = (parent.to_vec(), Some(opened));
        }
        let opened = self.opened.as_ref().expect("opened just now");
        Ok((opened, OsStr::from_bytes(name)))
    }
}

impl Tree {
    fn selected_entries(&self) -> impl Iterator<Item = (usize, Entry<'_>)> {
        self.index.entries().enumerate().filter(|&(number, _)| self.is_selected(number))
    }

    /// Makes all directories, those that are not there. With the permissions that the process gives to new ones.
    ///
    /// # Errors
    /// The system's, with the path: also if something else lies there.
    pub fn make_directories(&self) -> io::Result<()> {
        let mut parents = LastParent::default();
        for (_, entry) in self.selected_entries().filter(|(_, entry)| entry.kind == Kind::Directory)
        {
            let mut make = || {
                self.check_stop()?;
                let (parent, name) = parents.of(self, entry.path)?;
                match mkdirat(parent, name, Mode::from(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(io::Error::from(error)),
                }
            };
            make().map_err(|error| named(entry.path, &error))?;
        }
        Ok(())
    }

    /// Makes what is still lacking when all bytes are here: empty files, files that are nothing but holes, links; then
    /// modes and times, if the index keeps them. From then on the tree is only read.
    ///
    /// # Errors
    /// The system's, with the path. What was made is not there any more, or something that is not of the tree is.
    pub fn complete(&self) -> io::Result<Completed> {
        let there = Marks::new(self.index.len());
        self.survey(&mut |path, found| match found {
            Found::Entry(number) => {
                there.set(number);
                Ok(())
            }
            Found::Unselected(_) | Found::Strange => {
                let text =
                    "it was put there while the tree was written, and is not of it: remove it";
                Err(named(path, &io::Error::new(io::ErrorKind::InvalidData, text)))
            }
        })?;
        let mut parents = LastParent::default();
        for (number, entry) in self.selected_entries() {
            if there.is_set(number) {
                continue;
            }
            self.check_stop()?;
            let made = match entry.kind {
                // It was there.
                _ if self.made.is_set(number) || entry.kind == Kind::Directory => {
                    let text = "it was moved or deleted while the tree was written";
                    Err(io::Error::new(io::ErrorKind::NotFound, text))
                }
                Kind::Link { target } => parents.of(self, entry.path).and_then(|(parent, name)| {
                    Ok(symlinkat(OsStr::from_bytes(target), parent, name)?)
                }),
                _ => self.make(number, 0).map(drop),
            };
            made.map_err(|error| named(entry.path, &error))?;
        }
        let completed = self.preserve();
        self.is_completed.store(true, Ordering::Relaxed);
        Ok(completed)
    }

    /// Modes and times: of files and links, then of directories, the deepest first, as what is made in them changes
    /// theirs, and what may not be entered can't be changed.
    fn preserve(&self) -> Completed {
        let mut completed = Completed::default();
        if !self.index.is_preserving() {
            return completed;
        }
        let mut parents = LastParent::default();
        let mut set = |entry: Entry<'_>| {
            let Some(preserved) = entry.preserved else { return };
            let result = match entry.kind {
                Kind::Link { .. } => parents.of(self, entry.path).and_then(|(parent, name)| {
                    Ok(utimensat(parent, name, &times(preserved), AtFlags::SYMLINK_NOFOLLOW)?)
                }),
                Kind::Directory | Kind::File { .. } => self.preserve_one(entry.path, preserved),
            };
            if let Err(error) = result {
                let first = || (0, named(entry.path, &error).to_string());
                completed.not_preserved.get_or_insert_with(first).0 += 1;
            }
        };
        let is_directory = |entry: &Entry<'_>| entry.kind == Kind::Directory;
        self.selected_entries()
            .map(|(_, entry)| entry)
            .filter(|e| !is_directory(e))
            .for_each(&mut set);
        for number in (0..self.index.len()).rev().filter(|&number| self.is_selected(number)) {
            Some(self.entry(number)).filter(is_directory).into_iter().for_each(&mut set);
        }
        completed
    }

    fn preserve_one(&self, path: &[u8], preserved: Preserved) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(open_beneath(self.root.as_fd(), path, flags, Mode::empty())?);
        // An index keeps no other bits; nothing here runs as its owner.
        fchmod(&file, Mode::from_raw_mode(u32::from(preserved.mode) & 0o777))?;
        Ok(futimens(&file, &times(preserved))?)
    }
}

fn times(preserved: Preserved) -> Timestamps {
    let nanos = preserved.modified_nanos.into();
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: preserved.modified_secs, tv_nsec: nanos },
    }
}
