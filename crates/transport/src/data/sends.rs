//! The chunks that are to be sent: which ranges of each are lacking, which are not acknowledged, and
//! what is to be told of them. Knows nothing of datagrams, time, or how much may be under way.
//!
//! Invariant: sends are in the order of their ids; a send's `lacking` is part of its `open`, which is
//! what was not acknowledged; a send that has nothing open has gone, once those before it have; no
//! send before `next_lacking` lacks anything.

use std::{collections::VecDeque, ops::Range, rc::Rc};

use super::ranges::RangeSet;
use crate::{
    payload::Payload,
    send_queue::{CutOff, SendEvent},
};
use relay_protocol::{
    DataPieceHeader,
    limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX},
};

/// One datagram's part of a send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    pub(super) send: u64,
    pub(super) range: Range<u32>,
    pub(super) is_again: bool,
}

impl Piece {
    /// File bytes in it.
    #[must_use]
    pub fn len_bytes(&self) -> u32 {
        self.range.end - self.range.start
    }
}

#[derive(Debug)]
struct Send {
    id: u64,
    payload: Rc<Payload>,
    tag: u32,
    /// Not acknowledged.
    open: RangeSet,
    /// Neither acknowledged nor under way.
    lacking: RangeSet,
    /// All before was given to the network at least once.
    reached: u32,
    begun: bool,
}

/// All sends of one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Sends {
    all: VecDeque<Send>,
    events: VecDeque<SendEvent>,
    next_id: u64,
    /// The first send that may lack something has this id or a later one.
    next_lacking: u64,
}

impl Sends {
    /// A chunk from `offset` (a whole number of frames) on.
    pub(super) fn push(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        let len = payload.len_bytes();
        assert!(offset < len, "nothing of the chunk is left to send");
        assert_eq!(offset as usize % FRAME_PAYLOAD_BYTES_MAX, 0, "sends begin with a frame");
        let id = self.next_id;
        self.next_id += 1;
        let (open, lacking) = (RangeSet::from(offset..len), RangeSet::from(offset..len));
        let (reached, begun) = (offset, false);
        self.all.push_back(Send { id, payload, tag, open, lacking, reached, begun });
    }

