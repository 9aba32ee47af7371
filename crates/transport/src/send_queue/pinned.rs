//! The files that one connection's socket may refer to.
//!
//! Invariant: a file is pinned from before the kernel is given a byte of it until both the kernel and the other side say
//! that the other side has that byte, or the connection is gone. What the other side says counts for nothing alone: it
//! could claim. What the kernel says is not all where that is the same kernel: the other side's socket refers to the
//! same pages until its owner has read them. No address tells that for sure (a container beside this one has its own).

use std::collections::VecDeque;

use shards::chunk_files::Pin;

use crate::chunk_bytes::LentChunk;

/// The files that a connection's socket may refer to, the one that was written first in front.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    files: VecDeque<PinnedFile>,
    /// All bytes ever written.
    written_bytes: u64,
    /// Of these, file bytes.
    data_bytes: u64,
}

#[derive(Debug)]
struct PinnedFile {
    pin: Pin,
    /// How far the stream had come when the last byte of this file was written.
    written_bytes: u64,
    data_bytes: u64,
}

impl Pinned {
    /// The kernel took so much.
    pub(super) fn add(&mut self, written_bytes: u64, data_bytes: u64) {
        self.written_bytes += written_bytes;
        self.data_bytes += data_bytes;
    }

    /// The socket refers to no file.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The kernel may be given bytes of this file.
    pub(super) fn hold(&mut self, lent: &LentChunk) -> bool {
        let is_held = self.files.back().is_some_and(|last| last.pin.is_of(lent.file()));
        if !is_held {
            let Some(pin) = lent.pin() else { return false };
            self.files.push_back(PinnedFile { pin, written_bytes: u64::MAX, data_bytes: u64::MAX });
        }
        true
    }

    /// The kernel was given some of the file that was held last: by then so much will have been taken beyond what was added.
    pub(super) fn mark(&mut self, written_bytes: u64, data_bytes: u64) {
        if let Some(last) = self.files.back_mut() {
            last.written_bytes = self.written_bytes + written_bytes;
            last.data_bytes = self.data_bytes + data_bytes;
        }
    }

    /// The other side says that it has all of some file.
    pub(super) fn is_claimed(&self, received_bytes: u64) -> bool {
        self.files.front().is_some_and(|first| first.data_bytes <= received_bytes)
    }

    /// Lets go of what the other side has, as the kernel and it both say.
    pub(super) fn release(&mut self, unacknowledged_bytes: u64, received_bytes: u64) {
        let acknowledged = self.written_bytes.saturating_sub(unacknowledged_bytes);
        while let Some(first) = self.files.front()
            && first.written_bytes <= acknowledged
            && first.data_bytes <= received_bytes
        {
            self.files.pop_front();
        }
    }
}
