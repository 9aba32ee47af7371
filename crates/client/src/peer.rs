//! One peer over all its connections: connects, and connects again while there is hope.
//!
//! The relay's state is soft: after a broken connection the peer says again which chunks it has
//! and goes on where it was. What makes a connection hopeless is said by
//! [`ConnectionError::is_transient`].

use std::{
    cell::{Cell, RefCell},
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use shards::{bell::LocalBell, clock, task};

use super::{
    ConnectionError, FileState, Session, SessionConfig,
    connection::{End, Link, Surroundings, now},
    datagrams,
    remote::Remote,
    scratch::Scratch,
    store::ChunkStore,
};
use relay_protocol::{Manifest, SwarmStatus, limits::NONCE_BYTES, rng::Rng, time::Time};
use relay_transport::Transport;

/// Waits before the first new attempt; each further one waits twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Connections without an answer to any datagram, before a peer that never had one takes it that they
/// don't get through: a relay's machine that stood still for seconds is not silent twice.
const UNANSWERED_MAX: u32 = 2;

/// A relay that was restarted is found again within this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a peer tries to get a connection before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At first.
    pub first: Duration,
    /// After it was accepted once; the time begins anew with every acceptance.
    pub later: Duration,
}

/// What a peer needs to know.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The relay.
    pub remote: Remote,
    /// How it behaves on each connection. The nonce is made anew for each.
    pub session: SessionConfig,
    /// How long it tries.
    pub patience: Patience,
    /// Seeds the jitter of its attempts.
    pub seed: u64,
}

/// What happens to a peer.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The relay took it in, and recommends chunks of at most this size; told before [`Self::Accepted`].
    Recommended {
        /// Binary logarithm of the size.
        chunk_size_log2_max: u8,
    },
    /// The relay took it in.
    Accepted {
        /// From the hello to the relay's consent.
        round_trip: Duration,
    },
    /// It has the list of digests.
    ManifestVerified,
    /// A chunk was verified and kept.
    Verified {
        /// Which.
        chunk: u32,
        /// See [`super::SessionEvent::Verified`].
        latency: Duration,
    },
    /// A chunk that the relay asked for is with the kernel.
    Served {
        /// Which.
        chunk: u32,
    },
    /// A chunk that the relay asked for could not be read; the fetch was refused.
    Unreadable {
        /// Which.
        chunk: u32,
        /// Why.
        error: &'a io::Error,
    },
    /// It has all chunks (told on each connection).
    Complete,
    /// Peers hold all of the file that it spreads: it may go.
    SeedingDone,
    /// It may go, and will.
    LeaveGranted,
    /// How far the swarm is: see [`PeerHandle::ask_status`].
    Status(SwarmStatus),
    /// It lacks chunks that nobody connected holds.
    Waiting {
        /// How many.
        missing_count: u32,
        /// The first.
        first_missing: u32,
        /// How long the relay still waits for a holder.
        deadline: Duration,
    },
    /// The connection ended or did not come about; another attempt follows.
    Disconnected {
        /// Why.
        error: &'a ConnectionError,
        /// When the next attempt is.
        retry_in: Duration,
    },
}

/// What an observer wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Nothing.
    GoOn,
    /// Ask the relay for leave.
    Leave,
    /// Go at once, without a word.
    Vanish,
    /// Go at once, and tell the relay that what is shared here is no longer what it was.
    GiveUp,
}

/// Watches a peer.
pub trait Observer {
    /// Something happened; `file` is what the peer has. Called on the peer's shard, in the middle
    /// of its work: it must be quick and must not call the [`PeerHandle`].
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction;

    /// A copy of the manifest that many peers of one process share. The peer still asks for the
    /// list of digests and proves it; then it drops its own copy for this one.
    fn shared_manifest(&self) -> Option<&Arc<Manifest>> {
        None
    }
}

impl<F: FnMut(Time, &Notice<'_>, &FileState) -> Reaction> Observer for F {
    fn notice(&mut self, now: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
        self(now, notice, file)
    }
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
    surroundings: Rc<RefCell<Surroundings>>,
    handle: PeerHandle,
    transport: Transport,
    label: Option<String>,
    /// Datagrams once came from the relay: when they don't any more, that may pass.
    has_heard_datagrams: bool,
    /// Connections that ended because no datagram was answered.
    unanswered: u32,
}

/// Tells a running peer what to do. For the same shard.
#[derive(Clone, Default)]
pub struct PeerHandle(Rc<HandleState>);

#[derive(Default)]
struct HandleState {
    stopping: Cell<bool>,
    /// Rung when it is to stop, for who waits while there is no connection.
    stop: LocalBell,
    leaving: Cell<bool>,
    link: RefCell<Option<Rc<Link>>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerHandle").field("stopping", &self.0.stopping).finish_non_exhaustive()
    }
}

impl PeerHandle {
    /// Ends the peer without a word, whatever it waits for, once what its store has begun is done.
    pub fn stop(&self) {
        self.0.stopping.set(true);
        self.0.stop.ring();
        if let Some(link) = &*self.0.link.borrow() {
            link.stop();
        }
    }

