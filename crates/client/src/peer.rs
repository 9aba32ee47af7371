//! One peer over all its connections: connects, and connects again while there is hope.
//!
//! The relay's state is soft: after a broken connection the peer says again which chunks it has
//! and goes on where it was. What makes a connection hopeless is said by
//! [`ConnectionError::is_transient`].

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use shards::{bell::LocalBell, clock, task};

use super::{
    connection::{End, Link, Scratch, Surroundings, now},
    error::ConnectionError,
    file_state::FileState,
    observer::{Notice, Observer, Reaction},
    remote::Remote,
    session::{Session, SessionConfig},
    store::ChunkStore,
};
use relay_protocol::rng::Rng;
use relay_transport::{Transport, Trust};

/// Waits before the first new attempt; each further one waits twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Connections without an answer to any datagram, before a peer that never had one takes it that they
/// don't get through: a relay's machine that stood still for seconds is not silent twice.
const UNANSWERED_MAX: u32 = 2;

/// Wrong chunks whose checksums fit, before the relay or the path is given up.
const FORGED_MAX: u32 = 3;

/// A relay that was restarted is found again within this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// For a publisher that has not come yet a peer asks no more often: thousands may wait, and each attempt is a
/// handshake.
const BACKOFF_UNPUBLISHED_MAX: Duration = Duration::from_secs(4);

/// How long a peer tries to get a connection before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At first.
    pub first: Duration,
    /// After it was accepted once; the time begins anew with every acceptance. Or after a relay answered that the
    /// file is not published yet.
    pub later: Duration,
}

/// What a peer needs to know.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The relay.
    pub remote: Remote,
    /// How it is known.
    pub trust: Trust,
    /// How it behaves on each connection.
    pub session: SessionConfig,
    /// How long it tries.
    pub patience: Patience,
    /// Seeds the jitter of its attempts.
    pub seed: u64,
}

/// How a peer ended by its own or its owner's will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The owner stopped it.
    Stopped,
    /// The relay granted its leave.
    Left,
}

/// A peer that was not started yet.
pub struct Peer {
    config: PeerConfig,
    file: FileState,
    /// While there is a connection, that has them.
    surroundings: Surroundings,
    handle: PeerHandle,
    transport: Transport,
    label: Option<String>,
    /// Datagrams once came from the relay: when they don't any more, that may pass.
    has_heard_datagrams: bool,
    /// Connections that ended because no datagram was answered.
    unanswered: u32,
    /// Connections that ended because a chunk was wrong and its checksums fitted.
    forged: u32,
}

/// Tells a running peer what to do. For the same shard.
#[derive(Clone, Default)]
pub struct PeerHandle(Rc<HandleState>);

/// What the owner wants of a peer. Each wish includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Wish {
    #[default]
    Stay,
    /// To leave when the relay grants it.
    Leave,
    Stop,
}

#[derive(Default)]
struct HandleState {
    wish: Cell<Wish>,
    /// Rung when it is to stop, for a peer that waits without a connection.
    stop: LocalBell,
    link: Cell<Option<Rc<Link>>>,
    /// It is an end of an uplink, and stands for these relays.
    below: RefCell<Option<Vec<u64>>>,
}

impl HandleState {
    /// Wishes only grow.
    fn want(&self, wish: Wish) {
        self.wish.set(self.wish.get().max(wish));
    }

    fn is_stopping(&self) -> bool {
        self.wish.get() == Wish::Stop
    }

    /// Tells the connection, if there is one.
    fn with_link(&self, tell: impl FnOnce(&Link)) {
        let link = self.link.take();
        self.link.set(link.clone());
        if let Some(link) = link {
            tell(&link);
        }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerHandle").field("wish", &self.0.wish).finish_non_exhaustive()
    }
}

impl PeerHandle {
    /// Ends the peer without a word, whatever it waits for, once what its store has begun is done.
    pub fn stop(&self) {
        self.0.want(Wish::Stop);
        self.0.stop.ring();
        self.0.with_link(Link::stop);
    }

    /// As [`Self::stop`], with a last word: what is shared here is no longer what it was.
    pub fn give_up(&self) {
        self.0.want(Wish::Stop);
        self.0.stop.ring();
        self.0.with_link(Link::give_up);
    }

    /// Asks the relay how far the swarm is; [`Notice::Status`] is the answer. Not while there is no
    /// connection.
    pub fn ask_status(&self) {
        self.0.with_link(Link::ask_status);
    }

    /// Makes the peer an end of an uplink that stands for these relays, now and on every new connection.
    pub fn stand_for(&self, below: &[u64]) {
        *self.0.below.borrow_mut() = Some(below.to_vec());
        self.say(|session| session.handle_below(below));
    }

    /// Tells the session, if there is one.
    pub(crate) fn say(&self, say: impl FnOnce(&mut Session)) {
        self.0.with_link(|link| link.tell(say));
    }

    /// Asks the relay for leave, again on every new connection; the peer ends when it is granted.
    pub fn leave(&self) {
        self.0.want(Wish::Leave);
        self.0.with_link(Link::leave);
    }
}

impl Peer {
    /// A peer with what it has, where it keeps chunks, and its observer.
    #[must_use]
    pub fn new(
        config: PeerConfig,
        file: FileState,
        store: Box<dyn ChunkStore>,
        observer: Box<dyn Observer>,
    ) -> Self {
        Self {
            config,
            file,
            surroundings: Surroundings { store, observer },
            handle: PeerHandle::default(),
            transport: Transport::default(),
            label: None,
            has_heard_datagrams: false,
            unanswered: 0,
            forged: 0,
        }
    }

