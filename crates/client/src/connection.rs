//! The shell of one connection: moves what a session says and hears through a socket, keeps
//! chunks in a store, and tells an observer.
//!
//! Four tasks share a `Link`: a reader (the connection's life), a writer that acts only when the
//! socket was full, one that hears what a store has done where that takes time, and a timer that
//! ends once it has nothing to watch. No reference to the core is held across an await. Connecting again is
//! [`super::peer`]'s business.

mod core;
mod datagram_socket;
mod datagram_tasks;
mod keeping;
mod linger;
mod link;
mod liveness;
mod tasks;
mod upload_limit;

use std::rc::Rc;

use shards::task;

pub use self::link::{Scratch, new_scratch};
pub(super) use self::{
    core::{End, Surroundings, now},
    link::Link,
};
use self::{
    link::fail,
    tasks::{pace_uploads, watch_store, watch_time, write_when_full},
};

use super::{
    error::{ConnectionError, SessionError},
    file_state::FileState,
};
use relay_protocol::Event;
use relay_transport::{ReadError, ReadOutcome, Reader};

/// What is left when a connection has ended.
pub(super) struct Finished {
    pub(super) result: Result<End, ConnectionError>,
    /// For the next connection, as are the surroundings.
    pub(super) file: FileState,
    pub(super) surroundings: Surroundings,
    /// Whether the relay had accepted the peer.
    pub(super) was_accepted: bool,
}

impl Link {
    /// Runs until the connection ends.
    pub(super) async fn run(self: Rc<Self>, scratch: &Scratch) -> Finished {
        let (writer, timer) = (Rc::downgrade(&self), Rc::downgrade(&self));
        task::spawn_isolated(write_when_full(Rc::clone(&self)), move |text| fail(&writer, &text));
        task::spawn_isolated(watch_time(Rc::downgrade(&self)), move |text| fail(&timer, &text));
        if self.core.borrow().limit.is_some() {
            let panicked = Rc::downgrade(&self);
            task::spawn_isolated(pace_uploads(Rc::clone(&self)), move |text| {
                fail(&panicked, &text)
            });
        }
        if self.core.borrow_mut().keeping.watch(&self.stored) {
            let keeper = Rc::downgrade(&self);
            let watching = watch_store(Rc::clone(&self));
            task::spawn_isolated(watching, move |text| fail(&keeper, &text));
        }
        let result = self.read(scratch).await;
        if let Some(failure) = self.last_word(&result) {
            self.say_last(failure, scratch).await;
        }
        // What the kernel has taken still goes out; a writer that waits for room must not go on.
        self.shutdown();
        // What was verified is kept before the next connection asks what there is.
        self.core.borrow_mut().keeping.handle_disconnected();
        while !self.core.borrow().keeping.is_at_rest() {
            self.drained.wait().await;
        }
        self.close_for_good();
        let mut core = self.core.borrow_mut();
        let result = match (result, core.error.take()) {
            // The store failed while the connection ended: no other connection would help.
            (Err(_) | Ok(End::Left), Some(failed @ ConnectionError::Store { .. })) => Err(failed),
            (result, _) => result,
        };
        let was_accepted = core.session.is_joined();
        let (file, surroundings) = core.take_apart();
        Finished { result, file, surroundings, was_accepted }
    }

    async fn read(self: &Rc<Self>, scratch: &Scratch) -> Result<End, ConnectionError> {
        let mut reader = Reader::new();
        self.pump();
        let mut is_drained = true;
        loop {
            if is_drained {
                let readable = self.socket.readable().await;
                readable.map_err(|error| self.io_error(error))?;
            }
            let (outcome, is_full) = self.read_turn(&mut reader, scratch)?;
            self.start_datagrams(scratch)?;
            self.pump();
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            if outcome == ReadOutcome::Closed {
                return Err(ConnectionError::Closed(self.remote.clone()));
            }
            is_drained = !is_full;
            if is_full {
                // Others of the shard have waited while all that there was room for was worked on. Then it
                // is read again at once: acknowledgements wait until nothing more is there.
                task::yield_now().await;
            }
            while self.core.borrow().is_backlogged() && self.is_open() {
                self.drained.wait().await;
            }
            while self.core.borrow().keeping.is_full() && self.is_open() {
                self.drained.wait().await;
            }
        }
    }

    /// One read and everything that follows from it; also whether it filled its room.
    fn read_turn(
        &self,
        reader: &mut Reader,
        scratch: &Scratch,
    ) -> Result<(ReadOutcome, bool), ConnectionError> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let started = now();
        let buffer = &mut scratch.borrow_mut();
        let outcome = reader.read(&self.socket, buffer, &mut |event: Event<'_>| match event {
            Event::Data(run) => {
                // Latency counts to the moment of verification, so chunks' ends ask the clock.
                let ends_chunk = run.is_last && core.session.ends_chunk(run.last_header());
                core.session.handle_data(if ends_chunk { now() } else { started }, &run)
            }
            Event::Control(piece) => core.handle_sealed(started, piece),
            Event::Preamble { .. } => core.session.handle_preamble(),
        });
        // What was verified before an error counts all the same.
        core.handle_events();
        let outcome = outcome.map_err(|error| self.read_error(error))?;
        if matches!(outcome, ReadOutcome::Read { .. }) {
            self.heard_at.set(started);
        }
        let is_full = matches!(outcome, ReadOutcome::Read { is_full: true, .. });
        core.session.handle_turn_end(now(), !is_full);
        Ok((outcome, is_full))
    }

    fn end(&self) -> Result<Option<End>, ConnectionError> {
        let mut core = self.core.borrow_mut();
        match core.error.take() {
            Some(error) => Err(error),
            None => Ok(core.end),
        }
    }

    fn read_error(&self, error: ReadError<SessionError>) -> ConnectionError {
        match error {
            ReadError::Io(error) => self.io_error(error),
            ReadError::Decode(error) => {
                ConnectionError::Decode { remote: self.remote.clone(), error }
            }
            ReadError::Handler(error) => self.session_error(error),
        }
    }
}
