//! The peer's end of a channel that runs in datagrams: its socket, and the two tasks that receive
//! and watch the time.
//!
//! What datagrams mean is [`Datagrams`]' business; whose messages they carry, the session's.

use std::{
    cell::Cell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    rc::Rc,
};

use shards::{
    bell::LocalBell,
    clock,
    datagrams::{DatagramSocket, RecvMeta, Transmit},
    task,
};

use super::{
    ConnectionError, SessionError,
    connection::{Core, Link, now},
    liveness::watch_stream,
    scratch::Scratch,
};
use relay_protocol::{Channel, DatagramHeader, DatagramKind, DatagramOffer, Side, time::Time};
use relay_transport::{
    Datagrams, DatagramsConfig, Route, Transport,
    data::CongestionControl,
    datagrams::{DatagramError, Silence},
};

/// Receive calls before other tasks get their turn.
const RECEIVES_PER_TURN_MAX: usize = 16;

/// The socket of one connection's datagrams.
pub(super) struct DatagramEnd {
    socket: DatagramSocket,
    /// Rung when something is due earlier than the timer waits for.
    timer: LocalBell,
    /// What the timer waits for.
    timer_due: Cell<Time>,
    /// Rung when the socket had no room for data.
    full: LocalBell,
    /// Rung when the connection has ended.
    ended: LocalBell,
}

/// The channel that a transport moves to datagrams.
pub(super) fn channel_of(transport: Transport) -> Option<Channel> {
    match transport {
        Transport::Tcp => None,
        Transport::UdpControl => Some(Channel::Control),
        Transport::UdpData => Some(Channel::Data),
    }
}

impl Link {
    /// Opens the datagrams that were offered, if any just were.
    pub(super) fn start_datagrams(
        self: &Rc<Self>,
        scratch: &Scratch,
    ) -> Result<(), ConnectionError> {
        let offer = self.core.borrow_mut().offer.take();
        let Some(offer) = offer else { return Ok(()) };
        let socket = open(&self.socket).map_err(|error| self.io_error(error))?;
        let end = Rc::new(DatagramEnd {
            socket,
            timer: LocalBell::new(),
            timer_due: Cell::new(Time::ZERO),
            full: LocalBell::new(),
            ended: LocalBell::new(),
        });
        let mut core = self.core.borrow_mut();
        let mut datagrams = self.datagrams(&core, &offer);
        if core.session.datagram_channel() == Some(Channel::Data) {
            datagrams.open_data(congestion_control(&self.socket), end.socket.room_bytes());
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
            task::spawn_isolated(run, move |text| super::connection::fail(&panicked, &text));
        }
        let (watched, panicked) = (Rc::downgrade(self), Rc::downgrade(self));
        task::spawn_isolated(watch_stream(watched), move |text| {
            super::connection::fail(&panicked, &text);
        });
        Ok(())
    }

    fn datagrams(&self, core: &Core, offer: &DatagramOffer) -> Datagrams {
        let keys = core.session.datagram_keys(offer);
        let route = Some(Route { socket: 0, remote: self.remote, local: None });
        let DatagramOffer { shard, connection, .. } = *offer;
        // A peer challenges nobody: it knows where its relay is.
        let side = Side::Peer;
        let config = DatagramsConfig { side, shard, connection, keys, route, challenge_seed: 0 };
        Datagrams::new(config, now())
    }

    /// The connection has ended: both tasks end.
    pub(super) fn end_datagrams(&self) {
        if let Some(end) = &self.core.borrow().datagrams {
            end.ended.ring();
            end.full.ring();
            end.timer.ring();
        }
    }

