//! The receive buffer that all connections of a shard share, and how one read fills it.
//!
//! File bytes come in frames of 16 KiB, each behind a header. A read scatters them: headers to one
//! place, payloads side by side to another, so that what is hashed is as long as the read and not as
//! the frame. Where that guess of what comes next is wrong, the parts are still in order: a
//! decoder that takes them one after another sees the stream as it was. Owned by no connection; empty between
//! reads.

use std::{
    io::{self, IoSliceMut},
    ops::Range,
};

use shards::net::Socket;

use relay_protocol::{
    DATA_HEADER_BYTES, DataHeader, DecodeError, Decoder, Event, Run,
    limits::FRAME_PAYLOAD_BYTES_MAX,
};

/// Whole frames of one read, at most: 1 MiB of file bytes, should that much lie there ([`super::Reader`]
/// begins with less). The list of where they go stays on the
/// stack: taken from the allocator for every read it was 1.6% of both programs' samples in the main job.
pub const FRAMES_PER_READ_MAX: usize = 64;

/// Parts of one read: the rest of a frame, then a header and a payload for each whole one.
const PARTS_MAX: usize = 1 + 2 * FRAMES_PER_READ_MAX;

const _: () = assert!(PARTS_MAX <= shards::net::SLICES_MAX);

/// Room for the rest of one frame and some whole ones.
#[derive(Debug)]
pub struct ReceiveBuffer {
    headers: Box<[[u8; DATA_HEADER_BYTES]]>,
    payloads: Box<[u8]>,
    /// The frames that begin within the run that is being put together.
    followers: Vec<DataHeader>,
}

/// Where a read puts what comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes before the first header.
    lead: usize,
    /// Whole frames after that.
    frames: usize,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The system said so.
    #[error("{0}")]
    Io(io::Error),
    /// The other side sent what is not of the protocol.
    #[error("{0}")]
    Decode(DecodeError),
    /// The handler refused an event.
    #[error("{0}")]
    Handler(E),
}

impl ReceiveBuffer {
    /// For reads of at most `frames` whole frames and the rest of one.
    ///
    /// # Panics
    /// If those are more than [`FRAMES_PER_READ_MAX`].
    #[must_use]
    pub fn new(frames: usize) -> Self {
        assert!(frames <= FRAMES_PER_READ_MAX, "{frames} frames are too many for one read");
        Self {
            headers: vec![[0; DATA_HEADER_BYTES]; frames].into_boxed_slice(),
            payloads: vec![0; (1 + frames) * FRAME_PAYLOAD_BYTES_MAX].into_boxed_slice(),
            followers: Vec::with_capacity(frames),
        }
    }

    /// Room for bytes of any kind.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.payloads
    }

    /// For what most likely comes: after the rest of the frame under way, so many frames at most, or
    /// else anything.
    pub(super) fn layout(&self, payload_left: usize, frames: usize) -> Layout {
        match frames.min(self.headers.len()) {
            0 => Layout { lead: self.payloads.len(), frames: 0 },
            frames => Layout { lead: payload_left, frames },
        }
    }

    /// One non-blocking read; the number of bytes, as [`Socket::try_read`].
    pub(super) fn fill(&mut self, socket: &Socket, layout: Layout) -> io::Result<usize> {
        if layout.frames == 0 {
            return socket.try_read(&mut self.payloads[..layout.lead]);
        }
        let mut slices: [_; PARTS_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(self.parts_mut(layout)) {
            *slice = IoSliceMut::new(part);
            count += 1;
        }
        socket.try_read_vectored(&mut slices[..count])
    }

    /// As [`Self::fill`], from memory instead of a socket.
    #[cfg(any(test, feature = "exercise"))]
    pub(super) fn scatter(&mut self, layout: Layout, mut bytes: &[u8]) {
        for part in self.parts_mut(layout) {
            let (here, later) = bytes.split_at(bytes.len().min(part.len()));
            part[..here.len()].copy_from_slice(here);
            bytes = later;
        }
        assert!(bytes.is_empty(), "no more than there is room for");
    }

    /// Where the parts of the stream go, in order.
    fn parts_mut(&mut self, layout: Layout) -> impl Iterator<Item = &mut [u8]> {
        let (lead, payloads) = self.payloads.split_at_mut(layout.lead);
        let payloads = payloads.chunks_exact_mut(FRAME_PAYLOAD_BYTES_MAX);
        let frames = self.headers.iter_mut().zip(payloads).take(layout.frames);
        let frames = frames.flat_map(|(header, payload)| [header.as_mut_slice(), payload]);
        // An empty one would be one more for the kernel to look at.
        Some(lead).filter(|lead| !lead.is_empty()).into_iter().chain(frames)
    }

    /// Every event in the `count` bytes that a read in this layout brought, in order, file bytes that
    /// lie together as one; whether there were any.
    pub(super) fn decode<E>(
        &mut self,
        layout: Layout,
        count: usize,
        decoder: &mut Decoder,
        handler: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<bool, ReadError<E>> {
        let Self { headers, payloads, followers } = self;
        // A handler that panicked has left its own.
        followers.clear();
        let mut joiner = Joiner { payloads, followers, pending: None, has_data: false, handler };
        let mut left = count;
        for (part, at) in layout.parts(headers, payloads) {
            let mut input = &part[..part.len().min(left)];
            left -= input.len();
            let end = at.map(|at| at + input.len());
            while let Some(event) = decoder.decode(&mut input).transpose() {
                joiner.take(event, end.map(|end| end - input.len()))?;
            }
            if left == 0 {
                break;
            }
        }
        joiner.hand_on()?;
        Ok(joiner.has_data)
    }
}

/// Joins file bytes that lie together.
struct Joiner<'a, H> {
    payloads: &'a [u8],
    /// The frames that begin within the pending run.
    followers: &'a mut Vec<DataHeader>,
    pending: Option<Pending>,
    has_data: bool,
    handler: &'a mut H,
}

