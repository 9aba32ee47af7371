//! The files of a tree that are open: the last ones that were used, so that a large file is not opened anew for each
//! of its chunks, and descriptors do not run out. Any thread may ask.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{Arc, PoisonError},
};

#[expect(
    clippy::disallowed_types,
    reason = "threads that read and write share it, and no event loop"
)]
type Lock<T> = std::sync::Mutex<T>;

/// Files that stay open, at most: more than there are threads that read, and chunks under way.
const OPEN_MAX: usize = 64;

/// Open files by the number of their entry, those used last at the end.
#[derive(Debug, Default)]
pub(super) struct Handles(Lock<VecDeque<(usize, Arc<File>)>>);

impl Handles {
    /// The file of this number, if it is open.
    pub(super) fn get(&self, number: usize) -> Option<Arc<File>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().rposition(|&(of, _)| of == number)?;
        let entry = open.remove(at)?;
        let file = Arc::clone(&entry.1);
        open.push_back(entry);
        Some(file)
    }

    /// Keeps a file open, instead of the one that was used longest ago.
    pub(super) fn insert(&self, number: usize, file: &Arc<File>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if open.len() == OPEN_MAX { open.pop_front() } else { None };
        open.push_back((number, Arc::clone(file)));
        drop(open);
        // Closed without the lock.
        drop(oldest);
    }
}
