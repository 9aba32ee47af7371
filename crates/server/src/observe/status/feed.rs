//! One task on the control thread that knows the latest of every shard, and tells the watchers.
//!
//! Handlers reach it by a bounded channel ([`Feed`]). Watchers get frames through a bounded channel
//! each: one that does not keep up misses frames, and gets a whole one when it has room again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use shards::{Heartbeats, Ringer, clock};
use tokio::sync::{mpsc, oneshot};

use super::{board::Board, figures, frame::Encoder};
use crate::{observe::snapshot::ShardSnapshot, process::Shared};
use relay_protocol::time::Time;

/// How often watchers are told what changed.
const FRAME_EVERY: Duration = Duration::from_millis(250);

/// Frames under way to one watcher: a second's worth.
const FRAMES_QUEUED: usize = 4;

/// Questions that wait for shards to publish.
const LOOKS_WAITING_MAX: usize = 64;

/// Questions and watchers on their way here.
const ASKS_QUEUED: usize = 64;

/// How long a question waits for shards that don't publish; then it is answered without them.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// How long shards go on publishing after an onlooker was interested: longer than a page that polls
/// once a second waits, so that it sees which peers go.
const WANTED_FOR: Duration = Duration::from_secs(5);

/// The way to the [`Keeper`].
#[derive(Clone)]
pub(crate) struct Feed(mpsc::Sender<Ask>);

/// Something that is asked of the keeper.
enum Ask {
    /// Look at the board when it is fresh.
    Look(Tell),
    /// Tell me what changes.
    Watch(oneshot::Sender<Option<mpsc::Receiver<Bytes>>>),
}

/// What is done with a fresh board, and the shards that were silent.
type Tell = Box<dyn FnOnce(&Board, &[usize]) + Send>;

impl Feed {
    /// A way, and its end for [`Keeper::run`].
    pub(crate) fn new() -> (Self, Asks) {
        let (sender, receiver) = mpsc::channel(ASKS_QUEUED);
        (Self(sender), Asks(receiver))
    }

    /// What `look` makes of a board that every shard has just contributed to; `None` if too many
    /// ask at once, or the relay ends.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Board, &[usize]) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let tell: Tell = Box::new(move |board, silent| {
            // The asker may have gone.
            answer.send(look(board, silent)).ok();
        });
        self.0.try_send(Ask::Look(tell)).ok()?;
        answered.await.ok()
    }

    /// Frames from now on; `None` if too many watch already.
    pub(crate) async fn watch(&self) -> Option<mpsc::Receiver<Bytes>> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Ask::Watch(answer)).ok()?;
        answered.await.ok().flatten()
    }
}

/// The keeper's end of a [`Feed`].
pub(crate) struct Asks(mpsc::Receiver<Ask>);

/// Keeps the board.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    heartbeats: Heartbeats,
    ringers: Vec<Ringer>,
    board: Board,
    encoder: Encoder,
    watchers: Vec<Watcher>,
    looks: VecDeque<Look>,
    wanted_until: Time,
}

struct Watcher {
    frames: mpsc::Sender<Bytes>,
    since: Time,
    needs_whole: bool,
}

struct Look {
    since: Time,
    tell: Tell,
}

fn now() -> Time {
    Time::from_start(clock::now())
}

impl Keeper {
    pub(crate) fn new(shared: &Arc<Shared>, heartbeats: Heartbeats, ringers: Vec<Ringer>) -> Self {
        Self {
            board: Board::new(shared.cells.len()),
            shared: Arc::clone(shared),
            heartbeats,
            ringers,
            encoder: Encoder::default(),
            watchers: Vec::new(),
            looks: VecDeque::new(),
            wanted_until: Time::ZERO,
        }
    }

    /// Until the relay ends.
    pub(crate) async fn run(
        mut self,
        mut snapshots: mpsc::Receiver<Arc<ShardSnapshot>>,
        mut asks: Asks,
    ) {
        let mut tick = tokio::time::interval(FRAME_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = !self.watchers.is_empty() || !self.looks.is_empty();
            tokio::select! {
                Some(snapshot) = snapshots.recv() => self.board.absorb(&snapshot),
                Some(ask) = asks.0.recv() => self.handle_ask(ask),
                _ = tick.tick(), if is_asked => self.tell_watchers(),
            }
            self.answer_looks();
        }
    }

    fn handle_ask(&mut self, ask: Ask) {
        self.want();
        match ask {
            Ask::Look(tell) if self.looks.len() < LOOKS_WAITING_MAX => {
                self.looks.push_back(Look { since: now(), tell });
            }
            // It is dropped, and the one that waits for the answer is told so by that.
            Ask::Look(_) => {}
            Ask::Watch(answer) => {
                self.watchers.retain(|watcher| !watcher.frames.is_closed());
                if self.watchers.len() >= self.shared.places.pages {
                    answer.send(None).ok();
                    return;
                }
                let (frames, taken) = mpsc::channel(FRAMES_QUEUED);
                if answer.send(Some(taken)).is_ok() {
                    self.watchers.push(Watcher { frames, since: now(), needs_whole: true });
                }
            }
        }
    }

    /// Shards publish for a while; what was known before a pause is forgotten. A watcher has made no
    /// pause, though this process may not have run meanwhile: what happened, shards tell then.
    fn want(&mut self) {
        let now = now();
        if now > self.wanted_until && self.watchers.is_empty() {
            self.board.clear();
            self.encoder = Encoder::default();
        }
        self.wanted_until = now + WANTED_FOR;
        self.shared.watch.want(self.wanted_until);
        self.ringers.iter().for_each(Ringer::ring);
    }

    fn tell_watchers(&mut self) {
        self.watchers.retain(|watcher| !watcher.frames.is_closed());
        if self.watchers.is_empty() && self.looks.is_empty() {
            return;
        }
        self.want();
        if self.watchers.is_empty() {
            return;
        }
        let ages = self.heartbeats.ages(clock::now());
        let figures =
            || (figures::Totals::of(&self.shared), figures::of_shards(&self.shared, &ages));
        let changes = self.encoder.changes(now(), &self.board, figures());
        let mut whole = None;
        for watcher in &mut self.watchers {
            // What it is told first is true of all shards: until then it is told nothing.
            let is_early = now().since(watcher.since) < LOOK_PATIENCE;
            if is_early && self.board.silent_since(watcher.since).next().is_some() {
                continue;
            }
            let frame = if watcher.needs_whole {
                whole.get_or_insert_with(|| self.encoder.whole(now(), &self.board, figures()))
            } else {
                &changes
            };
            watcher.needs_whole = watcher.frames.try_send(frame.clone()).is_err();
        }
    }

    fn answer_looks(&mut self) {
        while let Some(look) = self.looks.front() {
            let silent: Vec<usize> = self.board.silent_since(look.since).collect();
            if !silent.is_empty() && now().since(look.since) < LOOK_PATIENCE {
                return;
            }
            if let Some(look) = self.looks.pop_front() {
                (look.tell)(&self.board, &silent);
            }
        }
    }
}
