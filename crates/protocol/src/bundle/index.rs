//! The index of a bundle: made from entries or from a bundle's first bytes, and asked what lies where.
//!
//! An [`Index`] that exists keeps all rules of a bundle. It holds its encoded header and 16 bytes for each entry;
//! what it tells of an entry it reads from there.

use std::ops::Range;

use super::{
    case::same_but_for_case,
    check::{check, parent_of},
    entry::{Entry, Kind, MODE_BITS, Preserved},
    error::BundleError,
    glob::Glob,
    table::{PREFACE_BYTES, Table, header_length},
};
use crate::limits::BUNDLE_ENTRIES_MAX;

/// What is in a bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    table: Table,
    counts: Counts,
}

/// How much is in a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Directories, without the root.
    pub directories: usize,
    /// Files.
    pub files: usize,
    /// Symbolic links.
    pub links: usize,
    /// Bytes of all files.
    pub file_bytes: u64,
}

/// What a bundle's first bytes make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// All of the index was there.
    Whole(Index),
    /// More is needed.
    Needs {
        /// The length of a prefix with which one can go on: of one that names the index's length, or has it all.
        prefix_bytes: usize,
    },
}

/// Bytes that follow one another in a bundle and belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What they are of.
    pub of: PieceOf,
    /// Where they stand in it: counted from the header's or the file's first byte.
    pub bytes: Range<u64>,
}

/// What a piece of a bundle is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceOf {
    /// Magic, version, length, index.
    Header,
    /// The file that is the entry of this number.
    File(usize),
}

impl Index {
    /// The index of these entries, in whatever order they are. Modes lose what a bundle does not keep.
    ///
    /// # Errors
    /// What about them makes no bundle.
    pub fn new(mut entries: Vec<Entry<'_>>) -> Result<Self, BundleError> {
        if entries.len() > BUNDLE_ENTRIES_MAX {
            return Err(BundleError::TooManyEntries(entries.len()));
        }
        for Entry { kind, preserved, .. } in &mut entries {
            if let Some(Preserved { mode, .. }) = preserved {
                *mode = match kind {
                    Kind::Directory | Kind::File { .. } => *mode & MODE_BITS,
                    Kind::Link { .. } => MODE_BITS,
                };
            }
        }
        entries.sort_unstable_by_key(|entry| entry.path);
        Self::of(Table::write(&entries)?)
    }

    /// The index that a bundle of `bundle_bytes` begins with, of which a prefix is there: or how long a prefix is
    /// needed. What is wrong with the part that is there is told at once; an index is read when all of it is there.
    ///
    /// # Errors
    /// Why this begins no bundle of that length.
    pub fn decode(prefix: &[u8], bundle_bytes: u64) -> Result<Decoded, BundleError> {
        let needed = header_length(prefix)?;
        let prefix_bytes = needed.unwrap_or(PREFACE_BYTES);
        if prefix_bytes as u64 > bundle_bytes {
            return Err(BundleError::Cut { is_bytes: bundle_bytes, needed_bytes: prefix_bytes });
        }
        let Some(header) = needed.and_then(|length| prefix.get(..length)) else {
            return Ok(Decoded::Needs { prefix_bytes });
        };
        let index = Self::of(Table::read(header.to_vec())?)?;
        if index.bundle_bytes() != bundle_bytes {
            let index_bytes = index.bundle_bytes();
            return Err(BundleError::Size { is_bytes: bundle_bytes, index_bytes });
        }
        Ok(Decoded::Whole(index))
    }

    fn of(table: Table) -> Result<Self, BundleError> {
        check(&table)?;
        let mut counts = Counts::default();
        for entry in table.entries() {
            match entry.kind {
                Kind::Directory => counts.directories += 1,
                Kind::File { .. } => counts.files += 1,
                Kind::Link { .. } => counts.links += 1,
            }
            counts.file_bytes += entry.kind.size_bytes();
        }
        Ok(Self { table, counts })
    }

    /// What the bundle begins with, before the first file's bytes.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.table.header()
    }

    /// Bytes of the header: where the first file's bytes begin.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.table.header().len() as u64
    }

    /// Bytes of the whole bundle.
    #[must_use]
    pub fn bundle_bytes(&self) -> u64 {
        self.header_bytes() + self.counts.file_bytes
    }

    /// How much is in it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether it keeps mode and time of its entries. An empty one keeps nothing.
    #[must_use]
    pub fn is_preserving(&self) -> bool {
        self.table.is_preserving()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Nothing is in it: the bundle of an empty directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, sorted by the bytes of their paths: a directory before what is in it.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.table.entries()
    }

    /// The entry of this number, counted from 0.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<Entry<'_>> {
        self.table.entry(number)
    }

    /// The number of the entry with this path, and the entry.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<(usize, Entry<'_>)> {
        self.table.find(path, self.len())
    }

    /// Where the bytes of this entry lie in the bundle. For a directory, a link or an empty file they are none, at
    /// the place where they would be.
    #[must_use]
    pub fn place(&self, number: usize) -> Option<Range<u64>> {
        let end = self.table.end(number)?;
        let before = number.checked_sub(1).and_then(|before| self.table.end(before));
        Some(before.unwrap_or(self.header_bytes())..end)
    }

    /// What the bytes of this range of the bundle are of, in their order. What the range has beyond the bundle's end
    /// is left out.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        let header_bytes = self.header_bytes();
        let end = range.end.min(self.bundle_bytes());
        let in_header = range.start..end.min(header_bytes);
        let header =
            (!in_header.is_empty()).then_some(Piece { of: PieceOf::Header, bytes: in_header });
        let first = self.table.first_ending_after(range.start.max(header_bytes));
        let files = (first..self.len())
            .map_while(move |number| {
                let place = self.place(number).filter(|place| place.start < end)?;
                let from = range.start.max(place.start) - place.start;
                Some((number, from..place.end.min(end) - place.start))
            })
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(number, bytes)| Piece { of: PieceOf::File(number), bytes });
        header.into_iter().chain(files)
    }

    /// Which entries are meant by one of these patterns, and in which directories they lie: for each entry whether
    /// it is one of them.
    #[must_use]
    pub fn select(&self, globs: &[Glob]) -> Vec<bool> {
        let mut selected = vec![false; self.len()];
        for (number, entry) in self.entries().enumerate() {
            if !globs.iter().any(|glob| glob.matches(entry.path)) {
                continue;
            }
            selected[number] = true;
            let mut parent = parent_of(entry.path);
            while let Some((number, entry)) = self.find(parent).filter(|&(at, _)| !selected[at]) {
                selected[number] = true;
                parent = parent_of(entry.path);
            }
        }
        selected
    }

    /// Entries that differ only in case, see [`same_but_for_case`]: where case does not count, one would replace the
    /// other.
    #[must_use]
    pub fn same_but_for_case(&self) -> Vec<(usize, usize)> {
        same_but_for_case(self.entries().map(|entry| entry.path))
    }
}
