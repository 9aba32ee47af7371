//! A connection's data, if it runs in datagrams: sending it, and what is heard of it.
//!
//! Decides nothing about loss or congestion: that is the transport's business.

use super::{Connection, ReadCounts};
use crate::{fault::Fault, message::NewsItem, session::Session, shard::now};
use relay_protocol::{Message, time::Time};
use relay_transport::{
    Channels, SendEvent, WRITE_BYTES_MAX,
    data::{DataCounts, DataOut},
    datagrams::DataTransmit,
};

impl Connection {
    /// Data could be sent in datagrams now.
    pub(super) fn wants_data(&self, queue: &Channels, session: &Session) -> bool {
        queue.data().is_some_and(|data| !data.is_empty())
            && queue
                .datagrams()
                .is_some_and(|datagrams| datagrams.wants_data(now(), session.room_bytes()))
    }

    /// Hands datagrams of data to `send`, as window and path allow, but only so many in a turn;
    /// file bytes in those that it took.
    pub(crate) fn transmit_data(
        &self,
        now: Time,
        segments_max: usize,
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&DataTransmit, &[u8]) -> Sent,
    ) -> u64 {
        let mut queue = self.queue.borrow_mut();
        let mut session = self.session.borrow_mut();
        let mut sent_bytes = 0;
        while sent_bytes < WRITE_BYTES_MAX as u64
            && !self.is_closing.get()
            && let Some(datagrams) = queue.datagrams_mut()
        {
            let room_bytes = session.room_bytes();
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
            session.window_mut().handle_sent(now, transmit.data_bytes, is_held);
            if sent == Sent::TooLong {
                datagrams.data_mut().expect("just sent by it").handle_refused();
            }
            if sent != Sent::Taken {
                break;
            }
        }
        self.after_data(&mut queue, &mut session);
        sent_bytes
    }

    /// The socket of its datagrams has room again.
    pub(crate) fn handle_datagrams_writable(&self) {
        if let Some(data) = self.queue.borrow_mut().data_mut() {
            data.handle_writable();
        }
    }

    /// A message came over the stream; some are for its channels.
    pub(super) fn handle_streamed(
        &self,
        now: Time,
        session: &mut Session,
        message: Message,
        counts: &ReadCounts<'_>,
    ) -> Result<(), Fault> {
        let mut queue = self.queue.borrow_mut();
        match queue.handle_control(now, message) {
            Some(message) => {
                drop(queue);
                self.handle_message(session, message, counts)
            }
            None => {
                self.after_data(&mut queue, session);
                Ok(())
            }
        }
    }

    /// What happened to data in datagrams becomes news, and what was lost is under way no longer.
    pub(super) fn after_data(&self, queue: &mut Channels, session: &mut Session) {
        if let Some(data) = queue.data_mut() {
            session.window_mut().handle_lost(data.take_lost_bytes());
            tell_sent(queue, session);
        }
    }

    /// What became of data in datagrams since the last time.
    pub(crate) fn take_data_counts(&self) -> DataCounts {
        self.queue.borrow_mut().data_mut().map(DataOut::take_counts).unwrap_or_default()
    }
}

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

/// What happened to deliveries becomes news. Of those that have begun only the last can be
/// unfinished on a stream; in datagrams all are told of.
pub(super) fn tell_sent(queue: &mut Channels, session: &mut Session) {
    let mut begun = Vec::new();
    while let Some(event) = queue.poll_event() {
        match event {
            SendEvent::Begun { chunk, .. } => begun.push(chunk),
            SendEvent::Finished { chunk, .. } => {
                begun.retain(|&other| other != chunk);
                session.tell(NewsItem::Written(chunk));
            }
        }
    }
    for chunk in begun {
        session.tell(NewsItem::Begun(chunk));
    }
}
