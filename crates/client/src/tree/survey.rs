//! What lies in a tree's directory: compared with the index, entry by entry, by name and kind. Contents are not looked
//! at. Follows no link.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use relay_protocol::bundle::Kind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, readlinkat, statat};

use super::{
    Access, Tree,
    beneath::{open_beneath, parent_beneath},
    check,
    listing::{join, list},
    named,
    removal::{permit, remove_beneath},
};

/// Permissions that the writer of a file needs.
const WRITER: u32 = 0o600;

/// Marks a file that its owner may execute.
const OWNER_EXECUTES: u32 = relay_protocol::bundle::OWNER_EXECUTES as u32;

/// The unit that systems count the blocks of a file in.
const BLOCK_BYTES: u64 = 512;

/// Something that was found in a tree's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The entry of this number, of the right kind. A link leads where it should.
    Entry(usize),
    /// The entry of this number, of the right kind, that is not selected.
    Unselected(usize),
    /// What the index has otherwise, or not at all.
    Strange,
}

/// What a get would find that went on in a directory: the first of each, by its path.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Foreseen {
    /// Something that is not a directory, of the index or not.
    pub file: Option<Vec<u8>>,
    /// What is of the index, and not selected.
    pub unselected: Option<Vec<u8>>,
    /// What the index has otherwise, or not at all.
    pub strange: Option<Vec<u8>>,
}

/// What a get goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TakenOver {
    /// There was a file.
    pub has_files: bool,
    /// Bytes that the file system has set aside for files that are there: writing them anew needs no room.
    pub allocated_bytes: u64,
}

impl Tree {
    /// Tells of all that lies in the tree's directory, a directory before what is in it. What is strange is
    /// not entered.
    ///
    /// # Errors
    /// The system's, or the caller's, or it is to stop.
    pub fn survey(&self, found: &mut dyn FnMut(&[u8], Found) -> io::Result<()>) -> io::Result<()> {
        let mut ahead = vec![Vec::new()];
        while let Some(directory) = ahead.pop() {
            let mut tell = |name: &[u8], kind: FileType| {
                self.check_stop()?;
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

    /// Files that their owner may execute and the index says otherwise, or the reverse: how many, and the first. Of a tree
    /// that [is as listed](Self::is_as_listed).
    ///
    /// # Errors
    /// The system's.
    pub fn other_marks(&self) -> io::Result<(usize, Option<Vec<u8>>)> {
        let (mut count, mut first) = (0, None);
        self.survey(&mut |path, found| {
            if let Found::Entry(number) = found
                && let Kind::File { is_executable, .. } = self.entry(number).kind
            {
                let (parent, name) = parent_beneath(self.root.as_fd(), path)?;
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if is_executable != (stat.st_mode & OWNER_EXECUTES != 0) {
                    count += 1;
                    first.get_or_insert_with(|| path.to_vec());
                }
            }
            Ok(())
        })?;
        Ok((count, first))
    }

    fn judge(&self, path: &[u8], kind: FileType) -> io::Result<Found> {
        let Some((number, entry)) = self.index.find(path) else { return Ok(Found::Strange) };
        let is_right = match entry.kind {
            Kind::Directory => kind == FileType::Directory,
            Kind::File { .. } => kind == FileType::RegularFile,
            Kind::Link { target } if kind == FileType::Symlink => {
                let (parent, name) = parent_beneath(self.root.as_fd(), path)?;
                readlinkat(parent, name, Vec::new())?.as_bytes() == target
            }
            Kind::Link { .. } => false,
        };
        Ok(match is_right {
            true if self.is_selected(number) => Found::Entry(number),
            true => Found::Unselected(number),
            false => Found::Strange,
        })
    }

    /// What a get would find that went on here. Alters nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn foresee(&self) -> io::Result<Foreseen> {
        let mut foreseen = Foreseen::default();
        self.survey(&mut |path, found| {
            let is_directory = match found {
                Found::Entry(number) | Found::Unselected(number) => {
                    self.entry(number).kind == Kind::Directory
                }
                Found::Strange => self.is_directory(path)?,
            };
            let unselected = matches!(found, Found::Unselected(_));
            if unselected && foreseen.unselected.is_none() {
                foreseen.unselected = Some(path.to_vec());
            }
            if !is_directory && foreseen.file.is_none() {
                foreseen.file = Some(path.to_vec());
            }
            if found == Found::Strange && foreseen.strange.is_none() {
                foreseen.strange = Some(path.to_vec());
            }
            Ok(())
        })?;
        Ok(foreseen)
    }

    fn is_directory(&self, path: &[u8]) -> io::Result<bool> {
        let (parent, name) = parent_beneath(self.root.as_fd(), path)?;
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Prepares a tree that another get began to be written on: files get their length, and what writes may
    /// write. What is not of the tree is removed: [`foresee`](Self::foresee) tells before what that is.
    ///
    /// # Errors
    /// The system's. A file with a second name, which may lie outside.
    pub fn take_over(&self) -> io::Result<TakenOver> {
        assert_eq!(self.access, Access::Write, "what is only read is not altered");
        let mut taken = TakenOver::default();
        self.survey(&mut |path, found| {
            let Found::Entry(number) = found else { return self.remove(path) };
            let allocated = self.adopt(number).map_err(|error| named(path, &error))?;
            taken.has_files |= self.made.is_set(number);
            taken.allocated_bytes += allocated;
            Ok(())
        })?;
        Ok(taken)
    }

    /// Takes a file or directory that was there before. Bytes that its file system has set aside for a file.
    fn adopt(&self, number: usize) -> io::Result<u64> {
        let entry = self.entry(number);
        let open = |flags| {
            let flags = flags | OFlags::NONBLOCK;
            open_beneath(self.root.as_fd(), entry.path, flags, Mode::empty()).map(File::from)
        };
        let Kind::File { size_bytes, is_executable } = entry.kind else {
            if entry.kind == Kind::Directory {
                permit(self.root.as_fd(), entry.path)?;
            }
            return Ok(0);
        };
        let file = match open(OFlags::RDWR) {
            // Its owner may not write it, as a tree is that keeps its modes. One who may not read it either can only
            // make it anew.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                adapt_mode(&open(OFlags::RDONLY)?, is_executable)?;
                open(OFlags::RDWR)?
            }
            opened => opened?,
        };
        adapt_mode(&file, is_executable)?;
        let metadata = file.metadata()?;
        if metadata.len() != size_bytes {
            file.set_len(size_bytes)?;
        }
        self.made.set(number);
        Ok(metadata.blocks().saturating_mul(BLOCK_BYTES))
    }

    /// Removes what lies under this path, with all that is below it. Follows no link.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, path: &[u8]) -> io::Result<()> {
        remove_beneath(self.root.as_fd(), path)
    }
}

/// Gives a file the permissions that its writer needs, and its mark: the one that it has may be another's, whose file lies
/// under this name.
fn adapt_mode(file: &File, is_executable: bool) -> io::Result<()> {
    check(file, Access::Write)?;
    let mode = file.metadata()?.mode() & 0o777;
    let wanted = mode | WRITER;
    let is_other = is_executable != (mode & OWNER_EXECUTES != 0);
    if is_other || mode != wanted {
        let bits = if is_executable { wanted | (wanted & 0o444) >> 2 } else { wanted & !0o111 };
        fchmod(file, Mode::from_raw_mode(bits))?;
    }
    Ok(())
}