    /// Over this transport; but the stream carries all where it goes through a proxy.
    #[must_use]
    pub fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Has the relay call the file so where people watch it, if the peer publishes it: a text that
    /// [`relay_protocol::check_label`] takes.
    #[must_use]
    pub fn with_label(mut self, text: Option<String>) -> Self {
        self.label = text;
        self
    }

    /// What tells the peer to leave or to stop.
    #[must_use]
    pub fn handle(&self) -> PeerHandle {
        self.handle.clone()
    }

    /// Runs on this shard until the peer left or was stopped; also what it has then.
    ///
    /// # Errors
    /// No further attempt makes sense, or patience has run out; the last error.
    pub async fn run(mut self, scratch: Scratch) -> (Result<Ended, ConnectionError>, FileState) {
        let result = self.connect_repeatedly(&scratch).await;
        (result, self.file)
    }

    async fn connect_repeatedly(&mut self, scratch: &Scratch) -> Result<Ended, ConnectionError> {
        let mut rng = Rng::new(self.config.seed, 0);
        let mut give_up_at = now() + self.config.patience.first;
        let (mut attempts, mut is_awaited) = (0, false);
        loop {
            if self.handle.0.is_stopping() {
                return Ok(Ended::Stopped);
            }
            let (result, was_accepted) = self.connect_once(scratch).await;
            let error = match result {
                Ok(End::Stopped | End::GaveUp) => return Ok(Ended::Stopped),
                Ok(End::Left) => return Ok(Ended::Left),
                Err(_) if self.handle.0.is_stopping() => return Ok(Ended::Stopped),
                Err(error) => error,
            };
            if was_accepted {
                give_up_at = now() + self.config.patience.later;
                (attempts, is_awaited) = (0, false);
            } else if error.is_not_published() && !std::mem::replace(&mut is_awaited, true) {
                // The relay is found: now it is the publisher that is waited for.
                give_up_at = give_up_at.max(now() + self.config.patience.later);
            }
            if !error.is_transient() && !self.may_pass(&error) || now() >= give_up_at {
                return Err(error);
            }
            let most = if error.is_not_published() { BACKOFF_UNPUBLISHED_MAX } else { BACKOFF_MAX };
            let retry_in = backoff(attempts, most, &mut rng);
            attempts += 1;
            match self.tell(&Notice::Disconnected { error: &error, retry_in }) {
                Reaction::Vanish | Reaction::GiveUp => return Ok(Ended::Stopped),
                Reaction::Leave => self.handle.0.want(Wish::Leave),
                Reaction::GoOn => {}
            }
            // One that is stopped meanwhile sees it at the top.
            task::race(clock::sleep(retry_in), self.handle.0.stop.wait()).await.ok();
        }
    }

    /// Whether what only happens again and again where it is hopeless may not happen on another connection.
    fn may_pass(&mut self, error: &ConnectionError) -> bool {
        match error {
            // Unanswered datagrams may be answered.
            ConnectionError::DatagramsUnanswered { .. } => {
                self.unanswered += 1;
                self.has_heard_datagrams || self.unanswered < UNANSWERED_MAX
            }
            // It may have been the path that forged a chunk.
            error if error.is_forgery() => {
                self.forged += 1;
                self.forged < FORGED_MAX
            }
            _ => false,
        }
    }

    async fn connect_once(&mut self, scratch: &Scratch) -> (Result<End, ConnectionError>, bool) {
        // An address that answers nothing, or a name server, may take half a minute.
        let connecting = self.config.remote.connect();
        let (socket, remote) = match task::race(connecting, self.handle.0.stop.wait()).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return (Err(error), false),
            Err(()) => return (Ok(End::Stopped), false),
        };
        if self.handle.0.is_stopping() {
            return (Ok(End::Stopped), false);
        }
        let config = self.config.session.clone();
        let file = self.file.clone();
        // A proxy passes streams only.
        let channel = self.transport.in_datagrams().filter(|_| !remote.is_proxy());
        let session = Session::new(config, file, now());
        let session = session.with_datagrams(channel).with_label(self.label.clone());
        let session = session.with_uplink(self.handle.0.below.borrow().clone());
        let surroundings = std::mem::take(&mut self.surroundings);
        let relay = (&self.config.trust, self.config.remote.host().into_owned());
        let link = Link::new((socket, remote), session, relay, surroundings);
        self.handle.0.link.set(Some(Rc::clone(&link)));
        if self.handle.0.wish.get() == Wish::Leave {
            link.leave();
        }
        let finished = Rc::clone(&link).run(scratch).await;
        self.has_heard_datagrams |= link.has_heard_datagrams();
        self.handle.0.link.set(None);
        (self.file, self.surroundings) = (finished.file, finished.surroundings);
        (finished.result, finished.was_accepted)
    }

    fn tell(&mut self, notice: &Notice<'_>) -> Reaction {
        self.surroundings.observer.notice(now(), notice, &self.file)
    }
}

/// Doubles with every attempt, then only half of it is certain: peers that lost their relay at
/// the same moment don't come back at the same moment.
fn backoff(attempts: u32, most: Duration, rng: &mut Rng) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << attempts.min(16)).min(most);
    whole / 2 + (whole / 2).mul_f64(rng.fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_back_off_up_to_a_bound_and_never_all_at_once() {
        let mut rng = Rng::new(1, 0);
        for attempts in 0..40 {
            for most in [BACKOFF_MAX, BACKOFF_UNPUBLISHED_MAX] {
                let wait = backoff(attempts, most, &mut rng);
                assert!(wait >= BACKOFF_MIN / 2 && wait <= most, "{wait:?}");
            }
        }
        let tenth = |seed| backoff(10, BACKOFF_MAX, &mut Rng::new(seed, 0));
        assert_ne!(tenth(1), tenth(2));
    }
}
