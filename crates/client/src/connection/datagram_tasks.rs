//! The tasks of a channel that runs in datagrams: they receive, wait for room, and watch the time.
//!
//! What datagrams mean is [`Datagrams`]' business; whose messages they carry, the session's.

use std::{
    io::{self, IoSliceMut},
    rc::Rc,
};

use shards::{clock, datagrams::RecvMeta, task};

use super::{
    core::{Core, now},
    datagram_socket::ConnectionDatagrams,
    link::{Link, Scratch, fail},
    liveness::watch_stream,
};
use crate::error::{ConnectionError, SessionError};
use relay_protocol::{Channel, DatagramHeader, DatagramKind, DatagramOffer, Side};
use relay_transport::{
    Datagrams, DatagramsConfig, Route,
    datagrams::{DatagramError, Silence},
};

/// Receive calls before other tasks get their turn.
const RECEIVES_PER_TURN_MAX: usize = 16;

impl Link {
    /// Opens the datagrams that were offered, if any just were.
    pub(super) fn start_datagrams(
        self: &Rc<Self>,
        scratch: &Scratch,
    ) -> Result<(), ConnectionError> {
        let offer = self.core.borrow_mut().offer.take();
        let Some(offer) = offer else { return Ok(()) };
        let opened = ConnectionDatagrams::open(&self.socket);
        let end = Rc::new(opened.map_err(|error| self.io_error(error))?);
        let mut core = self.core.borrow_mut();
        let mut datagrams = self.datagrams(&core, &offer);
        if core.session.datagram_channel() == Some(Channel::Data) {
            end.open_data(&self.socket, &mut datagrams);
        }
        core.queue.open_datagrams(datagrams);
        core.datagrams = Some(Rc::clone(&end));
        drop(core);
        for task in [Task::Receive, Task::WaitWritable, Task::WatchTime] {
            let (link, end, panicked) = (Rc::clone(self), Rc::clone(&end), Rc::downgrade(self));
            let scratch = Rc::clone(scratch);
            let run = async move {
                match task {
                    Task::Receive => receive(&link, &end, &scratch).await,
                    Task::WaitWritable => wait_writable(&link, &end).await,
                    Task::WatchTime => watch_time(&link, &end).await,
                }
            };
            task::spawn_isolated(run, move |text| fail(&panicked, &text));
        }
        let (watched, panicked) = (Rc::downgrade(self), Rc::downgrade(self));
        task::spawn_isolated(watch_stream(watched), move |text| {
            fail(&panicked, &text);
        });
        Ok(())
    }

    fn datagrams(&self, core: &Core, offer: &DatagramOffer) -> Datagrams {
        let keys = core.queue.datagram_keys().expect("an offer came under TLS");
        let route = Some(Route { socket: 0, remote: self.remote.addr(), local: None });
        let DatagramOffer { shard, connection, .. } = *offer;
        // A peer challenges no address: it knows where its relay is.
        let side = Side::Peer;
        let config = DatagramsConfig { side, shard, connection, keys, route, challenge_seed: 0 };
        Datagrams::new(config, now())
    }

