//! The fetches that a peer is answering: which came, which wait, which were called off.
//!
//! Pure. Reads no chunk itself: [`Uploads::poll`] says which is next.

use std::collections::VecDeque;

use relay_protocol::limits::FETCHES_PER_PEER_MAX;

/// Chunks that lie in the send queue at once: the next is at hand when one is through, and a
/// peer that reads from disk doesn't hold all that is asked of it in memory.
pub const UPLOADS_QUEUED_MAX: usize = 2;

/// Fetches that a peer holds at once: more than the relay may have outstanding, since a fetch can
/// overtake the cancellation that made room for it.
const FETCHES_HELD_MAX: usize = 4 * FETCHES_PER_PEER_MAX;

/// Cancellations remembered that came before their fetch, or after its end. Forgetting one costs
/// the upload of a chunk that the relay discards.
const CANCELLED_MAX: usize = 2 * FETCHES_PER_PEER_MAX;

/// The same of a peer that gets chunks elsewhere when it is asked for them: each waits there, and they wait together.
pub const UPLOADS_WAITING_MAX: usize = FETCHES_PER_PEER_MAX;

/// A fetch to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upload {
    /// Names it on this connection.
    pub fetch_id: u32,
    /// The chunk, whole.
    pub chunk: u32,
}

/// All fetches of one connection that were not answered yet.
///
/// Invariant: `waiting + queued <= FETCHES_HELD_MAX`, `queued <= queued_max`,
/// `cancelled <= CANCELLED_MAX`.
#[derive(Debug)]
pub struct Uploads {
    queued_max: usize,
    waiting: VecDeque<Upload>,
    queued: Vec<Upload>,
    cancelled: VecDeque<u32>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self::new(UPLOADS_QUEUED_MAX)
    }
}

impl Uploads {
    /// Gives out so many chunks at once.
    #[must_use]
    pub fn new(queued_max: usize) -> Self {
        Self {
            queued_max,
            waiting: VecDeque::new(),
            queued: Vec::new(),
            cancelled: VecDeque::new(),
        }
    }

    /// A fetch came; false if there are too many. One that its cancellation overtook is over.
    pub fn push(&mut self, upload: Upload) -> bool {
        if let Some(at) = self.cancelled.iter().position(|&id| id == upload.fetch_id) {
            self.cancelled.remove(at);
            return true;
        }
        let room = self.waiting.len() + self.queued.len() < FETCHES_HELD_MAX;
        if room {
            self.waiting.push_back(upload);
        }
        room
    }

    /// The next chunk to read and send, if there is room in the send queue.
    pub fn poll(&mut self) -> Option<Upload> {
        if self.queued.len() == self.queued_max {
            return None;
        }
        let upload = self.waiting.pop_front()?;
        self.queued.push(upload);
        Some(upload)
    }

    /// The fetch was called off; whether it is in the send queue, to be taken out there.
    pub fn cancel(&mut self, fetch_id: u32) -> bool {
        let waiting_before = self.waiting.len();
        self.waiting.retain(|upload| upload.fetch_id != fetch_id);
        let is_queued = self.finish(fetch_id).is_some();
        if !is_queued && self.waiting.len() == waiting_before {
            if self.cancelled.len() == CANCELLED_MAX {
                self.cancelled.pop_front();
            }
            self.cancelled.push_back(fetch_id);
        }
        is_queued
    }

    /// Whether the fetch was given out and not finished.
    #[must_use]
    pub fn is_queued(&self, fetch_id: u32) -> bool {
        self.queued.iter().any(|upload| upload.fetch_id == fetch_id)
    }

    /// The fetch left the send queue; which it was.
    pub fn finish(&mut self, fetch_id: u32) -> Option<Upload> {
        let index = self.queued.iter().position(|upload| upload.fetch_id == fetch_id)?;
        Some(self.queued.remove(index))
    }

    /// Nothing is asked that was not answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.queued.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_queued_and_the_rest_waits_in_order() {
        let mut uploads = Uploads::default();
        for fetch_id in 0..u32::try_from(FETCHES_HELD_MAX).expect("small") {
            assert!(uploads.push(Upload { fetch_id, chunk: fetch_id }));
        }
        assert!(!uploads.push(Upload { fetch_id: 99, chunk: 0 }), "more than the relay may ask");
        let queued: Vec<u32> = std::iter::from_fn(|| uploads.poll()).map(|u| u.fetch_id).collect();
        assert_eq!(queued, [0, 1]);
        assert!(!uploads.cancel(2), "it was only waiting");
        assert!(uploads.cancel(0), "it must leave the send queue");
        assert_eq!(uploads.poll().unwrap().fetch_id, 3);
        assert_eq!(uploads.finish(1).unwrap().chunk, 1);
        assert_eq!(uploads.finish(1), None);
    }

    #[test]
    fn a_fetch_that_its_cancellation_overtook_is_not_answered() {
        let mut uploads = Uploads::default();
        assert!(!uploads.cancel(7));
        assert!(uploads.push(Upload { fetch_id: 7, chunk: 1 }));
        assert_eq!(uploads.poll(), None);
        assert!(uploads.push(Upload { fetch_id: 8, chunk: 1 }));
        assert_eq!(uploads.poll().unwrap().fetch_id, 8);
        (0..10_000).for_each(|fetch_id| assert!(!uploads.cancel(1000 + fetch_id)));
        assert!(uploads.cancelled.len() <= CANCELLED_MAX);
    }
}
