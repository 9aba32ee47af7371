//! A tree of files as the string of bytes of its [`bundle`](relay_protocol::bundle): read for others, or written as
//! chunks of it come.
//!
//! ```text
//!  tree ──► handles    the files that are open, not many of them
//!    │ └──► marks      which files are there
//!    └────► walked     what its files were when it was walked, if it is shared
//!  walk ──► tree       finds what is in directories
//!  layout ─► beneath   directories, links, modes: what has no bytes; opens nothing outside of the tree
//!  survey ─┤           what lies in a tree that was there before
//!  removal ┘           takes away what lies beneath a directory
//! ```

pub mod beneath;
mod handles;
pub mod layout;
mod listing;
mod marks;
pub mod removal;
pub mod survey;
mod troubles;
pub mod walk;
pub mod walked;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use relay_protocol::bundle::{Entry, Index, Kind, Piece, PieceOf, shown_path};
use relay_units::count_text;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use self::{
    beneath::open_beneath,
    handles::{Handles, have_run_out},
    marks::Marks,
    walked::Walked,
};
use super::{
    content::{Content, holds_more, sparse},
    stamp::Stamp,
};

/// What is done with a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// All files are there, and only read.
    Read,
    /// Files come to be when the first of their bytes are written. What is not there yet is a hole.
    Write,
}

/// The files of an index beneath one directory.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    index: Arc<Index>,
    access: Access,
    /// Of each entry, whether it is written; of all, if there is no list.
    selected: Option<Vec<bool>>,
    handles: Handles,
    /// What its files were, if it was walked.
    walked: Option<Arc<Walked>>,
    /// Files that are there, of their full length.
    made: Marks,
    /// Whether long runs of zeros stay holes.
    is_sparse: bool,
    /// All that is to come has come: files are only read from now on, and may not be writable any more.
    is_completed: AtomicBool,
    /// Whether the user wants an end, looked at between one entry and the next.
    stop: Option<Arc<AtomicBool>>,
}

impl Tree {
    /// A tree that is there, to be read: a file that is not as the index says is an error.
    #[must_use]
    pub fn to_read(root: OwnedFd, index: Arc<Index>) -> Self {
        Self::new(root, index, Access::Read, None)
    }

    fn new(root: OwnedFd, index: Arc<Index>, access: Access, selected: Option<Vec<bool>>) -> Self {
        let (handles, made) = (Handles::default(), Marks::new(index.len()));
        Self {
            root,
            index,
            access,
            selected,
            handles,
            walked: None,
            made,
            is_sparse: true,
            is_completed: AtomicBool::new(false),
            stop: None,
        }
    }

    /// A tree that is to come: all of it, or what is selected ([`Index::select`]). Directories must be there before what is in
    /// them is written.
    ///
    /// # Panics
    /// The selection is of another number of entries.
    #[must_use]
    pub fn to_write(root: OwnedFd, index: Arc<Index>, selected: Option<Vec<bool>>) -> Self {
        assert!(selected.as_ref().is_none_or(|selected| selected.len() == index.len()));
        Self::new(root, index, Access::Write, selected)
    }

    /// Looks at each file after it was read, whether it still is what it was at the walk. Only of a tree to be read.
    #[must_use]
    pub(crate) fn with_walked(self, walked: Arc<Walked>) -> Self {
        Self { walked: Some(walked), ..self }
    }

    /// Writes long runs of zeros as well, instead of leaving holes.
    #[must_use]
    pub fn without_holes(self) -> Self {
        Self { is_sparse: false, ..self }
    }

    /// Walks over all entries end early, with an error of the kind `Interrupted`, once this is set.
    #[must_use]
    pub fn with_stop(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    fn check_stop(&self) -> io::Result<()> {
        match &self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => {
                Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
            }
            _ => Ok(()),
        }
    }