/// A run that is being put together, of the payloads in `place`.
struct Pending {
    header: DataHeader,
    frame_offset: u32,
    place: Range<usize>,
    is_last: bool,
}

impl<H> Joiner<'_, H> {
    /// The next event, or what it failed with. File bytes end at `end` of the payloads, if they are
    /// there.
    fn take<E>(
        &mut self,
        event: Result<Event<'_>, DecodeError>,
        end: Option<usize>,
    ) -> Result<(), ReadError<E>>
    where
        H: FnMut(Event<'_>) -> Result<(), E>,
    {
        self.has_data |= matches!(event, Ok(Event::Data(_)));
        match (event, end) {
            (Ok(Event::Data(run)), Some(end)) => {
                let place = end - run.bytes.len()..end;
                if self.extend(&run, &place) {
                    return Ok(());
                }
                self.hand_on()?;
                let Run { header, frame_offset, is_last, .. } = run;
                self.pending = Some(Pending { header, frame_offset, place, is_last });
                Ok(())
            }
            (event, _) => {
                // What came before counts, whatever this is.
                self.hand_on()?;
                (self.handler)(event.map_err(ReadError::Decode)?).map_err(ReadError::Handler)
            }
        }
    }

    /// Whether a run of one frame, in that place, goes on where the pending one ends, as it now does.
    fn extend(&mut self, run: &Run<'_>, place: &Range<usize>) -> bool {
        let Some(pending) = self.pending.as_mut().filter(|run| run.place.end == place.start) else {
            return false;
        };
        // All pieces of a frame follow each other: else it is a new one.
        if pending.is_last {
            let DataHeader { chunk, offset, payload_len, tag, .. } =
                *self.followers.last().unwrap_or(&pending.header);
            let next = &run.header;
            if (next.chunk, next.tag, next.offset) != (chunk, tag, offset + payload_len) {
                return false;
            }
            self.followers.push(*next);
        }
        pending.place.end = place.end;
        pending.is_last = run.is_last;
        true
    }

    /// Hands the pending run on, if there is one.
    fn hand_on<E>(&mut self) -> Result<(), ReadError<E>>
    where
        H: FnMut(Event<'_>) -> Result<(), E>,
    {
        let Some(Pending { header, frame_offset, place, is_last }) = self.pending.take() else {
            return Ok(());
        };
        let bytes = &self.payloads[place];
        let run = Run { header, frame_offset, followers: self.followers, bytes, is_last };
        let result = (self.handler)(Event::Data(run)).map_err(ReadError::Handler);
        self.followers.clear();
        result
    }
}

impl Layout {
    /// Most bytes that a read brings.
    pub(super) fn len_bytes(self) -> usize {
        self.lead + self.frames * (DATA_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX)
    }

    /// The same, or what begins it: no more than so many bytes, headers aside, of which one frame fits.
    pub(super) fn at_most(self, bytes_max: usize) -> Self {
        debug_assert!(
            bytes_max >= FRAME_PAYLOAD_BYTES_MAX,
            "a read of nothing would look like the end"
        );
        let lead = self.lead.min(bytes_max);
        Self { lead, frames: self.frames.min((bytes_max - lead) / FRAME_PAYLOAD_BYTES_MAX) }
    }

    /// The parts of the stream in order, and where those among the payloads are.
    fn parts<'a>(
        self,
        headers: &'a [[u8; DATA_HEADER_BYTES]],
        payloads: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Option<usize>)> {
        let (lead, payloads) = payloads.split_at(self.lead);
        let starts = (self.lead..).step_by(FRAME_PAYLOAD_BYTES_MAX);
        let payloads = payloads.chunks_exact(FRAME_PAYLOAD_BYTES_MAX).zip(starts);
        let frames = headers.iter().zip(payloads).take(self.frames);
        let frames = frames.flat_map(|(header, (payload, start))| {
            [(header.as_slice(), None), (payload, Some(start))]
        });
        std::iter::once((lead, Some(0))).chain(frames)
    }
}

#[cfg(test)]
mod tests;
