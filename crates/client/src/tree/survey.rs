//! What lies in a tree's directory: compared with the index, entry by entry, by name and kind. Contents are not looked
//! at. Follows no link.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
};

use relay_protocol::bundle::Kind;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fchmod, ftruncate, readlinkat, statat, unlinkat},
    io::Errno,
};

use super::{
    Access, Tree,
    beneath::{open_beneath, parent_beneath},
    named,
};

/// What a reader of directories needs: no link, no waiting for a pipe.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK);

/// Permissions that whoever writes a tree needs: of files, and of directories.
const WRITER: [u32; 2] = [0o600, 0o700];

/// Something that was found in a tree's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The entry of this number, of the right kind. A link leads where it should.
    Entry(usize),
    /// What the index has otherwise, or not at all, or what is not selected.
    Strange,
}

impl Tree {
    /// Tells of all that lies in the tree's directory, a directory before what is in it. What is strange is
    /// not entered.
    ///
    /// # Errors
    /// The system's, or the caller's.
    pub fn survey(&self, found: &mut dyn FnMut(&[u8], Found) -> io::Result<()>) -> io::Result<()> {
        let mut ahead = vec![Vec::new()];
        while let Some(directory) = ahead.pop() {
            let mut tell = |name: &[u8], kind: FileType| {
                let path = join(&directory, name);
                let what = self.judge(&path, kind).map_err(|error| named(&path, &error))?;
                let is_directory = kind == FileType::Directory;
                found(&path, what)?;
                if is_directory && what != Found::Strange {
                    ahead.push(path);
                }
                Ok(())
            };
            list(self.root.as_fd(), &directory, &mut tell)
                .map_err(|error| named(&directory, &error))?;
        }
        Ok(())
    }

    /// Whether all that is listed is there, and nothing else: names, kinds, sizes, where links lead. Contents are not
    /// looked at.
    ///
    /// # Errors
    /// The system's.
    pub fn is_as_listed(&self) -> io::Result<bool> {
        let (mut count, mut is_same) = (0, true);
        self.survey(&mut |path, found| {
            let Found::Entry(number) = found else {
                is_same = false;
                return Ok(());
            };
            count += 1;
            if let Kind::File { size_bytes, .. } = self.entry(number).kind {
                let (parent, name) = parent_beneath(self.root.as_fd(), path)?;
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                is_same &= u64::try_from(stat.st_size) == Ok(size_bytes);
            }
            Ok(())
        })?;
        Ok(is_same && count == (0..self.index.len()).filter(|&at| self.is_selected(at)).count())
    }

    fn judge(&self, path: &[u8], kind: FileType) -> io::Result<Found> {
        let Some((number, entry)) = self.index.find(path).filter(|&(at, _)| self.is_selected(at))
        else {
            return Ok(Found::Strange);
        };
        let is_right = match entry.kind {
            Kind::Directory => kind == FileType::Directory,
            Kind::File { .. } => kind == FileType::RegularFile,
            Kind::Link { target } if kind == FileType::Symlink => {
                let (parent, name) = parent_beneath(self.root.as_fd(), path)?;
                readlinkat(parent, name, Vec::new())?.as_bytes() == target
            }
            Kind::Link { .. } => false,
        };
        Ok(if is_right { Found::Entry(number) } else { Found::Strange })
    }

    /// Prepares a tree that another get began to be written on: files get their length, and what writes may
    /// write. What is strange is handed to `strange`, which may keep it or [`remove`](Self::remove) it; whether there was
    /// any file.
    ///
    /// # Errors
    /// The system's, or the caller's. A file with a second name, which may lie outside.
    pub fn take_over(
        &self,
        strange: &mut dyn FnMut(&Self, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        assert_eq!(self.access, Access::Write, "what is only read is not altered");
        let mut has_files = false;
        self.survey(&mut |path, found| match found {
            Found::Strange => strange(self, path),
            Found::Entry(number) => {
                self.adopt(number).map_err(|error| named(path, &error))?;
                has_files |= self.made.is_set(number);
                Ok(())
            }
        })?;
        Ok(has_files)
    }

    /// Of a file or directory that was there before.
    fn adopt(&self, number: usize) -> io::Result<()> {
        let entry = self.entry(number);
        let (size_bytes, is_executable, needs) = match entry.kind {
            Kind::Directory => (None, true, WRITER[1]),
            Kind::File { size_bytes, is_executable } => {
                (Some(size_bytes), is_executable, WRITER[0])
            }
            Kind::Link { .. } => return Ok(()),
        };
        let (parent, name) = parent_beneath(self.root.as_fd(), entry.path)?;
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_short =
            size_bytes.is_some_and(|size| size != u64::try_from(stat.st_size).unwrap_or(0));
        let has_name_elsewhere = size_bytes.is_some() && stat.st_nlink > 1;
        let mode = stat.st_mode & 0o777;
        let wanted = mode | needs;
        // Its mark may be another's, whose file lies under this name.
        let is_other = size_bytes.is_some() && is_executable != (mode & 0o100 != 0);
        if has_name_elsewhere {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has a second name: remove it",
            ));
        }
        if is_other || mode != wanted {
            // Without permission to read it, it can only be made anew; the owner's is enough to change that.
            let file = open_beneath(
                self.root.as_fd(),
                entry.path,
                OFlags::RDONLY | OFlags::NONBLOCK,
                Mode::empty(),
            )?;
            let bits = if is_executable { wanted | (wanted & 0o444) >> 2 } else { wanted & !0o111 };
            let bits = if size_bytes.is_none() { wanted } else { bits };
            fchmod(&file, Mode::from_raw_mode(bits))?;
        }
        if let Some(size_bytes) = size_bytes {
            if is_short {
                let file = open_beneath(
                    self.root.as_fd(),
                    entry.path,
                    OFlags::WRONLY | OFlags::NONBLOCK,
                    Mode::empty(),
                )?;
                ftruncate(file, size_bytes)?;
            }
            self.made.set(number);
        }
        Ok(())
    }

    /// Removes what lies under this path, with all that is below it. Follows no link.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, path: &[u8]) -> io::Result<()> {
        let root = self.root.as_fd();
        let mut ahead = vec![path.to_vec()];
        while let Some(path) = ahead.last().cloned() {
            let (parent, name) = parent_beneath(root, &path)?;
            match unlinkat(&parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    ahead.pop();
                    continue;
                }
                // Linux and POSIX differ in what they say of a directory.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(named(&path, &error.into())),
            }
            match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {
                    ahead.pop();
                    continue;
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(named(&path, &error.into())),
            }
            let mut below = Vec::new();
            list(root, &path, &mut |name, kind| {
                let path = join(&path, name);
                if kind == FileType::Directory {
                    below.push(path);
                    return Ok(());
                }
                let (parent, name) = parent_beneath(root, &path)?;
                unlinkat(parent, name, AtFlags::empty())
                    .map_err(|error| named(&path, &error.into()))
            })?;
            ahead.append(&mut below);
        }
        Ok(())
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Tells of all that lies in this directory, by name and kind.
fn list(
    root: BorrowedFd<'_>,
    directory: &[u8],
    tell: &mut dyn FnMut(&[u8], FileType) -> io::Result<()>,
) -> io::Result<()> {
    let path = if directory.is_empty() { b"." } else { directory };
    let directory = open_beneath(root, path, LISTED, Mode::empty())?;
    let mut entries = Dir::new(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat =
                    statat(entries.fd()?, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        tell(name, kind)?;
    }
    Ok(())
}
