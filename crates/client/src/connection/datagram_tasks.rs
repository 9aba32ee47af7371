//! The tasks of the channels that run in datagrams: they receive, wait for room, and watch the time.
//!
//! What datagrams mean is [`Datagrams`]' business; whose messages they carry, the session's.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use shards::{clock, datagrams::RecvMeta, task};

use super::{
    core::{Core, now},
    datagram_socket::ConnectionDatagrams,
    link::{Link, Scratch, fail},
    liveness::watch_stream,
};
use crate::error::{ConnectionError, SessionError};
use relay_protocol::DatagramOffer;
use relay_transport::{
    Datagrams, DatagramsConfig, Route,
    datagrams::{Address, DatagramError, PathSettings, Silence},
};

/// Receive calls before other tasks get their turn.
const RECEIVES_PER_TURN_MAX: usize = 16;

/// The timer sleeps no longer at a time: then it is looked at again.
const TIMER_MAX: Duration = Duration::from_secs(60);

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
        let path = end.path(&self.socket, self.datagrams_to());
        let datagrams = self.datagrams(&core, &offer, path);
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

    fn datagrams(&self, core: &Core, offer: &DatagramOffer, path: PathSettings) -> Datagrams {
        let secret = core.queue.datagram_secret().expect("an offer came under TLS");
        let channel = core.session.datagram_channel().expect("an offer that was asked for");
        let DatagramOffer { shard, connection } = *offer;
        let address = Address { shard, connection };
        let config = DatagramsConfig { address, secret, channel, path };
        Datagrams::connect(&config, &self.trust, (&self.host, self.datagrams_to()), now())
    }

    /// Where datagrams go: to this machine where the address is of no machine, as the system takes it for streams.
    fn datagrams_to(&self) -> SocketAddr {
        let mut addr = self.remote.addr();
        match addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        addr
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
            if let Err(error) = self.read_datagrams() {
                self.end_with(error);
                return false;
            }
        }
        true
    }

    fn handle_datagram(&self, datagram: &[u8]) -> Result<(), ConnectionError> {
        if !self.is_open() {
            // It says its last words: nothing counts any more.
            return Ok(());
        }
        // It knows one address of the relay, whichever of them answers: QUIC's seal proves it.
        let route = Route { socket: 0, remote: self.datagrams_to(), local: None };
        let mut core = self.core.borrow_mut();
        let Some(datagrams) = core.queue.datagrams_mut() else { return Ok(()) };
        let handled = datagrams.handle_datagram(now(), route, datagram);
        handled.map(drop).map_err(|error| self.datagram_error(error))
    }

    /// Hands what has come to the session.
    fn read_datagrams(&self) -> Result<(), ConnectionError> {
        if !self.is_open() {
            return Ok(());
        }
        let mut core = self.core.borrow_mut();
        let read = core.read_datagrams(now());
        // What was verified before an error counts all the same.
        core.handle_events();
        read.map_err(|error| self.datagram_error(error))
    }

    /// The stream's reader returns the error; the writing direction stays open for a last word.
    fn end_with(&self, error: ConnectionError) {
        self.core.borrow_mut().error.get_or_insert(error);
        self.close_reading();
    }

    fn datagram_error(&self, error: DatagramError<SessionError>) -> ConnectionError {
        let remote = self.remote.clone();
        match error {
            DatagramError::Handler(error) => self.session_error(error),
            DatagramError::Decode(error) => ConnectionError::Decode { remote, error },
            DatagramError::Silence(Silence::Unanswered(after)) => {
                ConnectionError::DatagramsUnanswered { remote, after }
            }
            DatagramError::Silence(silence @ Silence::Ceased(_)) => {
                self.io_error(io::Error::new(io::ErrorKind::TimedOut, silence.to_string()))
            }
            error => self.io_error(io::Error::other(error.to_string())),
        }
    }
}

impl Core {
    /// Hands messages and file bytes that came in datagrams to the session.
    fn read_datagrams(
        &mut self,
        now: relay_protocol::time::Time,
    ) -> Result<(), DatagramError<SessionError>> {
        while !self.is_backlogged() {
            let Some(datagrams) = self.queue.datagrams_mut() else { return Ok(()) };
            let Some(message) = datagrams.poll_message()? else { break };
            self.session.handle_message(now, message).map_err(DatagramError::Handler)?;
        }
        let (session, queue) = (&mut self.session, &mut self.queue);
        if let Some(data) = queue.data_mut() {
            data.read_data(now, u64::MAX, &mut |header, piece| {
                session.handle_piece(now, &header, piece)
            })?;
            session.handle_discarded(data.take_discarded());
        }
        Ok(())
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
        link.core.borrow_mut().session.handle_turn_end(now(), !more);
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

/// Goes on with what the socket had no room for. Its wait ends by itself: the kernel sends what the socket holds.
async fn wait_writable(link: &Rc<Link>, end: &ConnectionDatagrams) {
    loop {
        end.full.wait().await;
        if link.is_closed() {
            return;
        }
        if let Err(error) = end.socket.writable().await {
            return link.fail(link.io_error(error));
        }
        if let Some(datagrams) = link.core.borrow_mut().queue.datagrams_mut() {
            datagrams.handle_writable();
        }
        link.pump();
    }
}

async fn watch_time(link: &Rc<Link>, end: &ConnectionDatagrams) {
    while !link.is_closed() {
        let now_ = now();
        let due = match link.core.borrow_mut().queue.datagrams_mut() {
            Some(datagrams) => datagrams.poll_timeout().unwrap_or(now_ + TIMER_MAX),
            None => return,
        };
        end.timer_due.set(due);
        if due > now_ {
            // Rung or due, all the same: it is looked at again.
            clock::timeout(due.since(now_).min(TIMER_MAX), end.timer.wait()).await;
            continue;
        }
        let timed_out =
            link.core.borrow_mut().queue.datagrams_mut().map(|d| d.handle_timeout(now_));
        if let Some(Err(error)) = timed_out {
            return link.fail(link.datagram_error(error));
        }
        if let Err(error) = link.read_datagrams() {
            return link.end_with(error);
        }
        link.pump();
        // What is due and can't be sent must not keep the loop busy.
        task::yield_now().await;
    }
}
