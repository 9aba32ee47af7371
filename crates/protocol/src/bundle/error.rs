//! What can be wrong with a bundle, in words for people. Paths and targets in them may be shown: what doesn't show
//! is escaped.

use super::shown::shown_path;
use crate::limits::{
    BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_INDEX_BYTES_MAX, BUNDLE_LEVELS_MAX,
    BUNDLE_NAME_BYTES_MAX, BUNDLE_PATH_BYTES_MAX, BUNDLE_VERSION,
};

/// Why bytes are no bundle, or entries make none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// It is something else.
    #[error("this is no bundle: it begins otherwise")]
    NotABundle,
    /// A newer program wrote it.
    #[error("the bundle is of version {0}, this program reads version {BUNDLE_VERSION}")]
    Version(u8),
    /// The index is longer than any may be.
    #[error("the bundle's index has {0} bytes, and may have {BUNDLE_INDEX_BYTES_MAX}")]
    IndexTooLong(usize),
    /// The index reaches beyond the end.
    #[error("the bundle has {is_bytes} bytes, and its index alone would need {needed_bytes}")]
    Cut {
        /// What the bundle has.
        is_bytes: u64,
        /// What it would have at least.
        needed_bytes: usize,
    },
    /// There are more entries than may be.
    #[error("the bundle has {0} entries, and may have {BUNDLE_ENTRIES_MAX}")]
    TooManyEntries(usize),
    /// What stands before the first entry can't be read.
    #[error("the beginning of the bundle's index can't be read")]
    Beginning,
    /// An entry is cut, or of no known kind.
    #[error("entry {0} of the bundle's index can't be read")]
    Unreadable(usize),
    /// An entry, by its number, is not written in the one way that there is.
    #[error("entry {0} of the bundle's index is not written in the shortest form")]
    NotShortest(usize),
    /// Bytes follow the last entry.
    #[error("{0} bytes of the bundle's index belong to no entry")]
    Trailing(usize),
    /// No swarm takes it.
    #[error("the bundle would have more than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    /// The index tells of another bundle.
    #[error("the bundle has {is_bytes} bytes, and by its index it would have {index_bytes}")]
    Size {
        /// What the bundle has.
        is_bytes: u64,
        /// What the index says.
        index_bytes: u64,
    },
    /// Some entries keep mode and time, others don't. Only an encoder can meet this.
    #[error("some entries keep mode and time, and \"{0}\" does not go with them")]
    Mixed(String),
    /// An entry may not be as it is.
    #[error("the bundle's entry \"{path}\" {fault}")]
    Entry {
        /// Its path, as it may be shown.
        path: String,
        /// What is wrong.
        fault: EntryFault,
    },
    /// A link may not lead where it does.
    #[error("the bundle's link \"{path}\" to \"{target}\" {fault}")]
    Link {
        /// Its path, as it may be shown.
        path: String,
        /// Its target, as it may be shown.
        target: String,
        /// What is wrong.
        fault: LinkFault,
    },
}

impl BundleError {
    pub(super) fn entry(path: &[u8], fault: EntryFault) -> Self {
        Self::Entry { path: shown_path(path), fault }
    }

    pub(super) fn link(path: &[u8], target: &[u8], fault: LinkFault) -> Self {
        Self::Link { path: shown_path(path), target: shown_path(target), fault }
    }
}

/// What is wrong with an entry, so that it fits "the entry PATH ..".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryFault {
    /// Its path is empty.
    #[error("names nothing")]
    Empty,
    /// Its path begins with a slash.
    #[error("has an absolute path, and a bundle's paths are relative")]
    Absolute,
    /// Two slashes follow one another, or one is the last byte.
    #[error("has an empty component in its path")]
    EmptyComponent,
    /// A component is a dot.
    #[error("has the component \".\" in its path")]
    Dot,
    /// A component is two dots.
    #[error("has the component \"..\" in its path, which could lead out of the bundle")]
    DotDot,
    /// It would steer a terminal, or end a name early.
    #[error("has a control character in its path")]
    Control,
    /// The path is longer than Linux takes.
    #[error("has a path of {0} bytes, and {BUNDLE_PATH_BYTES_MAX} are the most")]
    PathTooLong(usize),
    /// A component is longer than file systems take.
    #[error("has a component of {0} bytes in its path, and {BUNDLE_NAME_BYTES_MAX} are the most")]
    NameTooLong(usize),
    /// There are more components than may be.
    #[error("lies {0} levels deep, and {BUNDLE_LEVELS_MAX} are the most")]
    TooDeep(usize),
    /// It sorts before the entry that stands before it.
    #[error("stands behind an entry that sorts after it")]
    Unsorted,
    /// Two entries have this path.
    #[error("is there twice")]
    Twice,
    /// The directory that it lies in has no entry.
    #[error("lies in a directory that the bundle does not list")]
    NoParent,
    /// What it lies in is a file.
    #[error("lies below a file")]
    BelowFile,
    /// What it lies in is a link.
    #[error("lies below a symbolic link, which could lead elsewhere")]
    BelowLink,
    /// More than the permissions of owner, group and others, or a link that does not have all of them.
    #[error("has the mode {0:o}, which no bundle keeps")]
    Mode(u16),
    /// The mode says otherwise whether the owner may execute it.
    #[error("is executable by its mode or by its mark, and not by both")]
    Executable,
    /// A second has fewer nanoseconds.
    #[error("has a time of modification with {0} nanoseconds")]
    Nanoseconds(u32),
}

/// What is wrong with a symbolic link, so that it fits "the link PATH to TARGET ..".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkFault {
    /// There is no target.
    #[error("leads nowhere")]
    Empty,
    /// The target begins with a slash.
    #[error("is absolute, and leads out of the bundle")]
    Absolute,
    /// The target would steer a terminal, or end early.
    #[error("has a control character in its target")]
    Control,
    /// The target is longer than Linux takes.
    #[error("has a target of {0} bytes, and {BUNDLE_PATH_BYTES_MAX} are the most")]
    TargetTooLong(usize),
    /// A component of the target is longer than file systems take.
    #[error("has a component of {0} bytes in its target, and {BUNDLE_NAME_BYTES_MAX} are the most")]
    NameTooLong(usize),
    /// The target has more components than may be.
    #[error("has a target of {0} components, and {BUNDLE_LEVELS_MAX} are the most")]
    TooDeep(usize),
    /// More levels up than there are.
    #[error("leads out of the bundle")]
    LeavesTree,
    /// Another link is on the way.
    #[error("leads through the symbolic link \"{0}\", so that it may end elsewhere than it says")]
    ThroughLink(String),
    /// Two dots stand behind a name that is no directory of the bundle.
    #[error("goes up from \"{0}\", which is no directory of the bundle")]
    UpFromNoDirectory(String),
}
