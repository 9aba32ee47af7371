//! The process's budget as the shell has it: a limit, leases, a FIFO of waiting homes.

use std::collections::VecDeque;

/// Chunk memory of the process, in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    in_use: u64,
    peak: u64,
    waiting: VecDeque<(usize, u64)>,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, in_use: 0, peak: 0, waiting: VecDeque::new() }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.in_use
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Leases at once if no home waits and there is room, else queues the home.
    pub(crate) fn lease(&mut self, home: usize, bytes: u64) -> bool {
        if self.try_lease(bytes) {
            return true;
        }
        assert!(!self.waiting.iter().any(|&(other, _)| other == home), "two wishes of one home");
        self.waiting.push_back((home, bytes));
        false
    }

    /// The same without waiting.
    pub(crate) fn try_lease(&mut self, bytes: u64) -> bool {
        let is_there = self.waiting.is_empty() && self.in_use + bytes <= self.limit;
        if is_there {
            self.take(bytes);
        }
        is_there
    }

    fn take(&mut self, bytes: u64) {
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        assert!(self.in_use <= self.limit, "{} bytes of {}", self.in_use, self.limit);
    }

    /// The next waiting home whose wish can be met.
    pub(crate) fn grant(&mut self) -> Option<usize> {
        let &(home, bytes) = self.waiting.front()?;
        if self.in_use + bytes > self.limit {
            return None;
        }
        self.waiting.pop_front();
        self.take(bytes);
        Some(home)
    }

    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.in_use = self.in_use.checked_sub(bytes).expect("leased before");
    }

    /// Leaves the queue; whether it stood there.
    pub(crate) fn cancel(&mut self, home: usize) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|&(other, _)| other != home);
        before != self.waiting.len()
    }

    /// Whether some other home waits.
    pub(crate) fn others_wait(&self, home: usize) -> bool {
        self.waiting.iter().any(|&(other, _)| other != home)
    }
}
