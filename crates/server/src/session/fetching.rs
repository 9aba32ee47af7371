//! Chunks on their way from one peer: received into leased buffers, verified, blamed. Pure.
//!
//! The rule of blame: a wrong digest with right checksums means that the sender lied, as no other can make them; with
//! a wrong checksum the path did it.

use std::sync::Arc;

use shards::budget::{ChunkBuffer, Lease};

use super::effects::Fault;
use crate::{
    message::{FetchOrder, VerifiedChunk},
    observe::cells::{Drop, Dropped},
};
use relay_protocol::{
    DataHeader, DataPieceHeader, Manifest, Run, UploadKey,
    limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
};
use relay_swarm::{FetchFailure, FetchId};
use relay_transport::{payload::frame_crcs, ranges::RangeSet};

/// The fetches outstanding at one peer.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    open: Vec<Incoming>,
    /// The largest id that the peer was ever asked for. Ids only grow, so bytes for a smaller one
    /// that is not open are late: it was cancelled, maybe before the peer heard of it.
    asked_max: Option<FetchId>,
    /// Makes the checksums; none before TLS has begun, when there are no fetches.
    key: Option<UploadKey>,
    dropped: Dropped,
}

/// A fetch that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub fetch_id: FetchId,
    pub result: Result<VerifiedChunk, FetchFailure>,
}

#[derive(Debug)]
struct Incoming {
    fetch_id: FetchId,
    chunk: u32,
    len_bytes: u32,
    manifest: Arc<Manifest>,
    room: Room,
    /// As the sender stated them.
    checksums: Vec<u32>,
    is_to_be_lent: bool,
}

/// Memory is allocated when the first byte arrives, leased before it is asked for.
#[derive(Debug)]
enum Room {
    Leased(Option<Lease>),
    Filling(ChunkBuffer),
    /// Pieces come by several streams of QUIC: these have.
    Scattered(ChunkBuffer, RangeSet),
}

/// Bytes that a chunk has for each run of bytes that came, at least: the streams that carry it are few. Bounds what it
/// takes to know which pieces have come.
const PIECE_BYTES_MIN: u32 = 1024;

impl Fetching {
    /// TLS has begun: what the peer's checksums are made by.
    pub(crate) fn set_key(&mut self, key: UploadKey) {
        self.key = Some(key);
    }

    pub(crate) fn begin(&mut self, fetch: FetchOrder) {
        let FetchOrder { fetch_id, chunk, manifest, lease, is_to_be_lent } = fetch;
        let len_bytes = manifest.key().chunk_len_bytes(chunk);
        let room = Room::Leased(Some(lease));
        self.asked_max = self.asked_max.max(Some(fetch_id));
        self.open.push(Incoming {
            fetch_id,
            chunk,
            len_bytes,
            manifest,
            room,
            checksums: Vec::new(),
            is_to_be_lent,
        });
    }

    /// Whether something is still to come.
    pub(crate) fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// File bytes that the peer was asked for, in chunks that are not whole.
    pub(crate) fn asked_bytes(&self) -> u64 {
        self.open.iter().map(|incoming| u64::from(incoming.len_bytes)).sum()
    }

    /// Ends a fetch that the peer can't answer.
    pub(crate) fn remove(&mut self, fetch_id: FetchId) -> Option<Lease> {
        let at = self.open.iter().position(|incoming| incoming.fetch_id == fetch_id)?;
        match self.open.swap_remove(at).room {
            Room::Leased(lease) => lease,
            Room::Filling(buffer) => {
                self.dropped[Drop::Unfinished as usize] += buffer.len() as u64;
                Some(buffer.into_lease())
            }
            Room::Scattered(buffer, ranges) => {
                self.dropped[Drop::Unfinished as usize] += ranges.len_bytes();
                Some(buffer.into_lease())
            }
        }
    }

