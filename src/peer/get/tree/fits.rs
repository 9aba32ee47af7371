//! Whether a file system can hold what a bundle lists: names that differ only in case, names that are too long, too
//! many files. Found out before anything is written there.

use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt as _};

use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat},
    io::Errno,
};

use super::bundle::Bundle;
use crate::protocol::bundle::{Index, shown_path};

/// Is made for a moment, to be looked for as [`PROBE_OTHERWISE`]. Differs from what a bundle may hold by its dots only in
/// chance; one that does is no harm.
const PROBE: &str = ".relay-probe-of-Case";

/// The same in another case.
const PROBE_OTHERWISE: &str = ".RELAY-PROBE-OF-cASE";

/// Whether this directory, which is new or another get's, can hold what is selected.
///
/// # Errors
/// A sentence for the user, with the entry's name.
pub(super) fn check(directory: &File, bundle: &Bundle, is_new: bool) -> Result<(), String> {
    let (index, selected) = (&*bundle.index, bundle.selected.as_deref());
    if let Some((one, other)) = twins(index, selected)
        && ignores_case(directory)?
    {
        return Err(format!(
            "the bundle's entries \"{}\" and \"{}\" differ only in case, and the file system there takes them for \
             one: choose a place on another one with -o, or get one of them with --only",
            shown(index, one),
            shown(index, other)
        ));
    }
    let Ok(system) = rustix::fs::fstatvfs(directory) else { return Ok(()) };
    if let Some(number) = too_long(index, selected, system.f_namemax) {
        return Err(format!(
            "the bundle's entry \"{}\" has a longer name than the file system there takes, which is {} bytes: choose a \
             place on another one with -o",
            shown(index, number),
            system.f_namemax
        ));
    }
    let count = selected.map_or(index.len(), |selected| selected.iter().filter(|&&is| is).count());
    // A file system that does not count files has room for them. Of those that another get made, some are there.
    if is_new && system.f_files > 0 && system.f_favail < count as u64 {
        return Err(format!(
            "the file system there has room for {} more files and directories, and {count} are to come: remove some, \
             or choose a place on another one with -o",
            system.f_favail
        ));
    }
    Ok(())
}

fn shown(index: &Index, number: usize) -> String {
    index.entry(number).map_or_else(String::new, |entry| shown_path(entry.path))
}

/// Two entries that are wanted, and differ only in case.
fn twins(index: &Index, selected: Option<&[bool]>) -> Option<(usize, usize)> {
    let is_wanted = |number: usize| selected.is_none_or(|selected| selected[number]);
    index.same_but_for_case().into_iter().find(|&(one, other)| is_wanted(one) && is_wanted(other))
}

/// An entry that is wanted, and has a longer name than this. 0 is no limit.
fn too_long(index: &Index, selected: Option<&[bool]>, most: u64) -> Option<usize> {
    let is_too_long = |path: &[u8]| {
        let mut names = path.split(|&byte| byte == b'/');
        most > 0 && names.any(|name| name.len() as u64 > most)
    };
    let entries = index.entries().enumerate();
    let mut wanted = entries.filter(|&(at, _)| selected.is_none_or(|selected| selected[at]));
    wanted.find(|(_, entry)| is_too_long(entry.path)).map(|(number, _)| number)
}

/// Whether a file is found under a name in another case.
fn ignores_case(directory: &File) -> Result<bool, String> {
    let failed = |error: Errno| format!("could not find out whether case counts there: {error}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, PROBE, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let found = statat(directory, PROBE_OTHERWISE, AtFlags::SYMLINK_NOFOLLOW);
    unlinkat(directory, OsStr::from_bytes(PROBE.as_bytes()), AtFlags::empty()).map_err(failed)?;
    match found {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::bundle::{Entry, Kind};

    #[test]
    fn twins_and_long_names_count_only_if_they_are_wanted() {
        let long = [b'x'; 200];
        let paths: [&[u8]; 4] = [b"README", b"a", b"readme", &long];
        let file = Kind::File { size_bytes: 0, is_executable: false };
        let entries = paths.map(|path| Entry { path, kind: file, preserved: None }).to_vec();
        let index = Index::new(entries).unwrap();
        assert_eq!(twins(&index, None), Some((0, 2)));
        assert_eq!(twins(&index, Some(&[true, true, false, true])), None);
        assert_eq!(too_long(&index, None, 143), Some(3));
        assert_eq!(too_long(&index, Some(&[true, true, true, false]), 143), None);
        assert_eq!((too_long(&index, None, 255), too_long(&index, None, 0)), (None, None));
    }

    #[test]
    fn the_file_system_is_asked_whether_case_counts_and_nothing_is_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let directory = File::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("x"), "").unwrap();
        let is_found = dir.path().join("X").exists();
        assert_eq!(ignores_case(&directory), Ok(is_found));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
