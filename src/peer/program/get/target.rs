//! Where a file that is got goes: from what the user says and from what the ticket calls it.
//!
//! A ticket's name is data that a stranger wrote: it names a file in one directory, and nothing
//! else. What the user writes himself is taken as it is. Creates nothing.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Follows the target's name while it is not whole.
const PART: &str = ".part";

/// Follows the partial file's name: the list of its digests.
const MANIFEST: &str = ".manifest";

/// Bytes of a file name that every usual file system takes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Where the bytes go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// In order to stdout.
    Stdout,
    /// Into a file.
    File(FileTarget),
}

/// A file, and the two beside it that are there while it is not whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileTarget {
    path: PathBuf,
}

impl FileTarget {
    /// The finished file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is here of it until then.
    pub(crate) fn part_path(&self) -> PathBuf {
        self.beside(PART)
    }

    /// The digests of what is to be there.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.beside(&format!("{PART}{MANIFEST}"))
    }

    /// The directory of all three.
    pub(crate) fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(self.path.file_name().unwrap_or_default());
        name.push(suffix);
        self.path.with_file_name(name)
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
    if bytes > FILE_NAME_BYTES_MAX - PART.len() - MANIFEST.len() {
        return Err(format!("a file name of {bytes} bytes is too long: choose a shorter one"));
    }
    Ok(Target::File(target))
}

/// The ticket's name, if it can be nothing but the name of a file in a directory.
fn checked(name: &str) -> Result<&str, String> {
    let refuse = |why: &str| {
        // It may hold anything: nothing of it reaches the terminal as it is.
        let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        Err(format!("the ticket calls its file '{shown}', which {why}: choose a name with -o"))
    };
    if name.is_empty() {
        return refuse("is no name");
    }
    if name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return refuse("names more than a file in this directory");
    }
    if name.chars().any(|char| char.is_control() || is_invisible(char)) {
        return refuse("holds characters that don't show");
    }
    if name.starts_with('-') {
        return refuse("looks like an option to other programs");
    }
    if name.trim() != name {
        return refuse("begins or ends with a space");
    }
    if name.ends_with(PART) || name.ends_with(&format!("{PART}{MANIFEST}")) {
        return refuse("could be taken for an unfinished download");
    }
    if name.len() > FILE_NAME_BYTES_MAX - PART.len() - MANIFEST.len() {
        return refuse("is too long");
    }
    Ok(name)
}

/// Characters that change how others are shown, or take no room: names that differ must look
/// different.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    )
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
        for name in ["x", "movie.mkv", ".hidden", "ä ö.txt", "a..b", "日本", "x.part1"] {
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
        assert_eq!(target.directory(), Path::new("d"));
        assert_eq!(FileTarget { path: PathBuf::from("x") }.directory(), Path::new("."));
    }
}
