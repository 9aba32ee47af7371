//! Removes what lies beneath a directory, with all that is in it. Follows no link, and enters directories that their owner
//! may not write, as trees that keep their modes have them.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, unlinkat},
    io::Errno,
};

use super::{
    beneath::{open_beneath, parent_beneath},
    listing::{join, list},
    named,
};

/// What an owner needs to list a directory, and to make and remove what is in it.
const OWNER_ALTERS: u32 = 0o700;

/// Removes what this path names beneath `root`, whatever it is. What is not there is removed.
///
/// # Errors
/// The system's, with the path. What could be removed before is.
pub fn remove_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let mut ahead = vec![path.to_vec()];
    while let Some(path) = ahead.last().cloned() {
        if remove_one(root, &path).map_err(|error| named(&path, &error))? {
            ahead.pop();
            continue;
        }
        // What can't be permitted is refused below.
        permit(root, &path).ok();
        let mut below = Vec::new();
        list(root, &path, &mut |name, kind| {
            let path = join(&path, name);
            if kind == FileType::Directory {
                below.push(path);
                return Ok(());
            }
            let (parent, name) = parent_beneath(root, &path)?;
            unlinkat(parent, name, AtFlags::empty()).map_err(|error| named(&path, &error.into()))
        })?;
        ahead.append(&mut below);
    }
    Ok(())
}

/// Whether it could be removed as it is: a directory that holds something is not.
fn remove_one(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    let (parent, name) = parent_beneath(root, path)?;
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // Linux and POSIX differ in what they say of a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lets the owner of a directory alter what is in it.
///
/// # Errors
/// The system's: this user is not its owner.
pub(super) fn permit(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    // A directory that may not be read can't be opened otherwise.
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = open_beneath(root, path, flags, Mode::empty())?;
    let mode = fstat(&directory)?.st_mode & 0o7777;
    if mode & OWNER_ALTERS == OWNER_ALTERS {
        return Ok(());
    }
    // By the descriptor: what its path names may be a link by now.
    let opened = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mode = Mode::from_raw_mode(mode | OWNER_ALTERS);
    Ok(chmodat(CWD, opened, mode, AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    };

    use super::*;

    #[test]
    fn directories_that_may_not_be_written_are_removed_with_all_that_is_in_them() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("precious"), "precious").unwrap();
        fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
        fs::write(dir.path().join("t/a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("t/a/away")).unwrap();
        for (name, mode) in [("t/a/b", 0o000), ("t/a", 0o555), ("t", 0o500)] {
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        let root = fs::File::open(dir.path()).unwrap();
        remove_beneath(root.as_fd(), b"t").unwrap();
        remove_beneath(root.as_fd(), b"t").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_permitted_to_its_owner_and_nothing_else_is_altered() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("d")).unwrap();
        let mode_of =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let before = mode_of(outside.path());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("away")).unwrap();
        fs::set_permissions(dir.path().join("d"), Permissions::from_mode(0o055)).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        permit(root.as_fd(), b"d").unwrap();
        assert_eq!(mode_of(&dir.path().join("d")), 0o755);
        assert!(permit(root.as_fd(), b"away").is_err());
        assert_eq!(mode_of(outside.path()), before);
    }
}
