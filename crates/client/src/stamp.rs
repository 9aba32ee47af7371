//! What tells that a file was written to, or is another one, without reading it. Clients of backup programs and version
//! control judge by the same (git: `Documentation/technical/racy-git.adoc`): a program can set back the time of
//! modification, but not that of the last change of the inode.

use std::{io, os::fd::AsFd};

use rustix::fs::{FileType, SeekFrom, Stat};

/// A moment, as file systems keep it: seconds since 1970, and nanoseconds on top.
pub type Moment = (i64, u32);

/// A file at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stamp {
    /// Its length; of a block device what the device holds, if it was asked.
    pub size_bytes: u64,
    /// When its content was last written, or what a program has set instead.
    pub modified: Moment,
    /// When anything about it last changed. No program sets it.
    pub changed: Moment,
    /// Device and inode.
    pub inode: (u64, u64),
}

/// How a file differs from what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    /// It has another length.
    Resized,
    /// There is another file in its place.
    Replaced,
    /// It was written to, maybe with the same bytes, or has other permissions or names.
    Modified,
}

impl Stamp {
    /// What the system says.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "the types of these fields differ from system to system, what is in them does not"
    )]
    pub fn of(stat: &Stat) -> Self {
        Self {
            size_bytes: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            inode: (stat.st_dev as u64, stat.st_ino as u64),
        }
    }

    /// Of an open file. A block device has the size that the device states, which its inode does not tell.
    ///
    /// # Errors
    /// The system's.
    pub fn of_open(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        let mut stamp = Self::of(&stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            stamp.size_bytes = rustix::fs::seek(&file, SeekFrom::End(0))?;
        }
        Ok(stamp)
    }

    /// How a later stamp differs from this one.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<Difference> {
        if self.inode != now.inode {
            Some(Difference::Replaced)
        } else if self.size_bytes != now.size_bytes {
            Some(Difference::Resized)
        } else if (self.modified, self.changed) != (now.modified, now.changed) {
            Some(Difference::Modified)
        } else {
            None
        }
    }

    /// The later one of its moments.
    #[must_use]
    pub fn latest(&self) -> Moment {
        self.modified.max(self.changed)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, time::UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_write_is_noticed_though_the_clock_of_the_file_was_set_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one").unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        let before = Stamp::of_open(&file).unwrap();
        assert_eq!((before.size_bytes, before.modified), (3, (0, 0)));
        assert_eq!(before.difference(&before), None);
        let changed = |file: &File| Stamp::of_open(file).unwrap().changed != before.changed;
        // The clock of file systems moves by some milliseconds at once.
        while !changed(&file) {
            rustix::io::pwrite(&file, b"two", 0).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
        }
        let now = Stamp::of_open(&file).unwrap();
        assert_eq!((now.modified, now.size_bytes), (before.modified, 3));
        assert_eq!(before.difference(&now), Some(Difference::Modified));
        file.set_len(2).unwrap();
        let shorter = Stamp::of_open(&file).unwrap();
        assert_eq!(before.difference(&shorter), Some(Difference::Resized));
        let other = Stamp::of_open(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(before.difference(&other), Some(Difference::Replaced));
    }
}
