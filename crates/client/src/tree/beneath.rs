//! Opens what lies beneath a directory, and nothing else: no link is followed, also if another process puts one there
//! meanwhile.
//!
//! Linux has one call for that, `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`. Where it is not (older kernels,
//! some containers) the directories are opened one after another, none of which may be a link: slower, and no less safe.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

/// Flags of a directory that is only passed through.
const PASSED: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Set once the system has refused to do it in one call.
static WALKS: AtomicBool = AtomicBool::new(false);

/// Opens what the path names beneath `root`: components with slashes between, none of which is `..`.
///
/// # Errors
/// The system's. A link on the way is [`Errno::LOOP`] or [`Errno::NOTDIR`].
pub fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !WALKS.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match openat2(root, OsStr::from_bytes(path), flags, mode, resolve) {
                // A rename elsewhere in the file system came between: the kernel asks for another try.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => break WALKS.store(true, Ordering::Relaxed),
                // Of a sandbox that does not know the call, or of the file: walking tells.
                Err(Errno::PERM) => break,
                opened => return Ok(opened?),
            }
        }
    }
    walk(root, path, flags, mode)
}

/// The directory that the last component of a path lies in, and that component.
///
/// # Errors
/// As [`open_beneath`].
pub fn parent_beneath<'a>(
    root: BorrowedFd<'_>,
    path: &'a [u8],
) -> io::Result<(OwnedFd, &'a OsStr)> {
    let (parent, name) = split(path);
    let parent = if parent.is_empty() { &b"."[..] } else { parent };
    Ok((open_beneath(root, parent, PASSED, Mode::empty())?, OsStr::from_bytes(name)))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

fn walk(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let (parent, name) = split(path);
    let mut at: Option<OwnedFd> = None;
    for component in parent.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(open_one(from, component, PASSED, Mode::empty())?);
    }
    open_one(at.as_ref().map_or(root, AsFd::as_fd), name, flags, mode)
}

fn open_one(at: BorrowedFd<'_>, name: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    if name == b".." {
        return Err(Errno::XDEV.into());
    }
    loop {
        match openat(at, OsStr::from_bytes(name), flags, mode) {
            Err(Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use super::*;

    type Open = fn(BorrowedFd<'_>, &[u8], OFlags, Mode) -> io::Result<OwnedFd>;

    /// In one call, and step by step.
    const BOTH: [Open; 2] = [open_beneath, |root, path, flags, mode| {
        walk(root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
    }];

    #[test]
    fn what_lies_beneath_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "there").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        for open in BOTH {
            let mut text = String::new();
            let opened = open(root.as_fd(), b"a/b/c", OFlags::RDONLY, Mode::empty()).unwrap();
            fs::File::from(opened).read_to_string(&mut text).unwrap();
            assert_eq!(text, "there");
            let error = open(root.as_fd(), b"a/x/c", OFlags::RDONLY, Mode::empty()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let error = open(root.as_fd(), b"a/b/c", flags, Mode::RUSR).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        let (parent, name) = parent_beneath(root.as_fd(), b"a/b/c").unwrap();
        assert_eq!(name, "c");
        assert!(open_one(parent.as_fd(), b"c", OFlags::RDONLY, Mode::empty()).is_ok());
        assert_eq!(parent_beneath(root.as_fd(), b"a").unwrap().1, "a");
    }

    #[test]
    fn nothing_else_is_opened_or_made() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("x"), "precious").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        symlink(outside.path(), dir.path().join("away")).unwrap();
        symlink(outside.path().join("x"), dir.path().join("link")).unwrap();
        symlink("d", dir.path().join("inside")).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let up = format!("../{}/x", outside.path().file_name().unwrap().display());
        for open in BOTH {
            for path in ["away/x", "away/new", "link", "inside/new", "d/../../x", &up] {
                for flags in [OFlags::RDONLY, OFlags::WRONLY | OFlags::CREATE] {
                    let opened = open(root.as_fd(), path.as_bytes(), flags, Mode::RUSR);
                    assert!(opened.is_err(), "{path} {flags:?}");
                }
            }
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 0);
    }
}
