//! Chunks on their way from one peer: received into leased buffers, verified, blamed. Pure.
//!
//! The rule of blame: a wrong digest with right checksums means that the sender lied; with a
//! wrong checksum the link did it.

use std::{collections::VecDeque, sync::Arc};

use shards::budget::{ChunkBuffer, Lease};

use super::{
    cells::{Drop, Dropped},
    fault::Fault,
    message::{FetchOrder, FetchedChunk},
};
use crate::{
    protocol::{
        DataHeader, Manifest,
        limits::{FETCHES_PER_PEER_MAX, FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
    },
    swarm::{FetchFailure, FetchId},
    transport::payload::frame_crcs,
};

/// Cancelled fetches whose late bytes are recognised and discarded; older ones are forgotten,
/// and bytes for them break the protocol. Twice what can be under way.
const CANCELLED_MAX: usize = 2 * FETCHES_PER_PEER_MAX;

/// The fetches outstanding at one peer.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    open: Vec<Incoming>,
    cancelled: VecDeque<FetchId>,
    dropped: Dropped,
}

/// A fetch that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub fetch_id: FetchId,
    pub result: Result<FetchedChunk, FetchFailure>,
}

#[derive(Debug)]
struct Incoming {
    fetch_id: FetchId,
    chunk: u32,
    len_bytes: u32,
    manifest: Arc<Manifest>,
    room: Room,
    /// As the sender stated them.
    crcs: Vec<u32>,
}

/// Memory is allocated when the first byte arrives, leased before it is asked for.
#[derive(Debug)]
enum Room {
    Leased(Option<Lease>),
    Filling(ChunkBuffer),
}

impl Fetching {
    pub(crate) fn begin(&mut self, fetch: FetchOrder) {
        let FetchOrder { fetch_id, chunk, manifest, lease } = fetch;
        let len_bytes = manifest.key().chunk_len_bytes(chunk);
        let room = Room::Leased(Some(lease));
        self.open.push(Incoming { fetch_id, chunk, len_bytes, manifest, room, crcs: Vec::new() });
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
        }
    }

    /// Ends all fetches: nothing will come any more.
    pub(crate) fn abandon(&mut self) {
        while let Some(fetch_id) = self.open.last().map(|incoming| incoming.fetch_id) {
            self.remove(fetch_id);
        }
        self.cancelled.clear();
    }

    /// A whole chunk is not told to anybody, as the connection ends.
    pub(crate) fn drop_whole(&mut self, chunk: &FetchedChunk) {
        self.dropped[Drop::Cancelled as usize] += chunk.bytes.len() as u64;
    }

    /// Ends a fetch that is of no more use; what still comes for it is discarded.
    pub(crate) fn cancel(&mut self, fetch_id: FetchId) -> Option<Lease> {
        let lease = self.remove(fetch_id)?;
        if self.cancelled.len() == CANCELLED_MAX {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(fetch_id);
        Some(lease)
    }

    /// Bytes that came in vain since the last call.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// A piece of a frame; what ended with it.
    pub(crate) fn handle_data(
        &mut self,
        header: &DataHeader,
        piece: &[u8],
        is_last: bool,
    ) -> Result<Option<Ended>, Fault> {
        let fetch_id = FetchId(header.tag);
        let Some(at) = self.open.iter().position(|incoming| incoming.fetch_id == fetch_id) else {
            if self.cancelled.contains(&fetch_id) {
                self.dropped[Drop::Late as usize] += piece.len() as u64;
                return Ok(None);
            }
            self.dropped[Drop::Protocol as usize] += piece.len() as u64;
            return Err(Fault::protocol("file bytes that nobody asked for"));
        };
        let incoming = &mut self.open[at];
        if let Err(fault) = incoming.append(header, piece, is_last) {
            self.dropped[Drop::Protocol as usize] += piece.len() as u64;
            return Err(fault);
        }
        if !is_last || !incoming.is_whole() {
            return Ok(None);
        }
        let incoming = self.open.swap_remove(at);
        let len_bytes = u64::from(incoming.len_bytes);
        let result = incoming.verify();
        match result {
            Err(FetchFailure::Lied) => self.dropped[Drop::WrongDigest as usize] += len_bytes,
            Err(FetchFailure::Damaged) => self.dropped[Drop::LinkCorrupt as usize] += len_bytes,
            _ => {}
        }
        Ok(Some(Ended { fetch_id, result }))
    }
}

impl Incoming {
    fn append(&mut self, header: &DataHeader, piece: &[u8], is_last: bool) -> Result<(), Fault> {
        let offset = u32::try_from(self.crcs.len() * FRAME_PAYLOAD_BYTES_MAX)
            .expect("a chunk is at most 16 MiB");
        let left = self.len_bytes.saturating_sub(offset);
        let expected = left.min(FRAME_PAYLOAD_LEN_MAX);
        if header.chunk != self.chunk || header.offset != offset || header.payload_len != expected {
            return Err(Fault::protocol(format!(
                "a frame of chunk {} at {} where chunk {} at {offset} was to follow",
                header.chunk, header.offset, self.chunk
            )));
        }
        if let Room::Leased(lease) = &mut self.room {
            let lease = lease.take().expect("leased until the first byte");
            self.room = Room::Filling(lease.buffer(self.len_bytes as usize));
        }
        if let Room::Filling(buffer) = &mut self.room {
            buffer.append(piece);
        }
        if is_last {
            self.crcs.push(header.crc);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        matches!(&self.room, Room::Filling(buffer) if buffer.is_full())
    }

    fn verify(self) -> Result<FetchedChunk, FetchFailure> {
        let Room::Filling(buffer) = self.room else {
            unreachable!("only whole chunks are verified")
        };
        let crcs = frame_crcs(&buffer);
        if self.manifest.matches(self.chunk, &buffer) {
            return Ok(FetchedChunk { bytes: buffer.freeze(), crcs });
        }
        Err(if *crcs == *self.crcs { FetchFailure::Lied } else { FetchFailure::Damaged })
    }
}
