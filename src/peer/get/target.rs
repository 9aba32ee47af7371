//! Where a file that is got goes: from what the user says and from what the ticket calls it.
//!
//! A ticket's name is data that a stranger wrote: it names a file in one directory, and nothing
//! else. What the user writes is taken as it is. Creates nothing.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use crate::protocol::{
    check_name,
    name::{INDEX_SUFFIX, MANIFEST_SUFFIX, PART_SUFFIX, beside_name},
    shown_name,
};

/// Bytes of a file name that every usual file system takes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Characters of a ticket's name that is refused, in the words that say so.
const NAME_SHOWN_CHARS: usize = 60;

/// Where the bytes go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// In order to stdout.
    Stdout,
    /// Into a file, or a directory.
    File(FileTarget),
}

/// A file or directory, and what lies beside it while it is not whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileTarget {
    path: PathBuf,
}

impl FileTarget {
    /// At this path.
    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The finished file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is here of it until then.
    pub(crate) fn part_path(&self) -> PathBuf {
        self.beside(PART_SUFFIX)
    }

    /// The digests of what is to be there.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.beside(&format!("{PART_SUFFIX}{MANIFEST_SUFFIX}"))
    }

    /// Of a directory, the chunks that hold its index.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.beside(&format!("{PART_SUFFIX}{INDEX_SUFFIX}"))
    }

    /// Where a directory that was replaced is removed: no other get uses that name.
    pub(crate) fn replaced_path(&self) -> PathBuf {
        self.beside(&format!(".replaced-{}", std::process::id()))
    }

    /// The directory of all of them.
    pub(crate) fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let name = beside_name(name.as_bytes(), suffix, FILE_NAME_BYTES_MAX);
        self.path.with_file_name(OsString::from_vec(name))
    }
}

/// Finds out where the file goes.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn resolve(output: Option<&Path>, name: &str) -> Result<Target, String> {
    let Some(output) = output else {
        return Ok(Target::File(FileTarget { path: PathBuf::from(checked(name)?) }));
    };
    if output.as_os_str() == "-" {
        return Ok(Target::Stdout);
    }
    if output.as_os_str().is_empty() {
        return Err("-o is empty: give a directory, a file name, or - for stdout".into());
    }
    let is_directory = output.is_dir();
    if is_directory {
        return Ok(Target::File(FileTarget { path: output.join(checked(name)?) }));
    }
    let ends_like_a_directory =
        output.as_os_str().as_encoded_bytes().ends_with(b"/") || output.file_name().is_none();
    if ends_like_a_directory {
        return Err(format!(
            "there is no directory {}: make it, or give a file name with -o",
            output.display()
        ));
    }
    let target = FileTarget { path: output.to_owned() };
    let directory = target.directory();
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let directory = directory.display();
            return Err(format!("{directory} is not a directory: choose another place with -o"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory.display();
            return Err(format!("there is no directory {directory}: make it, or choose another"));
        }
        Err(error) => {
            return Err(format!("could not look into {}: {error}", directory.display()));
        }
    }
    let bytes = target.path.file_name().unwrap_or_default().len();
    if bytes > FILE_NAME_BYTES_MAX {
        return Err(format!(
            "a file name of {bytes} bytes is too long, {FILE_NAME_BYTES_MAX} are the most: choose a shorter \
             one"
        ));
    }
    Ok(Target::File(target))
}

/// The ticket's name, if it can be nothing but the name of a file in a directory.
fn checked(name: &str) -> Result<&str, String> {
    check_name(name).map_err(|fault| {
        // It may hold anything: nothing of it reaches the terminal as it is.
        let begin: String = shown_name(name).chars().take(NAME_SHOWN_CHARS).collect();
        format!("the ticket calls its file '{begin}', which {fault}: choose a name with -o")
    })?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(output: Option<&Path>, name: &str) -> PathBuf {
        match resolve(output, name).unwrap() {
            Target::File(target) => target.path,
            Target::Stdout => panic!("not to stdout"),
        }
    }

    #[test]
    fn a_name_from_a_ticket_stays_in_its_directory() {
        let long = "x".repeat(300);
        for name in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "../x",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\x1b[2J",
            "-",
            "-rf",
            " x",
            "x ",
            "x.part",
            "x.part.manifest",
            "a\u{202e}b",
            "a\u{200b}",
            &long,
        ] {
            let error = resolve(None, name).unwrap_err();
            assert!(error.contains("with -o"), "{name:?}: {error}");
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
        let longest = "x".repeat(255);
        for name in ["x", ".hidden", "ä ö.txt", "a..b", "日本", "x.part1", &longest] {
            assert_eq!(path(None, name), Path::new(name));
        }
    }

    #[test]
    fn what_the_user_says_is_a_directory_a_file_or_stdout() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(Some(Path::new("-")), "x"), Ok(Target::Stdout));
        assert_eq!(path(Some(dir.path()), "x"), dir.path().join("x"));
        let named = dir.path().join("-y.part");
        assert_eq!(path(Some(&named), "../x"), named, "the ticket's name does not matter then");
        assert!(resolve(Some(dir.path()), "../x").is_err());
        let gone = dir.path().join("gone");
        let slash = PathBuf::from(format!("{}/", gone.display()));
        for output in [&slash, &gone.join("x"), &gone.join("..")] {
            let error = resolve(Some(output), "x").unwrap_err();
            assert!(error.contains("there is no directory"), "{error}");
        }
        assert!(resolve(Some(Path::new("")), "x").is_err());
    }

    #[test]
    fn what_is_not_whole_lies_beside_the_target() {
        let target = FileTarget { path: PathBuf::from("d/x.iso") };
        assert_eq!(target.part_path(), Path::new("d/x.iso.part"));
        assert_eq!(target.manifest_path(), Path::new("d/x.iso.part.manifest"));
        assert_eq!(target.index_path(), Path::new("d/x.iso.part.index"));
        assert_eq!(target.directory(), Path::new("d"));
        assert_eq!(FileTarget { path: PathBuf::from("x") }.directory(), Path::new("."));
        let target = FileTarget { path: Path::new("d").join("x".repeat(255)) };
        for path in [target.part_path(), target.manifest_path(), target.index_path()] {
            let name = path.file_name().unwrap_or_default();
            assert!(name.len() <= 255 && path.parent() == Some(Path::new("d")), "{path:?}");
        }
        assert_ne!(target.part_path(), target.manifest_path());
    }
}