    /// The same with a last word: what is shared here is no longer what it was.
    pub fn give_up(&self) {
        self.0.stopping.set(true);
        self.0.stop.ring();
        if let Some(link) = &*self.0.link.borrow() {
            link.give_up();
        }
    }

    /// Asks the relay how far the swarm is; [`Notice::Status`] is the answer. Not while there is no
    /// connection.
    pub fn ask_status(&self) {
        if let Some(link) = &*self.0.link.borrow() {
            link.ask_status();
        }
    }

    /// Asks the relay for leave, again on every new connection; the peer ends when it is granted.
    pub fn leave(&self) {
        self.0.leaving.set(true);
        if let Some(link) = &*self.0.link.borrow() {
            link.leave();
        }
    }
}

impl Peer {
    /// A peer with what it has, where it keeps chunks, and who watches it.
    #[must_use]
    pub fn new(
        config: PeerConfig,
        file: FileState,
        store: Box<dyn ChunkStore>,
        observer: Box<dyn Observer>,
    ) -> Self {
        let surroundings = Rc::new(RefCell::new(Surroundings { store, observer }));
        Self {
            config,
            file,
            surroundings,
            handle: PeerHandle::default(),
            transport: Transport::default(),
            label: None,
            has_heard_datagrams: false,
            unanswered: 0,
        }
    }

    /// Over this transport.
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
        let mut attempts = 0;
        loop {
            if self.handle.0.stopping.get() {
                return Ok(Ended::Stopped);
            }
            let (result, was_accepted) = self.connect_once(scratch).await;
            let error = match result {
                Ok(End::Stopped) => return Ok(Ended::Stopped),
                Ok(End::Left) => return Ok(Ended::Left),
                Err(_) if self.handle.0.stopping.get() => return Ok(Ended::Stopped),
                Err(error) => error,
            };
            if was_accepted {
                give_up_at = now() + self.config.patience.later;
                attempts = 0;
            }
            if !error.is_transient() && !self.may_pass(&error) || now() >= give_up_at {
                return Err(error);
            }
            let retry_in = backoff(attempts, &mut rng);
            attempts += 1;
            match self.tell(&Notice::Disconnected { error: &error, retry_in }) {
                Reaction::Vanish | Reaction::GiveUp => return Ok(Ended::Stopped),
                Reaction::Leave => self.handle.0.leaving.set(true),
                Reaction::GoOn => {}
            }
            // Whoever is stopped meanwhile sees it at the top.
            task::race(clock::sleep(retry_in), self.handle.0.stop.wait()).await.ok();
        }
    }

    /// Whether unanswered datagrams may be answered on another connection.
    fn may_pass(&mut self, error: &ConnectionError) -> bool {
        if !matches!(error, ConnectionError::DatagramsUnanswered { .. }) {
            return false;
        }
        self.unanswered += 1;
        self.has_heard_datagrams || self.unanswered < UNANSWERED_MAX
    }

    async fn connect_once(&mut self, scratch: &Scratch) -> (Result<End, ConnectionError>, bool) {
        // An address that answers nothing, or a name server, may take half a minute.
        let connecting = self.config.remote.connect();
        let (socket, remote) = match task::race(connecting, self.handle.0.stop.wait()).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return (Err(error), false),
            Err(()) => return (Ok(End::Stopped), false),
        };
        if self.handle.0.stopping.get() {
            return (Ok(End::Stopped), false);
        }
        let config = SessionConfig { nonce: fresh_nonce(), ..self.config.session.clone() };
        let file = self.file.clone();
        let channel = datagrams::channel_of(self.transport);
        let session = Session::new(config, file, now());
        let session = session.with_datagrams(channel).with_label(self.label.clone());
        let link = Link::new(socket, remote, session, Rc::clone(&self.surroundings));
        *self.handle.0.link.borrow_mut() = Some(Rc::clone(&link));
        if self.handle.0.leaving.get() {
            link.leave();
        }
        let (result, file, was_accepted) = Rc::clone(&link).run(scratch).await;
        self.has_heard_datagrams |= link.has_heard_datagrams();
        *self.handle.0.link.borrow_mut() = None;
        self.file = file;
        (result, was_accepted)
    }

    fn tell(&self, notice: &Notice<'_>) -> Reaction {
        self.surroundings.borrow_mut().observer.notice(now(), notice, &self.file)
    }
}

/// Doubles with every attempt, then only half of it is certain: peers that lost their relay at
/// the same moment don't come back at the same moment.
fn backoff(attempts: u32, rng: &mut Rng) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
    whole / 2 + (whole / 2).mul_f64(rng.fraction())
}

/// Not secret and need not be: the relay's nonce makes each proof a new one. It must only differ.
fn fresh_nonce() -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    for half in nonce.chunks_mut(8) {
        // The standard library keys every one of these from the system's randomness.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_back_off_up_to_a_bound_and_never_all_at_once() {
        let mut rng = Rng::new(1, 0);
        for attempts in 0..40 {
            let wait = backoff(attempts, &mut rng);
            assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX, "{wait:?}");
        }
        assert_ne!(backoff(10, &mut Rng::new(1, 0)), backoff(10, &mut Rng::new(2, 0)));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(fresh_nonce(), fresh_nonce());
        assert_ne!(fresh_nonce()[..8], fresh_nonce()[8..]);
    }
}
