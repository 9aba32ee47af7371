//! What is got while it is not whole: a file, or a tree of them. Its bytes are written as chunks come, and when all are
//! here it becomes the target.

use std::{fmt, sync::Arc};

use super::target::FileTarget;
use crate::client::Content;

/// What becomes the target. Any thread may ask; blocks.
pub(super) trait Unfinished: fmt::Debug + Send + Sync {
    /// Its bytes, to be written, and read for others.
    fn content(&self) -> Arc<dyn Content>;

    /// Where it goes.
    fn target(&self) -> &FileTarget;

    /// Bytes that were there when this get began, at most.
    fn bytes_before(&self) -> u64;

    /// Whether anything was there when this get began, counted or not.
    fn had_something(&self) -> bool {
        self.bytes_before() > 0
    }

    /// Whether it holds nothing that is worth keeping, if so many chunks are kept.
    fn holds_nothing(&self, kept_chunks: u32) -> bool;

    /// Whether it is still where it was made.
    fn is_in_place(&self) -> bool;

    /// Removes what holds nothing, with all that lies beside it: a get that kept no chunk leaves nothing that was not
    /// there before. The lock is still held, so that a get that opened it meanwhile is told that it is in use, or
    /// finds that it is gone.
    fn discard_if_empty(&self, kept_chunks: u32);

    /// Makes what is whole appear under its name. What is on disk then survives a power loss. What the user should
    /// know of that, if there is something.
    ///
    /// # Errors
    /// A sentence for the user.
    fn finish(&self, overwrite: bool) -> Result<Option<String>, String>;
}
