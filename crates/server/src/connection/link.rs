//! One connection without its socket: its session, what it has still to write, how far it is with both.
//!
//! Plain state: events go in, what is to be written and told comes out. What runs in datagrams is in
//! [`super::packets`].

use std::{collections::HashMap, rc::Rc, time::Duration};

use super::life::{Life, Membership};
use crate::{
    message::{NewsItem, PeerNews},
    observe::cells::{Dropped, Seconds},
    session::{Fault, Session},
};
use relay_protocol::{Channel, Event, Failure, Message, time::Time};
use relay_transport::{Channels, Datagrams, Payload, Secure, SendEvent, Written};

/// Control bytes that a peer may leave unread before the relay stops reading from it: a manifest
/// part and some answers fit many times over.
const CONTROL_QUEUE_BYTES_MAX: usize = 64 << 10;

/// Control bytes below which further manifest parts are queued.
const MANIFEST_QUEUE_BYTES: usize = 8 << 10;

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub session: Session,
    pub queue: Channels,
    pub life: Life,
    pub membership: Membership,
    /// The kernel takes no more for now: the writable task waits.
    pub is_blocked: bool,
    last_progress: Time,
    /// For so long data in datagrams had waited when all of it was recalled: that clock stands, and
    /// goes on with the next delivery, so that recalls don't keep a peer that stopped.
    waited: Duration,
    /// Deliveries under way, by chunk: since when, for the latency metric.
    deliveries: HashMap<u32, Time>,
    held: Held,
}

/// Since when this relay's own limits hold the connection back: that counts against no peer.
#[derive(Debug, Default)]
struct Held {
    /// What it would be sent waits.
    sending: Option<Time>,
    /// What it has sent is not read.
    reading: Option<Time>,
}

/// What a connection's home is told, and how many claims are in it.
pub(crate) struct News {
    pub news: PeerNews,
    pub claims: u32,
}

/// What the end of a connection's part in its swarm leaves to do.
pub(crate) struct Parting {
    /// Bytes that came in vain.
    pub dropped: Dropped,
    /// What it was.
    pub was: Membership,
    /// What it said just before it went.
    pub news: Option<News>,
}

impl Link {
    pub(crate) fn new(session: Session, secure: Secure, now: Time) -> Self {
        Self {
            session,
            queue: Channels::new(secure),
            life: Life::default(),
            membership: Membership::default(),
            is_blocked: false,
            last_progress: now,
            waited: Duration::ZERO,
            deliveries: HashMap::new(),
            held: Held::default(),
        }
    }

    /// One thing came over the stream; effects are left in the session.
    pub(crate) fn handle_event(
        &mut self,
        event: &Event<'_>,
        counts: &mut ReadCounts<'_>,
    ) -> Result<(), Fault> {
        match event {
            Event::Preamble { version } => self.session.handle_preamble(*version),
            Event::Control(piece) => self.handle_sealed(piece, counts),
            Event::Data(run) => {
                counts.data_bytes += run.bytes.len() as u64;
                self.session.handle_data(run)
            }
        }
    }

    /// A piece of what is under TLS came: whatever it completes is handled.
    fn handle_sealed(&mut self, mut piece: &[u8], counts: &ReadCounts<'_>) -> Result<(), Fault> {
        while self.queue.open(&mut piece).map_err(|error| Fault::of_secure(&error))? {
            if let Some(binding) = self.queue.poll_secured() {
                let uploads = self.queue.upload_key().expect("TLS has begun");
                self.session.handle_secured(binding, uploads);
            }
            while let Some(message) = self.poll_message()? {
                self.handle_streamed(message, counts)?;
            }
        }
        Ok(())
    }

    fn poll_message(&mut self) -> Result<Option<Message>, Fault> {
        self.queue.poll_message().map_err(|error| Fault::protocol(error.to_string()))
    }

    /// A message came over the stream.
    fn handle_streamed(&mut self, message: Message, counts: &ReadCounts<'_>) -> Result<(), Fault> {
        self.queue.handle_streamed(&message);
        handle_message(&mut self.session, &mut self.deliveries, message, counts)
    }

