//! Bundles: a tree of files as one string of bytes, so that a swarm moves directories as it moves files.
//!
//! This page is the format, to the byte. The module is pure: it makes and reads the **header**, says where in the
//! bundle each file's bytes are, and refuses what must not be written anywhere. It opens no file.
//!
//! # Layout
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | [`BUNDLE_MAGIC`](crate::limits::BUNDLE_MAGIC), `PSPBUNDL` |
//! | 8 | version, [`BUNDLE_VERSION`](crate::limits::BUNDLE_VERSION), 1 |
//! | 9..13 | n, the length of the index, little-endian |
//! | 13..13+n | the index |
//! | 13+n.. | the bytes of all files, one after another in the order of the index, without padding |
//!
//! The bundle ends with its last file. The first 13+n bytes are its header.
//!
//! # Index
//!
//! The index is in [postcard](https://postcard.jamesmunns.com/wire-format). A *number* is a LEB128 varint in its
//! shortest form; *bytes* are their count, a number, and then themselves.
//!
//! | field | form |
//! |---|---|
//! | form | one byte: 0 plain, 1 if mode and time are kept |
//! | count of entries | number; not 0 in form 1 |
//! | entries | one after another |
//!
//! An entry:
//!
//! | field | form | of |
//! |---|---|---|
//! | path | bytes | all |
//! | kind | one byte: 0 directory, 1 file, 2 symbolic link | all |
//! | size | number, of 64 bits | file |
//! | executable | one byte, 0 or 1 | file |
//! | target | bytes | link |
//! | mode | number: the lowest nine bits of a Unix mode | all, in form 1 |
//! | modified, seconds since 1970 | number, of 64 bits, zigzag: 0, -1, 1, -2 .. are 0, 1, 2, 3 .. | all, in form 1 |
//! | modified, nanoseconds | number below 10^9 | all, in form 1 |
//!
//! Nothing follows the last entry. Entries are sorted by the bytes of their paths, as numbers without sign, a shorter
//! path before those that it begins: `a`, `a-b`, `a/b`. No path is there twice. Of a file whose mode is kept
//! the mark says what the mode says of its owner (0o100). The mode of a link is 0o777.
//!
//! So a tree has one bundle, whichever program packs it, and equal trees are one swarm. A decoder refuses every other
//! form. What is no part of the tree that is shared is not in it: owner, group, set-user-id and sticky bits, holes,
//! attributes, hard links (each name has the bytes for itself), and in form 0 times and modes.
//!
//! # The root
//!
//! The root is the directory that a getter makes and names; the ticket has a name for it. It has no entry, so its own
//! mode and time are not kept. If one directory is shared, the root is that directory: entries are its *contents*. If
//! several paths are shared, each is an entry of the root, by its last component; two with the same one make
//! no bundle. An empty directory is a bundle without entries.
//!
//! # Rules
//!
//! A bundle is data that a stranger wrote. Each of these is an error of its own, with the entry's path
//! ([`EntryFault`], [`LinkFault`]). Encoder and decoder run the same check.
//!
//! - A path has 1 to 4,096 bytes in 1 to 64 components with slashes between. A component has 1 to 255 bytes, and is
//!   neither `.` nor `..`.
//! - Names are bytes, as on Linux: they need not be UTF-8. No control character may be in a path or target: no byte
//!   below 0x20 (NUL among them), no 0x7f, and no U+0080 to U+009F where the bytes are UTF-8. All else may be, also
//!   characters that don't show: [`shown_path`] escapes what is shown to people.
//! - Every directory that an entry lies in has an entry. So nothing lies below a file or a link, and a getter makes
//!   directories in the order of the index.
//! - A link's target is not empty and not absolute, has at most 4,096 bytes in 64 components of 255, and is kept as
//!   it is; `.` and double slashes in it mean nothing. Followed by its text from the link's directory on, it never
//!   leaves the root. What it names need not exist.
//! - That text has to be true. No component but the last may be a link of the bundle, and a `..` stands at the
//!   beginning or behind what is listed as a directory. So a target means the same on a file system that takes
//!   two spellings of a name for one. The last component may be a link: that one is judged by itself.
//! - Names that differ only in case may stand beside each other; [`same_but_for_case`] finds them for a getter whose
//!   file system can't tell them apart.
//! - At most 2^20 entries, 64 MiB of index, and 2^42 bytes of bundle: what a swarm takes.
//!
//! # In code
//!
//! ```
//! use relay_protocol::bundle::{Decoded, Entry, Index, Kind, PieceOf};
//!
//! let file = |path, size_bytes| Entry {
//!     path,
//!     kind: Kind::File { size_bytes, is_executable: false },
//!     preserved: None,
//! };
//! let docs = Entry { path: b"docs", kind: Kind::Directory, preserved: None };
//! let index = Index::new(vec![file(b"docs/b", 7), file(b"a", 5), docs])?;
//! let bundle = [index.header(), b"hello", b"goodbye"].concat();
//!
//! // A getter has the first chunks. They may be too few to hold the index.
//! let size_bytes = bundle.len() as u64;
//! let Decoded::Needs { prefix_bytes } = Index::decode(&bundle[..9], size_bytes)? else { panic!() };
//! assert_eq!(prefix_bytes, 13);
//! let Decoded::Whole(read) = Index::decode(&bundle, size_bytes)? else { panic!() };
//! assert_eq!(read, index);
//!
//! // The last ten bytes are the end of one file, and another.
//! let pieces: Vec<_> = index.pieces(size_bytes - 10..size_bytes).collect();
//! assert_eq!((pieces[0].of, pieces[0].bytes.clone()), (PieceOf::File(0), 2..5));
//! assert_eq!((pieces[1].of, pieces[1].bytes.clone()), (PieceOf::File(2), 0..7));
//! # Ok::<(), relay_protocol::bundle::BundleError>(())
//! ```

mod case;
mod check;
mod entry;
mod error;
mod glob;
mod index;
mod shown;
mod table;

pub use self::{
    case::same_but_for_case,
    entry::{Entry, Kind, MODE_BITS, OWNER_EXECUTES, Preserved},
    error::{BundleError, EntryFault, LinkFault},
    glob::{Glob, GlobError},
    index::{Counts, Decoded, Index, Piece, PieceOf},
    shown::shown_path,
    table::PREFACE_BYTES,
};

#[cfg(test)]
mod tests;