    /// Everything that was pushed has arrived, or was cut off.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<SendEvent> {
        self.events.pop_front()
    }

    /// Cuts off the send with this tag.
    pub(super) fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        let at = self.all.iter().position(|send| send.tag == tag)?;
        self.cut_off(at)
    }

    /// Cuts off the send of this chunk, if there is one.
    pub(super) fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        let at = self.all.iter().position(|send| send.payload.chunk() == chunk)?;
        self.cut_off(at)
    }

    /// Sends no more of this chunk, as its receiver spoke of it. Unlike one that is recalled it is not to
    /// be sent again: what is under way counts as sent.
    pub(super) fn drop_rest(&mut self, chunk: u32) -> Option<CutOff> {
        let at = self.all.iter().position(|send| send.payload.chunk() == chunk)?;
        let send = self.all.remove(at)?;
        self.finish_first();
        let lacking = u32::try_from(send.lacking.len_bytes()).expect("part of a chunk");
        let reached_bytes = send.payload.len_bytes() - lacking;
        Some(CutOff { chunk, tag: send.tag, reached_bytes })
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// What is not known to have arrived counts as not sent: it may be lost.
    fn cut_off(&mut self, at: usize) -> Option<CutOff> {
        let send = self.all.remove(at)?;
        self.finish_first();
        let whole_frames = |open: Range<u32>| open.start - open.start % FRAME_PAYLOAD_LEN_MAX;
        let reached_bytes = send.open.first().map_or(send.payload.len_bytes(), whole_frames);
        Some(CutOff { chunk: send.payload.chunk(), tag: send.tag, reached_bytes })
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.all.binary_search_by_key(&id, |send| send.id).ok()
    }

    /// Of what lacks first: which send, and the range.
    fn next_range(&self) -> Option<(&Send, Range<u32>)> {
        let from = self.all.partition_point(|send| send.id < self.next_lacking);
        self.all.range(from..).find_map(|send| Some((send, send.lacking.first()?)))
    }

    /// Something was not sent yet, or was lost.
    pub(super) fn lacks_any(&self) -> bool {
        self.next_range().is_some()
    }

    /// File bytes of the smallest piece that could go next.
    pub(super) fn next_piece_len(&self) -> Option<u32> {
        let range = self.next_range()?.1;
        Some((range.end - range.start).min(FRAME_PAYLOAD_LEN_MAX))
    }

    /// The next piece, at most `most` long.
    pub(super) fn next_piece(&self, most: u32) -> Option<Piece> {
        let (send, range) = self.next_range()?;
        let is_again = range.start < send.reached;
        let end = if is_again { range.end.min(send.reached) } else { range.end };
        let end = end.min(range.start + most);
        Some(Piece { send: send.id, range: range.start..end, is_again })
    }

    /// Appends a piece that was asked for just now to a datagram.
    pub(super) fn write_piece(&self, piece: &Piece, out: &mut Vec<u8>) {
        let send = &self.all[self.position(piece.send).expect("just peeked")];
        let (chunk, offset) = (send.payload.chunk(), piece.range.start);
        let header = DataPieceHeader { chunk, offset, tag: send.tag };
        let at = out.len();
        out.extend_from_slice(&header.encode(0));
        let begin = out.len();
        if send.payload.append_to(out, &piece.range).is_err() {
            // The receiver sees that it is damaged, as if the path had done it.
            out.resize(begin + piece.len_bytes() as usize, 0);
        }
        let crc = send.payload.part_crc(&out[begin..], &piece.range);
        out[at..begin].copy_from_slice(&header.encode(crc));
    }

    /// The piece went out.
    pub(super) fn handle_sent(&mut self, piece: &Piece) {
        let Some(at) = self.position(piece.send) else { return };
        let send = &mut self.all[at];
        send.lacking.remove(&piece.range);
        send.reached = send.reached.max(piece.range.end);
        if !std::mem::replace(&mut send.begun, true) {
            let (chunk, tag) = (send.payload.chunk(), send.tag);
            self.events.push_back(SendEvent::Begun { chunk, tag });
        }
        if send.lacking.is_empty() {
            // Pieces are always of the first send that lacks something.
            self.next_lacking = piece.send + 1;
        }
    }

    /// The piece did not go out after all. Of several, the last one is told first.
    pub(super) fn handle_unsent(&mut self, piece: &Piece) {
        let Some(at) = self.position(piece.send) else { return };
        let send = &mut self.all[at];
        send.lacking.insert(piece.range.clone());
        if !piece.is_again {
            send.reached = piece.range.start;
        }
        self.next_lacking = self.next_lacking.min(piece.send);
    }

    /// This part of a send has arrived.
    pub(super) fn handle_arrived(&mut self, id: u64, range: &Range<u32>) {
        let Some(at) = self.position(id) else { return };
        let send = &mut self.all[at];
        send.open.remove(range);
        send.lacking.remove(range);
        self.finish_first();
    }

    /// Sends finish in the order in which they were pushed: what waits for one learns no later than
    /// when those before are through, or gone.
    fn finish_first(&mut self) {
        while let Some(first) = self.all.front()
            && first.open.is_empty()
        {
            let (chunk, tag) = (first.payload.chunk(), first.tag);
            self.events.push_back(SendEvent::Finished { chunk, tag });
            self.all.pop_front();
        }
    }

    /// This part of a send was lost: what of it has not come by another way lacks again.
    pub(super) fn handle_lost(&mut self, id: u64, range: &Range<u32>) {
        let Some(at) = self.position(id) else { return };
        let send = &mut self.all[at];
        for range in send.open.intersection(range) {
            send.lacking.insert(range);
            self.next_lacking = self.next_lacking.min(id);
        }
    }

    /// Asserts what always holds.
    pub(super) fn invariants(&self) {
        debug_assert!(self.all.iter().is_sorted_by_key(|send| send.id));
        for send in &self.all {
            debug_assert!(send.lacking.iter().all(|range| send.open.covers(&range)));
            debug_assert!(send.id >= self.next_lacking || send.lacking.is_empty());
        }
    }
}
