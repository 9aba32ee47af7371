//! Files of secrets that a program makes once and then keeps: where they are, who may read them, and how two first
//! starts at once agree on one. Knows nothing of what a secret is for, and no message says anything of one.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, Permissions},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use crate::places::state_directory;

/// Bytes of a file, at most: some times what the longest private key in PEM has (RSA with 8192 bits, 6.4 KB). A
/// file of another kind is not read whole.
pub const FILE_BYTES_MAX: usize = 32 * 1024;

/// What is too much for others of a file: to read or to write it.
const TOO_MUCH: u32 = 0o066;

/// What is too much for others of a file that root owns: its group may read it, and no more.
const TOO_MUCH_OF_ROOTS: u32 = 0o026;

/// A directory of secrets, for its owner.
const DIRECTORY_MODE: u32 = 0o700;

/// A file of secrets, for its owner.
const FILE_MODE: u32 = 0o600;

/// The content of a file: what it holds, or, if it is not there, what `make` makes, which it holds from then on.
/// Of several that make one at once, each gets the content of the one that was first.
///
/// The file is `given`, or `name` in [`state_directory`]. `what` is what the file holds, for messages, with its
/// article (`the secret of shares`); `option` is the option by which a user gives a file (`--secret-file`).
///
/// # Errors
/// A sentence for the user: the file can't be read or made, or others may read it, and what to do.
pub fn open(
    given: Option<&Path>,
    name: &str,
    what: &str,
    option: &str,
    make: &mut dyn FnMut() -> io::Result<Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let path = path_of(given, name, what, option)?;
    let file = SecretFile { path: &path, what, option };
    if let Some(content) = file.read()? {
        return Ok(content);
    }
    let content = make().map_err(|error| format!("failed to make {what}: {error}"))?;
    file.put(&content).map_err(|fault| file.not_made(&fault))?;
    // Another may have been first: what counts is what lies there.
    file.read()?.ok_or_else(|| {
        let path = path.display();
        format!(
            "failed to read {what} from {path}: it is a link to a file that is not there, or was removed just \
             now: remove the link, or give {option} another file"
        )
    })
}

/// The content of a file, if it is there: as [`open`], but makes nothing.
///
/// # Errors
/// A sentence for the user: the file can't be read, others may read it, or it has no place.
pub fn look(
    given: Option<&Path>,
    name: &str,
    what: &str,
    option: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let path = path_of(given, name, what, option)?;
    SecretFile { path: &path, what, option }.read()
}

fn path_of(given: Option<&Path>, name: &str, what: &str, option: &str) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    state_directory().map(|directory| directory.join(name)).ok_or_else(|| {
        format!(
            "there is no place to keep {what}: neither XDG_STATE_HOME nor HOME is set to an absolute path: \
             set one of them, or give {option} FILE"
        )
    })
}

/// Makes a directory for its owner alone, and those above it that are not there. Whatever the process's umask is.
///
/// # Errors
/// The system's, and the directory that it is about.
pub(crate) fn make_directories(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent();
    if let Some(parent) = parent {
        make_directories(parent)?;
    }
    let made = DirBuilder::new().mode(DIRECTORY_MODE).create(path);
    let made = made.and_then(|()| {
        // A umask may have taken even the owner's rights.
        std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
        sync_directory(parent)
    });
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|error| (path.to_owned(), error)),
    }
}

/// Waits until the names in a directory are on disk.
fn sync_directory(path: Option<&Path>) -> io::Result<()> {
    let path = path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(".".as_ref());
    match File::open(path)?.sync_all() {
        // Some file systems keep no names to be written, and say so.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        synced => synced,
    }
}

/// Whether a file of this owner with these permissions is as secret as a secret should be.
///
/// Container runtimes mount secrets that root owns and that a group may read (0440, a pod's `fsGroup`), and run the
/// program as another account of that group: it reads the file by that right alone, and can't change it. Root chose
/// the group, and only root can change the file, so it is taken. All may read what is mounted with a runtime's
/// default (0444, 0644): that is refused, as every account in the container could read it.
fn is_for_few(owner: u32, mode: u32) -> bool {
    mode & if owner == 0 { TOO_MUCH_OF_ROOTS } else { TOO_MUCH } == 0
}