    /// Ends all fetches: nothing will come any more.
    pub(crate) fn abandon(&mut self) {
        while let Some(fetch_id) = self.open.last().map(|incoming| incoming.fetch_id) {
            self.remove(fetch_id);
        }
        // Whatever still comes was never asked for.
        self.asked_max = None;
    }

    /// A whole chunk goes to no home any more, as the connection ends.
    pub(crate) fn drop_whole(&mut self, chunk: &VerifiedChunk) {
        self.dropped[Drop::Cancelled as usize] += chunk.buffer.len() as u64;
    }

    /// Ends a fetch that is of no more use; what still comes for it is discarded.
    pub(crate) fn cancel(&mut self, fetch_id: FetchId) -> Option<Lease> {
        self.remove(fetch_id)
    }

    /// Bytes that came in vain since the last call.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Bytes since the last [`Self::take_dropped`] that no open fetch asked for, or that had come before.
    pub(crate) fn late_bytes(&self) -> u64 {
        self.dropped[Drop::Late as usize]
    }

    /// File bytes came; what ended with them.
    pub(crate) fn handle_data(&mut self, run: &Run<'_>) -> Result<Option<Ended>, Fault> {
        let len = run.bytes.len();
        let fetch_id = FetchId(run.header.tag);
        let Some(at) = self.position_or_late(fetch_id, len)? else { return Ok(None) };
        let incoming = &mut self.open[at];
        let (run, beyond) = run.split_at(incoming.len_bytes);
        if let Err(fault) = incoming.append(&run) {
            self.dropped[Drop::Protocol as usize] += len as u64;
            return Err(fault);
        }
        if !run.is_last || !incoming.is_whole() {
            return Ok(None);
        }
        // Frames that go on behind the chunk's end are as late as if they had come by themselves.
        self.dropped[Drop::Late as usize] += beyond.map_or(0, |run| run.bytes.len() as u64);
        Ok(Some(self.end(at)))
    }

    /// The chunk is whole: is it right?
    fn end(&mut self, at: usize) -> Ended {
        let incoming = self.open.swap_remove(at);
        let (fetch_id, len_bytes) = (incoming.fetch_id, u64::from(incoming.len_bytes));
        let result = incoming.verify(self.key.as_ref());
        match result {
            Err(FetchFailure::Lied) => self.dropped[Drop::WrongDigest as usize] += len_bytes,
            Err(FetchFailure::Damaged) => self.dropped[Drop::LinkCorrupt as usize] += len_bytes,
            _ => {}
        }
        Ended { fetch_id, result }
    }

    /// A piece that came in datagrams, by one of several streams; what ended with it.
    pub(crate) fn handle_piece(
        &mut self,
        header: &DataPieceHeader,
        piece: &[u8],
    ) -> Result<Option<Ended>, Fault> {
        let fetch_id = FetchId(header.tag);
        let Some(at) = self.position_or_late(fetch_id, piece.len())? else { return Ok(None) };
        match self.open[at].place(header, piece) {
            Ok((repeated_bytes, is_whole)) => {
                self.dropped[Drop::Late as usize] += repeated_bytes;
                Ok(is_whole.then(|| self.end(at)))
            }
            Err(fault) => {
                self.dropped[Drop::Protocol as usize] += piece.len() as u64;
                Err(fault)
            }
        }
    }

    /// The fetch that file bytes are for; `None` if it is of no more use.
    fn position_or_late(&mut self, id: FetchId, len: usize) -> Result<Option<usize>, Fault> {
        let at = self.open.iter().position(|incoming| incoming.fetch_id == id);
        if at.is_none() {
            if Some(id) > self.asked_max {
                self.dropped[Drop::Protocol as usize] += len as u64;
                return Err(Fault::protocol("file bytes that the relay did not ask for"));
            }
            self.dropped[Drop::Late as usize] += len as u64;
        }
        Ok(at)
    }
}