    /// Everything that is here to be received, or a good part of it; false when nothing is left.
    fn receive_turn(&self, end: &DatagramEnd, buffer: &mut [u8]) -> bool {
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
        if self.broken.get() {
            // It says its last words: nothing counts any more.
            return Ok(());
        }
        let now = now();
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        // It knows one address of the relay, whichever of them answers: the seal proves it.
        let route = Route { socket: 0, remote: self.remote, local: None };
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
            DatagramError::Decode(error) => ConnectionError::Decode { remote: self.remote, error },
            error @ (DatagramError::Frame(_) | DatagramError::RunsAhead(_)) => {
                self.io_error(io::Error::other(error.to_string()))
            }
        }
    }

    fn silence_error(&self, silence: Silence) -> ConnectionError {
        match silence {
            Silence::Unanswered(after) => {
                ConnectionError::DatagramsUnanswered { remote: self.remote, after }
            }
            Silence::Ceased(after) => {
                let text = format!("no datagram came for {} s", after.as_secs());
                self.io_error(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }
}

impl Core {
    /// Sends the datagrams that are to go now.
    pub(super) fn transmit(&mut self, now: Time) {
        let (Some(end), Some(datagrams)) = (&self.datagrams, self.queue.datagrams_mut()) else {
            return;
        };
        let mut contents = Vec::new();
        while let Some(route) = datagrams.poll_transmit(now, &mut contents) {
            let transmit = Transmit {
                destination: route.remote,
                ecn: None,
                contents: &contents,
                segment_size: None,
                src_ip: None,
            };
            // What the kernel does not take is lost like anything else on its way.
            if let Err(error) = end.socket.try_send(&transmit) {
                tracing::debug!(remote = %route.remote, "failed to send a datagram: {error}");
            }
            contents.clear();
        }
        let segments_max = end.socket.segments_max();
        while let Some(data) = datagrams.poll_data(now, u64::MAX, segments_max, &mut contents) {
            let segments = contents.len().div_ceil(data.segment_bytes);
            let transmit = Transmit {
                destination: data.route.remote,
                ecn: None,
                contents: &contents,
                segment_size: (segments > 1).then_some(data.segment_bytes),
                src_ip: None,
            };
            if let Err(error) = end.socket.try_send(&transmit) {
                if error.kind() == io::ErrorKind::WouldBlock {
                    datagrams.data_mut().expect("just sent by it").handle_unsent(data.first);
                    end.full.ring();
                    break;
                }
                tracing::debug!(remote = %data.route.remote, "failed to send data: {error}");
                if error.raw_os_error() != Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
                    break;
                }
                // Too long, mostly a probe: shorter ones may go.
                datagrams.data_mut().expect("just sent by it").handle_refused();
            }
            contents.clear();
        }
        if datagrams.poll_timeout() < end.timer_due.get() {
            end.timer.ring();
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

/// As the stream's, so that its datagrams are no rougher than it is.
#[cfg(target_os = "linux")]
fn congestion_control(stream: &shards::Socket) -> CongestionControl {
    let name = rustix::net::sockopt::tcp_congestion(stream);
    name.map(|name| CongestionControl::like_tcp(&name)).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn congestion_control(_: &shards::Socket) -> CongestionControl {
    CongestionControl::default()
}

/// On the address that the stream uses, so that datagrams take the same path.
fn open(stream: &shards::Socket) -> io::Result<DatagramSocket> {
    let mut local: SocketAddr = stream.local_addr()?;
    local.set_port(0);
    DatagramSocket::from_std(std::net::UdpSocket::bind(local)?)
}

async fn receive(link: &Rc<Link>, end: &DatagramEnd, scratch: &Scratch) {
    while !link.closed.get() {
        let more = link.receive_turn(end, scratch.borrow_mut().bytes_mut());
        link.pump();
        // Acknowledgements may have made room.
        link.drained.set();
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
async fn wait_writable(link: &Rc<Link>, end: &DatagramEnd) {
    loop {
        end.full.wait().await;
        if link.closed.get() {
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

async fn watch_time(link: &Rc<Link>, end: &DatagramEnd) {
    while !link.closed.get() {
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
