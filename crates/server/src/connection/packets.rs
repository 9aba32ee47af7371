//! A connection's datagrams: what came in them, and what goes out in them.
//!
//! Decides nothing about loss or congestion: that is QUIC's business.

use super::link::{Link, ReadCounts, handle_message};
use crate::session::Fault;
use relay_protocol::time::Time;
use relay_transport::{
    Datagrams, Route, WRITE_BYTES_MAX,
    datagrams::{DataCounts, DatagramError, Received, Transmission},
};

/// What became of datagrams that were handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// They are on their way, or lost like others on theirs.
    Taken,
    /// The kernel takes nothing more for now.
    Full,
}

/// Why a connection's transmission ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transmitted {
    /// Nothing more is to go.
    All,
    /// There is more, which others' turn comes before.
    Part,
    /// The kernel takes nothing more for now.
    Full,
}

impl Link {
    /// A datagram came; what it brought is read by [`Self::read_datagrams`].
    pub(crate) fn handle_datagram(
        &mut self,
        now: Time,
        route: Route,
        datagram: &[u8],
    ) -> Result<Received, DatagramError<Fault>> {
        let Some(datagrams) = self.queue.datagrams_mut() else { return Ok(Received::Ignored) };
        let received = datagrams.handle_datagram(now, route, datagram);
        self.after_data();
        received
    }

    /// Takes what has come, of file bytes at most about so many; effects are left in the session.
    pub(crate) fn read_datagrams(
        &mut self,
        bytes_max: u64,
        counts: &mut ReadCounts<'_>,
    ) -> Result<(), DatagramError<Fault>> {
        let received_before = self.received_bytes();
        while self.may_read() {
            let (queue, session, deliveries) = self.split();
            let Some(datagrams) = queue.datagrams_mut() else { return Ok(()) };
            let Some(message) = datagrams.poll_message()? else { break };
            handle_message(session, deliveries, message, counts).map_err(DatagramError::Handler)?;
        }
        let (queue, session, _) = self.split();
        if let Some(data) = queue.data_mut() {
            let mut take = |header, piece: &[u8]| session.handle_piece(&header, piece);
            counts.data_bytes += data.read_data(counts.now, bytes_max, &mut take)?;
            // A peer that takes back what it was asked for is noticed by what does not come.
            data.take_discarded();
        }
        self.note_received(counts.now, received_before);
        Ok(())
    }

    /// Something came in datagrams that was not read, and may be now.
    pub(crate) fn has_unread_datagrams(&self, now: Time) -> bool {
        self.queue.datagrams().is_some_and(|datagrams| {
            datagrams.has_unread_messages() && self.may_read() || datagrams.has_unread_data(now)
        })
    }

    /// Time has passed for the datagrams.
    pub(crate) fn handle_datagrams_timeout(
        &mut self,
        now: Time,
    ) -> Result<(), DatagramError<Fault>> {
        let Some(datagrams) = self.queue.datagrams_mut() else { return Ok(()) };
        datagrams.handle_timeout(now)?;
        // Nothing is said behind the last word.
        if datagrams.poll_poke(now) && !self.life.is_closing() {
            self.queue.poke();
        }
        self.after_data();
        Ok(())
    }

    /// When the datagrams have something to do though nothing happens.
    pub(crate) fn poll_datagrams_timeout(&mut self, now: Time) -> Option<Time> {
        if self.has_unread_datagrams(now) {
            return Some(now);
        }
        self.queue.datagrams_mut()?.poll_timeout()
    }

    /// Something could be sent in datagrams now.
    pub(crate) fn wants_transmit(&mut self) -> bool {
        if let Some(data) = self.queue.data_mut() {
            data.expect_data(self.session.fetching().asked_bytes());
        }
        let is_due = self.queue.datagrams().map(Datagrams::wants_transmit);
        is_due.is_some_and(|is_due| is_due || self.feeds_manifest())
    }

    /// Hands the datagrams that are to go now to `send`, as many as a turn lets through.
    pub(crate) fn transmit(
        &mut self,
        now: Time,
        segments_max: usize,
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&Transmission, &[u8]) -> Sent,
    ) -> Transmitted {
        let mut sent_bytes = 0;
        while sent_bytes < WRITE_BYTES_MAX {
            self.feed_manifest();
            let Some(datagrams) = self.queue.datagrams_mut() else { return Transmitted::All };
            scratch.clear();
            let Some(transmission) = datagrams.poll_transmit(now, segments_max, scratch) else {
                return Transmitted::All;
            };
            if send(&transmission, scratch) == Sent::Full {
                datagrams.handle_unsent(transmission, scratch);
                return Transmitted::Full;
            }
            sent_bytes += scratch.len();
        }
        Transmitted::Part
    }

    /// Gives QUIC file bytes to send, at most so many, as the window allows; how many it took.
    pub(crate) fn give_data(&mut self, now: Time, bytes_max: u64) -> u64 {
        let most = self.session.room_bytes().min(bytes_max).min(WRITE_BYTES_MAX as u64);
        if self.life.is_closing() {
            return 0;
        }
        let Some(data) = self.queue.data_mut() else { return 0 };
        let given = data.give_data(most);
        self.session.window_mut().handle_sent(now, given.bytes, given.is_full);
        self.tell_sent();
        given.bytes
    }

    /// The socket of its datagrams has room again.
    pub(crate) fn handle_datagrams_writable(&mut self) {
        if let Some(datagrams) = self.queue.datagrams_mut() {
            datagrams.handle_writable();
        }
    }

    /// What became of datagrams since the last time.
    pub(crate) fn take_datagram_counts(&mut self) -> DataCounts {
        self.queue.datagrams_mut().map(Datagrams::take_counts).unwrap_or_default()
    }
}
