//! One entry of an index, and its bytes. Whether entries go together is not known here.

use serde::{Deserialize, Serialize, Serializer};

/// The permissions that a bundle keeps: reading, writing and executing, for owner, group and others. What lets a
/// program run as another user (set-user-id, set-group-id) is nothing to take from a stranger.
pub const MODE_BITS: u16 = 0o777;

/// The permission that makes a file executable here: its owner's.
pub const OWNER_EXECUTES: u16 = 0o100;

/// Something that a bundle holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Components, from the bundle's root on, with slashes between.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// What is kept of it besides, if the bundle keeps that: of all entries or of none.
    pub preserved: Option<Preserved>,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its size.
        size_bytes: u64,
        /// Its owner may execute it.
        is_executable: bool,
    },
    /// A symbolic link.
    Link {
        /// What it holds, relative to the directory that it lies in.
        #[serde(serialize_with = "as_bytes")]
        target: &'a [u8],
    },
}

impl Kind<'_> {
    /// Bytes of the bundle that are its own.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match *self {
            Self::File { size_bytes, .. } => size_bytes,
            Self::Directory | Self::Link { .. } => 0,
        }
    }
}

/// What `--preserve` keeps of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Preserved {
    /// Permissions: those of [`MODE_BITS`]. An encoder drops other bits, and takes all of them for a link.
    pub mode: u16,
    /// When it was modified: seconds since 1970 began, or before that.
    pub modified_secs: i64,
    /// Nanoseconds that go on top, less than a second of them.
    pub modified_nanos: u32,
}

/// An entry of a plain bundle, as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Plain<'a>(#[serde(serialize_with = "as_bytes")] &'a [u8], #[serde(borrow)] Kind<'a>);

/// An entry of a bundle that keeps mode and time, as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Preserving<'a>(
    #[serde(serialize_with = "as_bytes")] &'a [u8],
    #[serde(borrow)] Kind<'a>,
    Preserved,
);

/// The same bytes as a list of them, at once.
fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Adds the bytes of an entry.
pub(super) fn write(entry: &Entry<'_>, bytes: Vec<u8>) -> Vec<u8> {
    let Entry { path, kind, preserved } = *entry;
    let written = match preserved {
        None => postcard::to_extend(&Plain(path, kind), bytes),
        Some(preserved) => postcard::to_extend(&Preserving(path, kind, preserved), bytes),
    };
    written.expect("plain fields can be encoded")
}

/// The entry that begins here, and the bytes behind it; nothing if there is none. Its numbers may be longer than
/// [`write`] makes them.
pub(super) fn read(bytes: &[u8], is_preserving: bool) -> Option<(Entry<'_>, &[u8])> {
    if is_preserving {
        let (Preserving(path, kind, preserved), rest) = postcard::take_from_bytes(bytes).ok()?;
        return Some((Entry { path, kind, preserved: Some(preserved) }, rest));
    }
    let (Plain(path, kind), rest) = postcard::take_from_bytes(bytes).ok()?;
    Some((Entry { path, kind, preserved: None }, rest))
}
