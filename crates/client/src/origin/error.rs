//! Why something can't be shared, in words for people.

use std::{io, path::PathBuf};

use relay_units::{bytes_text, count_text};

use crate::{hashing::HashError, tree::walk::WalkError};

/// Why something can't be shared.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Stdin, where only what has a name can be shared.
    #[error(
        "- is stdin, which peer share takes by itself alone: write it to a file first (one that is called - is \
         named ./-)"
    )]
    Stdin,
    /// It can't be opened.
    #[error("failed to open {path}: {error}: check its name, and that this user may read it")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is nothing that has a size and stays.
    #[error(
        "{path} is {what}, and only files, directories and block devices can be shared: write it to a file first"
    )]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// What is in a directory can't be shared.
    #[error("failed to share {of}: {error}")]
    Walk {
        /// The directory, or several paths.
        of: String,
        /// Why not.
        error: WalkError,
    },
    /// It can't be digested.
    #[error("failed to hash {of}: {error}")]
    Hash {
        /// What was to be shared.
        of: String,
        /// What kept it from being hashed.
        error: HashError,
    },
    /// It has another end than the system states.
    #[error(
        "{of} holds {how} than the {} that the system states: it is being written, or made while it is \
         read, as files in /proc are: copy it to another file first, and name that",
        count_text(*size_bytes, "byte")
    )]
    Misstated {
        /// The file.
        of: String,
        /// "more" or "less".
        how: &'static str,
        /// Its length, as the system states it.
        size_bytes: u64,
    },
    /// It changed before it was digested to its end.
    #[error("{0} changed while it was hashed: wait until it is written, then share it again")]
    Changing(String),
    /// It is to be shared as another one.
    #[error(
        "{0} is not what the ticket names: its content differs; peer check {0} TICKET says where"
    )]
    Another(String),
    /// It needs larger chunks than the relay takes.
    #[error(
        "{of} has {size} and needs chunks of {wanted}, but this relay's cache takes chunks of \
         at most {most}: give the relay more --cache",
        size = bytes_text(*size_bytes),
        wanted = bytes_text(1 << wanted_log2),
        most = bytes_text(1 << most_log2)
    )]
    TooLarge {
        /// What was to be shared.
        of: String,
        /// Its size.
        size_bytes: u64,
        /// Chunk size that it needs.
        wanted_log2: u8,
        /// Chunk size that the relay takes.
        most_log2: u8,
    },
}
