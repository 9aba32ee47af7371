//! Streams of the other side: which lane or chunk each is of, and the pieces of chunks as they come.
//!
//! Each stream is read in order, so what was lost holds up its own chunk. What is not read yet, and what came before
//! something that was lost, lies in the library, bounded by this side's windows: that holds the other side back.

use std::collections::{HashMap, VecDeque};

use quinn_proto::{Connection, Dir, StreamId};

use super::{
    lanes::Lanes,
    reading::{Next, next},
};
use relay_protocol::{
    DataPieceHeader, DataStreamHeader, FrameError, datagram::DATA_STREAM_HEADER_BYTES,
    limits::CHUNK_BYTES_MAX,
};

#[derive(Debug)]
struct Arrival {
    header: [u8; DATA_STREAM_HEADER_BYTES],
    header_len: usize,
    /// File bytes that were read.
    read_bytes: u64,
    is_queued: bool,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) enum ArrivalError<E> {
    /// A stream is not of the protocol.
    Frame(FrameError),
    /// The handler's.
    Handler(E),
}

/// The other side's streams that are not lanes.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// What they are is not known: their first byte has not come, or was not looked at.
    fresh: Vec<StreamId>,
    /// One of these may have a first byte now.
    has_news: bool,
    all: HashMap<StreamId, Arrival>,
    readable: VecDeque<StreamId>,
    discarded_bytes: u64,
}

impl Arrivals {
    /// The other side has opened streams.
    pub(super) fn handle_opened(&mut self, connection: &mut Connection) {
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            self.fresh.push(id);
            self.has_news = true;
        }
    }

    /// Finds out what streams are of which that is not known.
    ///
    /// # Errors
    /// One is nothing that may begin here.
    pub(super) fn sort(
        &mut self,
        connection: &mut Connection,
        lanes: &mut Lanes,
        takes_data: bool,
    ) -> Result<(), FrameError> {
        if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        let mut refused = None;
        let (all, readable, discarded) =
            (&mut self.all, &mut self.readable, &mut self.discarded_bytes);
        self.fresh.retain(|&id| match next(connection, id, 1) {
            Next::Blocked => true,
            Next::Ended => false,
            Next::Reset(sent_bytes) => {
                *discarded += sent_bytes.min(CHUNK_BYTES_MAX);
                false
            }
            Next::Bytes(bytes) => {
                let kind = bytes[0];
                if kind == DataStreamHeader::KIND && takes_data {
                    all.insert(id, Arrival::new());
                    readable.push_back(id);
                } else if !lanes.take_stream(kind, id) {
                    refused = Some(FrameError::Kind(kind));
                }
                false
            }
        });
        refused.map_or(Ok(()), Err)
    }

    /// A stream has something to read.
    pub(super) fn handle_readable(&mut self, id: StreamId) {
        self.has_news |= self.fresh.contains(&id);
        if let Some(arrival) = self.all.get_mut(&id).filter(|arrival| !arrival.is_queued) {
            arrival.is_queued = true;
            self.readable.push_back(id);
        }
    }

    /// Whether there may be something to read.
    pub(super) fn has_unread(&self) -> bool {
        !self.readable.is_empty()
    }

    /// The first stream that was opened, if it is not known what it is.
    pub(super) fn first(&self) -> Option<StreamId> {
        self.fresh.first().copied()
    }

    /// The first stream that was opened is a lane's, and its kind was read.
    pub(super) fn hand_over_first(&mut self, lanes: &mut Lanes, kind: u8) {
        lanes.take_stream(kind, self.fresh.remove(0));
    }

    /// File bytes that the other side sent and took back, since this was last asked.
    pub(super) fn take_discarded(&mut self) -> u64 {
        std::mem::take(&mut self.discarded_bytes)
    }

    /// Hands on pieces of chunks, with at most about so many file bytes; how many there were.
    pub(super) fn read<E>(
        &mut self,
        connection: &mut Connection,
        bytes_max: u64,
        handler: &mut impl FnMut(DataPieceHeader, &[u8]) -> Result<(), E>,
    ) -> Result<u64, ArrivalError<E>> {
        let mut total = 0;
        while total < bytes_max
            && let Some(&id) = self.readable.front()
        {
            let arrival = self.all.get_mut(&id).expect("only streams that there are can be read");
            let is_known = arrival.header_len == DATA_STREAM_HEADER_BYTES;
            let wanted = if is_known { bytes_max - total } else { arrival.header_left() };
            match next(connection, id, wanted) {
                Next::Bytes(bytes) if is_known => {
                    let piece = arrival.piece(bytes.len()).map_err(ArrivalError::Frame)?;
                    total += bytes.len() as u64;
                    handler(piece, &bytes).map_err(ArrivalError::Handler)?;
                }
                Next::Bytes(bytes) => arrival.handle_header(&bytes),
                Next::Blocked => {
                    arrival.is_queued = false;
                    self.readable.pop_front();
                }
                Next::Ended => self.forget(id),
                Next::Reset(sent_bytes) => {
                    let sent_bytes = sent_bytes.min(CHUNK_BYTES_MAX);
                    self.discarded_bytes += sent_bytes.saturating_sub(arrival.read_bytes);
                    self.forget(id);
                }
            }
        }
        Ok(total)
    }

    /// The first of those that can be read is done with.
    fn forget(&mut self, id: StreamId) {
        self.readable.pop_front();
        self.all.remove(&id);
    }
}

impl Arrival {
    /// The first byte of its header was read, and it can be read on.
    fn new() -> Self {
        let mut header = [0; DATA_STREAM_HEADER_BYTES];
        header[0] = DataStreamHeader::KIND;
        Self { header, header_len: 1, read_bytes: 0, is_queued: true }
    }

    /// Bytes of the header that have not come.
    fn header_left(&self) -> u64 {
        (DATA_STREAM_HEADER_BYTES - self.header_len) as u64
    }

    fn handle_header(&mut self, bytes: &[u8]) {
        self.header[self.header_len..][..bytes.len()].copy_from_slice(bytes);
        self.header_len += bytes.len();
    }

    /// What so many bytes are that come next.
    fn piece(&mut self, len: usize) -> Result<DataPieceHeader, FrameError> {
        let DataStreamHeader { chunk, offset, tag } = DataStreamHeader::decode(&self.header);
        let at = u64::from(offset) + self.read_bytes;
        self.read_bytes += len as u64;
        let offset = u32::try_from(at).map_err(|_| FrameError::Length)?;
        Ok(DataPieceHeader { chunk, offset, tag })
    }
}
