//! What lies in a directory beneath a tree's root, by name and kind.

use std::{
    ffi::OsStr,
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, statat};

use super::beneath::open_beneath;

/// What a reader of directories needs: no link, no waiting for a pipe.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK);

/// The path of what has this name in a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Tells of all that lies in this directory, by name and kind.
pub(super) fn list(
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