    /// Everything that is here to be received, or a good part of it; false when nothing is left.
    fn receive_turn(&self, end: &ConnectionDatagrams, buffer: &mut [u8]) -> bool {
        for _ in 0..RECEIVES_PER_TURN_MAX {
            let mut metas = [RecvMeta::default()];
            match end.socket.try_receive(&mut [IoSliceMut::new(buffer)], &mut metas) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.fail(self.io_error(error));
                    return false;
                }
            }
            let [meta] = metas;
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                if let Err(error) = self.handle_datagram(datagram) {
                    self.end_with(error);
                    return false;
                }
            }
        }
        true
    }

    fn handle_datagram(&self, datagram: &[u8]) -> Result<(), ConnectionError> {
        if !self.is_open() {
            // It says its last words: nothing counts any more.
            return Ok(());
        }
        let now = now();
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        // It knows one address of the relay, whichever of them answers: the seal proves it.
        let route = Route { socket: 0, remote: self.remote.addr(), local: None };
        let takes = !core.is_backlogged();
        let Some(datagrams) = core.queue.datagrams_mut() else { return Ok(()) };
        let session = &mut core.session;
        let kind = DatagramHeader::peek(datagram).map(|header| header.kind);
        if kind == Some(DatagramKind::Data) {
            let received = datagrams.handle_data(now, route, datagram, &mut |header, piece| {
                session.handle_piece(now, &header, piece)
            });
            // What was verified before an error counts all the same.
            core.handle_events();
            received.map_err(|error| self.datagram_error(error))?;
            core.session.handle_datagrams_end(now);
            return Ok(());
        }
        let received = datagrams.handle_datagram(now, route, datagram, takes, &mut |message| {
            session.handle_message(now, message)
        });
        core.handle_events();
        received.map_err(|error| self.datagram_error(error))?;
        // Whether more data comes is for the stream's reader to say.
        core.session.handle_turn_end(now, false);
        Ok(())
    }

    /// The stream's reader returns the error; the writing direction stays open for a last word.
    fn end_with(&self, error: ConnectionError) {
        self.core.borrow_mut().error.get_or_insert(error);
        self.close_reading();
    }

    fn datagram_error(&self, error: DatagramError<SessionError>) -> ConnectionError {
        match error {
            DatagramError::Handler(error) => self.session_error(error),
            DatagramError::Decode(error) => {
                ConnectionError::Decode { remote: self.remote.clone(), error }
            }
            error @ (DatagramError::Frame(_) | DatagramError::RunsAhead(_)) => {
                self.io_error(io::Error::other(error.to_string()))
            }
        }
    }

    fn silence_error(&self, silence: Silence) -> ConnectionError {
        match silence {
            Silence::Unanswered(after) => {
                ConnectionError::DatagramsUnanswered { remote: self.remote.clone(), after }
            }
            Silence::Ceased(after) => {
                let text = format!("no datagram came for {} s", after.as_secs());
                self.io_error(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }
}

/// The tasks of one connection's datagrams.
#[derive(Clone, Copy)]
enum Task {
    Receive,
    WaitWritable,
    WatchTime,
}

async fn receive(link: &Rc<Link>, end: &ConnectionDatagrams, scratch: &Scratch) {
    while !link.is_closed() {
        let more = link.receive_turn(end, scratch.borrow_mut().bytes_mut());
        link.pump();
        // Acknowledgements may have made room.
        link.drained.ring();
        if more {
            task::yield_now().await;
            continue;
        }
        match task::race(end.socket.readable(), end.ended.wait()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return link.fail(link.io_error(error)),
            Err(()) => return,
        }
    }
}

/// Goes on with the data that the socket had no room for. Its wait ends by itself: the kernel sends
/// what the socket holds.
async fn wait_writable(link: &Rc<Link>, end: &ConnectionDatagrams) {
    loop {
        end.full.wait().await;
        if link.is_closed() {
            return;
        }
        if let Err(error) = end.socket.writable().await {
            return link.fail(link.io_error(error));
        }
        if let Some(data) = link.core.borrow_mut().queue.data_mut() {
            data.handle_writable();
        }
        link.pump();
    }
}

async fn watch_time(link: &Rc<Link>, end: &ConnectionDatagrams) {
    while !link.is_closed() {
        let due = link.core.borrow().queue.datagrams().map(Datagrams::poll_timeout);
        let Some(due) = due else { return };
        let now_ = now();
        end.timer_due.set(due);
        if due > now_ {
            // Rung or due, all the same: it is looked at again.
            clock::timeout(due.since(now_), end.timer.wait()).await;
            continue;
        }
        let timed_out =
            link.core.borrow_mut().queue.datagrams_mut().map(|d| d.handle_timeout(now_));
        if let Some(Err(silence)) = timed_out {
            return link.fail(link.silence_error(silence));
        }
        link.pump();
        // What is due and can't be sent must not keep the loop busy.
        task::yield_now().await;
    }
}
