//! A shard's end of the mesh: requests with credits, replies, one wait for all that comes.
//!
//! **Rules.** Drain replies before requests. Answer each request exactly once, at any time. When
//! [`Port::try_request`] gives a request back, keep it in a queue that your state bounds and try
//! again after replies came. Then no shard waits for another, and nothing grows without bound.
//!
//! What is sent in a turn of the loop is announced at its end, one ring per parked receiver.
//! Does not interpret messages.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use crate::{
    heartbeats::Beat,
    inbox::{Inbox, Mailbox},
    placement::ShardId,
    ringer::Ringer,
    station::Station,
    turn,
};

/// Requests `Q` to other shards and their replies `R`. A handle: clones are the same port.
pub struct Port<Q, R>(Rc<Core<Q, R>>);

struct Core<Q, R> {
    id: ShardId,
    credits_per_pair: usize,
    mailboxes: Vec<Mailbox<Q, R>>,
    inbox: Inbox<Q, R>,
    pairs: Vec<Pair>,
    /// Shards that got something since the last flush; at most one entry each.
    unannounced: RefCell<Vec<ShardId>>,
    station: Rc<Station>,
    beat: Beat,
    depth_max: Cell<usize>,
}

/// What passes between this shard and one other.
#[derive(Default)]
struct Pair {
    /// Requests of ours whose reply we have not received.
    in_flight: Cell<usize>,
    /// Requests of theirs that we have received and not answered.
    owed: Cell<usize>,
    unannounced: Cell<bool>,
}

impl<Q, R> Clone for Port<Q, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, R> fmt::Debug for Port<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl<Q: 'static, R: 'static> Port<Q, R> {
    pub(crate) fn new(
        id: ShardId,
        credits_per_pair: usize,
        mailboxes: Vec<Mailbox<Q, R>>,
        inbox: Inbox<Q, R>,
        station: Rc<Station>,
        beat: Beat,
    ) -> Self {
        let pairs = mailboxes.iter().map(|_| Pair::default()).collect();
        let port = Self(Rc::new(Core {
            id,
            credits_per_pair,
            mailboxes,
            inbox,
            pairs,
            unannounced: RefCell::new(Vec::new()),
            station,
            beat,
            depth_max: Cell::new(0),
        }));
        let core = Rc::downgrade(&port.0);
        turn::set_at_end(Rc::new(move || {
            if let Some(core) = core.upgrade() {
                core.flush();
            }
        }));
        port
    }
}

impl<Q, R> Port<Q, R> {
    /// This shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.0.id
    }

    /// Shards of the mesh, this one included.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// Requests that can be sent to a shard now.
    #[must_use]
    pub fn credits(&self, to: ShardId) -> usize {
        self.0.credits_per_pair - self.0.pairs[to.index()].in_flight.get()
    }

    /// Sends a request, against a credit of the pair that its reply gives back.
    ///
    /// # Errors
    /// No credit is left, or that shard has ended: the request comes back.
    ///
    /// # Panics
    /// A request to oneself is a bug: call the function instead.
    pub fn try_request(&self, to: ShardId, request: Q) -> Result<(), Q> {
        let core = &*self.0;
        assert!(to != core.id, "a shard asks itself by a call, not by a message");
        if self.credits(to) == 0 {
            return Err(request);
        }
        core.mailboxes[to.index()].request(core.id, request)?;
        let pair = &core.pairs[to.index()];
        pair.in_flight.set(pair.in_flight.get() + 1);
        core.touch(to);
        Ok(())
    }

    /// Answers one request that [`Self::try_request_in`] brought. Never finds the channel full.
    ///
    /// # Panics
    /// More replies than requests.
    pub fn reply(&self, to: ShardId, reply: R) {
        let core = &*self.0;
        let owed = &core.pairs[to.index()].owed;
        let left = owed.get().checked_sub(1).expect("a reply answers exactly one request");
        owed.set(left);
        core.mailboxes[to.index()].reply(core.id, reply);
        core.touch(to);
    }

    /// The next reply to a request of ours, and which shard sent it. Drain these first.
    #[must_use]
    pub fn try_reply(&self) -> Option<(ShardId, R)> {
        let (from, reply) = self.0.inbox.next_reply()?;
        let in_flight = &self.0.pairs[from.index()].in_flight;
        let left = in_flight.get().checked_sub(1).expect("a reply answers exactly one request");
        in_flight.set(left);
        Some((from, reply))
    }

    /// The next request of another shard; it is owed exactly one [`Self::reply`].
    #[must_use]
    pub fn try_request_in(&self) -> Option<(ShardId, Q)> {
        let (from, request) = self.0.inbox.next_request()?;
        let owed = &self.0.pairs[from.index()].owed;
        owed.set(owed.get() + 1);
        debug_assert!(owed.get() <= self.0.credits_per_pair);
        Some((from, request))
    }

    /// Announces what was sent to shards that are parked. The end of each turn does this by
    /// itself; call it only to be earlier than the turn's other tasks.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Makes [`Self::wait`] return, from this thread, without a system call.
    pub fn nudge(&self) {
        self.0.station.nudge();
    }

    /// Waits for a message, a handed-over socket, a nudge, a ring, or the start of draining.
    /// It may return without any of them. It always lets the loop make a turn, so a loop around
    /// it starves no task. Beats, and flushes first.
    pub async fn wait(&self) {
        self.0.flush();
        self.0.beat.beat();
        self.0.station.wait().await;
        self.0.beat.beat();
        self.0.depth_max.set(self.0.depth_max.get().max(self.0.inbox.depth()));
    }

    /// Most messages that lay in this shard's inboxes when it looked.
    #[must_use]
    pub fn inbox_depth_max(&self) -> usize {
        self.0.depth_max.get()
    }

    /// How often this shard had to be woken by a system call.
    #[must_use]
    pub fn doorbell_rings(&self) -> u64 {
        self.0.station.ringer().doorbell().rings()
    }

    /// For other threads, to wake this shard.
    #[must_use]
    pub fn ringer(&self) -> Ringer {
        self.0.station.ringer().clone()
    }

    /// Checks what always holds between this shard and each other one:
    /// `0 ≤ in flight ≤ credits` and `0 ≤ owed ≤ credits`.
    ///
    /// # Panics
    /// If it does not hold, which is our bug.
    pub fn invariants(&self) {
        for pair in &self.0.pairs {
            assert!(pair.in_flight.get() <= self.0.credits_per_pair);
            assert!(pair.owed.get() <= self.0.credits_per_pair);
        }
    }
}

impl<Q, R> Core<Q, R> {
    fn touch(&self, to: ShardId) {
        if !self.pairs[to.index()].unannounced.replace(true) {
            self.unannounced.borrow_mut().push(to);
            turn::request();
        }
    }

    fn flush(&self) {
        for to in self.unannounced.borrow_mut().drain(..) {
            self.pairs[to.index()].unannounced.set(false);
            self.mailboxes[to.index()].ringer.announce();
        }
    }
}

/// What was sent in the last turn of a shard's life is announced, too.
impl<Q, R> Drop for Core<Q, R> {
    fn drop(&mut self) {
        self.flush();
    }
}
