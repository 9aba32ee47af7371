//! File bytes of one chunk that lie together in memory, as they come out of a stream.

use super::frame::DataHeader;

/// File bytes of one chunk that follow each other, in the file and in memory: a piece of one frame,
/// or of several frames one behind the other. Never empty.
///
/// Invariant: all its frames are of one chunk and one tag, each begins where the one before ends,
/// and all but the last end within the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run<'a> {
    /// The frame that it begins in, the same for all pieces of a frame.
    pub header: DataHeader,
    /// Where in that frame's payload it begins, in bytes.
    pub frame_offset: u32,
    /// The frames that begin within it.
    pub followers: &'a [DataHeader],
    /// The bytes, in the receive buffer.
    pub bytes: &'a [u8],
    /// Whether its last frame ends with it.
    pub is_last: bool,
}

impl<'a> Run<'a> {
    /// The frame that it ends in.
    #[must_use]
    pub fn last_header(&self) -> &DataHeader {
        self.followers.last().unwrap_or(&self.header)
    }

    /// Payload bytes of the frames that end within it, counted whole.
    #[must_use]
    pub fn ended_bytes(&self) -> u64 {
        let headers = std::iter::once(&self.header).chain(self.followers);
        let ended = self.followers.len() + usize::from(self.is_last);
        headers.take(ended).map(|header| u64::from(header.payload_len)).sum()
    }

    /// What of it lies before this offset in the chunk, and the rest: cut where a frame begins, and not
    /// before the first.
    #[must_use]
    pub fn split_at(self, offset: u32) -> (Self, Option<Self>) {
        let Some(at) = self.followers.iter().position(|header| header.offset >= offset) else {
            return (self, None);
        };
        let (followers, beyond) = self.followers.split_at(at);
        let header = beyond[0];
        let begin = header.offset - self.header.offset - self.frame_offset;
        let (bytes, rest) = self.bytes.split_at(begin as usize);
        let beyond = Run { header, frame_offset: 0, followers: &beyond[1..], bytes: rest, ..self };
        (Run { followers, bytes, is_last: true, ..self }, Some(beyond))
    }

    /// Frame by frame.
    pub fn frames(self) -> impl Iterator<Item = Run<'a>> {
        let mut left = Some(self);
        std::iter::from_fn(move || {
            let (frame, rest) = left.take()?.split_at(0);
            left = rest;
            Some(frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(offset: u32, payload_len: u32) -> DataHeader {
        DataHeader { chunk: 3, offset, payload_len, tag: 0, checksum: offset }
    }

    #[test]
    fn a_run_falls_apart_into_its_frames() {
        let bytes: Vec<u8> = (0..30).collect();
        let followers = [header(16, 16), header(32, 16)];
        let run = Run {
            header: header(0, 16),
            frame_offset: 6,
            followers: &followers,
            bytes: &bytes,
            is_last: false,
        };
        let frames: Vec<Run<'_>> = run.frames().collect();
        let lens: Vec<usize> = frames.iter().map(|frame| frame.bytes.len()).collect();
        assert_eq!(lens, [10, 16, 4]);
        assert!(frames.iter().all(|frame| frame.followers.is_empty()));
        let offsets: Vec<u32> = frames.iter().map(|frame| frame.header.offset).collect();
        assert_eq!(offsets, [0, 16, 32]);
        assert_eq!(frames.iter().map(|frame| frame.frame_offset).collect::<Vec<_>>(), [6, 0, 0]);
        assert_eq!(
            frames.iter().map(|frame| frame.is_last).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert_eq!(frames.iter().map(Run::ended_bytes).sum::<u64>(), run.ended_bytes());
        assert_eq!(run.ended_bytes(), 32);
        assert_eq!(run.last_header(), &followers[1]);
        assert_eq!(run.split_at(33), (run, None));
        let (before, beyond) = run.split_at(32);
        assert_eq!(before.frames().collect::<Vec<_>>(), frames[..2]);
        assert_eq!(beyond, Some(frames[2]));
        let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes).copied().collect();
        assert_eq!(joined, bytes);
    }
}