    /// What is in it.
    #[must_use]
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The directory that it lies in.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Whether this entry is part of it.
    #[must_use]
    pub fn is_selected(&self, number: usize) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected[number])
    }

    fn entry(&self, number: usize) -> Entry<'_> {
        self.index.entry(number).expect("the index names its own entries")
    }

    /// The file of this number, if it is there. `keeps`: more of it will be wanted soon.
    fn open(&self, number: usize, keeps: bool) -> io::Result<Option<Arc<File>>> {
        if let Some(file) = self.handles.get(number) {
            return Ok(Some(file));
        }
        let path = self.entry(number).path;
        let flags = match self.access {
            Access::Write if !self.is_completed.load(Ordering::Relaxed) => OFlags::RDWR,
            _ => OFlags::RDONLY,
        };
        // A pipe that was put there is not waited for.
        let (root, flags) = (self.root.as_fd(), flags | OFlags::NONBLOCK);
        let opened = self.with_descriptors(|| match &self.walked {
            Some(walked) => walked.open(root, path, flags),
            None => open_beneath(root, path, flags, Mode::empty()),
        });
        let file = match opened {
            Ok(file) => Arc::new(File::from(file)),
            Err(error) if self.is_lacking(&error) => return Ok(None),
            Err(error) => return Err(named(path, &error)),
        };
        if self.walked.is_none() {
            check(&file, self.access).map_err(|error| named(path, &error))?;
        }
        if keeps {
            self.handles.insert(number, &file);
        }
        Ok(Some(file))
    }

    /// Once more without the files that were kept open, if descriptors have run out.
    fn with_descriptors<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if have_run_out(&error) => {
                self.handles.clear();
                self.walked.iter().for_each(|walked| walked.clear());
                open()
            }
            opened => opened,
        }
    }

    /// How the file of this number is now, without opening it to be read.
    ///
    /// # Errors
    /// The system's, or the tree was not walked.
    pub(crate) fn stamp_now(&self, number: usize) -> io::Result<Stamp> {
        let walked = self.walked.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let file = walked.open(self.root.as_fd(), self.entry(number).path, OFlags::PATH)?;
        Stamp::of_open(file)
    }

    /// What was read of a file counts if the file is what it was at the walk. It was, at that time, so it need not be
    /// looked at before it is read as well. `is_more`: there were bytes behind its end.
    fn look(&self, number: usize, file: &File, is_more: bool) -> io::Result<()> {
        let Some(walked) = &self.walked else { return Ok(()) };
        match walked.compare(number, &Stamp::of_open(file)?) {
            None if is_more => Err(misstated("more", walked.stamps()[number].size_bytes)),
            // What it holds may be the same all the same: the owner decides.
            _ => Ok(()),
        }
    }

    /// Why a file ends before the index says so.
    fn shorter(&self, number: usize, file: &File) -> io::Error {
        let shorter = io::Error::new(io::ErrorKind::InvalidData, "it is shorter now");
        let Some(walked) = &self.walked else { return shorter };
        match Stamp::of_open(file).map(|now| walked.compare(number, &now)) {
            Ok(None) => misstated("less", walked.stamps()[number].size_bytes),
            Ok(Some(_)) => shorter,
            Err(error) => error,
        }
    }

    /// Whether it is no fault: files of a tree that is to come are made when they come.
    fn is_lacking(&self, error: &io::Error) -> bool {
        self.access == Access::Write && error.kind() == io::ErrorKind::NotFound
    }

    /// The file of this number, to be written: made if it is not there, of its full length unless all of it comes at once
    /// and none of that is a hole.
    fn make(&self, number: usize, piece_bytes: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.handles.get(number) {
            return Ok(file);
        }
        let Entry { path, kind: Kind::File { size_bytes, is_executable }, .. } = self.entry(number)
        else {
            unreachable!("only files have bytes");
        };
        let mode = if is_executable { Mode::from(0o777) } else { Mode::from(0o666) };
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let create = flags | OFlags::CREATE | OFlags::EXCL;
        let make = || {
            let file = match open_beneath(self.root.as_fd(), path, create, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let file = open_beneath(self.root.as_fd(), path, flags, Mode::empty())?;
                    let file = File::from(file);
                    check(&file, self.access)?;
                    if file.metadata()?.len() != size_bytes {
                        file.set_len(size_bytes)?;
                    }
                    return Ok(file);
                }
                made => File::from(made?),
            };
            if piece_bytes < size_bytes || size_bytes >= sparse::HOLE_BYTES_LEAST as u64 {
                file.set_len(size_bytes)?;
            }
            Ok(file)
        };
        let made = self.with_descriptors(make);
        let file = Arc::new(made.map_err(|error| named(path, &error))?);
        self.made.set(number);
        if piece_bytes < size_bytes {
            self.handles.insert(number, &file);
        }
        Ok(file)
    }

    fn append_piece(&self, bytes: &mut Vec<u8>, piece: &Piece) -> io::Result<()> {
        let number = match piece.of {
            PieceOf::Header => {
                let (start, end) = (to_usize(piece.bytes.start), to_usize(piece.bytes.end));
                bytes.extend_from_slice(&self.index.header()[start..end]);
                return Ok(());
            }
            PieceOf::File(number) => number,
        };
        let end = bytes.len() + to_usize(piece.bytes.end - piece.bytes.start);
        let is_part =
            piece.bytes.start > 0 || self.entry(number).kind.size_bytes() > piece.bytes.end;
        let file = if self.is_selected(number) { self.open(number, is_part)? } else { None };
        let mut offset = piece.bytes.start;
        while let Some(file) = &file
            && bytes.len() < end
        {
            let path = || self.entry(number).path;
            let read = file.append_at(bytes, offset).map_err(|error| named(path(), &error))?;
            offset += read as u64;
            if read == 0 && self.access == Access::Read {
                return Err(named(path(), &self.shorter(number, file)));
            }
            if read == 0 {
                break;
            }
        }
        if let (Some(file), true) = (&file, self.walked.is_some()) {
            let entry = self.entry(number);
            let size_bytes = entry.kind.size_bytes();
            // There was room for more, or it has to be asked for.
            let is_more = match piece.bytes.end == size_bytes && bytes.len() == bytes.capacity() {
                true => holds_more(file, size_bytes),
                false => Ok(piece.bytes.end == size_bytes && bytes.len() > end),
            };
            let looked = is_more.and_then(|is_more| self.look(number, file, is_more));
            looked.map_err(|error| named(entry.path, &error))?;
        }
        // A file may be longer now, or not there yet.
        bytes.resize(end, 0);
        Ok(())
    }

    fn overwrite_piece(&self, number: usize, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        // What is not there is a hole already.
        if self.is_sparse && sparse::is_hole(bytes) && self.open(number, true)?.is_none() {
            return Ok(());
        }
        let file = self.make(number, bytes.len() as u64)?;
        let written = match self.is_sparse {
            true => sparse::overwrite(&file, bytes, offset_bytes),
            false => file.overwrite_at(bytes, offset_bytes),
        };
        written.map_err(|error| named(self.entry(number).path, &error))
    }

    /// Where the next data is in a piece, counted as the piece counts.
    fn next_data_of(&self, piece: &Piece) -> io::Result<Option<u64>> {
        match piece.of {
            PieceOf::Header => Ok(Some(piece.bytes.start)),
            PieceOf::File(number) if !self.is_selected(number) => Ok(None),
            PieceOf::File(number) => match self.open(number, true)? {
                Some(file) => file.next_data(piece.bytes.start, piece.bytes.end),
                None => Ok(None),
            },
        }
    }
}