/// One file, and what messages say of it.
struct SecretFile<'a> {
    path: &'a Path,
    what: &'a str,
    option: &'a str,
}

/// Why a file could not be made: where, doing what.
struct Fault {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl SecretFile<'_> {
    /// What the file holds; `None` if it is not there.
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let Self { what, option, .. } = *self;
        let path = self.path.display();
        let unreadable = |error: io::Error| {
            format!(
                "failed to read {what} from {path}: {error}: let this user read it, or give {option} another file"
            )
        };
        // A link is followed, as mounted secrets are links. A pipe must not keep the program waiting.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags =
            i32::try_from(flags.bits()).expect("flags of the system's interface are an int");
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        // What was opened is looked at, not the name: that may be another file by now.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(format!(
                "{path} is no regular file, and {what} is kept in one: give {option} another file"
            ));
        }
        if !is_for_few(metadata.uid(), metadata.mode()) {
            return Err(format!(
                "others may read or write {what} in {path} (its mode is {:04o}): run `chmod 600 {path}`, or mount \
                 it with mode 0400, or 0440 where a group of the program's own reads it",
                metadata.mode() & 0o7777
            ));
        }
        // Of full size from the start: a vector that grows leaves copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
        let mut limited = file.take(FILE_BYTES_MAX as u64 + 1);
        limited.read_to_end(&mut content).map_err(unreadable)?;
        match content.len() {
            0 => Err(format!(
                "{path} is empty, and should hold {what}: remove it, so that it is made anew, or give {option} \
                 another file"
            )),
            1..=FILE_BYTES_MAX => Ok(Some(content)),
            _ => Err(format!(
                "{path} has more than {FILE_BYTES_MAX} bytes, so it does not hold {what}: give {option} another file"
            )),
        }
    }

    /// Writes a new file, whole, unless there is one by then.
    fn put(&self, content: &[u8]) -> Result<(), Fault> {
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        if let Some(directory) = directory {
            make_directories(directory).map_err(|(path, error)| Fault {
                doing: "make the directory",
                path,
                error,
            })?;
        }
        let temporary = Temporary::beside(self.path);
        let fault = |doing, path: &Path| {
            let path = path.to_owned();
            move |error| Fault { doing, path, error }
        };
        temporary.write(content).map_err(fault("write", &temporary.path))?;
        match temporary.place(self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            placed => placed.map_err(fault("name", self.path))?,
        }
        // The one that came second waits too: it goes on with the first one's file.
        sync_directory(directory).map_err(fault("write the directory of", self.path))
    }

    fn not_made(&self, fault: &Fault) -> String {
        let Self { what, option, .. } = *self;
        let Fault { doing, path, error } = fault;
        format!(
            "failed to keep {what} in {}: could not {doing} {}: {error}: make room there, or give {option} a file \
             that can be written",
            self.path.display(),
            path.display()
        )
    }
}

/// A file on its way to its name. It is removed when this value is gone, however that comes.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// In the same directory, under a name that no other process chooses: programs in two containers may share
    /// a directory, and the number of their process.
    fn beside(path: &Path) -> Self {
        let random = RandomState::new().build_hasher().finish();
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{random:016x}.new"));
        Self { path: path.with_file_name(name) }
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&self.path)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Gives it its name, unless that is taken.
    fn place(&self, path: &Path) -> io::Result<()> {
        match std::fs::hard_link(&self.path, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // Not every file system has second names. Those without may have a move that replaces nothing.
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(CWD, &self.path, CWD, path, flags) {
                    Err(Errno::EXIST) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_) => Err(error),
                    Ok(()) => Ok(()),
                }
            }
            linked => linked,
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a move there is none, and a file that can't be removed is still its owner's alone.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests;
