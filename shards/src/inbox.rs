//! The two bounded channels that bring a shard its messages, and how large they must be.
//!
//! **No inbox is ever found full.** Each ordered pair of shards (a → b) has `credits` credits. A
//! request of a to b takes one before it is sent; receiving its reply gives it back. So at any time
//!
//! ```text
//! requests of a → b sent and not received  +  held by b  +  replies b → a not received  ≤  credits
//! ```
//!
//! and since n - 1 others send to b, and n - 1 others reply to a, both channels of a shard need
//! exactly (n - 1) × credits places. Requests and replies travel on separate channels, so replies
//! never wait behind requests, and no cycle of shards can wait for each other.
//!
//! Does not count credits: see [`crate::port`].

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::{placement::ShardId, ringer::Ringer};

/// Places that an inbox needs.
pub(crate) const fn capacity(shard_count: usize, credits_per_pair: usize) -> usize {
    // A shard that is alone gets no messages; the channel type has no useful capacity of 0.
    let senders = if shard_count > 1 { shard_count - 1 } else { 1 };
    senders * credits_per_pair
}

/// Most credits of a pair: a message in flight is memory, and a longer queue is only latency.
pub(crate) const CREDITS_PER_PAIR_MAX: usize = 65_536;

// With 1,024 shards and the most credits, a capacity still fits any machine's usize.
const _: () =
    assert!(capacity(crate::placement::SHARDS_MAX, CREDITS_PER_PAIR_MAX) <= u32::MAX as usize);

/// The sending side of a shard's inboxes, shared by all others.
pub(crate) struct Mailbox<Q, R> {
    requests: Sender<(ShardId, Q)>,
    replies: Sender<(ShardId, R)>,
    pub(crate) ringer: Ringer,
}

/// The receiving side.
pub(crate) struct Inbox<Q, R> {
    requests: Receiver<(ShardId, Q)>,
    replies: Receiver<(ShardId, R)>,
}

// Not derived: that would ask the messages to be Clone.
impl<Q, R> Clone for Inbox<Q, R> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), replies: self.replies.clone() }
    }
}

impl<Q, R> Clone for Mailbox<Q, R> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            replies: self.replies.clone(),
            ringer: self.ringer.clone(),
        }
    }
}

/// Makes a shard's inboxes.
pub(crate) fn inbox<Q, R>(
    shard_count: usize,
    credits_per_pair: usize,
    ringer: Ringer,
) -> (Mailbox<Q, R>, Inbox<Q, R>) {
    assert!((1..=CREDITS_PER_PAIR_MAX).contains(&credits_per_pair));
    let places = capacity(shard_count, credits_per_pair);
    let (request_sender, request_receiver) = bounded(places);
    let (reply_sender, reply_receiver) = bounded(places);
    let mailbox = Mailbox { requests: request_sender, replies: reply_sender, ringer };
    (mailbox, Inbox { requests: request_receiver, replies: reply_receiver })
}

impl<Q, R> Mailbox<Q, R> {
    /// Gives the request back if the receiving shard has ended.
    pub(crate) fn request(&self, from: ShardId, request: Q) -> Result<(), Q> {
        match self.requests.try_send((from, request)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected((_, request))) => Err(request),
            Err(TrySendError::Full(_)) => unreachable!("a request in flight holds a credit"),
        }
    }

    /// Drops the reply if the receiving shard has ended.
    pub(crate) fn reply(&self, from: ShardId, reply: R) {
        match self.replies.try_send((from, reply)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("a reply uses the place of its request"),
        }
    }
}

impl<Q, R> Inbox<Q, R> {
    pub(crate) fn next_request(&self) -> Option<(ShardId, Q)> {
        next(&self.requests)
    }

    pub(crate) fn next_reply(&self) -> Option<(ShardId, R)> {
        next(&self.replies)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.replies.is_empty()
    }

    /// Messages waiting, of both kinds.
    pub(crate) fn depth(&self) -> usize {
        self.requests.len() + self.replies.len()
    }
}

fn next<T>(receiver: &Receiver<T>) -> Option<T> {
    receiver.try_recv().ok()
}

#[cfg(test)]
mod tests {
    use super::capacity;

    #[test]
    fn places_are_the_credits_of_all_the_others() {
        assert_eq!(capacity(2, 1), 1);
        assert_eq!(capacity(8, 64), 448);
        assert_eq!(capacity(1, 64), 64);
    }
}
