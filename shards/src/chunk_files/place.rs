//! Where chunk files can be made on this machine, found out by making one. Knows nothing of how many there may be.
//!
//! Files of small pages are sent more slowly than a copy is made: the kernel looks up, counts and passes on each page. So
//! a place counts only if the kernel gives its files large pages. Two signs must agree: the size of block that it states
//! for a file there, which follows the mount's `huge=`; and its counters in `/sys/kernel/mm/transparent_hugepage`, since
//! kernels before 6.14 give large pages to files of 2 MiB and more alone. The counters are of the whole system, so
//! other relays alone make them grow.

use std::{fmt, os::fd::OwnedFd, path::PathBuf, str::FromStr};

/// What the operator asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// A tmpfs of this process, else `/dev/shm`, else none.
    #[default]
    Auto,
    /// None: chunks are copied.
    Never,
    /// This directory, else none.
    Directory(PathBuf),
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// A directory for chunk files, on a tmpfs whose files get large pages.
    pub directory: Option<OwnedFd>,
    /// Which one, or why there is none.
    pub what: String,
    /// What mends it, where there is none.
    pub mend: Option<String>,
}

/// What copies chunks when it is named as the directory.
const NEVER: &str = "none";

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" => Self::Auto,
            NEVER => Self::Never,
            path => Self::Directory(path.into()),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

impl Found {
    /// None, and why.
    #[must_use]
    pub fn none(why: &str, mend: Option<&str>) -> Self {
        let what = format!("chunks are copied for each peer: {why}");
        Self { directory: None, what, mend: mend.map(str::to_owned) }
    }
}

/// Looks for a place. A mount of this process's own may take up to `size_bytes`.
#[must_use]
pub fn find(choice: &Choice, size_bytes: usize) -> Found {
    if *choice == Choice::Never {
        return Found::none("that was asked for", None);
    }
    system::find(choice, size_bytes)
}

#[cfg(target_os = "linux")]
mod system {
    use std::{
        fs,
        io::{self, IoSlice},
        os::fd::{AsFd, OwnedFd},
        path::Path,
    };

    use rustix::{
        fs::{Mode, OFlags, fstat, fstatfs, fstatvfs, open},
        param::page_size,
        process::{Resource, getrlimit},
    };

    use super::{Choice, Found};
    use crate::chunk_files::{memory_taken, mount, taken_bytes, unnamed_file, write_all};

    /// What a tmpfs calls itself.
    const TMPFS_MAGIC: u64 = 0x0102_1994;

    /// The file that is tried: the usual chunk, with its frames' headers.
    const TRIAL_BYTES: usize = (256 << 10) + 320;

    /// A process that may write no longer file than this is ended by a signal when it does.
    const FILE_BYTES_LEAST: u64 = 32 << 20;

    const LARGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

    const MEND: &str =
        "name a tmpfs that is mounted with huge=within_size by --chunk-dir, on Linux 6.14 or newer";

    pub(super) fn find(choice: &Choice, size_bytes: usize) -> Found {
        let limit = getrlimit(Resource::Fsize).current;
        if let Some(limit) = limit.filter(|&limit| limit < FILE_BYTES_LEAST) {
            let why = format!("this process may write files of {limit} bytes at most");
            return Found::none(&why, Some("raise that limit (ulimit -f unlimited)"));
        }
        if let Choice::Directory(path) = choice {
            return match opened(path).and_then(tried) {
                Ok(directory) => {
                    let small = room_if_less(&directory, size_bytes);
                    found(directory, &format!("in {}", path.display()), small)
                }
                Err(why) => Found::none(&format!("{} {why}", path.display()), Some(MEND)),
            };
        }
        let private = mount::make(size_bytes);
        let why = match private.map_err(|why| format!("can't be mounted ({why})")).and_then(tried) {
            Ok(directory) => return found(directory, "on a tmpfs of this process", None),
            Err(why) => why,
        };
        let shared = Path::new("/dev/shm");
        match opened(shared).and_then(tried) {
            Ok(directory) => {
                let small = room_if_less(&directory, size_bytes);
                found(directory, "in /dev/shm", small)
            }
            Err(other) => {
                let why = format!("a tmpfs of this process {why}, and /dev/shm {other}");
                Found::none(&why, Some(MEND))
            }
        }
    }

    fn found(directory: OwnedFd, place: &str, small: Option<u64>) -> Found {
        let what =
            format!("chunks that many peers want are sent from files {place}, without copying");
        let mend = small.map(|room| {
            format!("it has room for {} MiB, less than --cache: mount it larger", room >> 20)
        });
        Found { directory: Some(directory), what, mend }
    }

    /// What the directory has room for, if that is less than this: chunks beyond it are copied.
    fn room_if_less(directory: &OwnedFd, size_bytes: usize) -> Option<u64> {
        let about = fstatvfs(directory).ok()?;
        // A tmpfs without a bound states no blocks at all.
        let room = about.f_bavail.saturating_mul(about.f_frsize);
        (about.f_blocks > 0 && room < size_bytes as u64).then_some(room)
    }

    fn opened(path: &Path) -> Result<OwnedFd, String> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())
            .map_err(|error| format!("can't be opened ({})", io::Error::from(error)))?;
        let kind = fstatfs(directory.as_fd())
            .map_err(|error| format!("can't be asked what it is ({})", io::Error::from(error)))?;
        // On a disk each chunk would be written there.
        if u64::try_from(kind.f_type) == Ok(TMPFS_MAGIC) {
            Ok(directory)
        } else {
            Err("is not a tmpfs".to_owned())
        }
    }

    /// Makes a file there, and asks the kernel whether it has large pages.
    fn tried(directory: OwnedFd) -> Result<OwnedFd, String> {
        let lacking = || "gives its files no large pages".to_owned();
        let no_file = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => format!("has no room for {TRIAL_BYTES} bytes"),
            _ => format!("takes no file without a name ({error})"),
        };
        let before = large_pages_made().ok_or_else(lacking)?;
        let file = unnamed_file(&directory).map_err(no_file)?;
        write_all(&file, &[IoSlice::new(&vec![1; TRIAL_BYTES])]).map_err(no_file)?;
        let is_counted = large_pages_made().is_some_and(|after| after > before);
        let about = fstat(&file).map_err(|error| no_file(error.into()))?;
        let of_blocks = usize::try_from(about.st_blksize).unwrap_or(0);
        if !is_counted || of_blocks <= page_size() {
            return Err(lacking());
        }
        match memory_taken(&file).map_err(no_file)? {
            // Such files are refused when chunks come, too.
            taken if taken > taken_bytes(TRIAL_BYTES) => {
                Err(format!("rounds a file of {TRIAL_BYTES} bytes up to {taken}"))
            }
            _ => Ok(directory),
        }
    }

    /// How many large pages the kernel has ever given to files in memory. None: it does not tell.
    fn large_pages_made() -> Option<u64> {
        let sizes = fs::read_dir(LARGE_PAGES).ok()?.flatten();
        let counts = sizes.filter_map(|size| {
            let text = fs::read_to_string(size.path().join("stats/shmem_alloc")).ok()?;
            text.trim().parse::<u64>().ok()
        });
        counts.reduce(|a, b| a + b)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Choice, Found};

    pub(super) fn find(_: &Choice, _: usize) -> Found {
        Found::none("this system can't send from files in memory", None)
    }
}