impl Incoming {
    /// Puts a piece that came in datagrams where it belongs; bytes of it that were there before, and whether the
    /// chunk is whole.
    fn place(&mut self, header: &DataPieceHeader, piece: &[u8]) -> Result<(u64, bool), Fault> {
        let end = u64::from(header.offset) + piece.len() as u64;
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        if header.chunk != self.chunk || end > self.len_bytes {
            return Err(Fault::protocol(format!(
                "{} bytes at {} of chunk {} where chunk {} of {} bytes was asked for",
                piece.len(),
                header.offset,
                header.chunk,
                self.chunk,
                self.len_bytes
            )));
        }
        if let Room::Leased(lease) = &mut self.room {
            let lease = lease.take().expect("leased until the first byte");
            let mut buffer = lease.buffer(self.len_bytes as usize);
            buffer.fill_zeroed();
            self.room = Room::Scattered(buffer, RangeSet::new());
        }
        let Room::Scattered(buffer, ranges) = &mut self.room else {
            return Err(Fault::protocol("a chunk half on the stream and half in datagrams"));
        };
        if ranges.range_count() > (self.len_bytes / PIECE_BYTES_MIN) as usize + 1 {
            return Err(Fault::protocol("a chunk in too many small pieces"));
        }
        buffer[header.offset as usize..end as usize].copy_from_slice(piece);
        let before = ranges.len_bytes();
        ranges.insert(header.offset..end);
        let repeated_bytes = piece.len() as u64 - (ranges.len_bytes() - before);
        Ok((repeated_bytes, ranges.covers(&(0..self.len_bytes))))
    }

    fn append(&mut self, run: &Run<'_>) -> Result<(), Fault> {
        for Run { header, is_last, .. } in run.frames() {
            let offset = u32::try_from(self.checksums.len() * FRAME_PAYLOAD_BYTES_MAX)
                .expect("a chunk is at most 16 MiB");
            let left = self.len_bytes.saturating_sub(offset);
            let DataHeader { chunk, offset: found, payload_len, checksum, .. } = header;
            if (chunk, found, payload_len) != (self.chunk, offset, left.min(FRAME_PAYLOAD_LEN_MAX))
            {
                return Err(Fault::protocol(format!(
                    "a frame of chunk {chunk} at {found} where chunk {} at {offset} was to follow",
                    self.chunk
                )));
            }
            if is_last {
                self.checksums.push(checksum);
            }
        }
        if let Room::Leased(lease) = &mut self.room {
            let lease = lease.take().expect("leased until the first byte");
            self.room = Room::Filling(lease.buffer(self.len_bytes as usize));
        }
        let Room::Filling(buffer) = &mut self.room else {
            return Err(Fault::protocol("a chunk half on the stream and half in datagrams"));
        };
        buffer.append(run.bytes);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        matches!(&self.room, Room::Filling(buffer) if buffer.is_full())
    }

    fn verify(self, key: Option<&UploadKey>) -> Result<VerifiedChunk, FetchFailure> {
        // The peer made the pieces, under QUIC's seal: no link can have changed them.
        let (buffer, is_sealed) = match self.room {
            Room::Filling(buffer) => (buffer, false),
            Room::Scattered(buffer, _) => (buffer, true),
            Room::Leased(_) => unreachable!("only whole chunks are verified"),
        };
        if self.manifest.matches(self.chunk, &buffer) {
            // What the peer stated decides about blame alone: all that get the chunk get checksums of the relay's.
            let crcs = frame_crcs(&buffer);
            let (index, is_to_be_lent) = (self.chunk, self.is_to_be_lent);
            return Ok(VerifiedChunk { index, buffer, crcs, is_to_be_lent });
        }
        let stated = self.checksums.into_iter();
        let are_right = |key: &UploadKey| key.checksums(self.fetch_id.0, &buffer).eq(stated);
        Err(if is_sealed || key.is_some_and(are_right) {
            FetchFailure::Lied
        } else {
            FetchFailure::Damaged
        })
    }
}

#[cfg(test)]
mod tests;