    /// What is needed to hand in a datagram: its channels, and what hears a message in it.
    pub(super) fn split(&mut self) -> (&mut Channels, &mut Session, &mut HashMap<u32, Time>) {
        (&mut self.queue, &mut self.session, &mut self.deliveries)
    }

    /// What the peer has told to have taken in.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.session.window().received_bytes()
    }

    /// Whether it may be read from: its answers and news must not pile up.
    pub(crate) fn may_read(&self) -> bool {
        !self.life.is_closing()
            && self.queue.control_bytes() < CONTROL_QUEUE_BYTES_MAX
            && !self.session.is_news_full()
    }

    /// Whether the reader has nothing left to wait for.
    pub(crate) fn ends_when_read(&self) -> bool {
        self.life.is_deaf() && !self.session.is_news_full()
    }

    /// Which channels run in datagrams, if any does.
    pub(crate) fn datagram_channel(&self) -> Option<Channel> {
        self.queue.datagrams().map(Datagrams::channel)
    }

    /// Something could be written now, with at most so many new file bytes.
    pub(crate) fn wants_write(&self, bytes_max: u64) -> bool {
        let room_bytes = self.session.room_bytes().min(bytes_max);
        let window_is_open =
            self.queue.next_frame_len().is_some_and(|len| u64::from(len) <= room_bytes);
        !self.is_blocked
            && self.life.takes_bytes()
            && (self.queue.has_urgent()
                || self.feeds_manifest()
                || window_is_open
                || self.queue.data().is_some_and(|data| data.takes_data(room_bytes)))
    }

    pub(super) fn feeds_manifest(&self) -> bool {
        self.session.has_manifest_part()
            && self.queue.control_bytes() < MANIFEST_QUEUE_BYTES
            && !self.life.is_closing()
    }

    /// Queues parts of the manifest that the peer waits for, if there is room; whether it did.
    pub(super) fn feed_manifest(&mut self) -> bool {
        let mut fed = false;
        while self.feeds_manifest()
            && let Some(part) = self.session.poll_manifest_part()
        {
            self.queue.push_control(&part);
            fed = true;
        }
        fed
    }

    /// A write follows: queues what goes with it. File bytes that it may have.
    pub(crate) fn prepare_write(&mut self) -> u64 {
        self.feed_manifest();
        self.session.room_bytes()
    }

    /// Something was written; what happened to deliveries becomes news.
    pub(crate) fn handle_written(&mut self, now: Time, written: &Written) {
        // A socket that is full says little about the path: mostly its reader is busy.
        self.session.window_mut().handle_sent(now, written.data_bytes, false);
        if written.total_bytes > 0 && self.queue.data().is_none_or(Datagrams::is_data_empty) {
            // While data waits in datagrams, what the kernel takes for the stream tells nothing of it.
            self.note_progress(now);
        }
        self.is_blocked = written.blocked;
        self.tell_sent();
    }

    /// Queues a delivery.
    pub(crate) fn deliver(&mut self, now: Time, payload: Rc<Payload>, offset: u32) {
        self.deliveries.insert(payload.chunk(), now);
        if self.queue.data().is_some_and(Datagrams::is_data_empty) {
            // Nothing was waited for until now.
            self.last_progress = now - std::mem::take(&mut self.waited);
        }
        self.queue.push_data(payload, 0, offset);
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &Message) {
        self.queue.push_control(message);
    }

    /// Says why; nothing else is said or heard any more. False if something ended it before.
    pub(crate) fn say_last(&mut self, until: Time, failure: Failure) -> bool {
        let is_first = self.life.say_last(until);
        if is_first {
            self.queue.drop_data();
            self.queue.push_control(&Message::Failure(failure));
        }
        is_first
    }

    /// Nothing more is heard; whether there is something left to say, or to be heard.
    pub(crate) fn stop_hearing(&mut self) -> bool {
        self.life.stop_hearing();
        self.queue.drop_data();
        !self.life.is_cut() && (self.life.words_until().is_some() || self.queue.has_urgent())
    }

    /// Ends the connection's part in its swarm, once. Of what it said before, no more than so many claims.
    pub(crate) fn leave(&mut self, claims_max: u32) -> Option<Parting> {
        let was = self.membership.leave()?;
        self.session.handle_closing();
        let dropped = self.session.take_dropped();
        // What it said just before it went counts.
        let news = was.member().filter(|_| self.session.has_news()).map(|(swarm, peer)| {
            let allowance_bytes = self.session.window().allowance_bytes();
            let mut left = claims_max;
            let items = self.session.take_news(&mut left);
            let news = PeerNews { swarm, peer, allowance_bytes, items };
            News { news, claims: claims_max - left }
        });
        Some(Parting { dropped, was, news })
    }

    /// Whether its home must hear something of it.
    pub(crate) fn has_news(&self) -> bool {
        self.membership.member().is_some() && self.session.has_news()
    }

    /// What its home must hear, but no more than so many claims; `None` if that is nothing for now.
    pub(crate) fn take_news(&mut self, claims_max: u32) -> Option<News> {
        let (swarm, peer) = self.membership.member()?;
        let allowance_bytes = self.session.window().allowance_bytes();
        let mut left = claims_max;
        let items = self.session.take_news(&mut left);
        if self.session.has_news() && items.is_empty() {
            return None;
        }
        let news = PeerNews { swarm, peer, allowance_bytes, items };
        Some(News { news, claims: claims_max - left })
    }

    /// Takes the chunk back; bytes reached by each send of it that was under way here, the newest first:
    /// a chunk that the peer spoke of is queued anew while an old send is still there.
    pub(crate) fn recall(&mut self, now: Time, chunk: u32) -> Vec<u32> {
        let waited = self.stalled_for(now).unwrap_or_default();
        let cut_offs = std::iter::from_fn(|| self.queue.recall(chunk));
        let mut reached: Vec<u32> = cut_offs.map(|cut_off| cut_off.reached_bytes).collect();
        reached.reverse();
        if !reached.is_empty() && self.queue.data().is_some_and(Datagrams::is_data_empty) {
            self.waited = waited;
        }
        // It may have held those behind it back.
        self.after_data();
        self.deliveries.remove(&chunk);
        reached
    }

    /// Sends no more of a chunk; what won't come becomes news. If the peer has it, what is under way in
    /// datagrams has come; if it has lost it, that is unknown.
    pub(crate) fn cut_off(&mut self, chunk: u32, has_it: bool) {
        let queue = &mut self.queue;
        while let Some(cut_off) = if has_it { queue.drop_rest(chunk) } else { queue.recall(chunk) }
        {
            self.session.tell(NewsItem::CutOff(chunk, cut_off.reached_bytes));
        }
        // It may have held those behind it back.
        self.after_data();
    }

    /// The peer takes what it is given.
    fn note_progress(&mut self, now: Time) {
        self.last_progress = now;
        self.waited = Duration::ZERO;
    }

    /// The same, if the peer has taken more in than before.
    pub(crate) fn note_received(&mut self, now: Time, before_bytes: u64) {
        if self.received_bytes() > before_bytes {
            self.note_progress(now);
        }
    }

    /// How long ago the peer last took or acknowledged a byte, or was first sent one.
    pub(crate) fn quiet_for(&self, now: Time) -> Duration {
        now.since(self.last_progress)
    }

    /// How long data has been waiting for the peer to take a byte; none if no data waits.
    pub(crate) fn stalled_for(&self, now: Time) -> Option<Duration> {
        let room_bytes = self.session.room_bytes();
        let next_piece = self.queue.data().and_then(Datagrams::next_piece_len);
        let could_be_sent = next_piece.is_some_and(|len| u64::from(len) <= room_bytes);
        let waits = self.is_blocked && !self.queue.is_empty()
            || self.session.window().unacknowledged_bytes() > 0
            || could_be_sent && self.held.sending.is_none();
        // What it says of its progress may lie in the socket.
        (waits && self.held.reading.is_none()).then(|| now.since(self.last_progress))
    }

    /// A limit of this relay holds back what the peer would be sent, from now on.
    pub(crate) fn hold_sending(&mut self, now: Time) {
        self.held.sending.get_or_insert(now);
    }

    /// It does so no longer; for how long it has.
    pub(crate) fn release_sending(&mut self, now: Time) -> Duration {
        let Some(since) = self.held.sending.take() else { return Duration::ZERO };
        if self.session.window().unacknowledged_bytes() == 0 {
            // Nothing was waited for but this relay.
            self.note_progress(now);
        }
        now.since(since)
    }

    /// A limit of this relay keeps it from reading, from now on.
    pub(crate) fn hold_reading(&mut self, now: Time) {
        self.held.reading.get_or_insert(now);
    }

    /// It does so no longer; for how long it has.
    pub(crate) fn release_reading(&mut self, now: Time) -> Duration {
        let Some(since) = self.held.reading.take() else { return Duration::ZERO };
        let held = now.since(since);
        self.last_progress = (self.last_progress + held).min(now);
        // What it says now was said a while ago.
        self.session.window_mut().handle_unheard(now, held);
        held
    }

    /// Whether file bytes may come by the stream.
    pub(crate) fn expects_stream_data(&self) -> bool {
        self.session.fetching().is_any_open() && self.queue.data().is_none() && !self.life.is_deaf()
    }

    /// What happened to data in datagrams becomes news.
    pub(super) fn after_data(&mut self) {
        if self.queue.data().is_some() {
            self.tell_sent();
        }
    }

    /// What happened to deliveries becomes news. Of those that have begun only the last can be
    /// unfinished on a stream; in datagrams all are told of.
    pub(super) fn tell_sent(&mut self) {
        let mut begun = Vec::new();
        while let Some(event) = self.queue.poll_event() {
            match event {
                SendEvent::Begun { chunk, .. } => begun.push(chunk),
                SendEvent::Finished { chunk, .. } => {
                    begun.retain(|&other| other != chunk);
                    self.session.tell(NewsItem::Written(chunk));
                }
            }
        }
        for chunk in begun {
            self.session.tell(NewsItem::Begun(chunk));
        }
    }
}

