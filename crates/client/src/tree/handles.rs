//! The files of a tree that are open: the last ones that were used, so that a large file is not opened anew for each
//! of its chunks, and descriptors do not run out. Any thread may ask.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{Arc, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

#[expect(
    clippy::disallowed_types,
    reason = "threads that read and write share it, and no event loop"
)]
type Lock<T> = std::sync::Mutex<T>;

/// Files that stay open, at most: more than there are threads that read, and chunks under way.
const OPEN_MAX: usize = 64;

/// Of the descriptors that this process may have, these files take one in so many: others need some, too.
const DESCRIPTORS_PER_OPEN: u64 = 4;

/// Open files by the number of their entry, those used last at the end.
#[derive(Debug)]
pub(super) struct Handles {
    open: Lock<VecDeque<(usize, Arc<File>)>>,
    most: usize,
}

impl Default for Handles {
    fn default() -> Self {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(allowed / DESCRIPTORS_PER_OPEN).unwrap_or(usize::MAX);
        Self { open: Lock::default(), most: most.clamp(1, OPEN_MAX) }
    }
}

/// Whether descriptors have run out, of this process or of the system.
pub(super) fn have_run_out(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl Handles {
    /// Closes all that no thread uses right now.
    pub(super) fn clear(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        // Closed without the lock.
        drop(open);
    }

    /// The file of this number, if it is open.
    pub(super) fn get(&self, number: usize) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().rposition(|&(of, _)| of == number)?;
        let entry = open.remove(at)?;
        let file = Arc::clone(&entry.1);
        open.push_back(entry);
        Some(file)
    }

    /// Keeps a file open, instead of the one that was used longest ago.
    pub(super) fn insert(&self, number: usize, file: &Arc<File>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if open.len() >= self.most { open.pop_front() } else { None };
        open.push_back((number, Arc::clone(file)));
        drop(open);
        // Closed without the lock.
        drop(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_files_stay_open_than_may_and_none_once_that_is_wished() {
        let handles = Handles { most: 2, ..Handles::default() };
        let file = Arc::new(tempfile::tempfile().unwrap());
        (0..3).for_each(|number| handles.insert(number, &file));
        assert!(handles.get(0).is_none() && handles.get(1).is_some() && handles.get(2).is_some());
        assert_eq!(Arc::strong_count(&file), 3);
        handles.clear();
        assert!(handles.get(2).is_none());
        assert_eq!(Arc::strong_count(&file), 1);
        assert!(have_run_out(&Errno::MFILE.into()) && !have_run_out(&Errno::NOENT.into()));
    }
}