impl Content for Tree {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.index.bundle_bytes())
    }

    fn append_at(&self, bytes: &mut Vec<u8>, offset_bytes: u64) -> io::Result<usize> {
        let (before, room) = (bytes.len(), bytes.capacity() - bytes.len());
        for piece in self.index.pieces(offset_bytes..offset_bytes + room as u64) {
            self.append_piece(bytes, &piece)?;
        }
        Ok(bytes.len() - before)
    }

    fn overwrite_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let mut rest = bytes;
        for Piece { of, bytes } in
            self.index.pieces(offset_bytes..offset_bytes + bytes.len() as u64)
        {
            let (now, behind) = rest.split_at(to_usize(bytes.end - bytes.start));
            rest = behind;
            match of {
                PieceOf::File(number) if self.is_selected(number) => {
                    self.overwrite_piece(number, now, bytes.start)?;
                }
                // The index is here, or this could not be written.
                PieceOf::Header | PieceOf::File(_) => {}
            }
        }
        Ok(())
    }

    fn next_data(&self, offset_bytes: u64, end_bytes: u64) -> io::Result<Option<u64>> {
        let mut at = offset_bytes;
        for piece in self.index.pieces(offset_bytes..end_bytes) {
            if let Some(found) = self.next_data_of(&piece)? {
                return Ok(Some(at + (found - piece.bytes.start)));
            }
            at += piece.bytes.end - piece.bytes.start;
        }
        Ok(None)
    }
}

/// What is written to is a regular file without a second name, which may lie outside of the tree.
fn check(file: &File, access: Access) -> io::Result<()> {
    let metadata = file.metadata()?;
    let fault = match (metadata.is_file(), access) {
        (false, _) => "it is not a regular file now",
        (true, Access::Write) if metadata.nlink() > 1 => "it has a second name: remove it",
        (true, _) => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, fault))
}

/// A file has another end than the system states.
fn misstated(how: &str, size_bytes: u64) -> io::Error {
    let text = format!(
        "it holds {how} than the {} that the system states: it is made while it is read, as files in /proc are",
        count_text(size_bytes, "byte")
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The error, with the path that it is of. That descriptors have run out is of the kind `ResourceBusy`.
fn named(path: &[u8], error: &io::Error) -> io::Error {
    let link = matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::XDEV));
    let why = if link { ": a link lies on the way there" } else { "" };
    // The text takes the system's number away.
    let kind = if have_run_out(error) { io::ErrorKind::ResourceBusy } else { error.kind() };
    io::Error::new(kind, format!("{}: {error}{why}", shown_path(path)))
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits into memory")
}

#[cfg(test)]
mod tests;