/// A message is for the session; the shard hears of deliveries that it acknowledges.
pub(super) fn handle_message(
    session: &mut Session,
    deliveries: &mut HashMap<u32, Time>,
    message: Message,
    counts: &ReadCounts<'_>,
) -> Result<(), Fault> {
    let spoken_of = match &message {
        Message::Have { ranges } => Some(ranges.clone()),
        Message::Lacking { chunk } => {
            deliveries.remove(chunk);
            None
        }
        _ => None,
    };
    // The session bounds how much is claimed: what it refuses is not looked at.
    session.handle_control(counts.now, message)?;
    for range in spoken_of.into_iter().flatten() {
        counts.acknowledged(deliveries, range.first, range.count);
    }
    Ok(())
}

/// What one read brought, for the shard's cells.
pub(crate) struct ReadCounts<'a> {
    pub now: Time,
    pub total_bytes: u64,
    pub data_bytes: u64,
    pub delivery_seconds: &'a Seconds,
}

impl<'a> ReadCounts<'a> {
    /// Nothing was read so far.
    pub(crate) fn new(now: Time, delivery_seconds: &'a Seconds) -> Self {
        Self { now, total_bytes: 0, data_bytes: 0, delivery_seconds }
    }

    fn acknowledged(&self, deliveries: &mut HashMap<u32, Time>, first: u32, count: u32) {
        // Claims of many chunks at once are no acknowledgements of deliveries under way.
        if count as usize > deliveries.len() {
            return;
        }
        for chunk in first..first.saturating_add(count) {
            if let Some(since) = deliveries.remove(&chunk) {
                self.delivery_seconds.record(self.now.seconds_since(since));
            }
        }
    }
}

#[cfg(test)]
mod tests;
