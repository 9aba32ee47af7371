//! A connection's datagrams: what came in them, and what goes out in them.
//!
//! Decides nothing about loss or congestion: that is the transport's business.

use super::link::{Link, ReadCounts, handle_message};
use crate::session::Fault;
use relay_protocol::{DatagramHeader, DatagramKind, time::Time};
use relay_transport::{
    Datagrams, Route, WRITE_BYTES_MAX,
    data::{DataCounts, DataOut},
    datagrams::{DataTransmit, DatagramError, Received, Silence},
};

/// What became of datagrams that were handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// They are on their way.
    Taken,
    /// The kernel takes nothing more for now.
    Full,
    /// They are lost: the kernel refuses them.
    Refused,
    /// They are lost: the kernel takes none of this length.
    TooLong,
}

impl Link {
    /// A datagram came; effects are left in the session.
    pub(crate) fn handle_datagram(
        &mut self,
        route: Route,
        datagram: &[u8],
        counts: &mut ReadCounts<'_>,
    ) -> Result<Received, DatagramError<Fault>> {
        let now = counts.now;
        let takes_messages = self.may_read();
        let received_before = self.received_bytes();
        let (queue, session, deliveries) = self.split();
        let Some(datagrams) = queue.datagrams_mut() else { return Ok(Received::Forged) };
        let kind = DatagramHeader::peek(datagram).map(|header| header.kind);
        if kind == Some(DatagramKind::Data) {
            // Not what is only there to try a length.
            return datagrams.handle_data(now, route, datagram, &mut |header, piece| {
                counts.data_bytes += piece.len() as u64;
                session.handle_piece(&header, piece)
            });
        }
        let mut handle = |message| handle_message(session, deliveries, message, counts);
        let received =
            datagrams.handle_datagram(now, route, datagram, takes_messages, &mut handle)?;
        self.note_received(now, received_before);
        Ok(received)
    }

    /// Time has passed for the datagrams.
    pub(crate) fn handle_datagrams_timeout(&mut self, now: Time) -> Result<(), Silence> {
        let result = self.queue.datagrams_mut().map_or(Ok(()), |all| all.handle_timeout(now));
        // Nothing is said behind the last word.
        if !self.life.is_closing()
            && self.queue.datagrams_mut().is_some_and(|all| all.poll_poke(now))
        {
            self.queue.poke();
        }
        self.after_data();
        result
    }

    /// When the datagrams have something to do though nothing happens.
    pub(crate) fn poll_datagrams_timeout(&self) -> Option<Time> {
        self.queue.datagrams().map(Datagrams::poll_timeout)
    }

    /// Something could be sent in datagrams now; `now` is asked only where there are any.
    pub(crate) fn wants_transmit(&self, now: impl FnOnce() -> Time) -> bool {
        self.queue
            .datagrams()
            .is_some_and(|datagrams| datagrams.wants_transmit(now()) || self.feeds_manifest())
    }

    /// Hands the datagrams that are to go now to `send`.
    pub(crate) fn transmit(
        &mut self,
        now: Time,
        scratch: &mut Vec<u8>,
        send: impl Fn(Route, &[u8]),
    ) {
        loop {
            let fed = self.feed_manifest();
            let Some(datagrams) = self.queue.datagrams_mut() else { return };
            let mut sent = false;
            while let Some(route) = datagrams.poll_transmit(now, scratch) {
                send(route, scratch);
                scratch.clear();
                sent = true;
            }
            if !fed || !sent {
                return;
            }
        }
    }

    /// Messages that were said again since the last time.
    pub(crate) fn take_resent(&mut self) -> u64 {
        self.queue.datagrams_mut().map_or(0, Datagrams::take_resent)
    }

    /// Hands datagrams of data to `send`, with at most so many file bytes, as window and path allow, but only so many
    /// in a turn; file bytes in those that it took.
    pub(crate) fn transmit_data(
        &mut self,
        now: Time,
        (bytes_max, segments_max): (u64, usize),
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&DataTransmit, &[u8]) -> Sent,
    ) -> u64 {
        let mut sent_bytes = 0;
        while sent_bytes < WRITE_BYTES_MAX as u64
            && !self.life.is_closing()
            && let Some(datagrams) = self.queue.datagrams_mut()
        {
            let room_bytes = self.session.room_bytes().min(bytes_max - sent_bytes);
            scratch.clear();
            let Some(transmit) = datagrams.poll_data(now, room_bytes, segments_max, scratch) else {
                break;
            };
            let sent = send(&transmit, scratch);
            if sent == Sent::Full {
                datagrams.data_mut().expect("just sent by it").handle_unsent(transmit.first);
                break;
            }
            if sent == Sent::Taken {
                sent_bytes += transmit.data_bytes;
            }
            // What the kernel refused is under way, too, until it counts as lost.
            let is_held = datagrams.data().is_some_and(|data| {
                data.next_piece_len().is_some() && data.peek_piece(now, u64::MAX).is_none()
            });
            self.session.window_mut().handle_sent(now, transmit.data_bytes, is_held);
            if sent == Sent::TooLong {
                datagrams.data_mut().expect("just sent by it").handle_refused();
            }
            if sent != Sent::Taken {
                break;
            }
        }
        self.after_data();
        sent_bytes
    }

    /// The socket of its datagrams has room again.
    pub(crate) fn handle_datagrams_writable(&mut self) {
        if let Some(data) = self.queue.data_mut() {
            data.handle_writable();
        }
    }

    /// What became of data in datagrams since the last time.
    pub(crate) fn take_data_counts(&mut self) -> DataCounts {
        self.queue.data_mut().map(DataOut::take_counts).unwrap_or_default()
    }
}
